"""The columns are a contract; rows become tables with exactly these."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.transforms.reporting.made import EDGES, GROUPS, IMAGES, image_row
from transforms.records import EdgeRow, GroupRow, ImageRow
from transforms.reporting.schema import (
    TABLES,
    embedding_size,
    images_table,
    pack_rows,
    parquet_options,
    to_arrow,
    unpack_rows,
)

CONTRACT = {
    "images": (
        "uri path status group_id group_size best_uri relation decided_by wavelet_distance "
        "color_similarity global_similarity local_inliers local_overlap quality_score keep_reason "
        "width height format size_bytes sharpness contrast brightness noise sha256 pixel_hash "
        "wavelet_key metadata_hash etag modified error_stage error_type error_message"
    ),
    "groups": "group_id size best_uri keep_reason min_similarity reclaimable_bytes chain_cut",
    "edges": (
        "uri_a uri_b generators wavelet_distance orientation word_votes color_similarity "
        "layout_similarity "
        "global_similarity local_inliers local_overlap local_score relation verdict decided_by "
        "in_group"
    ),
}
FURTHER = ["label", "label_score", "embedding"]  # where a run was asked for them
ROWS = {"images": (ImageRow, IMAGES), "groups": (GroupRow, GROUPS), "edges": (EdgeRow, EDGES)}


@pytest.mark.parametrize("name", CONTRACT)
def test_columns_are_those_of_the_contract_and_of_the_rows(name):
    assert TABLES[name].schema.names == CONTRACT[name].split()
    further = FURTHER if name == "images" else []
    assert list(ROWS[name][0]._fields) == [*CONTRACT[name].split(), *further]


def test_types_are_those_of_the_contract():
    types = {(t.name, f.name): str(f.type) for t in TABLES.values() for f in t.schema}
    assert types["images", "modified"] == "timestamp[us, tz=UTC]"
    assert types["images", "wavelet_distance"] == types["edges", "wavelet_distance"] == "int16"
    assert types["edges", "in_group"] == "bool"
    assert {types["images", n] for n in ("group_size", "width", "size_bytes")} == {"int64"}
    assert {types["images", n] for n in ("color_similarity", "noise")} == {"double"}
    assert {types["images", n] for n in ("uri", "sha256", "error_type")} == {"string"}


@pytest.mark.parametrize("name", CONTRACT)
def test_rows_become_a_table_and_back(name):
    table = to_arrow(TABLES[name], ROWS[name][1])
    assert table.schema.equals(TABLES[name].schema)
    if name == "images":
        table = table.set_column(28, "modified", table["modified"].cast(pa.int64()))
    names = table.column_names
    assert table.to_pylist() == [{n: getattr(row, n) for n in names} for row in ROWS[name][1]]


@pytest.mark.parametrize("name", CONTRACT)
def test_no_rows_become_an_empty_table_with_the_schema(name):
    assert to_arrow(TABLES[name], []).equals(TABLES[name].schema.empty_table())


def test_a_value_that_does_not_fit_its_column_raises():
    with pytest.raises(pa.ArrowInvalid, match="too large"):
        to_arrow(TABLES["images"], [image_row("a", wavelet_distance=40_000)])


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("size", [None, 1, 512])
def test_some_runs_have_columns_more_at_the_end(labels, size):
    schema = images_table(labels=labels, embedding_size=size).schema
    plain = TABLES["images"].schema
    expected = [name for name, there in zip(FURTHER, (labels, labels, size), strict=True) if there]
    assert pa.schema(list(schema)[: len(plain)]).equals(plain)
    assert schema.names[len(plain) :] == expected
    assert embedding_size(schema) == (size or 0)
    if labels:
        assert (schema.field("label").type, schema.field("label_score").type) == (
            pa.string(),
            pa.float64(),
        )
    if size:
        assert schema.field("embedding").type == pa.list_(pa.float16(), size)


def test_an_embedding_of_no_values_is_refused():
    with pytest.raises(ValueError, match="embedding_size must be at least 1 or None, not 0"):
        images_table(embedding_size=0)


def _vector(*values):
    return np.array(values, np.float16).tobytes()


def test_embeddings_go_through_packs_and_parquet_as_they_are():
    table = images_table(labels=True, embedding_size=3)
    rows = [
        image_row("a", embedding=_vector(0.6, -0.8, 0.0), label="cat", label_score=0.75),
        image_row("b"),
        image_row("c", embedding=_vector(0.0, 1.0, 0.0)),
    ]
    expected = [[np.float16(0.6), np.float16(-0.8), 0.0], [None] * 3, [0.0, 1.0, 0.0]]
    packed = unpack_rows(table, [pack_rows(table, rows[:2]), pack_rows(table, rows[2:])])
    packed = packed.sort_by([("uri", "descending")]).sort_by("uri")
    file = io.BytesIO()
    pq.write_table(packed, file, **parquet_options(table.schema))
    read = pq.read_table(io.BytesIO(file.getvalue()))
    for found in (to_arrow(table, rows), packed, read):
        assert found.schema.equals(table.schema)
        assert found["embedding"].to_pylist() == expected
        assert found["label"].to_pylist() == ["cat", None, None]
        assert found["label_score"].to_pylist() == [0.75, None, None]


def test_no_rows_with_embeddings_are_an_empty_table():
    table = images_table(embedding_size=3)
    assert to_arrow(table, []).equals(table.schema.empty_table())
    assert to_arrow(table, [image_row("a")])["embedding"].to_pylist() == [[None] * 3]


@pytest.mark.parametrize("wrong", [b"", bytes(4), bytes(8)])
def test_an_embedding_of_another_length_raises(wrong):
    rows = [image_row("a", embedding=wrong), image_row("b", embedding=bytes(6))]
    with pytest.raises(pa.ArrowInvalid, match="an embedding of 3 values has 6 bytes"):
        to_arrow(images_table(embedding_size=3), rows)


def test_embeddings_alone_are_written_without_dictionary_and_bounds():
    table = images_table(embedding_size=3)
    assert parquet_options(TABLES["images"].schema) == {}
    file = io.BytesIO()
    rows = [image_row("a", embedding=_vector(1.0, 0.0, 0.0))]
    pq.write_table(to_arrow(table, rows), file, **parquet_options(table.schema))
    group = pq.ParquetFile(file).metadata.row_group(0)
    columns = {group.column(n).path_in_schema: group.column(n) for n in range(group.num_columns)}
    vector = columns.pop("embedding.list.element")
    assert vector.num_values == 3
    assert not vector.has_dictionary_page
    assert not vector.is_stats_set
    assert columns["uri"].has_dictionary_page
    assert all(column.is_stats_set for column in columns.values())
