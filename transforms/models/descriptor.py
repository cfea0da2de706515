"""The embedded global descriptor as a ModelHandler; needs no weights."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from transforms.features import decode_thumbnail
from transforms.imaging.descriptor import embed
from transforms.records import MemberRead, MemberRecord
from transforms.telemetry import Timed


class EmbedMember:
    """The model: a member's record to the record with a float32 vector of length 1."""

    def __call__(self, record: MemberRecord) -> MemberRecord:
        """Embed one member; one whose read failed passes through."""
        if record.error_type:
            return record
        vector = np.asarray(embed(decode_thumbnail(record.thumbnail)), np.float32)
        return record._replace(embedding=vector.tobytes())


class DescriptorHandler(ModelHandler[MemberRead, PredictionResult, EmbedMember]):
    """Embeds freshly read members, each by itself whatever its batch."""

    def __init__(self, batch_size: int) -> None:
        """Take the largest batch, in images, at least 1."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size!r}")
        super().__init__(min_batch_size=batch_size, max_batch_size=batch_size)

    def load_model(self) -> EmbedMember:
        """Return the descriptor."""
        cv2.setNumThreads(1)
        return EmbedMember()

    def run_inference(
        self,
        batch: Sequence[MemberRead],
        model: EmbedMember,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        """Embed a batch.

        Args:
            batch: members.
            model: of ``load_model``.
            inference_args: none are taken.

        Yields:
            Per member, as ``Timed``, the record with its embedding or with the failure.
        """
        for member in batch:
            yield PredictionResult(member, Timed.call(model, member.record))

    def get_metrics_namespace(self) -> str:
        """Name the metrics of stage 3."""
        return "beam_dedup_global"
