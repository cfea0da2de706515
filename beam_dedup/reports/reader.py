"""Reading a report: only what the manifest names, and only if it is whole."""

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from transforms.access import LOCAL, Access
from transforms.reporting.manifest import MANIFEST, read_manifest
from transforms.reporting.schema import EMBEDDING, TABLES, Table, embedding_size, images_table
from transforms.reporting.store import Store
from transforms.reporting.stores import open_store

# Of a duplicate that is no exact copy, these are the edge's.
_OF_EDGE = (
    "relation",
    "decided_by",
    "wavelet_distance",
    "color_similarity",
    "global_similarity",
    "local_inliers",
    "local_overlap",
)
# Nothing is promised of the first, and Python's datetime refuses years that Arrow holds. The second
# is checked as an array.
_NOT_CHECKED = ("modified", EMBEDDING)
# Of a vector's length 1: what are_unit_vectors lets pass, and the rounding of float16, 11 bits.
_LENGTH_ERROR = 1e-3 + 2.0**-11


class ReportError(ValueError):
    """There is no whole report in the folder."""


@contextlib.contextmanager
def _no_table(name: str, path: str) -> Iterator[None]:
    """Say of what is raised in the body that a file is no table."""
    try:
        yield
    except OSError as error:
        raise ReportError(f"{path!r} cannot be read: {error}") from error
    except (pa.ArrowException, KeyError) as error:
        raise ReportError(f"{path!r} is no table of {name}: {error}") from error


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
    def open(cls, output: str, access: Access = LOCAL, *, verify: bool = True) -> "Report":
        """Open the report of an output folder.

        Args:
            output: the folder, as a path, a ``file://`` URI or an ``azfs://`` URI.
            access: how a store is reached that is not local.
            verify: compare every file's size and SHA-256 with the manifest.

        Raises:
            ReportError: if there is no manifest, or a file is missing or changed.
            ValueError: if the output names no folder that can be read.
        """
        store = open_store(output, access)
        try:
            manifest = read_manifest(store)
        except OSError as error:
            raise ReportError(f"{MANIFEST} in {store.shown!r}: {error.strerror}") from error
        except ValueError as error:
            raise ReportError(str(error)) from error
        if manifest is None:
            raise ReportError(f"no {MANIFEST} in {store.shown!r}: no run has ended there")
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
        if not self._entries("summary.json"):
            raise ReportError("the manifest names no summary.json")
        with self.store.open("summary.json") as file:
            summary: dict[str, Any] = json.load(file)
        return summary

    @functools.cached_property
    def images(self) -> pa.Table:
        """One row per input; with labels and embeddings where the run was asked for them."""
        return self._table("images")

    @functools.cached_property
    def groups(self) -> pa.Table:
        """One row per group of two or more."""
        return self._table("groups")

    @functools.cached_property
    def edges(self) -> pa.Table:
        """One row per compared pair of contents."""
        return self._table("edges")

    def _entries(self, start: str) -> list[dict[str, Any]]:
        """Return the manifest's entries of paths that start so, by path."""
        entries = [e for e in self.manifest["files"] if e["path"].startswith(start)]
        return sorted(entries, key=lambda entry: str(entry["path"]))

    def read(self, name: str, columns: list[str]) -> pa.Table:
        """Read some columns of a table, which is named as its folder is.

        Raises:
            ReportError: a file cannot be read, or lacks one of the columns.
        """
        table = TABLES[name]
        if name == "images" and not set(columns) <= set(table.schema.names):
            table = self._images_table()
        if missing := set(columns) - set(table.schema.names):
            raise ReportError(f"{name} has no column {min(missing)!r}")
        schema = pa.schema([table.schema.field(column) for column in columns])
        parts = [self._part(name, entry["path"], schema) for entry in self._entries(f"{name}/")]
        return pa.concat_tables([schema.empty_table(), *parts])

    def _table(self, name: str) -> pa.Table:
        table = self._images_table() if name == "images" else TABLES[name]
        return self.read(name, table.schema.names)

    def _images_table(self) -> Table:
        """Return the table of images with those columns that only some runs have."""
        entries = self._entries("images/")
        if not entries:
            return TABLES["images"]
        path = entries[0]["path"]
        with _no_table("images", path), self.store.open(path) as file:
            schema = pq.read_schema(file)
        return images_table(
            labels="label" in schema.names, embedding_size=embedding_size(schema) or None
        )

    def _part(self, name: str, path: str, schema: pa.Schema) -> pa.Table:
        with _no_table(name, path), self.store.open(path) as file:
            part = pq.ParquetFile(file).read(columns=schema.names)
            # More columns may have been added since; those of the contract must be there.
            return part.select(schema.names).cast(schema)

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
        problems = self.verify_files()
        if problems:
            return problems  # what such files say proves nothing
        try:
            rows, groups, edges = (
                table.select([n for n in table.column_names if n not in _NOT_CHECKED]).to_pylist()
                for table in (self.images, self.groups, self.edges)
            )
            summary = self.summary["counts"]
        except (ReportError, json.JSONDecodeError, KeyError, TypeError) as error:
            return [f"the report cannot be read: {error}"]
        if summary != self.manifest["counts"]:
            problems.append("summary.json and the manifest have different counts")
        return [
            *problems,
            *self._check_row_counts(),
            *_check_statuses(rows, len(groups), self.manifest["counts"]),
            *_check_groups(rows, groups),
            *_check_edges(rows, edges),
            *_check_evidence(rows, edges),
            *_check_labels(rows),
            *_check_embeddings(rows, self.images),
        ]

    def _check_row_counts(self) -> list[str]:
        problems = []
        for name in TABLES:
            named = sum(entry["rows"] or 0 for entry in self._entries(f"{name}/"))
            found = len(getattr(self, name))
            if not self._entries(f"{name}/"):
                problems.append(f"the manifest names no file of {name}")
            elif named != found:
                problems.append(f"{name} has {found} rows, the manifest says {named}")
        flat = [entry["rows"] for entry in self._entries("report.csv")]
        if flat != [len(self.images)]:
            problems.append(f"report.csv has {flat} rows, images has {len(self.images)}")
        return problems


