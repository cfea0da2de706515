"""``beam-dedup evaluate``: score a report against the truth, and calibrate thresholds.

Truth and report meet as arrays of codes, a place for each row of the truth; groups are compared by
counting rows that share two codes, so the work is that of a few sorts, never that of all pairs.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import math
import shlex
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_dedup.access import access_of, add_secret_file_option
from beam_dedup.messages import count, one_line
from beam_dedup.options import OptionParser, UsageError
from beam_dedup.reports import Report, ReportError
from transforms.models.spec import DESCRIPTOR, ORB
from transforms.storage.uris import readable

_Codes = NDArray[np.int64]
_Mask = NDArray[np.bool_]

_ORIGINAL = "original"  # the kind of the picture that the copies were made of
_HARD = "hard_"  # kinds that begin so are look-alikes, copies of nothing
_UNLABELLED = "unlabelled"  # the kind where the truth names none
_STAGES = ("exact", "wavelet", "color", "global", "local")  # in the order of the pipeline
_VERDICTS = ("reject", "review", "accept")  # in the order of how far the pair came


class _Score(NamedTuple):
    """A stage's score in ``edges``, and the option that it meets."""

    column: str
    later: tuple[str, ...]  # an edge with one of these was decided by a later stage
    option: str
    pairs: str  # which pairs are looked at
    meaning: str  # what the option does with a threshold
    model: str = ""  # the option that names the model that gives the score


_SCORES = (
    _Score(
        "color_similarity",
        ("global_similarity", "local_score"),
        "color_threshold",
        "that went no further than stage 2",
        "below it stage 2 rejects a pair whose keys are near; at or above it the pair goes on, or "
        "is accepted within the limits of the profile",
    ),
    _Score(
        "global_similarity",
        (),
        "global_threshold",
        "that stage 3 compared",
        "below it stage 3 rejects a pair{near}; at or above it the pair goes on",
        "global_model",
    ),
    _Score(
        "local_score",
        (),
        "local_threshold",
        "that stage 4 compared",
        "at or above it stage 4 accepts a pair, unless it is almost without texture or its "
        "relation is no duplicate; below it the pair is left for review or rejected",
        "local_model",
    ),
)

# What the codes of causes mean; those that name a stage are put together where they are printed.
_CAUSES = {
    "absent": "no row in the report",
    "unproposed": "never proposed",
    "false_group": "not compared: one is in a group of other pictures",
    "taken": "accepted, but taken by another kept image",
}
_CAUSES_AT = {"failed": "failed at", "reject": "rejected by", "review": "left for review by"}


class UsedModels(NamedTuple):
    """The models of a report, and the threshold of stage 3 that decided it."""

    global_model: str
    local_model: str | None  # this and the next: None where stages 3 and 4 did not run
    global_threshold: float | None

    @classmethod
    def of(cls, report: Report) -> UsedModels | None:
        """Take them from a report's summary; None where it records no options, or none ran."""
        options = report.summary.get("options", {})
        # Reports of versions without learned models name none.
        model = options.get("global_model") or DESCRIPTOR
        if options.get("verify"):
            return cls(model, options.get("local_model") or ORB.name, options.get("global_reject"))
        return cls(model, None, None) if model != DESCRIPTOR else None


class Truth(NamedTuple):
    """What a person says of files: a place for each file in all three lists."""

    files: list[str]
    groups: list[str]
    kinds: list[str]


