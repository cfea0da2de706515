"""From what a user names to what the pipeline takes, on the client, before anything runs."""

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Final

from transforms.models.spec import (
    DESCRIPTOR,
    EMBEDDED_DESCRIPTOR,
    ORB,
    GlobalModel,
    LocalModel,
    ModelError,
)
from transforms.models.weights import Finder

_EFFICIENTNETS: Final = tuple(f"efficientnet_b{size}" for size in range(8))
# What --global_model may begin with, the module that knows it, and the libraries that it needs.
_GLOBAL: Final = {
    "clip": ("clip", ("torch", "open_clip")),
    **dict.fromkeys(_EFFICIENTNETS, ("efficientnet", ("torch", "torchvision"))),
    "sscd": ("torchscript", ("torch",)),
    "torchscript": ("torchscript", ("torch",)),
    "onnx": ("onnx", ("onnxruntime",)),
}
_LOCAL: Final = {
    "loftr": ("loftr", ("torch", "kornia")),
    "disk_lightglue": ("disk_lightglue", ("torch", "kornia")),
}
GLOBAL_NAMES: Final = (DESCRIPTOR, "clip:ARCH/PRETRAINED", "efficientnet_b0..b7", "sscd",
                       "torchscript:PATH", "onnx:PATH")  # fmt: skip
LOCAL_NAMES: Final = ("orb", "sift", *_LOCAL)


def resolve_global(text: str, finder: Finder) -> GlobalModel:
    """Return the model that ``--global_model`` names.

    Args:
        text: the option's value.
        finder: of weights.

    Raises:
        ModelError: there is no such model, a library or the weights are missing, or the weights
            are refused.
    """
    if text == DESCRIPTOR:
        return EMBEDDED_DESCRIPTOR
    model: GlobalModel = _module("global_model", text, _GLOBAL, GLOBAL_NAMES).resolve(text, finder)
    return model


def resolve_local(text: str, finder: Finder) -> LocalModel:
    """Return the matcher that ``--local_model`` names; see ``resolve_global``."""
    if text == ORB.name:
        return ORB
    if text == "sift":
        return LocalModel("sift", "sift")
    model: LocalModel = _module("local_model", text, _LOCAL, LOCAL_NAMES).resolve(text, finder)
    return model


def _module(
    option: str,
    text: str,
    known: Mapping[str, tuple[str, tuple[str, ...]]],
    names: tuple[str, ...],
) -> Any:
    """Return the module that knows a model, once the libraries that it needs are there."""
    family = text.partition(":")[0]
    if family not in known:
        raise ModelError(f"{option} must be one of {', '.join(names)}, not {text!r}")
    name, libraries = known[family]
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"model {text!r} needs {' and '.join(missing)}: "
            "pip install -c requirements.txt '.[models]'"
        )
    return importlib.import_module(f"transforms.models.{name}")
