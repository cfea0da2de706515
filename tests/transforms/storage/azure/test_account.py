"""Requests to one account through the SDK, against Azurite and a proxy that makes faults.

Waits take no time here, and the proxy tells how many requests there were: just as many as our own
policy says, none of the SDK's.
"""

import contextlib
import hashlib
import io
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import urllib3
from azure.core.credentials import AccessToken, AzureSasCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import StandardBlobTier

from tests.azurite import ACCOUNT, Azurite
from tests.faulty import Fault, Plan, Proxy, Request, always, failing, first, nth, reset
from tests.transforms.storage.clock import Clock
from transforms.access import Access
from transforms.records import RequestCount
from transforms.storage import traffic
from transforms.storage.azure import account
from transforms.storage.azure.account import Account, Properties
from transforms.storage.azure.credentials import Grant
from transforms.storage.azure.names import BlobName
from transforms.storage.errors import AccessError, InputError, StorageError, UnavailableError
from transforms.storage.limits import ATTEMPTS, MAX_PAUSE_S, Limiter

_DATA = bytes(range(256)) * 800
_MOST = 10**9


class Reached:
    """An account behind a proxy, and a container of its own with ``a.jpg`` in it."""

    def __init__(self, azurite: Azurite, proxy: Proxy, access: Access) -> None:
        self.azurite, self.proxy, self.clock = azurite, proxy, Clock()
        self.container = azurite.container()
        azurite.upload(self.container, {"a.jpg": _DATA})
        grant = Grant(
            proxy.endpoint, {"account_name": ACCOUNT, "account_key": azurite.key}, "account key"
        )
        limiter = Limiter(access.requests_per_second, self.clock, self.clock.sleep)
        self.account = Account(ACCOUNT, access, grant, limiter=limiter, sleep=self.clock.sleep)
        self.blob = self.named("a.jpg")

    def named(self, name: str) -> BlobName:
        return BlobName(ACCOUNT, self.container, name)

    def listed(self) -> Properties:
        """Return what the service says of a.jpg, without a request that the proxy sees."""
        client = self.azurite.client.get_blob_client(self.container, "a.jpg")
        found: Properties = account._properties(client.get_blob_properties())
        return found

    def ends_with(self, error: type[Exception], operation: Callable[[], Any]) -> Exception:
        """Return what an operation raises, which hangs on nothing that the SDK raised."""
        with pytest.raises(error) as raised:
            operation()
        assert raised.value.__context__ is None
        assert raised.value.__cause__ is None
        assert "\n" not in str(raised.value)
        return raised.value


@pytest.fixture
def reached(azurite: Azurite) -> Iterator[Callable[..., Reached]]:
    """Reach an account through a proxy with a plan."""
    with contextlib.ExitStack() as stack:

        def reach(plan: Plan | None = None, access: Access | None = None) -> Reached:
            proxy = stack.enter_context(Proxy(azurite.endpoint, plan))
            return Reached(azurite, proxy, access or Access())

        traffic.take()
        yield reach
        traffic.take()


_OPERATIONS: dict[str, Callable[[Reached], Any]] = {
    "read": lambda to: to.account.get(to.blob, _MOST),
    "head": lambda to: to.account.head(to.blob).size_bytes,
    "list": lambda to: [one.name for page in to.account.pages(to.container) for one in page],
    "write": lambda to: len(to.account.put(to.named("b"), io.BytesIO(b"b"), overwrite=False)) > 0,
    "copy": lambda to: len(to.account.copy(to.blob, to.named("c"), to.listed().etag)) > 0,
    "lease": lambda to: to.account.lease(to.blob, 15).renew(),
    "delete": lambda to: to.account.delete(to.blob),
}
_RESULTS = {
    "read": _DATA,
    "head": len(_DATA),
    "list": ["a.jpg"],
    "write": True,
    "copy": True,
    "lease": None,
    "delete": None,
}
_kinds = pytest.mark.parametrize("kind", sorted(_OPERATIONS))


