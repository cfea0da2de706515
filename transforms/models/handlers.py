"""Which ModelHandler a model of the job gets."""

from typing import Any

from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from transforms.imaging.local import LocalSettings
from transforms.models.descriptor import DescriptorHandler
from transforms.models.matcher import MatcherHandler
from transforms.models.spec import Execution, GlobalModel, LocalModel
from transforms.records import LocalPair


def global_handler(
    model: GlobalModel, execution: Execution, batch_size: int
) -> ModelHandler[Any, PredictionResult, Any]:
    """Return the handler of stage 3.

    Args:
        model: which.
        execution: where it runs.
        batch_size: the most pictures of one batch.
    """
    if not model.is_learned:
        return DescriptorHandler(batch_size)
    from transforms.models.embedder import EmbedderHandler  # imports torch

    return EmbedderHandler(model, execution, batch_size)


def local_handler(
    model: LocalModel, execution: Execution, settings: LocalSettings, batch_size: int, held: int
) -> ModelHandler[LocalPair, PredictionResult, Any]:
    """Return the handler of stage 4.

    Args:
        model: which.
        execution: where it runs.
        settings: what is asked of a pair.
        batch_size: the most pairs of one batch.
        held: members that are held decoded.
    """
    if not model.is_learned:
        return MatcherHandler(settings, batch_size, held)
    from transforms.models.learned_matcher import LearnedMatcherHandler  # imports torch

    return LearnedMatcherHandler(model, execution, settings, batch_size, held)
