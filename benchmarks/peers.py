#!/usr/bin/env python3
"""Compare profile ``fast`` with two other finders of duplicates, in one run on the same files.

    python benchmarks/peers.py SET --env FOLDER [--json FILE]

- imagededup, PHash: 64 bits, its default distance of 10 and its own search.
- PDQ: 256 bits, no more than 31 apart, found by faiss; the pixels are read by OpenCV. 31 is the
  distance that PDQ's authors name (Meta, "The TMK+PDQF Video-Hashing Algorithm and the PDQ
  Image-Hashing Algorithm", 2019).

Both say which files match, not which groups there are; as their users do, files that a chain of
matches joins are one group. Each is installed by pip into an environment of its own under FOLDER,
and stays there for the next time; imagededup brings torch along, a few gigabytes. Each reads every
file whole, in one thread, imagededup in the one child process that it always has. Figures are CPU
seconds, user and system: of all of it, with start-up and search, and of reading and hashing alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# The peers run this file too, in environments that hold neither numpy of ours nor this program:
# at this level it imports no more than the standard library.
from machine import Took, describe, measured, own

_PHASH_DISTANCE = 10
_PDQ_DISTANCE = 31
_ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"), "1"
)


class Matches(NamedTuple):
    """What a peer says of a folder."""

    pairs: list[tuple[str, str]]  # Base names.
    hashed: int
    hash_cpu_s: float  # Reading and hashing alone.


def _cpu_s() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def phash(folder: Path) -> Matches:
    """Match files as imagededup does."""
    from imagededup.methods import PHash

    before = _cpu_s()
    hasher = PHash(verbose=False)
    hashes = hasher.encode_images(str(folder), num_enc_workers=1)
    hash_cpu_s = _cpu_s() - before
    found = hasher.find_duplicates(
        encoding_map=hashes, max_distance_threshold=_PHASH_DISTANCE, num_dist_workers=1
    )
    pairs = [(name, other) for name, others in found.items() for other in others if name < other]
    return Matches(pairs, len(hashes), hash_cpu_s)


def pdq(folder: Path) -> Matches:
    """Match files by PDQ and faiss."""
    import cv2
    import faiss
    import numpy as np
    import pdqhash

    cv2.setNumThreads(1)
    before = _cpu_s()
    names, hashes = [], []
    for path in sorted(folder.iterdir()):
        pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        if pixels is not None:
            names.append(path.name)
            hashes.append(np.packbits(pdqhash.compute(pixels)[0].astype(np.uint8)))
    hash_cpu_s = _cpu_s() - before
    keys = np.stack(hashes)
    index = faiss.IndexBinaryFlat(8 * keys.shape[1])
    index.add(keys)
    # What faiss finds lies below the radius.
    starts, _, others = index.range_search(keys, _PDQ_DISTANCE + 1)
    own_place = np.repeat(np.arange(len(keys)), np.diff(starts.astype(np.int64)))
    once = own_place < others
    ends = zip(own_place[once].tolist(), others[once].tolist(), strict=True)
    return Matches([(names[a], names[b]) for a, b in ends], len(names), hash_cpu_s)


class Peer(NamedTuple):
    """A tool to compare with."""

    title: str
    packages: tuple[str, ...]
    match: Callable[[Path], Matches]


PEERS = {
    "phash": Peer("imagededup PHash 10", ("imagededup==0.3.3.post2",), phash),
    "pdq": Peer(
        "PDQ 31, faiss",
        ("pdqhash==0.2.8", "faiss-cpu==1.15.1", "opencv-python-headless==5.0.0.93"),
        pdq,
    ),
}


def python_of(env: Path, packages: tuple[str, ...]) -> Path:
    """Return the Python of an environment with the packages; make it where it is not there."""
    done, wanted = env / "installed.txt", "\n".join(packages)
    python = env / "bin" / "python"
    if not done.exists() or done.read_text(encoding="utf-8") != wanted:
        print(f"installing {', '.join(packages)} into {env}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(env)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        done.write_text(wanted, encoding="utf-8")
    return python


def components(files: list[str], pairs: list[tuple[str, str]]) -> list[int]:
    """Return a group for each file: two files are in one if a chain of pairs joins them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    place = {name: number for number, name in enumerate(files)}
    ends = [(place[a], place[b]) for a, b in pairs if a in place and b in place]
    rows, columns = zip(*ends, strict=True) if ends else ((), ())
    graph = coo_array(([1] * len(ends), (rows, columns)), shape=(len(files), len(files)))
    groups: list[int] = connected_components(graph, directed=False)[1].tolist()
    return groups


