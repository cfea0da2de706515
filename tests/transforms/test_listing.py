"""Listing: every name found, failed or counted; every URI one row; or an error."""

import errno
import json
import os
import socket
import unicodedata
from collections import Counter
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.listing import ListImages, check_inputs, iterate_inputs
from transforms.records import Cap, FailedImage, ImageRef
from transforms.storage import InputError, local, read_bytes, to_local_path, to_uri


def write(root, *names):
    """Make files that hold their own names; return the path of the first."""
    for name in names:
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(os.fsencode(name))
    return os.path.join(os.fsdecode(root), os.fsdecode(names[0]))


def rows(*inputs, **options):
    return list(iterate_inputs([str(one) for one in inputs], **options))


def found(*inputs, **options):
    """Return ``(input_index, below)`` of what was found, and check that nothing failed."""
    refs = rows(*inputs, **options)
    assert [ref for ref in refs if isinstance(ref, FailedImage)] == []
    return [(ref.input_index, ref.below) for ref in refs]


def names(*inputs, **options):
    return [name for _, name in found(*inputs, **options)]


def failures(*inputs, **options):
    return [
        (row.ref.below, row.failure.stage, row.failure.error_type)
        for row in rows(*inputs, **options)
        if isinstance(row, FailedImage)
    ]


def uri(*parts):
    return to_uri(os.path.join(*map(os.fsencode, parts)))