@dataclasses.dataclass(frozen=True)
class Labels:
    """Truth and report side by side: codes, int64 [n], a place for each row of the truth.

    Attributes:
        truth: the true group.
        predicted: the group of the report; a row that is in none has a code of its own.
        kind: a place in ``kinds``.
        row: the row of ``images``, -1 if there is none.
        kinds: names of the kinds of edit, sorted.
    """

    truth: _Codes
    predicted: _Codes
    kind: _Codes
    row: _Codes
    kinds: list[str]

    def only(self, mask: _Mask) -> Labels:
        """Return the labels of some rows alone."""
        return Labels(
            self.truth[mask], self.predicted[mask], self.kind[mask], self.row[mask], self.kinds
        )

    @functools.cached_property
    def true_size(self) -> _Codes:
        """The size of each row's true group, in rows of the truth, int64 [n]."""
        return _sizes(self.truth)

    @functools.cached_property
    def predicted_size(self) -> _Codes:
        """The size of each row's group in the report, in rows of the truth, int64 [n]."""
        return _sizes(self.predicted)

    @functools.cached_property
    def common_size(self) -> _Codes:
        """How many rows share both groups with each row, itself counted, int64 [n]."""
        return _sizes(_joint(self.truth, self.predicted))

    @functools.cached_property
    def is_original(self) -> _Mask:
        """Which rows are originals, bool [n]."""
        return self._is_kind(lambda name: name == _ORIGINAL)

    @functools.cached_property
    def is_hard(self) -> _Mask:
        """Which rows are look-alikes, bool [n]."""
        return self._is_kind(lambda name: name.startswith(_HARD))

    def _is_kind(self, test: Any) -> _Mask:
        return np.array([test(name) for name in self.kinds], bool)[self.kind]


def main(argv: list[str]) -> int:
    """Run ``beam-dedup evaluate``.

    Args:
        argv: the arguments after ``evaluate``.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments, the report or the truth are refused.
    """
    values = _parser().parse_or_help(argv)
    if values is None:
        return 0
    if values.precision is not None and not 0.0 < values.precision < 1.0:
        raise UsageError(f"precision must be above 0 and below 1, not {values.precision!r}")
    try:
        report = Report.open(values.report, access_of(values))
        result = evaluate(report, read_truth(values.truth), values.precision)
    except (ReportError, ValueError) as error:
        raise UsageError(str(error)) from error
    result = {"report": values.report, "run_id": report.run_id, "truth": values.truth, **result}
    print(json.dumps(result, indent=1) if values.json else to_text(result))
    return 0


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="beam-dedup evaluate",
        usage="%(prog)s --report DIR --truth CSV [--precision P] [--json]",
        description="Score a report against what a person says of the files. Changes nothing.",
        epilog="docs/guides/evaluate.md says what each figure means.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--report", required=True, metavar="DIR", help="output folder of a run")
    add_secret_file_option(parser)
    add(
        "--truth",
        required=True,
        metavar="CSV",
        help="columns file (a base name or a path), group_id, and transform (the kind of edit) "
        "if you have it; other columns are ignored",
    )
    add(
        "--precision",
        type=float,
        metavar="P",
        help="also print the threshold of each stage that reaches this precision, above 0 and "
        "below 1",
    )
    add("--json", action="store_true", help="print one JSON object instead of tables")
    add("-v", "--verbose", action="store_true", help="show log lines and tracebacks")
    return parser


def read_truth(path: str) -> Truth:
    """Read what a person says of files.

    Args:
        path: a CSV file, UTF-8 with or without a byte order mark, with the columns ``file``,
            ``group_id`` and perhaps ``transform``.

    Returns:
        One place for each distinct file, in the order of the rows.

    Raises:
        UsageError: the file cannot be read, lacks a column or a value, holds no row, or names one
            file with two groups or two kinds.
    """
    found: dict[str, tuple[str, str]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            header = next(rows, [])
            places = [_place(header, name) for name in ("file", "group_id")]
            kind_place = header.index("transform") if "transform" in header else None
            for row in rows:
                if row:
                    name, group, kind = _values(row, places, kind_place, rows.line_num)
                    if found.setdefault(name, (group, kind)) != (group, kind):
                        raise UsageError(
                            f"line {rows.line_num} gives {name!r} another group or kind than a "
                            "line before it"
                        )
    except UsageError as error:
        raise UsageError(f"truth {path!r}: {error}") from None
    except UnicodeError:
        raise UsageError(f"truth {path!r} is not UTF-8") from None
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"truth {path!r} cannot be read: {reason}") from None
    if not found:
        raise UsageError(f"truth {path!r} holds no row")
    groups, kinds = zip(*found.values(), strict=True)
    return Truth(list(found), list(groups), list(kinds))


def _place(header: list[str], name: str) -> int:
    if name not in header:
        raise UsageError(f"there is no column {name!r}")
    return header.index(name)


