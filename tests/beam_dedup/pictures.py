"""Small pictures for tests of whole jobs, made from a seed."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, seed: int) -> None:
    """Write a PNG of smooth coloured noise, different for every seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC).save(path, "PNG")


def write_folder(folder: Path, pictures: int = 3) -> Path:
    """Write some pictures and an exact copy of the first; return the folder."""
    folder.mkdir()
    for seed in range(pictures):
        write_picture(folder / f"{seed}.png", seed)
    (folder / "copy of 0.png").write_bytes((folder / "0.png").read_bytes())
    return folder
