"""Packed candidates are the same candidates."""

import apache_beam as beam
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from transforms import packing
from transforms.packing import PackCandidates, PackedCandidates, pack, size, unpack
from transforms.records import Candidate

_A, _B, _C = (bytes([number]) * 32 for number in range(3))
_CANDIDATES = [
    Candidate(_A, _B, "wavelet", 3, 6),
    Candidate(_A, _C, "wavelet+words", 255, 8, -70_000, 65536, -1, 2**31 - 1, -(2**31)),
    Candidate(_B, _C, "wavelet", -1, 1, 40),
]


def test_candidates_come_back_whole_from_an_element_for_each_set_of_generators():
    assert all(len(candidate) == len(Candidate._fields) for candidate in _CANDIDATES)
    packed = pack(_CANDIDATES)
    assert [(one.generators, size(one)) for one in packed] == [("wavelet", 2), ("wavelet+words", 1)]
    assert [one for some in packed for one in unpack(some)] == [
        _CANDIDATES[0],
        _CANDIDATES[2],
        _CANDIDATES[1],
    ]
    assert pack([]) == []


def test_a_full_bundle_and_its_rest_are_packed_once(monkeypatch):
    monkeypatch.setattr(packing, "PACKED_ROWS", 2)
    with TestPipeline("FnApiRunner") as pipeline:
        created = pipeline | beam.Create(_CANDIDATES, reshuffle=False)
        packed = created | beam.ParDo(PackCandidates()).with_output_types(PackedCandidates)
        assert_that(packed | beam.FlatMap(unpack), equal_to(_CANDIDATES))
        assert_that(packed | beam.Map(size), equal_to([1, 1, 1]), label="sizes")
