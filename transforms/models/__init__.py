"""Models of stages 3 and 4: Beam ModelHandlers for RunInference, and what they load.

Importing Beam's inference package imports torch where it is installed, so the handlers are loaded
when they are first used. ``spec`` imports neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

from transforms.models.spec import (
    EMBEDDED_DESCRIPTOR,
    ORB,
    Execution,
    GlobalModel,
    Labels,
    LocalModel,
    ModelError,
    Models,
    Weights,
)

if TYPE_CHECKING:
    from transforms.models.descriptor import DescriptorHandler
    from transforms.models.embedder import EmbedderHandler
    from transforms.models.handlers import global_handler, local_handler
    from transforms.models.learned_matcher import LearnedMatcherHandler
    from transforms.models.matcher import MatcherHandler

__all__ = [
    "EMBEDDED_DESCRIPTOR",
    "ORB",
    "DescriptorHandler",
    "EmbedderHandler",
    "Execution",
    "GlobalModel",
    "Labels",
    "LearnedMatcherHandler",
    "LocalModel",
    "MatcherHandler",
    "ModelError",
    "Models",
    "Weights",
    "global_handler",
    "local_handler",
]

_MODULE_OF = {
    "DescriptorHandler": "descriptor",
    "EmbedderHandler": "embedder",
    "LearnedMatcherHandler": "learned_matcher",
    "MatcherHandler": "matcher",
    "global_handler": "handlers",
    "local_handler": "handlers",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
