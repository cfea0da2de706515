"""What the networks that PyTorch runs have in common: how they get their weights, and how they run.

Weights go into a module that was built without memory, so that a network of a gigabyte needs one,
and no time for random values that nobody sees.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from transforms.imaging.preparation import Preparation
from transforms.models.spec import ModelError

__all__ = ["TorchNetwork", "build", "check_fit", "fill"]

_State = Mapping[str, torch.Tensor]
# Of one call on a CPU: 32 pictures of 224 pixels a side. Larger calls take memory and are no faster
# there, and Linux ends a process that takes too much before PyTorch can say so: EfficientNet-B7
# takes about 134 MB more for each of its pictures, of 600 pixels a side.
_CALL_PIXELS: Final = 32 * 224 * 224


def build(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Build a module of which only names and shapes count.

    Args:
        make: builds it; called with every tensor on PyTorch's meta device.
    """
    with torch.device("meta"):
        return make()


def check_fit(module: torch.nn.Module, state: _State, path: str, name: str) -> None:
    """Check that a file holds exactly the tensors of a module.

    Args:
        module: of ``build``.
        state: tensors by name, of the file.
        path: of the file.
        name: of the network, for the message.

    Raises:
        ModelError: a tensor is missing, is one too many, or has another shape.
    """
    own = module.state_dict()
    faults = {
        "missing": [key for key in own if key not in state],
        "unknown": [key for key in state if key not in own],
        "of another shape": [
            key for key in own if key in state and own[key].shape != state[key].shape
        ],
    }
    told = [f"{len(keys)} {kind} ({keys[0]})" for kind, keys in faults.items() if keys]
    if told:
        raise ModelError(f"weights {path!r} do not fit {name}: of their tensors {', '.join(told)}")


def fill(
    make: Callable[[], torch.nn.Module], state: _State, path: str, name: str
) -> torch.nn.Module:
    """Build a module with the weights of a file; see ``check_fit``.

    Returns:
        The module, on the CPU, in single precision, whatever the file's.
    """
    module = build(make)
    check_fit(module, state, path, name)
    if any(key not in state for key, _ in module.named_buffers()):
        module = make()  # it computes tables that no file holds
    module.load_state_dict(
        {
            key: tensor.float() if tensor.is_floating_point() else tensor
            for key, tensor in state.items()
        },
        assign=True,
    )
    return module


class TorchNetwork:
    """A module on a device, as a ``Network``.

    On a GPU it runs in mixed precision (float16, whose steps are finer than those of bfloat16); a
    batch of which something overflows there runs again in single precision.

    Attributes:
        size_bytes: of its parameters and buffers.
    """

    def __init__(
        self, module: torch.nn.Module, preparation: Preparation, device: str, output: str = ""
    ) -> None:
        """Move a module to its device.

        Args:
            module: takes float32 [n, 3, crop, crop], gives [n, d], a tuple that begins with it, or
                a dict.
            preparation: whose scale of values the module expects.
            device: cpu or cuda:N.
            output: key of what is taken of a dict.
        """
        self._device = torch.device(device)
        self._module = module.eval().to(self._device)
        # Convolutions of libraries run in this order; the batch comes in it as well.
        self._module.to(memory_format=torch.channels_last)
        self._output = output
        scale = torch.tensor([preparation.mean, preparation.std], device=self._device)
        self._mean, self._std = scale.reshape(2, 1, 3, 1, 1)
        tensors = itertools.chain(module.parameters(), module.buffers())
        self.size_bytes = sum(tensor.nbytes for tensor in tensors)

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return vectors for prepared pictures, see ``Network``."""
        if self._device.type != "cpu":
            return self._vectors(pixels)
        several = max(1, _CALL_PIXELS // (pixels.shape[1] * pixels.shape[2]))
        starts = range(0, len(pixels), several)
        return np.concatenate([self._vectors(pixels[start : start + several]) for start in starts])

    def _vectors(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        mixed = self._device.type == "cuda"
        with torch.inference_mode():
            # Bytes travel to the device, and are no more than a quarter of what they become there.
            batch = torch.tensor(pixels).to(self._device).permute(0, 3, 1, 2).float()
            batch = batch.div_(255.0).sub_(self._mean).div_(self._std)
            vectors = self._run(batch, mixed)
            if mixed and not bool(torch.isfinite(vectors).all()):
                vectors = self._run(batch, False)
            return np.asarray(vectors.cpu().numpy(), np.float32)

    def _run(self, batch: torch.Tensor, mixed: bool) -> torch.Tensor:
        with torch.autocast(self._device.type, torch.float16, enabled=mixed):
            given: Any = self._module(batch)
        if isinstance(given, dict):
            given = given[self._output]
        elif isinstance(given, tuple | list):
            given = given[0]
        vectors: torch.Tensor = given.float()
        return vectors
