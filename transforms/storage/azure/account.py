"""Requests to one account: each limited, counted, tried again, and verified.

The SDK signs requests and takes answers apart. Its own retries are off: what may be tried again is
tried again here, from the beginning, so that a body that was cut is never put together from parts
of two answers.
"""

import functools
import hashlib
import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, BinaryIO, NamedTuple, Optional, TypeVar

from transforms.access import Access
from transforms.storage import traffic
from transforms.storage.azure.credentials import Grant, grant_of
from transforms.storage.azure.names import BlobName
from transforms.storage.errors import (
    AccessError,
    InputError,
    StorageError,
    UnavailableError,
    too_large,
)
from transforms.storage.limits import ATTEMPTS, Limiter, retry_after_s, with_retries

# One request up to here, and 16 MiB each beyond: bodies are held in memory anyway.
_SINGLE_GET_BYTES, _MORE_GET_BYTES = 64 * 2**20, 16 * 2**20
_SINGLE_PUT_BYTES, _BLOCK_BYTES = 64 * 2**20, 16 * 2**20
# Seconds until a connection, and between two pieces of an answer. A slow answer is a fault, too:
# so is a body of which less than this came in the seconds after those.
_CONNECT_S, _READ_S, _LEAST_BYTES_PER_S = 20, 60, 1024
_PIECE_BYTES = 2**18  # of a body, taken from its connection at once
PAGE = 5000  # names, the most that the service gives
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_NO_CONTAINER = frozenset({"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"})
_BUSY = frozenset({429, 503})
# Codes of 409 and 412; of a condition that does not hold it depends on what was asked.
_CONFLICTS = {
    "BlobAlreadyExists": "exists",
    "ContainerAlreadyExists": "exists",
    "TargetConditionNotMet": "exists",
    "SourceConditionNotMet": "vanished",
    "LeaseAlreadyPresent": "leased",
    "LeaseIdMissing": "leased",
}
# Between two looks at a copy that is under way. Within an account one is made at once, as a rule.
COPY_WAITS_S = (0.1, 0.2, 0.5, 1, 2, *120 * (5,))
_FOLDER = "hdi_isfolder"  # metadata of the stubs that stand for folders of a hierarchical namespace

_Result = TypeVar("_Result")
# The service's checksum of a whole blob; it guards against damage on the way, not against people.
_md5 = functools.partial(hashlib.md5, usedforsecurity=False)


class Properties(NamedTuple):
    """What the store says of a blob."""

    name: str
    size_bytes: int
    etag: str  # without quotes
    modified_us: Optional[int]  # microseconds since 1970-01-01 UTC
    content_md5: str  # hex; "" where the store has none
    tier: str  # Hot, Cool, Cold, Archive; "" where the store has none
    is_folder: bool
    metadata: dict[str, str]
    is_leased: bool = False
    copy_status: str = ""  # pending, success, aborted, failed; "" where it was not copied


class Staged(NamedTuple):
    """What was sent of a blob that is not there yet."""

    blob: BlobName
    block_ids: list[str]  # in their order
    md5: bytes  # of the whole


class Level(NamedTuple):
    """One level of names below a prefix."""

    prefixes: list[str]  # each ends in a slash
    blobs: list[Properties]
    is_whole: bool  # whether there is no more than this


class _BodyError(Exception):
    """A body was cut, or is not what its checksum says; the SDK has no part in trying again."""


