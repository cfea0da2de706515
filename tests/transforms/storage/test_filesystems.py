"""Stores by Beam's file systems, through Beam's own dispatch by scheme."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.io.filesystem import CompressionTypes

from beam_dedup import cli, deduplicate
from beam_dedup.job import Result
from beam_dedup.options import UsageError
from beam_dedup.reports.lock import OutputLock, discard_run
from tests.beam_dedup.pictures import write_folder
from tests.transforms.storage.systems import MODIFIED_S, Bucket, Tree, served
from transforms.listing import check_inputs, iterate_inputs
from transforms.records import FailedImage, ImageRef
from transforms.reporting.stores import open_store
from transforms.storage import InputError, StorageError, filesystems, read_bytes
from transforms.storage.cache import ListingCache

NAMES = ["b.jpg", "a/x.jpg", "a/y.png", "a/d/é 1%20?x=1#2.jpg", "a[1].jpg", "a1.jpg", "gz.jpg.gz"]


@pytest.fixture(params=["gs", "s3", "hdfs"])
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve a scheme from memory, and return a folder in it."""
    scheme = str(request.param)
    system = Tree if scheme == "hdfs" else Bucket
    with served(system, scheme):
        for name in [f"pics/{name}" for name in NAMES] + ["pics2/c.jpg"]:
            system.objects[f"{scheme}://buck/{name}"] = name.encode()
        yield f"{scheme}://buck/pics"


def system_of(root: str) -> type[Bucket]:
    return Tree if root.startswith("hdfs") else Bucket


def names(*inputs: str, **options: object) -> list[str]:
    rows = list(iterate_inputs(list(inputs), **options))  # type: ignore[arg-type]
    assert not [row for row in rows if isinstance(row, FailedImage)]
    return [row.below for row in rows]


ENCODED = {
    "a%5B1%5D.jpg", "a/d/%C3%A9%201%2520%3Fx%3D1%232.jpg", "a/x.jpg", "a/y.png", "a1.jpg", "b.jpg",
    "gz.jpg.gz",
}  # fmt: skip


def test_n1_a_folder_gives_every_name_once_and_each_can_be_read(root: str) -> None:
    check_inputs([root])
    rows = [row for row in iterate_inputs([root]) if isinstance(row, ImageRef)]
    assert {row.below for row in rows} == ENCODED
    assert len(rows) == len(NAMES)
    for row in rows:
        assert row.uri == f"{root}/{row.below}"
        data = read_bytes(row.uri, 1000, row.size_bytes, row.etag)
        assert row.path.endswith(data.decode())
    modified_us = round(MODIFIED_S * 1e6)
    assert [row for row in rows if row.below == "b.jpg"] == [
        ImageRef(
            f"{root}/b.jpg", f"{root}/b.jpg", "b.jpg", 0, 10, f"{modified_us:x}-a", modified_us, ""
        )
    ]


def test_a_name_that_looks_compressed_is_read_as_it_is(root: str) -> None:
    assert read_bytes(f"{root}/gz.jpg.gz", 100) == b"pics/gz.jpg.gz"
    assert system_of(root).opened[-1][1] == CompressionTypes.UNCOMPRESSED


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.jpg", {"a%5B1%5D.jpg", "a1.jpg", "b.jpg"}),
        ("**/*.png", {"a/y.png"}),
        ("a/*", {"x.jpg", "y.png"}),
        ("a*", {"a%5B1%5D.jpg", "a1.jpg"}),
        ("a?.jpg", {"a1.jpg"}),
        ("a[1].jpg", {"a[1].jpg"}),  # there is one of this very name
        ("a%5B1%5D.jpg", {"a%5B1%5D.jpg"}),
    ],
)
def test_p9_globs_are_our_own_and_never_read_a_literal_name(
    root: str, glob: str, expected: set[str]
) -> None:
    check_inputs([f"{root}/{glob}"])
    assert set(names(f"{root}/{glob}")) == {name.replace("[1]", "%5B1%5D") for name in expected}


def test_a_single_object_and_lists_of_names(root: str, tmp_path: Path) -> None:
    assert names(f"{root}/b.jpg", f"{root}/a/x.jpg") == ["b.jpg", "x.jpg"]
    lines = [f"{root}/a/x.jpg", f"{root}/a[1].jpg", f"{root}/gone.jpg", f"{root}/a"]
    listed = tmp_path / "l.txt"
    listed.write_text("\n".join(lines))
    check_inputs([str(listed)])
    rows = list(iterate_inputs([str(listed)]))
    assert [row.uri for row in rows if isinstance(row, ImageRef)] == [
        f"{root}/a%5B1%5D.jpg",
        f"{root}/a/x.jpg",
    ]
    errors = {row.ref.below: row.failure.error_type for row in rows if isinstance(row, FailedImage)}
    is_tree = root.startswith("hdfs")
    assert errors == {"pics/a": "other" if is_tree else "not_found", "pics/gone.jpg": "not_found"}