def _check_statuses(rows: list[dict[str, Any]], groups: int, counts: dict[str, int]) -> list[str]:
    problems = []
    found = Counter(row["status"] for row in rows)
    for status in ("unique", "best", "duplicate", "failed"):
        if found[status] != counts[status]:
            problems.append(f"{found[status]} rows are {status}, the counts say {counts[status]}")
    if groups != counts["groups"]:
        problems.append(f"{groups} groups, the counts say {counts['groups']}")
    if len(rows) != counts["listed"]:
        problems.append(f"{len(rows)} rows, {counts['listed']} inputs listed")
    for status in sorted(set(map(str, found)) - {"unique", "best", "duplicate", "failed"}):
        problems.append(f"no row may have the status {status!r}")
    for uri, times in Counter(row["uri"] for row in rows).items():
        if times > 1:
            problems.append(f"{uri} has {times} rows")
    for row in rows:
        if row["status"] == "failed" and None in (row["error_stage"], row["error_type"]):
            problems.append(f"{row['uri']} is failed without an error")
    return problems


def _check_groups(rows: list[dict[str, Any]], groups: list[dict[str, Any]]) -> list[str]:
    problems = []
    members = defaultdict(list)
    for row in rows:
        if row["status"] in ("best", "duplicate"):
            members[row["group_id"]].append(row)
        elif row["group_id"] is not None or row["best_uri"] is not None:
            problems.append(f"{row['uri']} is {row['status']} and names a group")
        if row["status"] != "duplicate" and (row["relation"] or row["decided_by"]):
            problems.append(f"{row['uri']} is {row['status']} and has a relation")
    table = {group["group_id"]: group for group in groups}
    if len(table) != len(groups) or set(table) != set(members):
        problems.append("the groups table and the rows name different groups")
    for name, group in members.items():
        best = [row for row in group if row["status"] == "best"]
        if len(best) != 1 or len(group) < 2:
            problems.append(f"group {name} has {len(best)} kept images and {len(group)} rows")
        elif not _is_consistent(group, best[0], table.get(name, {})):
            problems.append(f"group {name} contradicts itself")
    return problems


def _is_consistent(
    group: list[dict[str, Any]], best: dict[str, Any], named: dict[str, Any]
) -> bool:
    expected = "g" + hashlib.sha256(str(best["sha256"]).encode()).hexdigest()[:16]
    others = sum(row["size_bytes"] or 0 for row in group if row is not best)
    return (
        best["group_id"] == expected
        and {row["group_size"] for row in group} == {len(group)}
        and {row["best_uri"] for row in group} == {best["uri"]}
        and (named.get("size"), named.get("best_uri")) == (len(group), best["uri"])
        # Hard links occupy nothing of their own.
        and 0 <= named.get("reclaimable_bytes", -1) <= others
    )


def _ends(edge: dict[str, Any], content: dict[str, str]) -> frozenset[str] | None:
    """Return the two contents that an edge joins; None if it does not join two."""
    a, b = content.get(edge["uri_a"]), content.get(edge["uri_b"])
    return None if a is None or b is None or a == b else frozenset((a, b))


def _contents(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["uri"]: row["pixel_hash"] for row in rows if row["pixel_hash"]}


