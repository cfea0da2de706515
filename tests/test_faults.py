"""FAULTS.md through the whole pipeline: each test carries the ids that it covers."""

import contextlib
import dataclasses
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import ModelHandler, PredictionResult
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from PIL import Image

import beam_dedup
from beam_dedup import cli
from beam_dedup.reports import Report
from tests import pictures
from tests.pictures import flat, photo, saved, write
from tests.transforms.samples import make_content
from transforms import CompareGlobals, EmbedMembers
from transforms.features import UPRIGHT
from transforms.global_features import GlobalSettings
from transforms.imaging.descriptor import DIMENSIONS
from transforms.records import Embedded, MemberRead, MemberRecord, PairUnit
from transforms.rounds import blank_edge, measure, star_candidate
from transforms.storage import StorageError
from transforms.telemetry import Timed

_ROOT = Path(__file__).resolve().parents[1]

Row = dict[str, Any]


@dataclasses.dataclass
class Zoo:
    """One run over a folder with a subfolder for each fault."""

    folder: Path
    report: Report
    rows: dict[str, Row]  # by path below the folder
    ghostscript_ran: bool

    def below(self, part: str) -> dict[str, Row]:
        """Return the rows of one subfolder by path below it."""
        start = part + "/"
        found = {n.removeprefix(start): r for n, r in self.rows.items() if n.startswith(start)}
        assert found
        return found

    def errors(self, part: str) -> dict[str, tuple[str | None, str | None]]:
        """Return stage and type of each failure of one subfolder."""
        return {n: (r["error_stage"], r["error_type"]) for n, r in self.below(part).items()}

    def groups(self, part: str) -> list[set[str]]:
        """Return the groups that have a member in one subfolder, largest first."""
        members: dict[str, set[str]] = defaultdict(set)
        for name, row in self.rows.items():
            if row["group_id"] is not None:
                members[row["group_id"]].add(name)
        inside = [g for g in members.values() if any(n.startswith(part + "/") for n in g)]
        return sorted(inside, key=lambda group: (-len(group), sorted(group)))


def _rows(folder: Path, report: Report | beam_dedup.Result) -> dict[str, Row]:
    start = os.path.join(os.path.realpath(folder), "")
    found = {}
    for row in report.images.to_pylist():
        path = os.fsdecode(unquote_to_bytes(urlsplit(row["uri"]).path))
        found[path.removeprefix(start)] = row
    return found


def _run(folder: Path, output: Path, **options: Any) -> beam_dedup.Result:
    return beam_dedup.deduplicate(folder, output, **{"workers": 1, **options})


_LOADED: dict[str, Any] = {}


def _hostile() -> dict[str, Any]:
    """Return what benchmarks/hostile.py defines."""
    if not _LOADED:
        import runpy

        _LOADED.update(runpy.run_path(str(_ROOT / "benchmarks/hostile.py")))
    return _LOADED


