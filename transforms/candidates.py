"""Candidate pairs from wavelet keys.

In: ``Content``. Out: ``Candidate`` pairs within a Hamming radius over the eight orientations. Keys
travel packed, a block of images an element. Guarantee: the search is exhaustive; how the keys are
cut into blocks never changes which pairs come out.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.utils.windowed_value import WindowedValue
from numpy.typing import NDArray

from transforms.grouping.hamming import KEY_BYTES, ORIENTATIONS, pairs_within
from transforms.imaging.orientation import inverse_orientation
from transforms.outputs import in_global_window, several_outputs
from transforms.records import Candidate, Content, StageStats
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "wavelet"
ID_BYTES = 32
# Two blocks meet in one unit of work: 8,192 keys against 8,192 take about 2 s.
_BLOCK_KEYS = 8192
# Beyond this, blocks grow instead of their number: each block travels once per other block.
_MAX_BLOCKS = 12

# One side of a unit brings its keys in all orientations, the other as they stand.
_TURNED = np.dtype([("id", np.uint8, ID_BYTES), ("keys", np.uint8, (ORIENTATIONS, KEY_BYTES))])
_PLAIN = np.dtype([("id", np.uint8, ID_BYTES), ("keys", np.uint8, KEY_BYTES)])


class PackedKeys(NamedTuple):
    """The keys of one block of contents."""

    turned: bool  # in all orientations
    keyed: bytes  # [n] of 32 bytes id and uint8 [8, 32] keys if turned, else [32]


beam.coders.registry.register_coder(PackedKeys, beam.coders.RowCoder)


def block_count(contents: int) -> int:
    """Return into how many blocks that many keys are cut."""
    return min(max(1, -(-contents // _BLOCK_KEYS)), _MAX_BLOCKS)


class _PackDoFn(beam.DoFn):
    """Gathers a bundle's keys by block and sends each block to the units in which it takes part."""

    def start_bundle(self) -> None:
        self.packed: dict[int, list[bytes]] = {}
        self.blocks = 1

    def process(self, content: Content, contents: int) -> None:
        self.blocks = block_count(contents)
        block = int.from_bytes(content.content[:8], "big") % self.blocks
        self.packed.setdefault(block, []).append(content.content + content.wavelet_keys)
        report_progress(STAGE, 0, 1)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for block, parts in sorted(self.packed.items()):
            turned = PackedKeys(True, b"".join(parts))
            plain = PackedKeys(False, b"".join(part[: _PLAIN.itemsize] for part in parts))
            for other in range(self.blocks):
                if block <= other:
                    yield in_global_window((block * _MAX_BLOCKS + other, turned))
                else:
                    yield in_global_window((other * _MAX_BLOCKS + block, plain))


def _unpack(parts: Iterable[PackedKeys], turned: bool) -> NDArray[np.void]:
    joined = b"".join(part.keyed for part in parts if part.turned == turned)
    # Sorted by id, so that a pair's order never depends on how the keys arrived.
    keyed = np.frombuffer(joined, _TURNED if turned else _PLAIN)
    ids = np.ascontiguousarray(keyed["id"]).view(f"V{ID_BYTES}").ravel()
    return keyed[np.argsort(ids)]


class _SearchDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, radius_bits: int) -> None:
        self.radius_bits = radius_bits

    def process(self, unit: tuple[int, Iterable[PackedKeys]]) -> Iterator[Candidate]:
        low, high = divmod(unit[0], _MAX_BLOCKS)
        parts = list(unit[1])
        found: list[Candidate] = []
        with self.meter.work(0):
            left = _unpack(parts, True)
            right = left if low == high else _unpack(parts, False)
            keys = right["keys"][:, 0] if low == high else right["keys"]
            searched = len(left) if low == high else 0
            self.meter.items_in += searched
            for rows, columns, bits, orientations in pairs_within(
                left["keys"], keys, self.radius_bits, same=low == high
            ):
                for row, column, distance, orientation in zip(
                    rows, columns, bits.tolist(), orientations.tolist(), strict=True
                ):
                    found.append(
                        _candidate(
                            left["id"][row].tobytes(),
                            right["id"][column].tobytes(),
                            distance,
                            orientation,
                        )
                    )
            self.meter.items_out += len(found)
        report_progress(STAGE, searched)
        yield from found


def _candidate(left: bytes, right: bytes, distance: int, orientation: int) -> Candidate:
    if left < right:
        return Candidate(left, right, "wavelet", distance, orientation)
    return Candidate(right, left, "wavelet", distance, inverse_orientation(orientation))


@dataclasses.dataclass(eq=False)
class ProposeByWavelet(beam.PTransform):
    """Propose every pair of contents whose wavelet keys are near in some orientation.

    Attributes:
        radius_bits: Hamming distance, inclusive, 0..256.
    """

    radius_bits: int

    def __post_init__(self) -> None:
        super().__init__()
        if not 0 <= self.radius_bits <= 256:
            raise ValueError(f"radius_bits must be in 0..256, not {self.radius_bits!r}")

    @several_outputs
    def expand(
        self, contents: beam.PCollection[Content]
    ) -> tuple[beam.PCollection[Candidate], beam.PCollection[StageStats]]:
        """Turn contents into candidates, and the statistics of the search."""
        count = contents | "Count contents" >> beam.combiners.Count.Globally()
        out = (
            contents
            | "Pack keys"
            >> beam.ParDo(_PackDoFn(), beam.pvalue.AsSingleton(count)).with_output_types(
                tuple[int, PackedKeys]
            )
            | "Group blocks" >> beam.GroupByKey()
            | "Search blocks"
            >> beam.ParDo(_SearchDoFn(self.radius_bits))
            .with_output_types(Candidate, stats=StageStats)
            .with_outputs(STATS, main="candidates")
        )
        return out.candidates, out[STATS]
