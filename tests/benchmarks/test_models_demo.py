"""A run with both learned models end to end: no row is lost, and the metrics tell of the models."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pictures import photo

pytest.importorskip("torch")

import models_demo


def test_counters_add_up_over_the_rounds() -> None:
    part = {"count": 2, "sum": 5, "min": 1, "max": 4}
    other = {"count": 1, "sum": 7, "min": 7, "max": 7}
    metrics = {
        "counters": {
            "beam_dedup_local:models_loaded": {"Round 1": 1, "Round 2": 0},
            "other:seen": {"Round 1": 9},
        },
        "distributions": {"beam_dedup_global:model_byte_size": {"Round 1": part, "Round 2": other}},
    }
    assert models_demo.models_metrics(metrics) == {
        "beam_dedup_local:models_loaded": 1,
        "beam_dedup_global:model_byte_size": {"count": 3, "sum": 12, "min": 1, "max": 7},
    }


def test_a_run_with_both_models_loses_no_row(tmp_path: Path) -> None:
    photo(700, 240, 160).save(tmp_path / "one.png")
    done = subprocess.run(
        [sys.executable, models_demo.__file__, "--images", str(tmp_path),
         "--architecture", "ViT-S-32-alt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "ok: 5 rows" in done.stdout
    statuses = re.search(r"5 images, rows: \{(.*)\}", done.stdout)
    assert statuses
    assert sum(map(int, re.findall(r": (\d+)", statuses[1]))) == 5
    for model in ("global", "local"):
        counted = re.search(rf"beam_dedup_{model}:num_inferences (\d+)", done.stdout)
        assert counted
        assert int(counted[1]) > 0
        assert f"beam_dedup_{model}:models_loaded 1\n" in done.stdout
