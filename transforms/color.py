"""Stage 2: compare colour descriptors, without I/O.

In: ``PairUnit``. Out: edges that colour or the wavelet distance decide, and units of the pairs
that stay undecided. Guarantee: a pair leaves by exactly one of the two; how pairs are batched or
cut into units changes no edge.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal, NamedTuple

import apache_beam as beam
import numpy as np

from transforms.grouping.relations import DUPLICATE_RELATIONS, whole_image_relation
from transforms.grouping.units import split_pairs
from transforms.imaging.color import compare
from transforms.imaging.orientation import axes
from transforms.outputs import several_outputs
from transforms.records import Content, Edge, PairUnit, StageStats
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "color"
ALIGNED_BITS = 60


@dataclasses.dataclass(frozen=True)
class ColorSettings:
    """What stage 2 decides alone.

    Attributes:
        reject_similarity: below this colour similarity a pair is rejected.
        accept_similarity: from this colour similarity on, a pair that is also within
            ``accept_bits`` is accepted.
        accept_bits: Hamming distance of wavelet keys, inclusive.
        min_texture: images below this are low in information and never accepted here.
        verify: whether stages 3 and 4 follow; without them an undecided pair goes to review.
        relations: the relations that count as duplicates; a pair of another goes to review.
        aligned_bits: beyond this distance two copies are no longer aligned as a whole, so their
            colour layout rejects nothing: 14 to 18 % of true pairs there fall below 0.5.
    """

    reject_similarity: float
    accept_similarity: float
    accept_bits: int
    min_texture: float
    verify: bool = True
    relations: frozenset[str] = frozenset(DUPLICATE_RELATIONS)
    aligned_bits: int = ALIGNED_BITS


class ComparedColors(NamedTuple):
    """The outputs of ``CompareColors``."""

    edges: beam.PCollection[tuple[bytes, Edge]]  # keyed by component
    undecided: beam.PCollection[PairUnit]
    stats: beam.PCollection[StageStats]


def judge_colors(
    pairs: list[Edge], contents: dict[bytes, Content], settings: ColorSettings
) -> list[Edge]:
    """Compare the colours of a batch of pairs.

    Args:
        pairs: edges of which the wavelet distance is known.
        contents: by id; holds both ends of every pair.
        settings: what this stage decides.

    Returns:
        The edges with colour similarity and, where one was reached, a verdict, in their order.
    """
    left = np.array([np.frombuffer(contents[p.a].color, np.uint8) for p in pairs])
    right = np.array([np.frombuffer(contents[p.b].color, np.uint8) for p in pairs])
    turns = np.array([p.orientation for p in pairs], np.int8)
    similarity, hints = compare(left, right, turns)
    return [
        _judge(pair, contents[pair.a], contents[pair.b], float(score), bool(hint), settings)
        for pair, score, hint in zip(pairs, similarity, hints, strict=True)
    ]


def _judge(
    edge: Edge, a: Content, b: Content, similarity: float, recoloured: bool, settings: ColorSettings
) -> Edge:
    edge = edge._replace(color_similarity=similarity)
    aligned = edge.wavelet_distance <= settings.aligned_bits
    if aligned and similarity < settings.reject_similarity:
        return edge._replace(verdict="reject", decided_by="color")
    near = edge.wavelet_distance <= settings.accept_bits
    plain = not (a.animated or b.animated) and min(a.texture, b.texture) >= settings.min_texture
    if near and plain and similarity >= settings.accept_similarity:
        size_a = (a.width, a.height)
        size_b = (b.width, b.height)
        if axes(edge.orientation)[0]:
            size_b = size_b[::-1]
        relation = whole_image_relation(edge.orientation, size_a == size_b, recoloured)
        verdict = "accept" if relation in settings.relations else "review"
        return edge._replace(verdict=verdict, decided_by="color", relation=relation)
    if a.animated or b.animated:
        # Near stages see first frames only: two animations that share one are for a person.
        return edge._replace(verdict="review", decided_by="color")
    if settings.verify:
        return edge
    return edge._replace(verdict="review", decided_by="color")


class _CompareDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, settings: ColorSettings, batch_size: int, max_group_size: int) -> None:
        self.settings = settings
        self.batch_size = batch_size
        self.max_group_size = max_group_size

    def process(
        self, unit: PairUnit
    ) -> Iterator[tuple[bytes, Edge] | beam.pvalue.TaggedOutput[Literal["undecided"], PairUnit]]:
        contents = {content.content: content for content in unit.contents}
        edges: list[Edge] = []
        with self.meter.work(len(unit.pairs)):
            for start in range(0, len(unit.pairs), self.batch_size):
                batch = unit.pairs[start : start + self.batch_size]
                edges += judge_colors(batch, contents, self.settings)
        open_edges = [edge for edge in edges if edge.verdict == "undecided"]
        self.meter.items_out += len(open_edges)
        report_progress("global", 0, len(open_edges))
        for edge in edges:
            if edge.verdict != "undecided":
                yield unit.component, edge
        for smaller in split_unit(unit, open_edges, self.max_group_size):
            yield beam.pvalue.TaggedOutput("undecided", smaller)


def split_unit(unit: PairUnit, edges: list[Edge], max_group_size: int) -> Iterator[PairUnit]:
    """Cut a unit's remaining edges into units of at most ``max_group_size`` contents."""
    contents = {content.content: content for content in unit.contents}
    named = {end for edge in edges for end in (edge.a, edge.b)}
    number = {
        content.content: index
        for index, content in enumerate(c for c in unit.contents if c.content in named)
    }
    numbered = [(number[edge.a], number[edge.b], edge) for edge in edges]
    for index, part in enumerate(split_pairs(numbered, len(number), max_group_size)):
        ends = sorted({end for edge in part for end in (edge.a, edge.b)}, key=number.__getitem__)
        yield PairUnit(f"{unit.unit}/{index}", unit.component, [contents[e] for e in ends], part)


@dataclasses.dataclass(eq=False)
class CompareColors(beam.PTransform):
    """Decide by colour what colour can decide.

    Attributes:
        settings: the thresholds.
        batch_size: pairs compared in one call.
        max_group_size: distinct contents of one unit of undecided pairs, at least 2.
    """

    settings: ColorSettings
    batch_size: int = 4096
    max_group_size: int = 500

    def __post_init__(self) -> None:
        super().__init__()
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {self.batch_size!r}")

    @several_outputs
    def expand(self, units: beam.PCollection[PairUnit]) -> ComparedColors:
        """Turn units of pairs into decided edges and units of undecided pairs."""
        out = units | "Compare colours" >> (
            beam.ParDo(_CompareDoFn(self.settings, self.batch_size, self.max_group_size))
            .with_output_types(tuple[bytes, Edge], undecided=PairUnit, stats=StageStats)
            .with_outputs("undecided", STATS, main="edges")
        )
        return ComparedColors(out.edges, out.undecided, out[STATS])