def written(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# Names


# A thousand characters in one path; one name has at most 255 bytes on Linux.
LONG = "/".join(["n" * 249] * 4 + ["1024.jpg"])
N1_NAMES = [
    b"a b.jpg", b" lead", b"trail ", b"'", b'"', b"`", b";", b"|", b"a&&b", b"$(touch x)", b"\n",
    b"a\nb.jpg", b"\t", b"*", b"?", b"[", b"]", b"a[1].jpg", b"**", b"back\\slash.jpg", b"%20.jpg",
    b"?x=1", b"#1", unicodedata.normalize("NFC", "é.jpg").encode(),
    unicodedata.normalize("NFD", "é.jpg").encode(), "😀.jpg".encode(), "a\u202egpj.exe".encode(),
    LONG.encode(), b"dot.", b"...", b"..a", b".hidden", b"\xff\xfe.jpg", b"\xed\xb3\xbf",
    b"-rf", b"~", b"http:", b"C:\\x.jpg", b"\x1b[2J", b"a\r", b"..%2f", b"IMG.jpg", b"img.jpg",
]  # fmt: skip


def test_n1_p10_p11_every_name_is_listed_once_read_and_comes_back(tmp_path):
    write(tmp_path, *N1_NAMES)
    refs = rows(tmp_path)
    assert len(refs) == len(N1_NAMES)
    root = bytes(tmp_path)
    assert {to_local_path(ref.uri) for ref in refs} == {os.path.join(root, n) for n in N1_NAMES}
    for ref in refs:
        path = to_local_path(ref.uri)
        assert to_uri(path) == ref.uri == uri(tmp_path) + "/" + ref.below
        assert read_bytes(ref.uri, 5000, ref.size_bytes) == path[len(root) + 1 :]
        assert ref.path.encode("utf-8")
        assert len(ref.path.splitlines()) == 1


@pytest.mark.parametrize("name", N1_NAMES)
def test_n1_p9_every_name_can_be_an_input_or_a_line(tmp_path, name):
    write(tmp_path, name)
    path = os.fsdecode(os.path.join(bytes(tmp_path), name))
    assert [ref.uri for ref in rows(path)] == [to_uri(path)]
    assert [ref.uri for ref in rows(to_uri(path))] == [to_uri(path)]
    (tmp_path / "list.json").write_text(json.dumps([os.fsdecode(name), to_uri(path)]))
    assert [ref.uri for ref in rows(tmp_path / "list.json")] == [to_uri(path)]


def test_n1_dots_and_slashes_in_inputs_lead_to_one_uri(tmp_path):
    write(tmp_path, "a/b.jpg")
    spellings = [f"{tmp_path}//a/./b.jpg", f"{tmp_path}/a/../a/b.jpg", f"{tmp_path}/a/", tmp_path]
    assert [ref.uri for ref in rows(*spellings)] == [uri(tmp_path, "a/b.jpg")]


def test_n2_equal_base_names_and_lookalike_paths_stay_apart(tmp_path):
    write(tmp_path, "a/b.jpg", "a_b.jpg", "c/b.jpg", "a%2Fb.jpg")
    assert names(tmp_path) == ["a%252Fb.jpg", "a/b.jpg", "a_b.jpg", "c/b.jpg"]


def test_n3_dots_in_lines_are_resolved_and_below_does_not_lead_out(tmp_path):
    write(tmp_path, "x.jpg", "in/deep/y.jpg")
    lines = ["../x.jpg", "deep/../deep/y.jpg", "/../.." + str(tmp_path) + "/x.jpg", "..%2fx.jpg"]
    listed = rows(written(tmp_path / "in/l.txt", *lines))
    missing = listed.pop(0)
    assert missing.ref.uri == uri(tmp_path, "in/..%2fx.jpg")
    assert missing.failure.error_type == "not_found"
    assert [(ref.uri, ref.below) for ref in listed] == [
        (uri(tmp_path, "in/deep/y.jpg"), "deep/deep/y.jpg"),
        (uri(tmp_path, "x.jpg"), uri(tmp_path, "x.jpg")[8:]),
    ]


def test_n3_dots_after_a_link_follow_the_file_system(tmp_path):
    write(tmp_path, "real/sub/z.jpg", "real/x.jpg", "x.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real/sub")
    listed = rows(written(tmp_path / "l.txt", "link/../x.jpg"))
    assert [ref.uri for ref in listed] == [uri(tmp_path, "real/x.jpg")]


# Links and what is no regular file


def test_n4_p10_loops_end_and_nothing_but_files_is_opened(tmp_path, monkeypatch):
    write(tmp_path, "d/a.jpg")
    (tmp_path / "d/loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket")
    server.close()
    monkeypatch.setattr(local.os, "open", None)
    listed = rows(tmp_path)
    assert [row.below for row in listed if isinstance(row, ImageRef)] == ["d/a.jpg"]
    assert [
        (row.ref.uri, row.failure.error_type, row.failure.message)
        for row in listed
        if isinstance(row, FailedImage)
    ] == [
        (uri(tmp_path, "dangling"), "not_found", "the link leads to no file"),
        (uri(tmp_path, "fifo"), "other", "a FIFO, which is never opened"),
        ("file:///dev/null", "other", "a character device, which is never opened"),
        (uri(tmp_path, "self"), "not_found", "the link leads to no file"),
        (uri(tmp_path, "socket"), "other", "a socket, which is never opened"),
    ]


def test_n4_lines_that_name_no_file_are_failed_rows(tmp_path):
    write(tmp_path, "a.jpg", "d/b.jpg")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "todir").symlink_to("d")
    (tmp_path / "dangling").symlink_to("nowhere")
    lines = ["a.jpg", "d", "d/", "fifo", "todir", "dangling", "gone", "a.jpg/b", "n" * 300, "x\0y"]
    assert failures(written(tmp_path / "l.txt", *lines)) == [
        ("a.jpg/b", "list", "not_found"),
        ("d", "list", "other"),
        ("dangling", "list", "not_found"),
        ("fifo", "list", "other"),
        ("gone", "list", "not_found"),
        ("n" * 300, "list", "not_found"),
        ("todir", "list", "other"),
        ("x%00y", "list", "not_found"),
    ]


def test_n4_a_fifo_as_input_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo.txt")
    with pytest.raises(InputError, match="is a FIFO"):
        check_inputs([str(tmp_path / "fifo.txt")])


def test_g5_a_link_is_its_target_once(tmp_path):
    write(tmp_path, "in/b.jpg", "out/c.jpg")
    for link, target in [
        ("a", "in/b.jpg"),
        ("c1", "out/c.jpg"),
        ("c2", "out/c.jpg"),
        ("c3", "in/c2"),
    ]:
        (tmp_path / "in" / link).symlink_to(tmp_path / target)
    assert [(ref.uri, ref.below, ref.path) for ref in rows(tmp_path / "in")] == [
        (uri(tmp_path, "in/b.jpg"), "a", f"{tmp_path}/in/b.jpg"),
        (uri(tmp_path, "out/c.jpg"), "c1", f"{tmp_path}/out/c.jpg"),
    ]


def test_g5_a_folder_that_is_named_through_a_link_is_the_folder(tmp_path):
    write(tmp_path, "real/a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert [ref.uri for ref in rows(tmp_path / "link", tmp_path / "real", tmp_path)] == [
        uri(tmp_path, "real/a.jpg")
    ]