def test_a_list_within_the_store_names_its_neighbours(root: str) -> None:
    path = f"{root}/l.jsonl"
    system_of(root).objects[path] = b'"a/x.jpg"\n{"uri": "gone.jpg"}\n"\xc3\xa9"\n'
    rows = list(iterate_inputs([path]))
    assert [(getattr(row, "ref", row)).uri for row in rows] == [
        f"{root}/%C3%A9",
        f"{root}/a/x.jpg",
        f"{root}/gone.jpg",
    ]
    system_of(root).objects[f"{root}/l.pkl"] = b""
    with pytest.raises(InputError, match="pickle"):
        check_inputs([f"{root}/l.pkl"])


def test_filters_and_the_output_leave_names_out(root: str) -> None:
    left = names(root, exclude=["a/", "gz*"], output=f"{root}/out")
    assert sorted(left) == ["a%5B1%5D.jpg", "a1.jpg", "b.jpg"]
    assert names(root, output=f"{root}/a", include=["*.png"]) == []


@pytest.mark.parametrize("name", ["gone", "gone/", "pic", "x*/y", "no[1]"])
def test_p9_r15_what_is_not_there_is_refused(root: str, name: str) -> None:
    with pytest.raises(InputError, match="input"):
        check_inputs([f"{root}/{name}"])


def test_r4_r5_a_body_is_whole_or_an_error(root: str) -> None:
    uri, system = f"{root}/b.jpg", system_of(root)
    with pytest.raises(StorageError, match="vanished: it had 9 bytes"):
        read_bytes(uri, 1000, 9)
    with pytest.raises(StorageError, match="too_large: 10 bytes, more than the 9"):
        read_bytes(uri, 9)
    with pytest.raises(StorageError, match="too_large"):
        read_bytes(uri, 9, 10)
    assert read_bytes(uri, 10) == b"pics/b.jpg"
    system.short = 1
    with pytest.raises(OSError, match="9 bytes came of 10"):
        read_bytes(uri, 1000, 10)
    del system.objects[uri]
    with pytest.raises(StorageError, match="vanished"):
        read_bytes(uri, 1000, 10)
    with pytest.raises(StorageError, match="not_found"):
        read_bytes(uri, 1000)


def test_b5_nothing_larger_than_allowed_is_opened(root: str) -> None:
    with pytest.raises(StorageError, match="too_large"):
        read_bytes(f"{root}/b.jpg", 9, 10)
    assert system_of(root).opened == []


