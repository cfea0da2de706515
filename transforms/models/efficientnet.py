"""EfficientNet (M. Tan, Q. Le, ICML 2019) as torchvision has it: what its classifier would see.

``efficientnet_b0`` to ``efficientnet_b7`` take fetched weights, ``efficientnet_b7:PATH`` a file.
The vector is the mean of the last features over the picture: 1,280 (b0) to 2,560 (b7) values.
"""

from collections import OrderedDict
from typing import Any, Final

import torch
from torchvision.models import get_model, get_model_weights
from torchvision.transforms import InterpolationMode

from transforms.imaging.preparation import Preparation
from transforms.models.network import Network, needs_of
from transforms.models.spec import GlobalModel, ModelError
from transforms.models.torch_network import TorchNetwork, build, check_fit, fill
from transforms.models.weights import Finder, check, read_state_dict

__all__ = ["load", "resolve"]

# imagededup takes features of this kind for copies from a cosine of 0.9 on (its class CNN, README);
# nobody has published below which cosine no pair is a copy, so this is a third of that.
_PROPOSE: Final = 0.9
_REJECT: Final = 0.3
_INTERPOLATIONS: Final = {
    InterpolationMode.BILINEAR: "bilinear",
    InterpolationMode.BICUBIC: "bicubic",
}
_SOURCE: Final = (
    "propose: imagededup's default for CNN features (MobileNetV3); reject: assumed, a third of it"
)


def resolve(text: str, finder: Finder) -> GlobalModel:
    """Return the model that ``efficientnet_b7`` or ``efficientnet_b7:PATH`` names.

    Args:
        text: the option's value.
        finder: of weights.

    Raises:
        ModelError: the weights are missing, are refused, or are those of another network.
    """
    name, separator, path = text.partition(":")
    if separator and not path:
        raise ModelError(f"{name} needs a file, as in {name}:PATH, or none, not {text!r}")
    weights = finder.file(path) if path else finder.known(name)
    whole: Any = build(lambda: get_model(name, weights=None))
    check_fit(_without_classifier(whole), _features(weights.path), weights.path, name)
    return GlobalModel(
        name=text,
        family="efficientnet",
        variant=name,
        weights=weights,
        preparation=_preparation(name, weights.sha256),
        dimensions=whole.classifier[-1].in_features,
        reject_similarity=_REJECT,
        propose_similarity=_PROPOSE,
        threshold_source=_SOURCE,
    )


def load(model: GlobalModel, device: str) -> Network:
    """Load a model of ``resolve``, see ``network``."""
    weights, preparation = needs_of(model)
    state = _features(check(weights))
    module = fill(
        lambda: _without_classifier(get_model(model.variant, weights=None)),
        state,
        weights.path,
        model.variant,
    )
    return TorchNetwork(module, preparation, device)


def _without_classifier(whole: Any) -> torch.nn.Module:
    parts = OrderedDict(features=whole.features, pool=whole.avgpool, flatten=torch.nn.Flatten(1))
    return torch.nn.Sequential(parts)


def _features(path: str) -> dict[str, torch.Tensor]:
    state = read_state_dict(path)
    return {key: value for key, value in state.items() if not key.startswith("classifier.")}


def _preparation(name: str, sha256: str) -> Preparation:
    """Return what torchvision does to pictures for these weights.

    The names of its files end with the first digits of their SHA-256: that tells the two versions
    of efficientnet_b1 apart. Other weights are prepared for as torchvision's newest.
    """
    known: Any = get_model_weights(name)
    same = [one for one in known if one.url.rpartition("-")[2] == f"{sha256[:8]}.pth"]
    own = (same[0] if same else known.DEFAULT).transforms()
    (resize,), (crop,) = own.resize_size, own.crop_size
    return Preparation(
        resize=resize,
        crop=crop,
        interpolation=_INTERPOLATIONS[own.interpolation],
        mean=tuple(own.mean),
        std=tuple(own.std),
    )
