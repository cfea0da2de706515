"""Colour descriptors: what is forgiven, and what is another picture."""

import numpy as np
import pytest

from tests.transforms.imaging import pictures
from transforms.imaging.color import (
    DESCRIPTOR_BYTES,
    HINT_RECOLOURED,
    HINT_SAME_COLOURS,
    REJECT_SIMILARITY,
    color_descriptor,
    color_descriptors,
    compare,
)
from transforms.imaging.orientation import ORIENTATIONS, apply, inverse_orientation


def _compare(a: np.ndarray, b: np.ndarray, orientation: int = 1) -> tuple[float, int]:
    found = compare(color_descriptor(a)[None], color_descriptor(b)[None], np.array([orientation]))
    return float(found.similarity[0]), int(found.hint[0])


def test_descriptor_is_compact_and_of_fixed_length() -> None:
    descriptor = color_descriptor(pictures.photograph(0))
    assert descriptor.shape == (DESCRIPTOR_BYTES,)
    assert descriptor.dtype == np.uint8
    assert DESCRIPTOR_BYTES <= 128


def test_descriptor_of_a_plain_colour_is_its_ycbcr() -> None:
    descriptor = color_descriptor(np.full((40, 60, 3), (255, 0, 0), np.uint8)).reshape(3, 36)
    # ITU-R BT.601, full range: red is Y 76, Cb 85, Cr 255.5.
    np.testing.assert_array_equal(descriptor, np.repeat([[76], [85], [255]], 36, axis=1))


def test_cells_are_the_means_of_their_area() -> None:
    picture = np.random.default_rng(3).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    means = picture.reshape(6, 16, 6, 16, 3).mean(axis=(1, 3)).reshape(36, 3)
    red, green, blue = means.T
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = np.concatenate([luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402])
    assert np.abs(color_descriptor(picture) - planes).max() <= 1.0


def test_a_batch_describes_each_image_as_if_it_were_alone() -> None:
    batch = [pictures.photograph(seed)[: 60 + seed * 30] for seed in range(4)]
    batch += [np.full((1, 1, 3), 9, np.uint8), pictures.photograph(7)[:, :3]]
    alone = np.stack([color_descriptor(picture) for picture in batch])
    np.testing.assert_array_equal(color_descriptors(batch), alone)
    np.testing.assert_array_equal(color_descriptors(batch[::-1]), alone[::-1])


@pytest.mark.parametrize("seed", range(4))
def test_identical_pictures_are_wholly_similar(seed: int) -> None:
    picture = pictures.photograph(seed)
    assert _compare(picture, picture) == (1.0, HINT_SAME_COLOURS)


@pytest.mark.parametrize("seed", range(6))
def test_casts_grey_saturation_and_tone_are_forgiven(seed: int) -> None:
    picture = pictures.photograph(seed)
    tone = (255.0 * (picture / 255.0) ** 1.5).astype(np.uint8)
    dull = (0.5 * picture + 0.5 * pictures.grey(picture)).astype(np.uint8)
    for copy in (
        pictures.gained(picture, (1.18, 1.0, 0.84)),
        pictures.gained(picture, (0.84, 1.0, 1.18)),
        pictures.gained(picture, (0.7, 0.7, 0.7)),
        pictures.grey(picture),
        dull,
        tone,
    ):
        similarity, hint = _compare(picture, copy)
        assert similarity >= 0.7
        assert hint == HINT_RECOLOURED
    assert _compare(picture, pictures.jpeg(picture, 70))[1] == HINT_SAME_COLOURS


@pytest.mark.parametrize("seed", range(4))
def test_sepia_is_forgiven_and_no_other_tone(seed: int) -> None:
    picture = pictures.photograph(seed)
    grey = pictures.grey(picture).astype(np.float64)
    # W3C, Filter Effects 1, 8.3: each channel is a multiple of a mean near luma.
    sepia = np.clip(grey * (1.351, 1.203, 0.937), 0, 220).astype(np.uint8)
    assert _compare(picture, sepia)[0] >= 0.85
    assert _compare(sepia, picture) == _compare(picture, sepia)
    assert _compare(picture, sepia)[1] == HINT_RECOLOURED
    blue = np.clip(grey * (0.5, 0.8, 1.5), 0, 255).astype(np.uint8)
    assert _compare(picture, blue)[0] < 0.85


