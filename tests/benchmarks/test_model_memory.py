"""The benchmark reads memory of processes from outside, and makes copies that need a model."""

import os
import sys
from pathlib import Path

import model_memory
from PIL import Image


def test_memory_is_that_of_the_process() -> None:
    rss, pss = model_memory.memory_of(os.getpid())
    assert rss >= pss > 2**20
    assert model_memory.memory_of(2**22 + 1) == (0, 0)


def test_a_command_is_sampled_with_its_children() -> None:
    inner = "held = bytes(50_000_000) + b'x'; import time; time.sleep(0.5)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}], check=True)"
    peaks, highest = model_memory.sample([sys.executable, "-c", outer])
    assert len(peaks) == 2
    client, worker = peaks.values()
    assert worker[0] > 50_000_000 > client[0]
    assert highest > 50_000_000


def test_each_photograph_has_four_edits(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (200, 100), (90, 80, 70)).save(source / "one.png")
    assert model_memory.make_images(source, tmp_path / "made", 5) == 5
    sizes = {}
    for path in (tmp_path / "made").iterdir():
        with Image.open(path) as image:
            sizes[path.name] = image.size
    assert sizes == {
        "one-whole.jpg": (200, 100),
        "one-framed.jpg": (240, 140),
        "one-boxed.jpg": (200, 100),
        "one-cut1.jpg": (176, 88),
        "one-cut2.jpg": (152, 76),
    }
