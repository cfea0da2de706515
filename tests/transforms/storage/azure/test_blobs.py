"""What an azfs input names, and that every name below it is seen once, against Azurite."""

import csv
import io
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from azure.storage.blob import StandardBlobTier
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.azurite import ACCOUNT, Azurite
from tests.transforms.storage.azure.test_names import N1
from transforms.access import LOCAL
from transforms.listing import check_inputs, iterate_inputs
from transforms.records import FailedImage, ImageRef
from transforms.storage import inputs, read_bytes
from transforms.storage.azure import account, blobs
from transforms.storage.azure.names import BlobName
from transforms.storage.errors import InputError
from transforms.storage.patterns import Bounds, Selection
from transforms.storage.sightings import Kind, Scope, Sighting, Source


class Box:
    """A container of its own, and what the listing sees in it."""

    def __init__(self, azurite: Azurite) -> None:
        self.azurite = azurite
        self.name = azurite.container()
        self.uri = f"azfs://{ACCOUNT}/{self.name}"

    def holds(self, *names: str) -> None:
        self.azurite.upload(self.name, {name: name.encode()[:50] for name in names})

    def uri_of(self, name: str) -> str:
        return BlobName(ACCOUNT, self.name, name).uri

    def seen(self, *inputs_: str, **options: Any) -> list[str]:
        """Return the names of all rows, in the order of the listing."""
        return [self.name_of(row) for row in self.rows(*inputs_, **options)]

    def rows(self, *inputs_: str, **options: Any) -> list[ImageRef | FailedImage]:
        return list(iterate_inputs([self.uri + one for one in inputs_ or ("",)], **options))

    def name_of(self, row: ImageRef | FailedImage) -> str:
        uri = row.ref.uri if isinstance(row, FailedImage) else row.uri
        assert uri.startswith(self.uri + "/")
        return blobs.parse_uri(uri).name

    def parts(self, below: str = "") -> list[tuple[str, bool, list[str]]]:
        """Return the parts that a walk is cut into, with the names in each."""
        pinned = (self.uri + below).encode()
        return [
            (part.part, part.deep, [blobs.parse_uri(s.ref.uri).name for s in _walked(part)])
            for part in blobs.split(blobs.source_of(pinned))
        ]


def _walked(part: Any) -> list[Sighting]:
    return list(inputs.expand(part, Scope()))


@pytest.fixture
def box(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    """Make an empty container that the environment gives access to."""
    account.forget_accounts()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string())
    yield Box(azurite)
    account.forget_accounts()


# --- What an input names ---


def test_an_input_names_a_blob_a_folder_or_what_a_glob_matches(box: Box) -> None:
    box.holds("a.jpg", "p/b.jpg", "p/c.png", "p/q/d.jpg", "pp/e.jpg", "p.jpg")
    assert box.seen() == ["a.jpg", "p.jpg", "p/b.jpg", "p/c.png", "p/q/d.jpg", "pp/e.jpg"]
    assert box.seen("/p") == box.seen("/p/") == ["p/b.jpg", "p/c.png", "p/q/d.jpg"]
    assert box.seen("/a.jpg") == ["a.jpg"]
    assert box.seen("/p/*.jpg") == ["p/b.jpg"]
    assert box.seen("/p*/*.jpg") == ["p/b.jpg", "pp/e.jpg"]
    assert box.seen("/**/*.jpg") == ["a.jpg", "p.jpg", "p/b.jpg", "p/q/d.jpg", "pp/e.jpg"]
    assert box.seen("/p/**") == ["p/b.jpg", "p/c.png", "p/q/d.jpg"]
    assert box.seen("/p/[bc].*") == ["p/b.jpg", "p/c.png"]
    assert box.seen("/a.jpg", "/p", "/p/b.jpg") == ["a.jpg", "p/b.jpg", "p/c.png", "p/q/d.jpg"]


def test_below_is_the_part_after_the_input(box: Box) -> None:
    box.holds("p/q/a b.jpg", "p/")
    belows = {row.uri.removeprefix(box.uri): row.below for row in box.rows("/p")}  # type: ignore[union-attr]
    assert belows == {"/p/": "p/", "/p/q/a%20b.jpg": "q/a%20b.jpg"}
    (row,) = box.rows("/p/q/a b.jpg")
    assert (row.below, row.path) == ("a%20b.jpg", f"{box.uri}/p/q/a b.jpg")  # type: ignore[union-attr]
    (row,) = box.rows("/p/*/*.jpg")
    assert row.below == "q/a%20b.jpg"  # type: ignore[union-attr]


