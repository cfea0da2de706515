"""A model without a library, of the family ``fake``, and others that go wrong in known ways."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from transforms.imaging.preparation import Preparation
from transforms.models.spec import GlobalModel

SIDE = 4
DIMENSIONS = 3
LEARNED = GlobalModel(
    "fake:one", "fake", preparation=Preparation(SIDE, SIDE), dimensions=DIMENSIONS
)


class FakeNetwork:
    """Gives the mean of each channel; 250 and more in the first value is no memory for two."""

    size_bytes = 1234

    def __init__(self, device: str) -> None:
        self.device = device
        self.calls: list[int] = []

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.calls.append(len(pixels))
        first = pixels[:, 0, 0, 0]
        if (first == 251).any():
            raise ValueError("a bad picture\nwith a second line")
        if len(pixels) > 2 and (first == 250).any():
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. "
                               "DefaultCPUAllocator: can't allocate memory")  # fmt: skip
        vectors = pixels.reshape(len(pixels), -1, 3).mean(axis=1, dtype=np.float64)
        vectors[first == 252] = np.nan
        return np.asarray(vectors, np.float32)


class FakeFamily:
    """Stands for the module ``transforms.models.fake``; remembers what was loaded."""

    def __init__(self) -> None:
        self.loaded: list[FakeNetwork] = []

    def load(self, model: GlobalModel, device: str) -> FakeNetwork:
        self.loaded.append(FakeNetwork(device))
        return self.loaded[-1]


@dataclasses.dataclass(frozen=True)
class Loader:
    """Loads ``Doubler``, and counts how often by a list that all loaders of a name have."""

    name: str = "one"
    most: int = 1000
    fault: Any = None

    def __call__(self, device: str) -> "Doubler":
        LOADS.append((self.name, device))
        if self.name == "missing":
            raise OSError("no such file\nat all")
        return Doubler(self.most, self.fault)


LOADS: list[tuple[str, str]] = []


@dataclasses.dataclass
class Doubler:
    """Doubles numbers; raises for more than ``most`` at once, and for those below 0."""

    most: int
    fault: Any
    size_bytes: int = 99

    def __call__(self, items: list[int]) -> list[int]:
        CALLS.append(list(items))
        if len(items) > self.most:
            raise self.fault
        if min(items) < 0:
            raise ValueError(f"{min(items)}\nmore")
        if 13 in items:
            raise MemoryError
        if 666 in items:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return [] if 404 in items else [2 * item for item in items]


CALLS: list[list[int]] = []
