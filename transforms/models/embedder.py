"""A learned global model as a ModelHandler: prepared pictures in, vectors of length 1 out."""

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from apache_beam.ml.inference.base import PredictionResult

from transforms.models.learned import LearnedHandler
from transforms.models.network import Network, load_network
from transforms.models.session import Failed, Session
from transforms.models.spec import Execution, GlobalModel
from transforms.records import Embedded, ImageInput
from transforms.telemetry import Timed

_NOTHING = Embedded(b"")


@dataclasses.dataclass(frozen=True)
class LoadNetwork:
    """Loads the network of a model."""

    model: GlobalModel

    def __call__(self, device: str) -> Network:
        """Load it onto a device; see ``load_network``."""
        return load_network(self.model, device)


class EmbedderHandler(LearnedHandler[ImageInput]):
    """Embeds the prepared pictures of each element: ``inputs`` of uint8 [k, crop, crop, 3]."""

    def __init__(self, model: GlobalModel, execution: Execution, batch_size: int) -> None:
        """Take the model.

        Args:
            model: a learned one, with a preparation.
            execution: where it runs.
            batch_size: the most elements of one batch, and the most pictures of one call of the
                model: an element has up to eight, most have one.
        """
        if model.preparation is None:
            raise ValueError(f"model {model.name!r} has no preparation")
        where = f" of {model.weights.path!r}" if model.weights is not None else ""
        super().__init__(LoadNetwork(model), execution, f"{model.name!r}{where}", batch_size)
        self.preparation = model.preparation
        self.dimensions = model.dimensions
        self.batch_size = batch_size

    def run_inference(
        self,
        batch: Sequence[ImageInput],
        model: Session[Any, Any],
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        """Embed a batch.

        Args:
            batch: ``MemberRead`` or ``ContentRead`` elements.
            model: of ``load_model``.
            inference_args: none are taken.

        Returns:
            Per element, as ``Timed``, its ``Embedded``: vectors float32 [k, d] of length 1, or
            why there are none. The time of the batch is shared out evenly.

        Raises:
            ModelError: the model cannot be loaded.
        """
        started = time.time_ns()
        pictures = self._pictures(batch)
        rows: list[npt.NDArray[np.float32] | Failed] = []
        for first in range(0, len(pictures), self.batch_size):
            # To a session an array is a sequence of its rows.
            part = cast("Sequence[Any]", pictures[first : first + self.batch_size])
            rows += model(part)
        found = iter(rows)
        told = model.take()
        embedded = [self._embedded(element, found) for element in batch]
        ended = time.time_ns()
        asked = [element for element in batch if element.inputs]
        self.publish(asked, (ended - started) // 1000, told)
        share = told.cpu_us // len(batch)
        timed = [Timed(one, started // 1000, ended // 1000, share) for one in embedded]
        timed[0] = timed[0]._replace(halvings=told.halvings, batch_limit=told.limit)
        return [PredictionResult(*pair) for pair in zip(batch, timed, strict=True)]

    def get_num_bytes(self, batch: Sequence[ImageInput]) -> int:
        """Return the bytes of the batch's pictures; Beam would pickle all of them to know."""
        return sum(len(element.inputs) for element in batch)

    def get_metrics_namespace(self) -> str:
        """Name the metrics of stage 3."""
        return "beam_dedup_global"

    def _pictures(self, batch: Sequence[ImageInput]) -> npt.NDArray[np.uint8]:
        """Return all pictures of a batch in one array, which may be written to: PyTorch asks."""
        side = self.preparation.crop
        joined = bytearray().join(element.inputs for element in batch)
        return np.frombuffer(joined, np.uint8).reshape(-1, side, side, 3)

    def _embedded(
        self, element: ImageInput, rows: Iterator[npt.NDArray[np.float32] | Failed]
    ) -> Embedded:
        """Take the rows of an element from those of its batch."""
        count = len(element.inputs) // (3 * self.preparation.crop**2)
        if not count:
            return _NOTHING
        own = [next(rows) for _ in range(count)]
        vectors = []
        for row in own:
            if isinstance(row, Failed):
                return Embedded(b"", row.error_type, row.message)
            vectors.append(row)
        return unit_rows(np.stack(vectors), self.dimensions)


def unit_rows(vectors: npt.NDArray[np.float32], dimensions: int) -> Embedded:
    """Return vectors with length 1.

    Args:
        vectors: float32 [k, d].
        dimensions: what d should be; 0 takes any.

    Returns:
        float32 [k, d]; ``bad_embedding`` where a length is 0 or a value not finite.
    """
    if dimensions and vectors.shape[1:] != (dimensions,):
        shape = "x".join(str(side) for side in vectors.shape[1:])
        return Embedded(
            b"", "bad_embedding", f"the model gave {shape} values of a picture, not {dimensions}"
        )
    # In float64 no square of a float32 overflows.
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        return Embedded(b"", "bad_embedding", "the model's vector is 0 or not finite")
    return Embedded((vectors / lengths).astype(np.float32).tobytes())
