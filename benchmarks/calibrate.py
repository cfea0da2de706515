#!/usr/bin/env python3
"""Print what every kind of evidence says about a labelled set, and thresholds that follow.

    python -m benchmarks.calibrate SET [SET ...] [--seed 5] [--pairs 60]

SET is a folder with ``images/`` and ``truth.csv`` (columns file, group_id, transform, source), as
make_bench.py writes it. Files whose transform begins with ``hard_`` are look-alikes. Every set is
measured alone, so that a threshold read off one can be checked on another.
"""

import argparse
import csv
import dataclasses
import os
import platform
import random
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from transforms.grouping.rank import RankFacts, encode_rank
from transforms.imaging import color, descriptor, local, quality, wavelet
from transforms.imaging.decode import DecodeLimits, decode

FIRST_SIDE = 94  # shorter side of the first read, as in transforms.fingerprints
SECOND_SIDE = 384  # longer side of the thumbnail of the second read
CANDIDATE_BITS = 60
_Result = TypeVar("_Result")
KEPT = 0.995  # share of true candidate pairs that a rejecting threshold keeps


@dataclasses.dataclass
class Sample:
    """One image with every feature."""

    file: str
    group: str
    kind: str
    source: str
    keys: npt.NDArray[np.uint8]
    texture: float
    color: npt.NDArray[np.uint8]
    embedding: npt.NDArray[np.float32]
    thumbnail: bytes
    features: bytes
    rank: bytes


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two samples by number, with their wavelet distance and the orientation that gives it."""

    a: int
    b: int
    bits: int
    orientation: int


class Clock:
    """CPU time by step."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    def run(self, step: str, work: Callable[[], _Result]) -> _Result:
        """Return the result of ``work`` and book its CPU time on ``step``."""
        start = time.process_time()
        result = work()
        self.seconds[step] += time.process_time() - start
        self.calls[step] += 1
        return result

    def show(self) -> None:
        """Print the mean CPU time of each step."""
        print("CPU ms a call:")
        for step, seconds in self.seconds.items():
            print(f"  {step:28s} {1000 * seconds / self.calls[step]:7.3f}  ({self.calls[step]})")