@pytest.mark.parametrize("seed", range(4))
def test_clipped_tones_leave_the_chroma(seed: int) -> None:
    picture = pictures.photograph(seed)
    bright = pictures.gained(picture, (1.6, 1.6, 1.6))
    found = compare(color_descriptor(picture)[None], color_descriptor(bright)[None], np.array([1]))
    assert found.chroma[0] >= 0.85
    assert found.similarity[0] <= found.chroma[0]


@pytest.mark.parametrize("degrees", [90, 120, 180])
@pytest.mark.parametrize("seed", range(4))
def test_a_turn_of_the_hue_is_another_picture(seed: int, degrees: int) -> None:
    rng = np.random.default_rng(seed)
    tint = np.array([(230, 60, 40), (40, 180, 70), (50, 80, 220), (220, 190, 40)][seed])
    layout = pictures.photograph(seed).mean(axis=2, keepdims=True) / 255.0
    picture = np.clip(tint * (0.4 + layout) + rng.normal(0, 3, (180, 240, 3)), 0, 255)
    picture = picture.astype(np.uint8)
    assert _compare(picture, pictures.hue_turned(picture, degrees))[0] < REJECT_SIMILARITY
    assert _compare(pictures.hue_turned(picture, degrees), picture)[0] < REJECT_SIMILARITY


@pytest.mark.parametrize("seed", range(6))
def test_captions_and_logos_are_left_out(seed: int) -> None:
    picture = pictures.photograph(seed)
    logo = picture.copy()
    logo[:57, :76] = (230, 20, 200)  # 10 % of the area
    assert _compare(picture, pictures.captioned(picture))[0] >= 0.8
    assert _compare(picture, logo)[0] >= 0.8


def test_orientation_turns_the_first_picture() -> None:
    picture = pictures.photograph(11)
    for value in ORIENTATIONS:
        turned = apply(picture, value)
        # Areas of 6x6 cells of an odd fit differ by a rounding.
        assert _compare(picture, turned, value)[0] >= 0.995
        assert _compare(turned, picture, inverse_orientation(value))[0] >= 0.995
        if value != 1:
            assert _compare(picture, turned, 1)[0] < 0.9


def test_exchanging_the_pictures_changes_nothing() -> None:
    descriptors = np.stack([color_descriptor(pictures.photograph(seed)) for seed in range(12)])
    copies = np.stack(
        [
            color_descriptor(pictures.gained(pictures.photograph(s), (1.1, 0.9, 0.8)))
            for s in range(12)
        ]
    )
    ones = np.ones(12, np.int8)
    for a, b in ((descriptors, copies), (descriptors, descriptors[::-1])):
        forth, back = compare(a, b, ones), compare(b, a, ones)
        np.testing.assert_allclose(forth.similarity, back.similarity, atol=2e-4)
        np.testing.assert_allclose(forth.chroma, back.chroma, atol=2e-4)
        np.testing.assert_array_equal(forth.hint, back.hint)


def test_pairs_are_compared_independently() -> None:
    a = np.stack([color_descriptor(pictures.photograph(seed)) for seed in range(5)])
    b = a[::-1].copy()
    turns = np.array([1, 2, 6, 7, 8])
    together = compare(a, b, turns)[0]
    alone = [compare(a[k : k + 1], b[k : k + 1], turns[k : k + 1])[0][0] for k in range(5)]
    np.testing.assert_array_equal(together, alone)


def test_no_pairs_give_no_results() -> None:
    none = np.zeros((0, DESCRIPTOR_BYTES), np.uint8)
    assert [field.shape for field in compare(none, none, np.zeros(0, np.int8))] == [(0,)] * 3


def test_m4_distinct_flat_colours_are_not_alike() -> None:
    colours = [(217, 22, 22), (22, 217, 22), (22, 22, 217), (200, 200, 40), (0, 0, 0)]
    flats = [np.full((50, 70, 3), colour, np.uint8) for colour in colours]
    for i, a in enumerate(flats):
        for j, b in enumerate(flats):
            similarity = _compare(a, b)[0]
            assert similarity == 1.0 if i == j else similarity < REJECT_SIMILARITY


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_m5_tiny_and_thin_pictures_compare(shape: tuple[int, int]) -> None:
    black, white = np.zeros((*shape, 3), np.uint8), np.full((*shape, 3), 255, np.uint8)
    assert _compare(black, black)[0] == 1.0
    assert _compare(black, white)[0] < REJECT_SIMILARITY
