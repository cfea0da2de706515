"""Candidate pairs from wavelet keys.

In: ``Content``. Out: packed ``Candidate`` pairs within a Hamming radius over the eight
orientations. Keys travel packed, and blocks of keys meet in pairs. Guarantee: up to
``EXHAUSTIVE_KEYS`` contents every pair is compared; beyond, those that agree on a band of bits
(``grouping.bands``). Where a block holds a dense neighbourhood, its images are proposed with an
elected leader instead of with each other (``grouping.leaders``), and a ``Cap`` says of how many.
Which pairs come out is a function of the set of contents: blocks are cut by key, not by arrival.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue
from numpy.typing import NDArray

from transforms.grouping.bands import (
    BANDS,
    COMPACT_BYTES,
    BandedKeys,
    band_keys,
    band_width,
    pairs_in_bands,
)
from transforms.grouping.hamming import (
    ORIENTATIONS,
    Pairs,
    distances,
    measure,
    pairs_within,
    within,
)
from transforms.grouping.leaders import elect_leaders
from transforms.imaging.orientation import inverse_orientation
from transforms.outputs import in_global_window, several_outputs
from transforms.packing import PACKED_ROWS, ROW, PackedCandidates, pack_rows
from transforms.records import Cap, Content, StageStats
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "wavelet"
ID_BYTES = 32
EXHAUSTIVE_KEYS = 100_000
# Few enough that the units of a small job are work for several workers; an exhaustive unit of the
# largest one compares 8,334 keys with as many, about 1 s. A banded one holds at most
# 500,000 and 500,000, about 500 MB.
_BLOCK_KEYS = 4096
_BANDED_BLOCK_KEYS = 500_000
# Each block travels once per block: beyond so many exhaustive ones, blocks grow instead.
_MAX_BLOCKS = 12
# Six units; fewer would leave workers idle, and hold more at once.
_MIN_BANDED_BLOCKS = 3
# More images than this within the radius of one are a dense neighbourhood: in a small job, and in
# one block of a large one. A scene of a real collection has tens.
_DENSE = 1024
_DENSE_IN_BLOCK = 256
_PACKED_KEYS = 8192  # 1.1 MB an element
_DEALT_KEYS = 262_144  # that a bundle holds before it passes them on: 37 MB
# The keep-best order is decided by the first 35 bytes of a rank but for ties by name.
_RANK_BYTES = 40

_KEYED = np.dtype(
    [
        ("place", ">u4"),  # by which blocks are cut; equal for copies with an equal first band
        ("id", np.uint8, ID_BYTES),
        ("signs", np.uint8, COMPACT_BYTES),  # see grouping.bands
        ("rank", f"V{_RANK_BYTES}"),
    ]
)
# Multiplicative hashing: D. E. Knuth, The Art of Computer Programming 3, 6.4.
_GOLDEN = np.uint64(2654435769)
_BYTES = np.dtype(f"S{ID_BYTES}")  # ids that can be compared
_INVERSE = np.array([0, *map(inverse_orientation, range(1, ORIENTATIONS + 1))])

DENSE_NOTE = "images of dense neighbourhoods, proposed with a leader instead of with each other"
BANDED_NOTE = "keys searched in bands of bits, since there are more than are compared exhaustively"


class PackedKeys(NamedTuple):
    """The keys of some contents."""

    low: bool  # of the block with the lower number; where a block meets itself, always
    keyed: bytes  # _KEYED [n]


class BlockPair(NamedTuple):
    """A unit of work: two blocks that meet, low <= high."""

    low: int
    high: int
    blocks: int  # there are in all
    keys: int  # there are in all


class ProposedPairs(NamedTuple):
    """The outputs of ``ProposeByWavelet``."""

    candidates: beam.PCollection[PackedCandidates]
    stats: beam.PCollection[StageStats]
    caps: beam.PCollection[Cap]  # by block


beam.coders.registry.register_coder(PackedKeys, beam.coders.RowCoder)
beam.coders.registry.register_coder(BlockPair, beam.coders.RowCoder)


def block_count(keys: int) -> int:
    """Return into how many blocks that many keys are cut."""
    if keys <= EXHAUSTIVE_KEYS:
        return min(max(1, -(-keys // _BLOCK_KEYS)), _MAX_BLOCKS)
    return max(_MIN_BANDED_BLOCKS, -(-keys // _BANDED_BLOCK_KEYS))


def _pack(contents: list[tuple[bytes, bytes, bytes]]) -> bytes:
    """Return _KEYED [n] of (id, compact keys, rank)."""
    ids, signs, ranks = zip(*contents, strict=True)
    packed = np.empty(len(ids), _KEYED)
    packed["id"] = np.frombuffer(b"".join(ids), np.uint8).reshape(-1, ID_BYTES)
    packed["signs"] = np.frombuffer(b"".join(signs), np.uint8).reshape(-1, COMPACT_BYTES)
    packed["rank"] = ranks
    values = band_keys(packed["signs"], band_width(0), bands=1).values[0]
    packed["place"] = values * _GOLDEN & np.uint64(0xFFFFFFFF)
    return packed.tobytes()


class _PackDoFn(beam.DoFn):
    """Packs the keys of a bundle, so that what is read twice is small."""

    def start_bundle(self) -> None:
        self.contents: list[tuple[bytes, bytes, bytes]] = []

    def process(self, content: Content) -> Iterator[bytes]:
        rank = content.rank[:_RANK_BYTES].ljust(_RANK_BYTES, b"\0")
        self.contents.append((content.content, content.wavelet_keys, rank))
        if len(self.contents) == _PACKED_KEYS:
            yield self._packed()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self.contents:
            yield in_global_window(self._packed())

    def _packed(self) -> bytes:
        contents, self.contents = self.contents, []
        report_progress(STAGE, 0, len(contents))
        return _pack(contents)


def _distinct(places: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distinct places in a block, sorted; ``np.unique`` would import masked arrays."""
    return np.flatnonzero(np.bincount(places))


