"""Candidate pairs from embeddings: copies that neither keys nor words find.

In: ``Content`` with what a global model made of it. Out: packed ``Candidate`` pairs of embeddings
with at least a given cosine. A content without an embedding (its read or the model failed) is left
out and counted as skipped. Guarantee: up to ``EXHAUSTIVE_CONTENTS`` contents every pair is seen;
beyond, the angle is estimated from a sketch, and those are compared that agree on some of its bits
(``grouping.hyperplanes``). Where a block holds a dense neighbourhood, its images are proposed with
an elected leader instead of with each other, and a ``Cap`` says of how many. Which pairs come out
is a function of the set of contents: blocks are cut by id, and no rounding depends on how.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue
from numpy.typing import NDArray

from transforms.candidates import DENSE_NOTE
from transforms.grouping import hyperplanes
from transforms.grouping.cosines import (
    Places,
    Vectors,
    cosines,
    elect_leaders,
    near,
    near_pairs,
    vectors_of,
)
from transforms.outputs import in_global_window, several_outputs
from transforms.packing import PACKED_ROWS, ROW, PackedCandidates, pack_rows
from transforms.records import Cap, Content, StageStats
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "embedding"
_ID_BYTES = 32
# The keep-best order is decided by the first 35 bytes of a rank but for ties by name.
_RANK_BYTES = 40
EXHAUSTIVE_CONTENTS = 100_000
# Values of all their vectors, 512 each: longer ones are fewer, since they cost as much as they are.
EXHAUSTIVE_VALUES = 512 * EXHAUSTIVE_CONTENTS
# Few enough that the units of a small job are work for several workers.
_BLOCK_CONTENTS = 2048
# Each block travels once per block: 100,000 vectors of 512 values, 100 MB, six times.
_MAX_BLOCKS = 6
# Six units at least; fewer would leave workers idle. One of a million images holds two blocks of
# 334,000: 130 MB, and three times that while they are searched.
_SKETCHED_BLOCK_CONTENTS = 400_000
_MIN_SKETCHED_BLOCKS = 3
# More images than this near one are a dense neighbourhood: in a small job, and in one block of a
# large one. A scene of a real collection has tens.
_DENSE = 256
_DENSE_IN_BLOCK = 64
_DEALT_BYTES = 4 << 20  # of vectors that a bundle holds before it passes them on

_KEYED = np.dtype([("id", f"V{_ID_BYTES}"), ("rank", f"V{_RANK_BYTES}")])
_BYTES = np.dtype(f"S{_ID_BYTES}")  # ids that can be compared


SKETCHED_NOTE = "embeddings searched by sketches, since there are more than are compared in pairs"


class PackedVectors(NamedTuple):
    """The embeddings of some contents, or their sketches."""

    low: bool  # of the block with the lower number; where a block meets itself, always
    keyed: bytes  # _KEYED [n]
    vectors: bytes  # float16 [n, d], or uint8 [n, 128] of grouping.hyperplanes


class BlockPair(NamedTuple):
    """A unit of work: two blocks that meet, low <= high."""

    low: int
    high: int
    blocks: int  # there are in all
    sketched: bool


class ProposedPairs(NamedTuple):
    """The outputs of ``ProposeByEmbedding``."""

    candidates: beam.PCollection[PackedCandidates]
    stats: beam.PCollection[StageStats]
    caps: beam.PCollection[Cap]


beam.coders.registry.register_coder(PackedVectors, beam.coders.RowCoder)
beam.coders.registry.register_coder(BlockPair, beam.coders.RowCoder)


def is_exhaustive(contents: int, dimensions: int) -> bool:
    """Tell whether each pair of so many vectors of that length is compared."""
    return contents <= EXHAUSTIVE_CONTENTS and contents * dimensions <= EXHAUSTIVE_VALUES


def block_count(contents: int, *, sketched: bool) -> int:
    """Return into how many blocks that many contents are cut."""
    if sketched:
        return max(_MIN_SKETCHED_BLOCKS, -(-contents // _SKETCHED_BLOCK_CONTENTS))
    return min(max(1, -(-contents // _BLOCK_CONTENTS)), _MAX_BLOCKS)


def usable_vector(content: Content) -> NDArray[np.float16] | None:
    """Return the embedding of a content, float16 [d]; None if there is none that has a cosine."""
    if content.learned is None or not content.learned.embedding:
        return None
    vector = np.frombuffer(content.learned.embedding, np.float16)
    # Of halves the sum of squares can overflow; one that is not finite has no finite sum.
    square = float((vector.astype(np.float64) ** 2).sum())
    return vector if 0.0 < square < np.inf else None


class _CountDoFn(MeteredDoFn):
    """Counts the contents of a bundle that have an embedding, and those that are left out."""

    stage = STAGE

    def start_bundle(self) -> None:
        super().start_bundle()
        self.count = 0

    def process(self, content: Content) -> None:
        if usable_vector(content) is None:
            self.meter.skipped += 1
        else:
            self.count += 1

    def finish_bundle(self) -> Iterator[WindowedValue | TaggedOutput[Literal["stats"], StageStats]]:
        report_progress(STAGE, 0, self.count)
        if self.count:
            yield in_global_window(self.count)
        yield from super().finish_bundle()


class _DealDoFn(beam.DoFn):
    """Cuts contents into blocks and sends each block to the units in which it takes part."""

    def setup(self) -> None:
        self.planes: NDArray[np.float32] | None = None

    def start_bundle(self) -> None:
        self.held: list[tuple[bytes, bytes, bytes]] = []
        self.bytes = self.contents = 0

    def process(
        self, content: Content, counts: Iterable[int]
    ) -> Iterator[tuple[BlockPair, PackedVectors]]:
        if usable_vector(content) is None or content.learned is None:
            return
        self.contents = self.contents or sum(counts)
        embedding = content.learned.embedding
        if self.held and len(embedding) != len(self.held[0][2]):
            raise ValueError(
                f"embeddings of {len(self.held[0][2]) // 2} and of {len(embedding) // 2} values "
                "are of two models; each run embeds all contents with one"
            )
        self.held.append((content.content, content.rank, embedding))
        self.bytes += len(embedding)
        if self.bytes >= _DEALT_BYTES:
            yield from self._deal()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self.held:
            for dealt in self._deal():
                yield in_global_window(dealt)

    def _deal(self) -> Iterator[tuple[BlockPair, PackedVectors]]:
        held, self.held, self.bytes = self.held, [], 0
        ids, ranks, embeddings = zip(*held, strict=True)
        keyed = np.empty(len(ids), _KEYED)
        keyed["id"] = np.frombuffer(b"".join(ids), f"V{_ID_BYTES}")
        keyed["rank"] = [rank[:_RANK_BYTES].ljust(_RANK_BYTES, b"\0") for rank in ranks]
        halves = np.frombuffer(b"".join(embeddings), np.float16).reshape(len(ids), -1)
        sketched = not is_exhaustive(self.contents, halves.shape[1])
        vectors = self._sketch(halves) if sketched else halves
        blocks = block_count(self.contents, sketched=sketched)
        # An id is a hash, so blocks have one size, and each its share of a dense neighbourhood.
        starts = np.frombuffer(b"".join(one[:4] for one in ids), ">u4").astype(np.uint64)
        block_of = starts * np.uint64(blocks) >> np.uint64(32)
        for block in range(blocks):
            inside = block_of == block
            part = keyed[inside].tobytes(), vectors[inside].tobytes()
            for other in range(blocks if inside.any() else 0):
                low, high = sorted((block, other))
                yield (
                    BlockPair(low, high, blocks, sketched),
                    PackedVectors(block == low, *part),
                )

    def _sketch(self, halves: NDArray[np.float16]) -> NDArray[np.uint8]:
        if self.planes is None:
            self.planes = hyperplanes.normals(halves.shape[1])
        return hyperplanes.sketch(vectors_of(halves).units, self.planes)


class _Side(NamedTuple):
    """What one block has, in an order that does not depend on how it arrived."""

    keyed: NDArray[np.void]  # _KEYED [n], by id
    values: NDArray[np.uint8]  # [n, bytes of a vector or sketch]

    @classmethod
    def of(cls, parts: Iterable[PackedVectors]) -> "_Side":
        """Put parts together, at least one."""
        parts = list(parts)
        keyed = np.frombuffer(b"".join(part.keyed for part in parts), _KEYED)
        values = np.frombuffer(b"".join(part.vectors for part in parts), np.uint8)
        order = np.argsort(np.ascontiguousarray(keyed["id"]))
        return cls(keyed[order], values.reshape(len(order), -1)[order])


def _precedence(keyed: NDArray[np.void]) -> NDArray[np.int64]:
    """Return each image's place in the keep-best order; ties in the order given."""
    places = np.empty(len(keyed), np.int64)
    order = np.argsort(np.ascontiguousarray(keyed["rank"]), kind="stable")
    places[order] = np.arange(len(keyed))
    return places


