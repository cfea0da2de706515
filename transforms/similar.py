"""Candidate pairs from embeddings: copies that neither keys nor words find.

In: ``Content`` with what a global model made of it. Out: packed ``Candidate`` pairs of embeddings
with at least a given cosine. A content without an embedding (its read or the model failed) is left
out and counted as skipped. Guarantee: up to ``EXHAUSTIVE_CONTENTS`` contents every pair is seen.
Where a block holds a dense neighbourhood, its images are proposed with an elected leader instead
of with each other, and a ``Cap`` says of how many. Which pairs come out is a function of the set
of contents: blocks are cut by id, and no rounding depends on how they are cut.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue
from numpy.typing import NDArray

from transforms.candidates import DENSE_NOTE
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
# Few enough that the units of a small job are work for several workers.
_BLOCK_CONTENTS = 2048
# Each block travels once per block: 100,000 vectors of 512 values, 100 MB, six times.
_MAX_BLOCKS = 6
# More images than this near one are a dense neighbourhood: in a small job, and in one block of a
# large one. A scene of a real collection has tens.
_DENSE = 256
_DENSE_IN_BLOCK = 64
_DEALT_BYTES = 4 << 20  # of vectors that a bundle holds before it passes them on

_KEYED = np.dtype([("id", f"V{_ID_BYTES}"), ("rank", f"V{_RANK_BYTES}")])
_BYTES = np.dtype(f"S{_ID_BYTES}")  # ids that can be compared


class PackedVectors(NamedTuple):
    """The embeddings of some contents."""

    low: bool  # of the block with the lower number; where a block meets itself, always
    keyed: bytes  # _KEYED [n]
    vectors: bytes  # float16 [n, d]


class BlockPair(NamedTuple):
    """A unit of work: two blocks that meet, low <= high."""

    low: int
    high: int
    blocks: int  # there are in all
    contents: int  # with an embedding, there are in all


class ProposedPairs(NamedTuple):
    """The outputs of ``ProposeByEmbedding``."""

    candidates: beam.PCollection[PackedCandidates]
    stats: beam.PCollection[StageStats]
    caps: beam.PCollection[Cap]


beam.coders.registry.register_coder(PackedVectors, beam.coders.RowCoder)
beam.coders.registry.register_coder(BlockPair, beam.coders.RowCoder)


def block_count(contents: int) -> int:
    """Return into how many blocks that many contents are cut."""
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
        vectors = np.frombuffer(b"".join(embeddings), np.float16).reshape(len(ids), -1)
        blocks = block_count(self.contents)
        # An id is a hash, so blocks have one size, and each its share of a dense neighbourhood.
        starts = np.frombuffer(b"".join(one[:4] for one in ids), ">u4").astype(np.uint64)
        block_of = starts * np.uint64(blocks) >> np.uint64(32)
        for block in range(blocks):
            inside = block_of == block
            part = keyed[inside].tobytes(), vectors[inside].tobytes()
            for other in range(blocks if inside.any() else 0):
                low, high = sorted((block, other))
                unit = BlockPair(low, high, blocks, self.contents)
                yield unit, PackedVectors(block == low, *part)


class _Block:
    """The embeddings of one block, in an order that does not depend on how they arrived."""

    def __init__(self, parts: list[PackedVectors], unit: BlockPair, similarity: float) -> None:
        keyed = np.frombuffer(b"".join(part.keyed for part in parts), _KEYED)
        halves = np.frombuffer(b"".join(part.vectors for part in parts), np.float16)
        order = np.argsort(np.ascontiguousarray(keyed["id"]))
        self.ids = np.ascontiguousarray(keyed["id"][order])
        self.ranks = np.ascontiguousarray(keyed["rank"][order])
        self.vectors = vectors_of(halves.reshape(len(order), -1)[order])
        self.precedence = np.empty(len(order), np.int64)
        self.precedence[np.argsort(self.ranks, kind="stable")] = np.arange(len(order))
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


def _candidates(first: NDArray[np.void], second: NDArray[np.void]) -> NDArray[np.void]:
    """Return pairs of ids as candidates of which nothing is measured yet, ``packing.ROW`` [n]."""
    swapped = first.view(_BYTES) > second.view(_BYTES)
    rows = np.zeros(len(first), ROW)
    rows["a"], rows["b"] = np.where(swapped, second, first), np.where(swapped, first, second)
    rows["numbers"][:, 0], rows["numbers"][:, 1] = -1, 1
    return rows


class _SearchDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, similarity: float) -> None:
        self.similarity = similarity

    def process(
        self, grouped: tuple[BlockPair, Iterable[PackedVectors]]
    ) -> Iterator[PackedCandidates | TaggedOutput[Literal["caps"], Cap]]:
        unit, parts = grouped[0], list(grouped[1])
        same = unit.low == unit.high
        with self.meter.work(0):
            left = _Block([part for part in parts if part.low], unit, self.similarity)
            right = left
            if not same:
                right = _Block([part for part in parts if not part.low], unit, self.similarity)
        del parts
        if same:
            self.meter.items_in += len(left)
            yield from _caps(left)
        searched = _pairs(left, right, self.similarity)
        while found := self._next(searched):
            with self.meter.work(0):
                rows, columns = map(np.concatenate, zip(*found, strict=True))
                candidates = _candidates(left.ids[rows], right.ids[columns])
                self.meter.items_out += len(candidates)
            yield from pack_rows(STAGE, candidates)
        report_progress(STAGE, len(left) if same else 0)

    def _next(self, searched: Iterator[Places]) -> list[Places]:
        """Search on for what fills an element, which is passed on before more is searched."""
        found: list[Places] = []
        count = 0
        with self.meter.work(0):
            while count < PACKED_ROWS and (pairs := next(searched, None)) is not None:
                found.append(pairs)
                count += len(pairs[0])
        return found


def _caps(block: _Block) -> Iterator[TaggedOutput[Literal["caps"], Cap]]:
    if len(block.followers):
        cap = Cap(STAGE, "dense_neighbourhood", block.bound, len(block.followers), DENSE_NOTE)
        yield TaggedOutput("caps", cap)


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