def _values(
    row: list[str], places: list[int], kind_place: int | None, line: int
) -> tuple[str, str, str]:
    """Return file, group and kind of one row."""
    name, group = (row[place] if place < len(row) else "" for place in places)
    if not name or not group:
        raise UsageError(f"line {line} has no {'group_id' if name else 'file'}")
    kind = row[kind_place] if kind_place is not None and kind_place < len(row) else ""
    return name, group, kind or _UNLABELLED


def match(files: Sequence[str], paths: Sequence[str]) -> _Codes:
    """Find the report's row of each file: the path that agrees in most of its last names.

    Args:
        files: base names, paths or ``file://`` URIs.
        paths: the readable paths of the report.

    Returns:
        int64 [len(files)]: places in ``paths``, -1 where not even the base name is there, or where
        another file agrees better with the only row.

    Raises:
        UsageError: two rows agree equally well with a file, or two files with a row.
    """
    keys = [_backwards(path) for path in paths]
    order = sorted(range(len(keys)), key=keys.__getitem__)
    ordered = [keys[place] for place in order]
    claims: dict[int, list[tuple[int, int]]] = {}  # by row: names in common, place of the file
    for place, name in enumerate(files):
        key = _backwards(readable(name) if name.startswith("file:///") else one_line(name))
        # Keys that begin alike are neighbours, so the best ones stand around where this would.
        middle = bisect_left(ordered, key)
        near = range(max(0, middle - 2), min(len(ordered), middle + 2))
        common = [_names_in_common(key, ordered[index]) for index in near]
        best = max(common, default=0)
        if common.count(best) > 1 and best:
            raise UsageError(f"{name!r} of the truth names several files of the report; give paths")
        if best:
            claims.setdefault(order[near[common.index(best)]], []).append((best, place))
    rows = np.full(len(files), -1, np.int64)
    for row, claimed in claims.items():
        best, place = max(claimed, key=itemgetter(0))
        equal = [files[other] for number, other in claimed if number == best]
        if len(equal) > 1:
            raise UsageError(f"{equal[0]!r} and {equal[1]!r} of the truth name one file")
        rows[place] = row
    return rows


def _backwards(path: str) -> str:
    """Return a path with its last name first, each name ended by a slash."""
    return "/".join(reversed([name for name in path.split("/") if name != "."])) + "/"


def _names_in_common(first: str, second: str) -> int:
    """Count the names with which two paths of ``_backwards`` both begin."""
    number = 0
    for one, other in zip(first.split("/"), second.split("/"), strict=False):
        if one != other:
            return number
        number += 1
    return number - 1  # what follows the last slash is no name


def evaluate(report: Report, truth: Truth, precision: float | None = None) -> dict[str, Any]:
    """Score a report.

    Args:
        report: of a run.
        truth: what a person says of its files.
        precision: calibrate thresholds for this share of true pairs, above 0 and below 1.

    Returns:
        Figures that JSON can hold; docs/guides/evaluate.md names them.

    Raises:
        UsageError: a file of the truth names several files of the report, or two name one.
        ReportError: a table of the report cannot be read.
    """
    labels = label(report, truth)
    contents = _Contents(report, labels)
    missing = int((labels.row < 0).sum())
    models = UsedModels.of(report)
    result: dict[str, Any] = {
        "models": models and models._asdict(),
        "files": {
            "truth": len(labels.row),
            "report": len(report.images),
            "truth_without_row": missing,
            "report_without_truth": len(report.images) - len(labels.row) + missing,
        },
        "all": agreement(labels),
    }
    if labels.is_hard.any() and not labels.is_hard.all():
        result["photographs"] = agreement(labels.only(~labels.is_hard))
    joins = false_joins(report, labels)
    result |= {
        "recall_by_kind": recall_by_kind(labels),
        "false_merges_by_kind": false_merges_by_kind(labels),
        "false_joins": joins.counts,
        "missed_copies": _missed_copies(report, labels, contents, joins.wrong),
    }
    if precision is not None:
        scores = contents.calibrate(precision, models)
        result["calibration"] = {"precision": precision, "scores": scores}
    return result


