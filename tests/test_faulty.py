"""The proxy that makes faults does what its plan says, and nothing else."""

import contextlib
import http.client
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient

from tests import faulty
from tests.azurite import Azurite
from tests.faulty import Fault, Proxy, Request, always, either, failing, first, nth, reset

_BODY = bytes(range(256)) * 1000


class _Service(ThreadingHTTPServer):
    """Answers every GET with the same body and every PUT with what it got; keeps what came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[int, str, list[tuple[str, str]], bytes]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that the proxy closed early."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Service

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size + 2)[:-2]
        self.rfile.readline()
        return body

    def _answer(self) -> None:
        body = self._body()
        kept = (self.client_address[1], self.requestline, self.headers.items(), body)
        self.server.seen.append(kept)
        self.server.gate.wait(30)
        body = body if self.command == "PUT" else _BODY
        self.send_response(304 if "notmodified" in self.path else 200)
        self.send_header("ETag", '"one"')
        chunked = "chunked" in self.path
        if "notmodified" not in self.path:
            name, value = "Content-Length", str(len(body))
            self.send_header(*(("Transfer-Encoding", "chunked") if chunked else (name, value)))
        self.end_headers()
        if self.command == "HEAD" or "notmodified" in self.path:
            return
        if chunked:
            parts = [body[:3], body[3:]]
            body = b"".join(b"%X\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"
        self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[_Service]:
    with _Service() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def _connected(proxy: Proxy) -> Iterator[http.client.HTTPConnection]:
    connection = http.client.HTTPConnection(
        urllib.parse.urlsplit(proxy.endpoint).netloc, timeout=30
    )
    with contextlib.closing(connection):
        yield connection


def _get(
    connection: http.client.HTTPConnection, path: str = "/c/a.jpg", method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def _request(method: str, target: str, **headers: str) -> Request:
    path, _, query = target.partition("?")
    told = dict(pair.partition("=")[::2] for pair in query.split("&") if pair)
    return Request(1, method, path, told, {k.replace("_", "-"): v for k, v in headers.items()})


def _fault_of(plan: faulty.Plan, *targets: str) -> list[Fault | None]:
    return [plan(_request(*target.split(" "))) for target in targets]


def test_every_byte_is_forwarded_on_connections_that_stay_open(service: _Service) -> None:
    with Proxy(service.url + "/base") as proxy, _connected(proxy) as connection:
        assert proxy.endpoint.endswith("/base")
        sent = [("x-ms-Date", "Thu"), ("Authorization", "SharedKey a:b="), ("x-odd", "  a  b")]
        for number in range(2):
            connection.putrequest("PUT", f"/c/a%20%C3%A9%2f?x=%26&n={number}", skip_host=True)
            for name, value in [("Host", "elsewhere:1"), *sent, ("Content-Length", "8")]:
                connection.putheader(name, value)
            connection.endheaders(b"contents")
            assert connection.getresponse().read() == b"contents"
    ports, lines, headers, bodies = zip(*service.seen, strict=True)
    assert lines == tuple(f"PUT /c/a%20%C3%A9%2f?x=%26&n={n} HTTP/1.1" for n in range(2))
    assert bodies == (b"contents", b"contents")
    assert len(set(ports)) == 1
    expected = [("Accept-Encoding", "identity"), ("Host", "elsewhere:1"), *sent]
    for got in headers:
        stripped = [(name, value.strip()) for name, value in got]
        assert stripped == [(n, v.strip()) for n, v in [*expected, ("Content-Length", "8")]]


def test_bodies_in_chunks_and_answers_without_a_body_pass(service: _Service) -> None:
    with Proxy(service.url) as proxy, _connected(proxy) as connection:
        chunked = {"Transfer-Encoding": "chunked"}
        connection.request("PUT", "/chunked", iter([b"one", b"two"]), chunked, encode_chunked=True)
        assert connection.getresponse().read() == b"onetwo"
        assert _get(connection, "/chunked")[2] == _BODY
        assert _get(connection, method="HEAD")[1]["Content-Length"] == str(len(_BODY))
        assert _get(connection, "/notmodified")[0] == 304
        assert _get(connection)[2] == _BODY
        sizes = [(each.received_bytes, each.sent_bytes) for each in proxy.exchanges]
    assert sizes == [(6, 6), (0, len(_BODY)), (0, 0), (0, 0), (0, len(_BODY))]
    assert len({port for port, *_ in service.seen}) == 1


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "NoAuthenticationInformation"),
        (403, "AuthenticationFailed"),
        (404, "BlobNotFound"),
        (412, "ConditionNotMet"),
        (429, "TooManyRequests"),
        (500, "InternalError"),
        (503, "ServerBusy"),
    ],
)
def test_a_status_comes_as_azure_tells_it_and_the_connection_stays(
    service: _Service, status: int, code: str
) -> None:
    with (
        Proxy(service.url, first(1, failing(status, retry_after=7))) as proxy,
        _connected(proxy) as connection,
    ):
        got, headers, body = _get(connection)
        port = connection.sock.getsockname()
        assert (got, headers["x-ms-error-code"], headers["Retry-After"]) == (status, code, "7")
        assert f"<Code>{code}</Code>".encode() in body
        assert _get(connection)[0] == 200
        assert connection.sock.getsockname() == port
        assert proxy.counts() == {("read", status): 1, ("read", 200): 1}
    assert len(service.seen) == 1


def test_another_code_and_headers_may_be_named(service: _Service) -> None:
    fault = failing(404, code="ContainerNotFound")
    plan = either(first(1, fault), first(1, Fault(status=401, headers={"WWW-Authenticate": "x"})))
    with Proxy(service.url, plan) as proxy, _connected(proxy) as connection:
        assert _get(connection)[1]["x-ms-error-code"] == "ContainerNotFound"
        assert _get(connection, method="HEAD")[:2][0] == 401
        assert _get(connection)[2] == _BODY


def test_what_was_asked_is_done_where_only_the_answer_is_lost(service: _Service) -> None:
    plan = either(first(1, failing(500, done=True)), first(1, reset(done=True)))
    with Proxy(service.url, plan) as proxy:
        with _connected(proxy) as connection:
            connection.request("PUT", "/c/a", body=b"1")
            answer = connection.getresponse()
            assert (answer.status, b"InternalError" in answer.read()) == (500, True)
            connection.request("PUT", "/c/a", body=b"2")
            with pytest.raises(ConnectionResetError):
                connection.getresponse()
        assert proxy.counts() == {("write", 500): 1, ("write", 0): 1}
    assert [body for *_, body in service.seen] == [b"1", b"2"]


def test_a_connection_is_reset_before_the_answer(service: _Service) -> None:
    with Proxy(service.url, always(reset())) as proxy, _connected(proxy) as connection:
        with pytest.raises(ConnectionResetError):
            _get(connection)
        assert proxy.counts() == {("read", 0): 1}
    assert service.seen == []


def test_a_connection_is_reset_in_the_middle_of_the_body(service: _Service) -> None:
    with (
        Proxy(service.url, always(Fault(reset=0.5))) as proxy,
        _connected(proxy) as connection,
        pytest.raises(ConnectionResetError),
    ):
        _get(connection)
    (seen,) = proxy.exchanges
    assert (seen.status, seen.sent_bytes) == (200, len(_BODY) // 2)


def test_a_body_ends_before_its_length(service: _Service) -> None:
    with (
        Proxy(service.url, always(Fault(cut=0.25))) as proxy,
        _connected(proxy) as connection,
        pytest.raises(http.client.IncompleteRead) as caught,
    ):
        _get(connection, "/chunked")
    assert caught.value.partial == _BODY[: len(_BODY) // 4]
    assert proxy.exchanges[0].sent_bytes == len(_BODY) // 4


def test_a_body_drips(service: _Service) -> None:
    plan = always(Fault(drip=(50_000, 0.01)))
    with Proxy(service.url, plan) as proxy, _connected(proxy) as connection:
        begun = time.monotonic()
        assert _get(connection)[2] == _BODY
        assert time.monotonic() - begun > 0.045  # Five pauses of six, of 10 ms.


def test_latency_comes_before_the_answer(service: _Service) -> None:
    with (
        Proxy(service.url, first(1, Fault(latency_s=0.05)), latency_s=0.02) as proxy,
        _connected(proxy) as connection,
    ):
        for _ in range(3):
            assert _get(connection)[2] == _BODY
        times = [each.arrived_s for each in proxy.exchanges]
    assert times[1] - times[0] > 0.065
    assert times[2] - times[1] > 0.018


def test_bytes_and_headers_are_changed(service: _Service) -> None:
    fault = Fault(change=lambda body: body[::-1] + b"!", headers={"etag": '"two"', "Server": None})
    with Proxy(service.url, first(1, fault)) as proxy, _connected(proxy) as connection:
        _, headers, body = _get(connection)
        assert body == _BODY[::-1] + b"!"
        assert headers["etag"] == '"two"'
        assert not {"ETag", "Server"} & set(headers)
        _, headers, body = _get(connection)
        assert (headers["ETag"], body) == ('"one"', _BODY)


def test_a_fault_that_leaves_nothing_to_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a status"):
        Fault(forwarded=False, cut=0.5)


def test_what_a_plan_raises_ends_the_block(service: _Service) -> None:
    def plan(_: Request) -> Fault:
        raise LookupError("the plan")

    with pytest.raises(LookupError, match="the plan"), Proxy(service.url, plan) as proxy:
        with _connected(proxy) as connection, pytest.raises(http.client.RemoteDisconnected):
            _get(connection)


def test_a_service_that_is_gone_closes_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with Proxy(url) as proxy, _connected(proxy) as connection:
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            _get(connection)
        assert proxy.counts() == {("read", 0): 1}


def test_requests_that_wait_together_are_counted(service: _Service) -> None:
    service.gate.clear()
    with Proxy(service.url) as proxy, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(_connected(proxy)) for _ in range(3)]
        for number, connection in enumerate(connections, 1):
            connection.request("GET", "/c/a")
            while len(service.seen) < number:
                time.sleep(0.001)
        service.gate.set()
        for connection in connections:
            assert connection.getresponse().read() == _BODY
        _get(connections[0])
        assert proxy.peak_at_once == 3
        assert [each.request.number for each in proxy.exchanges] == [1, 2, 3, 4]


def test_a_client_that_gives_up_leaves_the_proxy_whole(service: _Service) -> None:
    service.gate.clear()
    with Proxy(service.url) as proxy:
        with _connected(proxy) as connection:
            connection.request("GET", "/c/a")
            while not service.seen:
                time.sleep(0.001)
        service.gate.set()
        with _connected(proxy) as connection:
            assert _get(connection)[2] == _BODY


@pytest.mark.parametrize(
    ("times", "most"),
    [([], 0), ([5.0], 1), ([0, 0.5, 1.0, 1.2, 1.4], 4), ([0, 1, 2, 3], 1), ([0, 0, 0, 9, 9], 3)],
)
def test_the_peak_is_that_of_a_sliding_window(times: list[float], most: int) -> None:
    assert faulty.peak_within(1.0, times) == most


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (_request("GET", "/a/c/b"), "read"),
        (_request("GET", "/a/c?restype=container&comp=list"), "list"),
        (_request("HEAD", "/a/c/b"), "head"),
        (_request("PUT", "/a/c/b"), "write"),
        (_request("PUT", "/a/c/b?comp=block"), "write"),
        (_request("PUT", "/a/c/b", x_ms_copy_source="http://h/b"), "copy"),
        (_request("PUT", "/a/c/b?comp=copy"), "copy"),
        (_request("PUT", "/a/c/b?comp=lease"), "lease"),
        (_request("DELETE", "/a/c/b"), "delete"),
    ],
)
def test_requests_have_the_kinds_that_the_program_counts(request_: Request, kind: str) -> None:
    assert request_.kind == kind


def test_plans_count_only_what_fits() -> None:
    one, two = failing(503), reset()
    targets = ("GET /c/a", "PUT /c/a", "GET /c/b", "GET /c/a", "GET /c/a", "GET /c/a")
    none: Callable[[Request], None] = lambda _: None  # noqa: E731
    assert _fault_of(always(one, kind="read", path="/a"), *targets) == [one, None, None, *[one] * 3]
    assert _fault_of(first(2, one, kind="read", path="/a"), *targets) == [
        *(one, None, None),
        *(one, None, None),
    ]
    assert _fault_of(nth(2, one, two, kind="read"), *targets) == [None, None, one, None, two, None]
    plan = either(none, first(1, one, kind="read"), always(two))
    assert _fault_of(plan, *targets) == [one, *[two] * 5]


def test_signed_requests_of_the_sdk_pass_before_azurite(azurite: Azurite) -> None:
    name = "Ordner é/a b+c%20?#.jpg"
    container = azurite.container()
    plan = first(1, failing(403), kind="head")
    with (
        Proxy(azurite.endpoint, plan) as proxy,
        BlobServiceClient.from_connection_string(
            azurite.connection_string(proxy.endpoint), retry_total=0
        ) as client,
    ):
        blob = client.get_blob_client(container, name)
        blob.upload_blob(_BODY, max_concurrency=1)
        with pytest.raises(HttpResponseError, match="AuthenticationFailed"):
            blob.get_blob_properties()
        assert blob.get_blob_properties().size == len(_BODY)
        assert blob.download_blob().readall() == _BODY
        assert list(client.get_container_client(container).list_blob_names()) == [name]
        client.get_blob_client(container, "copy").start_copy_from_url(blob.url)
        with blob.acquire_lease() as lease:
            assert lease.id
        client.get_blob_client(container, "copy").delete_blob()
        assert proxy.counts() == {
            ("write", 201): 1,
            ("head", 403): 1,
            ("head", 200): 1,
            ("read", 206): 1,
            ("list", 200): 1,
            ("copy", 202): 1,
            ("lease", 201): 1,
            ("lease", 200): 1,
            ("delete", 202): 1,
        }
        assert sum(each.received_bytes for each in proxy.exchanges) == len(_BODY)
    assert azurite.names(container) == [name]
    assert azurite.read(container, name) == _BODY


def test_azurite_gives_fresh_containers(azurite: Azurite) -> None:
    one, other = azurite.container(), azurite.container()
    assert one != other
    azurite.upload(one, {"b": b"2", "a": b"1"})
    azurite.upload(one, {"a": b"3"})
    assert azurite.names(one) == ["a", "b"]
    assert azurite.names(other) == []
    assert azurite.read(one, "a") == b"3"
    assert azurite.connection_string().endswith(f"BlobEndpoint={azurite.endpoint}")
