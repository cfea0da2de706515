"""A proxy that stands before a storage service, makes faults by a plan, and tells what it saw.

It forwards every byte as it came, so requests that are signed stay valid, over HTTP/1.1 with
connections that stay open. A plan is a function that sees a request and returns the ``Fault`` that
becomes of it, or None; ``first``, ``nth`` and ``either`` make the plans that most tests need::

    with Proxy(azurite.endpoint, first(2, failing(503, retry_after=1), kind="read")) as proxy:
        read_with(azurite.connection_string(proxy.endpoint))
    assert proxy.counts() == {("read", 503): 2, ("read", 200): 1}
"""

import asyncio
import collections
import dataclasses
import itertools
import socket
import struct
import sys
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Self

_PIECE = 1 << 16  # bytes that are forwarded at once
_BUFFER = 1 << 20  # bytes that a connection may hold
_HEAD_END = b"\r\n\r\n"
_RESET = 0  # what an exchange has for a status where no answer was begun

# What Azure answers: https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
# and .../blob-service-error-codes; of 429 no code is documented there.
_CODES = {
    400: ("InvalidQueryParameterValue", "Bad Request"),
    401: ("NoAuthenticationInformation", "Unauthorized"),
    403: ("AuthenticationFailed", "Forbidden"),
    404: ("BlobNotFound", "Not Found"),
    409: ("BlobAlreadyExists", "Conflict"),
    412: ("ConditionNotMet", "Precondition Failed"),
    416: ("InvalidRange", "Range Not Satisfiable"),
    429: ("TooManyRequests", "Too Many Requests"),
    500: ("InternalError", "Internal Server Error"),
    503: ("ServerBusy", "Service Unavailable"),
}


@dataclasses.dataclass(frozen=True)
class Request:
    """What a client asked."""

    number: int  # from 1, in the order of arrival
    method: str
    path: str  # as it was sent, percent-encoded
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case

    @property
    def kind(self) -> str:
        """What it is to the program: read, list, head, write, copy, delete or lease."""
        if self.method == "GET":
            return "list" if self.query.get("comp") == "list" else "read"
        if self.query.get("comp") == "lease":
            return "lease"
        if "x-ms-copy-source" in self.headers or self.query.get("comp") == "copy":
            return "copy"
        return {"HEAD": "head", "DELETE": "delete"}.get(self.method, "write")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """What becomes of a request. Faults may be combined; shares are of the answer's body."""

    status: int | None = None  # answered in place of what the service says
    code: str = ""  # of the error; by default Azure's usual one for the status
    forwarded: bool = True  # whether the service gets the request
    latency_s: float = 0.0  # waited before it is forwarded or answered
    headers: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """Set in the answer, over those of the same name; None takes one away."""
    change: Callable[[bytes], bytes] | None = None  # makes another body
    drip: tuple[int, float] | None = None  # bytes at a time, and seconds between
    cut: float | None = None  # share after which the connection is closed in good order
    reset: float | None = None  # share after which it is reset; 0: not even the head is sent

    def __post_init__(self) -> None:
        """Refuse a fault that leaves nothing to answer."""
        if not self.forwarded and self.status is None and self.reset != 0:
            raise ValueError("a request that is not forwarded needs a status, or reset=0")


Plan = Callable[[Request], Fault | None]

_NONE = Fault()


def failing(
    status: int, *, retry_after: float | None = None, code: str = "", done: bool = False
) -> Fault:
    """Return a fault that answers with a status of Azure's.

    Args:
        status: the HTTP status.
        retry_after: seconds for the header Retry-After, if any.
        code: Azure's code of the error, where it is not the usual one for the status.
        done: the service does what was asked, and only the answer is lost.
    """
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    return Fault(status=status, code=code, headers=headers, forwarded=done)


def reset(*, done: bool = False) -> Fault:
    """Return a fault that resets the connection before any answer, the request done or not."""
    return Fault(reset=0, forwarded=done)


def first(count: int, fault: Fault, *, kind: str = "", path: str = "") -> Plan:
    """Return a plan: the fault for the first requests of a kind whose path has a text in it."""
    left = itertools.count(count, -1)
    return lambda request: fault if _fits(request, kind, path) and next(left) > 0 else None


def always(fault: Fault, *, kind: str = "", path: str = "") -> Plan:
    """Return a plan: the fault for every request of a kind whose path has a text in it."""
    return lambda request: fault if _fits(request, kind, path) else None


def nth(every: int, *faults: Fault, kind: str = "", path: str = "") -> Plan:
    """Return a plan: of the requests that fit, every so many-th gets one of the faults in turn."""
    seen, turn = itertools.count(1), itertools.cycle(faults)

    def plan(request: Request) -> Fault | None:
        return next(turn) if _fits(request, kind, path) and next(seen) % every == 0 else None

    return plan


def either(*plans: Plan) -> Plan:
    """Return a plan: what the first of some plans says that says anything."""
    return lambda request: next(filter(None, (plan(request) for plan in plans)), None)


def _fits(request: Request, kind: str, path: str) -> bool:
    return kind in ("", request.kind) and path in request.path


