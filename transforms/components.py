"""The components that partition the work, and contents and candidates keyed by them.

In: ``Content``, and the component of every content that is in some pair. Out: contents keyed by
component; a content in no pair is a component of its own. Guarantee: every content that is in a
pair, or has more than one row, leaves once. Lone contents have nothing left to decide.

Where a worker can hold the components of all contents in pairs, each content looks up its own.
Beyond, contents and components are joined; a side input holds the first bytes of the ids of all
contents in pairs, so that lone contents do not even cross the join.

One worker labels the candidates while it can hold them. Beyond, they are cut into shards by content
id and labelled by rounds, see ``grouping.components``. Both ways are in the graph; a count sends
all candidates down one of them, and the other gets no element.
"""

import dataclasses
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
from apache_beam.pvalue import AsIter, TaggedOutput
from apache_beam.utils.windowed_value import WindowedValue
from numpy.typing import NDArray

from transforms.grouping import components as graph
from transforms.joins import JoinByKey
from transforms.outputs import in_global_window, several_outputs
from transforms.packing import ROW, PackedCandidates, pack_rows, size
from transforms.records import Cap, Content

STAGE = "components"
MAX_PAIRS_IN_MEMORY = 2_500_000  # 1 GB, measured
MAX_MEMBERS_IN_MEMORY = 250_000  # of pairs; 60 MB in each worker
_PACKED = 16_384  # pairs in an element, 1 MB
# Of a content's id. In a job of 10**8 contents one lone content in 10**11 shares them with another
# that is in a pair; it crosses the join for nothing, and is dropped there.
_START_BYTES = 8
_HELD = 1024  # contents that are looked up at once
# Each round leaves less than half of the links of a long path, the slowest graph of random ids, and
# a tenth or less of those of many small components.
_ROUNDS = 3
_LEAST_SHARDS = 32  # enough to keep workers busy
_LEAST_SHARD_PAIRS = 1024  # below, a shard costs more than its work

_PAIR_FORMAT = struct.Struct("<32s32s")


class Shard(NamedTuple):
    """A part of all content ids; the key under which its pairs meet."""

    number: int
    shards: int


beam.coders.registry.register_coder(Shard, beam.coders.RowCoder)

_Labelled: TypeAlias = tuple[bytes, PackedCandidates] | TaggedOutput[Literal["members"], bytes]


class Components(NamedTuple):
    """The outputs of ``PartitionCandidates``."""

    candidates: beam.PCollection[tuple[bytes, PackedCandidates]]  # keyed by component
    members: beam.PCollection[bytes]  # PAIR [n], content id and component
    caps: beam.PCollection[Cap]


