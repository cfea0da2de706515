"""Stage 3: compare global features, computed by RunInference once per member.

In: undecided ``PairUnit`` elements and member records by unit. Out: rejected or reviewed edges, and
``LocalPair`` elements for what stays undecided. Guarantee: a pair leaves by exactly one of the two.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference

from transforms.color import ALIGNED_BITS
from transforms.grouping.units import split_pairs
from transforms.imaging.descriptor import orient
from transforms.joins import JoinByKey
from transforms.outputs import several_outputs
from transforms.records import (
    Edge,
    LocalPair,
    MemberRead,
    MemberRecord,
    PairUnit,
    StageStats,
)
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "global"


class EmbeddedMembers(NamedTuple):
    """The outputs of ``EmbedMembers``."""

    records: beam.PCollection[MemberRecord]
    by_unit: beam.PCollection[tuple[str, MemberRecord]]
    stats: beam.PCollection[StageStats]


class ComparedGlobals(NamedTuple):
    """The outputs of ``CompareGlobals``."""

    edges: beam.PCollection[tuple[bytes, Edge]]  # keyed by component
    undecided: beam.PCollection[LocalPair]
    stats: beam.PCollection[StageStats]


def check_embedding(record: MemberRecord) -> MemberRecord:
    """Turn an embedding that cannot be compared into a failure.

    Args:
        record: with an embedding of float32 [d], or with a failure.

    Returns:
        The record, or one with error_type ``bad_embedding`` where a value is not finite or the
        norm is not 1 (within 1e-3).
    """
    if record.error_type:
        return record
    vector = np.frombuffer(record.embedding, np.float32)
    if (
        vector.size
        and np.isfinite(vector).all()
        and abs(float(np.linalg.norm(vector)) - 1.0) <= 1e-3
    ):
        return record
    return record._replace(
        embedding=b"",
        error_stage="global",
        error_type="bad_embedding",
        error_message="the embedding is not a finite vector of length 1",
    )


class _RouteDoFn(MeteredDoFn):
    stage = "embed"

    def process(
        self, result: PredictionResult
    ) -> Iterator[
        MemberRecord | beam.pvalue.TaggedOutput[Literal["by_unit"], tuple[str, MemberRecord]]
    ]:
        self.meter.add(result.inference)
        # Whatever model made the embedding: one that cannot be compared must not pass for near.
        record = check_embedding(result.inference.value)
        self.meter.failed += record.error_stage == STAGE
        self.meter.items_out += bool(record.embedding)
        yield record
        for unit in result.example.units:
            yield beam.pvalue.TaggedOutput("by_unit", (unit, record))


@dataclasses.dataclass(eq=False)
class EmbedMembers(beam.PTransform):
    """Give each freshly read member its global embedding through RunInference.

    Attributes:
        handler: takes ``MemberRead``, gives ``MemberRecord`` with an embedding.
    """

    handler: ModelHandler[MemberRead, PredictionResult, object]

    def __post_init__(self) -> None:
        super().__init__()

    @several_outputs
    def expand(self, members: beam.PCollection[MemberRead]) -> EmbeddedMembers:
        """Turn read members into embedded records, plain and by unit."""
        out = (
            members
            | "Embed" >> RunInference(self.handler)
            | "Route to units"
            >> beam.ParDo(_RouteDoFn())
            .with_output_types(MemberRecord, by_unit=tuple[str, MemberRecord], stats=StageStats)
            .with_outputs("by_unit", STATS, main="records")
        )
        return EmbeddedMembers(out.records, out.by_unit, out[STATS])


def reviewed(edge: Edge, record: MemberRecord, decided_by: str) -> Edge:
    """Return the edge of a pair one end of which could not be looked at."""
    return edge._replace(
        verdict="review",
        decided_by=decided_by,
        error_stage=record.error_stage,
        error_type=record.error_type,
        error_message=record.error_message,
        failed_member=record.content,
    )


def similarities(edges: list[Edge], records: dict[bytes, MemberRecord]) -> list[float]:
    """Return the cosine similarity of each pair's embeddings, the first one turned.

    Args:
        edges: pairs whose records both have an embedding.
        records: by content id.

    Returns:
        Values in 0..1 (a negative cosine counts as 0), rounded to 4 decimals.
    """
    left = np.array([np.frombuffer(records[e.a].embedding, np.float32) for e in edges])
    right = np.array([np.frombuffer(records[e.b].embedding, np.float32) for e in edges])
    turned = orient(left, np.array([e.orientation for e in edges], np.int8))
    # A product per row, not a matrix product: its rounding does not depend on the batch.
    cosine = (turned.astype(np.float64) * right).sum(axis=1)
    return [round(float(value), 4) for value in np.clip(cosine, 0.0, 1.0)]


def judge_global(edge: Edge, similarity: float, reject_similarity: float) -> Edge:
    """Return an undecided edge with its global similarity, rejected where that is too low.

    Args:
        edge: with its wavelet distance.
        similarity: cosine of the embeddings.
        reject_similarity: cosine below which a pair is rejected.
    """
    edge = edge._replace(global_similarity=similarity)
    # Beyond it the layouts of a copy and its original no longer meet.
    if edge.wavelet_distance <= ALIGNED_BITS and similarity < reject_similarity:
        return edge._replace(verdict="reject", decided_by=STAGE)
    return edge


class _CompareDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, reject_similarity: float, max_group_size_local: int) -> None:
        self.reject_similarity = reject_similarity
        self.max_group_size_local = max_group_size_local

    def process(
        self, joined: tuple[str, dict[str, list[Any]]]
    ) -> Iterator[tuple[bytes, Edge] | beam.pvalue.TaggedOutput[Literal["undecided"], LocalPair]]:
        records: dict[bytes, MemberRecord] = {}
        for name, values in joined[1].items():
            if name != "units":
                records.update((record.content, record) for record in values)
        for unit in joined[1]["units"]:
            yield from self._compare(unit, records)

    def _compare(
        self, unit: PairUnit, records: dict[bytes, MemberRecord]
    ) -> Iterator[tuple[bytes, Edge] | beam.pvalue.TaggedOutput[Literal["undecided"], LocalPair]]:
        usable, settled = [], []
        for edge in unit.pairs:
            failed = next((records[e] for e in (edge.a, edge.b) if records[e].error_type), None)
            if failed is None:
                usable.append(edge)
            else:
                settled.append(reviewed(edge, failed, STAGE))
        left: list[Edge] = []
        with self.meter.work(len(unit.pairs)):
            scores = similarities(usable, records) if usable else []
            for edge, score in zip(usable, scores, strict=True):
                judged = judge_global(edge, score, self.reject_similarity)
                (settled if judged.verdict == "reject" else left).append(judged)
            self.meter.items_out += len(left)
            report_progress("local", 0, len(left))
            self.meter.failed += len(unit.pairs) - len(usable)
        for edge in settled:
            yield unit.component, edge
        # Stage 4 keeps the decoded thumbnails of one such part at a time.
        number = {content.content: index for index, content in enumerate(unit.contents)}
        texture = {content.content: content.texture for content in unit.contents}
        numbered = [(number[edge.a], number[edge.b], edge) for edge in left]
        for part in split_pairs(numbered, len(number), self.max_group_size_local):
            for edge in part:
                yield beam.pvalue.TaggedOutput(
                    "undecided",
                    LocalPair(
                        unit.component,
                        edge,
                        records[edge.a],
                        records[edge.b],
                        min(texture[edge.a], texture[edge.b]),
                    ),
                )


def _by_unit(unit: PairUnit) -> tuple[str, PairUnit]:
    return unit.unit, unit


@dataclasses.dataclass(eq=False)
class CompareGlobals(beam.PTransform):
    """Reject pairs whose global features differ.

    Attributes:
        reject_similarity: cosine below which a pair is rejected, 0..1.
        max_group_size_local: distinct contents of one part of the undecided pairs, at least 2.
        members: the member records by unit; each record is in one of them.
    """

    reject_similarity: float
    members: Sequence[beam.PCollection[tuple[str, MemberRecord]]]
    max_group_size_local: int = 200

    def __post_init__(self) -> None:
        super().__init__()
        if not 0 <= self.reject_similarity <= 1:
            raise ValueError(f"reject_similarity must be in 0..1, not {self.reject_similarity!r}")

    @several_outputs
    def expand(self, units: beam.PCollection[PairUnit]) -> ComparedGlobals:
        """Turn units and their records into edges and pairs for stage 4."""
        keyed = units | "Key by unit" >> beam.Map(_by_unit).with_output_types(tuple[str, PairUnit])
        records = {f"records{number}": some for number, some in enumerate(self.members)}
        types = {"units": PairUnit} | dict.fromkeys(records, MemberRecord)
        out = (
            {"units": keyed, **records}
            | "Join records" >> JoinByKey(str, types)
            | "Compare embeddings"
            >> beam.ParDo(_CompareDoFn(self.reject_similarity, self.max_group_size_local))
            .with_output_types(tuple[bytes, Edge], undecided=LocalPair, stats=StageStats)
            .with_outputs("undecided", STATS, main="edges")
        )
        return ComparedGlobals(out.edges, out.undecided, out[STATS])