def _packed_count(packed: bytes) -> int:
    return len(packed) // _KEYED.itemsize


class _DealDoFn(beam.DoFn):
    """Cuts keys into blocks and sends each block to the units in which it takes part."""

    def start_bundle(self) -> None:
        self.held: list[bytes] = []
        self.keys = 0

    def process(
        self, packed: bytes, counts: Iterable[int]
    ) -> Iterator[tuple[BlockPair, PackedKeys]]:
        self.keys = self.keys or sum(counts)
        self.held.append(packed)
        if sum(map(_packed_count, self.held)) >= _DEALT_KEYS:
            yield from self._deal()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for dealt in self._deal():
            yield in_global_window(dealt)

    def _deal(self) -> Iterator[tuple[BlockPair, PackedKeys]]:
        keyed = np.frombuffer(b"".join(self.held), _KEYED)
        self.held = []
        blocks = block_count(self.keys)
        block_of = keyed["place"].astype(np.uint64) * np.uint64(blocks) >> np.uint64(32)
        for block in range(blocks):
            part = keyed[block_of == block].tobytes()
            for other in range(blocks if part else 0):
                low, high = sorted((block, other))
                pair = BlockPair(low, high, blocks, self.keys)
                yield pair, PackedKeys(block == low, part)


class _Block:
    """The keys of one block, in an order that does not depend on how they arrived."""

    def __init__(self, parts: list[bytes], unit: BlockPair, radius_bits: int) -> None:
        keyed = np.frombuffer(b"".join(parts), _KEYED)
        first = np.dtype(
            {"names": ["first"], "formats": [f"V{4 + ID_BYTES}"], "itemsize": _KEYED.itemsize}
        )
        keyed = keyed[np.argsort(keyed.view(first)["first"])]
        self.ids = np.ascontiguousarray(keyed["id"]).view(f"V{ID_BYTES}").ravel()
        self.ranks = np.ascontiguousarray(keyed["rank"])
        self.keys = band_keys(keyed["signs"], band_width(unit.keys))
        order = np.argsort(self.ranks, kind="stable")
        self.precedence = np.empty(len(order), np.int64)
        self.precedence[order] = np.arange(len(order))
        self.bound = max(_DENSE_IN_BLOCK, _DENSE // unit.blocks)
        self.leaders = elect_leaders(self.keys, self.precedence, radius_bits, self.bound)
        own = self.leaders == np.arange(len(self.leaders))
        self.free = np.flatnonzero((self.leaders < 0) | own)
        self.followers = np.flatnonzero((self.leaders >= 0) & ~own)

    def __len__(self) -> int:
        return len(self.ids)

    def searched(self) -> BandedKeys:
        """Return the keys of the images that follow no leader; a copy only if some do."""
        return self.keys.take(self.free) if len(self.followers) else self.keys

    def led_pairs(self) -> Iterator[Pairs]:
        """Yield each follower with its leader, and with the first image that has its very key."""
        followers = self.followers
        if not len(followers):
            return
        led = self._measure(followers, self.leaders[followers])
        yield led
        values = np.ascontiguousarray(self.keys.values[:, followers].T)
        same_key = values.view(f"V{values.itemsize * BANDS}")
        order = np.argsort(self.precedence[followers])
        _, first, back = np.unique(same_key.ravel()[order], return_index=True, return_inverse=True)
        firsts = np.empty_like(followers)
        firsts[order] = followers[order][first[back]]
        # Where the leader has that key too, the pair of leader and follower says it all.
        apart = (firsts != followers) & (led.bits > 0)
        yield from within(self._measure(followers[apart], firsts[apart]), 0)

    def _measure(self, images: NDArray[np.int64], others: NDArray[np.int64]) -> Pairs:
        rows, columns = np.minimum(images, others), np.maximum(images, others)
        return measure(self.keys.turned, self.keys.turned[0], rows, columns)

    def follow(self, other: "_Block", radius_bits: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield leaders of another block, each with the images here whose leader is after it.

        So where a dense neighbourhood spreads over blocks, all its images meet the first in the
        keep-best order, which is the one to be kept.
        """
        leading = _distinct(other.leaders[other.followers])
        leading = leading[np.argsort(other.precedence[leading])]
        for leader in _distinct(self.leaders[self.followers]).tolist():
            bits = distances(other.keys.turned[:, leading], self.keys.turned[0, leader])
            near = leading[bits.min(axis=0) <= radius_bits]
            if len(near) and other._standing(near[0]) < self._standing(leader):
                yield int(near[0]), self.followers[self.leaders[self.followers] == leader]

    def _standing(self, image: int) -> tuple[bytes, bytes]:
        return self.ranks[image].tobytes(), self.ids[image].tobytes()


def _search(left: _Block, right: _Block, unit: BlockPair, radius_bits: int) -> Iterator[Pairs]:
    """Yield the near pairs of the images that follow no leader."""
    same = left is right
    sides: list[BandedKeys] = [side.searched() for side in (left, right)]
    if unit.keys <= EXHAUSTIVE_KEYS:
        found = pairs_within(sides[0].turned, sides[1].turned[0], radius_bits, same=same)
    else:
        found = pairs_in_bands(sides[0], sides[1], radius_bits, same=same)
    for pairs in found:
        yield pairs._replace(rows=left.free[pairs.rows], columns=right.free[pairs.columns])


def _cross_followers(left: _Block, right: _Block, radius_bits: int) -> Iterator[Pairs]:
    """Yield followers of one block with earlier leaders of the other."""
    turned, plain = left.keys.turned, right.keys.turned[0]
    for leader, rows in left.follow(right, radius_bits):
        pairs = measure(turned, plain, rows, np.full(len(rows), leader))
        yield from within(pairs, radius_bits)
    for leader, columns in right.follow(left, radius_bits):
        pairs = measure(turned, plain, np.full(len(columns), leader), columns)
        yield from within(pairs, radius_bits)


def _candidates(left: _Block, right: _Block, pairs: Pairs) -> NDArray[np.void]:
    """Return pairs as candidates, ``packing.ROW`` [n]."""
    first, second = left.ids[pairs.rows], right.ids[pairs.columns]
    swapped = first.view(_BYTES) > second.view(_BYTES)
    rows = np.zeros(len(first), ROW)
    rows["a"], rows["b"] = np.where(swapped, second, first), np.where(swapped, first, second)
    rows["numbers"][:, 0] = pairs.bits
    turned = pairs.orientations
    rows["numbers"][:, 1] = np.where(swapped, _INVERSE[turned], turned)
    return rows


class _SearchDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, radius_bits: int) -> None:
        self.radius_bits = radius_bits

    def process(
        self, grouped: tuple[BlockPair, Iterable[PackedKeys]]
    ) -> Iterator[PackedCandidates | TaggedOutput[Literal["caps"], Cap]]:
        unit, parts = grouped[0], list(grouped[1])
        same = unit.low == unit.high
        with self.meter.work(0):
            left = _Block([part.keyed for part in parts if part.low], unit, self.radius_bits)
            right = left
            if not same:
                keyed = [part.keyed for part in parts if not part.low]
                right = _Block(keyed, unit, self.radius_bits)
        del parts
        if same:
            self.meter.items_in += len(left)
            yield from _caps(left, unit)
        searched = self._pairs(left, right, unit)
        while found := self._next(searched):
            with self.meter.work(0):
                rows = _candidates(
                    left, right, Pairs(*map(np.concatenate, zip(*found, strict=True)))
                )
                self.meter.items_out += len(rows)
            yield from pack_rows(STAGE, rows)
        report_progress(STAGE, len(left) if same else 0)

    def _pairs(self, left: _Block, right: _Block, unit: BlockPair) -> Iterator[Pairs]:
        yield from _search(left, right, unit, self.radius_bits)
        if unit.low == unit.high:
            yield from left.led_pairs()
        else:
            yield from _cross_followers(left, right, self.radius_bits)

    def _next(self, searched: Iterator[Pairs]) -> list[Pairs]:
        """Search on for what fills an element, which is passed on before more is searched."""
        found: list[Pairs] = []
        count = 0
        with self.meter.work(0):
            while count < PACKED_ROWS and (pairs := next(searched, None)) is not None:
                found.append(pairs)
                count += len(pairs.rows)
        return found


def _caps(block: _Block, unit: BlockPair) -> Iterator[TaggedOutput[Literal["caps"], Cap]]:
    if len(block.followers):
        cap = Cap(STAGE, "dense_neighbourhood", block.bound, len(block.followers), DENSE_NOTE)
        yield TaggedOutput("caps", cap)
    if unit.keys > EXHAUSTIVE_KEYS:
        yield TaggedOutput(
            "caps", Cap(STAGE, "exhaustive_keys", EXHAUSTIVE_KEYS, len(block), BANDED_NOTE)
        )


@dataclasses.dataclass(eq=False)
class ProposeByWavelet(beam.PTransform):
    """Propose the pairs of contents whose wavelet keys are near in some orientation.

    Attributes:
        radius_bits: Hamming distance, inclusive, 0..256.
    """

    radius_bits: int

    def __post_init__(self) -> None:
        super().__init__()
        if not 0 <= self.radius_bits <= 256:
            raise ValueError(f"radius_bits must be in 0..256, not {self.radius_bits!r}")

    @several_outputs
    def expand(self, contents: beam.PCollection[Content]) -> ProposedPairs:
        """Turn contents into candidates, statistics of the search and the bounds applied."""
        packed = contents | "Pack keys" >> beam.ParDo(_PackDoFn()).with_output_types(bytes)
        counts = packed | "Count packed" >> beam.Map(_packed_count).with_output_types(int)
        out = (
            packed
            | "Deal blocks"
            >> beam.ParDo(_DealDoFn(), beam.pvalue.AsIter(counts)).with_output_types(
                tuple[BlockPair, PackedKeys]
            )
            | "Group blocks" >> beam.GroupByKey()
            | "Search blocks"
            >> beam.ParDo(_SearchDoFn(self.radius_bits))
            .with_output_types(PackedCandidates, stats=StageStats, caps=Cap)
            .with_outputs(STATS, "caps", main="candidates")
        )
        return ProposedPairs(out.candidates, out[STATS], out.caps)
