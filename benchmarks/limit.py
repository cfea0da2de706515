#!/usr/bin/env python3
"""Measure the physical limit: the least that a near-duplicate finder can do to each file.

    python benchmarks/limit.py FOLDER

One process and one thread, for each file of the folder: read it, take its SHA-256, decode it to
grey at a quarter of its sides, scale that to 64x64, and take four levels of a Haar transform. What
the program costs is stated as a multiple of this, because it holds across machines. Prints CPU
seconds and milliseconds an image, and how many files OpenCV cannot decode.
"""

import argparse
import hashlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from machine import describe, own

_SIDE, _LEVELS = 64, 4


class Limit(NamedTuple):
    """What the limit took over some files."""

    images: int
    undecoded: int  # Read and hashed, but OpenCV cannot decode them.
    cpu_s: float

    @property
    def ms_an_image(self) -> float:
        """CPU milliseconds an image."""
        return 1000 * self.cpu_s / max(1, self.images)


def haar(pixels: np.ndarray) -> list[np.ndarray]:
    """Return the bands of four levels, finest first, the mean last: float32 arrays."""
    bands = []
    for _ in range(_LEVELS):
        low, high = pixels[0::2] + pixels[1::2], pixels[0::2] - pixels[1::2]
        bands += [low[:, 0::2] - low[:, 1::2], high[:, 0::2] + high[:, 1::2]]
        bands.append(high[:, 0::2] - high[:, 1::2])
        pixels = (low[:, 0::2] + low[:, 1::2]) / 4
    return [*bands, pixels]


def touch(path: Path) -> bool:
    """Do to a file what must be done; return whether it was decoded."""
    data = path.read_bytes()
    hashlib.sha256(data).digest()
    try:
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_GRAYSCALE_4)
    except cv2.error:
        return False
    if grey is None:
        return False
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    haar(small.astype(np.float32))
    return True


def measure(files: Iterable[Path]) -> Limit:
    """Return what the limit takes over the files, in this process."""
    cv2.setNumThreads(1)
    before = time.process_time()
    decoded = [touch(path) for path in files]
    return Limit(len(decoded), decoded.count(False), time.process_time() - before)


def main() -> None:
    """Measure a folder and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    started = time.monotonic()
    print(describe())
    found = measure(sorted(path for path in args.folder.iterdir() if path.is_file()))
    print(
        f"limit: {found.images} images, {found.undecoded} not decoded; CPU {found.cpu_s:.2f} s, "
        f"{found.ms_an_image:.3f} ms an image, {found.images / found.cpu_s:.0f} images a CPU second"
    )
    print(f"the whole process, start-up included: {own(started)}")


if __name__ == "__main__":
    main()
