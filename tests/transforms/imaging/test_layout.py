"""Luma layouts: what a copy leaves, what a piece leaves, and what another picture leaves."""

import cv2
import numpy as np
import pytest

from tests.transforms.imaging import pictures
from transforms.imaging.color import color_descriptor
from transforms.imaging.layout import (
    GRID_SIDE,
    LAYOUT_BYTES,
    LayoutComparison,
    compare_layouts,
    compare_placed,
    frames,
    invert,
    layout,
    layouts,
    placed_chroma,
)
from transforms.imaging.orientation import ORIENTATIONS, apply, inverse_orientation
from transforms.imaging.quality import histograms

SEEDS = range(6)


def _compare(a: np.ndarray, b: np.ndarray, orientation: int = 1) -> LayoutComparison:
    found = compare_layouts(layout(a)[None], layout(b)[None], np.array([orientation]))
    return LayoutComparison(*(float(field[0]) for field in found))


def _cropped(picture: np.ndarray, share: float) -> np.ndarray:
    dy, dx = round(picture.shape[0] * share), round(picture.shape[1] * share)
    return picture[dy : picture.shape[0] - dy, dx : picture.shape[1] - dx]


def _framed(picture: np.ndarray, color: tuple[int, int, int] = (255, 255, 255)) -> np.ndarray:
    side = round(min(picture.shape[:2]) * 0.05)
    return cv2.copyMakeBorder(picture, side, side, side, side, cv2.BORDER_CONSTANT, value=color)


def test_layout_of_a_plain_colour_is_its_luma_and_all_ground() -> None:
    found = layout(np.full((40, 60, 3), (255, 0, 0), np.uint8))
    assert found.shape == (LAYOUT_BYTES,)
    assert found.dtype == np.uint8
    # ITU-R BT.601: red has luma 76.
    np.testing.assert_array_equal(found, [76] * GRID_SIDE**2 + [255])


def test_layout_takes_grey_pixels_too() -> None:
    grey = cv2.cvtColor(pictures.photograph(0), cv2.COLOR_RGB2GRAY)
    np.testing.assert_array_equal(layout(grey), layout(pictures.photograph(0)))


def test_a_batch_has_the_layouts_of_its_images() -> None:
    colours = [pictures.photograph(0)[:94, :125], pictures.form(1), pictures.page(2)[:1]]
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in colours]
    found = layouts(greys, histograms(greys))
    np.testing.assert_array_equal(found, [layout(picture) for picture in colours])
    exact = cv2.resize(greys[0].astype(np.float32), (24, 24), interpolation=cv2.INTER_AREA)
    assert np.abs(found[0, :-1] - exact.ravel()).max() <= 0.51


def test_the_ground_counts_the_most_common_luma() -> None:
    half = np.full((64, 64, 3), 250, np.uint8)
    half[:, 32:] = np.arange(64, dtype=np.uint8).reshape(64, 1, 1)
    # Of 64 dark rows, 9 levels hold 9.
    assert layout(half)[-1] == round(255 * 0.5)
    assert layout(pictures.photograph(0))[-1] < 0.3 * 255
    assert layout(pictures.form(0))[-1] > 0.55 * 255


@pytest.mark.parametrize("seed", SEEDS)
def test_identical_pictures_leave_nothing(seed: int) -> None:
    found = _compare(pictures.photograph(seed), pictures.photograph(seed))
    assert found.correlation == pytest.approx(1.0, abs=1e-4)
    assert (found.differing, found.worst, found.moved, found.zoom) == (0, 0, 0, 0)
    assert found.telling > 0.75


@pytest.mark.parametrize("seed", SEEDS)
def test_copies_of_the_whole_leave_little(seed: int) -> None:
    picture = pictures.photograph(seed)
    noise = np.random.default_rng(seed).normal(0, 12, picture.shape)
    copies = {
        "jpeg": pictures.jpeg(picture, 20),
        "half": pictures.resized(picture, 120, 90),
        "stretched": pictures.resized(picture, 240, 150),
        "dark": pictures.gained(picture, (0.7, 0.7, 0.7)),
        "cast": pictures.gained(picture, (1.18, 1.0, 0.84)),
        "gamma": (255.0 * (picture / 255.0) ** 1.5).astype(np.uint8),
        "grey": pictures.grey(picture),
        "blurred": cv2.GaussianBlur(picture, (0, 0), 1.5),
        "noisy": np.clip(picture + noise, 0, 255).astype(np.uint8),
    }
    for name, copy in copies.items():
        found = _compare(picture, copy)
        assert found.worst <= 0.5, name
        assert found.differing <= 0.01, name
        assert found.correlation >= 0.95, name
        assert found.moved <= 0.3, name


