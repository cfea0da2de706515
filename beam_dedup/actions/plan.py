"""What a report asks for: which files there are of each group, and where each of them goes."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from operator import attrgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from beam_dedup.actions.names import target_of
from beam_dedup.reports import Report, ReportError

_COLUMNS = ("uri", "path", "status", "group_id", "size_bytes", "sha256", "etag")
# What becomes a part of a name or is compared must have exactly the form that a run gives it.
_FORMS = {
    "uri": r"^(file:///|azfs://)",
    "group_id": "^g[0-9a-f]{16}$",
    "sha256": "^[0-9a-f]{64}$",
    "etag": ".",
    "path": ".",
}
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ROWS = 10_000  # of the table that are Python objects at once


class Item(NamedTuple):
    """One file of the plan."""

    group_id: str
    uri: str
    path: str  # readable
    is_best: bool
    size_bytes: int
    sha256: str  # hex
    etag: str  # when it was listed
    target: str  # relative to the destination


@dataclasses.dataclass(frozen=True)
class Plan:
    """The groups of one report.

    Attributes:
        run_id: of the report.
        digest: SHA-256, hex, of the run id and of the hashes of all files of the report, so that
            what was begun with one report is not taken up with another.
        rows: those of ``images`` that are in a group, by group, the best first, then by URI.
    """

    run_id: str
    digest: str
    rows: pa.Table

    @classmethod
    def of_report(cls, report: Report) -> Plan:
        """Make the plan of a report.

        Raises:
            ReportError: a row or the run id has not the form that a run gives it.
        """
        if not _RUN_ID.fullmatch(report.run_id):
            raise ReportError("the run id of the report can be no part of a name")
        rows = report.read("images", list(_COLUMNS))
        rows = rows.filter(pc.is_in(rows["status"], pa.array(["best", "duplicate"])))
        _check(rows)
        rows = rows.sort_by([(name, "ascending") for name in ("group_id", "status", "uri")])
        return cls(report.run_id, _digest(report.manifest), rows)

    @functools.cached_property
    def total_bytes(self) -> int:
        """The size of all files."""
        return int(pc.sum(self.rows["size_bytes"]).as_py() or 0)

    @functools.cached_property
    def group_count(self) -> int:
        """How many groups there are."""
        return int(pc.count_distinct(self.rows["group_id"]).as_py())

    @functools.cached_property
    def accounts(self) -> list[str]:
        """The accounts of Azure that files are in, sorted."""
        found = pc.extract_regex(self.rows["uri"], "^azfs://(?P<account>[^/]*)/").combine_chunks()
        return sorted(one for one in pc.unique(found.field("account")).to_pylist() if one)

    def groups(self) -> Iterator[list[Item]]:
        """Yield the files of each group, the best first."""
        for _, items in itertools.groupby(self._items(), attrgetter("group_id")):
            yield list(items)

    def batches(self, files: int) -> Iterator[list[Item]]:
        """Yield whole groups together until there are so many files, always in the same order."""
        batch: list[Item] = []
        for group in self.groups():
            batch.extend(group)
            if len(batch) >= files:
                yield batch
                batch = []
        if batch:
            yield batch

    def _items(self) -> Iterator[Item]:
        for part in self.rows.to_batches(_ROWS):
            for uri, path, status, group, size, sha256, etag in zip(
                *(part[name].to_pylist() for name in _COLUMNS), strict=True
            ):
                is_best = status == "best"
                target = target_of(uri, group, is_best=is_best)
                yield Item(group, uri, path, is_best, size, sha256, etag, target)


def _check(rows: pa.Table) -> None:
    for name, form in _FORMS.items():
        fits = pc.fill_null(pc.match_substring_regex(rows[name], form), False)
        if not pc.all(fits, min_count=0).as_py():
            if name == "uri":
                raise ReportError("images has a row whose uri is neither file:// nor azfs://")
            raise ReportError(f"images has a row in a group whose {name} is none: {form}")
    if rows["size_bytes"].null_count or pc.any(pc.less(rows["size_bytes"], 0)).as_py():
        raise ReportError("images has a row in a group without a size")
    best = rows.filter(pc.equal(rows["status"], "best"))["group_id"]
    groups = {len(best), *(pc.count_distinct(ids).as_py() for ids in (best, rows["group_id"]))}
    if len(groups) != 1:
        raise ReportError("images has a group that has not exactly one kept image")
    if pc.count_distinct(rows["uri"]).as_py() != len(rows):
        raise ReportError("images has a URI twice")


def _digest(manifest: dict[str, Any]) -> str:
    files = sorted((entry["path"], entry["sha256"]) for entry in manifest["files"])
    return hashlib.sha256(json.dumps([manifest["run_id"], files]).encode()).hexdigest()
