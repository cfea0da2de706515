#!/usr/bin/env python3
"""A run with a CLIP and a LoFTR of random weights: every row is there, and what the models took.

    python benchmarks/models_demo.py --images FOLDER [--photographs 12] [--architecture ViT-B-32]
                                     [--seed 1]

Makes five images of each photograph (``model_memory.make_images``) and the weights, runs
``beam-dedup run`` on them with one worker, and checks the report. Random weights find nothing: the
run shows that pictures and pairs go through the models and that no row is lost. Prints machine,
seed, rows by status, and the models' part of ``metrics.json``; exit 1 where a row or a model is
missing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.dataset as ds
from machine import describe
from model_memory import make_images, make_weights

_MODELS = ("beam_dedup_global", "beam_dedup_local")


def make_loftr(folder: Path, seed: int) -> str:
    """Write random weights of a LoFTR as they are published; return ``--local_model``'s value."""
    import torch
    from kornia.feature import LoFTR

    torch.manual_seed(seed)
    path = folder / "loftr.ckpt"
    torch.save({"state_dict": LoFTR(pretrained=None).state_dict()}, path)
    return f"loftr:{path}"


def models_metrics(metrics: dict[str, dict[str, dict[str, object]]]) -> dict[str, object]:
    """Return what ``metrics.json`` says of the models, by name, added up over the rounds."""
    found: dict[str, object] = {}
    for kind in ("counters", "distributions"):
        for name, steps in metrics[kind].items():
            if name.partition(":")[0] not in _MODELS:
                continue
            values = list(steps.values())
            if kind == "counters":
                found[name] = sum(values)
            else:
                parts = [value for value in values if isinstance(value, dict)]
                found[name] = {
                    "count": sum(part["count"] for part in parts),
                    "sum": sum(part["sum"] for part in parts),
                    "min": min(part["min"] for part in parts),
                    "max": max(part["max"] for part in parts),
                }
    return found


def main() -> None:
    """Run, and check."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--photographs", type=int, default=12)
    parser.add_argument("--architecture", default="ViT-B-32")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(describe(args.seed))
    with tempfile.TemporaryDirectory(prefix="beam-dedup-models-") as name:
        folder, report = Path(name), Path(name) / "report"
        count = make_images(args.images, folder / "images", args.photographs)
        models = [
            f"--global_model={make_weights(folder, args.architecture, args.seed)}",
            f"--local_model={make_loftr(folder, args.seed)}",
        ]
        command = [sys.executable, "-m", "beam_dedup", "run", "--quiet", "--workers=1",
                   f"--input={folder / 'images'}", f"--output={report}", *models]  # fmt: skip
        subprocess.run(command, check=True)
        subprocess.run([sys.executable, "-m", "beam_dedup.reports.check", str(report)], check=True)
        rows = ds.dataset(report / "images").to_table(columns=["status"])["status"].to_pylist()
        metrics = models_metrics(json.loads((report / "metrics.json").read_text(encoding="utf-8")))
    print(f"{count} images, rows: {dict(sorted(Counter(rows).items()))}")
    for name, value in metrics.items():
        print(f"{name} {value}")
    missing = [one for one in _MODELS if not metrics.get(f"{one}:models_loaded")]
    if len(rows) != count or missing:
        sys.exit(f"{len(rows)} rows of {count} images; not loaded: {', '.join(missing) or 'none'}")


if __name__ == "__main__":
    main()