@pytest.mark.parametrize("seed", SEEDS)
def test_another_picture_differs_everywhere(seed: int) -> None:
    found = _compare(pictures.photograph(seed), pictures.photograph(seed + 100))
    assert found.differing > 0.6
    assert found.correlation < 0.7
    assert found.worst > 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_a_caption_differs_in_a_piece(seed: int) -> None:
    picture = pictures.photograph(seed)
    found = _compare(picture, pictures.captioned(picture))
    assert 0.05 < found.differing < 0.3
    assert found.worst > 1.0
    assert found.correlation > 0.6


@pytest.mark.parametrize("share", [0.02, 0.05])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_mild_crop_is_fitted(seed: int, share: float) -> None:
    picture = pictures.photograph(seed)
    found = _compare(picture, _cropped(picture, share))
    assert found.correlation > 0.8
    assert found.differing < 0.35
    assert found.zoom == pytest.approx(2 * share, abs=0.015)
    assert found.framed == 0
    assert _compare(_cropped(picture, share), picture).zoom == pytest.approx(-found.zoom, abs=1e-3)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_thin_border_is_fitted_and_seen(seed: int) -> None:
    picture = pictures.photograph(seed)
    found = _compare(_framed(picture), picture)
    assert found.differing < 0.35
    assert found.zoom > 0.05
    assert found.framed == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_g_two_pictures_in_one_frame_differ(seed: int) -> None:
    frames = []
    for inner in (seed, seed + 50):
        frame = np.full((240, 320, 3), (12, 30, 90), np.uint8)
        frame[10:175, 80:310] = pictures.resized(pictures.photograph(inner), 230, 165)
        frame[185:220] = (200, 20, 30)
        cv2.putText(frame, "NEWS", (10, 212), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (255, 255, 255), 2)
        frames.append(frame)
    assert _compare(*frames).differing > 0.5


def test_a_form_filled_in_anew_leaves_more_than_its_copy() -> None:
    for seed in range(5):
        form = pictures.form(seed)
        assert _compare(form, pictures.form(seed + 10)).worst > 0.3
        copy = pictures.jpeg(pictures.resized(form, 288, 201), 60)
        found = _compare(form, copy)
        assert found.worst <= 0.3
        assert found.ground > 0.55


def test_m4_flat_pictures_tell_nothing() -> None:
    slope = np.repeat(np.linspace(60, 190, 120).astype(np.uint8), 3).reshape(1, 120, 3)
    gradient = np.repeat(slope, 90, axis=0)
    for picture in (np.full((90, 120, 3), 200, np.uint8), np.zeros((90, 120, 3), np.uint8)):
        assert _compare(picture, pictures.jpeg(picture, 60)).telling == 0
    assert _compare(gradient, pictures.jpeg(gradient, 60)).telling < 0.1


def test_orientation_turns_the_first_picture() -> None:
    picture = pictures.photograph(11)
    for value in ORIENTATIONS:
        turned = apply(picture, value)
        for found in (
            _compare(picture, turned, value),
            _compare(turned, picture, inverse_orientation(value)),
        ):
            assert found.correlation > 0.99
            assert found.worst < 0.3
        if value != 1:
            assert _compare(picture, turned, 1).differing > 0.5


def _mixed_pairs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    left, right = [], []
    for seed in range(7):
        picture = pictures.photograph(seed)
        for other in (
            pictures.jpeg(picture, 40),
            pictures.captioned(picture),
            _cropped(picture, 0.04),
            _framed(picture),
            pictures.photograph(seed + 30),
        ):
            left.append(layout(picture))
            right.append(layout(other))
    turns = np.random.default_rng(0).integers(1, 9, len(left))
    turns[::3] = 1
    return np.stack(left), np.stack(right), turns


def test_exchanging_the_pictures_negates_the_zoom_alone() -> None:
    a, b, turns = _mixed_pairs()
    back = np.array([inverse_orientation(int(turn)) for turn in turns])
    forth_found, back_found = compare_layouts(a, b, turns), compare_layouts(b, a, back)
    assert np.abs(forth_found.zoom).max() > 0.03
    np.testing.assert_allclose(forth_found.zoom, -back_found.zoom, atol=2e-3)
    for name in ("correlation", "telling", "differing", "ground", "framed"):
        np.testing.assert_allclose(
            getattr(forth_found, name), getattr(back_found, name), atol=5e-3, err_msg=name
        )


@pytest.mark.parametrize("size", [1, 2, 9, 128, 131, 300])
def test_pairs_are_compared_independently(size: int) -> None:
    a, b, turns = _mixed_pairs()
    rows = np.random.default_rng(size).integers(0, len(a), size)
    together = np.stack(compare_layouts(a[rows], b[rows], turns[rows]))
    np.testing.assert_array_equal(together, np.stack(compare_layouts(a, b, turns))[:, rows])


