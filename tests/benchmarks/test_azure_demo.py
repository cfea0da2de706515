"""The demonstration uploads what is there, and sees every difference between two reports."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import azure_demo
import pyarrow as pa
import pytest

from tests.azurite import Azurite
from transforms.reporting.schema import TABLES


def _table(name: str, *rows: dict[str, Any]) -> pa.Table:
    schema = TABLES[name].schema
    return pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema)


def _report(root: str, path: str, etag: str) -> Any:
    one = {"uri": f"{root}/a%20b", "path": f"{path}/a b", "best_uri": f"{root}/c", "etag": etag}
    two = {"uri": f"{root}/c", "path": f"{path}/c", "status": "best", "size_bytes": 5}
    edge = {"uri_a": f"{root}/a%20b", "uri_b": f"{root}/c", "relation": "resized"}
    return SimpleNamespace(
        images=_table("images", two, one | {"modified": len(etag)}),
        groups=_table("groups", {"group_id": "g", "best_uri": f"{root}/c"}),
        edges=_table("edges", edge),
    )


def test_reports_are_equal_but_for_roots_etags_and_times(capsys: pytest.CaptureFixture) -> None:
    remote = _report("azfs://acc/c/in", "azfs://acc/c/in", "0x8")
    local = _report("file:///tmp/in%20put", "/tmp/in put", "12-3-4")
    one = azure_demo.comparable(remote, ["azfs://acc/c/in"])
    other = azure_demo.comparable(local, ["file:///tmp/in%20put", "/tmp/in put"])
    assert [row["uri"] for row in one["images"]] == ["/a%20b", "/c"]
    assert one["images"][0] == {
        name: {"uri": "/a%20b", "path": "/a b", "best_uri": "/c"}.get(name)
        for name in TABLES["images"].schema.names
        if name not in ("etag", "modified")
    }
    assert azure_demo.compare(one, other)
    assert capsys.readouterr().out.splitlines() == [
        "images: 2 rows compared, all equal",
        "groups: 1 rows compared, all equal",
        "edges: 1 rows compared, all equal",
    ]


def test_a_difference_is_told(capsys: pytest.CaptureFixture) -> None:
    one = azure_demo.comparable(_report("azfs://a/c", "azfs://a/c", "x"), ["azfs://a/c"])
    other = {name: [dict(row) for row in rows] for name, rows in one.items()}
    other["images"][1]["size_bytes"] = 6
    other["edges"].clear()
    assert not azure_demo.compare(one, other)
    assert capsys.readouterr().out.splitlines() == [
        "images: 2 rows compared, 1 DIFFER",
        "  ('/c',): {'size_bytes': (5, 6)}",
        "groups: 1 rows compared, all equal",
        "edges: 1 rows compared, 1 DIFFER",
        "  ('/a%20b', '/c'): only in one of the two",
    ]


def test_rows_with_one_key_do_not_hide_each_other() -> None:
    row = {"uri": "a", "n": 1}
    assert azure_demo.differences([row, row], [row], ["uri"]) == [
        "rows with equal keys: 2 and 1 rows"
    ]


def test_files_go_up_and_come_back_by_their_names(azurite: Azurite, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    azure_demo.make_pictures(folder, 2)
    (folder / "link.jpg").symlink_to("photographs/00.jpg")
    files = {name: path.read_bytes() for name, path in azure_demo.files_below(folder)}
    assert len(files) == 2 + 3 + 18 + 6
    assert {"Odd names é/a?x=1#2.jpg", "Odd names é/ä b.jpg"} < set(files)
    assert "link.jpg" not in files
    container = azurite.container()
    azurite.upload(container, {"elsewhere": b"x"})
    size_bytes = sum(map(len, files.values()))
    assert azure_demo.upload(azurite, container, "in", folder) == (len(files), size_bytes)
    azure_demo.download(azurite, container, "in", tmp_path / "back")
    back = {name: path.read_bytes() for name, path in azure_demo.files_below(tmp_path / "back")}
    assert back == files
