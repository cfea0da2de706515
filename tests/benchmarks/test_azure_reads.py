"""The benchmark of reading makes the blobs that it tells of, and counts bytes as it says."""

import io

import azure_reads
import numpy as np
from PIL import Image

from tests.azurite import Azurite
from tests.faulty import Exchange, Fault, Request


def test_pictures_have_the_size_of_photographs() -> None:
    grain = np.random.default_rng(1).normal(0.0, 5.0, (880, 880, 3)).astype(np.float32)
    files = [azure_reads.picture(seed, grain) for seed in range(6)]
    assert len(set(files)) == 6
    assert all(55_000 < len(data) < 115_000 for data in files)
    sizes = [Image.open(io.BytesIO(data)).size for data in files]
    assert all(660 <= width < 880 and height == width * 3 // 4 for width, height in sizes)
    assert azure_reads.picture(3, grain) == files[3]


def test_blobs_are_uploaded_and_their_sizes_returned(azurite: Azurite) -> None:
    sizes = azure_reads.make_blobs(azurite, 3, 1)
    names = ["0/000000.jpg", "1/000001.jpg", "2/000002.jpg"]
    assert azurite.names("reads") == names
    assert [len(azurite.read("reads", name)) for name in names] == sizes


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
