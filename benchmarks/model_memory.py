#!/usr/bin/env python3
"""Memory of worker processes that run a learned model, each its own or one for all.

    python benchmarks/model_memory.py --images FOLDER [--photographs 60] [--architecture ViT-B-32]
                                      [--seed 1]

Takes PHOTOGRAPHS pictures of a folder and makes of each two cuttings, one with a frame and one with
a box on it, so that ``beam-dedup run`` must embed what colour leaves undecided. Runs it with the
descriptor and with a CLIP of random weights, in one process and in two workers, and in two workers
that share the model; reads ``smaps_rollup`` of its processes ten times a second from outside. RSS
is all that a process has in memory; PSS shares out what several have, so only PSS adds up. Prints
machine, seed, and the peaks of each process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import children, describe
from PIL import Image, ImageOps

_SAMPLE_EVERY_S = 0.1
_CUT = 0.12  # of each side, in two steps
_FRAME = 0.1  # of the longer side
_BOX = 0.35  # of each side

# Name, options beside the model's, whether the model is the learned one.
CASES = (
    ("descriptor, 1 process", ("--workers=1",), False),
    ("descriptor, 2 workers", ("--workers=2",), False),
    ("model, 1 process", ("--workers=1",), True),
    ("model, 2 workers, one each", ("--workers=2",), True),
    ("model, 2 workers, shared", ("--workers=2", "--share_model"), True),
)


def make_images(source: Path, target: Path, count: int) -> int:
    """Write photographs with four edits of each; return how many images there are."""
    target.mkdir()
    paths = sorted(path for path in source.iterdir() if path.is_file())[:count]
    for path in paths:
        with Image.open(path) as image:
            whole = image.convert("RGB")
        width, height = whole.size
        framed = ImageOps.expand(whole, int(_FRAME * max(width, height)), (255, 255, 255))
        boxed = whole.copy()
        boxed.paste((40, 90, 160), (0, 0, int(_BOX * width), int(_BOX * height)))
        edits = {"whole": whole, "framed": framed, "boxed": boxed}
        for step in (1, 2):
            x, y = int(width * _CUT * step), int(height * _CUT * step)
            edits[f"cut{step}"] = whole.crop((x, y, width, height))
        for name, edit in edits.items():
            edit.save(target / f"{path.stem}-{name}.jpg", quality=90)
    return 5 * len(paths)


def make_weights(folder: Path, architecture: str, seed: int) -> str:
    """Write the random weights of a CLIP's tower for images; return ``--global_model``'s value."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    model = open_clip.create_model(architecture, load_weights=False)
    state = model.state_dict()
    visual = {name: value.contiguous() for name, value in state.items() if "visual." in name}
    path = folder / "clip.safetensors"
    save_file(visual, path)
    return f"clip:{architecture}/{path}"


def memory_of(pid: int) -> tuple[int, int]:
    """Return RSS and PSS of a process in bytes; zeros where it has ended."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0, 0
    found = {line.split(":")[0]: line.split()[1] for line in text.splitlines() if ":" in line[:40]}
    return int(found.get("Rss", "0")) * 1024, int(found.get("Pss", "0")) * 1024


def sample(command: list[str]) -> tuple[dict[int, tuple[int, int]], int]:
    """Run a command to its end.

    Returns:
        Peaks of RSS and PSS by process, the first of which is the command itself, and the peak of
        the sum of PSS at one time.
    """
    peaks: dict[int, tuple[int, int]] = {}
    highest = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            now = {pid: memory_of(pid) for pid in (process.pid, *children(process.pid))}
            for pid, (rss, pss) in now.items():
                before = peaks.get(pid, (0, 0))
                peaks[pid] = (max(before[0], rss), max(before[1], pss))
            highest = max(highest, sum(pss for _, pss in now.values()))
            time.sleep(_SAMPLE_EVERY_S)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return peaks, highest


def told(report: Path) -> str:
    """Return what the metrics of a report say of the model."""
    metrics = json.loads((report / "metrics.json").read_text(encoding="utf-8"))
    named = {**metrics.get("counters", {}), **metrics.get("distributions", {})}

    def total(name: str) -> int:
        values = named.get(f"beam_dedup_global:{name}", {}).values()
        return sum(value["sum"] if isinstance(value, dict) else value for value in values)

    loads, size = total("models_loaded"), total("model_byte_size")
    return (
        f"{total('num_inferences')} images embedded, {loads} models loaded, "
        f"{size / max(loads, 1) / 2**20:.0f} MiB of parameters each"
    )


def main() -> None:
    """Run every case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--photographs", type=int, default=60)
    parser.add_argument("--architecture", default="ViT-B-32")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(describe(args.seed))
    with tempfile.TemporaryDirectory(prefix="beam-dedup-memory-") as name:
        folder = Path(name)
        count = make_images(args.images, folder / "images", args.photographs)
        text = make_weights(folder, args.architecture, args.seed)
        print(f"{count} images, {args.architecture}")
        for number, (case, options, learned) in enumerate(CASES):
            report = folder / f"report{number}"
            command = [sys.executable, "-m", "beam_dedup", "run", "--quiet",
                       f"--input={folder / 'images'}", f"--output={report}", *options]  # fmt: skip
            peaks, highest = sample(
                [*command, *([f"--global_model={text}", "--device=cpu"] if learned else [])]
            )
            shown = ", ".join(
                f"{'client' if index == 0 else 'worker'} {rss / 2**20:.0f} / {pss / 2**20:.0f}"
                for index, (rss, pss) in enumerate(peaks.values())
                if rss  # else it had ended before it was read
            )
            print(f"{case}: MiB RSS / PSS: {shown}; highest sum of PSS {highest / 2**20:.0f}; "
                  f"{told(report)}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
