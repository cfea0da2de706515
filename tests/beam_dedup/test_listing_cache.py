"""Listings that are kept by whole jobs on Azure, as the service sees it."""

import json
from collections import Counter
from pathlib import Path

import pytest

from beam_dedup import deduplicate
from beam_dedup.job import Result
from beam_dedup.runners import JobError
from tests.azurite import Azurite
from tests.beam_dedup.pictures import write_folder
from tests.faulty import Fault, Proxy, Request, failing
from tests.places import connected


@pytest.fixture
def root(azurite: Azurite, tmp_path: Path) -> str:
    """Upload some pictures in two folders; return the URI above them."""
    container = azurite.container()
    pictures = {one.name: one.read_bytes() for one in write_folder(tmp_path / "in").iterdir()}
    azurite.upload(
        container, {f"p/{folder}/{n}": d for folder in "ab" for n, d in pictures.items()}
    )
    return f"azfs://{azurite.account}/{container}/p"


def _kinds(proxy: Proxy) -> Counter[str]:
    kinds = Counter(each.request.kind for each in proxy.exchanges)
    proxy.exchanges.clear()
    return kinds


def _rows(result: Result) -> list[dict]:
    rows: list[dict] = sorted(result.images.to_pylist(), key=lambda row: str(row["uri"]))
    return rows


@pytest.mark.parametrize("is_remote", [False, True])
def test_a_second_run_lists_nothing(
    azurite: Azurite, root: str, tmp_path: Path, is_remote: bool
) -> None:
    cache = f"{root}-kept" if is_remote else str(tmp_path / "kept")
    options = {"profile": "fast", "workers": 2, "listing_cache": cache}
    with Proxy(azurite.endpoint) as proxy, connected(azurite, proxy.endpoint):
        first = deduplicate(root, tmp_path / "first", **options)
        assert _kinds(proxy)["list"] >= 4  # two of the check, a level and two parts
        second = deduplicate(f"{root}/", tmp_path / "second", **options, exclude=["no such name"])
        kinds = _kinds(proxy)
    assert "list" not in kinds
    # Beside the images: the manifest twice, a shard for the check, and both for the job.
    assert kinds["read"] == 8 + (5 if is_remote else 0)
    assert len(_rows(first)) == 8
    assert _rows(second) == _rows(first)
    assert "listing_cache" not in str(first.summary["caps"])
    (cap,) = second.summary["caps"]
    assert (cap["name"], cap["applied"]) == ("listing_cache", 1)
    assert 0 <= cap["limit"] < 600
    sent = {one["kind"]: one["requests"] for one in second.summary["requests"]["by_kind"]}
    assert "list" not in sent


def test_r7_a_run_that_ends_in_the_middle_keeps_no_listing(
    azurite: Azurite, root: str, tmp_path: Path
) -> None:
    def plan(request: Request) -> Fault | None:
        is_part = request.kind == "list" and request.query.get("prefix") == "p/b/"
        return failing(403) if is_part and "delimiter" not in request.query else None

    options = {"profile": "fast", "workers": 1, "listing_cache": str(tmp_path / "kept")}
    with Proxy(azurite.endpoint, plan) as proxy, connected(azurite, proxy.endpoint):
        with pytest.raises(JobError, match="refuses access"):
            deduplicate(root, tmp_path / "out", **options)
        assert list((tmp_path / "kept").rglob("manifest.json")) == []
        proxy.plan = None
        _kinds(proxy)
        result = deduplicate(root, tmp_path / "out", **options)
        assert _kinds(proxy)["list"] >= 4
    assert len(_rows(result)) == 8
    (manifest,) = (tmp_path / "kept").rglob("manifest.json")
    assert json.loads(manifest.read_text())["rows"] == 8


def test_r4_a_blob_that_changed_since_it_was_listed_is_a_failed_row(
    azurite: Azurite, root: str, tmp_path: Path
) -> None:
    options = {"profile": "fast", "workers": 1, "listing_cache": str(tmp_path / "kept")}
    with connected(azurite):
        deduplicate(root, tmp_path / "first", **options)
        container = root.split("/")[3]
        azurite.upload(container, {"p/a/0.png": b"changed", "p/new.png": b"new"})
        azurite.client.get_blob_client(container, "p/b/1.png").delete_blob()
        rows = _rows(deduplicate(root, tmp_path / "second", **options))
    failed = {row["uri"]: row["error_type"] for row in rows if row["status"] == "failed"}
    assert failed == {f"{root}/a/0.png": "vanished", f"{root}/b/1.png": "vanished"}
    assert len(rows) == 8
