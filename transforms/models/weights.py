"""Files of weights: where they are, what they must hash to, and how they are read without risk.

A pickle can run code when it is read, so weights are read as safetensors, or by ``torch.load`` with
``weights_only``, which knows tensors alone. TorchScript and ONNX are programs: they are run only
from a path that the user names.
"""

import dataclasses
import hashlib
import os
from typing import TYPE_CHECKING, Any, Optional

from transforms.models.spec import ModelError, Weights

if TYPE_CHECKING:
    import torch


@dataclasses.dataclass(frozen=True)
class Finder:
    """Finds files of weights on the client, before anything runs.

    Attributes:
        cache: the folder of fetched weights.
        accepted: licences that the user accepts beside those that allow any use.
        sha256: what the file must hash to, by the user; None where the user does not say.
    """

    cache: str
    accepted: frozenset[str] = frozenset()
    sha256: Optional[str] = None

    def file(self, path: str) -> Weights:
        """Return a file that the user names.

        Raises:
            ModelError: it is missing, cannot be read, or hashes to something else.
        """
        path = os.path.abspath(path)
        try:
            found = sha256_of(path)
            size = os.path.getsize(path)
        except OSError as error:
            raise ModelError(f"weights {path!r} cannot be read: {error.strerror}") from error
        if self.sha256 is not None and found != self.sha256.lower():
            raise ModelError(f"weights {path!r} have the SHA-256 {found}, not {self.sha256}")
        return Weights(path, found, size)


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(weights: Weights) -> str:
    """Return the path of weights, on a worker, once the file is the one that the client saw.

    Raises:
        ModelError: it is missing there, or is another.
    """
    try:
        found = sha256_of(weights.path)
    except OSError as error:
        raise ModelError(
            f"weights {weights.path!r} cannot be read on this worker: {error.strerror}"
        ) from error
    if found != weights.sha256:
        raise ModelError(
            f"weights {weights.path!r} have the SHA-256 {found} on this worker, not "
            f"{weights.sha256} as on the client"
        )
    return weights.path


def read_state_dict(weights: Weights) -> dict[str, "torch.Tensor"]:
    """Read tensors by name, on a worker, into the memory of the CPU.

    A checkpoint that holds them under ``state_dict`` or ``model`` gives those; the ``module.`` that
    DataParallel puts before every name is taken off.

    Raises:
        ModelError: the file is missing, is another, or holds anything but tensors.
    """
    path = check(weights)
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            found: Any = load_file(path)
        else:
            import torch

            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the library makes of bytes that are no weights
        raise ModelError(
            f"weights {path!r} are refused: {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found:
        raise ModelError(f"weights {path!r} hold no tensors by name")
    return {str(name).removeprefix("module."): tensor for name, tensor in found.items()}
