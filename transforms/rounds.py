"""Plan which candidate pairs the grouping walk needs compared next.

In: the contents, candidates and compared edges of each component. Out: ``PairUnit`` elements, each
naming a bounded number of contents. Guarantee: a pair is asked for once; the last round asks for
every pair that can still change a group, so what is never compared could not matter.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np

from transforms.grouping.hamming import KEY_BYTES, ORIENTATIONS, distances
from transforms.grouping.units import split_pairs
from transforms.grouping.walk import Pair, Verified, plan
from transforms.imaging.orientation import inverse_orientation
from transforms.joins import JoinByKey
from transforms.outputs import several_outputs
from transforms.records import Candidate, Content, Edge, PairUnit, StageStats
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "plan"
STAR = "star"


class Component(NamedTuple):
    """What is known of one component."""

    key: bytes
    contents: list[Content]  # in the keep-best order
    candidates: dict[Pair, Candidate]  # by member numbers i < j
    edges: dict[Pair, Edge]


class Planned(NamedTuple):
    """The outputs of ``PlanComparisons``."""

    units: beam.PCollection[PairUnit]
    stats: beam.PCollection[StageStats]


class ComponentInputs(NamedTuple):
    """Everything known of the components, each keyed by component."""

    contents: beam.PCollection[tuple[bytes, Content]]
    candidates: beam.PCollection[tuple[bytes, Candidate]] | None
    edges: list[beam.PCollection[tuple[bytes, Edge]]]

    def join(self, prefix: str = "") -> beam.PCollection[tuple[bytes, dict[str, list[Any]]]]:
        """Gather each component's contents, candidates and edges."""
        tagged = {"contents": self.contents}
        if self.candidates is not None:
            tagged["candidates"] = self.candidates
        tagged |= {f"edges{number}": edges for number, edges in enumerate(self.edges)}
        kinds = {name: Edge for name in tagged} | {"contents": Content, "candidates": Candidate}
        types = {name: kinds[name] for name in tagged}
        return tagged | f"{prefix}join components" >> JoinByKey(bytes, types)


def gather(joined: tuple[bytes, dict[str, list[Any]]]) -> Component:
    """Number a joined component's members in the keep-best order."""
    key, parts = joined
    contents = sorted(parts["contents"], key=lambda content: content.rank)
    number = {content.content: index for index, content in enumerate(contents)}
    edges: dict[Pair, Edge] = {}
    for name, values in parts.items():
        if name.startswith("edges"):
            edges.update((_pair(number, edge.a, edge.b), edge) for edge in values)
    candidates = {_pair(number, c.a, c.b): c for c in parts.get("candidates", ())}
    return Component(key, contents, candidates, edges)


def _pair(number: dict[bytes, int], a: bytes, b: bytes) -> Pair:
    i, j = number[a], number[b]
    return (i, j) if i < j else (j, i)


def verified(component: Component) -> dict[Pair, Verified]:
    """Return what the walk needs to know of the compared pairs."""
    result = {}
    for (i, j), edge in component.edges.items():
        derived = edge.derived if component.contents[i].content == edge.a else -edge.derived
        result[i, j] = Verified(edge.verdict == "accept", derived)
    return result


def blank_edge(candidate: Candidate) -> Edge:
    """Return the edge of a pair of which only the wavelet distance is known."""
    return Edge(
        a=candidate.a,
        b=candidate.b,
        generators=candidate.generators,
        wavelet_distance=candidate.wavelet_distance,
        orientation=candidate.orientation,
        color_similarity=None,
        global_similarity=None,
        local_inliers=None,
        local_overlap=None,
        local_score=None,
        relation="similar",
        derived=0,
        verdict="undecided",
        decided_by="wavelet",
        error_stage="",
        error_type="",
        error_message="",
        failed_member=b"",
    )


def star_candidate(first: Content, second: Content) -> Candidate:
    """Measure a pair that no generator proposed."""
    left, right = sorted((first, second), key=lambda content: content.content)
    keys = np.frombuffer(left.wavelet_keys, np.uint8).reshape(ORIENTATIONS, KEY_BYTES)
    bits = distances(keys, np.frombuffer(right.wavelet_keys, np.uint8)[:KEY_BYTES])
    best = int(bits.argmin())
    return Candidate(left.content, right.content, STAR, int(bits[best]), best + 1)


def orient(orientation: int, swapped: bool) -> int:
    """Return an edge's orientation as seen from its other end, if ``swapped``."""
    return inverse_orientation(orientation) if swapped else orientation


class _PlanDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, round_number: int, last: bool, max_group_size: int) -> None:
        self.round_number = round_number
        self.last = last
        self.max_group_size = max_group_size

    def process(self, joined: tuple[bytes, dict[str, list[Any]]]) -> Iterator[PairUnit]:
        with self.meter.work():
            component = gather(joined)
            edges = verified(component)
            needed = plan(len(component.contents), component.candidates, edges, last=self.last)
            self.meter.items_out += len(needed)
            report_progress("color", 0, len(needed))
            if self.last:
                asked = sum(not star for _, _, star in needed)
                compared = sum(pair in component.candidates for pair in edges)
                self.meter.skipped += len(component.candidates) - compared - asked
        pairs = [(i, j, (i, j, star)) for i, j, star in needed]
        units = split_pairs(pairs, len(component.contents), self.max_group_size)
        for number, unit in enumerate(units):
            yield self._unit(component, number, unit)

    def _unit(
        self, component: Component, number: int, pairs: list[tuple[int, int, bool]]
    ) -> PairUnit:
        members = sorted({member for i, j, _ in pairs for member in (i, j)})
        return PairUnit(
            unit=f"{component.key.hex()}/{self.round_number}/{number}",
            component=component.key,
            contents=[component.contents[member] for member in members],
            pairs=[
                blank_edge(
                    star_candidate(component.contents[i], component.contents[j])
                    if star
                    else component.candidates[i, j]
                )
                for i, j, star in pairs
            ],
        )


@dataclasses.dataclass(eq=False)
class PlanComparisons(beam.PTransform):
    """Ask for the pairs that the walk needs compared in one round.

    Attributes:
        round_number: 1 for the first.
        last: whether no further round follows.
        max_group_size: distinct contents that one unit of work may name, at least 2.
    """

    round_number: int
    last: bool
    max_group_size: int = 2000

    def __post_init__(self) -> None:
        super().__init__()
        if self.max_group_size < 2:
            raise ValueError(f"max_group_size must be at least 2, not {self.max_group_size!r}")

    @several_outputs
    def expand(self, joined: beam.PCollection[tuple[bytes, dict[str, list[Any]]]]) -> Planned:
        """Turn joined components into units of pairs."""
        out = joined | "Plan" >> (
            beam.ParDo(_PlanDoFn(self.round_number, self.last, self.max_group_size))
            .with_output_types(PairUnit, stats=StageStats)
            .with_outputs(STATS, main="units")
        )
        return Planned(out.units, out[STATS])
