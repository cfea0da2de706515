"""What the handlers of learned models have in common: their session, its name, its metrics."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from transforms.models.session import Session, Told
from transforms.models.spec import Execution

_Example = TypeVar("_Example")


class LearnedHandler(
    ModelHandler[_Example, PredictionResult, Session[Any, Any]], Generic[_Example]
):
    """Runs a learned model on batches of any size up to a bound, as Beam adapts it.

    Beam's own metrics would tell of the session, which is loaded in no time and takes no memory;
    so a subclass calls ``publish`` after each batch, under Beam's names.
    """

    def __init__(
        self,
        loader: Callable[[str], Any],
        execution: Execution,
        name: str,
        batch_size: int,
    ) -> None:
        """Take what is loaded.

        Args:
            loader: see ``Session``.
            execution: where it runs.
            name: of the model, with the path of its weights.
            batch_size: the most elements of one batch, at least 1.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size!r}")
        super().__init__(min_batch_size=1, max_batch_size=batch_size, large_model=execution.shared)
        self.loader = loader
        self.execution = execution
        self.name = name

    @property
    def identifier(self) -> str:
        """Names the model to processes that share it: one of this job in this namespace.

        All steps of a job with this handler name the same. Beam makes file names of it.
        """
        return f"{self.get_metrics_namespace()}-{self.execution.job}"

    def load_model(self) -> Session[Any, Any]:
        """Return the session; the model is loaded when the first batch comes."""
        return Session(self.loader, self.execution, self.name)

    def override_metrics(self, metrics_namespace: str = "") -> bool:
        """Keep Beam from counting what ``publish`` counts."""
        return True

    def publish(self, batch: Sequence[_Example], latency_us: int, told: Told) -> None:
        """Count a batch in Beam's metrics, in the thread of its DoFn.

        Args:
            batch: the elements that the model was asked about.
            latency_us: of the batch, with the load if it was the first.
            told: what the session told after it.
        """
        space = self.get_metrics_namespace()
        values = {}
        if batch:
            Metrics.counter(space, "num_inferences").inc(len(batch))
            values = {
                "inference_request_batch_size": len(batch),
                "inference_request_batch_byte_size": self.get_num_bytes(batch),
                "inference_batch_latency_micro_secs": max(latency_us - 1000 * told.load_ms, 0),
            }
        if told.loads:
            Metrics.counter(space, "models_loaded").inc(told.loads)
            values["model_byte_size"] = told.size_bytes
            values["load_model_latency_milli_secs"] = told.load_ms
        if told.halvings:
            Metrics.counter(space, "out_of_memory_halvings").inc(told.halvings)
        for name, value in values.items():
            Metrics.distribution(space, name).update(value)
