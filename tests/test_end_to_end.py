"""The whole pipeline on folders of made pictures: exact rows, groups, counts and files."""

import csv
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from PIL import Image

import beam_dedup
from beam_dedup import cli
from beam_dedup.reports import Report
from tests import pictures
from tests.pictures import flat, photo, saved, write
from tests.transforms.imaging.pictures import form, page
from transforms.reporting.schema import TABLES

_ROOT = Path(__file__).resolve().parents[1]

Rows = dict[str, dict[str, Any]]


class Run(NamedTuple):
    """A finished run."""

    folder: Path
    output: Path
    result: beam_dedup.Result
    rows: Rows  # by path below the folder


def rows_below(folder: Path, result: beam_dedup.Result) -> Rows:
    """Return the rows of ``images`` by path below a folder."""
    return {os.path.relpath(row["path"], folder): row for row in result.images.to_pylist()}


def run(folder: Path, output: Path, **options: Any) -> Run:
    """Run the whole job with one worker."""
    result = beam_dedup.deduplicate(folder, output, **{"workers": 1, **options})
    return Run(folder, output, result, rows_below(folder, result))


def facts(done: Run, *columns: str) -> dict[str, tuple[Any, ...]]:
    """Return some columns of each row, URIs as paths below the folder."""
    short = {row["uri"]: name for name, row in done.rows.items()}
    return {
        name: tuple(short.get(row[column], row[column]) for column in columns)
        for name, row in done.rows.items()
    }


def edges_of(done: Run) -> dict[frozenset[str], dict[str, Any]]:
    """Return the rows of ``edges`` by the two paths below the folder."""
    short = {row["uri"]: name for name, row in done.rows.items()}
    edges = {
        frozenset((short[edge["uri_a"]], short[edge["uri_b"]])): edge
        for edge in done.result.edges.to_pylist()
    }
    assert len(edges) == len(done.result.edges)
    return edges


def make_collection(folder: Path) -> None:
    """Write five groups, eight pictures that are alone, and three files that fail."""
    sea = photo(0)
    write(folder / "sea/original.jpg", saved(sea))
    write(folder / "backup/sea/original.jpg", saved(sea))
    write(folder / "sea/q60.jpg", saved(sea, quality=60))
    write(folder / "sea/half.jpg", saved(pictures.resized(sea, 0.5), quality=85))
    write(folder / "sea/turned.jpg", saved(pictures.turned(sea), quality=85))
    write(folder / "sea/mirrored.jpg", saved(pictures.mirrored(sea), quality=85))
    write(folder / "sea/grey.jpg", saved(pictures.grey(sea), quality=85))
    hill = photo(1, 240, 320)
    write(folder / "hill/lossless.png", saved(hill, "PNG", compress_level=9))
    write(folder / "hill/lossless again.png", saved(hill, "PNG", compress_level=1))
    write(folder / "hill/lossy.webp", saved(hill, "WEBP", quality=70))
    write(folder / "pair/1.jpg", saved(photo(2)))
    write(folder / "pair/2.jpg", saved(photo(2)))
    linked = write(folder / "linked/1.jpg", saved(photo(3)))
    os.link(linked, folder / "linked/2.jpg")
    town = photo(4)
    write(folder / "town/small.gif", saved(pictures.resized(town, 0.5), "GIF"))
    write(folder / "town/large.tif", saved(town, "TIFF", compression="tiff_lzw"))
    for seed in range(10, 18):
        write(folder / f"alone/{seed}.jpg", saved(photo(seed)))
    write(folder / "bad/text.jpg", b"this is text, whatever its name says\n" * 9)
    write(folder / "bad/cut.jpg", saved(photo(20))[:-500])
    write(folder / "bad/notes.txt", b"a shopping list\n")