def test_g5_links_to_folders_are_not_followed(tmp_path):
    write(tmp_path, "in/a.jpg", "out/b.jpg")
    (tmp_path / "in/link").symlink_to("../out")
    assert names(tmp_path / "in") == names(f"{tmp_path}/in/**") == ["a.jpg"]
    with TestPipeline("FnApiRunner") as pipeline:
        listing = pipeline | ListImages([str(tmp_path / "in")], include=["*.jpg"])
        assert_that(listing.caps, equal_to([]))


def test_g5_hard_links_are_two_rows_of_one_object(tmp_path):
    write(tmp_path, "a.jpg", "c.jpg")
    os.link(tmp_path / "a.jpg", tmp_path / "b.jpg")
    info = os.stat(tmp_path / "a.jpg")
    object_id = f"{info.st_dev}:{info.st_ino}"
    assert [(ref.below, ref.storage_id) for ref in rows(tmp_path)] == [
        ("a.jpg", object_id),
        ("b.jpg", object_id),
        ("c.jpg", ""),
    ]


def test_g5_case_and_unicode_forms_are_different_names(tmp_path):
    forms = ["é.jpg", "e\u0301.jpg", "A.jpg", "a.jpg"]
    write(tmp_path, *forms)
    assert names(tmp_path) == ["%C3%A9.jpg", "A.jpg", "a.jpg", "e%CC%81.jpg"]


def test_g5_duplicate_lines_and_overlapping_inputs_are_one_row(tmp_path):
    write(tmp_path, "d/a.jpg", "d/b.jpg", "c.jpg")
    lines = written(
        tmp_path / "d/l.txt", "b.jpg", "b.jpg", "./b.jpg", uri(tmp_path, "d/b.jpg"), "../c.jpg"
    )
    assert found(lines, tmp_path / "d", tmp_path, exclude=["*.txt"]) == [
        (0, "b.jpg"),
        (0, "c.jpg"),
        (1, "a.jpg"),
    ]


# Kinds of inputs


def test_p10_a_folder_is_walked_whole_and_in_order_of_below(tmp_path):
    tree = ["a", "a-b/x", "a.jpg", "aa/y", "b/c/d/e", "b/c.jpg", "b~/x", ".h/.x", "l.txt", "z.pkl"]
    write(tmp_path, *tree)
    (tmp_path / "empty").mkdir()
    assert names(tmp_path) == sorted(tree)


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*", [".h.jpg", "a.jpg", "back%5Cslash.jpg"]),
        ("**", [".h.jpg", "a.jpg", "back%5Cslash.jpg", "d/e/f.png", "d/g.jpg", "x/e/h.jpg"]),
        ("**/*", [".h.jpg", "a.jpg", "back%5Cslash.jpg", "d/e/f.png", "d/g.jpg", "x/e/h.jpg"]),
        ("**/*.jpg", [".h.jpg", "a.jpg", "back%5Cslash.jpg", "d/g.jpg", "x/e/h.jpg"]),
        ("*/e/*", ["d/e/f.png", "x/e/h.jpg"]),
        ("**/e/**", ["d/e/f.png", "x/e/h.jpg"]),
        ("[dx]/?.jpg", ["d/g.jpg"]),
        ("d/**", ["e/f.png", "g.jpg"]),
        ("*/*/**", ["d/e/f.png", "x/e/h.jpg"]),
        ("./d//*.jpg", ["g.jpg"]),
    ],
)
def test_p10_globs_take_the_files_they_match(tmp_path, glob, expected):
    write(tmp_path, ".h.jpg", "a.jpg", "back\\slash.jpg", "d/e/f.png", "d/g.jpg", "x/e/h.jpg")
    assert names(f"{tmp_path}/{glob}") == expected
    check_inputs([f"{tmp_path}/{glob}"])


def test_p9_an_existing_literal_name_wins_over_a_glob(tmp_path):
    write(tmp_path, "a[1].jpg", "a1.jpg", "[d]/x.jpg", "d/y.jpg")
    assert names(tmp_path / "a[1].jpg") == ["a%5B1%5D.jpg"]
    assert names(tmp_path / "[d]") == ["x.jpg"]
    os.unlink(tmp_path / "a[1].jpg")
    assert names(tmp_path / "a[1].jpg") == ["a1.jpg"]


