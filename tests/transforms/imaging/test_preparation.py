"""Tests of preparation: what torchvision does to a Pillow image, without torchvision."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from transforms.imaging.preparation import INTERPOLATIONS, MODES, Preparation


def pixels_of(width, height, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (9, 9, 3), np.uint8)
    smooth = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-20, 21, (height, width, 3))
    return np.clip(np.asarray(smooth, int) + noise, 0, 255).astype(np.uint8)


def by_torchvision(way, pixels):
    transforms = pytest.importorskip("torchvision.transforms")
    mode = getattr(transforms.InterpolationMode, way.interpolation.upper())
    size = way.resize if way.mode == "shortest" else (way.resize, way.resize)
    steps = [transforms.Resize(size, mode), transforms.CenterCrop(way.crop)]
    return np.asarray(transforms.Compose(steps)(Image.fromarray(pixels)))


@st.composite
def preparations(draw):
    crop = draw(st.integers(1, 48))
    return Preparation(
        resize=crop + draw(st.integers(0, 17)),
        crop=crop,
        mode=draw(st.sampled_from(MODES)),
        interpolation=draw(st.sampled_from(sorted(INTERPOLATIONS))),
    )


@given(preparations(), st.integers(1, 150), st.integers(1, 150), st.integers(0, 9))
@settings(max_examples=150, deadline=None)
def test_it_equals_resize_and_center_crop(way, width, height, seed):
    pixels = pixels_of(width, height, seed)
    found, expected = way.apply(pixels), by_torchvision(way, pixels)
    assert found.shape == (way.crop, way.crop, 3)
    if way.mode == "squash" or max(width, height) <= 3 * min(width, height):
        assert np.array_equal(found, expected)
    # Of a strip only the middle is made, from places that are rounded in another order.
    assert np.abs(found.astype(int) - expected).max() <= 1


@given(preparations(), st.integers(1, 8), st.integers(1, 700), st.booleans())
@settings(max_examples=100, deadline=None)
def test_m5_it_equals_resize_and_center_crop_of_strips(way, short, length, upright):
    pixels = pixels_of(*((short, length) if upright else (length, short)))
    difference = way.apply(pixels).astype(int) - by_torchvision(way, pixels)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("width", "height"), [(63_520, 32), (32, 63_520), (1, 60_000), (60_000, 1), (1, 1)]
)
@pytest.mark.parametrize("mode", MODES)
def test_m5_a_strip_is_not_resized_as_a_whole(width, height, mode):
    pixels = np.full((height, width, 3), 7, np.uint8)
    pixels[height // 3 : height // 3 * 2 + 1, width // 3 : width // 3 * 2 + 1] = 200
    tracemalloc.start()
    found = Preparation(256, 224, mode).apply(pixels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.shape == (224, 224, 3)
    assert peak < 40e6  # Pillow's own allocations are not traced; its result would be, as an array
    assert (found[100:124, 100:124] == 200).all()


def test_m5_pillow_is_never_asked_for_more_than_a_few_squares(monkeypatch):
    asked = []
    resize = Image.Image.resize
    monkeypatch.setattr(
        Image.Image,
        "resize",
        lambda self, size, *a, **k: asked.append(size) or resize(self, size, *a, **k),
    )
    for shape in ((32, 63_520, 3), (63_520, 32, 3), (1, 9_000, 3), (100, 390, 3)):
        Preparation(256, 224).apply(np.zeros(shape, np.uint8))
    assert len(asked) == 4
    assert all(max(size) <= 4 * 256 for size in asked)


def test_a_picture_of_the_right_size_stays_as_it_is():
    pixels = pixels_of(40, 40)
    for mode in MODES:
        assert np.array_equal(Preparation(40, 40, mode).apply(pixels), pixels)


def test_pictures_are_unpacked_as_they_were_packed():
    way = Preparation(20, 16)
    pictures = [way.apply(pixels_of(30, 25, seed)) for seed in range(3)]
    packed = b"".join(picture.tobytes() for picture in pictures)
    assert np.array_equal(way.unpack(packed), np.stack(pictures))
    assert way.unpack(b"").shape == (0, 16, 16, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "longest"}, "mode must be one of"),
        ({"interpolation": "random"}, "interpolation must be one of"),
        ({"crop": 0}, "crop and resize must be"),
        ({"crop": 65}, "crop and resize must be"),
        ({"resize": 5000}, "crop and resize must be"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be above 0"),
    ],
)
def test_what_cannot_be_prepared_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**{"resize": 64, "crop": 64, **changes})
