"""The embedded global descriptor as a ModelHandler; needs no weights."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from transforms.features import decode_thumbnail
from transforms.imaging.descriptor import embed
from transforms.records import Embedded, ImageInput
from transforms.telemetry import Timed


class EmbedThumbnail:
    """The model: a thumbnail to its vector."""

    def __call__(self, image: ImageInput) -> Embedded:
        """Embed one picture; of one that holds none, nothing comes."""
        if not image.inputs:
            return Embedded(b"")
        return Embedded(np.asarray(embed(decode_thumbnail(image.inputs)), np.float32).tobytes())


class DescriptorHandler(ModelHandler[ImageInput, PredictionResult, EmbedThumbnail]):
    """Embeds thumbnails, each by itself whatever its batch."""

    def __init__(self, batch_size: int) -> None:
        """Take the largest batch, in images, at least 1."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size!r}")
        super().__init__(min_batch_size=batch_size, max_batch_size=batch_size)

    def load_model(self) -> EmbedThumbnail:
        """Return the descriptor."""
        cv2.setNumThreads(1)
        return EmbedThumbnail()

    def run_inference(
        self,
        batch: Sequence[ImageInput],
        model: EmbedThumbnail,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        """Embed a batch.

        Args:
            batch: ``MemberRead`` or ``ContentRead`` elements.
            model: of ``load_model``.
            inference_args: none are taken.

        Yields:
            Per element, as ``Timed``, its ``Embedded``.
        """
        for image in batch:
            yield PredictionResult(image, Timed.call(model, image))

    def get_num_bytes(self, batch: Sequence[ImageInput]) -> int:
        """Return the bytes of the batch's thumbnails; Beam would pickle all of it to know."""
        return sum(len(image.inputs) for image in batch)

    def get_metrics_namespace(self) -> str:
        """Name the metrics of stage 3."""
        return "beam_dedup_global"
