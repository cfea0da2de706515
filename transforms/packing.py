"""Candidates packed, many an element: one by one they cost more in a shuffle than their bytes."""

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.utils.windowed_value import WindowedValue

from transforms.grouping import components as graph
from transforms.outputs import in_global_window
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


class PackCandidates(beam.DoFn):
    """Packs the candidates of a bundle into few elements."""

    def start_bundle(self) -> None:
        """Begin with nothing."""
        self.held: list[Candidate] = []

    def process(self, candidate: Candidate) -> Iterable[PackedCandidates]:
        """Take a candidate, and return what is full."""
        self.held.append(candidate)
        if len(self.held) < PACKED_ROWS:
            return ()
        held, self.held = self.held, []
        return pack(held)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Yield the rest."""
        for packed in pack(self.held):
            yield in_global_window(packed)


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
        yield Candidate(a, b, generators, *numbers)


def size(packed: PackedCandidates) -> int:
    """Return how many candidates an element holds."""
    return len(packed.rows) // ROW.itemsize