@_kinds
@pytest.mark.parametrize("status", [503, 429, 500])
def test_r1_r2_two_failures_and_the_answer_after_as_long_as_it_asks(
    reached: Callable[..., Reached], kind: str, status: int
) -> None:
    to = reached(first(2, failing(status, retry_after=17), kind=kind))
    assert _OPERATIONS[kind](to) == _RESULTS[kind]
    counts = to.proxy.counts()
    assert counts[kind, status] == 2
    assert sum(counts.values()) == 3 + (kind == "lease")  # which is renewed, too
    assert to.clock.now >= 1000 + 2 * 17
    taken = traffic.take()
    assert sum(one.retries for one in taken if one.status == str(status)) == 2
    assert traffic.total(taken) == sum(counts.values())
    assert sum(one.waited_us for one in taken) == pytest.approx((to.clock.now - 1000) * 1e6, abs=99)


@_kinds
@pytest.mark.parametrize("fault", [failing(503, retry_after=1), failing(429), reset()], ids=str)
def test_r1_r2_failures_for_ever_end_after_a_bounded_time(
    reached: Callable[..., Reached], kind: str, fault: Fault
) -> None:
    to = reached(always(fault, kind=kind))
    error = to.ends_with(UnavailableError, lambda: _OPERATIONS[kind](to))
    assert f"account 'devstoreaccount1' did not answer at {to.proxy.endpoint} ({kind}: " in str(
        error
    )
    assert sum(to.proxy.counts().values()) == ATTEMPTS
    assert to.clock.now - 1000 < ATTEMPTS * MAX_PAUSE_S


@pytest.mark.parametrize("asked", ["1000000000", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_r8_a_huge_wait_is_capped(reached: Callable[..., Reached], asked: str) -> None:
    busy = Fault(status=503, forwarded=False, headers={"Retry-After": asked})
    to = reached(first(2, busy))
    assert to.account.get(to.blob, _MOST) == _DATA
    assert 2 * MAX_PAUSE_S <= to.clock.now - 1000 < 2 * MAX_PAUSE_S + 5


@_kinds
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "NoAuthenticationInformation"),
        (403, "AuthenticationFailed"),
        (403, "AuthorizationPermissionMismatch"),
    ],
)
def test_r3_refused_access_ends_at_once_with_one_line(
    reached: Callable[..., Reached], kind: str, status: int, code: str
) -> None:
    to = reached(always(failing(status, code=code)))
    error = to.ends_with(AccessError, lambda: _OPERATIONS[kind](to))
    assert str(error) == (
        f"account 'devstoreaccount1' refuses access ({code}) with the account key; see "
        "docs/guides/azure.md, 'Access'"
    )
    assert isinstance(error, InputError)  # before anything runs, the command refuses
    assert sum(to.proxy.counts().values()) == 1
    assert to.clock.slept == []


def test_r4_a_blob_that_goes_away_after_it_was_listed_is_vanished(
    reached: Callable[..., Reached],
) -> None:
    to = reached()
    seen = to.listed()
    to.azurite.client.get_blob_client(to.container, "a.jpg").delete_blob()
    for size, etag in ((seen.size_bytes, seen.etag), (seen.size_bytes, None), (None, seen.etag)):
        error = to.ends_with(
            StorageError, lambda size=size, etag=etag: to.account.get(to.blob, _MOST, size, etag)
        )
        assert error.args[0] == "vanished"
    assert len(to.proxy.exchanges) == 3
    error = to.ends_with(StorageError, lambda: to.account.get(to.blob, _MOST))
    assert error.args[0] == "not_found"


def test_r4_a_blob_that_is_overwritten_after_it_was_listed_is_vanished(
    reached: Callable[..., Reached],
) -> None:
    to = reached()
    seen = to.listed()
    to.azurite.upload(to.container, {"a.jpg": _DATA[::-1]})
    error = to.ends_with(
        StorageError, lambda: to.account.get(to.blob, _MOST, seen.size_bytes, seen.etag)
    )
    assert error.args == ("vanished", "it was changed after it was listed (ConditionNotMet)")
    error = to.ends_with(StorageError, lambda: to.account.get(to.blob, _MOST, 7))
    assert error.args == ("vanished", "it has 204800 bytes, but had 7 when it was listed")
    assert to.proxy.counts() == {("read", 412): 1, ("read", 206): 1}


