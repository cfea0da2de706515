"""List files of every kind."""

import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.storage import InputError
from transforms.storage.lists import Line, is_list, read_list


def names_in(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    return list(read_list(bytes(path)))


def test_n1_txt_keeps_all_but_the_line_end(tmp_path):
    data = b"\xef\xbb\xbf a [1].jpg \r\n\n#1\xff.jpg\n\tb"
    assert names_in(tmp_path, "l.txt", data) == [
        Line(1, b" a [1].jpg "),
        Line(3, b"#1\xff.jpg"),
        Line(4, b"\tb"),
    ]


def test_csv_with_quotes_newlines_and_other_columns(tmp_path):
    data = b'\xef\xbb\xbfid,uri\r\n1,"a,""b"".jpg"\r\n2,"new\nline.jpg"\r\n\r\n3,\xff.jpg\r\n'
    assert names_in(tmp_path, "l.CSV", data) == [
        Line(2, b'a,"b".jpg'),
        Line(4, b"new\nline.jpg"),
        Line(6, b"\xff.jpg"),
    ]


def test_json_of_strings_or_objects(tmp_path):
    data = json.dumps(["a", {"uri": "file:///é", "x": 1}, "caf\udce9"]).encode()
    expected = [Line(1, b"a"), Line(2, "file:///é".encode()), Line(3, b"caf\xe9")]
    assert names_in(tmp_path, "l.json", data) == expected


def test_jsonl_of_strings_or_objects(tmp_path):
    assert names_in(tmp_path, "l.jsonl", b'"a"\n\n{"uri": "b"}\n') == [Line(1, b"a"), Line(3, b"b")]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_parquet_of_strings(tmp_path, kind):
    names = pa.array(["a.jpg", "é"]).cast(kind)
    pq.write_table(pa.table({"n": [1, 2], "uri": names}), tmp_path / "l.parquet")
    expected = [Line(1, b"a.jpg"), Line(2, "é".encode())]
    assert list(read_list(bytes(tmp_path / "l.parquet"))) == expected


def parquet_of(column, values):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({column: values}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("l.csv", b"path\na.jpg\n", "no column 'uri'"),
        ("l.csv", b"", "no column 'uri'"),
        ("l.csv", b"id,uri\n1\n", "row 2 has no text"),
        ("l.csv", b"id,uri\n1,\n", "row 2 has no text"),
        ("l.csv", b'uri\n"a\n', "unexpected end"),
        ("l.csv", b"uri\n" + b"a" * 200_000, "field larger"),
        ("l.json", b"{}", "array of strings"),
        ("l.json", b"[1]", "row 1 has no text"),
        ("l.json", b'["a", {"path": "b"}]', "row 2 has no text"),
        ("l.json", b"[", "Expecting value"),
        ("l.json", b'["\\ud800"]', "surrogates not allowed"),
        ("l.json", b"[" * 100_000, "recursion"),
        ("l.jsonl", b'"a"\nb\n', "Expecting value"),
        ("l.parquet", b"no parquet", "Parquet magic bytes"),
        ("l.parquet", parquet_of("path", ["a"]), "no column 'uri'"),
        ("l.parquet", parquet_of("uri", [1]), "must hold strings, not int64"),
        ("l.parquet", parquet_of("uri", ["a", None]), "row 2 has no text"),
        ("l.txt", pickle.dumps(["a"]), "pickle"),
        ("l.json", pickle.dumps(["a"], 2), "pickle"),
    ],
)
def test_x1_broken_lists_are_refused_in_one_line(tmp_path, name, data, reason):
    with pytest.raises(InputError, match=reason) as caught:
        names_in(tmp_path, name, data)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_what_is_a_list():
    assert [name for name in (b"a.TXT", b"a.csv", b"a.jpg", b"txt", b".txt") if is_list(name)] == [
        b"a.TXT",
        b"a.csv",
    ]
