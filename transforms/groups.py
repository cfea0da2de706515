"""Stage 5: the walk that groups contents and names the image that is kept.

In: joined components, and the contents that are in none. Out: one ``Decision`` per content that is
in a group of two or more rows or carries an error, the group rows and the edge rows. Guarantee:
every duplicate has equal hashes with, or an accepted edge to, the very image that is kept.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import apache_beam as beam

from transforms.contents import distinct_bytes
from transforms.grouping.rank import deciding_rule
from transforms.grouping.walk import walk
from transforms.outputs import several_outputs
from transforms.records import Content, Decision, Edge, EdgeRow, GroupRow, StageStats
from transforms.rounds import Component, gather, orient, verified
from transforms.telemetry import STATS, MeteredDoFn

STAGE = "groups"
_SWAP_REASONS = {"cropped": "uncropped", "overlaid": "no_overlay", "bordered": "no_border"}


class Elected(NamedTuple):
    """The outputs of ``ElectBest``."""

    decisions: beam.PCollection[Decision]
    groups: beam.PCollection[GroupRow]
    edges: beam.PCollection[EdgeRow]
    stats: beam.PCollection[StageStats]


def group_id(sha256: bytes) -> str:
    """Return the id of the group whose kept image has this SHA-256."""
    return "g" + hashlib.sha256(sha256.hex().encode("ascii")).hexdigest()[:16]


def similarity_of(edge: Edge) -> float:
    """Return the score of the stage that decided an edge, 0..1."""
    if edge.local_overlap is not None:
        return edge.local_overlap
    if edge.global_similarity is not None:
        return edge.global_similarity
    return round(1 - edge.wavelet_distance / 256, 4)


def keep_reason(kept: Content, other: Content, edge: Edge | None) -> str:
    """Name the rule by which one content of a group came before another.

    Args:
        kept: the kept content.
        other: another content of its group.
        edge: the accepted edge between the two.

    Returns:
        A rule of ``grouping.rank``, or ``uncropped``, ``no_overlay`` or ``no_border`` where the
        kept one came first because the other derives from it.
    """
    if edge is not None and kept.rank > other.rank:
        return _SWAP_REASONS.get(edge.relation, "uncropped")
    return deciding_rule(kept.rank, other.rank)


def elect(component: Component) -> tuple[list[Decision], list[GroupRow], list[EdgeRow]]:
    """Group one component's contents.

    Args:
        component: its contents in the keep-best order, and its compared edges.

    Returns:
        Decisions, group rows and edge rows.
    """
    contents = component.contents
    kept = walk(len(contents), verified(component))
    members: dict[int, list[int]] = {}
    for index, keeper in enumerate(kept):
        members.setdefault(keeper, []).append(index)
    leaving = dict.fromkeys(members, 0)
    edges = []
    for (i, j), edge in component.edges.items():
        same = kept[i] == kept[j]
        edges.append(_edge_row(edge, contents[i], contents[j], same))
        if edge.verdict == "accept" and not same:
            leaving[kept[i]] += 1
            leaving[kept[j]] += 1
    errors = _errors(component)
    decisions: list[Decision] = []
    groups = []
    for keeper, group in sorted(members.items()):
        if sum(contents[index].copies for index in group) == 1:
            decisions += [_lone(contents[i], errors[i]) for i in group if i in errors]
            continue
        between = {i: component.edges[min(i, keeper), max(i, keeper)] for i in group if i != keeper}
        decided, row = _decide(contents, keeper, group, between, errors)
        decisions += decided
        groups.append(row._replace(chain_cut=leaving[keeper]))
    return decisions, groups, edges


def _errors(component: Component) -> dict[int, tuple[str, str, str]]:
    number = {content.content: index for index, content in enumerate(component.contents)}
    return {
        number[edge.failed_member]: (edge.error_stage, edge.error_type, edge.error_message)
        for _, edge in sorted(component.edges.items(), reverse=True)
        if edge.error_type
    }


def _decide(
    contents: list[Content],
    keeper: int,
    group: list[int],
    between: dict[int, Edge],
    errors: dict[int, tuple[str, str, str]],
) -> tuple[list[Decision], GroupRow]:
    best = contents[keeper]
    name = group_id(best.sha256)
    size = sum(contents[index].copies for index in group)
    reason = _group_reason(contents, keeper, between)
    occupied = sum(distinct_bytes(contents[index]) for index in group)
    decisions = []
    for index in group:
        content, edge = contents[index], between.get(index)
        error = errors.get(index, (None, None, None))
        decisions.append(
            Decision(
                content=content.content,
                kept=best.content,
                group_id=name,
                group_size=size,
                best_uri=best.uri,
                best_sha256=best.sha256,
                best_size_bytes=best.size_bytes,
                relation=edge.relation if edge else None,
                decided_by=edge.decided_by if edge else None,
                wavelet_distance=edge.wavelet_distance if edge else None,
                color_similarity=edge.color_similarity if edge else None,
                global_similarity=edge.global_similarity if edge else None,
                local_inliers=edge.local_inliers if edge else None,
                local_overlap=edge.local_overlap if edge else None,
                best_rank=best.rank,
                keep_reason=keep_reason(best, content, edge) if edge else reason,
                error_stage=error[0],
                error_type=error[1],
                error_message=error[2],
            )
        )
    least = min((similarity_of(edge) for edge in between.values()), default=1.0)
    row = GroupRow(name, size, best.uri, reason, least, occupied - best.size_bytes, 0)
    return decisions, row


def _group_reason(contents: list[Content], keeper: int, between: dict[int, Edge]) -> str:
    """Name the rule by which the kept image came before the next best image of its group."""
    best = contents[keeper]
    others = sorted(between)  # in the keep-best order
    if best.second_rank and (not others or best.second_rank < contents[others[0]].rank):
        return deciding_rule(best.rank, best.second_rank)
    return keep_reason(best, contents[others[0]], between[others[0]])


def _lone(content: Content, error: tuple[str, str, str]) -> Decision:
    return Decision(
        content.content, content.content, "", 1, content.uri, content.sha256, content.size_bytes,
        None, None, None, None, None, None, None, content.rank, "", *error,
    )  # fmt: skip


def _edge_row(edge: Edge, first: Content, second: Content, same_group: bool) -> EdgeRow:
    a, b = (first, second) if first.uri < second.uri else (second, first)
    return EdgeRow(
        uri_a=a.uri,
        uri_b=b.uri,
        generators=edge.generators,
        wavelet_distance=edge.wavelet_distance,
        orientation=orient(edge.orientation, a.content != edge.a),
        word_votes=edge.votes or None,
        color_similarity=edge.color_similarity,
        layout_similarity=edge.layout_similarity,
        global_similarity=edge.global_similarity,
        local_inliers=edge.local_inliers,
        local_overlap=edge.local_overlap,
        local_score=edge.local_score,
        relation=edge.relation,
        verdict=edge.verdict,
        decided_by=edge.decided_by,
        in_group=same_group and edge.verdict == "accept",
    )


class _ElectDoFn(MeteredDoFn):
    stage = STAGE

    def process(
        self, joined: tuple[bytes, dict[str, list[Any]]]
    ) -> Iterator[
        Decision
        | beam.pvalue.TaggedOutput[Literal["groups"], GroupRow]
        | beam.pvalue.TaggedOutput[Literal["edges"], EdgeRow]
    ]:
        with self.meter.work():
            decisions, groups, edges = elect(gather(joined))
            self.meter.items_out += len(groups)
        yield from decisions
        for group in groups:
            yield beam.pvalue.TaggedOutput("groups", group)
        for edge in edges:
            yield beam.pvalue.TaggedOutput("edges", edge)


@dataclasses.dataclass(eq=False)
class ElectBest(beam.PTransform):
    """Group each component's contents by the walk."""

    def __post_init__(self) -> None:
        super().__init__()

    @several_outputs
    def expand(self, joined: beam.PCollection[tuple[bytes, dict[str, list[Any]]]]) -> Elected:
        """Turn joined components into decisions, group rows and edge rows."""
        out = joined | "Walk" >> (
            beam.ParDo(_ElectDoFn())
            .with_output_types(Decision, groups=GroupRow, edges=EdgeRow, stats=StageStats)
            .with_outputs("groups", "edges", STATS, main="decisions")
        )
        return Elected(out.decisions, out.groups, out.edges, out[STATS])
