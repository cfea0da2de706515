"""Embed every content: one more read of each representative, and a global model's vector of it.

In: ``Content``. Out: the same contents with ``learned`` set, for stage 3, for candidates, and for
rows. Guarantee: every content leaves once; one that could not be read, decoded or embedded says so
and has no embedding.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, Optional

import apache_beam as beam
import numpy as np
from apache_beam.ml.inference.base import PredictionResult, RunInference

from transforms.access import LOCAL, Access
from transforms.features import MemberSettings, ReadContentsDoFn, read_input
from transforms.global_features import STAGE, are_unit_vectors
from transforms.imaging.decode import DecodeLimits
from transforms.models.handlers import global_handler
from transforms.models.labels import assign
from transforms.models.spec import EMBEDDED_DESCRIPTOR, Execution, GlobalModel, Labels
from transforms.outputs import several_outputs
from transforms.records import Content, ContentRead, Embedded, Failure, Learned, StageStats
from transforms.telemetry import STATS, MeteredDoFn, report_progress

READ_STAGE = "embeddings"
_MODEL_STAGE = "embed"


class EmbeddedContents(NamedTuple):
    """The outputs of ``EmbedContents``."""

    contents: beam.PCollection[Content]
    stats: beam.PCollection[StageStats]


def learned_of(read: ContentRead, embedded: Embedded, labels: Optional[Labels]) -> Learned:
    """Return what is known of a content after its embedding.

    Args:
        read: the content, with the error of its read, if there was one.
        embedded: of the model.
        labels: of which it gets the likeliest; None for no label.

    Returns:
        The embedding and the label, or the error; error_type ``bad_embedding`` where a value is
        not finite or the vector's length is not 1.
    """
    if read.error_type:
        return _unknown(read.error_stage, read.error_type, read.error_message)
    if embedded.error_type:
        return _unknown(STAGE, embedded.error_type, embedded.error_message)
    if not are_unit_vectors(embedded.vectors, 1):
        message = "the embedding is no finite vector of length 1"
        return _unknown(STAGE, "bad_embedding", message)
    vector = np.frombuffer(embedded.vectors, np.float32)
    name, score = "", 0.0
    if labels is not None:
        name, score = assign(vector, labels)
    return Learned(vector.astype(np.float16).tobytes(), name, score, "", "", "")


def _unknown(stage: str, error_type: str, message: str) -> Learned:
    return Learned(b"", "", 0.0, stage, error_type, message)


def _expect(content: Content) -> Content:
    for stage in (READ_STAGE, _MODEL_STAGE):
        report_progress(stage, 0, 1)
    return content


class _ReadDoFn(ReadContentsDoFn):
    stage = READ_STAGE

    def process(self, content: Content) -> Iterator[ContentRead]:
        yield from self.read_ahead(content)

    def made(self, content: Content, ticket: None, data: bytes) -> ContentRead:
        inputs = read_input(content, data, self.settings, self.limits)
        return ContentRead(content, inputs, "", "", "")

    def failed(self, content: Content, ticket: None, failure: Failure) -> ContentRead:
        return ContentRead(content, b"", failure.stage, failure.error_type, failure.message)


class _LearnDoFn(MeteredDoFn):
    stage = _MODEL_STAGE

    def __init__(self, labels: Optional[Labels]) -> None:
        self.labels = labels

    def process(self, result: PredictionResult) -> Iterator[Content]:
        self.meter.add(result.inference)
        learned = learned_of(result.example, result.inference.value, self.labels)
        self.meter.items_out += bool(learned.embedding)
        self.meter.failed += learned.error_stage == STAGE
        yield result.example.content._replace(learned=learned)


@dataclasses.dataclass(eq=False)
class EmbedContents(beam.PTransform):
    """Give each content the embedding of its representative, and its label.

    Attributes:
        model: what embeds.
        settings: what stage 3 takes of a member, so that it sees the same picture.
        execution: where the model runs.
        labels: names of which each content gets the likeliest; None for none.
        batch_size: the most pictures of one batch.
        limits: what the decoder may spend on one image.
        access: how stores are reached.
    """

    model: GlobalModel = EMBEDDED_DESCRIPTOR
    settings: MemberSettings = dataclasses.field(default_factory=MemberSettings)
    execution: Execution = dataclasses.field(default_factory=Execution)
    labels: Optional[Labels] = None
    batch_size: int = 32
    limits: DecodeLimits = dataclasses.field(default_factory=DecodeLimits)
    access: Access = LOCAL

    def __post_init__(self) -> None:
        super().__init__()
        if self.settings.preparation != self.model.preparation:
            raise ValueError(
                f"settings must have the preparation of model {self.model.name!r}, not "
                f"{self.settings.preparation!r}"
            )

    @several_outputs
    def expand(self, contents: beam.PCollection[Content]) -> EmbeddedContents:
        """Turn contents into contents with ``learned``.

        A shuffle before they are read deals them to the workers, and how many there are is known
        before the first of hours of embedding.
        """
        read = (
            contents
            | "Expect contents" >> beam.Map(_expect).with_output_types(Content)
            | "Spread contents" >> beam.Reshuffle()
            | "Read contents"
            >> beam.ParDo(_ReadDoFn(self.settings, self.limits, self.access))
            .with_output_types(ContentRead, stats=StageStats)
            .with_outputs(STATS, main="read")
        )
        handler = global_handler(self.model, self.execution, self.batch_size)
        learned = (
            read.read
            | "Embed"
            >> RunInference(handler, model_identifier=getattr(handler, "identifier", None))
            | "Learn"
            >> beam.ParDo(_LearnDoFn(self.labels))
            .with_output_types(Content, stats=StageStats)
            .with_outputs(STATS, main="contents")
        )
        stats = (read[STATS], learned[STATS]) | "Statistics" >> beam.Flatten()
        return EmbeddedContents(learned.contents, stats)
