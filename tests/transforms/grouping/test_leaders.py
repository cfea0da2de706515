"""Leaders of dense neighbourhoods."""

import numpy as np
import pytest

from tests.transforms.grouping.keys import signs_of
from transforms.grouping.bands import band_keys
from transforms.grouping.hamming import distances
from transforms.grouping.leaders import elect_leaders


def _keys(near, spread, flips, seed=1):
    """Return the keys of near-identical images, then of others."""
    random = np.random.default_rng(seed)
    base = random.integers(0, 256, 32, dtype=np.uint8)
    noise = np.packbits(random.random((near, 256)) < flips, axis=1)
    others = random.integers(0, 256, (spread, 32), dtype=np.uint8)
    return band_keys(signs_of(np.concatenate([base ^ noise, others])), 16)


@pytest.mark.parametrize("flips", [0.0, 0.01, 0.03])
def test_near_identical_images_follow_the_first_of_them(flips):
    keys = _keys(600, 300, flips)
    precedence = np.random.default_rng(2).permutation(900)
    leaders = elect_leaders(keys, precedence, 60, 100)
    assert set(leaders[:600].tolist()) == {int(precedence[:600].argmin())}
    assert set(leaders[600:].tolist()) == {-1}


@pytest.mark.parametrize(("flips", "radius"), [(0.03, 24), (0.05, 24), (0.1, 60)])
def test_a_wide_neighbourhood_has_several_leaders_and_every_follower_is_near_its_own(flips, radius):
    keys = _keys(800, 200, flips)
    leaders = elect_leaders(keys, np.arange(1000), radius, 100)
    led = np.flatnonzero(leaders >= 0)
    own = led[leaders[led] == led]
    assert len(own) < 100
    assert set(leaders[led].tolist()) <= set(own.tolist())
    bits = distances(keys.turned[:, led], keys.turned[0, leaders[led]]).min(axis=0)
    assert bits.max() <= radius
    alone = np.flatnonzero(leaders[:800] < 0)
    near = distances(keys.turned[:, alone][:, :, None], keys.turned[0][None, :800]).min(axis=0)
    # An image that is left to the search has few neighbours, give or take: only some are asked.
    assert np.all((near <= radius).sum(axis=1) <= 150)
    assert led.max() < 800


def test_a_neighbourhood_within_the_bound_is_left_alone():
    keys = _keys(100, 50, 0.03)
    assert set(elect_leaders(keys, np.arange(150), 60, 100).tolist()) == {-1}


def test_images_that_share_a_band_but_are_far_apart_are_left_alone():
    random = np.random.default_rng(3)
    plain = random.integers(0, 256, (400, 32), dtype=np.uint8)
    plain[:, :2] = plain[0, :2]
    keys = band_keys(signs_of(plain), 16)
    assert set(elect_leaders(keys, np.arange(400), 60, 50).tolist()) == {-1}