@dataclasses.dataclass
class Exchange:
    """A request and what became of it."""

    request: Request
    arrived_s: float  # time.monotonic() when its head was there
    fault: Fault | None
    status: int = _RESET  # that was sent; 0 where the client got no answer
    sent_bytes: int = 0  # of the answer's body, without the framing of chunks
    received_bytes: int = 0  # of the request's body


class Proxy:
    """A proxy in a thread of its own; a context manager. The plan may be changed at any time."""

    def __init__(self, upstream: str, plan: Plan | None = None, *, latency_s: float = 0.0) -> None:
        """Plan to stand before a service.

        Args:
            upstream: the service, ``http://HOST:PORT`` and any path.
            plan: makes the faults; is called in the proxy's thread.
            latency_s: seconds that every request waits, besides what its fault says.
        """
        parts = urllib.parse.urlsplit(upstream)
        self._address = (parts.hostname or "", parts.port or 80)
        self._path = parts.path
        self.plan = plan
        self.latency_s = latency_s
        self.endpoint = ""
        self.exchanges: list[Exchange] = []
        self.peak_at_once = 0  # requests that waited for the head of their answer together
        self._at_once = 0
        self._failures: list[Exception] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="faulty", daemon=True)

    def __enter__(self) -> Self:
        """Begin to listen on a free port of 127.0.0.1."""
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_BUFFER, backlog=1024)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        port = self._server.sockets[0].getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}{self._path}"
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Close every connection and end the thread.

        Raises:
            Exception: what the plan or the proxy itself failed with, if the block did not fail.
        """
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self._failures and kind is None:
            raise self._failures[0]

    def counts(self) -> dict[tuple[str, int], int]:
        """Return how many requests there were by kind and status (0: no answer)."""
        return collections.Counter((each.request.kind, each.status) for each in self.exchanges)

    def peak_per_second(self) -> int:
        """Return the greatest number of requests that arrived within any one second."""
        return peak_within(1.0, [each.arrived_s for each in self.exchanges])

    def cpu_s(self) -> float:
        """Return the CPU seconds that the proxy's own thread took."""
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident or 0))

    async def _stop(self) -> None:
        self._server.close()
        await asyncio.sleep(0)  # Connections that were just accepted begin, so that they can end.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # Sockets are closed a step after their transports.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer what a client asks on one connection, until either side closes it."""
        connection = _Connection(self._address, reader, writer)
        try:
            while await self._exchange(connection):
                pass
            await connection.close()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # Clients close what they do not need, and go away where they gave up.
        except Exception as error:
            self._failures.append(error)
        finally:
            connection.abort()

    async def _exchange(self, connection: "_Connection") -> bool:
        """Take one request and answer it; return whether the connection stays open."""
        head = await connection.reader.readuntil(_HEAD_END)
        arrived = time.monotonic()
        request = _request(head, len(self.exchanges) + 1)
        seen = Exchange(request, arrived, self.plan(request) if self.plan else None)
        self.exchanges.append(seen)
        self._at_once += 1
        self.peak_at_once = max(self.peak_at_once, self._at_once)
        try:
            fault = seen.fault or _NONE
            if self.latency_s + fault.latency_s:
                await asyncio.sleep(self.latency_s + fault.latency_s)
            answer, body = await connection.ask(head, seen, fault)
        finally:
            self._at_once -= 1
        return await connection.answer(answer, body, seen, fault)


