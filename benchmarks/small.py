#!/usr/bin/env python3
"""Time and memory on many small images that this script makes.

    python benchmarks/small.py [--counts 2000,20000] [--workers 1] [--profile balanced] [--seed 1]

Makes COUNT JPEGs of 96 to 160 pixels: smooth random fields with shapes, of which one in ten is a
copy of another (byte for byte, re-encoded, or resized). Runs ``beam-dedup run`` on them as a user
would, and samples the resident memory of each of its processes. Prints machine, seed, wall and CPU
seconds, the peak of each process, and the growth per image between the counts.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

_SAMPLE_EVERY_S = 0.1


def picture(random: np.random.Generator) -> np.ndarray:
    """Return uint8 [h, w, 3]: a coarse random field, smoothed, with some shapes on it."""
    width, height = (int(v) for v in random.integers(96, 161, 2))
    coarse = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        x, y, r = (int(v) for v in random.integers(0, 100, 3))
        colour = tuple(int(v) for v in random.integers(0, 256, 3))
        cv2.circle(field, (x, y), 4 + r // 4, colour, -1)
    return field


def make_images(folder: Path, count: int, seed: int) -> int:
    """Write the images; return how many are copies."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    copies = 0
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        kind = number % 30
        if number and kind in (9, 19, 29):
            source = folder / f"{number - 5:06d}.jpg"
            copies += 1
            if kind == 9:
                shutil.copyfile(source, path)
                continue
            pixels, quality = cv2.imread(str(source)), 60
            if kind == 29:
                pixels = cv2.resize(pixels, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
        else:
            pixels, quality = picture(random), 90
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return copies


def _resident(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    line = next((x for x in status.splitlines() if x.startswith("VmHWM")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


def _children(pid: int) -> list[int]:
    direct = []
    # Beam starts its workers from threads, and a child belongs to the thread that made it.
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct += [int(word) for word in path.read_text(encoding="ascii").split()]
        except OSError:
            continue
    return direct + [inner for child in direct for inner in _children(child)]


def run(folder: Path, output: Path, args: argparse.Namespace) -> dict[str, object]:
    """Run the program once; return what it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    command = [sys.executable, "-m", "beam_dedup", "run", "--input", str(folder)]
    command += ["--output", str(output), "--workers", str(args.workers)]
    command += ["--profile", args.profile, "--quiet"]
    process = subprocess.Popen(command)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for pid in (process.pid, *_children(process.pid)):
            peaks[pid] = max(peaks.get(pid, 0), _resident(pid))
        time.sleep(_SAMPLE_EVERY_S)
    if process.returncode:
        sys.exit(f"beam-dedup ended with {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s": time.monotonic() - started,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peaks": sorted(peaks.values(), reverse=True),
    }


def main() -> None:
    """Make the images, run, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="2000,20000")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--profile", default="balanced")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    counts = [int(word) for word in args.counts.split(",")]
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}; seed {args.seed}; profile {args.profile}; "
        f"workers {args.workers}"
    )
    peak_of = {}
    with tempfile.TemporaryDirectory(prefix="beam-dedup-small-") as name:
        for count in counts:
            folder, output = Path(name, f"in-{count}"), Path(name, f"out-{count}")
            copies = make_images(folder, count, args.seed)
            took = run(folder, output, args)
            summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
            peaks = [f"{peak / 2**20:.0f}" for peak in took["peaks"]]
            peak_of[count] = took["peaks"][0]
            print(
                f"{count} images, {copies} copies: {summary['counts']['duplicate']} duplicates; "
                f"wall {took['wall_s']:.1f} s, CPU {took['cpu_s']:.1f} s "
                f"({1000 * took['cpu_s'] / count:.2f} ms an image), "
                f"peak of each process {', '.join(peaks)} MiB",
                flush=True,
            )
    low, high = min(counts), max(counts)
    if high > low:
        growth = (peak_of[high] - peak_of[low]) / (high - low) / 1000
        print(f"growth of the largest process: {growth:.1f} KB an image")


if __name__ == "__main__":
    main()
