"""A download of one file: resumed where it ended, tried again, and looked at before it is kept.

A file is written as ``NAME.part``, locked against other processes. Beside it ``NAME.part.json``
says which version of which address it is a part of, so that a later run goes on only with the same
bytes (RFC 9110, section 14.2 and 13.1.5). It gets its own name once its length and SHA-256 are
right, and its receipt after that.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Final
from urllib.parse import urlsplit

import requests
from requests.exceptions import ChunkedEncodingError, RequestException

import beam_dedup
from beam_dedup.messages import size
from transforms.models.spec import ModelError
from transforms.models.weights import Receipt, receipt_path, sha256_of

_CHUNK_BYTES: Final = 1 << 16  # what a broken connection loses at most
_TIMEOUT_S: Final = (10.0, 60.0)  # to connect, and for each read
_ATTEMPTS: Final = 4  # in a row that bring too little
_PROGRESS_BYTES: Final = 1 << 20
_LONGEST_WAIT_S: Final = 60.0
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_SHA256: Final = re.compile(r'"([0-9a-f]{64})"')
# What comes in place of weights: a page that asks for a login, or Git's pointer to a large file.
_NO_WEIGHTS: Final = {
    b"<!doctype": "a web page",
    b"<html": "a web page",
    b"version https://git-lfs": "a pointer of Git LFS",
}


class UnreachableError(ModelError):
    """A file cannot be had from one address; another may have it."""


class AbsentError(UnreachableError):
    """There is no such file at the address; another name may be there."""


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A file to fetch.

    Attributes:
        url: http or https.
        path: where it goes.
        sha256: digits that its SHA-256 must begin with; any of them may be a prefix.
        license: for the receipt.
    """

    url: str
    path: str
    sha256: tuple[str, ...]
    license: str


@dataclasses.dataclass
class _Part:
    """What is there of a file, and of which version of which address."""

    url: str = ""
    validator: str = ""  # a strong ETag or a date; empty if there is none to go on by
    sha256: str = ""  # as the server gives it; empty if it does not
    total_bytes: int | None = None