class _Connection:
    """A client's connection, and the one to the service that goes with it."""

    def __init__(
        self,
        address: tuple[str, int],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.reader, self._writer = reader, writer
        self._address = address
        self._service: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def close(self) -> None:
        """Close the client's connection after all that was written."""
        self._writer.close()
        await self._writer.wait_closed()

    def abort(self) -> None:
        """Close both connections at once."""
        self._writer.transport.abort()
        if self._service:
            self._service[1].transport.abort()

    async def ask(
        self, head: bytes, seen: Exchange, fault: Fault
    ) -> tuple[bytes, AsyncIterator[bytes]]:
        """Pass a request on, or not; return the head and the body of what is answered."""
        body = _body(self.reader, seen.request.headers)
        if fault.forwarded:
            answer, pieces = await self._forward(head, body, seen)
        else:
            seen.received_bytes = len(await _whole(body))
        if fault.status is not None:
            if fault.forwarded:
                await _whole(pieces)
            answer, pieces = _error(fault.status, fault.code)
        elif not fault.forwarded:
            answer, pieces = b"", _nothing()
        return answer, pieces

    async def _forward(
        self, head: bytes, body: AsyncIterator[bytes], seen: Exchange
    ) -> tuple[bytes, AsyncIterator[bytes]]:
        if self._service is None or self._service[0].at_eof():
            self._service = await asyncio.open_connection(*self._address, limit=_BUFFER)
        reader, writer = self._service
        chunked = _is_chunked(seen.request.headers)
        writer.write(head)
        async for piece in body:
            seen.received_bytes += len(piece)
            await _send(writer, piece, chunked)
        if chunked:
            await _send(writer, b"", chunked)
        answer = await reader.readuntil(_HEAD_END)
        bodiless = seen.request.method == "HEAD" or _status(answer) in (204, 304)
        return answer, _nothing() if bodiless else _body(reader, _fields(answer), to_end=True)

    async def answer(
        self, answer: bytes, body: AsyncIterator[bytes], seen: Exchange, fault: Fault
    ) -> bool:
        """Send an answer with what a fault does to it; return whether the connection stays."""
        if fault.reset == 0:
            return self._reset()
        answer = _changed(answer, fault.headers)
        seen.status, fields = _status(answer), _fields(answer)
        stays = "close" not in (seen.request.headers.get("connection"), fields.get("connection"))
        if seen.request.method == "HEAD":
            self._writer.write(answer)
            return stays
        if fault.change or fault.drip or fault.cut is not None or fault.reset is not None:
            return await self._spoil(answer, await _whole(body), seen, fault) and stays
        chunked = _is_chunked(fields)
        self._writer.write(answer)
        async for piece in body:
            seen.sent_bytes += len(piece)
            await _send(self._writer, piece, chunked)
        if chunked:
            await _send(self._writer, b"", chunked)
        return stays and (chunked or "content-length" in fields or seen.status in (204, 304))

    async def _spoil(self, answer: bytes, body: bytes, seen: Exchange, fault: Fault) -> bool:
        """Send an answer with what a fault does to its body; return whether all was sent."""
        if fault.change:
            body = fault.change(body)
        length = {"Transfer-Encoding": None, "Content-Length": str(len(body))}
        shares = [share for share in (fault.cut, fault.reset) if share is not None]
        part = body[: int(len(body) * min(shares, default=1.0))]
        size, pause_s = fault.drip or (max(1, len(part)), 0.0)
        self._writer.write(_changed(answer, length))
        for start in range(0, len(part), size):
            piece = part[start : start + size]
            seen.sent_bytes += len(piece)
            await _send(self._writer, piece)
            await asyncio.sleep(pause_s)
        return self._reset() if fault.reset is not None else fault.cut is None

    def _reset(self) -> bool:
        """Reset the client's connection, which drops what is still under way on it."""
        linger = struct.pack("ii", 1, 0)
        ours = self._writer.get_extra_info("socket")
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()
        return False


def peak_within(seconds: float, times: Sequence[float]) -> int:
    """Return the greatest number of some times, in order, that lie within so many seconds."""
    most = begin = 0
    for end, at in enumerate(times, 1):
        while at - times[begin] >= seconds:
            begin += 1
        most = max(most, end - begin)
    return most


async def _send(writer: asyncio.StreamWriter, piece: bytes, chunked: bool = False) -> None:
    """Write a piece of a body, as a chunk where it goes in chunks; an empty chunk is the last."""
    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
    await writer.drain()


async def _body(
    reader: asyncio.StreamReader, fields: Mapping[str, str], *, to_end: bool = False
) -> AsyncIterator[bytes]:
    """Give the pieces of the body that follows a head, without the framing of chunks.

    A body without a length is empty in a request, and lasts to the end of the connection in an
    answer (RFC 9112, 6.3).
    """
    if _is_chunked(fields):
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return
    whole = to_end and "content-length" not in fields
    left = sys.maxsize if whole else int(fields.get("content-length", 0))
    while left and (piece := await reader.read(min(left, _PIECE))):
        left -= len(piece)
        yield piece
    if left and not whole:
        raise asyncio.IncompleteReadError(b"", left)


async def _nothing() -> AsyncIterator[bytes]:
    for piece in ():
        yield piece


async def _whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


def _request(head: bytes, number: int) -> Request:
    method, target, _ = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
    path, _, query = target.partition("?")
    told = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    return Request(number, method, path, told, _fields(head))


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def _fields(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:-2]
    pairs = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in pairs}


def _is_chunked(fields: Mapping[str, str]) -> bool:
    return fields.get("transfer-encoding", "").lower() == "chunked"


def _changed(head: bytes, headers: Mapping[str, str | None]) -> bytes:
    """Return a head with other values of some headers; None takes one away."""
    if not headers:
        return head
    names = {name.lower() for name in headers}
    start, *lines = head.decode("latin-1").split("\r\n")[:-2]
    kept = [line for line in lines if line.partition(":")[0].lower() not in names]
    new = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([start, *kept, *new, "", ""]).encode("latin-1")


def _error(status: int, code: str) -> tuple[bytes, AsyncIterator[bytes]]:
    """Return the head and the body of an error as Azure tells it."""
    usual, reason = _CODES.get(status, ("InternalError", "Error"))
    code = code or usual
    body = (
        f'<?xml version="1.0" encoding="utf-8"?><Error><Code>{code}</Code>'
        f"<Message>{reason}: made by the tests' proxy.</Message></Error>"
    ).encode()
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}"]
    lines += ["Content-Type: application/xml", f"x-ms-error-code: {code}"]
    lines += ["Server: Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0", "x-ms-version: 2021-12-02"]

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    return "\r\n".join([*lines, "", ""]).encode(), pieces()