def test_p9_an_encoded_wildcard_of_a_uri_is_literal(tmp_path):
    write(tmp_path, "*a1", "*a2", "ba1")
    assert names(f"file://{tmp_path}/%2Aa?") == ["%2Aa1", "%2Aa2"]
    assert names(f"file://{tmp_path}/*a1") == ["%2Aa1"]


@pytest.mark.parametrize("glob", ["pics/*", "*.png", "d/*/**", "*/", "no[1]"])
def test_p9_a_glob_that_matches_nothing_is_refused(tmp_path, glob):
    write(tmp_path, "d/a.jpg", "b.jpg")
    with pytest.raises(InputError, match="matched no objects"):
        check_inputs([str(tmp_path), f"{tmp_path}/{glob}"])


def test_p9_a_glob_with_dots_after_a_wildcard_is_refused(tmp_path):
    with pytest.raises(InputError, match="after a wildcard"):
        check_inputs([f"{tmp_path}/*/../a"])


def test_p9_a_line_is_never_a_glob_and_a_missing_one_is_a_failed_row(tmp_path):
    write(tmp_path, "a1.jpg", "b[1].jpg")
    listed = rows(written(tmp_path / "l.txt", "a[1].jpg", "b[1].jpg", "*.jpg", "gone.jpg"))
    assert [row.below for row in listed if isinstance(row, ImageRef)] == ["b%5B1%5D.jpg"]
    assert [row.ref.below for row in listed if isinstance(row, FailedImage)] == [
        "%2A.jpg",
        "a%5B1%5D.jpg",
        "gone.jpg",
    ]


def list_files(folder, entries):
    written(folder / "l.txt", *entries)
    written(folder / "l.csv", "id,uri", *(f"1,{entry}" for entry in entries))
    (folder / "l.json").write_text(json.dumps([{"uri": entry} for entry in entries]))
    written(folder / "l.jsonl", *map(json.dumps, entries))
    pq.write_table(pa.table({"uri": entries}), folder / "l.parquet")
    return [folder / f"l.{kind}" for kind in ("txt", "csv", "json", "jsonl", "parquet")]


def test_every_kind_of_list_is_read_when_it_is_named(tmp_path):
    write(tmp_path, "pics/é.jpg", "lists/b.jpg")
    entries = ["b.jpg", "../pics/é.jpg", uri(tmp_path, "lists/b.jpg"), str(tmp_path / "pics/é.jpg")]
    for path in list_files(tmp_path / "lists", entries):
        check_inputs([str(path)])
        assert {ref.uri for ref in rows(path)} == {
            uri(tmp_path, "lists/b.jpg"),
            uri(tmp_path, "pics/é.jpg"),
        }


def test_a_list_inside_a_folder_or_a_list_is_just_a_file(tmp_path):
    lists = list_files(tmp_path, ["a.jpg"])
    expected = ["l.csv", "l.json", "l.jsonl", "l.parquet", "l.txt"]
    assert names(tmp_path) == names(f"{tmp_path}/l.*") == expected
    (tmp_path / "sub").mkdir()
    assert names(written(tmp_path / "sub/m.txt", *lists)) == [
        uri(tmp_path, name)[8:] for name in expected
    ]


def test_x1_a_pickle_is_refused(tmp_path):
    write(tmp_path, "l.pkl", "d/m.pickle")
    with pytest.raises(InputError, match="a pickle is refused"):
        check_inputs([str(tmp_path / "l.pkl")])
    assert names(tmp_path / "d") == ["m.pickle"]


def test_a_relative_input_is_pinned_to_the_current_folder(tmp_path, monkeypatch):
    write(tmp_path, "d/a.jpg")
    monkeypatch.chdir(tmp_path)
    transform = ListImages(["d", "d/*.jpg"])
    monkeypatch.chdir("/")
    with TestPipeline("FnApiRunner") as pipeline:
        listing = pipeline | "List" >> transform
        uris = listing.found | beam.Map(lambda ref: ref.uri)
        assert_that(uris, equal_to([uri(tmp_path, "d/a.jpg")]))


# Refusals


