"""A server of weights on this machine, which fails as it is told to."""

import contextlib
import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclasses.dataclass
class Answer:
    """How one request is answered.

    Attributes:
        status: of HTTP; 200 becomes 206 where a range is asked for and given.
        cut: bytes of the body after which the connection ends; None sends all.
        length: what Content-Length says; None says the truth.
        headers: beside the usual ones.
        body: in place of the file.
        ranges: whether ranges are given.
    """

    status: int = 200
    cut: int | None = None
    length: int | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    body: bytes | None = None
    ranges: bool = True


class Host:
    """What a server has and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.plan: list[Answer] = []  # of the next requests, in turn; then all are answered well
        self.asked: list[tuple[str, str | None, str | None]] = []  # path, Range, If-Range
        self.etags = True
        self.address = ""

    def url(self, path: str) -> str:
        """Return the address of a path."""
        return f"{self.address}{path}"


class _Handler(BaseHTTPRequestHandler):
    host: Host

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        asked, version = self.headers["Range"], self.headers["If-Range"]
        self.host.asked.append((self.path, asked, version))
        answer = self.host.plan.pop(0) if self.host.plan else Answer()
        if self.path.startswith("/moved/"):
            self._head(302, {"Location": self.path.removeprefix("/moved"), **answer.headers}, 0)
            return
        body = self.host.files.get(self.path) if answer.body is None else answer.body
        status = answer.status if body is not None else 404
        body = body or b""
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        headers = {"ETag": etag} if self.host.etags else {}
        if status == 200 and asked and answer.ranges and version in (None, etag):
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                status, headers["Content-Range"] = 416, f"bytes */{len(body)}"
                body = b""
            else:
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                status, body = 206, body[start:]
        self._head(
            status, headers | answer.headers, len(body) if answer.length is None else answer.length
        )
        self.wfile.write(body[: answer.cut])

    def _head(self, status: int, headers: dict[str, str], length: int) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that leave before the end."""


@contextlib.contextmanager
def serve() -> Iterator[Host]:
    """Run a server for the body."""
    host = Host()
    handler = type("Handler", (_Handler,), {"host": host})
    with _Server(("127.0.0.1", 0), handler) as server:
        host.address = f"http://127.0.0.1:{server.server_port}"
        # The default polls twice a second, which is how long each test would take to end.
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield host
        finally:
            server.shutdown()
            thread.join()