_HALF = Fault(
    change=lambda body: body[: len(body) // 2],
    headers={"Content-MD5": None, "x-ms-blob-content-md5": None},
)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut=0.5),
        Fault(cut=0.0),
        Fault(reset=0.5),
        reset(),
        _HALF,
        Fault(change=lambda body: body[:-1] + b"?"),
        Fault(change=lambda body: body + b"more"),
    ],
    ids=["cut", "nothing", "reset within", "reset before", "short", "other", "long"],
)
def test_r5_a_body_that_breaks_is_read_again_from_its_beginning(
    reached: Callable[..., Reached], fault: Fault
) -> None:
    to = reached(first(2, fault))
    assert to.account.get(to.blob, _MOST) == _DATA
    assert len(to.proxy.exchanges) == 3
    starts = {each.request.headers["x-ms-range"].partition("-")[0] for each in to.proxy.exchanges}
    assert starts == {"bytes=0"}
    taken = traffic.take()
    assert sum(one.retries for one in taken) == 2
    sent = sum(each.sent_bytes for each in to.proxy.exchanges)
    received = sum(one.bytes_received for one in taken)
    # What a reset drops on its way never arrives.
    assert received == sent or (fault.reset is not None and len(_DATA) <= received <= sent)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(change=lambda body: body[::-1]), "its bytes do not match its Content-MD5"),
        (Fault(cut=0.5), "its body was cut after 102400 bytes"),
        (_HALF, "its body has 102400 bytes, not 204800 as announced"),
    ],
    ids=["other", "cut", "short"],
)
def test_r5_a_body_that_breaks_for_ever_fails_alone(
    reached: Callable[..., Reached], fault: Fault, message: str
) -> None:
    to = reached(always(fault))
    error = to.ends_with(StorageError, lambda: to.account.get(to.blob, _MOST))
    assert error.args == ("other", message)
    assert len(to.proxy.exchanges) == ATTEMPTS


