"""The fixed Parquet schemas of the report, and rows as Arrow tables."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, Optional

import numpy as np
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
EMBEDDING: Final = "embedding"
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


def images_table(*, labels: bool = False, embedding_size: Optional[int] = None) -> Table:
    """Return the table of images with the columns that only some runs have, at its end.

    Args:
        labels: whether it has ``label`` and ``label_score``.
        embedding_size: values of a vector of ``embedding``, which has all of them null where a row
            has none: Arrow up to 25 reads no Parquet with fixed-size lists that are null
            themselves (apache/arrow#35692). None for no such column.
    """
    if embedding_size is not None and embedding_size < 1:
        raise ValueError(f"embedding_size must be at least 1 or None, not {embedding_size!r}")
    schema = IMAGES
    if labels:
        schema = schema.append(pa.field("label", _TEXT)).append(pa.field("label_score", _SCORE))
    if embedding_size is not None:
        vector = pa.list_(pa.field("element", pa.float16()), embedding_size)
        schema = schema.append(pa.field(EMBEDDING, vector))
    return TABLES["images"]._replace(schema=schema)


def embedding_size(schema: pa.Schema) -> int:
    """Return how many values a vector of the embedding has; 0 where there is no such column."""
    place = schema.get_field_index(EMBEDDING)
    if place < 0:
        return 0
    kind = schema.field(place).type
    return kind.list_size if pa.types.is_fixed_size_list(kind) else 0


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Return how ``pyarrow.parquet.ParquetWriter`` shall write a table of this schema.

    Dictionaries and bounds of embeddings: 20,000 of 512 values took twice the time to write and
    four times the time to read with them, and gave files that are 4 % smaller.
    """
    plain = [field.name for field in schema if not pa.types.is_fixed_size_list(field.type)]
    if len(plain) == len(schema):
        return {}
    return {"use_dictionary": plain, "write_statistics": plain}


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
    arrays = [_array(named.get(field.name, ()), field.type) for field in table.schema]
    return pa.Table.from_arrays(arrays, schema=table.schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return values as an array; those of a fixed-size list are bytes of float16, or None."""
    if not pa.types.is_fixed_size_list(kind):
        return pa.array(values, kind)
    size = kind.list_size
    blank = bytes(size * np.dtype(np.float16).itemsize)
    if wrong := {len(value) for value in values if value is not None} - {len(blank)}:
        raise pa.ArrowInvalid(f"an embedding of {size} values has {len(blank)} bytes, not {wrong}")
    missing = np.repeat(np.array([value is None for value in values], bool), size)
    flat = np.frombuffer(b"".join(value or blank for value in values), np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, mask=missing), type=kind)


def pack_rows(table: Table, rows: Sequence[Any]) -> bytes:
    """Turn rows into one Arrow record batch, as bytes without the schema; see ``to_arrow``."""
    batch = to_arrow(table, rows).combine_chunks().to_batches()[0]
    return bytes(batch.serialize())


def unpack_rows(table: Table, packed: Iterable[bytes]) -> pa.Table:
    """Turn what ``pack_rows`` made into one Arrow table."""
    batches = [pa.ipc.read_record_batch(pa.py_buffer(part), table.schema) for part in packed]
    return pa.Table.from_batches(batches, table.schema)