class _Block:
    """The embeddings of one block, some of which follow a leader."""

    def __init__(self, side: _Side, unit: BlockPair, similarity: float) -> None:
        self.ids = np.ascontiguousarray(side.keyed["id"])
        self.ranks = np.ascontiguousarray(side.keyed["rank"])
        self.vectors = vectors_of(side.values.view(np.float16))
        self.precedence = _precedence(side.keyed)
        self.bound = max(_DENSE_IN_BLOCK, _DENSE // unit.blocks)
        self.leaders = elect_leaders(self.vectors, self.precedence, similarity, self.bound)
        own = self.leaders == np.arange(len(self.leaders))
        self.free = np.flatnonzero((self.leaders < 0) | own)
        self.followers = np.flatnonzero((self.leaders >= 0) & ~own)

    def __len__(self) -> int:
        return len(self.ids)

    def searched(self) -> Vectors:
        """Return the vectors of the images that follow no leader; a copy only if some do."""
        return self.vectors.take(self.free) if len(self.followers) else self.vectors

    def follow(self, other: "_Block", similarity: float) -> Iterator[Places]:
        """Yield pairs of images here and leaders of another block that are before their own.

        So where a dense neighbourhood spreads over blocks, all its images meet the first in the
        keep-best order, which is the one to be kept.
        """
        leading = np.unique(other.leaders[other.followers])
        leading = leading[np.argsort(other.precedence[leading])]
        own = np.unique(self.leaders[self.followers])
        first: dict[int, int] = {}
        for rows, columns in near(self.vectors.take(own), other.vectors.take(leading), similarity):
            for row, column in zip(own[rows].tolist(), columns.tolist(), strict=True):
                first[row] = min(column, first.get(row, column))
        for leader, column in sorted(first.items()):
            found = int(leading[column])
            if other._standing(found) < self._standing(leader):
                rows = self.followers[self.leaders[self.followers] == leader]
                columns = np.full(len(rows), found)
                close = cosines(self.vectors, other.vectors, rows, columns) >= similarity
                yield rows[close], columns[close]

    def _standing(self, image: int) -> tuple[bytes, bytes]:
        return self.ranks[image].tobytes(), self.ids[image].tobytes()


def _pairs(left: _Block, right: _Block, similarity: float) -> Iterator[Places]:
    """Yield the pairs of one unit, a row of the left block and one of the right each."""
    if left is right:
        yield left.followers, left.leaders[left.followers]
        for rows, columns in near_pairs(left.searched(), similarity):
            yield left.free[rows], left.free[columns]
        return
    for rows, columns in near(left.searched(), right.searched(), similarity):
        yield left.free[rows], right.free[columns]
    yield from left.follow(right, similarity)
    for rows, columns in right.follow(left, similarity):
        yield columns, rows


_Proposed: TypeAlias = PackedCandidates | TaggedOutput[Literal["caps"], Cap]


class _SearchDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity

    def process(self, grouped: tuple[BlockPair, Iterable[PackedVectors]]) -> Iterator[_Proposed]:
        unit, parts = grouped[0], list(grouped[1])
        with self.meter.work(0):
            sides = [_Side.of(part for part in parts if part.low)]
            if unit.low < unit.high:
                sides.append(_Side.of(part for part in parts if not part.low))
        del parts
        # Each block is in several units: its contents are counted where it meets itself.
        contents = len(sides[0].keyed) if len(sides) == 1 else 0
        self.meter.items_in += contents
        yield from (self._sketches(sides) if unit.sketched else self._vectors(sides, unit))
        report_progress(STAGE, contents)

    def _vectors(self, sides: list[_Side], unit: BlockPair) -> Iterator[_Proposed]:
        """Compare all pairs."""
        with self.meter.work(0):
            blocks = [_Block(side, unit, self.similarity) for side in sides]
        left, right = blocks[0], blocks[-1]
        if left is right and len(left.followers):
            yield _cap("dense_neighbourhood", left.bound, len(left.followers), DENSE_NOTE)
        searched = _pairs(left, right, self.similarity)
        while found := self._next(searched):
            rows, columns = map(np.concatenate, zip(*found, strict=True))
            yield from self._candidates(left.ids[rows], right.ids[columns])

    def _sketches(self, sides: list[_Side]) -> Iterator[_Proposed]:
        """Compare those that agree on some bits."""
        with self.meter.work(0):
            keyed = np.concatenate([side.keyed for side in sides])
            second = np.arange(len(keyed)) >= len(sides[0].keyed)
            found = hyperplanes.search(
                np.concatenate([side.values for side in sides]),
                _precedence(keyed),
                hyperplanes.radius_bits(self.similarity),
                second if len(sides) > 1 else None,
            )
            ids = np.ascontiguousarray(keyed["id"])
        if len(sides) == 1:
            yield _cap("exhaustive_contents", EXHAUSTIVE_CONTENTS, len(ids), SKETCHED_NOTE)
            if followers := int(np.count_nonzero(found.led)):
                yield _cap("dense_neighbourhood", hyperplanes.WINDOW, followers, DENSE_NOTE)
        for start in range(0, len(found.rows), PACKED_ROWS):
            part = slice(start, start + PACKED_ROWS)
            yield from self._candidates(ids[found.rows[part]], ids[found.columns[part]])

    def _next(self, searched: Iterator[Places]) -> list[Places]:
        """Search on for what fills an element, which is passed on before more is searched."""
        found: list[Places] = []
        count = 0
        with self.meter.work(0):
            while count < PACKED_ROWS and (pairs := next(searched, None)) is not None:
                found.append(pairs)
                count += len(pairs[0])
        return found

    def _candidates(
        self, first: NDArray[np.void], second: NDArray[np.void]
    ) -> Iterator[PackedCandidates]:
        """Pack pairs of ids as candidates of which nothing is measured yet."""
        with self.meter.work(0):
            swapped = first.view(_BYTES) > second.view(_BYTES)
            rows = np.zeros(len(first), ROW)
            rows["a"] = np.where(swapped, second, first)
            rows["b"] = np.where(swapped, first, second)
            rows["numbers"][:, 0], rows["numbers"][:, 1] = -1, 1
            self.meter.items_out += len(rows)
        yield from pack_rows(STAGE, rows)


def _cap(name: str, limit: int, applied: int, note: str) -> TaggedOutput[Literal["caps"], Cap]:
    return TaggedOutput("caps", Cap(STAGE, name, limit, applied, note))


@dataclasses.dataclass(eq=False)
class ProposeByEmbedding(beam.PTransform):
    """Propose the pairs of contents whose embeddings are alike.

    Attributes:
        similarity: least cosine, rounded to four decimals, 0..1.
    """

    similarity: float

    def __post_init__(self) -> None:
        super().__init__()
        if not 0 <= self.similarity <= 1:
            raise ValueError(f"similarity must be in 0..1, not {self.similarity!r}")

    @several_outputs
    def expand(self, contents: beam.PCollection[Content]) -> ProposedPairs:
        """Turn contents into candidates, statistics of the search and the bounds applied."""
        counted = contents | "Count embedded" >> (
            beam.ParDo(_CountDoFn())
            .with_output_types(int, stats=StageStats)
            .with_outputs(STATS, main="counts")
        )
        out = (
            contents
            | "Deal blocks"
            >> beam.ParDo(_DealDoFn(), beam.pvalue.AsIter(counted.counts)).with_output_types(
                tuple[BlockPair, PackedVectors]
            )
            | "Group blocks" >> beam.GroupByKey()
            | "Search blocks"
            >> beam.ParDo(_SearchDoFn(self.similarity))
            .with_output_types(PackedCandidates, stats=StageStats, caps=Cap)
            .with_outputs(STATS, "caps", main="candidates")
        )
        stats = (counted[STATS], out[STATS]) | "All statistics" >> beam.Flatten()
        return ProposedPairs(out.candidates, stats, out.caps)
