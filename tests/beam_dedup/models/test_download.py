"""A download: resumed, tried again, checked, and never half there."""

import errno
import fcntl
import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests

from beam_dedup.models.download import AbsentError, Download, UnreachableError, Wanted
from tests.beam_dedup.models.server import Answer, Host
from transforms.models.spec import ModelError
from transforms.models.weights import Receipt

_BODY = np.random.default_rng(0).bytes(3 << 20)
_SHA256 = hashlib.sha256(_BODY).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "name" / "file.bin"


def _run(
    url: str, path: Path, *sha256: str, waits: list[float] | None = None, told: Any = None
) -> Receipt:
    wanted = Wanted(url, str(path), sha256, "MIT")
    sleep = (lambda seconds: None) if waits is None else waits.append
    tell = (lambda done, total: None) if told is None else lambda *pair: told.append(pair)
    return Download(wanted, tell, sleep).run()


def _names(path: Path) -> set[str]:
    return {one.name for one in path.parent.iterdir()}


def _put(host: Host) -> str:
    host.files["/file.bin"] = _BODY
    return host.url("/file.bin")


def test_a_file_is_fetched_and_a_receipt_is_written_after_it(host: Host, path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    receipt = _run(_put(host), path, _SHA256, _SHA256[:8].upper(), told=told)
    assert path.read_bytes() == _BODY
    assert receipt == Receipt.read(str(path))
    assert (receipt.url, receipt.size_bytes, receipt.sha256, receipt.license) == (
        host.url("/file.bin"),
        len(_BODY),
        _SHA256,
        "MIT",
    )
    assert _names(path) == {"file.bin", "file.bin.receipt.json"}
    assert told[-1] == (len(_BODY), len(_BODY))
    assert host.asked == [("/file.bin", None, None)]


def test_a_cut_connection_is_gone_on_from_where_it_ended(host: Host, path: Path) -> None:
    host.plan = [Answer(cut=20 << 16), Answer(cut=10 << 16)]
    _run(_put(host), path, _SHA256)
    assert path.read_bytes() == _BODY
    offsets = [None, f"bytes={20 << 16}-", f"bytes={30 << 16}-"]
    assert [asked for _, asked, _ in host.asked] == offsets
    assert len({version for _, _, version in host.asked[1:]} - {None}) == 1


def test_a_later_run_goes_on_where_an_earlier_one_ended(host: Host, path: Path) -> None:
    url = _put(host)
    host.plan = [Answer(cut=30 << 16), *[Answer(503)] * 4]
    with pytest.raises(UnreachableError, match=r"breaks off: it is busy"):
        _run(url, path)
    assert _names(path) == {"file.bin.part", "file.bin.part.json"}
    host.asked.clear()
    _run(url, path, _SHA256)
    assert path.read_bytes() == _BODY
    assert [asked for _, asked, _ in host.asked] == [f"bytes={30 << 16}-"]


def test_a_file_that_changed_in_between_is_fetched_from_its_start(host: Host, path: Path) -> None:
    url = _put(host)
    host.plan = [Answer(cut=30 << 16), *[Answer(503)] * 4]
    with pytest.raises(UnreachableError):
        _run(url, path)
    other = _BODY[::-1]
    host.files["/file.bin"] = other
    receipt = _run(url, path)
    assert path.read_bytes() == other
    assert receipt.sha256 == hashlib.sha256(other).hexdigest()


@pytest.mark.parametrize("how", ["no_etag", "no_ranges", "other_url", "bad_notes"])
def test_without_a_proof_of_sameness_it_starts_again(host: Host, path: Path, how: str) -> None:
    url = _put(host)
    host.etags = how != "no_etag"
    host.plan = [Answer(cut=30 << 16), *[Answer(503)] * 4]
    with pytest.raises(UnreachableError):
        _run(url, path)
    if how == "no_ranges":
        host.plan = [Answer(ranges=False)]
    if how == "other_url":
        host.files["/other.bin"] = _BODY[::-1]
        url = host.url("/other.bin")
    if how == "bad_notes":
        Path(f"{path}.part.json").write_text("[")
    host.asked.clear()
    _run(url, path)
    assert path.read_bytes() == host.files[url.removeprefix(host.address)]
    assert len(host.asked) == 1


def test_a_part_that_is_whole_is_kept_without_a_byte_more(host: Host, path: Path) -> None:
    url = _put(host)
    _run(url, path)
    etag = f'"{hashlib.md5(_BODY, usedforsecurity=False).hexdigest()}"'
    os.rename(path, f"{path}.part")
    Path(f"{path}.part.json").write_text(
        json.dumps({"url": url, "validator": etag, "sha256": "", "total_bytes": len(_BODY)})
    )
    assert _run(url, path, _SHA256).size_bytes == len(_BODY)
    assert path.read_bytes() == _BODY


def test_a_busy_server_is_asked_again_as_it_asks_for(host: Host, path: Path) -> None:
    waits: list[float] = []
    host.plan = [Answer(503), Answer(429, headers={"Retry-After": "7"}), Answer(500)]
    _run(_put(host), path, _SHA256, waits=waits)
    assert waits == [1.0, 7.0, 4.0]


def test_a_server_that_is_never_ready_is_left(host: Host, path: Path) -> None:
    waits: list[float] = []
    host.plan = [Answer(503)] * 9
    with pytest.raises(UnreachableError, match=r"^127\.0\.0\.1:\d+ cannot be reached"):
        _run(_put(host), path, waits=waits)
    assert len(host.asked) == 4
    assert waits == [1.0, 2.0, 4.0]


def test_nobody_there_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UnreachableError, match=r"^127\.0\.0\.1:9 cannot be reached, or breaks off: "
                       r"Connection refused$"):  # fmt: skip
        _run("http://127.0.0.1:9/x", path)
    assert not path.exists()


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (Answer(404), AbsentError, r"file\.bin is not there \(HTTP 404\)$"),
        (Answer(403), UnreachableError, r"without a login \(HTTP 403\)$"),
        (Answer(418), UnreachableError, r"cannot be fetched \(HTTP 418\)$"),
        (
            Answer(headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<p>log in"),
            ModelError,
            r"answered with a web page, not with weights",
        ),
        (Answer(body=b"\n<!DOCTYPE html><p>log in"), ModelError, r"answered with a web page"),
        (
            Answer(body=b"version https://git-lfs.github.com/spec/v1\n"),
            ModelError,
            r"answered with a pointer of Git LFS",
        ),
    ],
)
def test_what_is_no_file_is_told_in_one_line(
    host: Host, path: Path, answer: Answer, kind: type[ModelError], message: str
) -> None:
    host.plan = [answer]
    with pytest.raises(kind, match=message) as caught:
        _run(_put(host), path)
    assert "\n" not in str(caught.value)
    assert not path.exists()
    assert not Path(f"{path}.receipt.json").exists()


