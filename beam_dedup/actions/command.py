"""``beam-dedup apply``: copy the best of each group, and its duplicates, to another place."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
import time
from collections import Counter

from beam_dedup import progress
from beam_dedup.access import access_of, add_access_options
from beam_dedup.actions.copy import (
    CHANGED,
    CONFLICT,
    COPIED,
    FAILED,
    THERE,
    Copier,
    Result,
)
from beam_dedup.actions.journal import Journal
from beam_dedup.actions.places import Place, place_of
from beam_dedup.actions.plan import Plan
from beam_dedup.messages import count, one_line, redact, safe_line, shell_command, size
from beam_dedup.options import OptionParser, UsageError
from beam_dedup.reports import Report
from transforms.access import Access

_DONE, _FAILED = 0, 1
_LATER = ("move", "delete")
_SHOWN = {COPIED: 10, CHANGED: 10, CONFLICT: 10, FAILED: 10}  # files that are printed one by one
_LABELS = {  # of a plan, and of what was done
    COPIED: ("to copy", "copied"),
    THERE: ("already there", "already there"),
    CHANGED: ("changed", "changed"),
    CONFLICT: ("name taken", "name taken"),
    FAILED: ("failed", "failed"),
}


@dataclasses.dataclass
class Tally:
    """What became of the files so far, and the first of each kind."""

    files: Counter[str] = dataclasses.field(default_factory=Counter)
    best: Counter[str] = dataclasses.field(default_factory=Counter)
    size_bytes: Counter[str] = dataclasses.field(default_factory=Counter)
    first: list[Result] = dataclasses.field(default_factory=list)

    def add(self, result: Result) -> None:
        """Count one file."""
        kind = result.outcome
        if self.files[kind] < _SHOWN.get(kind, 0):
            self.first.append(result)
        self.files[kind] += 1
        self.best[kind] += result.item.is_best
        self.size_bytes[kind] += result.item.size_bytes

    @property
    def left_out(self) -> int:
        """How many files are not at the destination, or would not be."""
        return self.files.total() - self.files[COPIED] - self.files[THERE]


def main(argv: list[str]) -> int:
    """Run ``beam-dedup apply``.

    Args:
        argv: the arguments after ``apply``.

    Returns:
        0 if every file of the plan is at the destination or, without ``--execute``, would be; 1 if
        some are not.

    Raises:
        UsageError: the arguments, the report, the destination or its journal are refused.
        AccessError: a store refuses access.
    """
    values = _parser().parse_or_help(argv)
    if values is None:
        return _DONE
    _check(values)
    access = access_of(values)
    try:
        plan = Plan.of_report(Report.open(values.report, access))
        place = place_of(values.destination, access)
        _reach_sources(plan, access)
        journal = Journal(place, plan)
    except ValueError as error:  # of the report, the destination, its journal, or access
        raise UsageError(str(error)) from error
    print(_heading(values.report, plan, place))
    tally = Tally()
    with contextlib.closing(progress.open_display()) as display:
        tell = _Progress(display, len(plan.rows)).tell
        copier = Copier(place, access, execute=values.execute, tell=tell)
        with contextlib.closing(copier.run(plan, journal)) as results:
            for result in results:
                tally.add(result)
    print(_to_text(tally, executed=values.execute))
    if not values.execute:
        words = ["beam-dedup", "apply", *argv, "--execute"]
        print(f"nothing was written; to do it: {shell_command(words)}")
    if not tally.left_out:
        return _DONE
    verb = "are not" if values.execute else "would not be"
    text = f"{count(tally.left_out)} files {verb} at the destination"
    print(f"beam-dedup: {text}", file=sys.stderr)
    return _FAILED


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="beam-dedup apply",
        usage="%(prog)s --report URI --action copy --destination URI [--execute] [options]",
        description="Copy the best image of each group below best/ and its duplicates below "
        "duplicates/ of another place. Without --execute, say what would be done and write "
        "nothing. No file is changed, moved, deleted or overwritten; doing it again, or after an "
        "interruption, copies what is not there yet.",
        epilog="Exit codes: 0 every file of the plan is at the destination (without --execute: "
        "would be); 1 failed, or some files are not there: changed since the report was made, "
        "their name taken, or refused; 2 refused before anything was written; 130 interrupted, "
        "the same command goes on. More in docs/guides/apply.md.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=98),
    )
    add = parser.add_argument
    add("--report", required=True, metavar="URI", help="output folder of a run")
    add("--action", required=True, metavar="copy", help="what is done; copy is all there is yet")
    add(
        "--destination",
        required=True,
        metavar="URI",
        help="a folder, or azfs://account/container/prefix of a container that is there",
    )
    add("--execute", action="store_true", help="do it; without this, nothing is written")
    add_access_options(parser)
    add("-v", "--verbose", action="store_true", help="show log lines and tracebacks")
    return parser


def _check(values: argparse.Namespace) -> None:
    if values.action in _LATER:
        raise UsageError(
            f"--action {values.action} is not in this version, which changes and removes nothing; "
            "there is --action copy"
        )
    if values.action != "copy":
        raise UsageError(f"there is no action {redact(one_line(values.action))!r}; there is copy")


def _reach_sources(plan: Plan, access: Access) -> None:
    """Raise ``InputError`` where there is no access to an account that sources are in."""
    if plan.accounts:
        from transforms.storage.azure.account import account_of

        for account in plan.accounts:
            account_of(account, access)


class _Progress:
    """Shows how many files are settled."""

    def __init__(self, display: progress.Display, total: int) -> None:
        self._display = display
        self._total = total
        self._started = time.monotonic()

    def tell(self, done: int) -> None:
        """Show a count."""
        rate = done / max(time.monotonic() - self._started, 1e-9)
        percent = 100.0 * done / self._total
        eta_s = (self._total - done) / rate if rate else None
        self._display.show(
            [progress.StageProgress("apply", done, self._total, "files", rate, percent, eta_s)]
        )


def _heading(report: str, plan: Plan, place: Place) -> str:
    lines = [
        ("report", f"{safe_line(report)}, run {plan.run_id}"),
        ("destination", place.uri),
        (
            "plan",
            f"{count(plan.group_count)} groups, {count(len(plan.rows))} files, "
            f"{size(plan.total_bytes)}",
        ),
    ]
    return "\n".join(f"{name:<14} {value}" for name, value in lines)


def _to_text(tally: Tally, *, executed: bool) -> str:
    lines = []
    for kind, labels in _LABELS.items():
        files, best = tally.files[kind], tally.best[kind]
        text = f"{labels[executed]:<14} {count(files)}"
        if files:
            parts = f"best {count(best)}, duplicates {count(files - best)}"
            text += f" ({parts}; {size(tally.size_bytes[kind])})"
        lines.append(text)
    lines += [_row(result, executed=executed) for result in tally.first]
    shown = Counter(result.outcome for result in tally.first)
    lines += [
        f"  and {count(tally.files[kind] - number)} more: {_LABELS[kind][executed]}"
        for kind, number in shown.items()
        if tally.files[kind] > number
    ]
    return "\n".join(lines)


def _row(result: Result, *, executed: bool) -> str:
    path, label = safe_line(result.item.path), _LABELS[result.outcome][executed]
    if result.outcome == COPIED:
        return f"  {label}: {path} -> {result.item.target}"
    return f"  {label}: {path}: {safe_line(result.message)}"
