#!/usr/bin/env python3
"""Time and memory on many small images that this script makes.

    python benchmarks/small.py [--counts 2000,20000] [--workers 1] [--profile balanced] [--seed 1]
                               [--photographs FOLDER] [--keep FOLDER]

Makes COUNT JPEGs of 96 to 160 pixels, of which one in ten is a copy of another (byte for byte,
re-encoded, or resized). The others are smooth random fields with discs, as logos, icons and
stickers are; or, with ``--photographs``, random windows of the photographs in a folder, each turned
or mirrored and with a tone of its own. Many windows of few photographs overlap, and those are
copies in truth: then the count of duplicates says nothing. Runs ``beam-dedup run`` on them as a
user would, and samples the resident memory of its processes. Prints machine, seed, wall and CPU
seconds, the peak of the largest process and of all at one time, and the growth per image between
the counts.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from machine import Took, describe, measured

_LEAST_SIDE, _MOST_SIDE = 96, 160  # pixels


def picture(random: np.random.Generator) -> np.ndarray:
    """Return uint8 [h, w, 3]: a coarse random field, smoothed, with some shapes on it."""
    width, height = (int(v) for v in random.integers(_LEAST_SIDE, _MOST_SIDE + 1, 2))
    coarse = random.integers(0, 256, (7, 9, 3), dtype=np.uint8)
    field = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(6):
        x, y, r = (int(v) for v in random.integers(0, 100, 3))
        colour = tuple(int(v) for v in random.integers(0, 256, 3))
        cv2.circle(field, (x, y), 4 + r // 4, colour, -1)
    return field


def read_photographs(folder: Path) -> list[np.ndarray]:
    """Return the photographs of a folder that are large enough, uint8 [h, w, 3], by name."""
    found = (cv2.imread(str(path)) for path in sorted(folder.iterdir()) if path.is_file())
    large = [one for one in found if one is not None and min(one.shape[:2]) >= _MOST_SIDE]
    if not large:
        sys.exit(f"{folder}: no photograph of at least {_MOST_SIDE} pixels a side")
    return large


def window(photograph: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return uint8 [h, w, 3]: a part of a photograph, turned or mirrored, in another tone.

    Args:
        photograph: uint8 [h, w, 3], h and w at least 160.
        random: draws the part, its scale, sense and tone.
    """
    size = random.integers(_LEAST_SIDE, _MOST_SIDE + 1, 2)  # height, width
    room = np.array(photograph.shape[:2])
    part = np.floor(size * random.uniform(1.0, (room / size).min())).astype(int)
    y, x = (int(v) for v in random.integers(0, room - part + 1))
    cut = photograph[y : y + part[0], x : x + part[1]]
    cut = cv2.resize(cut, (int(size[1]), int(size[0])), interpolation=cv2.INTER_AREA)
    cut = np.rot90(cut, int(random.integers(4)))
    if random.random() < 0.5:
        cut = cut[:, ::-1]
    toned = random.uniform(0.8, 1.2) * cut + random.uniform(-20, 20, 3)
    return np.asarray(np.clip(np.rint(toned), 0, 255), np.uint8)


def make_images(
    folder: Path, count: int, seed: int, draw: Callable[[np.random.Generator], np.ndarray] = picture
) -> None:
    """Write the images."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if _is_copy(number):
            source, kind = folder / f"{number - 5:06d}.jpg", number % 30
            if kind == 9:
                shutil.copyfile(source, path)
                continue
            pixels, quality = cv2.imread(str(source)), 60
            if kind == 29:
                pixels = cv2.resize(pixels, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
        else:
            pixels, quality = draw(random), 90
        cv2.imwrite(str(path), pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _is_copy(number: int) -> bool:
    return number % 10 == 9


def prepare(root: Path, count: int, args: argparse.Namespace) -> Path:
    """Make the images in a folder of their own under root, if they are not there; return it."""
    kind = "discs" if args.photographs is None else f"windows-of-{args.photographs.name}"
    folder = root / f"{kind}-{count}-{args.seed}"
    if not folder.exists():
        draw = picture
        if args.photographs is not None:
            photographs = read_photographs(args.photographs)

            def draw(random: np.random.Generator) -> np.ndarray:
                return window(photographs[random.integers(len(photographs))], random)

        unfinished = folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        make_images(unfinished, count, args.seed, draw)
        unfinished.rename(folder)
    return folder


def run(folder: Path, output: Path, args: argparse.Namespace) -> Took:
    """Run the program once; return what it took."""
    command = [sys.executable, "-m", "beam_dedup", "run", "--input", str(folder)]
    command += ["--output", str(output), "--workers", str(args.workers)]
    return measured([*command, "--profile", args.profile, "--quiet"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="2000,20000")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--profile", default="balanced")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--photographs", type=Path, help="folder to cut the images from")
    parser.add_argument("--keep", type=Path, help="folder in which the images stay, for other runs")
    return parser.parse_args()


def main() -> None:
    """Make the images, run, and print."""
    args = _options()
    print(f"{describe(args.seed)}; profile {args.profile}; workers {args.workers}", flush=True)
    peak_of = {}
    with tempfile.TemporaryDirectory(prefix="beam-dedup-small-") as name:
        for count in (int(word) for word in args.counts.split(",")):
            folder = prepare(args.keep or Path(name), count, args)
            output = Path(name, f"out-{count}")
            took = run(folder, output, args)
            summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
            peak_of[count] = took.peak_sum_bytes
            print(
                f"{folder.name}, {sum(map(_is_copy, range(count)))} copies: "
                f"{summary['counts']['duplicate']} duplicates; {took}; "
                f"CPU {1000 * took.cpu_s / count:.2f} ms an image",
                flush=True,
            )
    low, high = min(peak_of), max(peak_of)
    if high > low:
        growth = (peak_of[high] - peak_of[low]) / (high - low) / 1000
        print(f"growth of all processes: {growth:.1f} KB an image")


if __name__ == "__main__":
    main()
