#!/usr/bin/env python3
"""What RunInference adds to the CPU time of a bare model.

    python benchmarks/inference.py --images FOLDER [--count 500] [--batch 32] [--runs 5] [--seed 1]
                                   [--keep FOLDER]

Prepares COUNT photographs as the model wants them, and embeds them with an EfficientNet-B0 of
random weights in one thread: bare (a loop over batches that calls the loaded network), through
``EmbedMembers`` in the embedded runner at the same batch size, and through it as ``beam-dedup run``
does, in batches from one picture up to the same size, as Beam adapts them. Each run is a process of
its own, and the three take turns. Imports, the load of the model and one batch to warm up come
before the clock in all three; the making of the pipeline, its translation and all of the runner's
work are within. Prints machine, seed, CPU (user and system) and wall seconds of every run, the
median ratios, and how near the vectors are to those of the bare model.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from PIL import Image

_MODES = ("bare", "fixed", "adaptive")
_MODEL = "efficientnet_b0"


def make_weights(folder: Path, seed: int) -> str:
    """Write random weights; return the value of ``--global_model``."""
    import torch
    from torchvision.models import get_model

    torch.manual_seed(seed)
    path = folder / f"{_MODEL}.pth"
    torch.save(get_model(_MODEL, weights=None).state_dict(), path)
    return f"{_MODEL}:{path}"


def resolve(text: str) -> Any:
    """Return the model that a value of ``--global_model`` names."""
    from transforms.models.resolve import resolve_global
    from transforms.models.weights import Finder

    return resolve_global(text, Finder(cache=""))


def prepare(images: Path, count: int, model: Any, target: Path) -> None:
    """Write uint8 [count, crop, crop, 3]: the first pictures of a folder, again from the first."""
    paths = itertools.cycle(sorted(path for path in images.iterdir() if path.is_file()))
    crop = model.preparation.crop
    out = np.lib.format.open_memmap(target, "w+", np.uint8, (count, crop, crop, 3))
    for number, path in zip(range(count), paths, strict=False):
        with Image.open(path) as image:
            out[number] = model.preparation.apply(np.asarray(image.convert("RGB")))
    out.flush()


class Reader:
    """Gives members with their inputs, as the second read does, in the worker."""

    def __init__(self, prepared: str) -> None:
        self.prepared = prepared

    def __call__(self, number: int) -> Any:
        """Return one picture as a ``MemberRead``."""
        from transforms.records import MemberRead, MemberRecord

        pictures = np.load(self.prepared, mmap_mode="r")
        name = number.to_bytes(4, "big")
        record = MemberRecord(name, "", b"", b"", b"", "", "", "", 0)
        return MemberRead(record, [], pictures[number].tobytes(), b"\x01")


class Keeper:
    """Writes the vector of a record into a file of all of them."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __call__(self, record: Any) -> None:
        """Write one vector."""
        vectors = np.load(self.target, mmap_mode="r+")
        vectors[int.from_bytes(record.content, "big")] = np.frombuffer(record.embedding, np.float32)


def embed_bare(model: Any, prepared: Path, batch: int) -> Any:
    """Return a function that embeds all pictures with the network alone."""
    import torch

    from transforms.models.network import load_network

    torch.set_num_threads(1)
    network = load_network(model, "cpu")
    pictures = np.load(prepared)
    network(pictures[:batch])

    def work() -> np.ndarray:
        rows = [network(pictures[at : at + batch]) for at in range(0, len(pictures), batch)]
        vectors = np.concatenate(rows)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return work