@pytest.mark.parametrize(
    "text",
    [
        "http://169.254.169.254/latest?sig=hidden",
        "https://u:hidden@host/a",
        "ftp://hidden/a",
        "ftp://host/folder/hidden",
        "abfs://hidden/a",
        "data://hidden",
    ],
)
def test_x10_other_schemes_are_refused_as_input_and_as_line(tmp_path, text):
    write(tmp_path, "a.jpg")
    scheme = text.partition(":")[0]
    for refused in ([text], [str(written(tmp_path / "l.txt", "a.jpg", text))]):
        with pytest.raises(InputError, match=f"{scheme!r} is not supported") as caught:
            check_inputs(refused)
        assert "hidden" not in str(caught.value)
    with pytest.raises(InputError, match="row 2"):
        rows(tmp_path / "l.txt")
    with pytest.raises(InputError, match="input 1"):
        ListImages([text])


def test_x10_a_file_uri_of_another_host_is_refused(tmp_path):
    with pytest.raises(InputError, match="row 1"):
        check_inputs([str(written(tmp_path / "l.txt", "file://server/share/a.jpg"))])
    with pytest.raises(InputError, match="not a file URI of this machine"):
        check_inputs(["file://server/share"])


@pytest.mark.parametrize("name", ["gone", "a.jpg/b", "dangling", "gone.txt", "x\0y", "n\ne"])
def test_r15_a_missing_input_is_refused(tmp_path, name):
    write(tmp_path, "a.jpg")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(InputError, match="input") as caught:
        check_inputs([str(tmp_path / "a.jpg"), f"{tmp_path}/{name}"])
    assert "\n" not in str(caught.value)


def test_r15_zero_inputs_are_refused(tmp_path):
    write(tmp_path, "full/a.jpg", "l.txt")
    (tmp_path / "empty/er").mkdir(parents=True)
    (tmp_path / "l.txt").write_text("\n\n")
    for inputs in ([tmp_path / "empty"], [tmp_path / "empty", tmp_path / "l.txt"]):
        with pytest.raises(InputError, match="matched no objects"):
            check_inputs([str(one) for one in inputs])
    with pytest.raises(InputError, match="filters of names, size and date leave"):
        check_inputs([str(tmp_path / "full")], exclude=["*.jpg"])
    check_inputs([str(tmp_path / "empty"), str(tmp_path / "full")])
    for inputs in ([], [""], "text"):
        with pytest.raises(InputError, match="input"):
            check_inputs(inputs)


def test_r7_a_folder_that_cannot_be_listed_is_an_error(tmp_path, monkeypatch):
    write(tmp_path, "a.jpg", "secret/b.jpg")
    real = os.scandir

    def scandir(path):
        if path.endswith(b"/secret"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(local.os, "scandir", scandir)
    with pytest.raises(InputError, match="cannot be listed: Permission denied"):
        rows(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT, errno.ESTALE])
def test_r7_a_folder_that_fails_meanwhile_is_an_error(tmp_path, monkeypatch, number):
    write(tmp_path, "a.jpg", "d/b.jpg")
    real = os.scandir

    def scandir(path):
        if path.endswith(b"/d"):
            raise OSError(number, os.strerror(number), path)
        return real(path)

    monkeypatch.setattr(local.os, "scandir", scandir)
    with pytest.raises(OSError, match=os.strerror(number)):
        rows(tmp_path)


def test_r3_r4_faults_of_single_files_are_rows(tmp_path, monkeypatch):
    for name in ("gone.jpg", "locked.jpg", "good.jpg"):
        write(tmp_path, name)
        (tmp_path / f"to-{name}").symlink_to(name)
    written(tmp_path / "l.txt", "locked.jpg")
    real = os.lstat
    numbers = {b"gone.jpg": errno.ENOENT, b"locked.jpg": errno.EACCES}

    def lstat(path, **options):
        number = numbers.get(os.path.basename(os.fsencode(path)))
        if number:
            raise OSError(number, os.strerror(number), path)
        return real(path, **options)

    monkeypatch.setattr(local.os, "lstat", lstat)
    assert failures(tmp_path, include=["to-*"]) == [
        ("to-gone.jpg", "list", "not_found"),
        ("to-locked.jpg", "list", "forbidden"),
    ]
    assert failures(tmp_path / "l.txt") == [("locked.jpg", "list", "forbidden")]
    numbers[b"locked.jpg"] = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        rows(tmp_path)


def test_r4_a_file_that_goes_away_while_it_is_listed_is_a_failed_row(tmp_path):
    write(tmp_path, "a.jpg", "b.jpg")
    listing = iterate_inputs([str(tmp_path)])
    next(listing)
    os.unlink(tmp_path / "b.jpg")
    assert [row.failure.error_type for row in listing] == ["vanished"]