def main() -> None:
    """Measure the sets named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=60, help="true pairs verified for each kind")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"machine {platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, ", end="")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, OpenCV {cv2.__version__}")
    for folder in options.sets:
        _measure_set(folder, options.seed, options.pairs)


def _measure_set(folder: Path, seed: int, per_kind: int) -> None:
    clock = Clock()
    samples = _samples(folder, clock)
    print(f"\n=== {folder}: {len(samples)} images, seed {seed}")
    true, false = _pairs(samples)
    print(f"wavelet candidates within {CANDIDATE_BITS} bits: ", end="")
    near = [pair for pair in true if pair.bits <= CANDIDATE_BITS]
    near_false = [pair for pair in false if pair.bits <= CANDIDATE_BITS]
    print(f"{len(near)} of {len(true)} true pairs, {len(near_false)} false ones")
    _show_texture(samples)
    _show_vectors(samples, near, near_false, clock)
    _show_quality(samples)
    _show_verification(samples, true, false, random.Random(seed), per_kind, clock)
    clock.show()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"peak memory {peak} MB")


# ------------------------------------------------------------------------------- features
def _samples(folder: Path, clock: Clock) -> list[Sample]:
    with (folder / "truth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [_sample(folder / "images" / row["file"], row, clock) for row in rows]


def _sample(path: Path, row: dict[str, str], clock: Clock) -> Sample:
    data, name = path.read_bytes(), str(path)
    limits = DecodeLimits()
    first = clock.run(
        "first decode and hash", lambda: decode(data, path=name, min_side=FIRST_SIDE, limits=limits)
    )
    info = first.info
    keys, texture = clock.run("wavelet_keys", lambda: wavelet.wavelet_keys(first.pixels))
    layout = clock.run("color_descriptor", lambda: color.color_descriptor(first.pixels))
    facts = clock.run("quality.measure", lambda: quality.measure(first.pixels, info))
    second = clock.run(
        "second decode",
        lambda: decode(data, path=name, min_side=SECOND_SIDE, limits=limits, with_hash=False),
    )
    thumbnail = _thumbnail(second.pixels)
    features = clock.run("local.extract", lambda: local.extract(thumbnail).pack())
    embedding = clock.run("descriptor.embed", lambda: descriptor.embed(thumbnail))
    rank = encode_rank(
        RankFacts(
            pixels=info.width * info.height,
            effective_pixels=facts.effective_pixels,
            lossless=info.lossless,
            jpeg_origin=info.jpeg_origin,
            jpeg_quality=info.jpeg_quality,
            sharpness=facts.sharpness,
            exif_fields=info.exif_fields,
            captured=info.captured,
            input_index=0,
            size_bytes=len(data),
            below=row["file"],
            uri=row["file"],
        )
    )
    _, packed = cv2.imencode(
        ".jpg", cv2.cvtColor(thumbnail, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90]
    )
    return Sample(
        row["file"], row["group_id"], row["transform"], row["source"], keys, texture, layout,
        embedding, packed.tobytes(), features, rank,
    )  # fmt: skip


def _thumbnail(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    scale = SECOND_SIDE / max(height, width)
    if scale >= 1.0:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _unpacked(sample: Sample) -> tuple[npt.NDArray[np.uint8], local.LocalFeatures]:
    image = cv2.imdecode(np.frombuffer(sample.thumbnail, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"the thumbnail of {sample.file!r} cannot be decoded")
    return (
        np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8),
        local.LocalFeatures.unpack(sample.features),
    )


# ------------------------------------------------------------------------------- pairs
def _pairs(samples: list[Sample]) -> tuple[list[Pair], list[Pair]]:
    """Return the true pairs, and the false ones that some search might propose.

    The false ones are all within 66 bits, all pairs of look-alikes of one kind, and of every image
    the two nearest by wavelet and the three nearest by the embedded descriptor.
    """
    words = np.ascontiguousarray(np.stack([s.keys for s in samples])).view(np.uint64)
    words = words.reshape(len(samples), 8, -1)
    embeddings = np.stack([s.embedding for s in samples])
    turned = [descriptor.orient(embeddings, value) for value in wavelet.ORIENTATIONS]
    groups = np.array([s.group for s in samples])
    kinds = np.array([s.kind for s in samples])
    hard = np.char.startswith(kinds, "hard_")
    true: list[Pair] = []
    false: list[Pair] = []
    for a in range(len(samples)):
        rest = slice(a + 1, None)
        each = np.bitwise_count(words[a][:, None] ^ words[None, rest, 0]).sum(axis=2)
        best = each.argmin(axis=0)
        bits = each.min(axis=0)
        same = groups[rest] == groups[a]
        cosine = np.max([t[a] @ embeddings[rest].T for t in turned], axis=0)
        wanted = (bits <= 66) | (hard[a] & (kinds[rest] == kinds[a]))
        for values, count in ((bits.astype(np.float64), 2), (-cosine, 3)):
            values = np.where(same, np.inf, values)
            wanted[np.argsort(values, kind="stable")[:count]] = True
        for at in np.flatnonzero(same | wanted):
            pair = Pair(a, int(a + 1 + at), int(bits[at]), int(best[at]) + 1)
            (true if same[at] else false).append(pair)
    return true, false


def _kind(samples: list[Sample], pair: Pair) -> str:
    """Name a false pair by the families of its two images."""
    families = sorted(
        s.kind.removeprefix("hard_") if s.kind.startswith("hard_") else "photo"
        for s in (samples[pair.a], samples[pair.b])
    )
    turned = samples[pair.a].source and samples[pair.a].source == samples[pair.b].source
    return "/".join(families) + (" of one source" if turned else "")


def _edit(samples: list[Sample], pair: Pair) -> str:
    """Name a true pair by its edit, or as a pair of two edits."""
    edits = [s.kind for s in (samples[pair.a], samples[pair.b]) if s.kind != "original"]
    return edits[0] if len(edits) == 1 else "two edits"


# ------------------------------------------------------------------------------- tables
def _quantiles(values: Iterable[float], at: tuple[float, ...] = (0.1, 0.5, 1, 5, 50, 95)) -> str:
    return " ".join(f"{value:6.3f}" for value in np.percentile(list(values), at))


def _show_texture(samples: list[Sample]) -> None:
    by_kind: defaultdict[str, list[float]] = defaultdict(list)
    for sample in samples:
        by_kind[sample.kind if sample.kind.startswith("hard_") else "photo"].append(sample.texture)
    print("texture by kind, quantiles 0.1 0.5 1 5 50 95 %")
    for kind, values in sorted(by_kind.items()):
        print(f"  {kind:28s} {_quantiles(values)}")


def _show_vectors(
    samples: list[Sample], near: list[Pair], near_false: list[Pair], clock: Clock
) -> None:
    """Print colour similarity and descriptor cosine of wavelet candidates, true and false."""
    layouts = np.stack([s.color for s in samples])
    embeddings = np.stack([s.embedding for s in samples])

    def similarity(pairs: list[Pair]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        a, b = [p.a for p in pairs], [p.b for p in pairs]
        turns = np.array([p.orientation for p in pairs], np.intp)
        colours, _ = color.compare(layouts[a], layouts[b], turns)
        cosines = (descriptor.orient(embeddings[a], turns) * embeddings[b]).sum(axis=1)
        return colours, cosines.astype(np.float64)

    good, bad = similarity(near), similarity(near_false)
    start = time.process_time()
    similarity(near)
    clock.seconds["compare and orient, a pair"] += time.process_time() - start
    clock.calls["compare and orient, a pair"] += len(near)
    for name, true, false, used in (
        ("colour similarity", good[0], bad[0], color.REJECT_SIMILARITY),
        ("descriptor cosine", good[1], bad[1], descriptor.REJECT_SIMILARITY),
    ):
        print(f"{name} of candidates, quantiles 0.1 0.5 1 5 50 95 %")
        print(f"  {'true':28s} {_quantiles(true)}")
        cut = float(np.quantile(true, 1.0 - KEPT))
        print(f"  keeps {KEPT}: {cut:.3f}; in use {used}: ", end="")
        print(
            f"keeps {np.mean(true >= used):.4f}, rejects {np.mean(false < used):.3f} of the false"
        )
        families = np.array([_kind(samples, pair) for pair in near_false])
        for family, count in Counter(families.tolist()).most_common(16):
            values = false[families == family]
            print(
                f"  {family:28s} {_quantiles(values)}  below {np.mean(values < used):.3f} ({count})"
            )
    texture = np.array([s.texture for s in samples])
    for pairs, colours, name in ((near, good[0], "true"), (near_false, bad[0], "false")):
        accepted = [
            bits <= color.ACCEPT_BITS
            and value >= color.ACCEPT_SIMILARITY
            and min(texture[p.a], texture[p.b]) >= color.ACCEPT_TEXTURE
            for p, value, bits in zip(pairs, colours, (p.bits for p in pairs), strict=True)
        ]
        print(f"accepted by colour and wavelet: {sum(accepted)} of {len(pairs)} {name} candidates")


def _show_quality(samples: list[Sample]) -> None:
    originals = {s.source: s for s in samples if s.kind == "original"}
    first: defaultdict[str, list[bool]] = defaultdict(list)
    for sample in samples:
        if sample.kind != "original" and not sample.kind.startswith("hard_"):
            first[sample.kind].append(originals[sample.source].rank < sample.rank)
    print("share of copies that rank behind their original, by stage 1 alone")
    for kind, values in sorted(first.items(), key=lambda item: float(np.mean(item[1]))):
        print(f"  {kind:28s} {np.mean(values):.3f}")


def _show_verification(
    samples: list[Sample],
    true: list[Pair],
    false: list[Pair],
    chooser: random.Random,
    per_kind: int,
    clock: Clock,
) -> None:
    by_edit: defaultdict[str, list[Pair]] = defaultdict(list)
    for pair in true:
        by_edit[_edit(samples, pair)].append(pair)
    print("verification of true pairs by edit: accepted, review, quantiles of the score, relations")
    for edit, pairs in sorted(by_edit.items()):
        count = per_kind * (20 if edit == "two edits" else 1)
        chosen = chooser.sample(pairs, min(count, len(pairs)))
        _show_edit(samples, edit, chosen, clock)
    results: defaultdict[str, list[float]] = defaultdict(list)
    for pair in false:
        results[_kind(samples, pair)].append(_verify(samples, pair, clock, "false").score)
    print("verification of false pairs by kind: pairs, accepted, review, highest score")
    for kind, scores in sorted(results.items(), key=lambda item: -len(item[1])):
        accepted, review = _verdicts(scores)
        print(f"  {kind:28s} {len(scores):6d} {accepted:4d} {review:4d}  {max(scores):.3f}")


def _show_edit(samples: list[Sample], edit: str, pairs: list[Pair], clock: Clock) -> None:
    found = [_verify(samples, pair, clock, "true") for pair in pairs]
    scores = [evidence.score for evidence in found]
    accepted, review = _verdicts(scores)
    relations = Counter(e.relation for e in found if e.score >= local.ACCEPT_SCORE)
    derived = Counter(
        e.derived if samples[pair.b].kind == "original" else -e.derived
        for e, pair in zip(found, pairs, strict=True)
        if e.score >= local.ACCEPT_SCORE
    )
    line = f"{accepted / len(pairs):.3f} {review / len(pairs):.3f} {_quantiles(scores, (1, 5, 50))}"
    direction = "" if edit == "two edits" else f" derived {dict(sorted(derived.items()))}"
    print(f"  {edit:16s} {line}  {dict(relations.most_common(3))}{direction}")


def _verdicts(scores: list[float]) -> tuple[int, int]:
    accepted = sum(score >= local.ACCEPT_SCORE for score in scores)
    return accepted, sum(score >= local.REVIEW_SCORE for score in scores) - accepted


def _verify(samples: list[Sample], pair: Pair, clock: Clock, label: str) -> local.LocalEvidence:
    thumb_a, features_a = _unpacked(samples[pair.a])
    thumb_b, features_b = _unpacked(samples[pair.b])
    hint = pair.orientation if pair.bits <= CANDIDATE_BITS else None
    return clock.run(
        f"verify, {label}, {'with' if hint else 'without'} hint",
        lambda: local.verify(thumb_a, features_a, thumb_b, features_b, orientation_hint=hint),
    )


if __name__ == "__main__":
    main()