def test_r7_a_listing_that_fails_raises(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system = system_of(root)
    real = system._list

    def failing(self: Bucket, path: str) -> Iterator[object]:
        for number, found in enumerate(real(self, path)):
            if number == 2:
                raise OSError("the page is cut")
            yield found

    monkeypatch.setattr(system, "_list", failing)
    with pytest.raises(OSError, match="the page is cut"):
        list(iterate_inputs([root]))


def test_an_empty_file_of_a_tree_is_no_folder() -> None:
    with served(Tree, "hdfs"):
        Tree.objects.update({"hdfs://h:80/d/e/f.jpg": b"1", "hdfs://h:80/d/empty.jpg": b""})
        assert names("hdfs://h:80/d") == ["e/f.jpg", "empty.jpg"]
        assert names("hdfs://h:80/d/empty.jpg") == ["empty.jpg"]
        assert names("hdfs://h:80") == ["d/e/f.jpg", "d/empty.jpg"]


def test_what_stands_for_a_folder_in_a_bucket_is_no_input() -> None:
    with served(Bucket, "gs"):
        Bucket.objects.update({"gs://b/d/": b"", "gs://b/d/x.jpg": b"x"})
        assert names("gs://b/d") == ["x.jpg"]
        assert names("gs://b") == ["d/x.jpg"]


def test_a_listing_is_kept_for_these_stores_too(root: str, tmp_path: Path) -> None:
    from tests.transforms.storage.test_cache import run

    cache = ListingCache(str(tmp_path), 3600.0)
    first = run(root, cache=cache)
    assert len(first["found"]) == len(NAMES)
    assert run(root, cache=cache)["found"] == first["found"]
    assert len(list(tmp_path.rglob("*.parquet"))) == 1


@pytest.mark.parametrize(
    "text", ["gs://", "gs:///x", "s3://user:word@b/x", "gs://b/%ff", "s3://-b/x"]
)
def test_n5_x10_what_names_no_object_is_refused_without_saying_it(text: str) -> None:
    with pytest.raises(InputError) as caught:
        filesystems.check_uri(text, "input 1")
    assert str(caught.value).startswith("input 1: ")
    assert "word" not in str(caught.value)


@pytest.mark.parametrize(("scheme", "extra"), [("gs", "gcp"), ("s3", "aws"), ("hdfs", "hadoop")])
def test_a_scheme_without_its_library_is_refused_with_the_extra(
    scheme: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "_is_installed", lambda library: False)
    listed = tmp_path / "l.txt"
    listed.write_text(f"a.jpg\n{scheme}://b/a.jpg\n")
    for one in (f"{scheme}://b/p", str(listed)):
        with pytest.raises(UsageError) as caught:
            deduplicate(one, tmp_path / "out")
        assert f"pip install 'apache-beam[{extra}]'" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def _rows(result: Result, root: str) -> list[dict]:
    table = result.images.drop_columns(["etag", "modified", "path"])
    text = json.dumps(sorted(table.to_pylist(), key=str)).replace(root, "ROOT")
    rows: list[dict] = json.loads(text)
    return rows


def test_a_whole_run_gives_the_rows_of_the_same_folder(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    local = deduplicate(folder, tmp_path / "local", profile="fast", workers=1)
    for system, scheme in ((Bucket, "gs"), (Tree, "hdfs")):
        root = f"{scheme}://buck/in"
        with served(system, scheme):
            for path in folder.iterdir():
                system.objects[f"{root}/{path.name}"] = path.read_bytes()
            for _ in range(2):  # the second in the place of the first
                there = deduplicate(root, f"{root}/out", profile="fast", workers=1)
            assert there.counts == local.counts
            assert there.counts["duplicate"] == 1
            assert _rows(there, root) == _rows(local, folder.as_uri())
            names = {
                path.removeprefix(f"{root}/out/") for path in system.objects if "/out/" in path
            }
            assert names == {
                f"{table}/{there.run_id}-00000.parquet" for table in ("images", "groups", "edges")
            } | {"manifest.json", "metrics.json", "report.csv", "summary.json"}


def test_beam_without_its_file_systems_gets_them_when_they_are_used() -> None:
    program = (
        "from beam_dedup.imports import import_beam; import_beam()\n"
        "import sys\nfrom transforms.storage import filesystems\n"
        "assert 'apache_beam.io.hadoopfilesystem' not in sys.modules\n"
        "filesystems._is_installed = lambda library: True\n"
        "filesystems.check_uri('hdfs://h/x', 'input 1')\n"
        "from apache_beam.io.filesystem import FileSystem\n"
        "print(sorted(one.scheme() for one in FileSystem.get_all_subclasses()"
        " if one.scheme() == 'hdfs'))"
    )
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=root, env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "['hdfs']\n"


def test_r13_a_store_that_cannot_be_written_is_refused_before_anything_runs(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_of(root), "full", True)
    with pytest.raises(UsageError, match="cannot be written"):
        deduplicate(write_folder(tmp_path / "in"), f"{root}/out", workers=1)
    assert not [path for path in system_of(root).objects if "/out/" in path]


def test_r13_what_is_written_in_part_is_an_error(root: str) -> None:
    store = open_store(f"{root}/out")
    system_of(root).short = 1
    with pytest.raises(OSError, match="less of a file than was written"), store.publish("a") as out:
        out.write(b"abc")
    assert not [path for path in system_of(root).objects if "/out/" in path]
    system_of(root).short = 0
    with store.publish("a") as out:
        out.write(b"abc")
    system_of(root).short = 1
    with pytest.raises(OSError, match="could not be read whole"):
        store.open("a")


def test_nothing_locks_a_folder_but_another_run_is_told_of(
    root: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = f"{root}/out/.beam-dedup.lock"
    with OutputLock(f"{root}/out", "first"):
        assert system_of(root).objects[path].startswith(b"run first, pid ")
        assert caplog.messages == []
        with OutputLock(f"{root}/out", "second"):
            assert "may be written by another run ('run first, pid" in caplog.messages[0]
    assert path not in system_of(root).objects


def test_a_run_that_failed_leaves_none_of_its_files(root: str) -> None:
    system = system_of(root)
    part = f".r1-00001.parquet.{'0' * 32}.part"
    names = ["images/r1-00000.parquet", f"edges/{part}", "images/r2-00000.parquet", "images/r1.txt"]
    system.objects.update({f"{root}/out/{name}": b"x" for name in names})
    discard_run(f"{root}/out", "r1")
    left = sorted(path for path in system.objects if "/out/" in path)
    assert left == [f"{root}/out/images/r1.txt", f"{root}/out/images/r2-00000.parquet"]


def test_a_dry_run_counts_pages_as_such_stores_give_them(
    root: str, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = system_of(root).objects
    objects.update({f"{root}/more/{number}.jpg": b"none" for number in range(2000 - len(NAMES))})
    assert cli.main(["run", f"--input={root}", "--dry_run", "--profile=fast"]) == 0
    assert "requests  2,002 (2 to list, 2,000 to read)" in capsys.readouterr().out