# Options


def test_include_and_exclude_take_paths_below_the_root(tmp_path):
    write(tmp_path, "in/a.jpg", "in/b.png", "in/thumbs/c.jpg", "in/d/e.jpg")
    root = tmp_path / "in"
    assert names(root, include=["*.jpg"]) == ["a.jpg", "d/e.jpg", "thumbs/c.jpg"]
    assert names(root, include=["*.jpg"], exclude=["thumbs/"]) == ["a.jpg", "d/e.jpg"]
    assert names(root, include=["in/*"]) == []
    assert names(root / "d/e.jpg", root / "a.jpg", exclude=["e.*"]) == ["a.jpg"]
    assert names(written(tmp_path / "l.txt", "in/a.jpg", "in/b.png"), exclude=["in/*.png"]) == [
        "in/a.jpg"
    ]
    with pytest.raises(InputError, match="one string"):
        rows(root, include="*.jpg")


def test_the_output_folder_is_never_an_input(tmp_path):
    write(tmp_path, "in/a.jpg", "in/out/b.jpg", "in/outer/c.jpg", "l.txt")
    (tmp_path / "in/link").symlink_to("out/b.jpg")
    (tmp_path / "report").symlink_to("in/out")
    lines = written(tmp_path / "l.txt", "in/out/b.jpg", "in/a.jpg")
    for output in (
        tmp_path / "in/out",
        f"{tmp_path}/in/out/",
        tmp_path / "report",
        uri(tmp_path, "in/out"),
    ):
        assert names(tmp_path / "in", lines, output=str(output)) == ["a.jpg", "outer/c.jpg"]
        for inside in ("in/out", "in/out/b.jpg"):
            with pytest.raises(InputError, match="lies in the output folder"):
                check_inputs([str(tmp_path / inside)], output=str(output))
    assert len(names(tmp_path / "in", output="azfs://account/container/out")) == 3


def test_the_facts_of_a_reference(tmp_path):
    path = write(tmp_path, "é.jpg")
    os.utime(path, ns=(0, 1_600_000_000_123_456_789))
    assert rows(tmp_path) == [
        ImageRef(
            uri=uri(tmp_path) + "/%C3%A9.jpg",
            path=path,
            below="%C3%A9.jpg",
            input_index=0,
            size_bytes=6,
            etag=f"{1_600_000_000_123_456_789:x}-6",
            modified_us=1_600_000_000_123_456,
            storage_id="",
        )
    ]


def test_limit_is_the_first_rows_by_input_and_below(tmp_path):
    write(tmp_path, "x/b.jpg", "x/a.jpg", "y/0.jpg", "y/1.jpg")
    (tmp_path / "y/00").symlink_to("../x/a.jpg")
    lines = written(tmp_path / "l.txt", "y/1.jpg", "x/b.jpg", "gone", "x/b.jpg")
    inputs = [str(lines), str(tmp_path / "x"), str(tmp_path / "y")]
    order = [(0, "gone"), (0, "x/b.jpg"), (0, "y/1.jpg"), (1, "a.jpg"), (2, "0.jpg")]
    for limit in (*range(1, 7), None):
        listed = [
            row.ref if isinstance(row, FailedImage) else row for row in rows(*inputs, limit=limit)
        ]
        assert [(ref.input_index, ref.below) for ref in listed] == order[:limit]
    with pytest.raises(InputError, match="limit must be 1 or more"):
        ListImages(inputs, limit=0)


# The PTransform


@pytest.fixture
def tree(tmp_path):
    write(
        tmp_path,
        b"in/caf\xe9.jpg",
        "in/b.jpg",
        "in/d/c.jpg",
        "in/x.txt",
        "in/d/y.txt",
        "in/out/r.csv",
    )
    (tmp_path / "in/dangling").symlink_to("nowhere")
    (tmp_path / "in/tolink").symlink_to("d/c.jpg")
    (tmp_path / "in/toout").symlink_to("out/r.csv")
    written(tmp_path / "l.txt", "in/b.jpg", "in/b.jpg", "gone", "in/x.txt", "in/out/r.csv")
    return tmp_path


def listing_of(pipeline, tree, **options):
    return pipeline | "List" >> ListImages(
        [str(tree / "in"), str(tree / "l.txt"), str(tree / "in/d")],
        exclude=["in/x.txt", "y.txt"],
        output=str(tree / "in/out"),
        **options,
    )


