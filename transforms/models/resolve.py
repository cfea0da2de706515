"""From what a user names to what the pipeline takes, on the client, before anything runs."""

import importlib
import importlib.util
from typing import Final

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
    family = text.partition(":")[0]
    if family not in _GLOBAL:
        raise ModelError(f"global_model must be one of {', '.join(GLOBAL_NAMES)}, not {text!r}")
    name, libraries = _GLOBAL[family]
    _need(text, libraries)
    module = importlib.import_module(f"transforms.models.{name}")
    model: GlobalModel = module.resolve(text, finder)
    return model


def resolve_local(text: str, finder: Finder) -> LocalModel:
    """Return the matcher that ``--local_model`` names; see ``resolve_global``."""
    if text == ORB.name:
        return ORB
    if text == "sift":
        return LocalModel("sift", "sift")
    kind = text.partition(":")[0]
    if kind not in _LOCAL:
        raise ModelError(f"local_model must be one of {', '.join(LOCAL_NAMES)}, not {text!r}")
    name, libraries = _LOCAL[kind]
    _need(text, libraries)
    module = importlib.import_module(f"transforms.models.{name}")
    model: LocalModel = module.resolve(text, finder)
    return model


def _need(text: str, libraries: tuple[str, ...]) -> None:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            f"model {text!r} needs {' and '.join(missing)}: "
            "pip install -c requirements.txt '.[models]'"
        )