class Account:
    """An account as this process reaches it; thread-safe.

    Every method raises ``StorageError`` for what is permanent and of one blob, ``AccessError`` for
    what is permanent and of the account or container, and ``UnavailableError`` where trying again
    did not help. None of them holds, or hangs on, what the SDK raised: its messages hold URLs, and
    those may hold a signature.

    Args:
        name: of the account.
        access: for the rate limit and the number of connections.
        grant: how it is reached.
        limiter: stands before every request.
        sleep: waits so many seconds.
        transport: of azure-core, for tests; None makes one.
    """

    def __init__(
        self,
        name: str,
        access: Access,
        grant: Grant,
        *,
        limiter: Optional[Limiter] = None,
        sleep: Callable[[float], None] = time.sleep,
        transport: Any = None,
    ) -> None:
        self.name = name
        self._grant = grant
        self._limiter = limiter or Limiter(access.requests_per_second, sleep=sleep)
        self._sleep = sleep
        self._service = _service(grant, access, self._limiter, transport)

    def pages(
        self, container: str, prefix: str = "", *, deep: bool = True
    ) -> Iterator[list[Properties]]:
        """Yield the names below a prefix in the store's order, page by page.

        A page that cannot be had raises: a part is never taken for the whole (fault R7).

        Args:
            container: its name.
            prefix: of names.
            deep: whether names beyond the next slash after the prefix belong to it.
        """
        marker: Optional[str] = None
        while True:
            page, marker = self._page(container, prefix, marker, "" if deep else "/")
            yield page if deep else [one for one in page if one.size_bytes >= 0]
            if not marker:
                return

    def level(self, container: str, prefix: str = "", most: Optional[int] = None) -> Level:
        """Return the names below a prefix up to the next slash: the first page that has any.

        Args:
            container: its name.
            prefix: of names; ends in a slash or is empty.
            most: names on the page, each of which costs the SDK 0.2 ms of CPU time; None takes as
                many as the store gives.
        """
        page, marker = self._page(container, prefix, None, "/", most)
        while marker and not page:  # a page may be empty, and not be the last
            page, marker = self._page(container, prefix, marker, "/", most)
        prefixes = [one.name for one in page if one.size_bytes < 0]
        return Level(prefixes, [one for one in page if one.size_bytes >= 0], not marker)

    def head(self, blob: BlobName) -> Properties:
        """Look at one blob; where there is none, ``StorageError`` says ``not_found``."""
        client = self._client(blob)
        return self._do("head", lambda: _properties(client.get_blob_properties()), "not_found")

    def get(
        self,
        blob: BlobName,
        max_bytes: int,
        size_bytes: Optional[int] = None,
        etag: Optional[str] = None,
    ) -> bytes:
        """Read a whole blob, verified by its length and, where the store has one, its MD5.

        Args:
            blob: its name.
            max_bytes: the most that is read.
            size_bytes: as it was listed; another size now is ``vanished``. None was never listed.
            etag: as it was listed; another one now is ``vanished``.
        """
        if size_bytes is not None and size_bytes > max_bytes:
            raise too_large(size_bytes, max_bytes)
        listed = size_bytes is not None or etag is not None
        client = self._client(blob)
        read = functools.partial(_read_whole, client, max_bytes, size_bytes, etag)
        return self._do("read", read, "vanished" if listed else "not_found")

    def save(self, blob: BlobName, file: IO[bytes]) -> None:
        """Read a whole blob into a file from its start, verified as by ``get``.

        Holds no more of it in memory than one answer, whatever its size; afterwards the file's
        position is its start.
        """
        client = self._client(blob)
        self._do("read", lambda: _save_whole(client, file), "not_found")

    def put(
        self,
        blob: BlobName,
        body: BinaryIO,
        *,
        overwrite: bool,
        metadata: Optional[Mapping[str, str]] = None,
    ) -> str:
        """Write a whole blob; the store verifies its MD5.

        Args:
            blob: its name.
            body: from its current position to its end; it can be sought.
            overwrite: whether a blob of this name is replaced; where it is not and there is one,
                ``StorageError`` says ``exists``.
            metadata: names and values, ASCII.

        Returns:
            The ETag.
        """
        start = body.tell()
        md5, length = _md5(), 0
        while piece := body.read(_PIECE_BYTES):
            md5.update(piece)
            length += len(piece)
        client = self._client(blob)
        attempts = 0

        def write() -> str:
            from azure.storage.blob import ContentSettings

            nonlocal attempts
            attempts += 1
            body.seek(start)
            answer = client.upload_blob(
                body,
                length=length,
                overwrite=overwrite,
                metadata=dict(metadata or {}),
                content_settings=ContentSettings(content_md5=bytearray(md5.digest())),
                # The parts in memory are compared on the way; the whole keeps its MD5.
                validate_content=True,
                max_concurrency=1,
            )
            return _bare(answer["etag"])

        try:
            return self._do("write", write, "not_found")
        except StorageError as error:
            # An attempt whose answer was lost may have written it.
            if error.error_type != "exists" or attempts == 1:
                raise
            found = self.head(blob)
            if found.content_md5 != md5.hexdigest() or found.size_bytes != length:
                raise
            return found.etag

    def stage(self, blob: BlobName, body: BinaryIO) -> Staged:
        """Send what is to become a blob; nobody sees any of it before ``commit``.

        The store verifies the MD5 of each part. Where no commit follows, it forgets the parts
        after a week.

        Args:
            blob: its name; a blob that has it stays as it is.
            body: from its current position to its end.
        """
        client = self._client(blob)
        run, md5 = uuid.uuid4().hex, _md5()
        ids: list[str] = []
        while part := body.read(_BLOCK_BYTES):
            # All parts that a name has must have ids of one length.
            ids.append(f"{run}{len(ids):06d}")
            md5.update(part)
            send = functools.partial(client.stage_block, ids[-1], part, validate_content=True)
            self._do("write", send, "not_found")
        return Staged(blob, ids, md5.digest())

    def commit(self, staged: Staged) -> None:
        """Make a blob of what was sent, at once and over one that has its name."""
        from azure.storage.blob import ContentSettings

        client = self._client(staged.blob)
        settings = ContentSettings(content_md5=bytearray(staged.md5))
        commit = functools.partial(client.commit_block_list, content_settings=settings)
        self._do("write", lambda: commit(staged.block_ids), "not_found")

    def copy(self, source: BlobName, target: BlobName, etag: str) -> str:
        """Copy within the account, and wait until the copy is whole, for ten minutes at most.

        Args:
            source: what is copied.
            target: a name that no blob has, or ``StorageError`` says ``exists``.
            etag: of the source; another one now is ``vanished``.

        Returns:
            The ETag of the target.
        """
        from azure.core import MatchConditions

        origin, client = self._client(source), self._client(target)
        url = self._readable_url(origin)

        def start() -> dict[str, Any]:
            answer: dict[str, Any] = client.start_copy_from_url(
                url,
                source_etag=_quoted(etag),
                source_match_condition=MatchConditions.IfNotModified,
                # "*": only where nothing has the name.
                match_condition=MatchConditions.IfMissing,
            )
            return answer

        answer = self._do("copy", start, "vanished")
        status, waits = answer["copy_status"], iter(COPY_WAITS_S)
        while status == "pending":
            wait_s = next(waits, None)
            if wait_s is None:
                raise UnavailableError(
                    f"account {self.name!r}: a copy is still under way after {sum(COPY_WAITS_S)} s"
                )
            self._sleep(wait_s)
            found = self._do("head", client.get_blob_properties, "vanished")
            # Its end gives the target another ETag.
            status, answer = found.copy.status, {"etag": found.etag}
        if status != "success":
            raise StorageError("other", f"the copy ended as {status!r}")
        return _bare(answer["etag"])

    def delete(self, blob: BlobName, etag: Optional[str] = None) -> None:
        """Delete a blob if it still has this ETag; one that is gone is ``not_found``."""
        client = self._client(blob)
        self._do("delete", lambda: client.delete_blob(**_if_match(etag)), "not_found")

    def lease(self, blob: BlobName, seconds: int) -> "Lease":
        """Take the lease of a blob; where someone has it, ``StorageError`` says ``leased``."""
        client = self._client(blob)
        # With an id of our own: an attempt whose answer was lost may have taken it.
        acquire = functools.partial(client.acquire_lease, seconds, lease_id=str(uuid.uuid4()))
        return Lease(self, client, self._do("lease", acquire, "not_found"))

    def close(self) -> None:
        """Close the connections; the account is of no use any more."""
        self._service.close()

    def _client(self, blob: BlobName) -> Any:
        if not blob.can_be_requested:
            raise StorageError(
                "other",
                "its name has a segment . or .., or more than 1,024 characters: no request can "
                "name it",
            )
        return self._service.get_blob_client(blob.container, blob.name)

    def _readable_url(self, client: Any) -> str:
        """Return the URL by which the store itself reads a blob of this account.

        It holds the shared access signature, where that is the credential: unlike a key or a token,
        one that comes with the request says nothing of the source.
        """
        signature = getattr(self._grant.credential, "signature", "")
        return f"{client.url}?{signature}" if signature else str(client.url)

    def _page(
        self,
        container: str,
        prefix: str,
        marker: Optional[str],
        delimiter: str,
        most: Optional[int] = None,
    ) -> tuple[list[Properties], Optional[str]]:
        client = self._service.get_container_client(container)
        ask: Any = client.list_blobs
        if delimiter:
            ask = functools.partial(client.walk_blobs, delimiter=delimiter)

        def read() -> tuple[list[Properties], Optional[str]]:
            found = ask(
                name_starts_with=prefix, include=["metadata"], results_per_page=most or PAGE
            )
            pages = found.by_page(marker)
            page = [_listed(item) for item in next(pages, [])]
            return page, pages.continuation_token

        return self._do("list", read, "not_found")

    def _do(self, kind: str, operation: Callable[[], _Result], missing: str) -> _Result:
        """Do an operation with retries, and turn what the SDK raises into our own errors."""

        def note(error: BaseException) -> None:
            traffic.count(kind, _status(error), retries=1)

        def wait(seconds: float) -> None:
            with self._limiter.waiting() as waited:
                self._sleep(seconds)
            traffic.count(kind, "retry", waited_s=waited.seconds)

        try:
            return with_retries(operation, _is_transient, _asked_s, note, wait)
        except Exception as error:
            failure = self._failure(kind, error, missing)
        # Not within the handler: an error would keep the one that it was met by.
        raise failure

    def _failure(self, kind: str, error: Exception, missing: str) -> Exception:
        """Return what a failure of an operation is to us; what is none of the SDK's, as it is."""
        from azure.core.exceptions import AzureError

        if isinstance(error, _BodyError):
            # Of one blob; but a listing is whole or none.
            if kind == "list":
                return UnavailableError(f"account {self.name!r}: a page of names is cut: {error}")
            return StorageError("other", str(error))
        if not isinstance(error, AzureError):
            return error
        status, code = _status_code(error), _error_code(error)
        if status in (401, 403) or _is_login_failure(error):
            code = code or _cause(error)
            return AccessError(
                f"account {self.name!r} refuses access ({code}) with the {self._grant.source}; "
                "see docs/guides/azure.md, 'Access'",
                code,
            )
        if _is_transient(error):
            return UnavailableError(
                f"account {self.name!r} did not answer at {self._grant.endpoint} "
                f"({kind}: {code or status or _cause(error)}) in {ATTEMPTS} attempts"
            )
        if status == 404 and code in _NO_CONTAINER:
            return AccessError(f"account {self.name!r} has no such container ({code})", code)
        reason = str(code or status or _cause(error))
        if kind == "list":
            return AccessError(
                f"account {self.name!r} cannot list the container ({reason})", reason
            )
        return _refused(kind, status, reason, missing)


