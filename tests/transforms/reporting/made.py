"""A made-up report of five inputs, and two ways of writing it."""

import json

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
from apache_beam.testing.test_pipeline import TestPipeline

from transforms.records import Cap, EdgeRow, GroupRow, ImageRow, StageStats
from transforms.report import ReportInput, WriteReport
from transforms.reporting.manifest import publish_report
from transforms.reporting.schema import TABLES, images_table, to_arrow
from transforms.reporting.stores import open_store
from transforms.reporting.summary import EMPTY, Gathered, summarise, tally

GROUP = "g3138bb9bc78df27c"  # "g" and 16 hex digits of the SHA-256 of "11" * 32
STATS = StageStats("fingerprint", "h:1", 1_000_000, 3_000_000, 500_000, 5, 4, 1, 0, 900, 77)
CAP = Cap("wavelet", "bucket", 100, 2, "representatives elected")


def image_row(name, status="unique", **changes):
    """Return a row; sha256 and pixel hash are made of the first letter of the name."""
    digit = f"{ord(name[0]) % 16:x}"
    row = ImageRow(
        uri=f"file:///in/{name}",
        path=f"/in/{name}",
        status=status,
        group_id=None,
        group_size=1,
        best_uri=None,
        relation=None,
        decided_by=None,
        wavelet_distance=None,
        color_similarity=None,
        global_similarity=None,
        local_inliers=None,
        local_overlap=None,
        quality_score=0.6,
        keep_reason=None,
        width=500,
        height=375,
        format="JPEG",
        size_bytes=1000,
        sharpness=0.5,
        contrast=0.25,
        brightness=0.75,
        noise=0.125,
        sha256=f"{digit}1" * 32,
        pixel_hash=f"{digit}2" * 32,
        wavelet_key=f"{digit}3" * 32,
        metadata_hash=None,
        etag="e",
        modified=1_600_000_000_000_000,
        error_stage=None,
        error_type=None,
        error_message=None,
    )
    return row._replace(**changes)


def failed_row(name):
    """Return the row of an input that could not be read as an image."""
    return image_row(
        name, "failed", group_size=None, quality_score=None, width=None, height=None, format=None,
        sharpness=None, contrast=None, brightness=None, noise=None, sha256=None, pixel_hash=None,
        wavelet_key=None, error_stage="decode", error_type="truncated", error_message="cut",
    )  # fmt: skip


def _grouped(name, status="duplicate", **changes):
    return image_row(
        name, status, group_id=GROUP, group_size=3, best_uri="file:///in/a.jpg",
        keep_reason="area", **changes,
    )  # fmt: skip


IMAGES = (
    _grouped("a.jpg", "best"),
    _grouped(
        "b.jpg", relation="exact", decided_by="exact", sha256="11" * 32, pixel_hash="12" * 32
    ),
    _grouped(
        "c.jpg", relation="resized", decided_by="local", wavelet_distance=12,
        color_similarity=0.95, global_similarity=0.9, local_inliers=40, local_overlap=0.88,
    ),
    image_row("d.jpg"),
    failed_row("e.jpg"),
)  # fmt: skip


def embedded(images=IMAGES, size=4):
    """Return rows with labels and embeddings of so many values; failed ones have none."""
    rows = []
    for row in images:
        if row.status != "failed":
            axis = int(row.pixel_hash[0], 16) % size
            vector = np.full(size, 0.1, np.float32)
            vector[axis] = 1.0
            vector = (vector / np.linalg.norm(vector)).astype(np.float16)
            row = row._replace(label=f"l{axis}", label_score=0.5, embedding=vector.tobytes())
        rows.append(row)
    return rows


GROUPS = (GroupRow(GROUP, 3, "file:///in/a.jpg", "area", 0.88, 2000, 0),)
EDGES = (
    EdgeRow(
        "file:///in/a.jpg", "file:///in/c.jpg", "wavelet", 12, 1, None, 0.95, 0.97, 0.9, 40,
        0.88, 0.8, "resized", "accept", "local", True,
    ),
    EdgeRow(
        "file:///in/a.jpg", "file:///in/d.jpg", "wavelet", 50, 1, None, 0.4, None, None, None,
        None, None, "similar", "reject", "color", False,
    ),
)  # fmt: skip


def run_report(
    output, run_id, images=IMAGES, groups=GROUPS, edges=EDGES, *, listed=None, check=None,
    options=None, **settings,
):  # fmt: skip
    """Write a report with a pipeline; ``check`` is applied to the PCollection of its files.

    ``settings`` are further fields of ``WriteReport``.
    """
    with TestPipeline("FnApiRunner") as p:

        def made(label, rows, kind):
            return p | label >> beam.Create(list(rows), reshuffle=False).with_output_types(kind)

        rows = ReportInput(
            made("Images", images, ImageRow),
            made("Groups", groups, GroupRow),
            made("Edges", edges, EdgeRow),
            made("Stats", [STATS], StageStats),
            made("Caps", [CAP], Cap),
            made("Listed", [len(images) if listed is None else listed], int),
        )
        files = rows | WriteReport(str(output), run_id, options or {}, **settings)
        if check:
            check(files)


def write_by_hand(
    output, run_id, images=IMAGES, groups=GROUPS, edges=EDGES, counts=None, columns=None, **more
):
    """Write a report without a pipeline, which also takes rows that ``WriteReport`` refuses.

    ``columns`` are those of ``images_table``. What is given beyond that goes into its summary.
    """
    store = open_store(str(output))
    files, tallies = [], EMPTY
    tables = {**TABLES, "images": images_table(**columns or {})}
    for name, rows in (("images", images), ("groups", groups), ("edges", edges)):
        table = to_arrow(tables[name], rows)
        path = f"{name}/{run_id}-00000.parquet"
        files.append(write_table(store, path, table))
        tallies = tallies.plus(tally(name, table))
    statuses = {n: tallies.counts.get(n, 0) for n in ("unique", "best", "duplicate", "failed")}
    counts = counts or {"listed": len(images), **statuses, "groups": len(groups)}
    with store.drafts() as drafts:
        with drafts.write("report.csv") as file:
            file.write(b"by hand\n")
        files.append(drafts.describe("report.csv", len(images)))
        with drafts.write("summary.json") as file:
            file.write(json_bytes({"counts": counts, **more}))
        files.append(drafts.describe("summary.json", None))
        publish_report(store, drafts, run_id, "2026-01-01T00:00:00+00:00", counts, files)


def write_table(store, path, table):
    """Publish a table and return its manifest entry."""
    with store.drafts() as drafts:
        with drafts.write(path) as file:
            pq.write_table(table, file)
        described = drafts.describe(path, len(table))
        drafts.publish()
    return described


def json_bytes(value):
    """Return JSON as bytes."""
    return json.dumps(value).encode()


def tree(folder):
    """Return every path below a folder with its bytes; None for a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def summary_of(
    images=IMAGES, groups=GROUPS, edges=EDGES, *, listed=None, stats=(STATS,), caps=(CAP,),
    requests=(),
):  # fmt: skip
    """Return the summary of rows."""
    total = EMPTY
    for name, rows in (("images", images), ("groups", groups), ("edges", edges)):
        total = total.plus(tally(name, to_arrow(TABLES[name], rows)))
    listed = len(images) if listed is None else listed
    by_stage = {one.stage: [one] for one in stats}
    gathered = Gathered(listed, total, by_stage, caps, requests)
    return summarise("run-1", gathered, {"profile": "fast"}, {"python": "3"})
