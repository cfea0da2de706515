"""The small images are what the benchmark says they are."""

import argparse
import hashlib

import cv2
import numpy as np
import pytest
import small


def _digests(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_one_in_ten_is_a_copy(tmp_path):
    small.make_images(tmp_path / "images", 30, seed=1)
    found = _digests(tmp_path / "images")
    assert list(found) == [f"{number:06d}.jpg" for number in range(30)]
    assert found["000009.jpg"] == found["000004.jpg"]
    assert len(set(found.values())) == 29
    pixels = [cv2.imread(str(tmp_path / "images" / name)) for name in found]
    assert all(96 <= side <= 160 for n, p in enumerate(pixels) if n != 29 for side in p.shape[:2])
    assert np.abs(pixels[19].astype(int) - pixels[14]).mean() < 8
    resized = cv2.resize(pixels[24], None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    assert np.abs(pixels[29].astype(int) - resized).mean() < 8


def test_a_window_shows_a_part_of_the_photograph():
    y, x = np.mgrid[:200, :300]
    photograph = np.stack([y, x * 0.8, np.full_like(y, 100)], axis=2).astype(np.uint8)
    for seed in range(20):
        cut = small.window(photograph, np.random.default_rng(seed)).astype(float)
        assert cut.shape[2] == 3
        assert 96 <= min(cut.shape[:2]) <= max(cut.shape[:2]) <= 160
        # Each of the two ramps still runs along one side, each along another.
        along = [np.abs(np.diff(cut[..., c], axis=axis)).mean() for c in (0, 1) for axis in (0, 1)]
        assert (along[0] > along[1]) != (along[2] > along[3])
        assert cut[..., 2].std() == pytest.approx(0.0)


def _options(**changed):
    return argparse.Namespace(**{"photographs": None, "seed": 1} | changed)


def test_images_that_are_kept_are_not_made_again(tmp_path):
    folder = small.prepare(tmp_path, 3, _options())
    assert folder.name == "discs-3-1"
    (folder / "000002.jpg").unlink()
    assert small.prepare(tmp_path, 3, _options()) == folder
    assert len(_digests(folder)) == 2
    assert len(_digests(small.prepare(tmp_path, 3, _options(seed=2)))) == 3


def test_images_are_cut_from_photographs(tmp_path):
    source = tmp_path / "photographs"
    source.mkdir()
    cv2.imwrite(str(source / "a.png"), np.full((170, 180, 3), (0, 0, 255), np.uint8))
    cv2.imwrite(str(source / "small.png"), np.zeros((170, 100, 3), np.uint8))
    (source / "notes.txt").write_text("no image")
    folder = small.prepare(tmp_path, 4, _options(photographs=source))
    assert folder.name == "windows-of-photographs-4-1"
    for path in folder.iterdir():
        blue, _, red = cv2.imread(str(path)).mean(axis=(0, 1))
        assert red > 150 > 50 > blue


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no photograph of at least 160 pixels"):
        small.read_photographs(tmp_path)
