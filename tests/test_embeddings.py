"""Embeddings of all pictures through the whole job: the column, its rows, and what they cost."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import beam_dedup
from beam_dedup.reports import Report
from tests import pictures
from tests.pictures import photo, saved, write
from transforms.imaging.descriptor import DIMENSIONS

_ROOT = Path(__file__).resolve().parents[1]
# What some embedded pictures have alike is not by chance: photographs of other seeds have less.
_ALIKE = 0.95


def _make(folder: Path) -> None:
    """Write two groups, four pictures that are alone, and three files that fail."""
    one = photo(0, 160, 120)
    write(folder / "a.jpg", saved(one))
    write(folder / "copy of a.jpg", saved(one))
    write(folder / "a.png", saved(photo(1, 160, 120), "PNG"))
    write(folder / "a.bmp", saved(photo(1, 160, 120), "BMP"))
    write(folder / "a q40.jpg", saved(one, quality=40))
    write(folder / "half.jpg", saved(pictures.resized(one, 0.5)))
    for seed in range(2, 6):
        write(folder / f"{seed}.jpg", saved(photo(seed, 160, 120)))
    write(folder / "empty.jpg", b"")
    write(folder / "cut.jpg", saved(photo(9, 160, 120))[:2000])
    write(folder / "text.jpg", b"no picture\n" * 40)


def _run(folder: Path, output: Path, **options: Any) -> tuple[beam_dedup.Result, dict[str, Any]]:
    """Run the job; return its result, and its rows by name without their embedding."""
    result = beam_dedup.deduplicate(folder, output, **{"workers": 1, **options})
    assert Report.open(str(output)).check() == []
    return result, {Path(row["path"]).name: row for row in result.images.to_pylist()}


def _matrix(result: beam_dedup.Result) -> npt.NDArray[np.float16]:
    """Return the embeddings as docs/guides/library.md does."""
    column = result.images["embedding"].combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values.reshape(len(column), -1), np.float16)


@pytest.mark.parametrize("profile", ["fast", "balanced"])
def test_every_picture_has_its_embedding_and_no_row_is_lost(tmp_path: Path, profile: str) -> None:
    _make(tmp_path / "in")
    plain, without = _run(tmp_path / "in", tmp_path / "plain", profile=profile)
    result, rows = _run(tmp_path / "in", tmp_path / "out", profile=profile, write_embeddings=True)
    assert result.images.schema.field("embedding").type == pa.list_(pa.float16(), DIMENSIONS)
    assert plain.images.column_names == result.images.column_names[:-1]
    assert result.counts == plain.counts
    assert result.counts["failed"] == 3
    # Nothing else about a row depends on it.
    columns = ("status", "group_id", "best_uri", "relation", "decided_by", "error_type")
    for name, row in rows.items():
        assert [row[one] for one in columns] == [without[name][one] for one in columns]

    matrix = dict(zip((Path(path).name for path in result.images["path"].to_pylist()),
                      _matrix(result), strict=True))  # fmt: skip
    failed = {name for name, row in rows.items() if row["status"] == "failed"}
    assert failed == {"empty.jpg", "cut.jpg", "text.jpg"} == {
        name for name, vector in matrix.items() if np.isnan(vector).any()
    }  # fmt: skip
    assert all(rows[name]["embedding"] == [None] * DIMENSIONS for name in failed)
    for one, other in (("a.jpg", "copy of a.jpg"), ("a.png", "a.bmp")):
        assert rows[one]["pixel_hash"] == rows[other]["pixel_hash"]
        assert matrix[one].tobytes() == matrix[other].tobytes()
    near = {
        name
        for name, vector in matrix.items()
        if float(vector.astype(np.float64) @ matrix["a.jpg"]) > _ALIKE
    }
    assert near == {"a.jpg", "copy of a.jpg", "a q40.jpg", "half.jpg"}


def test_embeddings_are_read_once_and_told_in_the_summary(tmp_path: Path) -> None:
    _make(tmp_path / "in")
    result, rows = _run(tmp_path / "in", tmp_path / "out", profile="fast", write_embeddings=True)
    stages = {stage["name"]: stage for stage in result.summary["stages"]}
    contents = {row["pixel_hash"] for row in rows.values() if row["pixel_hash"]}
    for name in ("embeddings", "embed"):
        counts = [stages[name][one] for one in ("items_in", "items_out", "failed")]
        assert counts == [len(contents), len(contents), 0]
    read = sum({row["pixel_hash"]: row["size_bytes"] for row in rows.values()
                if row["status"] in ("unique", "best")}.values())  # fmt: skip
    assert 0 < read <= result.summary["bytes"]["read_second"]
    assert result.summary["bytes"]["read_second"] < result.summary["bytes"]["read_first"]
    readable = result.counts["listed"] - result.counts["failed"]
    assert result.summary["features"] == {
        "computed": len(contents), "freed": readable - len(contents)
    }  # fmt: skip
    assert "torch" not in result.summary["versions"]
    with (tmp_path / "out/report.csv").open() as file:
        assert file.readline().rstrip().endswith(",error_message")


def test_g2_two_workers_and_other_batches_give_the_same_embeddings(tmp_path: Path) -> None:
    _make(tmp_path / "in")
    tables = []
    for number, options in enumerate(
        ({"workers": 1}, {"workers": 2, "batch_size_global": 3, "candidates": "embedding"})
    ):
        output = tmp_path / f"out{number}"
        result, _ = _run(tmp_path / "in", output, profile="fast", write_embeddings=True, **options)
        tables.append(result.images.sort_by("uri"))
    assert tables[0].equals(tables[1])


def test_embeddings_propose_pairs_where_that_is_asked(tmp_path: Path) -> None:
    _make(tmp_path / "in")
    words = {"profile": "fast", "wavelet_bits": 0}  # a key that is 0 bits away is rare
    plain, _ = _run(tmp_path / "in", tmp_path / "plain", **words)
    result, _ = _run(tmp_path / "in", tmp_path / "out", candidates="embedding", **words)

    def pairs(found: beam_dedup.Result) -> dict[frozenset[str], str]:
        return {
            frozenset(edge[end].rpartition("/")[2] for end in ("uri_a", "uri_b")): edge[
                "generators"
            ]
            for edge in found.edges.to_pylist()
        }

    half = frozenset({"a.jpg", "half.jpg"})
    assert half not in pairs(plain)
    assert pairs(result)[half] == "embedding"
    assert "embedding" not in plain.images.column_names + result.images.column_names
    names = [[one["name"] for one in each.summary["generators"]] for each in (plain, result)]
    assert ["embedding" in each for each in names] == [False, True]
    assert result.counts["duplicate"] > plain.counts["duplicate"]


def test_nothing_is_embedded_where_nobody_asks(tmp_path: Path) -> None:
    _make(tmp_path / "in")
    result, _ = _run(tmp_path / "in", tmp_path / "out", profile="fast")
    assert {stage["name"] for stage in result.summary["stages"]}.isdisjoint(
        {"embeddings", "embed", "embedding"}
    )
    (path,) = (tmp_path / "out/images").iterdir()
    assert pq.read_schema(path).names[-1] == "error_message"


def test_x1_the_descriptor_embeds_without_any_library_of_models(tmp_path: Path) -> None:
    _make(tmp_path / "in")
    script = (
        "import sys\n"
        "names = 'torch torchvision open_clip kornia timm onnxruntime'.split()\n"
        "sys.modules.update(dict.fromkeys(names))\n"  # an import of any of them fails
        "from beam_dedup import cli\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    words = ["run", f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", "--workers=1"]
    options = ["--profile=fast", "--write_embeddings", "--candidates=embedding", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words, *options, "--max_failure_ratio=1"],
        cwd=_ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    report = Report.open(str(tmp_path / "out"))
    assert report.check() == []
    assert json.loads((tmp_path / "out/summary.json").read_bytes())["counts"]["failed"] == 3
    assert report.images.schema.field("embedding").type.list_size == DIMENSIONS
