"""The networks of global models: what a family's module gives, and how one is loaded.

Each family (clip, efficientnet, torchscript, onnx) is a module of this package with two functions:

- ``resolve(text, finder) -> GlobalModel``: on the client, of what follows the family's name in
  ``--global_model``; raises ``ModelError``.
- ``load(model, device) -> Network``: on a worker; raises ``ModelError`` with the path.
"""

import importlib
from typing import Protocol

import numpy as np
import numpy.typing as npt

from transforms.imaging.errors import one_line
from transforms.imaging.preparation import Preparation
from transforms.models.spec import GlobalModel, ModelError, Weights


class Network(Protocol):
    """A loaded network."""

    size_bytes: int  # of its parameters in memory

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return vectors of any length for prepared pictures.

        Args:
            pixels: uint8 [n, crop, crop, 3] RGB, n at least 1.

        Returns:
            float32 [n, d].

        Raises:
            Exception: whatever the library raises; nothing is caught here.
        """
        ...


def load_network(model: GlobalModel, device: str) -> Network:
    """Load a learned model.

    Args:
        model: of ``resolve``.
        device: cpu or cuda:N.

    Raises:
        ModelError: the file is missing, is another than on the client, or does not fit the model.
    """
    family = importlib.import_module(f"transforms.models.{model.family}")
    network: Network = family.load(model, device)
    return network


def needs_of(model: GlobalModel) -> tuple[Weights, Preparation]:
    """Return the weights and the preparation of a learned model, which has both."""
    if model.weights is None or model.preparation is None:
        raise ValueError(f"model {model.name!r} has no weights or no preparation")
    return model.weights, model.preparation


def dimensions_of(network: Network, preparation: Preparation, path: str) -> int:
    """Run a network on two grey pictures, to learn what it gives.

    Args:
        network: of a file that says nothing about itself.
        preparation: what it shall take.
        path: of the file.

    Returns:
        The length of a vector.

    Raises:
        ModelError: it refuses such a batch, or gives no vector for each.
    """
    side = preparation.crop
    try:
        vectors = network(np.full((2, side, side, 3), 128, np.uint8))
    except Exception as error:  # whatever a program raises that someone else wrote
        raise ModelError(
            f"model {path!r} does not run on float32 [2, 3, {side}, {side}]: {told_by(error)}"
        ) from error
    if vectors.ndim != 2 or len(vectors) != 2 or not vectors.shape[1]:
        raise ModelError(f"model {path!r} gives {list(vectors.shape)} for 2 pictures, not [2, d]")
    return int(vectors.shape[1])


def told_by(error: Exception) -> str:
    """Return an error of a library as one line: its last, below what TorchScript traces."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {one_line(lines[-1])}"
