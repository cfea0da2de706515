"""The columns are a contract; rows become tables with exactly these."""

import pyarrow as pa
import pytest

from tests.transforms.reporting.made import EDGES, GROUPS, IMAGES, image_row
from transforms.records import EdgeRow, GroupRow, ImageRow
from transforms.reporting.schema import TABLES, to_arrow

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
ROWS = {"images": (ImageRow, IMAGES), "groups": (GroupRow, GROUPS), "edges": (EdgeRow, EDGES)}


@pytest.mark.parametrize("name", CONTRACT)
def test_columns_are_those_of_the_contract_and_of_the_rows(name):
    assert TABLES[name].schema.names == CONTRACT[name].split()
    assert list(ROWS[name][0]._fields) == CONTRACT[name].split()


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
    assert table.to_pylist() == [row._asdict() for row in ROWS[name][1]]


@pytest.mark.parametrize("name", CONTRACT)
def test_no_rows_become_an_empty_table_with_the_schema(name):
    assert to_arrow(TABLES[name], []).equals(TABLES[name].schema.empty_table())


def test_a_value_that_does_not_fit_its_column_raises():
    with pytest.raises(pa.ArrowInvalid, match="too large"):
        to_arrow(TABLES["images"], [image_row("a", wavelet_distance=40_000)])