def _check_edges(rows: list[dict[str, Any]], edges: list[dict[str, Any]]) -> list[str]:
    problems = []
    content = _contents(rows)
    group = {row["uri"]: row["group_id"] for row in rows if row["group_id"]}
    seen = set()
    for edge in edges:
        name = f"edge {edge['uri_a']} {edge['uri_b']}"
        if edge["uri_a"] >= edge["uri_b"]:
            problems.append(f"{name} is not in order")
        if edge["verdict"] not in ("accept", "reject", "review"):
            problems.append(f"{name} has the verdict {edge['verdict']!r}")
        ends = _ends(edge, content)
        if ends is None:
            problems.append(f"{name} joins no two contents")
        elif ends in seen:
            problems.append(f"{name} joins contents that another edge joins")
        seen.add(ends)
        together = group.get(edge["uri_a"], "a") == group.get(edge["uri_b"], "b")
        if edge["in_group"] != (together and edge["verdict"] == "accept"):
            problems.append(f"{name} has in_group {edge['in_group']}, which its rows deny")
    return problems


def _check_evidence(rows: list[dict[str, Any]], edges: list[dict[str, Any]]) -> list[str]:
    """Check that every duplicate is a proven copy of the very image that is kept."""
    problems = []
    content = _contents(rows)
    by_uri = {row["uri"]: row for row in rows}
    accepted = {_ends(edge, content): edge for edge in edges if edge["verdict"] == "accept"}
    for row in rows:
        if row["status"] != "duplicate":
            continue
        best = by_uri.get(row["best_uri"])
        if best is None:
            problems.append(f"{row['uri']} names a kept image that has no row")
        elif None in (row["sha256"], row["pixel_hash"], best["sha256"], best["pixel_hash"]):
            problems.append(f"{row['uri']} is a duplicate without hashes to prove it")
        elif row["pixel_hash"] == best["pixel_hash"]:
            same = (row["sha256"], row["size_bytes"]) == (best["sha256"], best["size_bytes"])
            if row["relation"] != ("exact" if same else "pixels") or row["decided_by"] != "exact":
                problems.append(f"{row['uri']} has equal pixels but is {row['relation']}")
        elif (edge := accepted.get(frozenset({row["pixel_hash"], best["pixel_hash"]}))) is None:
            problems.append(f"{row['uri']} has no accepted edge to {row['best_uri']}")
        elif row["relation"] in ("exact", "pixels") or row["decided_by"] == "exact":
            problems.append(f"{row['uri']} is {row['relation']} but has other pixels")
        elif any(row[name] != edge[name] for name in _OF_EDGE):
            problems.append(f"{row['uri']} differs from its edge to {row['best_uri']}")
    return problems


def _check_labels(rows: list[dict[str, Any]]) -> list[str]:
    """Check that contents have one label, with its score, and failed rows none."""
    problems = []
    known: dict[str, Any] = {}
    for row in rows:
        label, score = row.get("label"), row.get("label_score")
        if (label is None) != (score is None) or not 0 <= (score or 0) <= 1:
            problems.append(f"{row['uri']} has the label {label!r} with the score {score!r}")
        elif row["status"] == "failed" and label is not None:
            problems.append(f"{row['uri']} is failed and has a label")
        if row["pixel_hash"] and known.setdefault(row["pixel_hash"], label) != label:
            problems.append(f"{row['uri']} has another label than its exact copies")
    return problems


def _check_embeddings(rows: list[dict[str, Any]], images: pa.Table) -> list[str]:
    """Check that contents have one embedding of length 1, or an error, and failed rows none."""
    size = embedding_size(images.schema)
    if not size:
        return []
    problems = []
    column = images[EMBEDDING].combine_chunks()
    vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(rows), size)
    first: dict[str, int] = {}  # row of each content
    for place, (row, vector) in enumerate(zip(rows, vectors, strict=True)):
        missing = bool(np.isnan(vector).all())
        if row["status"] == "failed" and not missing:
            problems.append(f"{row['uri']} is failed and has an embedding")
        elif missing and row["error_type"] is None:
            problems.append(f"{row['uri']} has neither an embedding nor an error")
        elif not missing:
            length = float(np.linalg.norm(vector.astype(np.float64)))
            if not abs(length - 1.0) <= _LENGTH_ERROR:  # written so that NaN is refused
                problems.append(f"{row['uri']} has an embedding of length {length:.4f}")
        if row["pixel_hash"]:
            same = vectors[first.setdefault(row["pixel_hash"], place)]
            if same.tobytes() != vector.tobytes():
                problems.append(f"{row['uri']} has another embedding than its exact copies")
    return problems
