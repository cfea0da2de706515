"""The embedded descriptor: unit length, orientations by permutation, copies near."""

import numpy as np
import pytest

from tests.transforms.imaging import pictures
from transforms.imaging.descriptor import DIMENSIONS, REJECT_SIMILARITY, embed, orient
from transforms.imaging.orientation import ORIENTATIONS, apply


def test_descriptor_is_a_unit_vector() -> None:
    for seed in range(3):
        vector = embed(pictures.photograph(seed))
        assert vector.dtype == np.float32
        assert vector.shape == (DIMENSIONS,)
        assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_orient_gives_the_descriptor_of_the_turned_picture() -> None:
    picture = pictures.photograph(2, 192, 192)
    vector = embed(picture)
    for value in ORIENTATIONS:
        turned = embed(apply(picture, value))
        np.testing.assert_allclose(orient(vector[None], value)[0], turned, atol=2e-3)
        if value != 1:
            assert float(vector @ turned) < 0.8


def test_orient_takes_one_orientation_for_each_row() -> None:
    vectors = np.stack([embed(pictures.photograph(seed)) for seed in range(8)])
    turned = orient(vectors, np.array(ORIENTATIONS))
    for row, value in enumerate(ORIENTATIONS):
        np.testing.assert_array_equal(turned[row], orient(vectors[row : row + 1], value)[0])
        np.testing.assert_array_equal(np.sort(turned[row]), np.sort(vectors[row]))


@pytest.mark.parametrize("seed", range(5))
def test_copies_are_nearer_than_other_pictures(seed: int) -> None:
    picture = pictures.photograph(seed)
    vector = embed(picture)
    crop = picture[18:162, 24:216]
    for copy, least in (
        (pictures.jpeg(picture, 30), 0.95),
        (pictures.resized(picture, 120, 90), 0.9),
        (pictures.grey(picture), 0.7),
        (crop, 0.3),
    ):
        cosine = float(vector @ embed(copy))
        assert cosine >= least
        for other in range(seed + 1, seed + 6):
            assert float(vector @ embed(pictures.photograph(other))) < cosine
    assert REJECT_SIMILARITY < 0.6


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (5, 4)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_m7_flat_and_tiny_pictures_have_no_zero_vector(shape: tuple[int, int], value: int) -> None:
    vector = embed(np.full((*shape, 3), value, np.uint8))
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


def test_an_image_is_embedded_alone() -> None:
    picture = pictures.photograph(4)
    np.testing.assert_array_equal(embed(picture), embed(picture.copy()))