ALONE = {f"alone/{seed}.jpg": ("unique", None, None, None) for seed in range(10, 18)}
FAILED = {
    name: ("failed", None, None, None) for name in ("bad/text.jpg", "bad/cut.jpg", "bad/notes.txt")
}
GROUPED = {
    # Of two equal files the one whose path comes first is kept.
    "backup/sea/original.jpg": ("best", None, None, "backup/sea/original.jpg"),
    "sea/original.jpg": ("duplicate", "exact", "exact", "backup/sea/original.jpg"),
    "sea/q60.jpg": ("duplicate", "reencoded", "color", "backup/sea/original.jpg"),
    "sea/half.jpg": ("duplicate", "resized", "color", "backup/sea/original.jpg"),
    "sea/turned.jpg": ("duplicate", "turned", "color", "backup/sea/original.jpg"),
    "sea/mirrored.jpg": ("duplicate", "mirrored", "color", "backup/sea/original.jpg"),
    "sea/grey.jpg": ("duplicate", "recoloured", "color", "backup/sea/original.jpg"),
    "hill/lossless.png": ("best", None, None, "hill/lossless.png"),
    "hill/lossless again.png": ("duplicate", "pixels", "exact", "hill/lossless.png"),
    "hill/lossy.webp": ("duplicate", "reencoded", "color", "hill/lossless.png"),
    "pair/1.jpg": ("best", None, None, "pair/1.jpg"),
    "pair/2.jpg": ("duplicate", "exact", "exact", "pair/1.jpg"),
    "linked/1.jpg": ("best", None, None, "linked/1.jpg"),
    "linked/2.jpg": ("duplicate", "exact", "exact", "linked/1.jpg"),
    "town/large.tif": ("best", None, None, "town/large.tif"),
    "town/small.gif": ("duplicate", "resized", "color", "town/large.tif"),
}


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection") / "in"
    make_collection(folder)
    return folder


@pytest.fixture(scope="module")
def done(collection: Path) -> Run:
    return run(collection, collection.parent / "out")


def test_every_input_has_exactly_its_status_relation_and_kept_image(done: Run) -> None:
    columns = ("status", "relation", "decided_by", "best_uri")
    assert facts(done, *columns) == GROUPED | ALONE | FAILED


def test_the_reason_for_which_an_image_is_kept(done: Run) -> None:
    found = facts(done, "keep_reason")
    assert {name: found[name][0] for name in GROUPED} == {
        "backup/sea/original.jpg": "path",
        "sea/original.jpg": "path",
        "sea/q60.jpg": "origin",
        "sea/half.jpg": "effective_resolution",
        "sea/turned.jpg": "origin",
        "sea/mirrored.jpg": "origin",
        "sea/grey.jpg": "origin",
        "hill/lossless.png": "bytes",
        "hill/lossless again.png": "bytes",
        "hill/lossy.webp": "origin",
        "pair/1.jpg": "path",
        "pair/2.jpg": "path",
        "linked/1.jpg": "path",
        "linked/2.jpg": "path",
        "town/large.tif": "effective_resolution",
        "town/small.gif": "effective_resolution",
    }
    assert all(found[name] == (None,) for name in ALONE | FAILED)


def test_what_is_measured_of_a_file_is_in_its_row(done: Run) -> None:
    for name, row in done.rows.items():
        data = (done.folder / name).read_bytes()
        if name == "bad/notes.txt":
            assert row["sha256"] in (None, hashlib.sha256(data).hexdigest())
        else:
            assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["size_bytes"] == len(data)
        assert row["uri"].startswith("file:///")
        modified = (done.folder / name).stat().st_mtime_ns // 1000
        assert round(row["modified"].timestamp() * 1e6) == modified
        assert row["metadata_hash"] is None
        scores = [row[c] for c in ("sharpness", "contrast", "brightness", "noise", "quality_score")]
        if name in FAILED:
            assert scores == [None] * 5
            assert row["wavelet_key"] is row["pixel_hash"] is row["group_size"] is None
        else:
            assert all(0.0 <= score <= 1.0 for score in scores)
            assert len(bytes.fromhex(row["wavelet_key"])) == 32
            assert len(bytes.fromhex(row["pixel_hash"])) == 32
    sizes = facts(done, "format", "width", "height")
    assert sizes["sea/turned.jpg"] == ("JPEG", 240, 320)
    assert sizes["hill/lossy.webp"] == ("WEBP", 240, 320)
    assert sizes["town/small.gif"] == ("GIF", 160, 120)
    assert sizes["town/large.tif"] == ("TIFF", 320, 240)


def test_failures_say_stage_and_type(done: Run) -> None:
    found = facts(done, "error_stage", "error_type")
    assert {name: error for name, error in found.items() if error != (None, None)} == {
        "bad/text.jpg": ("decode", "unidentified"),
        "bad/cut.jpg": ("decode", "truncated"),
        "bad/notes.txt": ("decode", "not_an_image"),
    }
    assert done.result.failures == {"unidentified": 1, "truncated": 1, "not_an_image": 1}


