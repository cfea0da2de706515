import csv
import random
import sys
from collections import Counter
from pathlib import Path

import cv2
import edits
import numpy as np
import pytest
from PIL import Image

from tests.pictures import photo

_FORMATS = ("jpeg_10", "gif", "png_16bit", "cmyk_jpeg")


def places(width: int = 250, height: int = 200) -> Image.Image:
    """Return a picture whose red is x and whose green is y, in pixels."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x, y, np.zeros_like(x)], axis=-1).astype(np.uint8))


def box(picture: Image.Image) -> tuple[int, int, int, int]:
    """Return what a crop of ``places`` shows: left, top, right, bottom, the last two not shown."""
    shown = np.asarray(picture)
    return (*shown[0, 0, :2].tolist(), *(shown[-1, -1, :2] + 1).tolist())


@pytest.mark.parametrize("kind", list(edits.EDITS))
def test_every_edit_changes_the_picture_and_is_the_same_twice(kind: str) -> None:
    picture = photo(1)
    before = picture.tobytes()
    first, second = (edits.EDITS[kind](picture, random.Random(3)) for _ in range(2))
    assert first.mode == "RGB"
    assert (first.size, first.tobytes()) == (second.size, second.tobytes())
    assert picture.tobytes() == before
    assert (first.tobytes() == before) == (kind in _FORMATS)


@pytest.mark.parametrize("share", [10, 20, 30, 40])
@pytest.mark.parametrize("seed", range(5))
def test_off_crop_cuts_its_share_and_is_not_centred(share: int, seed: int) -> None:
    cut = edits.EDITS[f"off_crop_{share}"](places(), random.Random(seed))
    left, top, right, bottom = box(cut)
    assert (right - left, bottom - top) == cut.size
    assert cut.width * cut.height / (250 * 200) == pytest.approx(1 - share / 100, abs=0.02)
    assert abs(left - (250 - right)) + abs(top - (200 - bottom)) >= 4


@pytest.mark.parametrize("kind", ["border_side_thin", "border_side_wide"])
@pytest.mark.parametrize("seed", range(5))
def test_a_side_border_leaves_the_other_sides(kind: str, seed: int) -> None:
    out = edits.EDITS[kind](places(), random.Random(seed))
    grown = (out.width - 250, out.height - 200)
    assert sorted(grown)[0] == 0
    low, high = {"border_side_thin": (4, 10), "border_side_wide": (24, 50)}[kind]
    assert low <= max(grown) <= high
    corners = [(x, y) for x in {0, grown[0]} for y in {0, grown[1]}]
    inside = [out.crop((x, y, x + 250, y + 200)).tobytes() for x, y in corners]
    assert places().tobytes() in inside


@pytest.mark.parametrize("kind", ["perspective", "turn_8"])
@pytest.mark.parametrize("size", [(250, 200), (120, 300)])
def test_no_corner_stays_empty(kind: str, size: tuple[int, int]) -> None:
    white = Image.new("RGB", size, (255, 255, 255))
    for seed in range(4):
        out = np.asarray(edits.EDITS[kind](white, random.Random(seed)))
        assert out.min() == 255
        assert min(out.shape[:2]) > 0.7 * min(size)


def test_two_crops_of_a_photograph_share_no_pixel() -> None:
    for size in ((250, 200), (120, 220)):
        first, second = (box(edits.apart_crops(places(*size), number)) for number in (0, 1))
        assert first[2] <= second[0] or first[3] <= second[1]


def test_a_moved_subject_covers_two_places() -> None:
    scene = Image.new("RGB", (300, 200), (0, 0, 0))
    subject = Image.new("RGB", (50, 50), (255, 255, 255))
    first, second = (np.asarray(edits.moved(scene, subject, n))[..., 0] > 128 for n in (0, 1))
    assert not (first & second).any()
    assert first.mean() == pytest.approx(np.pi / 4 * 0.38 * 0.55, rel=0.07)
    assert second.mean() == pytest.approx(first.mean(), rel=0.01)


@pytest.mark.parametrize("seed", range(8))
def test_a_hue_turns_by_60_degrees_or_more(seed: int) -> None:
    red = Image.new("RGB", (8, 8), (200, 40, 40))
    hue, saturation, value = (
        edits.hue_turned(red, random.Random(seed)).convert("HSV").getpixel((3, 3))
    )
    before = red.convert("HSV").getpixel((3, 3))
    turn = min(abs(hue - before[0]), 256 - abs(hue - before[0])) * 360 / 256
    assert 57 <= turn <= 180
    assert (saturation, value) == pytest.approx(before[1:], abs=4)


def test_deep_png_holds_16_bits_of_each_colour(tmp_path: Path) -> None:
    pixels = np.asarray(photo(2, 31, 17))
    (tmp_path / "deep.png").write_bytes(edits.deep_png(pixels))
    read = cv2.imread(str(tmp_path / "deep.png"), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read[..., ::-1], pixels.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("kind", "suffix", "mode", "apart"),
    [("gif", ".gif", "P", 14), ("cmyk_jpeg", ".jpg", "CMYK", 8), ("jpeg_10", ".jpg", "RGB", 12)],
)
def test_a_format_is_written_and_reads_back_alike(
    tmp_path: Path, kind: str, suffix: str, mode: str, apart: float
) -> None:
    picture = photo(4)
    path = edits.write(picture, kind, tmp_path / "a", random.Random(1))
    with Image.open(path) as read:
        assert (path.suffix, read.mode) == (suffix, mode)
        again = np.asarray(read.convert("RGB"), float)
    assert np.abs(again - np.asarray(picture, float)).mean() < apart


@pytest.mark.parametrize("kind", list(edits.DRAWN))
def test_drawn_look_alikes_share_a_layout_and_differ(kind: str) -> None:
    drawn = [
        np.asarray(edits.DRAWN[kind][0](random.Random(seed), seed, random.Random("layout")), int)
        for seed in range(6)
    ]
    assert len({picture.shape for picture in drawn}) == 1
    assert len({picture.tobytes() for picture in drawn}) == 6
    # Most of the pixels are the layout's own.
    assert (np.abs(drawn[0] - drawn[1]).max(axis=-1) > 60).mean() < 0.4


def test_plan_uses_each_photograph_for_one_thing() -> None:
    names = [f"{number}.jpg" for number in range(100)]
    jobs = edits.plan(names, 5, lambda name: float(name[:-4]))
    originals = {job.source for job in jobs if job.kind == "original"}
    reserved = {
        name
        for job in jobs
        if job.kind in ("hard_crops", "hard_frame", "hard_moved")
        for name in job.source.split("|")
    }
    assert len(originals) == 84
    assert not originals & reserved
    copies = [job for job in jobs if job.kind in edits.EDITS]
    per_photograph = Counter(job.group for job in copies)
    assert set(per_photograph.values()) == {14}
    assert len(per_photograph) == 40
    assert len({(job.group, job.kind) for job in copies}) == len(copies)
    per_kind = Counter(job.kind for job in copies)
    assert set(per_kind) == set(edits.EDITS)
    assert max(per_kind.values()) - min(per_kind.values()) <= 2
    hard = [job for job in jobs if job.kind.startswith("hard_")]
    assert len({job.group for job in hard}) == len(hard) == 62
    assert {job.group for job in hard}.isdisjoint(job.group for job in jobs if job not in hard)


def test_plan_depends_on_the_seed_alone() -> None:
    names = [f"{number}.jpg" for number in range(50)]
    once, again, other = (
        edits.plan(n, s, len) for n, s in ((names, 1), (names[::-1], 1), (names, 2))
    )
    assert once == again
    assert once != other


def test_the_set_names_each_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    originals = tmp_path / "in"
    originals.mkdir()
    for seed in range(7):
        photo(seed, 160, 120).save(originals / f"{seed}.jpg")
    argv = ["edits.py", f"--originals={originals}", f"--out={tmp_path / 'out'}", "--limit=5"]
    monkeypatch.setattr(sys, "argv", argv)
    edits.main()
    with open(tmp_path / "out" / "truth.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["file"] for row in rows) == sorted(
        path.name for path in (tmp_path / "out" / "images").iterdir()
    )
    kinds = Counter(row["transform"].startswith("hard_") for row in rows)
    assert (kinds[False], Counter(row["transform"] for row in rows)["original"]) == (28 + 5, 5)
    edited = Counter(row["group_id"] for row in rows if row["transform"] in edits.EDITS)
    assert sorted(edited.values()) == [14, 14]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match="is there already"):
        edits.main()
