"""The benchmark of listing serves what it says, and a kept listing needs no page."""

from pathlib import Path

import azure_listing
import pytest

from transforms.storage import traffic
from transforms.storage.azure.account import forget_accounts


def test_pages_are_those_of_the_service() -> None:
    assert azure_listing.names(160, "p/039/") == [f"p/039/{n:07d}.jpg" for n in range(4)]
    assert len(azure_listing.names(160, "")) == 160
    first = azure_listing.page(160, "p/000/", "", "", 3)
    assert first.count(b"<Blob>") == 3
    assert b"<NextMarker>3</NextMarker>" in first
    last = azure_listing.page(160, "p/000/", "", "3", 3)
    assert last.count(b"<Blob>") == 1
    assert b"<NextMarker></NextMarker>" in last
    assert azure_listing.page(160, "p/", "/", "").count(b"<BlobPrefix>") == 40


def test_a_survey_lists_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with azure_listing.service(400) as (connection, asked):
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)
        forget_accounts()
        traffic.take()
        first = azure_listing.survey(str(tmp_path))
        pages = asked["list"]
        second = azure_listing.survey(str(tmp_path))
        forget_accounts()
        assert (first.rows, second.rows) == (400, 400)
        assert first.requests == {"head": 1, "list": pages}
        assert second.requests == {"head": 1}
        assert dict(asked) == {"head": 2, "list": pages}
