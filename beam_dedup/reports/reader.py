"""Reading a report: only what the manifest names, and only if it is whole."""

import dataclasses
import functools
import hashlib
import json
from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.reporting.manifest import MANIFEST, read_manifest
from transforms.reporting.schema import TABLES
from transforms.reporting.store import Store


class ReportError(ValueError):
    """There is no whole report in the folder."""


@dataclasses.dataclass(frozen=True)
class Report:
    """A report of one run.

    Attributes:
        store: the output folder.
        manifest: the content of ``manifest.json``.
    """

    store: Store
    manifest: dict[str, Any]

    @classmethod
    def open(cls, output: str, *, verify: bool = True) -> "Report":
        """Open the report of an output folder.

        Args:
            output: the folder, as a path or a ``file://`` URI.
            verify: compare every file's size and SHA-256 with the manifest.

        Raises:
            ReportError: if there is no manifest, or a file is missing or changed.
        """
        store = Store(output)
        try:
            manifest = read_manifest(store)
        except ValueError as error:
            raise ReportError(str(error)) from error
        if manifest is None:
            raise ReportError(f"no {MANIFEST} in {str(store.root)!r}: no run has ended there")
        report = cls(store, manifest)
        problems = report.verify_files() if verify else []
        if problems:
            raise ReportError("; ".join(problems))
        return report

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return str(self.manifest["run_id"])

    @functools.cached_property
    def summary(self) -> dict[str, Any]:
        """The content of ``summary.json``."""
        with self.store.open("summary.json") as file:
            summary: dict[str, Any] = json.load(file)
        return summary

    @functools.cached_property
    def images(self) -> pa.Table:
        """One row per input."""
        return self._table("images")

    @functools.cached_property
    def groups(self) -> pa.Table:
        """One row per group of two or more."""
        return self._table("groups")

    @functools.cached_property
    def edges(self) -> pa.Table:
        """One row per compared pair of contents."""
        return self._table("edges")

    def failures(self) -> dict[str, int]:
        """Count failed inputs by ``error_type``, most frequent first."""
        found: Counter[str] = Counter()
        for path in self._paths("images"):
            with self.store.open(path) as file:
                part = pq.read_table(file, columns=["status", "error_type"])
            for status, kind in zip(*(c.to_pylist() for c in part.columns), strict=True):
                if status == "failed":
                    found[kind] += 1
        return dict(found.most_common())

    def _paths(self, table: str) -> list[str]:
        paths = [entry["path"] for entry in self.manifest["files"]]
        return sorted(path for path in paths if path.startswith(f"{table}/"))

    def _table(self, name: str) -> pa.Table:
        parts = []
        for path in self._paths(name):
            with self.store.open(path) as file:
                parts.append(pq.read_table(file, schema=TABLES[name].schema))
        return pa.concat_tables(parts) if parts else TABLES[name].schema.empty_table()

    def verify_files(self) -> list[str]:
        """Compare the files with the manifest; return what is wrong, a line each."""
        problems = []
        for entry in self.manifest["files"]:
            try:
                with self.store.open(entry["path"]) as file:
                    data_hash = hashlib.file_digest(file, "sha256").hexdigest()
                    size = file.tell()
            except OSError as error:
                problems.append(f"{entry['path']!r} cannot be read: {error.strerror}")
                continue
            if (size, data_hash) != (entry["size_bytes"], entry["sha256"]):
                problems.append(f"{entry['path']!r} is not the file that the manifest names")
        return problems

    def check(self) -> list[str]:
        """Check what the report promises, from its Parquet files alone.

        Returns:
            What is wrong, a line each; empty for a sound report.
        """
        rows = self.images.to_pylist()
        return [
            *self.verify_files(),
            *self._check_row_counts(),
            *_check_statuses(rows, self.manifest["counts"]),
            *_check_groups(rows, self.groups.to_pylist()),
            *_check_evidence(rows, self.edges.to_pylist()),
        ]

    def _check_row_counts(self) -> list[str]:
        problems = []
        for name in TABLES:
            named = sum(e["rows"] for e in self.manifest["files"] if e["path"].startswith(name))
            found = len(getattr(self, name))
            if named != found:
                problems.append(f"{name} has {found} rows, the manifest says {named}")
        return problems


def _check_statuses(rows: list[dict[str, Any]], counts: dict[str, int]) -> list[str]:
    problems = []
    found = Counter(row["status"] for row in rows)
    for status in ("unique", "best", "duplicate", "failed"):
        if found[status] != counts[status]:
            problems.append(f"{found[status]} rows are {status}, the counts say {counts[status]}")
    if len(rows) != counts["listed"]:
        problems.append(f"{len(rows)} rows, {counts['listed']} inputs listed")
    if len({row["uri"] for row in rows}) != len(rows):
        problems.append("a URI has more than one row")
    return problems


def _check_groups(rows: list[dict[str, Any]], groups: list[dict[str, Any]]) -> list[str]:
    problems = []
    members = defaultdict(list)
    for row in rows:
        if row["status"] in ("best", "duplicate"):
            members[row["group_id"]].append(row)
        elif row["group_id"] is not None or row["best_uri"] is not None:
            problems.append(f"{row['uri']} is {row['status']} and names a group")
    table = {group["group_id"]: group for group in groups}
    if len(table) != len(groups) or set(table) != set(members):
        problems.append("the groups table and the rows name different groups")
    for name, group in members.items():
        best = [row for row in group if row["status"] == "best"]
        if len(best) != 1 or best[0]["best_uri"] != best[0]["uri"] or len(group) < 2:
            problems.append(f"group {name} has {len(best)} kept images and {len(group)} rows")
            continue
        expected = hashlib.sha256(best[0]["sha256"].encode()).hexdigest()[:16]
        sizes = {row["group_size"] for row in group}
        named = table.get(name, {})
        if (
            name != f"g{expected}"
            or sizes != {len(group)}
            or {row["best_uri"] for row in group} != {best[0]["uri"]}
            or (named.get("size"), named.get("best_uri")) != (len(group), best[0]["uri"])
        ):
            problems.append(f"group {name} contradicts itself")
    return problems


def _check_evidence(rows: list[dict[str, Any]], edges: list[dict[str, Any]]) -> list[str]:
    problems = []
    content = {row["uri"]: row["pixel_hash"] for row in rows if row["pixel_hash"]}
    by_uri = {row["uri"]: row for row in rows}
    accepted = set()
    for edge in edges:
        if edge["uri_a"] >= edge["uri_b"]:
            problems.append(f"edge {edge['uri_a']} {edge['uri_b']} is not in order")
        ends = frozenset({content.get(edge["uri_a"]), content.get(edge["uri_b"])})
        if len(ends) != 2 or None in ends:
            problems.append(f"edge {edge['uri_a']} {edge['uri_b']} joins no two contents")
        elif edge["verdict"] == "accept":
            accepted.add(ends)
    for row in rows:
        if row["status"] != "duplicate":
            continue
        best = by_uri.get(row["best_uri"])
        if best is None:
            problems.append(f"{row['uri']} names a kept image that has no row")
        elif row["pixel_hash"] == best["pixel_hash"]:
            same = (row["sha256"], row["size_bytes"]) == (best["sha256"], best["size_bytes"])
            if row["relation"] != ("exact" if same else "pixels"):
                problems.append(f"{row['uri']} has equal pixels but is {row['relation']}")
        elif frozenset({row["pixel_hash"], best["pixel_hash"]}) not in accepted:
            problems.append(f"{row['uri']} has no accepted edge to {row['best_uri']}")
    return problems