def test_r5_a_blob_that_is_read_in_parts_is_begun_anew_where_a_part_breaks(
    reached: Callable[..., Reached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "_SINGLE_GET_BYTES", 100_000)
    monkeypatch.setattr(account, "_MORE_GET_BYTES", 50_000)
    broken = nth(3, Fault(cut=0.5), kind="read")
    to = reached(
        lambda request: broken(request) if request.number == 3 else broken(request) and None
    )
    assert to.account.get(to.blob, _MOST, len(_DATA), to.listed().etag) == _DATA
    asked = [each.request.headers["x-ms-range"] for each in to.proxy.exchanges]
    whole = ["bytes=0-99999", "bytes=100000-149999", "bytes=150000-199999", "bytes=200000-204799"]
    assert asked == [*whole[:3], *whole]


def test_r4_a_blob_that_is_overwritten_between_two_parts_is_vanished(
    reached: Callable[..., Reached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "_SINGLE_GET_BYTES", 100_000)
    monkeypatch.setattr(account, "_MORE_GET_BYTES", 50_000)

    def overwrite(request: Request) -> Fault | None:
        if request.number == 2:
            to.azurite.upload(to.container, {"a.jpg": _DATA[::-1]})
        return None

    to = reached(overwrite)
    error = to.ends_with(StorageError, lambda: to.account.get(to.blob, _MOST))
    assert error.args[0] == "vanished"
    assert len(to.proxy.exchanges) == 2


def test_slow_answers_and_bodies_are_given_up_and_asked_for_again(
    reached: Callable[..., Reached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "_READ_S", 0.2)
    slow = [Fault(latency_s=5.0), Fault(drip=(1000, 5.0))]
    to = reached(lambda request: slow[request.number - 1] if request.number <= 2 else None)
    assert to.account.get(to.blob, _MOST) == _DATA
    assert len(to.proxy.exchanges) == 3
    statuses = {one.status: one.requests for one in traffic.take() if one.requests}
    assert statuses == {"timeout": 1, "206": 2}


def test_a_body_that_never_stops_to_drip_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "_READ_S", 0)
    monkeypatch.setattr(account, "_LEAST_BYTES_PER_S", 10**12)
    body = account._Body(itertools.repeat(b"x"), None, "read", "206")
    with pytest.raises(account._BodyError, match="too slow"):
        _consume(body)
    traffic.take()


def _consume(parts: Any) -> None:
    for _ in parts:
        time.sleep(0)


def test_b5_a_blob_that_is_too_large_is_not_asked_for(reached: Callable[..., Reached]) -> None:
    to = reached()
    error = to.ends_with(StorageError, lambda: to.account.get(to.blob, 10, len(_DATA)))
    assert error.args == ("too_large", "204800 bytes, more than the 10 allowed")
    assert to.proxy.exchanges == []


def test_an_empty_blob_is_read(reached: Callable[..., Reached]) -> None:
    to = reached()
    to.azurite.upload(to.container, {"empty": b""})
    found = to.account.head(to.named("empty"))
    assert to.account.get(to.named("empty"), _MOST, 0, found.etag) == b""


def test_a_blob_that_says_it_is_packed_is_read_as_it_is_stored(
    reached: Callable[..., Reached],
) -> None:
    to = reached(first(1, Fault(headers={"Content-Encoding": "gzip"})))
    assert to.account.get(to.blob, _MOST) == _DATA
    assert len(to.proxy.exchanges) == 1


def test_r7_a_page_that_fails_is_never_the_last(
    reached: Callable[..., Reached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "PAGE", 2)
    to = reached(lambda request: failing(500) if "marker" in request.query else None)
    to.azurite.upload(to.container, dict.fromkeys(["b", "c", "d"], b""))
    for deep in (True, False):
        to.proxy.exchanges.clear()
        pages = to.account.pages(to.container, deep=deep)
        assert [one.name for one in next(pages)] == ["a.jpg", "b"]
        to.ends_with(UnavailableError, lambda pages=pages: next(pages))
        assert to.proxy.counts() == {("list", 200): 1, ("list", 500): ATTEMPTS}


def test_r7_an_answer_that_refuses_a_page_ends_the_job(reached: Callable[..., Reached]) -> None:
    to = reached(always(failing(400)))
    error = to.ends_with(AccessError, lambda: list(to.account.pages(to.container)))
    assert "cannot list the container (InvalidQueryParameterValue)" in str(error)
    assert len(to.proxy.exchanges) == 1


def test_r9_a_container_that_is_missing_is_no_missing_blob(reached: Callable[..., Reached]) -> None:
    to = reached()
    other = BlobName(ACCOUNT, "no-such-container", "a.jpg")
    for operation in (
        lambda: list(to.account.pages(other.container)),
        lambda: to.account.level(other.container),
        lambda: to.account.head(other),
        lambda: to.account.get(other, _MOST, 7, "0x1"),
    ):
        error = to.ends_with(AccessError, operation)
        assert "has no such container (ContainerNotFound)" in str(error)
    error = to.ends_with(StorageError, lambda: to.account.head(to.named("none")))
    assert error.args[0] == "not_found"
    assert len(to.proxy.exchanges) == 5


def test_pages_and_levels_give_every_name_once(
    reached: Callable[..., Reached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "PAGE", 2)
    to = reached()
    names = ["a.jpg", "b.jpg", "d/1", "d/2", "d/e/3", "f/4", "z"]
    to.azurite.upload(to.container, dict.fromkeys(names[1:], b"x"))
    pages = list(to.account.pages(to.container))
    assert [len(page) for page in pages] == [2, 2, 2, 1]
    assert [one.name for page in pages for one in page] == names
    shallow = [one.name for page in to.account.pages(to.container, deep=False) for one in page]
    assert shallow == ["a.jpg", "b.jpg", "z"]
    assert [one.name for page in to.account.pages(to.container, "d/") for one in page] == names[2:5]
    level = to.account.level(to.container)
    assert (len(level.prefixes) + len(level.blobs), level.is_whole) == (2, False)
    monkeypatch.setattr(account, "PAGE", 5000)
    level = to.account.level(to.container)
    assert level.prefixes == ["d/", "f/"]
    assert [one.name for one in level.blobs] == ["a.jpg", "b.jpg", "z"]
    assert level.is_whole


def test_what_the_store_says_of_a_blob_is_taken_over(reached: Callable[..., Reached]) -> None:
    to = reached()
    client = to.azurite.client.get_blob_client(to.container, "cold")
    client.upload_blob(
        b"x", metadata={"HDI_IsFolder": "true"}, standard_blob_tier=StandardBlobTier.ARCHIVE
    )
    (page,) = to.account.pages(to.container)
    seen = {one.name: one for one in page}
    assert seen["a.jpg"] == to.listed() == to.account.head(to.blob)
    assert seen["a.jpg"].size_bytes == len(_DATA)
    assert seen["a.jpg"].content_md5 == hashlib.md5(_DATA, usedforsecurity=False).hexdigest()
    assert abs(seen["a.jpg"].modified_us / 1e6 - time.time()) < 3600
    assert '"' not in seen["a.jpg"].etag
    assert (seen["cold"].tier, seen["cold"].is_folder) == ("Archive", True)


def test_a_blob_is_written_whole_and_over_none_but_where_it_may(
    reached: Callable[..., Reached], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "_SINGLE_PUT_BYTES", 64 * 1024)
    monkeypatch.setattr(account, "_BLOCK_BYTES", 64 * 1024)
    to = reached(lambda request: failing(503) if request.number in (2, 4) else None)
    body = io.BytesIO(b"head" + _DATA)
    body.seek(4)
    etag = to.account.put(to.named("b"), body, overwrite=False, metadata={"run": "1"})
    assert to.azurite.read(to.container, "b") == _DATA
    found = to.account.head(to.named("b"))
    assert (found.etag, found.metadata) == (etag, {"run": "1"})
    assert found.content_md5 == hashlib.md5(_DATA, usedforsecurity=False).hexdigest()
    error = to.ends_with(
        StorageError, lambda: to.account.put(to.named("b"), io.BytesIO(b"x"), overwrite=False)
    )
    assert error.args[0] == "exists"
    assert to.account.put(to.named("b"), io.BytesIO(b"x"), overwrite=True) != etag
    assert to.azurite.read(to.container, "b") == b"x"


@pytest.mark.parametrize("fault", [reset(done=True), failing(503, done=True)], ids=["reset", "503"])
def test_r5_a_write_whose_answer_is_lost_is_done(
    reached: Callable[..., Reached], fault: Fault
) -> None:
    to = reached(first(1, fault, kind="write"))
    etag = to.account.put(to.named("b"), io.BytesIO(b"mine"), overwrite=False)
    assert to.account.head(to.named("b")).etag == etag
    to.proxy.plan = first(1, failing(503), kind="write")
    error = to.ends_with(
        StorageError, lambda: to.account.put(to.named("b"), io.BytesIO(b"else"), overwrite=False)
    )
    assert error.args[0] == "exists"
    assert to.azurite.read(to.container, "b") == b"mine"


def test_r5_a_lease_whose_answer_is_lost_is_taken(reached: Callable[..., Reached]) -> None:
    to = reached(first(1, reset(done=True), kind="lease"))
    lease = to.account.lease(to.blob, 15)
    error = to.ends_with(StorageError, lambda: to.account.lease(to.blob, 15))
    assert error.args[0] == "leased"
    lease.renew()
    lease.delete()
    assert to.ends_with(StorageError, lambda: to.account.head(to.blob)).args[0] == "not_found"


def test_a_copy_is_made_of_what_was_seen_and_over_nothing(reached: Callable[..., Reached]) -> None:
    to = reached()
    etag = to.account.copy(to.blob, to.named("a?b#c%20 d.jpg"), to.listed().etag)
    assert to.azurite.read(to.container, "a?b#c%20 d.jpg") == _DATA
    assert to.account.head(to.named("a?b#c%20 d.jpg")).etag == etag
    for source, target, seen, error_type in (
        (to.blob, "a?b#c%20 d.jpg", to.listed().etag, "exists"),
        (to.blob, "other", "0x1", "vanished"),
        (to.named("none"), "other", "0x1", "vanished"),
    ):
        error = to.ends_with(
            StorageError,
            lambda source=source, target=target, seen=seen: to.account.copy(
                source, to.named(target), seen
            ),
        )
        assert error.args[0] == error_type
    assert "other" not in to.azurite.names(to.container)


_PENDING = Fault(headers={"x-ms-copy-status": "pending"})


def test_a4_a_copy_is_awaited_until_it_is_made(reached: Callable[..., Reached]) -> None:
    to = reached(lambda request: _PENDING if request.number <= 3 else None)
    etag = to.account.copy(to.blob, to.named("c"), to.listed().etag)
    assert to.proxy.counts() == {("copy", 202): 1, ("head", 200): 3}
    assert to.clock.slept == [0.1, 0.2, 0.5]
    assert to.account.head(to.named("c")).etag == etag


@pytest.mark.parametrize("status", ["failed", "aborted"])
def test_a4_a_copy_that_fails_is_told(reached: Callable[..., Reached], status: str) -> None:
    ended = Fault(headers={"x-ms-copy-status": status})
    to = reached(lambda request: _PENDING if request.kind == "copy" else ended)
    seen = to.listed().etag
    error = to.ends_with(StorageError, lambda: to.account.copy(to.blob, to.named("c"), seen))
    assert error.args == ("other", f"the copy ended as {status!r}")


def test_a4_a_copy_that_never_ends_is_not_awaited_for_ever(
    reached: Callable[..., Reached],
) -> None:
    to = reached(always(_PENDING))
    seen = to.listed().etag
    error = to.ends_with(UnavailableError, lambda: to.account.copy(to.blob, to.named("c"), seen))
    assert "a copy is still under way after 603.8 s" in str(error)


def test_a_copy_by_signature_lets_the_store_read_its_source(azurite: Azurite) -> None:
    signature = "sv=1&sig=s%3D"
    grant = Grant(azurite.endpoint, AzureSasCredential(signature), "shared access signature")
    to = Account(ACCOUNT, Access(), grant)
    url = to._readable_url(to._client(BlobName(ACCOUNT, "ccc", "a b?.jpg")))
    assert url == f"{azurite.endpoint}/ccc/a%20b%3F.jpg?{signature}"


def test_a2_a_blob_that_changed_is_not_deleted(reached: Callable[..., Reached]) -> None:
    to = reached()
    error = to.ends_with(StorageError, lambda: to.account.delete(to.blob, "0x1"))
    assert error.args[0] == "vanished"
    to.account.delete(to.blob, to.listed().etag)
    error = to.ends_with(StorageError, lambda: to.account.delete(to.blob))
    assert error.args[0] == "not_found"


def test_requests_wait_for_the_limit_and_the_wait_is_counted(
    reached: Callable[..., Reached],
) -> None:
    to = reached(access=Access(requests_per_second=2))
    for _ in range(5):
        to.account.head(to.blob)
    # The first two slots come back a second after each answer, twice.
    assert to.clock.now == 1002.0
    assert traffic.take() == [RequestCount("head", "200", 5, 0, 2_000_000, 0, 0)]


def test_accounts_of_a_process_share_one_limit(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.forget_accounts()
    for name in ("PICS", "OTHER"):
        monkeypatch.setenv(f"AZURE_STORAGE_KEY__{name}", "c2VjcmV0")
    pics, other = (account.account_of(name, Access()) for name in ("pics", "other"))
    assert pics is account.account_of("pics", Access())
    assert pics is not other
    assert pics._limiter is other._limiter
    assert account.account_of("pics", Access(concurrency=2)) is not pics
    account.forget_accounts()


# --- R6: tokens. They go over https only, so that the answers are made here. ---


class _Tokens:
    """A credential whose tokens are good for so long."""

    def __init__(self, *lifetimes_s: float) -> None:
        self._lifetimes = itertools.chain(lifetimes_s, itertools.repeat(3600.0))
        self.given = 0

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        self.given += 1
        return AccessToken(f"token-{self.given}", int(time.time() + next(self._lifetimes)))


class _NoLogin:
    asked = 0

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        self.asked += 1
        raise ClientAuthenticationError("no login for https://login.example?secret=hidden")


class _Service(requests.adapters.BaseAdapter):
    """Answers where the token is not one that it takes for expired."""

    def __init__(self, *expired: str) -> None:
        super().__init__()
        self.expired = {f"Bearer {token}" for token in expired}
        self.asked: list[str] = []

    def send(self, request: requests.PreparedRequest, **_: Any) -> requests.Response:
        token = request.headers["Authorization"]
        self.asked.append(token)
        refused = token in self.expired or "Bearer any" in self.expired
        headers = {"ETag": '"0x1"', "Last-Modified": "Sat, 21 Nov 2026 20:00:00 GMT"}
        headers |= {"Content-Length": "7"}
        if refused:
            headers = {
                "x-ms-error-code": "InvalidAuthenticationInfo",
                "WWW-Authenticate": "Bearer authorization_uri=https://login.example/t/oauth2/"
                "authorize resource_id=https://storage.azure.com",
            }
        answer = requests.Response()
        answer.status_code = 401 if refused else 200
        answer.headers.update(headers)
        answer.request = request
        answer.url = str(request.url)
        answer.raw = urllib3.HTTPResponse(
            io.BytesIO(), headers, preload_content=False, request_method="HEAD"
        )
        return answer

    def close(self) -> None:
        """Have nothing to close."""


def _by_token(credential: Any, service: _Service) -> Account:
    session = requests.Session()
    session.mount("https://", service)
    transport = RequestsTransport(session=session, session_owner=False)
    grant = Grant("https://pics.blob.core.windows.net", credential, "Azure identity")
    return Account("pics", Access(), grant, sleep=Clock().sleep, transport=transport)


_BLOB = BlobName("pics", "ccc", "a.jpg")


def test_r6_a_token_that_is_about_to_expire_is_renewed_before_it_does() -> None:
    tokens, service = _Tokens(3600, 10, 3600), _Service()
    to = _by_token(tokens, service)
    for _ in range(3):
        assert to.head(_BLOB).size_bytes == 7
    assert service.asked == ["Bearer token-1"] * 3
    # Another process, whose token lasts ten seconds: shorter than any request may take.
    tokens.given, to = 1, _by_token(_Tokens(10, 10, 3600), service)
    service.asked.clear()
    for _ in range(4):
        assert to.head(_BLOB).size_bytes == 7
    assert service.asked == ["Bearer token-1", "Bearer token-2", "Bearer token-3", "Bearer token-3"]


def test_r6_a_token_that_the_service_takes_for_expired_is_renewed_at_once() -> None:
    service = _Service("token-1")
    to = _by_token(_Tokens(), service)
    assert to.head(_BLOB).size_bytes == 7
    assert to.head(_BLOB).size_bytes == 7
    assert service.asked == ["Bearer token-1", "Bearer token-2", "Bearer token-2"]


def test_r3_r6_tokens_that_are_never_taken_end_at_once() -> None:
    service = _Service("any")
    to = _by_token(_Tokens(), service)
    with pytest.raises(AccessError, match=r"InvalidAuthenticationInfo.* with the Azure identity"):
        to.head(_BLOB)
    assert len(service.asked) <= 2


def test_r3_x2_a_login_that_fails_ends_at_once_and_is_not_repeated() -> None:
    service, login = _Service(), _NoLogin()
    with pytest.raises(AccessError) as raised:
        _by_token(login, service).head(_BLOB)
    assert login.asked == 1
    assert "refuses access (ClientAuthenticationError) with the Azure identity" in str(raised.value)
    assert "hidden" not in str(raised.value)
    assert raised.value.__context__ is None
    assert service.asked == []


def test_an_account_that_no_name_server_knows_is_told_by_its_endpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(*_: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    grant = Grant(
        "https://pics.blob.invalid", {"account_name": "pics", "account_key": "YQ=="}, "key"
    )
    to = Account("pics", Access(), grant, sleep=Clock().sleep)
    with pytest.raises(UnavailableError) as raised:
        to.head(_BLOB)
    assert str(raised.value) == (
        "account 'pics' did not answer at https://pics.blob.invalid (head: NameResolutionError) in "
        "10 attempts"
    )


def test_proxies_and_certificates_of_the_environment_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "private.example")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ours.pem")
    through = account._transport(Access(), "https://pics.blob.core.windows.net")
    assert through.session.proxies["https"] == "http://proxy.example:3128"
    assert through.connection_config.verify == "/etc/ours.pem"
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    past = account._transport(Access(), "https://private.example")
    assert "https" not in past.session.proxies
    assert past.connection_config.verify is True


def test_one_account_serves_many_threads(reached: Callable[..., Reached]) -> None:
    to = reached(access=Access(concurrency=8))
    names = [f"{number:02d}" for number in range(16)]
    to.azurite.upload(to.container, {name: name.encode() * 1000 for name in names})
    read: dict[str, bytes] = {}

    def read_it(name: str) -> None:
        read[name] = to.account.get(to.named(name), _MOST)

    threads = [threading.Thread(target=read_it, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == {name: name.encode() * 1000 for name in names}
