#!/usr/bin/env python3
"""Images a second of CLIP and pairs a second of LoFTR on a GPU, bare and through RunInference.

    python benchmarks/accelerator.py [--images 4096] [--pairs 512] [--batch 64] [--batch_pairs 8]
                                     [--runs 5] [--seed 1] [--device cuda]

Both models have random weights, and the pictures are random: their speed depends on neither. Bare
is a loop over batches that calls the loaded model. Through RunInference the same batches go through
the embedded runner: pictures through the handler of ``beam-dedup run``, pairs through one that does
nothing but call the model. Imports, the load and one batch to warm up come before the clock. Prints
machine, GPU, seed, every run and the medians. Without a GPU it says that nothing was measured, and
ends with 0; ``--device cpu`` is for trying this script.
"""

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

_SIDE = 384  # of the thumbnails that LoFTR gets, pixels


def gpu_name() -> str | None:
    """Return the name of the first GPU, or None without one."""
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def clip_handler(folder: Path, device: str, batch: int, seed: int) -> Any:
    """Return the handler of a ViT-B/32 with random weights, for batches of one size."""
    from model_memory import make_weights

    from transforms.models.embedder import EmbedderHandler
    from transforms.models.resolve import resolve_global
    from transforms.models.spec import Execution
    from transforms.models.weights import Finder

    class Handler(EmbedderHandler):
        def batch_elements_kwargs(self) -> dict[str, int]:
            return {"min_batch_size": batch, "max_batch_size": batch}

    model = resolve_global(make_weights(folder, "ViT-B-32", seed), Finder(""))
    return Handler(model, Execution(device, job="benchmark"), batch)


def loftr_handler(folder: Path, device: str, batch: int, seed: int) -> Any:
    """Return a handler of a LoFTR with random weights, for batches of one size."""
    import torch
    from apache_beam.ml.inference.base import PredictionResult
    from kornia.feature import LoFTR

    from transforms.models.learned import LearnedHandler
    from transforms.models.matches import LoadMatcher
    from transforms.models.resolve import resolve_local
    from transforms.models.spec import Execution
    from transforms.models.weights import Finder

    class Handler(LearnedHandler[Any]):
        def batch_elements_kwargs(self) -> dict[str, int]:
            return {"min_batch_size": batch, "max_batch_size": batch}

        def run_inference(self, batch: Any, model: Any, inference_args: Any = None) -> Any:
            return [PredictionResult(*pair) for pair in zip(batch, model(batch), strict=True)]

        def get_num_bytes(self, batch: Any) -> int:
            return sum(view.pixels.nbytes for pair in batch for view in pair)

        def get_metrics_namespace(self) -> str:
            return "benchmark"

    torch.manual_seed(seed)
    path = folder / "loftr.pt"
    torch.save({"state_dict": LoFTR(pretrained=None).state_dict()}, path)
    model = resolve_local(f"loftr:{path}", Finder(""))
    return Handler(LoadMatcher(model), Execution(device, job="benchmark"), model.name, batch)


def members(count: int, crop: int, random: np.random.Generator) -> list[Any]:
    """Return members with random prepared pictures."""
    from transforms.records import MemberRead, MemberRecord

    record = MemberRecord(b"", "", b"", b"", b"", "", "", "", 0)
    return [MemberRead(record, [], random.bytes(3 * crop**2), b"\x01") for _ in range(count)]


def pairs(count: int, random: np.random.Generator) -> list[Any]:
    """Return pairs of random pictures as a learned matcher takes them."""
    from transforms.models.matches import View

    def view(number: int) -> View:
        shape = (_SIDE, _SIDE, 3)
        return View(number.to_bytes(4, "big"), random.integers(0, 256, shape, np.uint8))

    return [(view(2 * number), view(2 * number + 1)) for number in range(count)]


class Elements:
    """Gives the elements of this process to a pipeline that runs in it, without a copy."""

    def __call__(self, _: int) -> list[Any]:
        """Return all of them."""
        import accelerator

        return accelerator.HELD


HELD: list[Any] = []


def run_bare(session: Any, items: Any, batch: int) -> None:
    """Call the model batch by batch."""
    for at in range(0, len(items), batch):
        session(items[at : at + batch])


def run_beam(handler: Any, elements: list[Any]) -> None:
    """Run all elements through RunInference in the embedded runner, in this process."""
    import accelerator
    import apache_beam as beam
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

    accelerator.HELD[:] = elements
    pipeline = beam.Pipeline(FnApiRunner(), PipelineOptions(["--disable_beartype"]))
    _ = (
        pipeline
        | "Begin" >> beam.Create([0])
        | "Elements" >> beam.FlatMap(Elements())
        | "Run" >> RunInference(handler, model_identifier=handler.identifier)
        | "Drop" >> beam.Filter(lambda _: False)
    )
    pipeline.run().wait_until_finish()


def compare(name: str, handler: Any, elements: list[Any], items: Any, batch: int, runs: int) -> str:
    """Time both in turns; return the line of the medians."""
    session = handler.load_model()  # held here, so that the pipeline finds the model loaded
    session(items[:batch])
    ways: dict[str, Callable[[], None]] = {
        "bare": functools.partial(run_bare, session, items, batch),
        "RunInference": functools.partial(run_beam, handler, elements),
    }
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(runs):
        for way in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            started = time.monotonic()
            ways[way]()
            speeds[way].append(len(elements) / (time.monotonic() - started))
            print(f"{name}, run {number + 1}, {way}: {speeds[way][-1]:.1f}/s", flush=True)
    middle = {way: statistics.median(some) for way, some in speeds.items()}
    share = middle["RunInference"] / middle["bare"]
    return (
        f"{name}: {middle['bare']:.1f}/s bare, {middle['RunInference']:.1f}/s through RunInference "
        f"({share:.2f}), batches of {batch}, median of {runs}"
    )


def main() -> None:
    """Measure both models, if there is anything to measure them on."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64, help="images")
    parser.add_argument("--batch_pairs", type=int, default=8)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    args = parser.parse_args()
    print(describe(args.seed))
    gpu = gpu_name()
    if gpu is None and args.device != "cpu":
        print("not measured: PyTorch sees no GPU here")
        return
    print(f"device: {args.device if gpu is None else gpu}")
    random = np.random.default_rng(args.seed)
    with tempfile.TemporaryDirectory(prefix="beam-dedup-accelerator-") as name:
        folder = Path(name)
        clip = clip_handler(folder, args.device, args.batch, args.seed)
        elements = members(args.images, clip.preparation.crop, random)
        pictures = clip.preparation.unpack(bytearray().join(one.inputs for one in elements))
        line = compare("ViT-B/32", clip, elements, pictures, args.batch, args.runs)
        loftr = loftr_handler(folder, args.device, args.batch_pairs, args.seed)
        some = pairs(args.pairs, random)
        print(line, compare("LoFTR", loftr, some, some, args.batch_pairs, args.runs), sep="\n")


if __name__ == "__main__":
    main()