def test_p9_a_literal_wildcard_is_that_blob(box: Box) -> None:
    box.holds("a[1].jpg", "a1.jpg", "b*.jpg", "bb.jpg", "c?.jpg", "cc.jpg")
    assert box.seen("/a[1].jpg") == ["a[1].jpg"]
    assert box.seen("/b*.jpg") == ["b*.jpg"]
    assert box.seen("/c%3F.jpg") == ["c?.jpg"]
    assert box.seen("/c%3F.*") == ["c?.jpg"]
    assert box.seen("/c?.jp[g]") == ["c?.jpg", "cc.jpg"]


@pytest.mark.parametrize(
    ("below", "match"),
    [
        ("", "container is empty"),
        ("/none", "no such blob, and none below it"),
        ("/none/", "no such blob, and none below it"),
        ("/*.jpg", "matched no objects"),
        ("/p/*/", "a folder is named without wildcards"),
        ("/list.pkl", "a pickle is refused"),
    ],
)
def test_an_input_that_names_nothing_is_refused(box: Box, below: str, match: str) -> None:
    if below:
        box.holds("other.png", "list.pkl")
    with pytest.raises(InputError, match=match):
        check_inputs([box.uri + below])


def test_n1_names_are_listed_once_and_read(box: Box) -> None:
    names = [name for name in N1 if BlobName("a", "c", name).can_be_requested]
    # Azurite takes a backslash for a slash; a new line has no place in its index.
    names = [name for name in names if "\n" not in name and "\\" not in name]
    box.holds(*names)
    rows = box.rows()
    assert sorted(map(box.name_of, rows)) == sorted(names)
    for row in rows:
        assert isinstance(row, ImageRef)
        name = box.name_of(row)
        assert read_bytes(row.uri, 1000, row.size_bytes, row.etag) == name.encode()[:50]
        assert "\n" not in row.path
        assert "\u202e" not in row.path


# --- Walks in parts ---


def _split_is_whole(box: Box, below: str = "") -> list[tuple[str, bool, list[str]]]:
    parts = box.parts(below)
    names = [name for _, _, names in parts for name in names]
    assert len(names) == len(set(names))
    assert sorted(names) == sorted(box.seen(below))
    return parts


def test_a_walk_is_cut_at_slashes_and_each_name_is_in_one_part(box: Box) -> None:
    box.holds("1.jpg", "a/2.jpg", "a/3.jpg", "b/c/d/4.jpg", "b/c/d/e/5.jpg", "b/c/6.jpg", "b-/7")
    assert _split_is_whole(box) == [
        ("", False, ["1.jpg"]),
        ("a/", True, ["a/2.jpg", "a/3.jpg"]),
        ("b-/", True, ["b-/7"]),
        ("b/c/", False, ["b/c/6.jpg"]),
        ("b/c/d/", False, ["b/c/d/4.jpg"]),
        ("b/c/d/e/", True, ["b/c/d/e/5.jpg"]),
    ]
    assert [part for part, _, _ in _split_is_whole(box, "/b")] == ["c/", "c/d/", "c/d/e/"]


def test_a_chain_of_folders_is_followed_to_where_it_branches(box: Box) -> None:
    box.holds("x/y/z/1/a", "x/y/z/2/b", "x/y/z/2/c")
    assert [part for part, _, _ in _split_is_whole(box)] == ["x/y/z/1/", "x/y/z/2/"]


def test_a_level_of_more_than_a_page_is_walked_as_one(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "PAGE", 3)
    box.holds("a/1", "a/2", "b/1", "c/1", "d/1", "d/2", "loose")
    assert _split_is_whole(box) == [("", True, ["a/1", "a/2", "b/1", "c/1", "d/1", "d/2", "loose"])]
    assert [part for part, _, _ in _split_is_whole(box, "/a")] == [""]


