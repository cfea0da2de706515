"""Components partition the candidates."""

import apache_beam as beam
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from transforms.components import PartitionCandidates
from transforms.records import Candidate


def test_components_join_pairs_and_members():
    names = [bytes([n]) * 32 for n in range(5)]
    pairs = [(0, 1), (1, 2), (3, 4)]
    candidates = [Candidate(names[i], names[j], "wavelet", 3, 1) for i, j in pairs]
    with TestPipeline("FnApiRunner") as pipeline:
        found = pipeline | beam.Create(candidates) | PartitionCandidates()
        assert_that(
            found.candidates,
            equal_to(
                [(names[0], candidates[0]), (names[0], candidates[1]), (names[3], candidates[2])]
            ),
            label="pairs",
        )
        assert_that(
            found.members,
            equal_to([(names[n], names[c]) for n, c in enumerate([0, 0, 0, 3, 3])]),
            label="members",
        )
