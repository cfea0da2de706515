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
from numpy.typing import NDArray

from transforms.grouping.units import split_pairs
from transforms.imaging.descriptor import orient
from transforms.joins import JoinByKey
from transforms.outputs import several_outputs
from transforms.records import (
    Edge,
    Embedded,
    LocalPair,
    MemberRead,
    MemberRecord,
    PairUnit,
    StageStats,
)
from transforms.rounds import ALIGNED_BITS
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


@dataclasses.dataclass(frozen=True)
class GlobalSettings:
    """What stage 3 makes of a cosine.

    Attributes:
        reject_similarity: cosine below which a pair is rejected, 0..1.
        learned: whether the embeddings come of a learned model. The descriptor's turn with their
            picture by a permutation, and say nothing of pairs that are not aligned as a whole; a
            learned model has seen each picture in the turns of its pairs, and knows crops too.
    """

    reject_similarity: float
    learned: bool = False

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 <= self.reject_similarity <= 1:
            raise ValueError(f"reject_similarity must be in 0..1, not {self.reject_similarity!r}")


def are_unit_vectors(vectors: bytes, count: int) -> bool:
    """Tell whether an embedding can be compared.

    Args:
        vectors: float32 [count, d].
        count: of vectors.

    Returns:
        False where there is none, a value is not finite, or a norm is not 1 (within 1e-3).
    """
    if not vectors or count < 1 or len(vectors) % (4 * count):
        return False
    rows = np.frombuffer(vectors, np.float32).reshape(count, -1)
    return bool(
        np.isfinite(rows).all() and (np.abs(np.linalg.norm(rows, axis=1) - 1.0) <= 1e-3).all()
    )


def with_embedding(member: MemberRead, embedded: Embedded) -> MemberRecord:
    """Return a member's record with what the model made of its inputs.

    Args:
        member: with its inputs, if any, and the turn of each.
        embedded: of the model.

    Returns:
        The record; one that failed before as it was, and one with error_type ``bad_embedding``
        where a value is not finite or a vector's length is not 1.
    """
    record = member.record
    if record.error_type or (record.embedding and not member.turns):
        return record
    if not embedded.error_type:
        turns = record.turns + member.turns
        vectors = record.embedding + embedded.vectors
        if are_unit_vectors(vectors, len(turns)):
            return record._replace(embedding=vectors, turns=turns)
        embedded = Embedded(b"", "bad_embedding", "the embedding is no finite vector of length 1")
    return record._replace(
        embedding=b"",
        turns=b"",
        error_stage=STAGE,
        error_type=embedded.error_type,
        error_message=embedded.error_message,
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
        record = with_embedding(result.example, result.inference.value)
        self.meter.failed += record.error_stage == STAGE
        self.meter.items_out += bool(record.embedding)
        yield record
        for unit in result.example.units:
            yield beam.pvalue.TaggedOutput("by_unit", (unit, record))


@dataclasses.dataclass(eq=False)
class EmbedMembers(beam.PTransform):
    """Give each freshly read member its global embedding through RunInference.

    Attributes:
        handler: takes ``MemberRead``, gives ``Embedded``.
    """

    handler: ModelHandler[MemberRead, PredictionResult, object]

    def __post_init__(self) -> None:
        super().__init__()

    @several_outputs
    def expand(self, members: beam.PCollection[MemberRead]) -> EmbeddedMembers:
        """Turn read members into embedded records, plain and by unit."""
        out = (
            members
            | "Embed"
            >> RunInference(
                self.handler, model_identifier=getattr(self.handler, "identifier", None)
            )
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


def similarities(
    edges: list[Edge], records: dict[bytes, MemberRecord], *, learned: bool
) -> list[float | None]:
    """Return the cosine similarity of each pair's embeddings, the first one turned.

    Args:
        edges: pairs whose records both have an embedding.
        records: by content id.
        learned: see ``GlobalSettings``.

    Returns:
        Values in 0..1 (a negative cosine counts as 0), rounded to 4 decimals; None where a learned
        model has not seen the first picture in the turn of the pair.
    """
    if not edges:
        return []
    seen = [_turn_of(edge, records[edge.a]) if learned else 0 for edge in edges]
    left = np.array([_row(records[e.a], max(row, 0)) for e, row in zip(edges, seen, strict=True)])
    right = np.array([_row(records[edge.b], 0) for edge in edges])
    if not learned:
        left = orient(left, np.array([e.orientation for e in edges], np.int8))
    # A product per row, not a matrix product: its rounding does not depend on the batch.
    cosine = (left.astype(np.float64) * right).sum(axis=1)
    scores = [round(float(value), 4) for value in np.clip(cosine, 0.0, 1.0)]
    return [score if row >= 0 else None for score, row in zip(scores, seen, strict=True)]


def _turn_of(edge: Edge, record: MemberRecord) -> int:
    """Return which vector of the first picture is in the turn of the pair; -1 if none is."""
    # Beyond it the best of the eight orientations is a matter of chance.
    return record.turns.find(edge.orientation if edge.wavelet_distance <= ALIGNED_BITS else 1)


def _row(record: MemberRecord, row: int) -> NDArray[np.float32]:
    rows = np.frombuffer(record.embedding, np.float32).reshape(len(record.turns), -1)
    return np.asarray(rows[row])


def judge_global(edge: Edge, similarity: float | None, settings: GlobalSettings) -> Edge:
    """Return an undecided edge with its global similarity, rejected where that is too low.

    Args:
        edge: with its wavelet distance.
        similarity: cosine of the embeddings; None where there is none to compare.
        settings: what is too low.
    """
    edge = edge._replace(global_similarity=similarity)
    if similarity is None or similarity >= settings.reject_similarity:
        return edge
    # Beyond it the layouts of a copy and its original no longer meet.
    if settings.learned or edge.wavelet_distance <= ALIGNED_BITS:
        return edge._replace(verdict="reject", decided_by=STAGE)
    return edge


class _CompareDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, settings: GlobalSettings, max_group_size_local: int) -> None:
        self.settings = settings
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
            scores = similarities(usable, records, learned=self.settings.learned)
            for edge, score in zip(usable, scores, strict=True):
                judged = judge_global(edge, score, self.settings)
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
        settings: what a cosine decides.
        members: the member records by unit; each record is in one of them.
        max_group_size_local: distinct contents of one part of the undecided pairs, at least 2.
    """

    settings: GlobalSettings
    members: Sequence[beam.PCollection[tuple[str, MemberRecord]]]
    max_group_size_local: int = 200

    def __post_init__(self) -> None:
        super().__init__()

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
            >> beam.ParDo(_CompareDoFn(self.settings, self.max_group_size_local))
            .with_output_types(tuple[bytes, Edge], undecided=LocalPair, stats=StageStats)
            .with_outputs("undecided", STATS, main="edges")
        )
        return ComparedGlobals(out.edges, out.undecided, out[STATS])
