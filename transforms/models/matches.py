"""What a learned matcher takes and gives, and how one is loaded.

Each kind (loftr, disk_lightglue) is a module of this package with ``PARTS``, the names of its
files of weights, and two functions:

- ``resolve(text, finder) -> LocalModel``: on the client, of the whole of ``--local_model``; raises
  ``ModelError``.
- ``load(model, device) -> Matcher``: on a worker; raises ``ModelError`` with the path.
"""

import dataclasses
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from transforms.models.spec import LocalModel, ModelError

if TYPE_CHECKING:
    import torch

#: Pixels of a side below which nothing is matched: no cell of such a picture is off its border.
LEAST_SIDE: Final = 32


class View(NamedTuple):
    """A picture as a matcher sees it."""

    key: bytes  # views of one key have the same pixels
    pixels: npt.NDArray[np.uint8]  # [h, w, 3] RGB


class Matches(NamedTuple):
    """Matched points of two views, in pixels; pixel centres lie at whole numbers."""

    a: npt.NDArray[np.float32]  # [n, 2], x and y
    b: npt.NDArray[np.float32]  # [n, 2]
    confidence: npt.NDArray[np.float32]  # [n], 0..1


Pair = tuple[View, View]


class Matcher(Protocol):
    """A loaded matcher."""

    size_bytes: int  # of its parameters in memory

    def __call__(self, pairs: Sequence[Pair]) -> Sequence[Matches]:
        """Return the matches of each pair.

        Raises:
            Exception: whatever the library raises; nothing is caught here.
        """
        ...


@dataclasses.dataclass(frozen=True)
class LoadMatcher:
    """Loads the matcher of a model; equal where the model is."""

    model: LocalModel

    def __call__(self, device: str) -> Matcher:
        """Load it.

        Args:
            device: cpu or cuda:N.

        Raises:
            ModelError: a file is missing, is another than on the client, or does not fit.
        """
        kind = importlib.import_module(f"transforms.models.{self.model.kind}")
        matcher: Matcher = kind.load(self.model, device)
        return matcher


def no_matches() -> Matches:
    """Return the matches of two pictures without any."""
    none = np.zeros((0, 2), np.float32)
    return Matches(none, none, np.zeros(0, np.float32))


def is_tiny(view: View) -> bool:
    """Tell whether a picture is too small to match anything."""
    height, width = view.pixels.shape[:2]
    return bool(min(height, width) < LEAST_SIDE)


def fill(
    network: "torch.nn.Module", state: dict[str, "torch.Tensor"], path: str, what: str
) -> None:
    """Put weights into a network, all that it has; what else the file holds is left.

    Args:
        network: whose parameters and buffers are named as in the file.
        state: of the file.
        path: of the file, for the message.
        what: the network's name, for the message.

    Raises:
        ModelError: the file lacks some, or holds some of another shape.
    """
    try:
        found = network.load_state_dict(state, strict=False)
    except Exception as error:  # PyTorch: RuntimeError for shapes, and others for no tensors
        lines = str(error).strip().splitlines()
        detail = lines[min(1, len(lines) - 1)].strip() if lines else type(error).__name__
        raise ModelError(f"weights {path!r} do not fit {what}: {detail}") from error
    learned = {name for name, _ in network.named_parameters()}
    # What is not learned can be absent, but for the statistics of batch normalisation.
    missing = [name for name in found.missing_keys if name in learned or "running_" in name]
    if missing:
        raise ModelError(
            f"weights {path!r} do not fit {what}: {len(missing)} tensors are missing, "
            f"the first is {missing[0]!r}"
        )


def size_of(network: "torch.nn.Module") -> int:
    """Return the bytes of a network's parameters and buffers."""
    return sum(one.nbytes for one in (*network.parameters(), *network.buffers()))