def _refused(kind: str, status: Optional[int], reason: str, missing: str) -> StorageError:
    """Return the permanent failure of one blob."""
    if status == 404:
        return StorageError(missing, f"there is no such blob now ({reason})")
    # Only what is written must not be there yet; all else must be as it was seen.
    unmet = "exists" if kind == "write" else "vanished"
    error_type = _CONFLICTS.get(reason, unmet if status == 412 else "other")
    if error_type == "vanished":
        return StorageError(error_type, f"it was changed after it was listed ({reason})")
    return StorageError(error_type, f"the store refuses it ({reason})")


class Lease:
    """The lease of a blob, which no other process can take as long as it is renewed."""

    def __init__(self, account: Account, client: Any, lease: Any) -> None:
        """Take what the SDK made."""
        self._account = account
        self._client = client
        self._lease = lease

    def renew(self) -> None:
        """Begin its time anew."""
        self._account._do("lease", self._lease.renew, "not_found")

    def write(self, data: bytes) -> None:
        """Replace what the blob holds, which others cannot."""
        write = functools.partial(self._client.upload_blob, overwrite=True, lease=self._lease)
        self._account._do("write", lambda: write(data), "not_found")

    def delete(self) -> None:
        """Delete the blob, and end the lease with it."""
        delete = functools.partial(self._client.delete_blob, lease=self._lease)
        self._account._do("delete", delete, "not_found")