def test_another_sha256_is_thrown_away(host: Host, path: Path) -> None:
    with pytest.raises(ModelError, match=rf"with the SHA-256 {_SHA256}, not {'0' * 64}; it was"):
        _run(_put(host), path, "0" * 64)
    assert not path.parent.exists()


def test_the_sha256_of_the_hubs_redirect_is_checked(host: Host, path: Path) -> None:
    _put(host)
    url = host.url("/moved/file.bin")
    host.plan = [Answer(headers={"X-Linked-ETag": f'"{"0" * 64}"'})]
    with pytest.raises(ModelError, match=rf"not {'0' * 64}"):
        _run(url, path)
    host.plan = [Answer(headers={"X-Linked-ETag": f'"{_SHA256}"'})]
    assert _run(url, path).sha256 == _SHA256


@pytest.mark.parametrize("length", [len(_BODY) + 1, 2 * len(_BODY)])
def test_a_file_shorter_than_announced_is_not_kept(host: Host, path: Path, length: int) -> None:
    url = _put(host)
    host.plan = [Answer(length=length, headers={"ETag": '"x"'}), *[Answer(503)] * 4]
    with pytest.raises(UnreachableError):
        _run(url, path)
    assert not path.exists()
    # The next answer is of another version, and whole.
    _run(url, path, _SHA256)
    assert path.read_bytes() == _BODY


def test_no_password_and_no_signature_is_written_beside_weights(host: Host, path: Path) -> None:
    _put(host)
    host.files["/file.bin?sig=abc"] = _BODY
    url = host.url("/file.bin?sig=abc").replace("://", "://me:word@")
    host.plan = [Answer(cut=20 << 16), *[Answer(503)] * 4]
    with pytest.raises(UnreachableError):
        _run(url, path)
    notes = Path(f"{path}.part.json").read_text()
    receipt = _run(url, path, _SHA256)
    assert host.asked[-1][1] == f"bytes={20 << 16}-"
    for text in (notes, Path(f"{path}.receipt.json").read_text()):
        assert json.loads(text)["url"] == receipt.url == host.url("/file.bin")


@pytest.mark.parametrize(
    "ways", [["http://elsewhere/x"], ["https://hub/x", "http://elsewhere/x", "https://third/x"]]
)
def test_a_redirect_out_of_encryption_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, ways: list[str]
) -> None:
    answers = []
    for url in ways:
        answer = requests.Response()
        answer.url, answer.status_code, answer.raw = url, 200, io.BytesIO(_BODY)
        answers.append(answer)
    answers[-1].history = answers[:-1]
    for url in ("https://hub/x", "HTTPS://hub/x"):
        monkeypatch.setattr(requests, "get", lambda *_, **__: answers[-1])
        with pytest.raises(ModelError, match="without encryption"):
            _run(url, path)
    assert not path.exists()


def test_a_second_process_does_not_write_the_same_file(host: Host, path: Path) -> None:
    path.parent.mkdir(parents=True)
    with open(f"{path}.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ModelError, match="being written by another process"):
            _run(_put(host), path)
    _run(host.url("/file.bin"), path, _SHA256)


def test_too_little_room_is_seen_before_a_byte_is_written(
    host: Host, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(ModelError, match=r"has 1\.0 kB left, and 3\.1 MB are missing"):
        _run(_put(host), path)
    assert not path.parent.parent.exists()


@pytest.mark.parametrize("plan", [[Answer(404)], [Answer(503)] * 4, [Answer(cut=0)] * 4])
def test_a_download_without_a_byte_leaves_nothing(
    host: Host, path: Path, plan: list[Answer]
) -> None:
    host.plan = list(plan)
    with pytest.raises(UnreachableError):
        _run(_put(host), path)
    assert not path.parent.parent.exists()
    path.parent.parent.mkdir()  # what was there before stays
    host.plan = list(plan)
    with pytest.raises(UnreachableError):
        _run(host.url("/file.bin"), path)
    assert list(path.parent.parent.iterdir()) == []


def test_a_full_disk_is_one_line(host: Host, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Download, "_write", full)
    with pytest.raises(ModelError, match=r"file\.bin\.part' cannot be written: the disk is full"):
        _run(_put(host), path)


def test_a_folder_that_cannot_be_written_is_one_line(host: Host, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder must be")
    with pytest.raises(ModelError, match=r"cannot be written: .*; choose another folder"):
        _run(_put(host), tmp_path / "cache" / "name" / "file.bin")
    assert host.asked == []
