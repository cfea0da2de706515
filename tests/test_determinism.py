"""G2: the rows are a function of the input set, whatever the order, workers and bounds on work."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import beam_dedup
from beam_dedup.reports import Report
from tests import pictures
from tests.pictures import flat, photo, saved, write

_IMAGES = Path(__file__).resolve().parents[2] / "shared/images"

Tables = dict[str, list[dict[str, Any]]]

# Every bound on work at its least, and at odd values between.
_LEAST = {f"{name}_{stage}": low for name, low in (("batch_size", 1), ("max_group_size", 2))
          for stage in ("color", "global", "local")}  # fmt: skip
_ODD = {
    "batch_size_color": 7,
    "batch_size_global": 3,
    "batch_size_local": 5,
    "max_group_size_color": 9,
    "max_group_size_global": 5,
    "max_group_size_local": 3,
}


def tables(result: beam_dedup.Result) -> Tables:
    """Return all rows of a run, with every column, in the order of their keys."""
    report = Report.open(result.output)
    assert report.check() == []
    return {
        "images": sorted(report.images.to_pylist(), key=lambda row: row["uri"]),
        "groups": sorted(report.groups.to_pylist(), key=lambda row: row["group_id"]),
        "edges": sorted(report.edges.to_pylist(), key=lambda row: (row["uri_a"], row["uri_b"])),
    }


def run(inputs: Any, output: Path, **options: Any) -> Tables:
    """Run the whole job and return its rows."""
    return tables(beam_dedup.deduplicate(inputs, output, **{"workers": 1, **options}))


def make_copies(folder: Path, name: str, seed: int) -> None:
    """Write one picture with four to six copies, some of which only stage 4 can judge."""
    one = photo(seed, 160, 120)
    write(folder / f"{name}.jpg", saved(one))
    write(folder / f"copies/{name}.jpg", saved(one))
    write(folder / f"copies/{name} q50.jpg", saved(one, quality=50))
    write(folder / f"copies/{name} crop.jpg", saved(pictures.cropped(one, 0.03), quality=80))
    write(folder / f"copies/{name} caption.png", saved(pictures.captioned(one), "PNG"))
    if seed % 2:
        write(folder / f"copies/{name} turned.webp", saved(pictures.turned(one), "WEBP"))
        half = pictures.resized(pictures.mirrored(one), 0.5)
        write(folder / f"copies/{name} mirrored.gif", saved(half, "GIF"))


def make_collection(folder: Path) -> None:
    """Write about 150 files: groups, a chain, a crowd, flat pictures, lone ones and failures."""
    for seed in range(16):
        make_copies(folder, f"{seed:02d}", 700 + seed)
    for number in range(12):
        faded = pictures.nudged(photo(730, 160, 120), number)
        write(folder / f"crowd/{number}.jpg", saved(faded, quality=60 + 3 * number))
    for number in range(10):
        mixed = photo(740, 160, 120).point(lambda level, number=number: level * (1 - number / 20))
        write(folder / f"chain/{number}.png", saved(mixed, "PNG"))
    for number in range(8):
        write(folder / f"flat/{number}.png", saved(flat((30 * number, 20, 90)), "PNG"))
    for seed in range(750, 768):
        write(folder / f"alone/{seed}.jpg", saved(photo(seed, 160, 120)))
    write(folder / "bad/empty.jpg", b"")
    write(folder / "bad/cut.jpg", saved(photo(770))[:-300])
    write(folder / "bad/notes.txt", b"text\n")
    (folder / "bad/link.jpg").symlink_to("nowhere")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set") / "in"
    make_collection(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> Tables:
    return run(folder, folder.parent / "out")


@pytest.fixture(scope="module")
def expected_fast(folder: Path) -> Tables:
    return run(folder, folder.parent / "fast", profile="fast")


def test_the_collection_puts_every_stage_to_work(expected: Tables) -> None:
    statuses = [row["status"] for row in expected["images"]]
    assert len(statuses) == sum(1 for _ in expected["images"]) >= 140
    assert set(statuses) == {"unique", "best", "duplicate", "failed"}
    decided = {(edge["decided_by"], edge["verdict"]) for edge in expected["edges"]}
    assert {("color", "accept"), ("local", "accept")} <= decided
    relations = {row["relation"] for row in expected["images"]}
    assert {"exact", "reencoded", "turned", "mirrored", None} <= relations
    assert len(expected["groups"]) >= 16


def test_g2_two_workers_give_the_rows_of_one(
    folder: Path, expected: Tables, tmp_path: Path
) -> None:
    assert run(folder, tmp_path / "out", workers=2) == expected


@pytest.mark.parametrize("bounds", [_LEAST, _ODD], ids=["least", "odd"])
def test_g2_bounds_on_work_change_no_row(
    folder: Path, expected: Tables, tmp_path: Path, bounds: dict[str, int]
) -> None:
    assert run(folder, tmp_path / "out", **bounds) == expected


@pytest.mark.parametrize(
    "include",
    [
        ["**"],
        ["*.txt", "*.[gjpw]*"],
        ["bad/", "copies/**", "alone/*.jpg", "crowd", "chain", "flat", "[0-9][0-9].jpg"],
    ],
)
def test_g2_forms_of_include_that_take_everything_change_no_row(
    folder: Path, expected_fast: Tables, tmp_path: Path, include: list[str]
) -> None:
    assert run(folder, tmp_path / "out", profile="fast", include=include) == expected_fast


def _orders(names: list[str]) -> list[list[str]]:
    shuffled = [random.Random(seed).sample(names, len(names)) for seed in (1,)]
    return [names[::-1], *shuffled]


def _by_list(folder: Path, names: list[str], output: Path, **options: Any) -> Tables:
    """Run over a list file; it lies at the same place for all orders."""
    lines = "".join(f"{folder / name}\n" for name in names)
    return run(write(folder.parent / "list.txt", lines.encode()), output, **options)


def test_g2_the_order_of_the_input_changes_no_row(folder: Path, tmp_path: Path) -> None:
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())
    first = _by_list(folder, names, tmp_path / "0")
    assert len(first["images"]) == len(names)
    for number, order in enumerate(_orders(names), 1):
        assert _by_list(folder, order, tmp_path / str(number)) == first


def test_g2_repeated_and_overlapping_inputs_change_no_row(
    folder: Path, expected: Tables, tmp_path: Path
) -> None:
    inputs = [folder, folder, folder / "copies", f"{folder}/*/*"]
    assert run(inputs, tmp_path / "out") == expected


def test_g2_a_second_run_into_the_same_output_gives_the_same_rows(
    folder: Path, expected_fast: Tables
) -> None:
    assert run(folder, folder.parent / "fast", profile="fast") == expected_fast


_EDITS: dict[str, Callable[[Any], bytes]] = {
    "q40": lambda image: saved(image, quality=40),
    "half": lambda image: saved(pictures.resized(image, 0.5), quality=85),
    "crop": lambda image: saved(pictures.cropped(image, 0.02), quality=85),
    "caption": lambda image: saved(pictures.captioned(image), quality=85),
    "mirrored": lambda image: saved(pictures.mirrored(image), quality=85),
}


@pytest.mark.skipif(not _IMAGES.is_dir(), reason="../shared/images is not here")
def test_g2_photographs_in_any_order_with_any_workers_and_bounds(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "in"
    for number, path in enumerate(sorted(_IMAGES.iterdir())[:60]):
        data = path.read_bytes()
        write(folder / path.name, data)
        name = list(_EDITS)[number % len(_EDITS)]
        with Image.open(path) as image:
            edited = _EDITS[name](image.convert("RGB"))
        write(folder / f"edited/{path.stem} {name}.jpg", edited)
    names = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())
    # The list lies beside the folder, so that all runs have the same paths below the root.
    first = _by_list(folder, names, tmp_path / "1")
    assert len(first["images"]) == 120
    assert len(first["groups"]) >= 40
    assert _by_list(folder, _orders(names)[1], tmp_path / "2", workers=2, **_ODD) == first
