"""The benchmark of reading makes the blobs that it tells of, and counts bytes as it says."""

import io

import azure_reads
import numpy as np
import pytest
from PIL import Image

from tests.azurite import Azurite
from tests.faulty import Exchange, Fault, Request
from transforms.access import Access
from transforms.storage.azure.account import forget_accounts


def test_pictures_have_the_size_of_photographs() -> None:
    grain = np.random.default_rng(1).normal(0.0, 5.0, (880, 880, 3)).astype(np.float32)
    files = [azure_reads.picture(seed, grain) for seed in range(6)]
    assert len(set(files)) == 6
    assert all(55_000 < len(data) < 115_000 for data in files)
    sizes = [Image.open(io.BytesIO(data)).size for data in files]
    assert all(660 <= width < 880 and height == width * 3 // 4 for width, height in sizes)
    assert azure_reads.picture(3, grain) == files[3]


def test_blobs_are_made_and_every_reader_reads_them_all(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = azure_reads.make_blobs(azurite, 3, 1)
    names = ["0/000000.jpg", "1/000001.jpg", "2/000002.jpg"]
    assert azurite.names("reads") == names
    assert [len(azurite.read("reads", name)) for name in names] == sizes
    connection = azurite.connection_string()
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", connection)  # and taken back at the end
    forget_accounts()
    one = azure_reads.read_alone(connection, Access(concurrency=1), is_ahead=False)
    assert (one.blobs, one.size_bytes, one.most_held_bytes) == (3, sum(sizes), max(sizes))
    room = Access(concurrency=2, memory_bytes=sizes[0] + sizes[1])
    ahead = azure_reads.read_alone(connection, room, is_ahead=True)
    assert (ahead.blobs, ahead.size_bytes) == (3, sum(sizes))
    assert ahead.most_held_bytes == sizes[0] + sizes[1]
    forget_accounts()


def _exchange(method: str, query: dict[str, str], sent_bytes: int, fault: Fault | None) -> Exchange:
    request = Request(1, method, "/a/c/b", query, {})
    return Exchange(request, 0.0, fault, 200, sent_bytes)


def test_bytes_of_whole_answers_and_of_spoilt_ones_are_counted_apart() -> None:
    exchanges = [
        _exchange("GET", {}, 100, None),
        _exchange("GET", {}, 50, Fault(reset=0.5)),
        _exchange("GET", {}, 100, None),
        _exchange("GET", {"comp": "list"}, 1000, None),
        _exchange("HEAD", {}, 7, None),
    ]
    assert azure_reads.sent_bytes(exchanges) == (200, 50)
