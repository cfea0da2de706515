"""What a file of TorchScript or ONNX does not say about itself: a JSON file beside it.

``PATH.json`` is an object with any of the keys of ``KEYS``. Without it a picture is prepared as for
most classifiers of ImageNet: the shorter side becomes 224 pixels, the middle square is
taken, and the mean and the deviation of ImageNet are taken off.
"""

import dataclasses
import json
from typing import Any, Final, Optional

from transforms.imaging.preparation import Preparation
from transforms.models.network import Network, dimensions_of
from transforms.models.spec import GlobalModel, ModelError, Weights

__all__ = ["KEYS", "Sidecar", "model_of", "read_sidecar"]

_SIDE: Final = 224
_PREPARATION: Final = ("resize", "crop", "mode", "interpolation", "mean", "std")
KEYS: Final = (*_PREPARATION, "output", "reject_similarity", "propose_similarity")
_SOURCE: Final = "none known: stage 3 rejects nothing; calibrate with evaluate"
_MOST_BYTES: Final = 1 << 16


@dataclasses.dataclass(frozen=True)
class Sidecar:
    """What is known of a model beside its file.

    Attributes:
        preparation: what it takes.
        output: name of the output that is its vector; empty for the first or only one.
        reject_similarity: see ``GlobalModel``; 0 rejects nothing.
        propose_similarity: see ``GlobalModel``.
        threshold_source: where the two come from.
    """

    preparation: Preparation
    output: str = ""
    reject_similarity: float = 0.0
    propose_similarity: float = 0.9
    threshold_source: str = _SOURCE


def read_sidecar(path: str, side: Optional[int] = None) -> Sidecar:
    """Read what is said of a model.

    Args:
        path: of the model; the file beside it has ``.json`` behind that name, and may be missing.
        side: pixels that the model is known to take; None if it may be any number.

    Raises:
        ModelError: the file is not what it should be; the message names it.
    """
    beside = f"{path}.json"
    try:
        found = _parse(beside)
        crop = found.get("crop", side or min(_SIDE, found.get("resize", _SIDE)))
        if side is not None and crop != side:
            raise ValueError(f"crop is {crop!r}, but the model takes {side!r} pixels")
        ways = {key: found[key] for key in _PREPARATION if key in found}
        preparation = Preparation(**{"resize": crop, **ways, "crop": crop})
    # The last two: whole numbers above every float, and brackets in brackets without end.
    except (OSError, ValueError, OverflowError, RecursionError) as error:
        raise ModelError(f"{beside!r} is refused: {error}") from error
    sources = [key for key in ("reject_similarity", "propose_similarity") if key in found]
    return Sidecar(
        preparation,
        found.get("output", ""),
        found.get("reject_similarity", 0.0),
        found.get("propose_similarity", 0.9),
        f"{beside}: {', '.join(sources)}" if sources else _SOURCE,
    )


def model_of(
    name: str, family: str, weights: Weights, known: Sidecar, network: Network
) -> GlobalModel:
    """Return the model of a file that says nothing about itself.

    Args:
        name: as the user gave it.
        family: the module that loads it.
        weights: the file.
        known: of the model, beside its file.
        network: the file, loaded; it is run to learn its dimensions.

    Raises:
        ModelError: it gives no vectors for pictures.
    """
    return GlobalModel(
        name=name,
        family=family,
        variant=known.output,
        weights=weights,
        preparation=known.preparation,
        dimensions=dimensions_of(network, known.preparation, weights.path),
        reject_similarity=known.reject_similarity,
        propose_similarity=known.propose_similarity,
        threshold_source=known.threshold_source,
    )


def _parse(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_MOST_BYTES))
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict):
        raise ValueError("it holds no JSON object")
    for key, value in found.items():
        if key not in KEYS:
            raise ValueError(f"there is no key {key!r}, but {', '.join(KEYS)}")
        found[key] = _checked(key, value)
    return found


def _checked(key: str, value: Any) -> Any:
    if key in ("resize", "crop"):
        if type(value) is not int:
            raise ValueError(f"{key} must be a whole number of pixels, not {value!r}")
        return value
    if key in ("mode", "interpolation", "output"):
        if not isinstance(value, str):
            raise ValueError(f"{key} must be a text, not {value!r}")
        return value
    if key in ("mean", "std"):
        if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
            raise ValueError(f"{key} must be three numbers, not {value!r}")
        return tuple(float(one) for one in value)
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{key} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _is_number(value: Any) -> bool:
    # JSON as Python reads it knows NaN and Infinity; true is no number to a person.
    return type(value) in (int, float) and abs(value) < float("inf")