_accounts: dict[tuple[str, Access], Account] = {}
_limiters: dict[Access, Limiter] = {}
_accounts_lock = threading.Lock()


def account_of(name: str, access: Access) -> Account:
    """Return an account, the same object for the same arguments in one process.

    Accounts that are reached in the same way share a limiter: what a process may send is bounded,
    whatever it is sent to.

    Raises:
        InputError: there is no access to it; see ``credentials.grant_of``.
    """
    with _accounts_lock:
        account = _accounts.get((name, access))
        if account is None:
            grant = grant_of(name, access.secret_file)
            limiter = _limiters.setdefault(access, Limiter(access.requests_per_second))
            account = _accounts[name, access] = Account(name, access, grant, limiter=limiter)
        return account


def forget_accounts() -> None:
    """Make the next use of an account look for its credentials again; for tests."""
    with _accounts_lock:
        for account in _accounts.values():
            account.close()
        _accounts.clear()
        _limiters.clear()


def _service(grant: Grant, access: Access, limiter: Limiter, transport: Any) -> Any:
    try:
        from azure.storage.blob import BlobServiceClient
    except ImportError:
        raise InputError(
            "azfs needs the libraries of Azure: pip install -c requirements.txt '.[azure]'"
        ) from None
    return BlobServiceClient(
        grant.endpoint,
        credential=grant.credential,
        transport=_watched(transport or _transport(access, grant.endpoint), limiter),
        retry_total=0,
        retry_connect=0,
        retry_read=0,
        retry_status=0,
        permit_redirects=False,  # the service sends none, and nobody else gets our credentials
        max_single_get_size=_SINGLE_GET_BYTES,
        max_chunk_get_size=_MORE_GET_BYTES,
        max_single_put_size=_SINGLE_PUT_BYTES,
        max_block_size=_BLOCK_BYTES,
    )


