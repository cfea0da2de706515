"""The fixed Parquet schemas of the report, and rows as Arrow tables."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

_TEXT, _COUNT, _SCORE = pa.string(), pa.int64(), pa.float64()

# Columns, names and types are a contract: other programs read these files.
IMAGES = pa.schema(
    [
        ("uri", _TEXT),
        ("path", _TEXT),
        ("status", _TEXT),
        ("group_id", _TEXT),
        ("group_size", _COUNT),
        ("best_uri", _TEXT),
        ("relation", _TEXT),
        ("decided_by", _TEXT),
        ("wavelet_distance", pa.int16()),
        ("color_similarity", _SCORE),
        ("global_similarity", _SCORE),
        ("local_inliers", _COUNT),
        ("local_overlap", _SCORE),
        ("quality_score", _SCORE),
        ("keep_reason", _TEXT),
        ("width", _COUNT),
        ("height", _COUNT),
        ("format", _TEXT),
        ("size_bytes", _COUNT),
        ("sharpness", _SCORE),
        ("contrast", _SCORE),
        ("brightness", _SCORE),
        ("noise", _SCORE),
        ("sha256", _TEXT),
        ("pixel_hash", _TEXT),
        ("wavelet_key", _TEXT),
        ("metadata_hash", _TEXT),
        ("etag", _TEXT),
        ("modified", pa.timestamp("us", tz="UTC")),
        ("error_stage", _TEXT),
        ("error_type", _TEXT),
        ("error_message", _TEXT),
    ]
)
GROUPS = pa.schema(
    [
        ("group_id", _TEXT),
        ("size", _COUNT),
        ("best_uri", _TEXT),
        ("keep_reason", _TEXT),
        ("min_similarity", _SCORE),
        ("reclaimable_bytes", _COUNT),
        ("chain_cut", _COUNT),
    ]
)
EDGES = pa.schema(
    [
        ("uri_a", _TEXT),
        ("uri_b", _TEXT),
        ("generators", _TEXT),
        ("wavelet_distance", pa.int16()),
        ("orientation", pa.int8()),
        ("word_votes", pa.int16()),
        ("color_similarity", _SCORE),
        ("layout_similarity", _SCORE),
        ("global_similarity", _SCORE),
        ("local_inliers", _COUNT),
        ("local_overlap", _SCORE),
        ("local_score", _SCORE),
        ("relation", _TEXT),
        ("verdict", _TEXT),
        ("decided_by", _TEXT),
        ("in_group", pa.bool_()),
    ]
)


class Table(NamedTuple):
    """One of the report's tables."""

    name: str  # also its folder
    schema: pa.Schema
    keys: tuple[str, ...]  # the columns that order its rows, its first


TABLES = {
    table.name: table
    for table in (
        Table("images", IMAGES, ("uri",)),
        Table("groups", GROUPS, ("group_id",)),
        Table("edges", EDGES, ("uri_a", "uri_b")),
    )
}


def to_arrow(table: Table, rows: Sequence[Any]) -> pa.Table:
    """Turn rows into an Arrow table.

    Args:
        table: whose rows they are.
        rows: NamedTuples with the table's columns.

    Returns:
        The Arrow table with the fixed schema.

    Raises:
        pyarrow.ArrowInvalid: if a value does not fit its column.
    """
    # Of a row's columns, a report has those of its schema.
    named = dict(zip(rows[0]._fields, zip(*rows, strict=True), strict=True)) if rows else {}
    arrays = [pa.array(named.get(field.name, ()), field.type) for field in table.schema]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def pack_rows(table: Table, rows: Sequence[Any]) -> bytes:
    """Turn rows into one Arrow record batch, as bytes without the schema; see ``to_arrow``."""
    batch = to_arrow(table, rows).combine_chunks().to_batches()[0]
    return bytes(batch.serialize())


def unpack_rows(table: Table, packed: Iterable[bytes]) -> pa.Table:
    """Turn what ``pack_rows`` made into one Arrow table."""
    batches = [pa.ipc.read_record_batch(pa.py_buffer(part), table.schema) for part in packed]
    return pa.Table.from_batches(batches, table.schema)
