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

from transforms.models.spec import GlobalModel


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