def test_parts_are_no_more_than_help(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_PARTS", 4)
    box.holds(*(f"{a}/{b}/{c}" for a in "xyz" for b in "12" for c in "pq"))
    assert 4 <= len(_split_is_whole(box)) <= 8


def test_a_glob_is_cut_as_its_folder_is(box: Box) -> None:
    box.holds("img1/a.jpg", "img1/b.png", "img2/c.jpg", "other/d.jpg", "img.jpg")
    parts = _split_is_whole(box, "/img*/*.jpg")
    assert [name for _, _, names in parts for name in names] == ["img1/a.jpg", "img2/c.jpg"]
    assert not any(part.startswith("other") for part, _, _ in parts)


def test_what_comes_to_a_level_after_it_was_cut_is_walked(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "PAGE", 4)
    box.holds("1", "2", "a/3")
    parts = list(blobs.split(blobs.source_of(box.uri.encode())))
    box.holds("4", "5", "6", "7")  # more than a page, by now
    names = [blobs.parse_uri(seen.ref.uri).name for part in parts for seen in _walked(part)]
    assert names == ["1", "2", "4", "5", "6", "7", "a/3"]


_TREES = st.sets(
    st.lists(st.sampled_from(["a", "b", "aa", "", "-"]), min_size=1, max_size=5)
    .map("/".join)
    .filter(lambda name: name.strip("/") and not name.startswith("/")),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_TREES, st.sampled_from([2, 3, 5000]), st.sampled_from([2, 64]))
def test_whatever_the_names_the_parts_are_the_whole(
    azurite: Azurite,
    monkeypatch: pytest.MonkeyPatch,
    names: set[str],
    page: int,
    parts: int,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(account, "PAGE", page)
        patched.setattr(blobs, "_PARTS", parts)
        patched.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string())
        account.forget_accounts()
        box = Box(azurite)
        box.holds(*names)
        assert sorted(box.seen()) == sorted(names)
        _split_is_whole(box)
        account.forget_accounts()


# --- What is no input, or cannot be read ---


def test_stubs_of_folders_are_no_names_and_archived_blobs_are_failed(box: Box) -> None:
    box.holds("p/a.jpg", "p/empty/")
    client = box.azurite.client.get_container_client(box.name)
    client.upload_blob("p", b"", metadata={"hdi_isfolder": "true"})
    client.upload_blob("p/q", b"", metadata={"Hdi_isfolder": "true"})
    client.upload_blob("p/old.jpg", b"x", standard_blob_tier=StandardBlobTier.ARCHIVE)
    client.upload_blob("p/zero.jpg", b"")
    rows = box.rows("/p")
    assert [box.name_of(row) for row in rows] == [
        "p/a.jpg",
        "p/empty/",
        "p/old.jpg",
        "p/zero.jpg",
    ]
    failed = {box.name_of(row): row for row in rows if isinstance(row, FailedImage)}
    assert list(failed) == ["p/old.jpg"]
    assert failed["p/old.jpg"].failure.error_type == "other"
    assert "archive tier" in failed["p/old.jpg"].failure.message
    assert rows[3].size_bytes == 0  # type: ignore[union-attr]
    assert read_bytes(box.uri_of("p/zero.jpg"), 10, 0) == b""


def test_the_output_folder_is_never_an_input(box: Box) -> None:
    box.holds("p/a.jpg", "p/out/images/1.parquet", "p/out", "p/outer/b.jpg")
    output = box.uri + "/p/out/"
    assert box.seen("/p", output=output) == ["p/a.jpg", "p/outer/b.jpg"]
    with pytest.raises(InputError, match="lies in the output folder"):
        check_inputs([box.uri + "/p/out/images"], output)
    box.azurite.upload(box.name, {"list.txt": b"p/out/images/1.parquet\np/a.jpg\n"})
    assert box.seen("/list.txt", output=output) == ["p/a.jpg"]


def _kinds(box: Box, selection: Selection) -> dict[str, Kind]:
    scope = Scope(selection=selection)
    found = inputs.expand(f"{box.uri}/p".encode(), scope)
    return {blobs.parse_uri(one.ref.uri).name[2:]: Kind(one.kind) for one in found}


def test_filters_of_name_size_and_date_leave_out_and_count(box: Box) -> None:
    box.azurite.upload(box.name, {"p/a.jpg": b"x" * 10, "p/b.png": b"x" * 20, "p/t/c.jpg": b"x"})
    everything = dict.fromkeys(("a.jpg", "b.png", "t/c.jpg"), Kind.FOUND)
    out = Kind.EXCLUDED
    assert _kinds(box, Selection()) == everything
    assert _kinds(box, Selection(("*.jpg",))) == everything | {"b.png": out}
    assert _kinds(box, Selection((), ("t/",))) == everything | {"t/c.jpg": out}
    assert _kinds(box, Selection(bounds=Bounds(2, 10))) == everything | {
        "b.png": out,
        "t/c.jpg": out,
    }
    (row,) = box.rows("/p/a.jpg")
    modified = row.modified_us  # type: ignore[union-attr]
    assert modified is not None
    none = dict.fromkeys(everything, out)
    hour = 3600 * 10**6
    assert _kinds(box, Selection(bounds=Bounds(after_us=modified - hour))) == everything
    assert _kinds(box, Selection(bounds=Bounds(after_us=modified + hour))) == none
    assert _kinds(box, Selection(bounds=Bounds(before_us=modified))) in (
        none,
        none | {"a.jpg": Kind.EXCLUDED},
    )
    assert _kinds(box, Selection(bounds=Bounds(before_us=modified + hour))) == everything


def test_a_limit_takes_the_first_rows(box: Box) -> None:
    box.holds("a", "b/1", "b/2", "c")
    assert box.seen(limit=3) == ["a", "b/1", "b/2"]


# --- Lists ---


def _as_txt(names: list[str]) -> bytes:
    return "\n".join(names).encode()


def _as_csv(names: list[str]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([["uri", "note"], *([name, "x"] for name in names)])
    return out.getvalue().encode()


def _as_parquet(names: list[str]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"uri": names}), out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("ending", "write"), [("txt", _as_txt), ("csv", _as_csv), ("parquet", _as_parquet)]
)
def test_a_list_in_a_container_names_uris_and_names_beside_it(
    box: Box, ending: str, write: Callable[[list[str]], bytes]
) -> None:
    box.holds("d/a b.jpg", "d/q/c[1].jpg", "e.jpg", "d/f.jpg", "d")
    lines = [
        "a b.jpg",
        "q/c[1].jpg",
        "./f.jpg",
        "q/../../e.jpg",
        box.uri_of("e.jpg"),
        "none.jpg",
        box.uri,
    ]
    box.azurite.upload(box.name, {f"d/list.{ending}": write(lines)})
    rows = box.rows(f"/d/list.{ending}")
    found = sorted(box.name_of(row) for row in rows if isinstance(row, ImageRef))
    assert found == ["d/a b.jpg", "d/f.jpg", "d/q/c[1].jpg", "e.jpg"]
    failed = {row.ref.uri: row.failure.error_type for row in rows if isinstance(row, FailedImage)}
    assert failed == {box.uri_of("d/none.jpg"): "not_found", box.uri: "not_found"}


