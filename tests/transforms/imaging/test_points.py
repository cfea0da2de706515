"""Local points: packed and unpacked, bounded, mirrored, and fitted to one another."""

import cv2
import numpy as np
import pytest

from tests.transforms.imaging import pictures
from transforms.imaging.points import (
    LocalFeatures,
    extract,
    fit_matches,
    fit_points,
    mirror_features,
    no_features,
)


def _picture(seed: int) -> np.ndarray:
    return pictures.photograph(seed, 270, 360)


@pytest.mark.parametrize(("kind", "length"), [("orb", 32), ("sift", 128)])
def test_features_survive_packing(kind: str, length: int) -> None:
    picture = _picture(0)
    features = extract(picture, kind=kind, max_points=100)
    assert 50 <= len(features.points) <= 100
    assert features.points.shape[1] == 5
    assert features.descriptors.shape == (len(features.points), length)
    assert features.size == (360, 270)
    back = LocalFeatures.unpack(features.pack())
    assert (back.kind, back.size) == (kind, (360, 270))
    np.testing.assert_array_equal(back.points, features.points)
    np.testing.assert_array_equal(back.descriptors, features.descriptors)


def test_points_that_tie_are_bounded_too() -> None:
    checks = np.kron(np.indices((24, 32)).sum(axis=0) % 2, np.ones((10, 10)))
    board = np.repeat((checks * 255).astype(np.uint8)[..., None], 3, axis=2)
    assert len(extract(board, max_points=100).points) <= 100


def test_packed_features_fit_their_budget() -> None:
    assert len(extract(_picture(0)).pack()) <= 12_000


@pytest.mark.parametrize("data", [b"", b"BDL2", b"XXXX" + bytes(40)])
def test_bytes_of_another_form_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="features must"):
        LocalFeatures.unpack(data)


def test_cut_features_are_refused() -> None:
    with pytest.raises(ValueError, match="features must have"):
        LocalFeatures.unpack(extract(_picture(0)).pack()[:-1])


def test_unknown_kinds_and_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        extract(_picture(0), kind="surf")
    with pytest.raises(ValueError, match="max_points must be at least 1, got 0"):
        extract(_picture(0), max_points=0)


@pytest.mark.parametrize("kind", ["orb", "sift"])
def test_mirrored_features_are_those_of_the_mirrored_picture(kind: str) -> None:
    picture = _picture(3)
    flipped = extract(np.ascontiguousarray(picture[:, ::-1]), kind=kind)
    mirrored = mirror_features(
        extract(picture, kind=kind), cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    )
    steps = np.linalg.norm(mirrored.points[:, None, :2] - flipped.points[None, :, :2], axis=2)
    nearest = steps.argmin(axis=1)
    found = steps.min(axis=1) <= 2.0
    assert np.count_nonzero(found) >= 0.5 * len(found) >= 8
    a, b = mirrored.descriptors[found], flipped.descriptors[nearest[found]]
    if kind == "orb":
        assert np.median(np.unpackbits(a ^ b, axis=1).sum(axis=1)) <= 64
    else:
        steps = np.linalg.norm(a.astype(np.float64) - b.astype(np.float64), axis=1)
        assert np.median(steps) <= 200


@pytest.mark.parametrize("kind", ["orb", "sift"])
def test_points_tell_where_a_crop_lies(kind: str) -> None:
    picture = _picture(4)
    crop = np.ascontiguousarray(picture[40:240, 50:330])
    fitted = fit_points(extract(crop, kind=kind), extract(picture, kind=kind), 6, 4.0)
    assert fitted is not None
    np.testing.assert_allclose(fitted[0], [[1.0, 0.0, 50.0], [0.0, 1.0, 40.0]], atol=1.0)
    assert 6 <= fitted[1] <= 200
    assert fit_points(extract(crop, kind=kind), extract(picture, kind=kind), 250, 4.0) is None
    assert fit_points(extract(crop, kind=kind), extract(_picture(14), kind=kind), 12, 4.0) is None


def test_matches_from_elsewhere_are_fitted_among_false_ones() -> None:
    rng = np.random.default_rng(0)
    true = np.array([[0.8, -0.3, 40.0], [0.3, 0.8, -7.0]])
    a = rng.uniform(0, 256, (400, 2)).astype(np.float32)
    b = (a @ true[:, :2].T + true[:, 2]).astype(np.float32)
    b[:340] = rng.uniform(0, 256, (340, 2))
    fitted = fit_matches(a, b, 6, 4.0, tries=1000)
    assert fitted is not None
    np.testing.assert_allclose(fitted[0], true, atol=0.05)
    assert 60 <= fitted[1] <= 75
    # What is likely makes the transform, but all are asked whether they agree.
    likely = np.arange(400) >= 390
    assert fit_matches(a, b, 6, 4.0, likely) == (pytest.approx(fitted[0], abs=0.05), fitted[1])
    assert fit_matches(a, b, 6, 4.0, np.arange(400) >= 395) is None
    assert fit_matches(a, b, 100, 4.0, tries=1000) is None
    assert fit_matches(a[:0], b[:0], 6, 4.0) is None


def test_a_thumbnail_matched_elsewhere_has_no_points_but_a_size() -> None:
    features = no_features(40, 30)
    assert (features.size, len(features.points), len(features.descriptors)) == ((40, 30), 0, 0)