class Download:
    """Fetches one file."""

    def __init__(
        self,
        wanted: Wanted,
        tell: Callable[[int, int | None], object] = lambda done, total: None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """Take what to fetch.

        Args:
            wanted: which file.
            tell: called with the bytes that are there, and how many there will be, if known.
            sleep: waits some seconds before another attempt.
        """
        self._wanted = wanted
        self._tell = tell
        self._sleep = sleep
        self._part_path = f"{wanted.path}.part"
        self._part = _Part()

    def run(self) -> Receipt:
        """Fetch it, and return its receipt.

        Raises:
            AbsentError: the server says that there is no such file.
            UnreachableError: the server does not give it.
            ModelError: it is not what it must be, or cannot be written.
        """
        try:
            with _folder(os.path.dirname(self._wanted.path)), _locked(self._part_path) as file:
                try:
                    self._part = self._kept(file)
                    self._fill(file)
                    return self._keep(file)
                except BaseException:
                    if not _length(file):
                        self._drop()  # there is nothing to go on from
                    raise
        except OSError as error:
            if isinstance(error, RequestException):
                raise
            what = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or error
            raise ModelError(
                f"{error.filename or self._part_path!r} cannot be written: {what}; choose another "
                "folder with --model_cache"
            ) from error

    def _kept(self, file: BinaryIO) -> _Part:
        """Return what an earlier run left, or empty the file."""
        try:
            with open(f"{self._part_path}.json", encoding="utf-8") as notes:
                part = _Part(**json.load(notes))
        except (OSError, ValueError, TypeError):
            part = _Part()
        if part.url == _public(self._wanted.url) and part.validator:
            return part
        file.truncate(0)
        return _Part()

    def _fill(self, file: BinaryIO) -> None:
        """Ask until all bytes are there."""
        failures = 0
        while True:
            before = _length(file)
            try:
                wait_s = self._ask(file)
                if wait_s is None:
                    return
                reason = "it is busy"
            except RequestException as error:
                # A name that means nothing is no better a second later.
                if not isinstance(error, requests.ConnectionError | requests.Timeout) and (
                    not isinstance(error, ChunkedEncodingError)
                ):
                    raise UnreachableError(
                        f"{self._wanted.url} cannot be asked: {error}"
                    ) from error
                wait_s, reason = 0.0, _cause(error)
            failures = 0 if _length(file) - before >= _PROGRESS_BYTES else failures + 1
            if failures == _ATTEMPTS:
                host = urlsplit(self._wanted.url).netloc
                raise UnreachableError(f"{host} cannot be reached, or breaks off: {reason}")
            self._sleep(max(wait_s, float(2**failures) / 2))

    def _ask(self, file: BinaryIO) -> float | None:
        """Ask once for what is missing; return the seconds to wait, or None where all is there."""
        there = _length(file)
        headers = {
            "User-Agent": f"beam-dedup/{beam_dedup.__version__}",
            "Accept-Encoding": "identity",
        }
        if there and self._part.validator:
            headers |= {"Range": f"bytes={there}-", "If-Range": self._part.validator}
        with requests.get(
            self._wanted.url, headers=headers, stream=True, timeout=_TIMEOUT_S
        ) as answer:
            ways = (one.url for one in (*answer.history, answer))
            if _is_encrypted(self._wanted.url) and not all(map(_is_encrypted, ways)):
                raise ModelError(f"{self._wanted.url} leads to an address without encryption")
            if answer.status_code in _AGAIN:
                return _retry_after(answer)
            if answer.status_code == 416 and there == self._part.total_bytes:
                return None  # nothing was missing but the last step
            if answer.status_code == 206 and _begins(answer) == there:
                self._note(answer, there)
            elif answer.status_code in (200, 206, 416):
                file.truncate(0)
                if answer.status_code != 200:
                    self._part = _Part()
                    return 0.0
                self._refuse_page(answer)
                self._note(answer, 0)
            else:
                self._refuse(answer)
            self._write(file, answer)
        total = self._part.total_bytes
        return None if total is None or _length(file) == total else 0.0

    def _note(self, answer: requests.Response, there: int) -> None:
        """Remember which version the answer is of, before a byte of it is written."""
        length = answer.headers.get("Content-Length", "")
        etag = answer.headers.get("ETag", "")
        validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")
        # The Hugging Face hub gives the SHA-256 of a large file where it redirects to its store.
        linked = [one.headers.get("X-Linked-ETag", "") for one in (*answer.history, answer)]
        digits = [match[1] for one in linked if (match := _SHA256.fullmatch(one))]
        self._part = _Part(
            _public(self._wanted.url),
            validator,
            digits[0] if digits else "",
            there + int(length) if length.isdecimal() else None,
        )
        self._check_space(there)
        with open(f"{self._part_path}.json", "w", encoding="utf-8") as notes:
            json.dump(dataclasses.asdict(self._part), notes)

    def _check_space(self, there: int) -> None:
        free = shutil.disk_usage(os.path.dirname(self._part_path)).free
        needed = (self._part.total_bytes or 0) - there
        if needed > free:
            raise ModelError(
                f"{os.path.dirname(self._part_path)!r} has {size(free)} left, and {size(needed)} "
                "are missing; choose another folder with --model_cache"
            )

    def _write(self, file: BinaryIO, answer: requests.Response) -> None:
        file.seek(0, os.SEEK_END)
        for chunk in answer.iter_content(_CHUNK_BYTES):
            if not file.tell():
                self._refuse_start(bytes(chunk))
            file.write(chunk)
            self._tell(file.tell(), self._part.total_bytes)

    def _keep(self, file: BinaryIO) -> Receipt:
        """Check the SHA-256 and give the file its name."""
        os.fsync(file.fileno())
        found = sha256_of(self._part_path)
        for digits in (*self._wanted.sha256, self._part.sha256):
            if not found.startswith(digits.lower()):
                self._drop()
                raise ModelError(
                    f"{self._wanted.url} gave a file with the SHA-256 {found}, not {digits}; it "
                    "was thrown away"
                )
        receipt = Receipt(
            _public(self._wanted.url),
            _length(file),
            found,
            self._wanted.license,
            datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        )
        os.replace(self._part_path, self._wanted.path)
        write_receipt(self._wanted.path, receipt)
        with contextlib.suppress(FileNotFoundError):
            os.remove(f"{self._part_path}.json")
        return receipt

    def _refuse_page(self, answer: requests.Response) -> None:
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            self._refuse_start(b"<html")

    def _refuse_start(self, start: bytes) -> None:
        for mark, what in _NO_WEIGHTS.items():
            if start[:64].lstrip().lower().startswith(mark):
                self._drop()
                raise ModelError(
                    f"{self._wanted.url} answered with {what}, not with weights; does a proxy or a "
                    "login stand between?"
                )

    def _refuse(self, answer: requests.Response) -> None:
        url, status = self._wanted.url, answer.status_code
        if status in (404, 410):
            raise AbsentError(f"{url} is not there (HTTP {status})")
        if status in (401, 403):
            raise UnreachableError(f"{url} may not be read without a login (HTTP {status})")
        raise UnreachableError(f"{url} cannot be fetched (HTTP {status})")

    def _drop(self) -> None:
        for path in (self._part_path, f"{self._part_path}.json"):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def write_receipt(path: str, receipt: Receipt) -> None:
    """Write the receipt of a file of weights, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    written = f"{receipt_path(path)}.part"
    with open(written, "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(receipt), file, indent=1)
        file.write("\n")
    os.replace(written, receipt_path(path))


@contextlib.contextmanager
def _folder(path: str) -> Iterator[None]:
    """Make a folder, and take away what was made of it if the body fails and leaves it empty."""
    made = []
    parent = path
    while not os.path.exists(parent):
        made.append(parent)
        parent = os.path.dirname(parent)
    try:
        os.makedirs(path, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):  # the first that holds something ends it
            for one in made:
                os.rmdir(one)
        raise


@contextlib.contextmanager
def _locked(path: str) -> Iterator[BinaryIO]:
    """Open a file to write on, alone.

    Raises:
        ModelError: another process writes it.
    """
    # Appending, so that what is there stays.
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had the lock may just have given the file its name.
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                yield file
                return
        except (BlockingIOError, FileNotFoundError) as error:
            if isinstance(error, FileNotFoundError) and error.filename != path:
                raise
    raise ModelError(f"{path!r} is being written by another process; wait for it")


def _public(url: str) -> str:
    """Return an address without what may be a secret: a password, a signature, a token."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()


def _is_encrypted(url: str) -> bool:
    return url.lower().startswith("https:")


def _length(file: BinaryIO) -> int:
    file.flush()
    return os.fstat(file.fileno()).st_size


def _begins(answer: requests.Response) -> int | None:
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _retry_after(answer: requests.Response) -> float:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_WAIT_S) if text.isdecimal() else 0.0


def _cause(error: RequestException) -> str:
    """Return the innermost reason of a failed request, without the layers around it."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    return str(getattr(inner, "strerror", None) or inner)[:200] or type(inner).__name__