def embed_beam(model: Any, prepared: Path, batch: int, *, fixed: bool) -> Any:
    """Return a function that embeds all pictures through ``EmbedMembers``."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    from transforms.global_features import EmbedMembers
    from transforms.models.embedder import EmbedderHandler
    from transforms.models.spec import Execution

    class Handler(EmbedderHandler):
        def batch_elements_kwargs(self) -> dict[str, int]:
            return {"min_batch_size": batch if fixed else 1, "max_batch_size": batch}

    handler = Handler(model, Execution("cpu", job="benchmark"), batch)
    count = len(np.load(prepared, mmap_mode="r"))
    # Held here, so that the pipeline finds the model loaded.
    session = handler.load_model()
    session(np.load(prepared, mmap_mode="r")[:batch])
    target = str(prepared.with_name("vectors.npy"))
    np.save(target, np.zeros((count, model.dimensions), np.float32))

    def work() -> np.ndarray:
        pipeline = beam.Pipeline(FnApiRunner(), PipelineOptions(["--disable_beartype"]))
        embedded = (
            pipeline
            | "Name" >> beam.Create(range(count))
            | "Read" >> beam.Map(Reader(str(prepared)))
            | "Embed" >> EmbedMembers(handler)
        )
        _ = embedded.records | "Keep" >> beam.Map(Keeper(target))
        pipeline.run().wait_until_finish()
        assert session is not None
        return np.asarray(np.load(target))

    return work


def one_run(mode: str, text: str, prepared: Path, batch: int) -> None:
    """Time one mode in this process; print the result as JSON and save the vectors."""
    from beam_dedup.imports import import_beam

    import_beam()
    model = resolve(text)
    if mode == "bare":
        work = embed_bare(model, prepared, batch)
    else:
        work = embed_beam(model, prepared, batch, fixed=mode == "fixed")
    before, wall = os.times(), time.monotonic()
    vectors = work()
    after, wall = os.times(), time.monotonic() - wall
    np.save(prepared.with_name(f"{mode}.npy"), vectors)
    spent = after.user + after.system - before.user - before.system
    print(json.dumps({"cpu_s": round(spent, 3), "wall_s": round(wall, 3)}))


def run_apart(mode: str, text: str, prepared: Path, batch: int) -> dict[str, float]:
    """Time one mode in a process of its own."""
    command = [sys.executable, __file__, "--one", mode, "--model", text, "--batch", str(batch)]
    done = subprocess.run(
        [*command, "--prepared", str(prepared)], stdout=subprocess.PIPE, text=True, check=True
    )
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def ratios(runs: dict[str, list[float]]) -> dict[str, float]:
    """Return for each mode but bare the median over the runs of its CPU time over the bare one."""
    return {
        mode: statistics.median(a / b for a, b in zip(times, runs["bare"], strict=True))
        for mode, times in runs.items()
        if mode != "bare"
    }


def least_cosine(folder: Path, mode: str) -> float:
    """Return the least cosine of a mode's vectors with those of the bare model."""
    bare, other = np.load(folder / "bare.npy"), np.load(folder / f"{mode}.npy")
    return float((bare.astype(np.float64) * other).sum(axis=1).min())


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="beam-dedup-inference-") as name:
        yield Path(name)


def main() -> None:
    """Compare the three."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, help="folder of photographs")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for the weights, pictures and vectors")
    for name in ("--one", "--model", "--prepared"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        one_run(args.one, args.model, Path(args.prepared), args.batch)
        return
    if args.images is None:
        parser.error("give a folder of photographs with --images")
    print(describe(args.seed))
    with _folder(args.keep) as folder:
        text = make_weights(folder, args.seed)
        prepared = folder / "prepared.npy"
        prepare(args.images, args.count, resolve(text), prepared)
        print(f"{args.count} pictures, {_MODEL}, 1 thread, batch {args.batch}")
        cpu: dict[str, list[float]] = {mode: [] for mode in _MODES}
        for number in range(args.runs):
            for mode in _MODES if number % 2 == 0 else _MODES[::-1]:
                told = run_apart(mode, text, prepared, args.batch)
                cpu[mode].append(told["cpu_s"])
                print(f"run {number + 1} {mode}: CPU {told['cpu_s']:.2f} s, "
                      f"wall {told['wall_s']:.2f} s", flush=True)  # fmt: skip
        for mode, ratio in ratios(cpu).items():
            near = least_cosine(folder, mode)
            print(f"{mode}: {100 * (ratio - 1):+.1f} % CPU over the bare model (median of "
                  f"{args.runs}), least cosine with its vectors {near:.7f}")  # fmt: skip


if __name__ == "__main__":
    main()
