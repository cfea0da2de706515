"""Packed candidates are the same candidates."""

import numpy as np

from transforms import packing
from transforms.packing import ROW, pack, pack_rows, size, unpack
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


def test_rows_go_into_elements_that_are_not_too_large(monkeypatch):
    monkeypatch.setattr(packing, "PACKED_ROWS", 2)
    rows = np.frombuffer(pack(_CANDIDATES[:1] * 5)[0].rows, ROW)
    packed = list(pack_rows("wavelet", rows))
    assert [size(one) for one in packed] == [2, 2, 1]
    assert [one for some in packed for one in unpack(some)] == _CANDIDATES[:1] * 5
    assert list(pack_rows("wavelet", rows[:0])) == []