def test_the_groups_table(done: Run) -> None:
    short = {row["uri"]: name for name, row in done.rows.items()}
    sizes = {name: row["size_bytes"] for name, row in done.rows.items()}
    sea = [name for name in GROUPED if "sea/" in name]
    found = {
        short[group["best_uri"]]: (
            group["size"],
            group["reclaimable_bytes"],
            group["keep_reason"],
            group["chain_cut"],
        )
        for group in done.result.groups.to_pylist()
    }
    assert found == {
        "backup/sea/original.jpg": (
            7,
            sum(sizes[name] for name in sea) - sizes["backup/sea/original.jpg"],
            "path",
            0,
        ),
        "hill/lossless.png": (
            3,
            sizes["hill/lossless again.png"] + sizes["hill/lossy.webp"],
            "bytes",
            0,
        ),
        "pair/1.jpg": (2, sizes["pair/2.jpg"], "path", 0),
        "linked/1.jpg": (2, 0, "path", 0),
        "town/large.tif": (2, sizes["town/small.gif"], "effective_resolution", 0),
    }
    for group in done.result.groups.to_pylist():
        best = done.rows[short[group["best_uri"]]]
        digest = hashlib.sha256(best["sha256"].encode()).hexdigest()
        assert group["group_id"] == best["group_id"] == "g" + digest[:16]
        assert 0.0 <= group["min_similarity"] <= 1.0


def test_the_counts_reconcile(done: Run) -> None:
    counts = {"listed": 27, "unique": 8, "best": 5, "duplicate": 11, "failed": 3, "groups": 5}
    assert done.result.counts == counts
    statuses = Counter(row["status"] for row in done.rows.values())
    assert statuses == {name: counts[name] for name in ("unique", "best", "duplicate", "failed")}
    files = [path for path in done.folder.rglob("*") if path.is_file()]
    assert len(files) == counts["listed"] == len(done.result.images)
    volume = done.result.summary["bytes"]
    assert volume["listed"] == volume["read_first"] == sum(f.stat().st_size for f in files)
    groups = done.result.groups.to_pylist()
    assert volume["reclaimable"] == sum(group["reclaimable_bytes"] for group in groups)
    stages = {stage["name"]: stage for stage in done.result.summary["stages"]}
    assert (stages["fingerprint"]["items_in"], stages["fingerprint"]["failed"]) == (27, 3)
    # Two of 26 images failed, and one file was none.
    assert done.result.exit_code == 3


def test_the_report_keeps_its_promises(done: Run) -> None:
    assert Report.open(str(done.output)).check() == []


def test_the_manifest_names_every_file_with_its_hash(done: Run) -> None:
    manifest = json.loads((done.output / "manifest.json").read_text())
    assert manifest["run_id"] == done.result.run_id
    assert manifest["counts"] == done.result.counts
    named = {entry["path"]: entry for entry in manifest["files"]}
    tables = {f"{table}/{done.result.run_id}-00000.parquet" for table in TABLES}
    assert named.keys() == tables | {"report.csv", "summary.json"}
    for path, entry in named.items():
        data = (done.output / path).read_bytes()
        assert entry["size_bytes"] == len(data)
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        if path in tables:
            table = pq.read_table(done.output / path)
            assert entry["rows"] == len(table)
            assert table.schema.equals(TABLES[path.partition("/")[0]].schema)
    assert named["report.csv"]["rows"] == 27
    assert named["summary.json"]["rows"] is None
    on_disk = {str(p.relative_to(done.output)) for p in done.output.rglob("*") if p.is_file()}
    assert on_disk == named.keys() | {"manifest.json", "metrics.json"}


def test_the_flat_report_has_the_same_rows(done: Run) -> None:
    with (done.output / "report.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert {line["uri"]: line["status"] for line in lines} == {
        row["uri"]: row["status"] for row in done.rows.values()
    }
    assert len(lines) == 27