def test_no_pairs_give_no_results() -> None:
    none = np.zeros((0, LAYOUT_BYTES), np.uint8)
    assert all(len(field) == 0 for field in compare_layouts(none, none, np.zeros(0, np.int8)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_m5_tiny_and_thin_pictures_compare(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for found in (_compare(noise, noise), _compare(noise, np.zeros_like(noise))):
        assert np.isfinite(found).all()


#: Where a picture lies in another that shows a fifth more on each side of it.
PLACED = np.array([[[0.6, 0.0, 0.2], [0.0, 0.6, 0.2]]])


def _placed(a: np.ndarray, b: np.ndarray, placed: np.ndarray = PLACED) -> list[float]:
    return [float(x[0]) for x in compare_placed(layout(a)[None], layout(b)[None], placed)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crop_agrees_where_it_lies_and_another_picture_does_not(seed: int) -> None:
    picture = pictures.photograph(seed)
    crop = _cropped(picture, 0.2)
    correlation, telling, differing, inner, area_a, area_b = _placed(crop, picture)
    assert correlation > 0.85
    assert telling * (1 - differing) > 100
    assert differing < 0.15
    assert inner < 0.05
    assert (area_a, area_b) == (1.0, pytest.approx(0.36, abs=1e-3))
    other = _placed(_cropped(pictures.photograph(seed + 100), 0.2), picture)
    assert other[0] < 0.7
    assert other[2] > 0.5


@pytest.mark.parametrize("shift", [0.01, 0.02])
def test_a_place_that_is_a_little_wrong_is_refined(shift: float) -> None:
    wrong = PLACED + np.array([[0.0, 0.0, shift], [0.0, 0.0, -shift]])
    for seed in SEEDS:
        picture = pictures.photograph(seed)
        assert _placed(_cropped(picture, 0.2), picture, wrong)[2] < 0.2


def test_placed_comparison_is_symmetric_and_by_row() -> None:
    made = [layout(pictures.photograph(seed)) for seed in range(12)]
    crops = [layout(_cropped(pictures.photograph(seed), 0.2)) for seed in range(12)]
    a, b = np.stack(made + crops[:4]), np.stack(crops + made[1:5])
    placed = np.repeat(invert(PLACED), 16, axis=0) + np.arange(16)[:, None, None] * 1e-3
    found = compare_placed(a, b, placed)
    back = compare_placed(b, a, invert(placed))
    for one, other in zip(found[:4], back[:4], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(found.area_a, back.area_b, atol=1e-4)
    for row in (0, 7, 15):
        alone = compare_placed(a[[row]], b[[row]], placed[[row]])
        assert [float(x[0]) for x in alone] == [float(x[row]) for x in found]


def test_placed_chroma_tells_a_turned_hue() -> None:
    for seed in SEEDS:
        picture = pictures.photograph(seed)
        crop = _cropped(picture, 0.2)
        turned = np.ascontiguousarray(crop[..., [1, 2, 0]])
        found = [
            placed_chroma(color_descriptor(x)[None], color_descriptor(picture)[None], PLACED)[0]
            for x in (crop, turned)
        ]
        assert found[0] > 0.85
        assert found[1] < 0.7


@pytest.mark.parametrize("seed", SEEDS)
def test_what_surrounds_a_picture_is_a_frame_or_more_of_it(seed: int) -> None:
    picture = pictures.photograph(seed)
    bordered = np.full_like(picture, 255)
    height, width = picture.shape[:2]
    inner = pictures.resized(picture, round(0.6 * width), round(0.6 * height))
    y, x = round(0.2 * height), round(0.2 * width)
    bordered[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
    layouts = np.stack([layout(bordered), layout(picture)])
    assert frames(layouts, np.repeat(PLACED, 2, axis=0)).tolist() == [True, False]


def test_frames_of_a_batch_are_those_of_its_pictures() -> None:
    pages = [pictures.photograph(0), _framed(pictures.photograph(1)), pictures.form(2)]
    layouts = np.stack([layout(page) for page in pages for _ in range(3)])
    # As it stands, with a frame thinner than a cell, and of nothing at all.
    sizes = np.tile([0.6, 0.97, 1.0], len(pages))
    onto = np.array([[[s, 0.0, (1 - s) / 2], [0.0, s, (1 - s) / 2]] for s in sizes])
    alone = [bool(frames(layouts[[row]], onto[[row]])[0]) for row in range(len(layouts))]
    assert frames(layouts, onto).tolist() == alone
    assert any(alone)
    assert not all(alone)
    assert frames(layouts[:0], onto[:0]).tolist() == []