def shard_count(pairs: int, max_pairs: int) -> int:
    """Return into how many shards that many pairs are cut.

    Args:
        pairs: number of edges.
        max_pairs: what one worker may hold; a shard gets about half of it in arcs.
    """
    wanted = max(_LEAST_SHARDS, -(-4 * pairs // max_pairs))
    return max(1, min(wanted, pairs // _LEAST_SHARD_PAIRS))


def _scatter(pairs: NDArray[np.void], by: str, shards: int) -> Iterator[tuple[Shard, bytes]]:
    for number, rows in graph.shard_rows(pairs[by], shards):
        yield from _chunks(Shard(number, shards), pairs[rows])


def _chunks(shard: Shard, pairs: NDArray[np.void]) -> Iterator[tuple[Shard, bytes]]:
    for start in range(0, len(pairs), _PACKED):
        yield shard, pairs[start : start + _PACKED].tobytes()


def _joined(parts: Iterable[bytes]) -> NDArray[np.void]:
    return np.frombuffer(b"".join(parts), graph.PAIR)


class _RouteDoFn(beam.DoFn):
    """Sends all candidates to one worker, or all to their shards."""

    def __init__(self, max_pairs: int) -> None:
        self.max_pairs = max_pairs

    def start_bundle(self) -> None:
        self.pairs = 0

    def process(
        self, packed: PackedCandidates, sizes: Iterable[int]
    ) -> Iterator[
        tuple[int, PackedCandidates]
        | TaggedOutput[Literal["arcs"], tuple[Shard, bytes]]
        | TaggedOutput[Literal["sharded"], tuple[Shard, PackedCandidates]]
    ]:
        self.pairs = self.pairs or sum(sizes)
        if self.pairs <= self.max_pairs:
            yield 0, packed
            return
        shards = shard_count(self.pairs, self.max_pairs)
        rows = np.frombuffer(packed.rows, ROW)
        for number, of_shard in graph.shard_rows(rows["a"], shards):
            part = PackedCandidates(packed.generators, rows[of_shard].tobytes())
            yield TaggedOutput("sharded", (Shard(number, shards), part))
        for arcs in _scatter(graph.both_ways(graph.spanning_stars(rows)), "a", shards):
            yield TaggedOutput("arcs", arcs)


def _large_star(shard: tuple[Shard, Iterable[bytes]]) -> Iterator[tuple[Shard, bytes]]:
    return _scatter(graph.large_star(_joined(shard[1])), "a", shard[0].shards)


def _small_star(shard: tuple[Shard, Iterable[bytes]]) -> Iterator[tuple[Shard, bytes]]:
    links = graph.small_star(_joined(shard[1]))
    return _scatter(graph.both_ways(links), "a", shard[0].shards)


def _settle(
    shard: tuple[Shard, Iterable[bytes]],
) -> Iterator[tuple[Shard, bytes] | TaggedOutput[Literal["rest"], tuple[Shard, bytes]]]:
    """Send leaves to the shards of what they hang on, and the rest to one worker."""
    leaves, rest = graph.settle(_joined(shard[1]))
    yield from _scatter(leaves, "b", shard[0].shards)
    one = Shard(0, shard[0].shards)
    # Empty, but there: the worker that finishes also says that there were rounds.
    for part in _chunks(one, rest) if len(rest) else [(one, b"")]:
        yield TaggedOutput("rest", part)


def _held(parts: Iterable[bytes], max_pairs: int) -> NDArray[np.void]:
    """Join links, as few as connect the same, and refuse more than one worker may hold."""
    held: list[NDArray[np.void]] = []
    for part in parts:
        held.append(_joined([part]))
        if sum(map(len, held)) > 2 * max_pairs:
            held = [_bounded(np.concatenate(held), max_pairs)]
    return _bounded(np.concatenate(held), max_pairs)


def _bounded(links: NDArray[np.void], max_pairs: int) -> NDArray[np.void]:
    links = graph.spanning_stars(links)
    if len(links) > max_pairs:
        raise ValueError(
            f"at least {len(links)} pairs of contents are still to be joined after {_ROUNDS} "
            f"rounds, more than max_pairs_in_memory={max_pairs!r}; raise it, by about as much "
            "as a worker has memory for"
        )
    return links


class _FinishDoFn(beam.DoFn):
    """Labels by one worker what the rounds have not turned into stars."""

    def __init__(self, max_pairs: int) -> None:
        self.max_pairs = max_pairs

    def process(
        self, rest: tuple[Shard, Iterable[bytes]], sizes: Iterable[int]
    ) -> Iterator[tuple[Shard, bytes] | TaggedOutput[Literal["caps"], Cap]]:
        note = f"pairs, too many for one worker, went through {_ROUNDS} rounds"
        cap = Cap(STAGE, "max_pairs_in_memory", self.max_pairs, sum(sizes), note)
        yield TaggedOutput("caps", cap)
        links = _held(rest[1], self.max_pairs)
        if len(links):
            note = f"pairs that {_ROUNDS} rounds left over were joined by one worker"
            cap = Cap(STAGE, "component_rounds", _ROUNDS, len(links), note)
            yield TaggedOutput("caps", cap)
            yield from _scatter(graph.label_pairs(links), "a", rest[0].shards)


def _resolve(
    shard: tuple[Shard, dict[str, list[bytes]]],
) -> Iterator[tuple[Shard, bytes]]:
    leaves, labels = _joined(shard[1]["leaf"]), _joined(shard[1]["label"])
    return _scatter(graph.resolve(leaves, labels), "a", shard[0].shards)


def _label_all(gathered: tuple[int, Iterable[PackedCandidates]]) -> Iterator[_Labelled]:
    blocks = list(gathered[1])
    rows = np.frombuffer(b"".join(block.rows for block in blocks), ROW)
    yield from _labelled(blocks, rows, graph.label_pairs(rows))


def _label_shard(shard: tuple[Shard, dict[str, list[Any]]]) -> Iterator[_Labelled]:
    blocks = shard[1]["candidates"]
    rows = np.frombuffer(b"".join(block.rows for block in blocks), ROW)
    yield from _labelled(blocks, rows, _joined(shard[1]["label"]))


def _labelled(
    blocks: list[PackedCandidates], rows: NDArray[np.void], labels: NDArray[np.void]
) -> Iterator[_Labelled]:
    """Yield the candidates of blocks, whose ``rows`` are given joined, and the members."""
    for start in range(0, len(labels), _PACKED):
        yield TaggedOutput("members", labels[start : start + _PACKED].tobytes())
    names, component = graph.index_ids(labels["b"])
    component = component[graph.find_ids(labels["a"], rows["a"])]
    ends = np.cumsum([size(block) for block in blocks])
    for generators in sorted({block.generators for block in blocks}):
        own = [block.generators == generators for block in blocks]
        chosen = np.flatnonzero(np.repeat(own, np.diff(ends, prepend=0)))
        chosen = chosen[np.argsort(component[chosen], kind="stable")]
        numbers, starts = np.unique(component[chosen], return_index=True)
        for number, some in zip(numbers.tolist(), np.split(chosen, starts[1:]), strict=True):
            for part in pack_rows(generators, rows[some]):
                yield names[number].tobytes(), part


@dataclasses.dataclass(eq=False)
class PartitionCandidates(beam.PTransform):
    """Label candidates with their connected component, which decides nothing but who works.

    Takes a PCollection of packed candidates, or a tuple of several.

    Attributes:
        max_pairs_in_memory: candidates that one worker labels, at least 1; about 400 bytes each.
            More go through rounds in shards of about that size, and what those leave to one worker
            must be no more than that.
    """

    max_pairs_in_memory: int = MAX_PAIRS_IN_MEMORY

    def __post_init__(self) -> None:
        super().__init__()
        if self.max_pairs_in_memory < 1:
            raise ValueError(
                f"max_pairs_in_memory must be at least 1, not {self.max_pairs_in_memory!r}"
            )

    @several_outputs
    def expand(
        self,
        candidates: beam.PCollection[PackedCandidates]
        | tuple[beam.PCollection[PackedCandidates], ...],
    ) -> Components:
        """Key candidates by component, and name the component of every content in a pair."""
        several = candidates if isinstance(candidates, tuple) else (candidates,)
        packed = several | "All packed" >> beam.Flatten()
        sizes = packed | "Count packed" >> beam.Map(size).with_output_types(int)
        routed = packed | "Route by size" >> (
            beam.ParDo(_RouteDoFn(self.max_pairs_in_memory), AsIter(sizes))
            .with_output_types(
                tuple[int, PackedCandidates],
                arcs=tuple[Shard, bytes],
                sharded=tuple[Shard, PackedCandidates],
            )
            .with_outputs("arcs", "sharded", main="gathered")
        )
        alone = (
            routed.gathered | "Gather" >> beam.GroupByKey() | "Label all" >> _labelling(_label_all)
        )
        labels, caps = self._rounds(routed.arcs, sizes)
        sharded = (
            {"label": labels, "candidates": routed.sharded}
            | "Join labels" >> JoinByKey(Shard, {"label": bytes, "candidates": PackedCandidates})
            | "Label shard" >> _labelling(_label_shard)
        )
        return Components(
            (alone.candidates, sharded.candidates) | "All candidates" >> beam.Flatten(),
            (alone.members, sharded.members) | "All members" >> beam.Flatten(),
            caps,
        )

    def _rounds(
        self, arcs: beam.PCollection[tuple[Shard, bytes]], sizes: beam.PCollection[int]
    ) -> tuple[beam.PCollection[tuple[Shard, bytes]], beam.PCollection[Cap]]:
        """Turn arcs by shard into (id, component) pairs by shard."""
        pairs = tuple[Shard, bytes]
        for number in range(1, _ROUNDS + 1):
            arcs = (
                arcs
                | f"Group arcs {number}" >> beam.GroupByKey()
                | f"Large-star {number}" >> beam.FlatMap(_large_star).with_output_types(pairs)
                | f"Group links {number}" >> beam.GroupByKey()
                | f"Small-star {number}" >> beam.FlatMap(_small_star).with_output_types(pairs)
            )
        settled = (
            arcs
            | "Group settled" >> beam.GroupByKey()
            | "Settle"
            >> (
                beam.FlatMap(_settle)
                .with_output_types(pairs, rest=pairs)
                .with_outputs("rest", main="leaves")
            )
        )
        finished = (
            settled.rest
            | "Gather rest" >> beam.GroupByKey()
            | "Finish"
            >> (
                beam.ParDo(_FinishDoFn(self.max_pairs_in_memory), AsIter(sizes))
                .with_output_types(pairs, caps=Cap)
                .with_outputs("caps", main="labels")
            )
        )
        labels = (
            {"leaf": settled.leaves, "label": finished.labels}
            | "Join rest" >> JoinByKey(Shard, {"leaf": bytes, "label": bytes})
            | "Resolve" >> beam.FlatMap(_resolve).with_output_types(pairs)
        )
        return labels, finished.caps


def _labelling(label: Any) -> Any:
    return (
        beam.FlatMap(label)
        .with_output_types(tuple[bytes, PackedCandidates], members=bytes)
        .with_outputs("members", main="candidates")
    )


def _starts(members: bytes) -> bytes:
    """Return the first bytes of the ids of packed members."""
    return np.frombuffer(members, np.uint64).reshape(-1, graph.PAIR.itemsize // 8)[:, 0].tobytes()


class _SpreadDoFn(beam.DoFn):
    """Unpacks members where they are too many for a worker to hold."""

    def __init__(self, max_members: int) -> None:
        self.max_members = max_members

    def start_bundle(self) -> None:
        self.members = 0

    def process(self, packed: bytes, starts: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        self.members = self.members or len(_numbers(starts))
        if self.members > self.max_members:
            yield from _PAIR_FORMAT.iter_unpack(packed)


class _KeyDoFn(beam.DoFn):
    """Keys contents by component, or drops lone ones before the others cross the shuffle."""

    def __init__(self, max_members: int) -> None:
        self.max_members = max_members

    def start_bundle(self) -> None:
        self.held: list[Content] = []
        self.starts: NDArray[np.uint64] | None = None
        self.components: dict[bytes, bytes] | None = None

    def process(
        self, content: Content, starts: Iterable[bytes], members: Iterable[bytes]
    ) -> Iterator[tuple[bytes, Content] | TaggedOutput[Literal["unkeyed"], tuple[bytes, Content]]]:
        if self.starts is None:
            self.starts = np.sort(_numbers(starts))
            if len(self.starts) <= self.max_members:
                self.components = dict(_PAIR_FORMAT.iter_unpack(b"".join(members)))
        if self.components is not None:
            yield from _keyed(content, self.components.get(content.content))
            return
        self.held.append(content)
        if len(self.held) == _HELD:
            for needed in self._needed():
                yield TaggedOutput("unkeyed", needed)

    def finish_bundle(self) -> Iterator[TaggedOutput[Literal["unkeyed"], WindowedValue]]:
        for needed in self._needed():
            yield TaggedOutput("unkeyed", in_global_window(needed))

    def _needed(self) -> Iterator[tuple[bytes, Content]]:
        held, self.held = self.held, []
        if not held or self.starts is None:
            return
        starts = _numbers(content.content[:_START_BYTES] for content in held)
        first = np.searchsorted(self.starts, starts, "left")
        paired = first < np.searchsorted(self.starts, starts, "right")
        for content, in_pair in zip(held, paired.tolist(), strict=True):
            if in_pair or content.copies > 1:
                yield content.content, content


def _numbers(starts: Iterable[bytes]) -> NDArray[np.uint64]:
    return np.frombuffer(b"".join(starts), np.uint64)


def _keyed(content: Content, component: bytes | None) -> Iterator[tuple[bytes, Content]]:
    if component is not None or content.copies > 1:
        yield component or content.content, content


def _key(joined: tuple[bytes, dict[str, list[Any]]]) -> Iterator[tuple[bytes, Content]]:
    component = next(iter(joined[1]["component"]), None)
    for content in joined[1]["content"]:
        yield from _keyed(content, component)


@dataclasses.dataclass(eq=False)
class KeyByComponent(beam.PTransform):
    """Key contents in some pair by its component, and exact copies in none by themselves.

    Attributes:
        members: content id and component of every content that is in some pair, ``PAIR`` [n].
        max_members_in_memory: members that each worker holds, about 230 bytes each; more are joined
            with the contents.
    """

    members: beam.PCollection[bytes]
    max_members_in_memory: int = MAX_MEMBERS_IN_MEMORY

    def __post_init__(self) -> None:
        super().__init__()
        if self.max_members_in_memory < 0:
            raise ValueError(
                f"max_members_in_memory must not be negative, not {self.max_members_in_memory!r}"
            )

    @several_outputs
    def expand(
        self, contents: beam.PCollection[Content]
    ) -> tuple[beam.PCollection[tuple[bytes, Content]], ...]:
        """Turn contents into contents keyed by component, of which one collection is empty."""
        most = self.max_members_in_memory
        starts = AsIter(self.members | "Take starts" >> beam.Map(_starts).with_output_types(bytes))
        out = contents | "Key contents" >> (
            beam.ParDo(_KeyDoFn(most), starts, AsIter(self.members))
            .with_output_types(tuple[bytes, Content], unkeyed=tuple[bytes, Content])
            .with_outputs("unkeyed", main="keyed")
        )
        spread = self.members | "Spread members" >> beam.ParDo(
            _SpreadDoFn(most), starts
        ).with_output_types(tuple[bytes, bytes])
        joined = (
            {"content": out.unkeyed, "component": spread}
            | "Join members" >> JoinByKey(bytes, {"content": Content, "component": bytes})
            | "Key by component" >> beam.FlatMap(_key).with_output_types(tuple[bytes, Content])
        )
        return out.keyed, joined