# ---------------------------------------------------------------------------- the folder
def _make_bytes(folder: Path) -> None:
    hostile = _hostile()
    for name, data in (
        ("empty.jpg", b""),
        ("empty too.jpg", b""),
        ("one byte.png", b"\x89"),
        ("text.jpg", b"hello, this is text\n" * 40),
        ("text too.jpg", b"hello, this is text\n" * 40),
        ("archive.png", b"PK\x03\x04" + bytes(200)),
        ("page.png", b"<!DOCTYPE html><html></html>"),
        ("notes.txt", b"milk, bread\n"),
    ):
        write(folder / "b1" / name, data)
    for name, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("GIF", "gif"), ("WEBP", "webp")):
        whole = saved(photo(100), name)
        for percent in (25, 50, 75, 99):
            write(folder / f"b2/{percent}.{suffix}", whole[: len(whole) * percent // 100])
    files = hostile["hostile_files"]()
    for name, data in files.items():
        if name.startswith(("b3", "b4")):
            write(folder / name[:2] / name[3:], data)
    gif = saved(photo(101), "GIF")
    write(folder / "b3/header.gif", gif[:6] + struct.pack("<HH", 65535, 65535) + gif[10:])
    bmp = saved(photo(101), "BMP")
    write(folder / "b3/header.bmp", bmp[:18] + struct.pack("<ii", 65535, 65535) + bmp[26:])
    with write(folder / "b5/large.jpg", saved(photo(102))).open("r+b") as file:
        file.truncate(300 << 20)  # sparse, so that it takes no room
    for name, data in (
        ("postscript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
        ("photoshop", b"8BPS\0\1" + bytes(60)),
        ("fits", b"SIMPLE  =                    T" + bytes(2850)),
        ("metafile", b"\xd7\xcd\xc6\x9a" + bytes(60)),
        ("document", b"%PDF-1.7\n1 0 obj\n"),
        ("drawing", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'),
    ):
        write(folder / f"b7/{name}.jpg", data)
    write(folder / "b8/png.jpg", saved(photo(103), "PNG"))
    write(folder / "b8/jpeg.png", saved(photo(104)))
    write(folder / "b8/webp", saved(photo(105), "WEBP"))


_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I;16B", "I", "F")


def _in_mode(mode: str, seed: int) -> Image.Image:
    """Return a picture of another mode; no two of these show the same."""
    image = photo(seed)
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")  # type: ignore[arg-type]
        return ImageCms.applyTransform(image, transform)  # type: ignore[return-value]
    grey = np.asarray(image.convert("L"))
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "I;16B":
        return Image.frombytes("I;16B", image.size, (grey.astype(">u2") * 257).tobytes())
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255.0)
    return image.convert(mode)


def _make_pixels(folder: Path) -> None:
    for number, mode in enumerate(_MODES):
        name = mode.replace(";", "")
        write(folder / f"m1/{name}.tif", saved(_in_mode(mode, 200 + number), "TIFF"))
        if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            write(folder / f"m1/{name}.png", saved(_in_mode(mode, 220 + number), "PNG"))
        if mode in ("L", "CMYK"):
            write(folder / f"m1/{name}.jpg", saved(_in_mode(mode, 240 + number)))
    transparent = photo(260).convert("P")
    write(folder / "m1/transparent palette.png", saved(transparent, "PNG", transparency=0))
    write(folder / "m1/transparent palette.gif", saved(photo(261).convert("P"), "GIF"))
    for orientation in range(1, 9):
        jpeg = pictures.oriented(photo(270), orientation)
        write(folder / f"m2/jpeg/{orientation}.jpg", jpeg)
        png = pictures.oriented(photo(271, 200, 300), orientation, "PNG")
        write(folder / f"m2/png/{orientation}.png", png)
    broken = b"Exif\0\0II*\0\xff\xff\xff\x7f"
    write(folder / "m2/broken.jpg", saved(photo(272), exif=broken))
    for number, name in enumerate(("GIF", "PNG", "WEBP")):
        for tail in ("a", "b"):
            seeds = (280, 282 + 4 * number + ord(tail) % 2, 294 + number)
            frames = [photo(seed, 160, 120) for seed in seeds]
            write(folder / f"m3/{name} {tail}", pictures.animation(frames, name))
    write(folder / "m3/GIF a again", (folder / "m3/GIF a").read_bytes())
    for number in range(1, 21):
        shade = ((number * 53) % 256, (number * 97) % 256, (number * 31) % 256)
        write(folder / f"m4/flat {number:02d}.png", saved(flat(shade), "PNG"))
    for name, colour in (("white", (255, 255, 255)), ("black", (0, 0, 0))):
        write(folder / f"m4/{name}.jpg", saved(flat(colour)))
    write(folder / "m4/clear.png", saved(flat((255, 255, 255, 0)), "PNG"))
    for width, height in ((1, 1), (1, 500), (500, 1), (2, 2), (3, 1), (6352, 32), (32, 6352)):
        strip = photo(300 + width % 97, max(width, 8), max(height, 8)).crop((0, 0, width, height))
        write(folder / f"m5/{width}x{height}.png", saved(strip, "PNG"))
    one = photo(310)
    write(folder / "m6/plain.jpg", saved(one))
    write(folder / "m6/tagged.jpg", saved(one, exif=pictures.exif(gps=True, artist="Nobody In")))
    write(folder / "m6/comment.jpg", saved(one, comment=b"a comment"))
    where = pictures.exif(gps=True, artist="OwnerOfThisCamera")
    write(folder / "x7/where.jpg", saved(photo(320), exif=where, comment=b"SecretCommentText"))


_NAMES = [
    b"space in name.jpg",
    b" leading and trailing .jpg ",
    b'quote\'s "double" `tick`.jpg',
    b"a;b|c&&d$(touch canary).jpg",
    b"new\nline.jpg",
    b"tab\there.jpg",
    b"star*?[a-z].jpg",
    b"[1].jpg",
    b"back\\slash.jpg",
    b"per%20cent.jpg",
    b"query?x=1.jpg",
    b"frag#1.jpg",
    "\u00e9 composed.jpg".encode(),
    "e\u0301 decomposed.jpg".encode(),
    "\u00e9".encode(),
    "e\u0301".encode(),
    "\U0001f600.jpg".encode(),
    "\u202egpj.x.jpg".encode(),
    b"n" * 250 + b".jpg",
    b"trailing dot.",
    b"...",
    b"-rf.jpg",
    b"=1+1.jpg",
    b"C:\\x.jpg",
    b"..%2f..%2fup.jpg",
    b"\xff\xfe not utf8.jpg",
    b"not utf8 \xe9.jpg",
    b"\x1b[31mred.jpg",
    b"\x7f.jpg",
    b"<img src=x onerror=alert(1)>.jpg",
    b".hidden",
    b"UPPER.JPG",
    b"upper.jpg",
    b"https:example.jpg",
]


def _make_names(folder: Path) -> None:
    # Few pixels: what matters is that each file is another picture.
    for number, name in enumerate(_NAMES):
        path = os.path.join(os.fsencode(folder / "n1"), name)
        write(Path(os.fsdecode(path)), saved(photo(400 + number, 96, 72)))
    write(folder / "n2/one/IMG_0001.jpg", saved(photo(450, 96, 72)))
    write(folder / "n2/two/IMG_0001.jpg", saved(photo(451, 96, 72)))
    write(folder / "n2/a/b.jpg", saved(photo(452, 96, 72)))
    write(folder / "n2/a_b.jpg", saved(photo(453, 96, 72)))
    target = write(folder / "n4/real.jpg", saved(photo(460, 96, 72)))
    (folder / "n4/link.jpg").symlink_to(target)
    (folder / "n4/second link.jpg").symlink_to("link.jpg")
    (folder / "n4/dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "n4/loop a").symlink_to("loop b")
    (folder / "n4/loop b").symlink_to("loop a")
    (folder / "n4/up").symlink_to("..")
    (folder / "n4/device.jpg").symlink_to("/dev/zero")
    os.mkfifo(folder / "n4/pipe.jpg")
    linked = write(folder / "g5/linked.jpg", saved(photo(461, 96, 72)))
    os.link(linked, folder / "g5/hard link.jpg")
    (folder / "g5/soft link.jpg").symlink_to("linked.jpg")
    # A better original that is cut, and two whole copies of it.
    large = saved(photo(470, 320, 240), quality=95)
    write(folder / "g6/best but cut.jpg", large[: len(large) * 9 // 10])
    write(folder / "g6/whole.jpg", saved(photo(470, 320, 240), quality=85))
    write(folder / "g6/small.jpg", saved(pictures.resized(photo(470), 0.5), quality=80))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoo") / "in"
    _make_bytes(folder)
    _make_pixels(folder)
    _make_names(folder)
    canary = folder.parent / "ghostscript ran"
    for name in ("gs", "gswin32c", "gswin64c", "gswin"):
        fake = write(folder.parent / "bin" / name, f"#!/bin/sh\ntouch '{canary}'\n".encode())
        fake.chmod(0o755)
    # Unix socket names are short, so it is made from within its folder.
    with contextlib.chdir(folder / "n4"), socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}")
        # In a process of its own, so that the peak of its memory is not that of another test.
        command = [sys.executable, "-m", "beam_dedup", "run", "--quiet", "--workers=1"]
        command += [f"--input={folder}", f"--output={folder.parent / 'out'}"]
        assert subprocess.run(command, check=False).returncode == 3  # most of it is hostile
    report = Report.open(str(folder.parent / "out"))
    return Zoo(folder, report, _rows(folder, report), canary.exists())


# ---------------------------------------------------------------------------- input bytes
def test_b1_what_is_no_image_fails_and_is_in_no_group(zoo: Zoo) -> None:
    unidentified = ("decode", "unidentified")
    assert zoo.errors("b1") == {
        "empty.jpg": unidentified,
        "empty too.jpg": unidentified,
        "one byte.png": unidentified,
        "text.jpg": unidentified,
        "text too.jpg": unidentified,
        "archive.png": unidentified,
        "page.png": unidentified,
        "notes.txt": ("decode", "not_an_image"),
    }
    assert zoo.groups("b1") == []
    rows = zoo.below("b1")
    # Equal bytes are told by their hash, and never acted on.
    assert rows["text.jpg"]["sha256"] == rows["text too.jpg"]["sha256"] is not None
    assert {row["status"] for row in rows.values()} == {"failed"}


def test_b2_cut_files_fail_and_are_never_padded_into_duplicates(zoo: Zoo) -> None:
    names = {f"{p}.{s}" for p in (25, 50, 75, 99) for s in ("jpg", "png", "gif", "webp")}
    assert zoo.errors("b2") == dict.fromkeys(names, ("decode", "truncated"))
    assert zoo.groups("b2") == []


def test_b3_a_header_bomb_fails_by_its_header(zoo: Zoo) -> None:
    found = zoo.errors("b3")
    names = {"header.png", "header.jpg", "header.gif", "header.bmp"}
    assert found == dict.fromkeys(names, ("decode", "too_large"))
    stages = {stage["name"]: stage for stage in zoo.report.summary["stages"]}
    # Any of the four would take 4.3 GB as a decoded picture of one byte a pixel.
    assert stages["fingerprint"]["peak_rss_bytes"] < 3 << 30


def test_b4_bombs_of_metadata_frames_and_directories_fail(zoo: Zoo) -> None:
    assert zoo.errors("b4") == {
        "text bomb.png": ("decode", "too_large"),
        "frames.gif": ("decode", "too_large"),
        "loop.tif": ("decode", "other"),
    }


def test_b5_a_file_over_the_limit_is_not_read(zoo: Zoo) -> None:
    [(name, row)] = zoo.below("b5").items()
    assert (name, row["error_type"], row["size_bytes"]) == ("large.jpg", "too_large", 300 << 20)
    assert row["sha256"] is None
    volume = zoo.report.summary["bytes"]
    assert volume["listed"] > 300 << 20
    assert volume["read_first"] < 64 << 20


def test_b7_formats_that_are_not_allowed_never_reach_ghostscript(zoo: Zoo) -> None:
    names = ("postscript", "photoshop", "fits", "metafile", "document", "drawing")
    expected = dict.fromkeys((f"{n}.jpg" for n in names), ("decode", "format_not_allowed"))
    assert zoo.errors("b7") == expected
    assert not zoo.ghostscript_ran


def test_b8_content_decides_and_the_row_shows_name_and_format(zoo: Zoo) -> None:
    found = {name: (row["status"], row["format"]) for name, row in zoo.below("b8").items()}
    assert found == {
        "png.jpg": ("unique", "PNG"),
        "jpeg.png": ("unique", "JPEG"),
        "webp": ("unique", "WEBP"),
    }


# ---------------------------------------------------------------------------- pixels
def test_m1_every_mode_is_processed_or_fails_and_none_is_silently_black(zoo: Zoo) -> None:
    rows = zoo.below("m1")
    assert len(rows) == len(_MODES) + 7 + 2 + 2
    assert zoo.groups("m1") == []
    processed = {name: row for name, row in rows.items() if row["status"] != "failed"}
    assert {row["status"] for row in processed.values()} == {"unique"}
    for name, row in processed.items():
        assert 0.15 < row["brightness"] < 0.85, name
        assert row["contrast"] > 0.1, name
    # Those of everyday files are processed, not only counted.
    everyday = {"L.jpg", "CMYK.jpg", "L.png", "LA.png", "P.png", "RGB.png", "RGBA.png", "1.png"}
    everyday |= {"I16.png", "transparent palette.png", "transparent palette.gif", "RGB.tif"}
    assert everyday <= processed.keys()


def test_m2_the_eight_orientations_of_a_picture_are_one_group(zoo: Zoo) -> None:
    assert zoo.groups("m2") == [
        {f"m2/jpeg/{orientation}.jpg" for orientation in range(1, 9)},
        {f"m2/png/{orientation}.png" for orientation in range(1, 9)},
    ]
    sizes = {(row["width"], row["height"]) for row in zoo.below("m2/jpeg").values()}
    assert sizes == {(320, 240)}
    assert {(r["width"], r["height"]) for r in zoo.below("m2/png").values()} == {(200, 300)}
    # Turned back without loss, lossless pictures are the same pixels.
    relations = sorted(r["relation"] or "best" for r in zoo.below("m2/png").values())
    assert relations == ["best"] + ["pixels"] * 7


def test_m2_broken_exif_is_no_failure(zoo: Zoo) -> None:
    row = zoo.rows["m2/broken.jpg"]
    assert (row["status"], row["width"], row["height"]) == ("unique", 320, 240)


def test_m3_animations_that_share_a_frame_are_for_a_person(zoo: Zoo) -> None:
    assert zoo.groups("m3") == [{"m3/GIF a", "m3/GIF a again"}]
    rows = zoo.below("m3")
    assert rows["GIF a again"]["relation"] == "exact"
    others = {row["status"] for name, row in rows.items() if not name.startswith("GIF a")}
    assert others == {"unique"}
    uris = {row["uri"] for row in rows.values()}
    inside = [e for e in zoo.report.edges.to_pylist() if {e["uri_a"], e["uri_b"]} <= uris]
    assert inside
    assert {edge["verdict"] for edge in inside} <= {"review", "reject"}


def test_m4_pictures_without_information_are_not_merged(zoo: Zoo) -> None:
    assert zoo.groups("m4") == []
    assert {row["status"] for row in zoo.below("m4").values()} == {"unique"}
    assert len(zoo.below("m4")) == 20 + 2 + 1


def test_m4_gradients_are_not_merged(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 255, 160).astype(np.uint8), (120, 1))
    for name, pixels in (
        ("ramp", ramp),
        ("soft ramp", ramp // 2 + 64),
        ("dark ramp", ramp // 4),
        ("steep ramp", np.clip(ramp.astype(np.int16) * 2 - 128, 0, 255).astype(np.uint8)),
        ("three pixels", ramp[:1, ::80]),
    ):
        write(tmp_path / f"in/{name}.png", saved(Image.fromarray(pixels), "PNG"))
    result = _run(tmp_path / "in", tmp_path / "out")
    assert set(result.images["status"].to_pylist()) == {"unique"}
    assert "accept" not in result.edges["verdict"].to_pylist()


def test_m5_odd_shapes_have_rows(zoo: Zoo) -> None:
    shapes = ((1, 1), (1, 500), (500, 1), (2, 2), (3, 1), (6352, 32), (32, 6352))
    found = {name: (r["width"], r["height"], r["status"]) for name, r in zoo.below("m5").items()}
    assert found == {f"{w}x{h}.png": (w, h, "unique") for w, h in shapes}


def test_m6_x8_equal_pixels_of_different_files_are_pixels_and_metadata_is_kept(zoo: Zoo) -> None:
    rows = zoo.below("m6")
    assert {name: (row["status"], row["relation"]) for name, row in rows.items()} == {
        "tagged.jpg": ("best", None),
        "plain.jpg": ("duplicate", "pixels"),
        "comment.jpg": ("duplicate", "pixels"),
    }
    assert {row["keep_reason"] for row in rows.values()} == {"metadata"}
    assert len({row["pixel_hash"] for row in rows.values()}) == 1
    assert len({row["sha256"] for row in rows.values()}) == 3
    # Equal pixels are one content: there is nothing to compare.
    uris = {row["uri"] for row in rows.values()}
    assert not [e for e in zoo.report.edges.to_pylist() if {e["uri_a"], e["uri_b"]} & uris]


def test_x8_exact_is_equal_sha256_and_size_and_nothing_else(zoo: Zoo) -> None:
    by_uri = {row["uri"]: row for row in zoo.rows.values()}
    exact = 0
    for row in zoo.rows.values():
        if row["status"] == "duplicate":
            best = by_uri[row["best_uri"]]
            same = (row["sha256"], row["size_bytes"]) == (best["sha256"], best["size_bytes"])
            assert (row["relation"] == "exact") == same
            exact += same
    assert exact >= 2


class _Embed:
    """Gives vectors that cannot be compared, to members whose uri says so."""

    def __call__(self, record: MemberRecord) -> Embedded:
        vector = np.zeros(DIMENSIONS, np.float32)
        vector[0] = 1.0
        if "nan" in record.uri:
            vector[:] = np.nan
        elif "infinite" in record.uri:
            vector[0] = np.inf
        elif "zero" in record.uri:
            vector[:] = 0.0
        return Embedded(vector.tobytes())


class _FakeHandler(ModelHandler[MemberRead, PredictionResult, _Embed]):
    def load_model(self) -> _Embed:
        return _Embed()

    def run_inference(
        self,
        batch: Sequence[MemberRead],
        model: _Embed,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterator[PredictionResult]:
        for member in batch:
            yield PredictionResult(member, Timed.call(model, member.record))


def test_m7_an_embedding_that_is_no_number_sends_its_pairs_to_review() -> None:
    contents = [make_content(name) for name in ("good", "fine", "nan", "infinite", "zero")]
    pairs = [
        blank_edge(measure(star_candidate(one, other), one, other))
        for number, one in enumerate(contents)
        for other in contents[number + 1 :]
    ]
    unit = PairUnit("u", b"c", contents, pairs)
    members = [
        MemberRead(
            MemberRecord(c.content, c.uri, b"t", b"p", b"", "", "", "", 1), ["u"], b"t", UPRIGHT
        )
        for c in contents
    ]
    bad = {c.content for c in contents[2:]}
    expected = [
        (e.a, e.b, "review", "global", "bad_embedding", True) for e in pairs if {e.a, e.b} & bad
    ]
    with TestPipeline() as pipeline:
        embedded = pipeline | beam.Create(members) | EmbedMembers(_FakeHandler())
        units = pipeline | "Units" >> beam.Create([unit]).with_output_types(PairUnit)
        # Threshold 0: nothing but the failure keeps these pairs from being accepted.
        compared = units | CompareGlobals(GlobalSettings(0.0), [embedded.by_unit])
        seen = compared.edges | beam.MapTuple(
            lambda _, e: (
                e.a,
                e.b,
                e.verdict,
                e.error_stage,
                e.error_type,
                e.failed_member in bad,
            )
        )
        assert_that(seen, equal_to(expected), label="to review")
        left = compared.undecided | beam.Map(lambda pair: {pair.edge.a, pair.edge.b} & bad)
        assert_that(left, equal_to([set()]), label="the good pair goes on")


# ---------------------------------------------------------------------------- grouping
def test_g1_the_zoo_is_partitioned_with_one_keeper_a_group(zoo: Zoo) -> None:
    files = {
        os.path.relpath(os.path.join(root, name), zoo.folder)
        for root, _, names in os.walk(zoo.folder)
        for name in names
    }
    links = {"n4/link.jpg", "n4/second link.jpg", "g5/soft link.jpg", "n4/up"}
    links.add("n4/device.jpg")  # its row is that of its target
    assert set(zoo.rows) == (files - links) | {"/dev/zero"}
    members = defaultdict(list)
    for row in zoo.rows.values():
        if row["group_id"]:
            members[row["group_id"]].append(row["status"])
    assert all(sorted(set(group)) == ["best", "duplicate"] for group in members.values())
    assert all(group.count("best") == 1 for group in members.values())
    counts = zoo.report.summary["counts"]
    assert (
        counts["listed"]
        == len(zoo.rows)
        == sum(counts[name] for name in ("unique", "best", "duplicate", "failed"))
    )
    assert zoo.report.check() == []


def _fade(share: float) -> Image.Image:
    return Image.blend(photo(500), photo(501), share)


def test_g3_a_chain_never_removes_its_far_end_for_the_keeper(tmp_path: Path) -> None:
    steps = [number / 16 for number in range(17)]
    for number, share in enumerate(steps):
        write(tmp_path / f"in/{number}.png", saved(_fade(share), "PNG"))
    result = _run(tmp_path / "in", tmp_path / "out")
    rows = _rows(tmp_path / "in", result)
    accepted = {
        frozenset((edge["uri_a"], edge["uri_b"]))
        for edge in result.edges.to_pylist()
        if edge["verdict"] == "accept"
    }
    chain = [rows[f"{number}.png"] for number in range(len(steps))]
    assert frozenset((chain[0]["uri"], chain[-1]["uri"])) not in accepted
    assert chain[0]["group_id"] != chain[-1]["group_id"]
    assert len(accepted) >= 8
    assert len(result.groups) >= 2
    for row in chain:
        if row["status"] == "duplicate":
            assert frozenset((row["uri"], row["best_uri"])) in accepted
    assert Report.open(result.output).check() == []


def test_g4_many_equal_images_are_one_content(tmp_path: Path) -> None:
    data = saved(photo(510, 96, 72))
    for number in range(2000):
        write(tmp_path / f"in/{number // 100}/{number}.jpg", data)
    write(tmp_path / "in/other.jpg", saved(photo(511, 96, 72)))
    result = _run(tmp_path / "in", tmp_path / "out", profile="fast")
    assert result.counts == {
        "listed": 2001,
        "unique": 1,
        "best": 1,
        "duplicate": 1999,
        "failed": 0,
        "groups": 1,
    }
    assert len(result.edges) == 0
    [group] = result.groups.to_pylist()
    assert (group["size"], group["reclaimable_bytes"]) == (2000, 1999 * len(data))


def test_g5_one_file_by_several_ways_is_one_row(tmp_path: Path) -> None:
    image = write(tmp_path / "in/deep/a.jpg", saved(photo(520)))
    (tmp_path / "in/link.jpg").symlink_to(image)
    (tmp_path / "by link").symlink_to(tmp_path / "in")
    lines = f"{image}\n{image}\n{tmp_path}/in/./deep/../deep/a.jpg\n"
    listed = write(tmp_path / "list.txt", lines.encode())
    inputs = [
        tmp_path / "in",
        tmp_path / "in/deep",
        image,
        tmp_path / "by link/deep",
        tmp_path / "in/*/*.jpg",
        listed,
        image.as_uri(),
    ]
    result = beam_dedup.deduplicate(inputs, tmp_path / "out", workers=1, profile="fast")
    [row] = result.images.to_pylist()
    assert (row["status"], row["uri"]) == ("unique", image.as_uri())


def test_g5_a_soft_link_is_its_target_and_a_hard_link_reclaims_nothing(zoo: Zoo) -> None:
    rows = zoo.below("g5")
    assert {name: (row["status"], row["relation"]) for name, row in rows.items()} == {
        "hard link.jpg": ("best", None),
        "linked.jpg": ("duplicate", "exact"),
    }
    [group] = [
        group
        for group in zoo.report.groups.to_pylist()
        if group["best_uri"] == rows["hard link.jpg"]["uri"]
    ]
    assert (group["size"], group["reclaimable_bytes"]) == (2, 0)


def test_g6_a_failed_image_is_never_kept_and_takes_no_copy_with_it(zoo: Zoo) -> None:
    rows = zoo.below("g6")
    found = {name: (r["status"], r["relation"], r["error_type"]) for name, r in rows.items()}
    assert found == {
        "best but cut.jpg": ("failed", None, "truncated"),
        "whole.jpg": ("best", None, None),
        "small.jpg": ("duplicate", "resized", None),
    }
    kept = {row["best_uri"] for row in zoo.rows.values()}
    failed = {row["uri"] for row in zoo.rows.values() if row["status"] == "failed"}
    assert not kept & failed


def test_g6_a_keeper_that_fails_later_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best image goes away between the two reads: its pairs are for a person."""
    from transforms.storage import reads

    one = photo(530)
    half = pictures.resized(one, 0.5)
    write(tmp_path / "in/best.jpg", saved(one, quality=97))
    write(tmp_path / "in/equal.jpg", saved(half, quality=85))
    write(tmp_path / "in/written.jpg", saved(pictures.captioned(half), quality=85))
    first = _rows(tmp_path / "in", _run(tmp_path / "in", tmp_path / "out"))
    assert {name: (row["status"], row["decided_by"]) for name, row in first.items()} == {
        "best.jpg": ("best", None),
        "equal.jpg": ("duplicate", "color"),
        "written.jpg": ("duplicate", "local"),
    }
    read = reads.read_bytes

    times: list[str] = []

    def gone(uri: str, *rest: Any) -> bytes:
        times.append(uri)
        if uri.endswith("best.jpg") and times.count(uri) > 1:
            raise StorageError("vanished", "it is no longer there")
        return read(uri, *rest)

    monkeypatch.setattr(reads, "read_bytes", gone)
    result = _run(tmp_path / "in", tmp_path / "again")
    rows = _rows(tmp_path / "in", result)
    assert {name: (row["status"], row["error_stage"]) for name, row in rows.items()} == {
        "best.jpg": ("best", "read"),
        "equal.jpg": ("duplicate", None),  # told by colour, without a second read
        "written.jpg": ("unique", None),
    }
    assert rows["best.jpg"]["error_type"] == "vanished"
    review = [e["verdict"] for e in result.edges.to_pylist() if e["decided_by"] != "color"]
    assert set(review) == {"review"}
    assert Report.open(result.output).check() == []


@pytest.fixture(scope="module")
def edge_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Row]:
    """Return a folder of two pictures, and the edge between them."""
    folder = tmp_path_factory.mktemp("edge") / "in"
    write(folder / "a.jpg", saved(photo(540)))
    recoloured = pictures.cropped(photo(540), 0.02).point(lambda level: level * 0.9 + 9)
    write(folder / "b.jpg", saved(recoloured, quality=40))
    # Without words pictures are decoded smaller, so that scores are those of one profile.
    [edge] = _run(folder, folder.parent / "out", profile="fast").edges.to_pylist()
    assert edge["wavelet_distance"] > 1
    assert 0.0 < edge["color_similarity"] <= 1.0
    return folder, edge


def test_g7_a_pair_at_the_wavelet_threshold_passes(
    edge_pair: tuple[Path, Row], tmp_path: Path
) -> None:
    folder, edge = edge_pair
    bits = edge["wavelet_distance"]
    at = {"wavelet_bits": bits, "profile": "fast"}
    assert len(_run(folder, tmp_path / "at", **at).edges) == 1
    exact = {"wavelet_threshold": 1 - bits / 256, "profile": "fast"}
    assert len(_run(folder, tmp_path / "exact", **exact).edges) == 1
    below = {"wavelet_bits": bits - 1, "profile": "fast"}
    assert len(_run(folder, tmp_path / "below", **below).edges) == 0


def test_g7_a_pair_at_the_colour_threshold_passes(
    edge_pair: tuple[Path, Row], tmp_path: Path
) -> None:
    folder, edge = edge_pair
    similarity = edge["color_similarity"]
    settings: dict[str, Any] = {"profile": "fast", "wavelet_bits": 60}
    at = _run(folder, tmp_path / "at", color_threshold=similarity, **settings)
    assert at.edges["verdict"].to_pylist() != ["reject"]
    if similarity < 1.0:
        above = _run(folder, tmp_path / "on", color_threshold=similarity + 1e-4, **settings)
        assert above.edges["verdict"].to_pylist() == ["reject"]


@pytest.mark.parametrize("bits", [0, 256])
def test_g7_the_least_and_the_greatest_threshold_work(
    edge_pair: tuple[Path, Row], tmp_path: Path, bits: int
) -> None:
    result = _run(edge_pair[0], tmp_path / "out", wavelet_bits=bits, profile="fast")
    assert len(result.edges) == (1 if bits else 0)


@pytest.mark.parametrize(
    "option",
    [
        "--wavelet_bits=257",
        "--wavelet_bits=-1",
        "--wavelet_threshold=nan",
        "--color_threshold=1.5",
        "--local_threshold=nan",
        "--max_failure_ratio=nan",
        "--max_failure_ratio=-0.1",
    ],
)
def test_g7_a_threshold_out_of_range_is_exit_2(
    edge_pair: tuple[Path, Row], tmp_path: Path, option: str
) -> None:
    argv = ["run", f"--input={edge_pair[0]}", f"--output={tmp_path / 'out'}", option]
    assert cli.main(argv) == 2
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- names
def test_n1_every_name_is_one_row_whose_uri_leads_back_to_the_file(zoo: Zoo) -> None:
    rows = {n: r for n, r in zoo.rows.items() if n.startswith("n1/")}
    assert {os.fsencode(name[3:]) for name in rows} == set(_NAMES)
    for name, row in rows.items():
        assert row["status"] == "unique", name
        path = unquote_to_bytes(urlsplit(row["uri"]).path)
        assert path == os.fsencode(zoo.folder / name)
        assert Path(os.fsdecode(path)).stat().st_size == row["size_bytes"]
        assert row["path"].isprintable()
        assert set(row["uri"].removeprefix("file://")) <= set(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/%"
        )
    assert not list(_ROOT.glob("canary")) + list(Path.cwd().glob("canary"))
    assert not (zoo.folder / "n1/canary").exists()


def test_n2_equal_base_names_and_lookalike_paths_are_distinct(zoo: Zoo) -> None:
    assert {name: row["status"] for name, row in zoo.below("n2").items()} == dict.fromkeys(
        ("one/IMG_0001.jpg", "two/IMG_0001.jpg", "a/b.jpg", "a_b.jpg"), "unique"
    )
    assert len({row["uri"] for row in zoo.below("n2").values()}) == 4


def test_n3_names_that_look_like_other_places_write_nothing_there(zoo: Zoo) -> None:
    assert sorted(path.name for path in zoo.folder.parent.iterdir()) == ["bin", "in", "out"]
    for name in ("C:\\x.jpg", "..%2f..%2fup.jpg"):
        assert zoo.rows[f"n1/{name}"]["status"] == "unique"
    assert zoo.rows["n1/..%2f..%2fup.jpg"]["uri"].endswith("/n1/..%252f..%252fup.jpg")


def test_n4_links_pipes_and_devices_end_as_rows_and_are_never_opened(zoo: Zoo) -> None:
    found = {name: (r["status"], r["error_stage"]) for name, r in zoo.below("n4").items()}
    assert found == {
        "real.jpg": ("unique", None),
        "dangling.jpg": ("failed", "list"),
        "loop a": ("failed", "list"),
        "loop b": ("failed", "list"),
        "pipe.jpg": ("failed", "list"),
        "socket.jpg": ("failed", "list"),
    }
    assert zoo.rows["n4/dangling.jpg"]["error_type"] == "not_found"
    device = zoo.rows["/dev/zero"]
    assert (device["status"], device["error_stage"]) == ("failed", "list")


# ---------------------------------------------------------------------------- storage
@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of nine pictures and one file that fails."""
    folder = tmp_path_factory.mktemp("ten") / "in"
    for number in range(9):
        write(folder / f"{number}.jpg", saved(photo(600 + number, 96, 72)))
    write(folder / "bad.jpg", b"no image\n")
    return folder


def _cli(folder: Path, output: Path, *more: str) -> int:
    argv = ["run", f"--input={folder}", f"--output={output}", "--workers=1", "--profile=fast"]
    return cli.main([*argv, "-q", *more])


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_r13_an_output_that_is_a_file_is_refused(
    ten: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], below: str
) -> None:
    file = write(tmp_path / "out", b"precious")
    assert _cli(ten, Path(f"{file}{below}")) in (1, 2)
    assert file.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [file]
    err = capfd.readouterr().err
    assert len([line for line in err.splitlines() if line.startswith("beam-dedup:")]) == 1


_LITTLE_ROOM = """
import resource, sys
from beam_dedup import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
sys.exit(cli.main(sys.argv[1:]))
"""


def test_r13_a_full_disk_fails_the_job_without_a_manifest(ten: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert _cli(ten, output, "--max_failure_ratio=0.5") == 0
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    argv = ["run", f"--input={ten}", f"--output={output}", "--workers=1", "--profile=fast", "-q"]
    ended = subprocess.run(
        [sys.executable, "-c", _LITTLE_ROOM, *argv],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 1, ended.stderr
    assert "File too large" in ended.stderr
    # What was there stays, byte for byte; of the failed run nothing is left.
    assert {p: p.read_bytes() for p in output.rglob("*") if p.is_file()} == before
    assert Report.open(str(output)).check() == []


@pytest.mark.parametrize(("ratio", "code"), [("0.1", 0), ("0.0999", 3), ("0", 3), ("1", 0)])
def test_r15_the_exit_code_is_as_the_ratio_says(
    ten: Path, tmp_path: Path, ratio: str, code: int
) -> None:
    assert _cli(ten, tmp_path / "out", f"--max_failure_ratio={ratio}") == code
    report = Report.open(str(tmp_path / "out"))
    assert report.check() == []
    assert report.summary["counts"] == {
        "listed": 10,
        "unique": 9,
        "best": 0,
        "duplicate": 0,
        "failed": 1,
        "groups": 0,
    }


@pytest.mark.parametrize("ratio", ["0.05", "1"])
def test_r15_where_all_fail_the_exit_code_is_3(tmp_path: Path, ratio: str) -> None:
    write(tmp_path / "in/a.jpg", b"")
    write(tmp_path / "in/b.txt", b"text")
    assert _cli(tmp_path / "in", tmp_path / "out", f"--max_failure_ratio={ratio}") == 3
    assert Report.open(str(tmp_path / "out")).check() == []


def test_r15_no_input_is_refused(ten: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    assert _cli(tmp_path / "in", tmp_path / "out") == 2
    assert _cli(tmp_path / "gone", tmp_path / "out") == 2
    assert _cli(ten, tmp_path / "out", "--include=*.none") == 2
    assert not (tmp_path / "out").exists()


def test_r15_a_file_that_is_no_image_does_not_count(ten: Path, tmp_path: Path) -> None:
    for number in range(9):
        write(tmp_path / f"in/{number}.jpg", (ten / f"{number}.jpg").read_bytes())
        write(tmp_path / f"in/{number}.txt", b"a note\n")
    assert _cli(tmp_path / "in", tmp_path / "out", "--max_failure_ratio=0") == 0


def test_b1_n4_20_hostile_files_beside_100_good_ones(tmp_path: Path) -> None:
    script = [sys.executable, str(_ROOT / "benchmarks/hostile.py"), str(tmp_path / "in")]
    made = subprocess.run(script, capture_output=True, text=True, check=True, timeout=120)
    assert made.stdout.startswith("100 good pictures and 20 hostile files")
    options = ["--max_failure_ratio=0.17", "--profile=balanced"]
    assert _cli(tmp_path / "in", tmp_path / "out", *options) == 0
    report = Report.open(str(tmp_path / "out"))
    assert report.check() == []
    assert report.summary["counts"] == {
        "listed": 120,
        "unique": 60,
        "best": 20,
        "duplicate": 20,
        "failed": 20,
        "groups": 20,
    }
    rows = _rows(tmp_path / "in", report)
    assert len(rows) == 120
    failed = {name for name, row in rows.items() if row["status"] == "failed"}
    assert failed == {name for name in rows if name.startswith("hostile/")}
    for number in range(20):
        pair = {rows[f"good/{number:02d}.jpg"]["group_id"]}
        assert pair == {rows[f"good/{number:02d} again.jpg"]["group_id"]}
    # 20 of 120 is more than the default of 0.05 allows.
    assert _cli(tmp_path / "in", tmp_path / "out") == 3
    assert len(Report.open(str(tmp_path / "out")).images) == 120


# ---------------------------------------------------------------------------- security
def test_x5_the_printed_command_is_quoted_for_a_shell(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / 'temp_\';$(touch canary) `x` & "y"'
    write(folder / "a.jpg", saved(photo(610, 96, 72)))
    argv = [f"--input={folder}", f"--output={tmp_path / 'out; rm -rf'}"]
    assert cli.main(["run", *argv, "--dry_run"]) == 0
    told = capfd.readouterr().out
    [line] = [one for one in told.splitlines() if one.startswith("run it with: ")]
    assert shlex.split(line.removeprefix("run it with: ")) == ["beam-dedup", "run", *argv]
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]


def test_x6_names_reach_no_line_of_the_terminal_unescaped(tmp_path: Path) -> None:
    for name in ("line\nERROR all is lost.jpg", "\x1b[2J\x1b[31mred.jpg", "\rover.jpg"):
        write(tmp_path / "in" / name, b"no image\n")
        write(tmp_path / "in" / name.replace(".", "2."), saved(photo(620, 96, 72)))
    (tmp_path / "in/link\x1b[0m\nx").symlink_to("gone\x1b[31m")
    command = [sys.executable, "-m", "beam_dedup", "run", "-v", "--workers=1"]
    output = tmp_path / "out\x1b[31m\nx"
    ended = subprocess.run(
        [*command, f"--input={tmp_path / 'in'}", f"--output={output}"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 3, ended.stderr
    for text in (ended.stdout, ended.stderr):
        assert all(char.isprintable() or char == "\n" for char in text), repr(text)
        assert not [line for line in text.splitlines() if line.startswith("ERROR")]
    for row in Report.open(str(output)).images.to_pylist():
        assert row["path"].isprintable()
        assert (row["error_message"] or "").isprintable()


def test_x7_no_place_and_no_owner_in_the_report(zoo: Zoo) -> None:
    texts = [json.dumps(getattr(zoo.report, name).to_pylist(), default=str) for name in (
        "images",
        "groups",
        "edges",
    )]  # fmt: skip
    output = zoo.folder.parent / "out"
    texts += [path.read_text() for path in output.iterdir() if path.is_file()]
    assert len(texts) == 7
    for secret in ("OwnerOfThisCamera", "Nobody In", "SecretCommentText", "GPS", "39.9"):
        assert not [text for text in texts if secret in text], secret
    assert zoo.rows["x7/where.jpg"]["status"] == "unique"


def test_two_runs_into_one_output_at_once_are_not_mixed(ten: Path, tmp_path: Path) -> None:
    """The second is refused while the first still writes."""
    results: list[Any] = []

    def second(*_: Any) -> None:
        if not results:
            try:
                results.append(_run(ten, tmp_path / "out", profile="fast"))
            except beam_dedup.UsageError as error:
                results.append(error)

    done = threading.Event()

    def once(*told: Any) -> None:
        if not done.is_set():
            done.set()
            second(*told)

    result = _run(ten, tmp_path / "out", profile="fast", progress=once)
    assert result.counts["listed"] == 10
    assert results
    assert isinstance(results[0], beam_dedup.UsageError)
    assert "another run" in str(results[0])
    assert Report.open(str(tmp_path / "out")).run_id == result.run_id
