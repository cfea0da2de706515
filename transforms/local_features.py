"""Stage 4: compare local features, through RunInference.

In: ``LocalPair``. Out: an edge with a verdict for each. Guarantee: a pair that the matcher fails
on leaves as ``review`` with the error.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, PredictionResult, RunInference

from transforms.imaging.local import LocalEvidence
from transforms.models.session import Failed
from transforms.outputs import several_outputs
from transforms.records import Edge, LocalPair, StageStats
from transforms.telemetry import STATS, MeteredDoFn

STAGE = "local"


@dataclasses.dataclass(frozen=True)
class LocalThresholds:
    """What stage 4 decides.

    Attributes:
        accept_score: from this score on a pair is accepted, 0..1.
        review_score: from this score on, below ``accept_score``, a pair goes to review, 0..1.
        relations: the relations that count as duplicates; others go to review.
        min_texture: images below this (flat, gradients, near black) agree block by block whatever
            they show; their pairs go to review instead of being accepted.
    """

    accept_score: float
    review_score: float
    relations: frozenset[str]
    min_texture: float = 0.1


class VerifiedLocals(NamedTuple):
    """The outputs of ``VerifyLocals``."""

    edges: beam.PCollection[tuple[bytes, Edge]]  # keyed by component
    stats: beam.PCollection[StageStats]


def judge_local(
    edge: Edge, texture: float, evidence: LocalEvidence, thresholds: LocalThresholds
) -> Edge:
    """Turn the evidence of a pair into its verdict.

    Args:
        edge: of the pair.
        texture: of the end with less information, 0..1.
        evidence: of the local comparison.
        thresholds: what the score decides.

    Returns:
        The edge with scores, relation and verdict.
    """
    score = round(evidence.score, 4)
    if score >= thresholds.accept_score:
        clear = texture >= thresholds.min_texture and evidence.relation in thresholds.relations
        verdict = "accept" if clear else "review"
    elif score >= thresholds.review_score:
        verdict = "review"
    else:
        verdict = "reject"
    return edge._replace(
        local_inliers=evidence.inliers,
        local_overlap=round(evidence.overlap, 4),
        local_score=score,
        relation=evidence.relation,
        derived=evidence.derived,
        verdict=verdict,
        decided_by=STAGE,
    )


class _JudgeDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, thresholds: LocalThresholds) -> None:
        self.thresholds = thresholds

    def process(self, result: PredictionResult) -> Iterator[tuple[bytes, Edge]]:
        pair: LocalPair = result.example
        self.meter.add(result.inference)
        evidence: LocalEvidence | Failed = result.inference.value
        if isinstance(evidence, LocalEvidence):
            edge = judge_local(pair.edge, pair.texture, evidence, self.thresholds)
        else:
            edge = pair.edge._replace(
                verdict="review",
                decided_by=STAGE,
                error_stage=STAGE,
                error_type=evidence.error_type,
                error_message=evidence.message,
                failed_member=pair.edge.a,
            )
        self.meter.items_out += edge.verdict == "accept"
        self.meter.failed += bool(edge.error_type)
        yield pair.component, edge


@dataclasses.dataclass(eq=False)
class VerifyLocals(beam.PTransform):
    """Decide pairs by their local features.

    Attributes:
        handler: takes ``LocalPair``, gives ``LocalEvidence`` or ``Failed``.
        thresholds: what the score decides.
    """

    handler: ModelHandler[LocalPair, PredictionResult, object]
    thresholds: LocalThresholds

    def __post_init__(self) -> None:
        super().__init__()

    @several_outputs
    def expand(self, pairs: beam.PCollection[LocalPair]) -> VerifiedLocals:
        """Turn undecided pairs into edges."""
        out = (
            pairs
            | "Match"
            >> RunInference(
                self.handler, model_identifier=getattr(self.handler, "identifier", None)
            )
            | "Judge"
            >> beam.ParDo(_JudgeDoFn(self.thresholds))
            .with_output_types(tuple[bytes, Edge], stats=StageStats)
            .with_outputs(STATS, main="edges")
        )
        return VerifiedLocals(out.edges, out[STATS])
