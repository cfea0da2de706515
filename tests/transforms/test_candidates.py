"""Wavelet candidates."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.samples import digest, make_content
from transforms import candidates as module
from transforms.candidates import ProposeByWavelet
from transforms.records import Candidate


def _contents():
    """Six contents: 1 is 0 with 5 bits flipped; 2 is 0 turned; the rest are apart."""
    contents = [make_content(f"c{n}") for n in range(6)]
    keys = np.frombuffer(contents[0].wavelet_keys, np.uint8).reshape(8, 32).copy()
    near = keys.copy()
    near[:, 0] ^= 0b00011111
    # Orientation 6 of content 2 is the key of content 0 as it stands, and the other way round.
    turned = np.random.default_rng(9).integers(0, 256, (8, 32), dtype=np.uint8)
    turned[0], turned[5] = keys[7], keys[0]
    contents[1] = contents[1]._replace(wavelet_keys=near.tobytes())
    contents[2] = contents[2]._replace(wavelet_keys=turned.tobytes())
    return contents


def _expected():
    pairs = [(0, 1, 5, 1, 1), (0, 2, 0, 8, 6), (1, 2, 5, 8, 6)]
    found = []
    for i, j, bits, forward, backward in pairs:
        a, b = digest(f"c{i}"), digest(f"c{j}")
        orientation = forward if a < b else backward
        found.append(Candidate(min(a, b), max(a, b), "wavelet", bits, orientation))
    return found


@pytest.mark.parametrize("block_keys", [2048, 2, 1])
def test_g2_pairs_do_not_depend_on_the_blocks(monkeypatch, block_keys):
    monkeypatch.setattr(module, "_BLOCK_KEYS", block_keys)
    with TestPipeline("FnApiRunner") as pipeline:
        found, stats = pipeline | beam.Create(_contents()) | ProposeByWavelet(20)
        assert_that(found, equal_to(_expected()))
        read = stats | beam.Map(lambda s: (s.stage, s.items_in)) | beam.CombinePerKey(sum)
        assert_that(read, equal_to([("wavelet", 6)]), label="every key searched once")


@pytest.mark.parametrize(("radius", "pairs"), [(0, 1), (4, 1), (5, 3)])
def test_g7_a_distance_equal_to_the_radius_passes(radius, pairs):
    with TestPipeline("FnApiRunner") as pipeline:
        found, _ = pipeline | beam.Create(_contents()) | ProposeByWavelet(radius)
        assert_that(found | beam.combiners.Count.Globally(), equal_to([pairs]))


@pytest.mark.parametrize("radius", [-1, 257])
def test_g7_a_radius_out_of_range_is_refused(radius):
    with pytest.raises(ValueError, match="radius_bits"):
        ProposeByWavelet(radius)