def label(report: Report, truth: Truth) -> Labels:
    """Bring truth and report together."""
    images = report.images
    row = match(truth.files, images["path"].to_pylist())
    group = _codes(images["group_id"])
    # Rows in no group, and files without a row, are alone: each has a code of its own.
    alone = group < 0
    group[alone] = len(images) + np.flatnonzero(alone)
    predicted = 2 * len(images) + np.arange(len(row))
    predicted[row >= 0] = group[row[row >= 0]]
    kinds = sorted(set(truth.kinds))
    places = {name: place for place, name in enumerate(kinds)}
    kind = np.array([places[name] for name in truth.kinds], np.int64)
    return Labels(_codes(pa.array(truth.groups)), predicted, kind, row, kinds)


def _codes(values: pa.Array | pa.ChunkedArray) -> _Codes:
    """Number equal texts alike, from 0; null is -1."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    indices = values.dictionary_encode().indices
    return np.asarray(pc.fill_null(indices, -1).to_numpy(zero_copy_only=False), np.int64)


def _sizes(codes: _Codes) -> _Codes:
    """Return for each place how many places have its code."""
    _, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse], np.int64)


def _joint(first: _Codes, second: _Codes) -> _Codes:
    """Return codes that are equal where both codes are; from 0, below 2^31 each."""
    return first * (int(second.max(initial=0)) + 1) + second


def agreement(labels: Labels) -> dict[str, Any]:
    """Compare two partitions of the same files.

    Pairs: the share of pairs in one predicted group that are in one true group (precision), and
    the other way round (recall). B-cubed: the mean over files of the share of a file's predicted
    group that is of its true group (precision), and the other way round (Bagga and Baldwin, 1998).
    """
    true, predicted, common = labels.true_size, labels.predicted_size, labels.common_size
    # A group of s files has s (s - 1) / 2 pairs: each file brings (s - 1) / 2 of them.
    pairs = [int((sizes - 1).sum()) // 2 for sizes in (true, predicted, common)]
    return {
        "files": len(true),
        "true_pairs": pairs[0],
        "predicted_pairs": pairs[1],
        "correct_pairs": pairs[2],
        "pairwise": _figures(_share(pairs[2], pairs[1]), _share(pairs[2], pairs[0])),
        "b_cubed": _figures(float((common / predicted).mean()), float((common / true).mean())),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _figures(precision: float, recall: float) -> dict[str, float]:
    both = precision + recall
    f1 = 2 * precision * recall / both if both else 0.0
    return {"precision": precision, "recall": recall, "f1": f1}


def recall_by_kind(labels: Labels) -> dict[str, dict[str, float]]:
    """Return the share of the copies of each kind that were found.

    A copy is found if it lies in the group of its original. Where no row at all is an original, it
    is found if it shares a group with any other row of its true group.
    """
    copies = ~labels.is_original & ~labels.is_hard
    if labels.is_original.any():
        original = np.full(labels.truth.max() + 1, -1)
        original[labels.truth[labels.is_original]] = labels.predicted[labels.is_original]
        hit = original[labels.truth] == labels.predicted
    else:
        copies &= labels.true_size > 1
        hit = labels.common_size > 1
    return {
        name: {"found": found, "of": number, "recall": found / number}
        for name, found, number in _tally(labels, copies & hit, copies)
    }


def false_merges_by_kind(labels: Labels) -> dict[str, dict[str, int]]:
    """Count the files of each kind that share a group with a file of another true group."""
    merged = labels.common_size < labels.predicted_size
    everything = np.ones(len(merged), bool)
    return {
        name: {"merged": number, "of": total}
        for name, number, total in _tally(labels, merged, everything)
    }


def _tally(labels: Labels, part: _Mask, whole: _Mask) -> Iterable[tuple[str, int, int]]:
    """Yield each kind that the whole holds, with its rows in the part and in the whole."""
    parts, wholes = (
        np.bincount(labels.kind[mask], minlength=len(labels.kinds)).tolist()
        for mask in (part, whole)
    )
    return [row for row in zip(labels.kinds, parts, wholes, strict=True) if row[2]]


class FalseJoins(NamedTuple):
    """Duplicates that hang on an image of another true group."""

    wrong: _Mask  # bool [n], by row of the truth
    counts: dict[str, Any]


def false_joins(report: Report, labels: Labels) -> FalseJoins:
    """Count the duplicates that hang on an image of another true group, by what joined them.

    ``decided_by`` of a duplicate's row is that of the accepted edge to its kept image, and
    ``exact`` where the hashes are equal. Where the truth does not know the kept image, it counts
    as of the true group that most of its group is of.
    """
    images = report.images
    best = np.asarray(
        pc.fill_null(pc.index_in(images["best_uri"], value_set=images["uri"]), -1), np.int64
    )
    # The last place of all three is for files without a row, -1.
    kept = _by_row(labels, len(images))[np.append(best, -1)[labels.row]]
    reference = labels.truth[_largest(labels.predicted, labels)]
    reference = np.where(kept >= 0, labels.truth[kept], reference)
    # Only duplicates have it.
    stages = np.array([*pc.fill_null(images["decided_by"], "").to_pylist(), ""], object)[labels.row]
    wrong = (stages != "") & (reference != labels.truth)
    return FalseJoins(wrong, _counts(labels, np.flatnonzero(wrong), stages[wrong]))


def _by_row(labels: Labels, rows: int) -> _Codes:
    """Return for each row of ``images`` its place in the truth, -1 if it has none."""
    known = np.full(rows + 1, -1, np.int64)
    known[labels.row] = np.arange(len(labels.row))
    known[-1] = -1
    return known


def _largest(groups: _Codes, labels: Labels) -> _Codes:
    """Return for each place the one that stands for its group.

    It is the first of those that share both groups with most others; one with a row comes before
    one without.
    """
    order = np.lexsort((labels.row < 0, -labels.common_size, groups))
    _, first, inverse = np.unique(groups[order], return_index=True, return_inverse=True)
    back = np.empty_like(order)
    back[order] = inverse
    return np.asarray(order[first][back], np.int64)


def _counts(labels: Labels, places: _Codes, names: Iterable[Any]) -> dict[str, Any]:
    """Count names, alone and by kind; those of most places first."""
    total: dict[str, int] = {}
    by_kind: dict[str, dict[str, int]] = {}
    for kind, name in zip(labels.kind[places].tolist(), names, strict=True):
        total[name] = total.get(name, 0) + 1
        of_kind = by_kind.setdefault(labels.kinds[kind], {})
        of_kind[name] = of_kind.get(name, 0) + 1
    return {
        "total": sum(total.values()),
        "by_stage": dict(sorted(total.items(), key=lambda item: (-item[1], item[0]))),
        "by_kind": {kind: dict(sorted(by_kind[kind].items())) for kind in sorted(by_kind)},
    }


class _Contents:
    """What the edges say, where an edge stands for all rows with the pixels of its ends.

    Attributes:
        of_row: the content of each row of ``images``, int64.
        a, b: the contents that each edge joins, int64 [e].
        edges: the table.
    """

    def __init__(self, report: Report, labels: Labels) -> None:
        images, self.edges = report.images, report.edges
        self.of_row = _codes(images["pixel_hash"])
        failed = self.of_row < 0
        self.of_row[failed] = len(images) + np.flatnonzero(failed)
        self.row_a, self.row_b = (
            np.asarray(pc.fill_null(pc.index_in(self.edges[end], value_set=images["uri"]), -1))
            for end in ("uri_a", "uri_b")
        )
        self.a, self.b = self.of_row[self.row_a], self.of_row[self.row_b]
        self._groups = int(labels.truth.max()) + 1
        seen = labels.row >= 0
        # Which contents have a file of which true group; equal pixels may have several.
        self._members = np.unique(self._member(self.of_row[labels.row[seen]], labels.truth[seen]))
        self._rank = self._ranks()

    def _member(self, content: _Codes, truth: _Codes) -> _Codes:
        return content * self._groups + truth

    def _ranks(self) -> _Codes:
        """Return how far each edge came: by verdict, then by stage."""
        verdicts = {name: place for place, name in enumerate(_VERDICTS)}
        stages = {name: place for place, name in enumerate(_STAGES)}
        columns = (self.edges[name].to_pylist() for name in ("verdict", "decided_by"))
        return np.array(
            [
                verdicts.get(verdict, 0) * len(_STAGES) + stages.get(stage, 0)
                for verdict, stage in zip(*columns, strict=True)
            ],
            np.int64,
        )

    def best_edges(self, content: _Codes, truth: _Codes) -> _Codes:
        """Find the edge that came furthest between a content and any other of a true group.

        Args:
            content: int64 [m].
            truth: int64 [m].

        Returns:
            Places in ``edges``, int64 [m]; -1 where there is none.
        """
        asked, inverse = np.unique(self._member(content, truth), return_inverse=True)
        content, truth = np.divmod(asked, self._groups)
        # Every edge from both ends, by content, so that those of one content are neighbours.
        here, there = np.concatenate([self.a, self.b]), np.concatenate([self.b, self.a])
        edge = np.tile(np.arange(len(self.a)), 2)
        order = np.argsort(here, kind="stable")
        start, end = (np.searchsorted(here[order], content, side) for side in ("left", "right"))
        size = end - start
        asker = np.repeat(np.arange(len(asked)), size)
        half = order[np.arange(size.sum()) + np.repeat(start - np.cumsum(size) + size, size)]
        good = np.isin(self._member(there[half], truth[asker]), self._members)
        asker, edge = asker[good], edge[half[good]]
        best = np.full(len(asked), -1, np.int64)
        by_rank = np.argsort(self._rank[edge], kind="stable")
        best[asker[by_rank]] = edge[by_rank]  # the last one stays
        return np.asarray(best[inverse], np.int64)

    def calibrate(self, precision: float, models: UsedModels | None) -> list[dict[str, Any]]:
        """Find the threshold of each stage's score that reaches a precision.

        The score of a model says nothing of another's, so ``use`` names both options.
        """
        truth = self._truth_of_contents()
        known = (truth[self.a] >= 0) & (truth[self.b] >= 0)
        same = truth[self.a] == truth[self.b]
        results = []
        for score in _SCORES:
            values, *later = (
                pc.fill_null(self.edges[name], -1.0).to_numpy()
                for name in (score.column, *score.later)
            )
            here = known & (values >= 0.0)
            for other in later:
                here &= other < 0.0
            found = threshold_for(precision, values[here], same[here])
            model = getattr(models, score.model, None) if score.model else None
            # A learned model compares other pairs too; see GlobalSettings.
            near = "" if model and model != DESCRIPTOR else " whose keys are near"
            results.append(
                {
                    "score": score.column,
                    "option": score.option,
                    "compared": score.pairs,
                    "meaning": score.meaning.format(near=near),
                    "model": model,
                    **found,
                    "use": _option_line(score, model, found["threshold"]),
                }
            )
        return results

    def _truth_of_contents(self) -> _Codes:
        """Return the true group of each content; -1 where it is unknown or not one."""
        content, truth = np.divmod(self._members, self._groups)
        result = np.full(int(self.of_row.max(initial=0)) + 1, -1, np.int64)
        result[content] = truth
        result[content[1:][content[1:] == content[:-1]]] = -1
        return result


def _option_line(score: _Score, model: str | None, threshold: float | None) -> str | None:
    """Return the options that take a threshold, and the model that it is for, to the next run."""
    if threshold is None:
        return None
    words = [f"--{score.model}={model}"] if model else []
    return shlex.join([*words, f"--{score.option}={threshold}"])


def threshold_for(
    precision: float, scores: NDArray[np.float64], same: NDArray[np.bool_]
) -> dict[str, Any]:
    """Find the smallest threshold at which the pairs at or above it reach a precision.

    A share of one in n errors cannot be seen in fewer than n pairs, so a threshold counts only
    where at least 1 / (1 - precision) pairs lie at or above it.

    Args:
        precision: above 0 and below 1.
        scores: float64 [k].
        same: bool [k], whether the pair is a true one.

    Returns:
        ``status`` (``reached``, ``unreached`` or ``too_few``), ``pairs`` and ``copies`` (how many
        there are, and how many of them are true), ``needed`` (pairs); then of the pairs at or above
        the threshold ``threshold``, ``precision`` and ``recall`` (share of the true pairs here),
        null if there is none.
    """
    needed = math.ceil(round(1.0 / (1.0 - precision), 6))
    order = np.argsort(-scores, kind="stable")
    scores, same = scores[order], same[order]
    # Pairs of one score lie on the same side of any threshold.
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    number, true = last + 1, np.cumsum(same)[last]
    good = true >= precision * number
    enough = good & (number >= needed)
    found: dict[str, Any] = {"threshold": None, "precision": None, "recall": None}
    status = "too_few" if good.any() or len(scores) < needed else "unreached"
    if enough.any():
        at = np.flatnonzero(enough)[-1]
        status = "reached"
        found = {
            "threshold": float(scores[last[at]]),
            "precision": float(true[at] / number[at]),
            "recall": _share(int(true[at]), int(same.sum())),
        }
    counts = {"pairs": len(scores), "copies": int(same.sum()), "needed": needed}
    return {"status": status, **counts, **found}


def _missed_copies(
    report: Report, labels: Labels, contents: _Contents, wrong: _Mask
) -> dict[str, Any]:
    """Count the copies that are not in the group of their reference, by why they are not.

    The reference of a true group is its original, or where there is none the row of which most
    others of its true group share its group.
    """
    reference = _largest(labels.truth, labels)
    original = np.full(labels.truth.max() + 1, -1)
    original[labels.truth[labels.is_original]] = np.flatnonzero(labels.is_original)
    reference = np.where(original[labels.truth] >= 0, original[labels.truth], reference)
    copies = ~labels.is_original & ~labels.is_hard & (labels.true_size > 1)
    missed = np.flatnonzero(copies & (labels.predicted != labels.predicted[reference]))
    listed = missed[labels.row[missed] >= 0]
    edge = np.full(len(labels.row), -1)
    edge[listed] = contents.best_edges(contents.of_row[labels.row[listed]], labels.truth[listed])
    cause = functools.partial(_cause, _Evidence.of(report, contents), labels.row.tolist())
    places = zip(missed.tolist(), reference[missed].tolist(), edge[missed].tolist(), strict=True)
    why = [
        cause(place, other, one, bool(wrong[[place, other]].any())) for place, other, one in places
    ]
    return _counts(labels, missed, why)


class _Evidence(NamedTuple):
    """Columns that say why a copy was missed, as lists."""

    status: list[str]  # by row of images
    error_stage: list[str | None]
    row_a: list[int]  # by edge
    row_b: list[int]
    verdict: list[str]
    decided_by: list[str]

    @classmethod
    def of(cls, report: Report, contents: _Contents) -> _Evidence:
        """Take the columns of a report."""
        images, edges = report.images, report.edges
        return cls(
            images["status"].to_pylist(),
            images["error_stage"].to_pylist(),
            contents.row_a.tolist(),
            contents.row_b.tolist(),
            edges["verdict"].to_pylist(),
            edges["decided_by"].to_pylist(),
        )


def _cause(
    evidence: _Evidence, rows: list[int], place: int, reference: int, edge: int, wrong: bool
) -> str:
    """Name why a copy is not in the group of its reference.

    Args:
        evidence: of the report.
        rows: of ``images``, by place; -1 if there is none.
        place: of the copy.
        reference: place of its reference.
        edge: the one that came furthest between the copy and a file of its true group, or -1.
        wrong: whether one of the two hangs on an image of another true group.
    """
    ends = (rows[place], rows[reference])
    if min(ends) < 0:
        return "absent"
    for row in ends:
        if evidence.status[row] == "failed":
            return f"failed_{evidence.error_stage[row]}"
    if edge < 0:
        # A grouped copy is compared no further, so nobody knows whether a key would have found it.
        return "false_group" if wrong else "unproposed"
    verdict = evidence.verdict[edge]
    if verdict == "accept":
        return "taken"
    if verdict == "review":
        for row in (evidence.row_a[edge], evidence.row_b[edge]):
            if evidence.error_stage[row]:
                return f"failed_{evidence.error_stage[row]}"
    return f"{verdict}_{evidence.decided_by[edge]}"


def to_text(result: dict[str, Any]) -> str:
    """Return the figures of ``main`` as tables for people."""
    files = result["files"]
    parts = [
        f"report  {one_line(result['report'])} (run {one_line(result['run_id'])}, "
        f"{count(files['report'])} files)",
        f"truth   {one_line(result['truth'])} ({count(files['truth'])} files)",
    ]
    if models := result["models"]:
        used = [models["global_model"], models["local_model"]]
        parts.append(f"models  {', '.join(one_line(name) for name in used if name)}")
        if (value := models["global_threshold"]) is not None:
            parts[-1] += f" (global_threshold {value:g})"
    if number := files["truth_without_row"]:
        parts.append(f"in the truth alone   {count(number)} (each counts as a group of its own)")
    if number := files["report_without_truth"]:
        parts.append(f"in the report alone  {count(number)} (left out)")
    parts += ["", _table(_agreement_rows(result))]
    recalls = result["recall_by_kind"].items()
    rows = [(k, count(v["found"]), count(v["of"]), f"{v['recall']:.4f}") for k, v in recalls]
    parts += ["", _table([("copies found, by kind", "found", "of", "recall"), *_indented(rows)])]
    merges = result["false_merges_by_kind"].items()
    merged = [(k, count(v["merged"]), count(v["of"])) for k, v in merges if v["merged"]]
    parts += ["", _table([("merged with others, by kind", "files", "of"), *_indented(merged)])]
    for title, name, unit in (
        ("joined wrongly, by stage", "false_joins", "files"),
        ("copies missed, by stage", "missed_copies", "copies"),
    ):
        counts = [(_told(k), count(v)) for k, v in result[name]["by_stage"].items()]
        parts += ["", _table([(title, unit), *_indented(counts)])]
    if "calibration" in result:
        parts += ["", *_calibration_lines(**result["calibration"])]
    return "\n".join(parts)


def _agreement_rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("", "precision", "recall", "F1", "correct", "predicted", "true")
    ]
    for title, name, figures in (
        ("pairs", "all", "pairwise"),
        ("B-cubed", "all", "b_cubed"),
        ("pairs, photographs alone", "photographs", "pairwise"),
    ):
        if name in result:
            values = (f"{value:.4f}" for value in result[name][figures].values())
            pairs = (
                count(result[name][f"{which}_pairs"]) for which in ("correct", "predicted", "true")
            )
            rows.append((title, *values, *(pairs if figures == "pairwise" else ())))
    return rows


def _told(cause: str) -> str:
    """Return a cause of a missed copy, or a stage, in words."""
    start, _, stage = cause.partition("_")
    return _CAUSES.get(cause) or (f"{_CAUSES_AT[start]} {stage}" if start in _CAUSES_AT else cause)


def _indented(rows: Sequence[tuple[str, ...]]) -> Iterable[tuple[str, ...]]:
    return [(f"  {one_line(row[0])}", *row[1:]) for row in rows] or [("  none",)]


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    """Align columns, the first one to the left and the others to the right."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = []
    for first, *others in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=False))
        lines.append("  ".join((f"{first:<{widths[0]}}", *cells)).rstrip())
    return "\n".join(lines)


def _calibration_lines(precision: float, scores: list[dict[str, Any]]) -> list[str]:
    lines = [f"thresholds for a precision of {precision:g}, of the pairs in edges"]
    for score in scores:
        if score["status"] == "reached":
            found = (
                f"{score['threshold']:.4f}: precision {score['precision']:.4f}, recall "
                f"{score['recall']:.4f}"
            )
        elif score["status"] == "unreached":
            found = "none: no threshold reaches this precision"
        else:
            found = (
                f"none: too few pairs with a truth, {count(score['needed'])} must lie at or above "
                "a threshold"
            )
        lines += [
            f"  --{score['option']} {found}",
            f"    {score['score']} of the {count(score['pairs'])} pairs {score['compared']}, "
            f"{count(score['copies'])} of them copies",
            f"    {score['meaning']}",
        ]
        if score["use"] and score["model"]:
            lines.append(f"    valid for this model alone: {one_line(score['use'])}")
    return lines