def _transport(access: Access, endpoint: str) -> Any:
    """Return azure-core's transport with a connection for every thread that reads."""
    import requests
    from azure.core.pipeline.transport import RequestsTransport

    logging.getLogger("urllib3.connectionpool").addFilter(_without_signature)
    # It tells every request, and warns of each that is tried again: those are counted.
    logging.getLogger("azure.core").setLevel(logging.ERROR)
    session = requests.Session()
    adapter = requests.adapters.HTTPAdapter(
        pool_connections=4, pool_maxsize=access.concurrency + 8, max_retries=0
    )
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    # What the environment says of proxies and certificates, once: to look at all of it for every
    # request is a tenth of the CPU time of one.
    found = session.merge_environment_settings(endpoint, {}, None, None, None)
    session.proxies.update(found["proxies"])
    session.trust_env = False
    return RequestsTransport(
        session=session,
        connection_timeout=_CONNECT_S,
        read_timeout=_READ_S,
        connection_verify=True if found["verify"] is None else found["verify"],
        connection_data_block_size=_PIECE_BYTES,
    )


_SIGNATURE = re.compile(r"(\bsig=)[^&\s\"']+")


def _without_signature(record: logging.LogRecord) -> bool:
    """Take signatures out of what urllib3 logs, which at DEBUG is the URL of every request."""
    text = record.getMessage()
    if "sig=" in text:
        record.msg, record.args = _SIGNATURE.sub(r"\1[redacted]", text), ()
    return True


def _watched(transport: Any, limiter: Limiter) -> Any:
    """Return a transport that lets no request pass but through the limiter and the counters."""
    from azure.core.pipeline.transport import HttpTransport

    class Watched(HttpTransport):  # type: ignore[type-arg]  # what it is generic in is not ours
        def send(self, request: Any, **kwargs: Any) -> Any:
            return _send(functools.partial(transport.send, **kwargs), request, limiter)

        def open(self) -> None:
            transport.open()

        def close(self) -> None:
            transport.close()

        def __enter__(self) -> "Watched":
            transport.__enter__()
            return self

        def __exit__(self, *raised: Any) -> None:
            transport.__exit__(*raised)

    return Watched()


