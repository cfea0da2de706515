#!/usr/bin/env python3
"""Show that a container gives the rows that a folder gives: ``make azure-demo [ARGS="DIR"]``.

    python benchmarks/azure_demo.py [FOLDER] [--profile balanced]

Starts Azurite, uploads a folder (or one that it makes: photographs, copies of them, hostile files,
odd names), runs ``beam-dedup run`` from azfs to azfs and once more on the folder itself, and
compares the rows of all tables. They must be equal but for ``etag``, ``modified``, and the root of
the input in URIs and paths. Ends with 1 if they differ.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hostile import hostile_files
from machine import describe

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from beam_dedup.reports import Report
from tests import pictures
from tests.azurite import ACCOUNT, Azurite, missing, started
from tests.pictures import photo, saved, write
from transforms.reporting.schema import TABLES
from transforms.storage.uris import to_uri

_INPUT, _OUTPUT = ("pictures", "demo"), ("report", "run")  # containers and prefixes of names
_OF_THE_STORE = {"etag", "modified"}  # columns that say where a file lies, and not what is in it
_NAMES = {"uri", "path", "best_uri", "uri_a", "uri_b"}  # columns that begin with the input root
_SHOWN = 5  # differences of a table that are printed

Rows = list[dict[str, Any]]


def make_pictures(folder: Path, count: int = 30) -> None:
    """Write photographs, three copies of each third one, the hostile files, and odd names."""
    for seed in range(count):
        image = photo(2000 + seed)
        write(folder / f"photographs/{seed:02d}.jpg", saved(image))
        if seed % 3 == 0:
            write(folder / f"same/{seed:02d}.jpg", saved(image))
            write(folder / f"mail/{seed:02d} small.jpg", saved(pictures.resized(image, 0.6)))
            write(folder / f"mail/{seed:02d} cut.png", saved(pictures.cropped(image, 0.1), "PNG"))
    for name, data in hostile_files().items():
        write(folder / "hostile" / name, data)
    for name in (
        "ä b.jpg",
        "a\u0308 b.jpg",
        "a?x=1#2.jpg",
        "100%20+1.jpg",
        "'\"`$(x).jpg",
        "图.jpg",
    ):
        write(folder / "Odd names é" / name, saved(photo(sum(name.encode()))))


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Give the plain files below a folder, with their names below it, in order."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path


def upload(azurite: Azurite, container: str, prefix: str, folder: Path) -> tuple[int, int]:
    """Upload what is below a folder; return how many files and bytes that were."""
    files = size_bytes = 0
    for name, path in files_below(folder):
        data = path.read_bytes()
        azurite.upload(container, {f"{prefix}/{name}": data})
        files, size_bytes = files + 1, size_bytes + len(data)
    return files, size_bytes


def download(azurite: Azurite, container: str, prefix: str, folder: Path) -> None:
    """Download what is below a prefix into a folder."""
    for name in azurite.names(container):
        if name.startswith(prefix + "/"):
            below = name.removeprefix(prefix + "/")
            write(folder / below, azurite.read(container, name))


def comparable(report: Report, roots: Sequence[str]) -> dict[str, Rows]:
    """Return the rows of each table in order, without what says where the files lie.

    Args:
        report: a report of one input.
        roots: what its URIs and its paths begin with.
    """

    def below(name: str, value: Any) -> Any:
        if name not in _NAMES or value is None:
            return value
        return next((value[len(root) :] for root in roots if value.startswith(root)), value)

    tables = {}
    for table in TABLES.values():
        kept = [name for name in table.schema.names if name not in _OF_THE_STORE]
        found = getattr(report, table.name).select(kept).to_pylist()
        rows = [{name: below(name, value) for name, value in row.items()} for row in found]
        tables[table.name] = sorted(rows, key=lambda row: [str(row[key]) for key in table.keys])
    return tables


def differences(one: Rows, other: Rows, keys: Sequence[str]) -> list[str]:
    """Return a line for each row that only one of two tables has, or that is another there."""
    first = {tuple(row[key] for key in keys): row for row in one}
    second = {tuple(row[key] for key in keys): row for row in other}
    lines = []
    if (len(first), len(second)) != (len(one), len(other)):
        lines.append(f"rows with equal keys: {len(one)} and {len(other)} rows")
    for key in sorted(first.keys() | second.keys(), key=str):
        a, b = first.get(key, {}), second.get(key, {})
        told = {name: (a.get(name), b.get(name)) for name in a | b if a.get(name) != b.get(name)}
        if told:
            lines.append(f"{key}: {told}" if a and b else f"{key}: only in one of the two")
    return lines


def compare(one: Mapping[str, Rows], other: Mapping[str, Rows]) -> bool:
    """Print how the tables compare; return whether all are equal."""
    same = True
    for table in TABLES.values():
        found = differences(one[table.name], other[table.name], table.keys)
        same = same and not found
        state = f"{len(found)} DIFFER" if found else "all equal"
        print(f"{table.name}: {len(one[table.name])} rows compared, {state}")
        for line in found[:_SHOWN]:
            print(f"  {line}")
    return same


def run(source: str, output: str, options: Sequence[str], env: Mapping[str, str]) -> float:
    """Run the program as a user would; return the seconds that it took.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "beam_dedup", "run", f"--input={source}"]
    begun = time.monotonic()
    code = subprocess.run([*command, f"--output={output}", *options], env=dict(env)).returncode
    if code:
        sys.exit(f"beam-dedup run --input={source} ended with {code}")
    return time.monotonic() - begun


def without_azure() -> dict[str, str]:
    """Return the environment without what may name an account or a secret."""
    return {name: value for name, value in os.environ.items() if not name.startswith("AZURE_")}


def demo(azurite: Azurite, folder: Path, scratch: Path, options: Sequence[str]) -> bool:
    """Run both and compare; return whether the rows are equal."""
    for container in (_INPUT[0], _OUTPUT[0]):
        azurite.client.create_container(container)
    files, size_bytes = upload(azurite, *_INPUT, folder)
    print(f"{files} files of {size_bytes / 2**20:.1f} MiB uploaded to {azurite.endpoint}")
    env = without_azure()
    source, output = (f"azfs://{ACCOUNT}/{'/'.join(place)}" for place in (_INPUT, _OUTPUT))
    secret = {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string()}
    print(f"\nbeam-dedup run --input={source} --output={output} {' '.join(options)}", flush=True)
    remote_s = run(source, output, options, env | secret)
    local_s = run(str(folder), str(scratch / "local"), ["--quiet", *options], env)
    print(f"\nfrom azfs to azfs {remote_s:.1f} s, the folder itself {local_s:.1f} s")
    download(azurite, *_OUTPUT, scratch / "remote")
    return compare(
        comparable(Report.open(str(scratch / "remote")), [source]),
        comparable(Report.open(str(scratch / "local")), [to_uri(str(folder)), str(folder)]),
    )


def main() -> int:
    """Make what is needed, and show it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--profile", default="balanced")
    args = parser.parse_args()
    if missing():
        sys.exit(missing())
    print(describe())
    with tempfile.TemporaryDirectory(prefix="beam-dedup-azure-") as name:
        scratch = Path(name).resolve()
        folder = (args.folder or scratch / "pictures").resolve()
        if args.folder is None:
            make_pictures(folder)
        with started(scratch / "azurite") as azurite:
            # The hostile files fail as they should.
            options = [f"--profile={args.profile}", "--max_failure_ratio=1"]
            same = demo(azurite, folder, scratch, options)
    print("the same rows" if same else "DIFFERENT ROWS")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
