"""Words of a picture: places, and what survives an edit."""

import cv2
import numpy as np
import pytest

from transforms.imaging.words import NO_MIRROR, ROW, SIDE, word_rows


def _picture(seed=3, height=180, width=240):
    """Return blots of many sizes: grey uint8 [h, w] with corners at many scales."""
    rng = np.random.default_rng(seed)
    out = np.full((height, width), 120, np.uint8)
    for _ in range(120):
        x, y = rng.integers(0, width), rng.integers(0, height)
        side = rng.integers(4, 40, 2)
        cv2.rectangle(out, (int(x), int(y)), (int(x + side[0]), int(y + side[1])),
                      int(rng.integers(0, 256)), -1)  # fmt: skip
    return cv2.GaussianBlur(out, (3, 3), 0)


def _common(a, b, field="word", width=20):
    shift = np.uint32(32 - width)
    return len(np.intersect1d(a["word"] >> shift, b[field] >> shift))


def test_a_picture_has_many_words_with_places_inside_it():
    rows = word_rows(_picture())
    assert rows.dtype == ROW
    assert 150 <= len(rows) <= 256
    assert rows["x"].max() < SIDE
    assert rows["y"].max() < 150
    assert (rows["level"] % NO_MIRROR).max() < 5
    assert np.count_nonzero(rows["level"] < NO_MIRROR) == 48


def test_words_are_the_same_for_the_same_pixels_and_for_grey_and_rgb():
    grey = _picture()
    assert word_rows(grey).tobytes() == word_rows(grey.copy()).tobytes()
    assert word_rows(np.dstack([grey] * 3)).tobytes() == word_rows(grey).tobytes()


def test_a_crop_keeps_words_and_another_picture_has_none_of_them():
    kept, chance = [], []
    for seed in range(3, 13):
        grey = _picture(seed)
        rows = word_rows(grey)
        kept.append(_common(rows, word_rows(grey[25:165, 30:220])))
        chance.append(_common(rows, word_rows(_picture(seed + 1))))
    assert min(kept) >= 4
    assert sum(kept) >= 100
    assert max(chance) <= 3


def test_a_quarter_turn_keeps_words_and_turns_their_places_and_angles():
    grey = _picture(5, 180, 180)
    rows, turned = word_rows(grey), word_rows(np.rot90(grey).copy())
    _, i, j = np.intersect1d(rows["word"], turned["word"], return_indices=True)
    assert len(i) >= 100
    assert np.array_equal(rows["level"][i] % NO_MIRROR, turned["level"][j] % NO_MIRROR)
    near = np.abs(turned["x"][j].astype(int) - rows["y"][i]) <= 1
    near &= np.abs(turned["y"][j].astype(int) - (179 - rows["x"][i])) <= 1
    near &= ((rows["angle"][i].astype(int) - turned["angle"][j]) % 256 - 64) == 0
    assert np.count_nonzero(near) >= 0.95 * len(i)


def test_the_flipped_picture_has_the_mirrored_words():
    grey = _picture()
    rows, flipped = word_rows(grey), word_rows(grey[:, ::-1].copy())
    mirrored = rows[rows["level"] < NO_MIRROR]
    assert _common(flipped, mirrored, "mirrored") >= 30
    assert _common(rows, flipped) <= 5


def test_a_larger_picture_is_reduced():
    grey = _picture()
    large = cv2.resize(grey, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
    assert _common(word_rows(grey), word_rows(large)) >= 60


@pytest.mark.parametrize("shape", [(1, 1), (32, 200), (200, 32)])
def test_pictures_without_room_for_a_patch_have_no_words(shape):
    rng = np.random.default_rng(1)
    assert len(word_rows(rng.integers(0, 256, shape, np.uint8))) == 0


def test_a_flat_picture_has_no_words():
    assert len(word_rows(np.full((200, 200), 90, np.uint8))) == 0