def _send(send: Callable[[Any], Any], request: Any, limiter: Limiter) -> Any:
    """Send one HTTP request when it may be sent, and count it."""
    kind = _kind(request)
    waited_s = limiter.acquire()
    status, succeeded = "reset", False
    try:
        answer = send(request)
        status, succeeded = str(answer.status_code), answer.status_code not in _BUSY
        if answer.status_code in _BUSY and (pause := retry_after_s(answer.headers)):
            limiter.pause(pause)
        _guard(answer, kind, status)
        return answer
    except Exception as error:
        status = _status(error)
        raise
    finally:
        limiter.release(succeeded=succeeded)
        sent = int(request.headers.get("Content-Length", 0))
        traffic.count(kind, status, requests=1, waited_s=waited_s, bytes_sent=sent)


def _guard(answer: Any, kind: str, status: str) -> None:
    """Have the body of an answer, where it is streamed, come as a ``_Body``."""
    stream = answer.stream_download
    wanted = _announced(answer.headers)
    if kind == "read" and wanted == 0:
        answer.body()  # The SDK does not read it, and its connection would stay taken.

    def guarded(*args: Any, **kwargs: Any) -> _Body:
        return _Body(stream(*args, **kwargs), wanted, kind, status)

    answer.stream_download = guarded


_RANGE = re.compile(r"bytes ([0-9]+)-([0-9]+)/")


def _announced(headers: Mapping[str, str]) -> Optional[int]:
    """Return how many bytes a body should have; of a range, as many as the range."""
    if found := _RANGE.match(headers.get("Content-Range", "")):
        return int(found[2]) - int(found[1]) + 1
    text = headers.get("Content-Length", "")
    return int(text) if text.isdecimal() else None


class _Body:
    """A body on its way: counted, and where it is cut, an error that the SDK does not try again.

    The SDK reads and sets attributes of what it gets.
    """

    def __init__(self, parts: Any, wanted: Optional[int], kind: str, status: str) -> None:
        self._parts = parts
        self._wanted = wanted
        self._counted = kind, status

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parts, name)

    def __iter__(self) -> Iterator[bytes]:
        received, begun = 0, time.monotonic()
        try:
            for part in self._parts:
                received += len(part)
                late_s = time.monotonic() - begun - _READ_S
                if late_s > 0 and received < late_s * _LEAST_BYTES_PER_S:
                    raise _BodyError(f"its body is too slow: {received} bytes after {late_s:.0f} s")
                yield part
        except _BodyError:
            raise
        except Exception as error:
            raise _BodyError(f"its body was cut after {received} bytes") from error
        finally:
            traffic.count(*self._counted, bytes_received=received)
        if self._wanted is not None and self._wanted != received:
            raise _BodyError(f"its body has {received} bytes, not {self._wanted} as announced")


_QUERY_KIND = re.compile(r"[?&]comp=(list|lease)\b")


def _kind(request: Any) -> str:
    """Return what a request is for, of the kinds of ``RequestCount``."""
    if found := _QUERY_KIND.search(request.url):
        return found[1]
    if request.method == "PUT":
        return "copy" if "x-ms-copy-source" in request.headers else "write"
    return {"GET": "read", "HEAD": "head", "DELETE": "delete"}.get(request.method, "write")


def _read_whole(
    client: Any, max_bytes: int, size_bytes: Optional[int], etag: Optional[str]
) -> bytes:
    # As it is stored: of what is unpacked neither the length nor the checksum is known.
    download = client.download_blob(decompress=False, **_if_match(etag))
    properties = download.properties
    if size_bytes is not None and properties.size != size_bytes:
        raise StorageError(
            "vanished", f"it has {properties.size} bytes, but had {size_bytes} when it was listed"
        )
    if properties.size > max_bytes:
        raise too_large(properties.size, max_bytes)
    data: bytes = download.readall()
    if len(data) != properties.size:
        raise _BodyError(f"{len(data)} bytes came of {properties.size}")
    md5 = properties.content_settings.content_md5
    if md5 and _md5(data).digest() != bytes(md5):
        raise _BodyError("its bytes do not match its Content-MD5")
    return data