def make_hard_collection(folder: Path) -> None:
    """Write copies of which stage 2 must leave some to stages 3 and 4."""
    for seed, name in ((30, "crop"), (31, "border"), (32, "caption")):
        write(folder / f"{name}/original.jpg", saved(photo(seed)))
    write(folder / "crop/cut.jpg", saved(pictures.cropped(photo(30), 0.06), quality=85))
    framed = pictures.bordered(photo(31), 0.08, (250, 250, 250))
    write(folder / "border/framed.jpg", saved(framed, quality=85))
    write(folder / "caption/written.jpg", saved(pictures.captioned(photo(32)), quality=85))
    for seed in range(33, 39):
        write(folder / f"alone/{seed}.jpg", saved(photo(seed)))


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run that compares every picture with every other."""
    folder = tmp_path_factory.mktemp("hard")
    make_hard_collection(folder / "in")
    return run(folder / "in", folder / "out", wavelet_bits=256, global_threshold=0.2)


@pytest.mark.parametrize(
    ("name", "other", "relation", "stage"),
    [
        ("crop", "cut", "cropped", "color"),
        ("border", "framed", "bordered", "color"),
        # Which of two pictures is written on, only stage 4 can say.
        ("caption", "written", "overlaid", "local"),
    ],
)
def test_crops_borders_and_captions_keep_the_whole_picture(
    hard: Run, name: str, other: str, relation: str, stage: str
) -> None:
    found = facts(hard, "status", "relation", "decided_by", "best_uri")
    best = f"{name}/original.jpg"
    assert {row: found[row] for row in found if row.startswith(name)} == {
        best: ("best", None, None, best),
        f"{name}/{other}.jpg": ("duplicate", relation, stage, best),
    }


def test_only_copies_are_accepted_where_every_pair_is_compared(hard: Run) -> None:
    edges = edges_of(hard)
    accepted = {pair for pair, edge in edges.items() if edge["verdict"] == "accept"}
    assert accepted == {
        frozenset((f"{name}/original.jpg", f"{name}/{other}.jpg"))
        for name, other in (("crop", "cut"), ("border", "framed"), ("caption", "written"))
    }
    alone = {f"alone/{seed}.jpg" for seed in range(33, 39)}
    found = facts(hard, "status", "best_uri")
    assert {found[name] for name in alone} == {("unique", None)}
    # The lone pictures were compared with one another, and refused.
    among = {pair: edge["verdict"] for pair, edge in edges.items() if pair <= alone}
    assert len(among) == 15
    assert "accept" not in among.values()
    assert "reject" in among.values()
    volume = hard.result.summary["bytes"]
    assert 0 < volume["read_second"] <= volume["listed"]
    assert Report.open(str(hard.output)).check() == []


def make_parts(folder: Path) -> None:
    """Write two pictures, each with forms of it that share no layout, and four lone pictures."""
    for seed in (800, 801):
        one = photo(seed, 480, 360)
        mirrored = pictures.mirrored(pictures.cropped(one, 0.15))
        framed = pictures.bordered(one, 0.08, (250, 250, 250))
        shot = pictures.screenshot(pictures.resized(one, 0.75))
        write(folder / f"{seed}/original.jpg", saved(one, quality=95))
        write(folder / f"{seed}/crop.jpg", saved(pictures.cropped(one, 0.2), quality=88))
        write(folder / f"{seed}/mirrored crop.jpg", saved(mirrored, quality=88))
        write(folder / f"{seed}/border.jpg", saved(framed, quality=88))
        write(folder / f"{seed}/screenshot.png", saved(shot, "PNG"))
    for seed in range(802, 806):
        write(folder / f"alone/{seed}.jpg", saved(photo(seed, 480, 360)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("parts")
    make_parts(folder / "in")
    return run(folder / "in", folder / "out")


def test_local_words_find_crops_screenshots_and_borders(parts: Run) -> None:
    expected = {f"alone/{seed}.jpg": ("unique", None, None) for seed in range(802, 806)}
    for seed in (800, 801):
        best = f"{seed}/original.jpg"
        expected[best] = ("best", None, best)
        for name, relation in (
            ("crop.jpg", "cropped"),
            ("mirrored crop.jpg", "cropped"),
            ("border.jpg", "bordered"),
            ("screenshot.png", "bordered"),
        ):
            expected[f"{seed}/{name}"] = ("duplicate", relation, best)
    assert facts(parts, "status", "relation", "best_uri") == expected
    edges = edges_of(parts)
    by_words = 0
    for seed in (800, 801):
        for name in ("crop.jpg", "mirrored crop.jpg", "border.jpg", "screenshot.png"):
            edge = edges[frozenset((f"{seed}/original.jpg", f"{seed}/{name}"))]
            # Their keys are as far apart as those of different pictures.
            assert edge["wavelet_distance"] > 60
            # A chain over another form, which words have found, may close first.
            assert edge["generators"] in ("words", "star")
            if edge["generators"] == "words":
                by_words += 1
                assert (edge["word_votes"] < 0) == name.startswith("mirrored")
    assert by_words >= 6
    assert Report.open(str(parts.output)).check() == []


def test_every_generator_is_counted(parts: Run, done: Run) -> None:
    for finished in (parts, done):
        edges = finished.result.edges.to_pylist()
        found = {one["name"]: one for one in finished.result.summary["generators"]}
        assert {"wavelet", "words"} <= found.keys()
        assert found.keys() >= {name for e in edges for name in e["generators"].split("+")}
        for name, one in found.items():
            its = [edge for edge in edges if name in edge["generators"].split("+")]
            accepted = [edge for edge in its if edge["verdict"] == "accept"]
            assert one["compared"] == len(its) <= one["proposed"]
            assert one["verified"] == len(accepted)
            assert one["found_alone"] == sum(edge["generators"] == name for edge in accepted)
    words = {one["name"]: one for one in parts.result.summary["generators"]}["words"]
    assert words["found_alone"] >= 8
    near = {one["name"]: one for one in done.result.summary["generators"]}["wavelet"]
    assert near["verified"] >= 6


def test_the_pairs_that_nobody_needs_are_counted(parts: Run) -> None:
    summary = parts.result.summary
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert "plan" not in stages
    assert stages["color"]["items_in"] == len(parts.result.edges)
    asked = {one["name"]: one["compared"] for one in summary["generators"]}
    proposed = {one["name"]: one["proposed"] for one in summary["generators"]}
    left = proposed["words"] - asked["words"], proposed["wavelet"] - asked["wavelet"]
    # A pair that both proposed is one pair.
    assert max(left) <= stages["color"]["skipped"] <= sum(left)
    assert stages["color"]["skipped"] > 0


def make_look_alikes(folder: Path) -> None:
    """Write pictures that agree in their layout and are no copies of one another."""
    for name, image in (
        ("flat/1.png", flat((200, 200, 200))),
        ("flat/2.png", flat((203, 200, 198))),
        ("flat/3.png", flat((40, 90, 160))),
        ("flat/4.png", flat((44, 92, 158), (200, 150))),
        ("gradient/1.png", pictures.gradient((20, 20, 60), (200, 220, 250))),
        ("gradient/2.png", pictures.gradient((24, 20, 60), (190, 220, 250), (200, 150))),
    ):
        write(folder / name, saved(image, "PNG"))
    for seed in range(3):
        write(folder / f"form/{seed}.png", saved(Image.fromarray(form(seed)), "PNG"))
        write(folder / f"page/{seed}.jpg", saved(Image.fromarray(page(seed))))


@pytest.mark.parametrize("profile", ["fast", "balanced", "thorough"])
def test_m4_flat_pictures_gradients_and_forms_are_merged_by_no_profile(
    tmp_path: Path, profile: str
) -> None:
    make_look_alikes(tmp_path / "in")
    # As far as any profile looks, so that all of them are compared.
    done = run(tmp_path / "in", tmp_path / "out", profile=profile, wavelet_bits=68)
    assert {row["status"] for row in done.rows.values()} == {"unique"}
    edges = edges_of(done)
    pairs = [(f"{name}.png", f"{other}.png") for name, other in (
        ("flat/1", "flat/2"), ("flat/3", "flat/4"), ("gradient/1", "gradient/2")
    )]  # fmt: skip
    for name, kind in (("form", "png"), ("page", "jpg")):
        files = [f"{name}/{seed}.{kind}" for seed in range(3)]
        pairs += itertools.combinations(files, 2)
    for one, other in pairs:
        # They were compared, not overlooked.
        assert edges[frozenset((one, other))]["verdict"] in ("reject", "review"), (one, other)


_FAST = """
import collections, json, os, sys
opened = collections.Counter()
def hook(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        opened[os.fsdecode(args[0])] += 1
    # Also where it is not installed: this is the attempt.
    if event == "import" and args[0].split(".")[0] == "torch":
        attempted.add("torch")
attempted = set()
sys.addaudithook(hook)
import beam_dedup
folder, output, profile = sys.argv[1:]
result = beam_dedup.deduplicate(folder, output, workers=1, profile=profile)
print(json.dumps({
    "opened": {name: n for name, n in opened.items() if name.startswith(folder + "/")},
    "heavy": sorted(attempted | ({"torch", "apache_beam.ml.inference.base"} & sys.modules.keys())),
    "bytes": result.summary["bytes"],
    "stages": [stage["name"] for stage in result.summary["stages"]],
}))
"""


def _watched(folder: Path, output: Path, profile: str) -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, "-c", _FAST, str(folder), str(output), profile],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def test_profile_fast_imports_no_torch_and_reads_each_file_once(
    collection: Path, tmp_path: Path
) -> None:
    told = _watched(collection, tmp_path / "out", "fast")
    assert told["heavy"] == []
    assert told["bytes"]["read_second"] == 0
    files = {str(path): 1 for path in collection.rglob("*") if path.is_file()}
    assert told["opened"] == files
    assert not {"features", "global", "local"} & set(told["stages"])
    report = Report.open(str(tmp_path / "out"))
    assert report.check() == []
    found = rows_below(collection, report)  # type: ignore[arg-type]
    assert {name: row["status"] for name, row in found.items()} == {
        name: expected[0] for name, expected in (GROUPED | ALONE | FAILED).items()
    }


def test_profile_fast_never_reads_a_file_twice_whatever_it_cannot_decide(tmp_path: Path) -> None:
    make_parts(tmp_path / "in")
    make_hard_collection(tmp_path / "in")
    told = _watched(tmp_path / "in", tmp_path / "out", "fast")
    assert set(told["opened"].values()) == {1}
    assert len(told["opened"]) == 14 + 12
    assert told["bytes"]["read_first"] == told["bytes"]["listed"]
    assert told["bytes"]["read_second"] == 0
    assert told["heavy"] == []
    assert "words" not in told["stages"]


def test_no_profile_reads_a_file_more_than_twice(tmp_path: Path) -> None:
    make_hard_collection(tmp_path / "in")
    write(tmp_path / "in/whole.jpg", saved(photo(70)))
    write(tmp_path / "in/written.jpg", saved(pictures.captioned(photo(70))))
    told = _watched(tmp_path / "in", tmp_path / "out", "thorough")
    files = {str(path) for path in (tmp_path / "in").rglob("*") if path.is_file()}
    assert told["opened"].keys() == files
    assert set(told["opened"].values()) == {1, 2}
    assert told["bytes"]["read_first"] == told["bytes"]["listed"]


def test_p15_a_rerun_replaces_the_earlier_run_and_nothing_else(
    collection: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    first = run(collection, output, profile="fast")
    foreign = write(output / "images/mine.parquet", b"not theirs")
    again = run(collection / "sea", output, profile="fast")
    assert again.result.run_id != first.result.run_id
    assert sorted(again.rows) == sorted(
        path.name for path in (collection / "sea").iterdir() if path.is_file()
    )
    on_disk = {str(path.relative_to(output)) for path in output.rglob("*") if path.is_file()}
    assert on_disk == {f"{table}/{again.result.run_id}-00000.parquet" for table in TABLES} | {
        "images/mine.parquet",
        "report.csv",
        "summary.json",
        "manifest.json",
        "metrics.json",
    }
    assert foreign.read_bytes() == b"not theirs"
    assert Report.open(str(output)).check() == []


def test_p15_shards_of_a_run_without_a_manifest_are_not_read(
    collection: Path, tmp_path: Path
) -> None:
    stale = write(tmp_path / "out/images/old-00000.parquet", b"PAR1 half a shard")
    done = run(collection / "pair", tmp_path / "out", profile="fast")
    assert sorted(done.rows) == ["1.jpg", "2.jpg"]
    assert stale.exists()
    assert Report.open(str(tmp_path / "out")).check() == []


def test_limit_takes_the_first_by_path(collection: Path, tmp_path: Path) -> None:
    done = run(collection, tmp_path / "out", limit=5, profile="fast")
    assert list(done.rows) == [f"alone/{seed}.jpg" for seed in range(10, 15)]
    assert done.result.counts["listed"] == 5
    assert done.result.summary["options"]["limit"] == 5


def test_include_and_exclude_are_counted(collection: Path, tmp_path: Path) -> None:
    done = run(
        collection,
        tmp_path / "out",
        include=["*.jpg", "*.png"],
        exclude=["alone/", "backup/**"],
        profile="fast",
    )
    left = {n for n in GROUPED | ALONE | FAILED if n.endswith((".jpg", ".png"))}
    left = {name for name in left if not name.startswith(("alone/", "backup/"))}
    assert set(done.rows) == left
    assert [(cap["name"], cap["applied"]) for cap in done.result.summary["caps"]] == [
        ("excluded", 27 - len(left))
    ]


def test_200_distinct_near_copies_stay_one_group(tmp_path: Path) -> None:
    one = photo(50, 160, 120)
    for number in range(200):
        write(tmp_path / f"in/{number:03d}.jpg", saved(pictures.nudged(one, number)))
    for seed in range(51, 55):
        write(tmp_path / f"in/other{seed}.jpg", saved(photo(seed, 160, 120)))
    done = run(tmp_path / "in", tmp_path / "out")
    counts = {"listed": 204, "unique": 4, "best": 1, "duplicate": 199, "failed": 0, "groups": 1}
    assert done.result.counts == counts
    assert len({row["pixel_hash"] for row in done.rows.values()}) == 204
    [group] = done.result.groups.to_pylist()
    assert group["size"] == 200
    assert {row["relation"] for row in done.rows.values()} == {None, "reencoded"}
    assert Report.open(str(done.output)).check() == []


@pytest.mark.parametrize("profile", ["fast", "balanced"])
def test_a_relation_that_is_taken_out_goes_to_review(tmp_path: Path, profile: str) -> None:
    write(tmp_path / "in/original.jpg", saved(photo(60)))
    write(tmp_path / "in/q60.jpg", saved(photo(60), quality=60))
    write(tmp_path / "in/mirrored.jpg", saved(pictures.mirrored(photo(60)), quality=85))
    kept = [name for name in beam_dedup.options.DUPLICATE_RELATIONS if name != "mirrored"]
    done = run(tmp_path / "in", tmp_path / "out", profile=profile, duplicate_relations=kept)
    assert facts(done, "status", "relation") == {
        "original.jpg": ("best", None),
        "q60.jpg": ("duplicate", "reencoded"),
        "mirrored.jpg": ("unique", None),
    }
    edges = edges_of(done)
    assert edges[frozenset(("original.jpg", "q60.jpg"))]["verdict"] == "accept"
    edge = edges[frozenset(("original.jpg", "mirrored.jpg"))]
    assert (edge["verdict"], edge["relation"], edge["in_group"]) == ("review", "mirrored", False)


def test_the_command_line_prints_the_summary(
    collection: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["run", f"--input={collection}", f"--output={tmp_path / 'out'}", "--profile=fast"]
    assert cli.main([*argv, "--workers=1", "--max-failure-ratio=0.2"]) == 0
    out = capfd.readouterr().out
    assert "27 (8 unique, 5 best, 11 duplicate, 3 failed)" in out
    assert len(Report.open(str(tmp_path / "out")).images) == 27


def test_several_inputs_and_a_list_are_one_collection(collection: Path, tmp_path: Path) -> None:
    listed = write(tmp_path / "list.txt", f"{collection / 'sea/original.jpg'}\n".encode())
    inputs = [listed, collection / "pair", collection / "pair/1.jpg", collection / "sea"]
    result = beam_dedup.deduplicate(inputs, tmp_path / "out", workers=1, profile="fast")
    assert result.counts == {
        "listed": 8,
        "unique": 0,
        "best": 2,
        "duplicate": 6,
        "failed": 0,
        "groups": 2,
    }


def test_each_failing_run_leaves_the_earlier_report(collection: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    first = run(collection / "pair", output, profile="fast")
    before = {p: p.read_bytes() for p in output.rglob("*") if p.is_file()}
    with pytest.raises(beam_dedup.UsageError, match="no such file"):
        beam_dedup.deduplicate(collection / "gone", output, workers=1)
    assert {p: p.read_bytes() for p in output.rglob("*") if p.is_file()} == before
    assert Report.open(str(output)).run_id == first.result.run_id
