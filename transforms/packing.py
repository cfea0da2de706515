"""Candidates packed, many an element: one by one they cost more in a shuffle than their bytes."""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from transforms.grouping import components as graph
from transforms.records import Candidate

PACKED_ROWS = 16_384  # in an element, 1.6 MB
# The fields of Candidate but for the generators: two ids, then integers.
_NUMBERS = len(Candidate._fields) - 3
_FORMAT = struct.Struct(f"<32s32s{_NUMBERS}i")
ROW = np.dtype([("a", graph.ID), ("b", graph.ID), ("numbers", "<i4", _NUMBERS)])


class PackedCandidates(NamedTuple):
    """Candidates of the same generators."""

    generators: str
    rows: bytes  # ROW [n]: 32 bytes a, 32 bytes b, and int32 for each further field


beam.coders.registry.register_coder(PackedCandidates, beam.coders.RowCoder)


def pack_rows(generators: str, rows: NDArray[np.void]) -> Iterator[PackedCandidates]:
    """Yield candidates of the same generators, ``ROW`` [n], in elements that are not too large."""
    for start in range(0, len(rows), PACKED_ROWS):
        yield PackedCandidates(generators, rows[start : start + PACKED_ROWS].tobytes())


def pack(candidates: Iterable[Candidate]) -> list[PackedCandidates]:
    """Pack candidates, an element for each set of generators."""
    rows: dict[str, list[bytes]] = {}
    for one in candidates:
        rows.setdefault(one.generators, []).append(_FORMAT.pack(one.a, one.b, *one[3:]))
    return [PackedCandidates(generators, b"".join(some)) for generators, some in rows.items()]


def unpack(packed: PackedCandidates) -> Iterator[Candidate]:
    """Yield the candidates of an element."""
    generators = packed.generators
    for a, b, *numbers in _FORMAT.iter_unpack(packed.rows):
        yield Candidate._make((a, b, generators, *numbers))  # faster than by the constructor


def size(packed: PackedCandidates) -> int:
    """Return how many candidates an element holds."""
    return len(packed.rows) // ROW.itemsize