def _save_whole(client: Any, file: IO[bytes]) -> None:
    file.seek(0)
    file.truncate()
    download = client.download_blob(decompress=False)  # as in _read_whole
    download.readinto(file)
    properties = download.properties
    if file.tell() != properties.size:
        raise _BodyError(f"{file.tell()} bytes came of {properties.size}")
    file.seek(0)
    md5 = properties.content_settings.content_md5
    if md5 and hashlib.file_digest(file, _md5).digest() != bytes(md5):  # type: ignore[arg-type]
        raise _BodyError("its bytes do not match its Content-MD5")
    file.seek(0)


def _if_match(etag: Optional[str]) -> dict[str, Any]:
    if etag is None:
        return {}
    from azure.core import MatchConditions

    return {"etag": _quoted(etag), "match_condition": MatchConditions.IfNotModified}


def _listed(item: Any) -> Properties:
    if not hasattr(item, "size"):  # a prefix of a level
        return Properties(item.name, -1, "", None, "", "", True, {})
    return _properties(item)


def _properties(item: Any) -> Properties:
    metadata = dict(item.metadata or {})
    modified = item.last_modified
    md5 = item.content_settings.content_md5
    return Properties(
        item.name,
        item.size,
        _bare(item.etag or ""),
        None if modified is None else round(modified.timestamp() * 1e6),
        bytes(md5).hex() if md5 else "",
        str(item.blob_tier or ""),
        any(key.lower() == _FOLDER and metadata[key].lower() == "true" for key in metadata),
        metadata,
        item.lease.state == "leased",
        str(item.copy.status or ""),
    )


def _bare(etag: str) -> str:
    return etag.strip('"')


def _quoted(etag: str) -> str:
    return f'"{_bare(etag)}"'


def _status_code(error: BaseException) -> Optional[int]:
    status = getattr(error, "status_code", None)
    return status if isinstance(status, int) else None


def _error_code(error: BaseException) -> str:
    code = getattr(error, "error_code", None) or ""
    if not code and getattr(error, "response", None) is not None:
        code = error.response.headers.get("x-ms-error-code", "")  # type: ignore[attr-defined]
    return str(getattr(code, "value", code))


def _cause(error: BaseException) -> str:
    """Return the name of what an error of the SDK stands for, which is all that is safe to say."""
    inner = getattr(error, "inner_exception", None) or error
    # Of requests, a connection that was not made holds urllib3's reason.
    reason = getattr(next(iter(inner.args), None), "reason", None)
    return type(reason if isinstance(reason, Exception) else inner).__name__


def _is_login_failure(error: BaseException) -> bool:
    from azure.core.exceptions import ClientAuthenticationError

    return isinstance(error, ClientAuthenticationError)


def _is_transient(error: BaseException) -> bool:
    from azure.core.exceptions import (
        DecodeError,
        HttpResponseError,
        ServiceRequestError,
        ServiceResponseError,
    )

    # A page of names that is cut or spoilt is told as one that cannot be decoded.
    if isinstance(error, (_BodyError, DecodeError)):
        return True
    if _status_code(error) is not None:
        return _status_code(error) in _TRANSIENT
    if _is_login_failure(error):
        return False
    # Without a status, an error of the response is a connection that broke within the body.
    return isinstance(error, (HttpResponseError, ServiceRequestError, ServiceResponseError))


def _asked_s(error: BaseException) -> Optional[float]:
    response = getattr(error, "response", None)
    return None if response is None else retry_after_s(response.headers)


def _status(error: BaseException) -> str:
    """Return the status of a failure as ``traffic`` counts it."""
    if (status := _status_code(error)) is not None:
        return str(status)
    return "timeout" if "timed out" in str(error).lower() else "reset"