def score(truth: Any, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Score a peer's matches; ``truth`` is what ``read_truth`` returns."""
    import numpy as np
    from quality import figures

    from beam_dedup.evaluate import Labels

    def codes(values: list[str]) -> Any:
        return np.unique(np.array(values, object).astype(str), return_inverse=True)

    kinds, kind = codes(truth.kinds)
    predicted = np.array(components(truth.files, pairs))
    places = np.arange(len(truth.files))
    return figures(Labels(codes(truth.groups)[1], predicted, kind, places, kinds.tolist()))


def line(title: str, images: int, found: dict[str, Any], took: Took, hash_cpu_s: Any) -> list[str]:
    """Return a line of the table at the end."""
    pairs = found["all"]["pairwise"]
    return [
        title,
        *(f"{pairs[key]:.4f}" for key in ("precision", "recall", "f1")),
        f"{found['photographs']['pairwise']['precision']:.4f}",
        f"{found['photographs']['pairwise']['f1']:.4f}",
        f"{found['hard_merged']} of {found['hard']}",
        f"{took.cpu_s:.1f}",
        f"{images / took.cpu_s:.0f}",
        "-" if hash_cpu_s is None else f"{images / hash_cpu_s:.0f}",
        f"{took.peak_sum_bytes / 2**20:.0f}",
    ]


_HEAD = [
    "tool", "precision", "recall", "F1", "P photos", "F1 photos", "hard merged", "CPU s",
    "images/CPU s", "hashing alone", "peak MiB",
]  # fmt: skip


def compare(args: argparse.Namespace) -> None:
    """Run the program and the peers, and print."""
    from quality import by_kind, figures, run, table

    from beam_dedup.evaluate import label, read_truth
    from beam_dedup.reports import Report

    images, truth = args.set.resolve() / "images", read_truth(str(args.set / "truth.csv"))
    count, title = len(truth.files), "beam-dedup fast"
    scores, lines = {}, []
    pythons = {name: python_of(args.env / name, peer.packages) for name, peer in PEERS.items()}
    with tempfile.TemporaryDirectory(prefix="beam-dedup-peers-") as folder:
        took = run(images, Path(folder, "ours"), "fast", 1)
        scores[title] = figures(label(Report.open(str(Path(folder, "ours"))), truth))
        lines.append(line(title, count, scores[title], took, None))
        print(f"{title}: {took}", flush=True)
        for name, peer in PEERS.items():
            written = Path(folder, f"{name}.json")
            command = [str(pythons[name]), __file__, str(args.set), "--peer", name]
            took = measured([*command, "--write", str(written)], env={**os.environ, **_ONE_THREAD})
            said = Matches(*json.loads(written.read_text(encoding="utf-8")))
            scores[peer.title] = score(truth, said.pairs)
            lines.append(line(peer.title, count, scores[peer.title], took, said.hash_cpu_s))
            print(f"{peer.title}: {took}; {said.hashed} of {count} files hashed", flush=True)
    print(f"\n{by_kind(scores)}\n\n{table(_HEAD, lines)}")
    if args.json:
        args.json.write_text(json.dumps(scores, indent=1), encoding="utf-8")


def main() -> None:
    """Compare, or be a peer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", type=Path)
    parser.add_argument("--env", type=Path, help="folder for the peers' environments")
    parser.add_argument("--json", type=Path, help="also write every score to this file")
    parser.add_argument("--peer", choices=sorted(PEERS), help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        said = PEERS[args.peer].match(args.set / "images")
        args.write.write_text(json.dumps(said), encoding="utf-8")
        return
    if args.env is None:
        parser.error("--env is needed: where the peers are installed")
    started = time.monotonic()
    print(f"{describe()}; {args.set}", flush=True)
    compare(args)
    print(f"\nall of it: {own(started)}")


if __name__ == "__main__":
    main()