def test_a_list_beside_the_root_and_a_local_one_name_blobs(box: Box, tmp_path: Any) -> None:
    box.holds("a.jpg", "q/b.jpg")
    box.azurite.upload(box.name, {"list.txt": b"a.jpg\nq/b.jpg\n"})
    assert box.seen("/list.txt") == ["a.jpg", "q/b.jpg"]
    local = tmp_path / "list.txt"
    (tmp_path / "c.jpg").write_bytes(b"x")
    local.write_text(f"{box.uri}/q/b.jpg\nc.jpg\n")
    rows = list(iterate_inputs([str(local)]))
    assert [row.below for row in rows] == ["c.jpg", "q/b.jpg"]  # type: ignore[union-attr]
    assert [row.uri[:4] for row in rows] == ["file", "azfs"]  # type: ignore[union-attr]


def test_a_list_is_not_held_in_memory(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_SINGLE_GET_BYTES", 2**20)
    monkeypatch.setattr(account, "_MORE_GET_BYTES", 2**20)
    data = random.Random(5).randbytes(16 * 2**20)
    box.azurite.upload(box.name, {"list.txt": data})
    source = Source("list", box.uri_of("list.txt"))
    account.account_of(ACCOUNT, LOCAL)  # what is loaded once does not count
    tracemalloc.start()
    try:
        with blobs.local_copy(source) as path:
            most = tracemalloc.get_traced_memory()[1]
            assert Path(os.fsdecode(path)).read_bytes() == data
    finally:
        tracemalloc.stop()
    assert most < len(data) / 2


@pytest.mark.parametrize("line", ["azfs://Bad/c/a", "https://x/a", "azfs://pics/ccc/a?sig=hidden"])
def test_x2_x10_a_list_with_a_line_that_is_refused_is_refused(box: Box, line: str) -> None:
    box.azurite.upload(box.name, {"list.txt": f"a.jpg\n{line}\n".encode()})
    with pytest.raises(InputError, match="row 2") as raised:
        check_inputs([box.uri + "/list.txt"])
    assert "hidden" not in str(raised.value)