def expected_rows(tree, limit=None):
    return rows(
        tree / "in",
        tree / "l.txt",
        tree / "in/d",
        exclude=["in/x.txt", "y.txt"],
        output=str(tree / "in/out"),
        limit=limit,
    )


@pytest.mark.parametrize("limit", [None, 4])
def test_g5_p11_list_images_gives_each_uri_one_row(tree, limit):
    expected = expected_rows(tree, limit)
    refs = [row for row in expected if isinstance(row, ImageRef)]
    failed = [row for row in expected if isinstance(row, FailedImage)]
    assert [(ref.input_index, ref.below) for ref in refs] == [
        (0, "b.jpg"),
        (0, "caf%E9.jpg"),
        (0, "d/c.jpg"),
        (0, "x.txt"),
    ][: 3 if limit else None]
    lost = [uri(tree, "in/dangling"), uri(tree, "gone")]
    assert [row.ref.uri for row in failed] == lost[: 1 if limit else None]
    with TestPipeline("FnApiRunner") as pipeline:
        listing = listing_of(pipeline, tree, limit=limit)
        assert_that(listing.found, equal_to(refs), label="found")
        assert_that(listing.failed, equal_to(failed), label="failed")
        assert_that(listing.listed | beam.CombineGlobally(sum), equal_to([limit or 6]), label="sum")


def test_excluded_names_are_counted_once_each_and_only_if_no_input_has_them(tree):
    with TestPipeline("FnApiRunner") as pipeline:
        # in/x.txt is an input by the folder; the list's line alone is excluded.
        assert_that(
            listing_of(pipeline, tree).caps,
            equal_to(
                [
                    Cap("list", "excluded", 0, 1, "names left out by --include and --exclude"),
                    Cap(
                        "list",
                        "in_output",
                        0,
                        1,
                        "lines and links that lead into the output folder",
                    ),
                ]
            ),
        )


def test_the_statistics_add_up(tree):
    fields = ("items_in", "items_out", "failed", "skipped")

    def total(stats):
        stats = list(stats)
        assert all(s.stage == "list" and 0 < s.started_us <= s.ended_us for s in stats)
        assert all(s.peak_rss_bytes > 0 for s in stats)
        return [sum(getattr(s, field) for s in stats) for field in fields]

    with TestPipeline("FnApiRunner") as pipeline:
        totals = listing_of(pipeline, tree).stats | beam.combiners.ToList() | beam.Map(total)
        # Names: 7 below in (out is not entered), 5 lines, 2 below in/d; rows 4 + 2; left out 2.
        assert_that(totals, equal_to([[15, 4, 2, 2]]))


def test_r15_nothing_listed_adds_up_to_nothing(tmp_path):
    with TestPipeline("FnApiRunner") as pipeline:
        listing = pipeline | ListImages([str(tmp_path)])
        assert_that(listing.found, equal_to([]), label="found")
        assert_that(listing.failed, equal_to([]), label="failed")
        assert_that(listing.caps, equal_to([]), label="caps")
        assert_that(listing.listed, equal_to([]), label="listed")


def test_r7_the_job_fails_with_the_listing(tmp_path):
    with pytest.raises(Exception, match="no such file or folder"), TestPipeline() as pipeline:
        pipeline | ListImages([str(tmp_path / "gone")])


def test_b5_the_size_is_known_before_anything_is_read(tmp_path):
    path = Path(write(tmp_path, "huge.jpg"))
    os.truncate(path, 1 << 40)  # sparse
    assert [ref.size_bytes for ref in rows(tmp_path)] == [1 << 40]


NAMES = st.binary(min_size=1, max_size=6).filter(
    lambda name: not {0, 47} & set(name) and name not in (b".", b"..")
)


@settings(max_examples=30)
@given(st.sets(st.tuples(NAMES, NAMES), min_size=1, max_size=6))
def test_n1_g1_any_tree_is_listed_once_in_order(tmp_path_factory, parts):
    root = tmp_path_factory.mktemp("tree")
    paths = {os.path.join(folder, name) for folder, name in parts}
    write(root, *paths)
    listed = names(root)
    assert sorted(listed) == listed
    found_paths = Counter(to_local_path(f"file:///{below}")[1:] for below in listed)
    assert found_paths == Counter(paths)
    assert names(f"{root}/**") == listed
