"""The lock of an output in Azure is a lease, which ends where nobody renews it."""

import logging
import threading

import pytest
from azure.storage.blob import BlobLeaseClient

from beam_dedup.reports import OutputBusyError, OutputLock, discard_run, lease
from tests.faulty import Fault, Proxy, always, either, failing, first, reset
from tests.places import PREFIX, Blobs, connected
from tests.transforms.reporting.made import write_by_hand
from transforms.reporting.store import OutputLostError
from transforms.storage import limits

LOCK = ".beam-dedup.lock"


def _blob(blobs: Blobs):
    return blobs.azurite.client.get_blob_client(blobs.container, f"{PREFIX}/{LOCK}")


def _hold_and_die(blobs: Blobs, run_id: str) -> None:
    """Take the lock as a client does that is killed then, and its threads with it."""
    lock = OutputLock(blobs.output, run_id)
    lock.__enter__()
    lock._lock._ended.set()


def _break_lease(blobs: Blobs) -> None:
    """End a lease as the service does when its time is over."""
    BlobLeaseClient(_blob(blobs)).break_lease(lease_break_period=0)


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every request sent once, so that a store that stays away costs no time."""
    monkeypatch.setattr(limits, "ATTEMPTS", 1)


def test_a5_the_lease_of_a_killed_holder_ends_by_itself(blobs: Blobs) -> None:
    with Proxy(blobs.azurite.endpoint) as proxy, connected(blobs.azurite, proxy.endpoint):
        _hold_and_die(blobs, "killed")
    (taken,) = (each.request for each in proxy.exchanges if each.request.kind == "lease")
    assert taken.headers["x-ms-lease-action"] == "acquire"
    assert taken.headers["x-ms-lease-duration"] == "60"
    with pytest.raises(OutputBusyError, match=r"run killed, pid .*if it was killed, for 60 s"):
        OutputLock(blobs.output, "next").__enter__()
    _break_lease(blobs)
    with OutputLock(blobs.output, "next"):
        assert blobs.files()[LOCK].startswith(b"run next, ")
    assert blobs.files() == {}


def test_the_lease_is_renewed_until_the_run_ends(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.01)
    renewed = threading.Event()

    def look(request):
        if request.headers.get("x-ms-lease-action") == "renew":
            renewed.set()

    with Proxy(blobs.azurite.endpoint, look) as proxy, connected(blobs.azurite, proxy.endpoint):
        with OutputLock(blobs.output, "a"):
            for _ in range(3):
                assert renewed.wait(30)
                renewed.clear()
            with pytest.raises(OutputBusyError):
                OutputLock(blobs.output, "b").__enter__()


@pytest.mark.usefixtures("once")
def test_a_renewal_that_fails_is_told_once_and_tried_again(
    blobs: Blobs, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lease, "_RENEW_S", 0.01)
    done = threading.Event()
    asked = []

    def fail(request):
        if request.headers.get("x-ms-lease-action") != "renew":
            return None
        asked.append(request)
        if len(asked) > 4:
            done.set()
        return failing(503) if len(asked) < 4 else None

    with Proxy(blobs.azurite.endpoint, fail) as proxy, connected(blobs.azurite, proxy.endpoint):
        with OutputLock(blobs.output, "a"):
            assert done.wait(30)
    told = [one.getMessage() for one in caplog.records if one.name == lease.__name__]
    assert len(told) == 1
    assert "ServerBusy" in told[0]
    assert "if another run takes it, no report is written" in told[0]


def test_an_answer_that_is_lost_shuts_nobody_out(
    blobs: Blobs, caplog: pytest.LogCaptureFixture
) -> None:
    lost = either(
        first(1, reset(done=True), kind="lease"),
        first(1, reset(done=True), kind="write"),
        first(1, reset(done=True), kind="delete"),
    )
    with Proxy(blobs.azurite.endpoint, lost) as proxy, connected(blobs.azurite, proxy.endpoint):
        with OutputLock(blobs.output, "a"):
            assert blobs.files()[LOCK].startswith(b"run a, ")
    assert blobs.files() == {}
    assert caplog.records == []


def test_a_lock_that_someone_removes_before_it_is_held_is_made_again(blobs: Blobs) -> None:
    removed = []

    def remove(request):
        if request.kind == "lease" and not removed:
            removed.append(_blob(blobs).delete_blob())

    with Proxy(blobs.azurite.endpoint, remove) as proxy, connected(blobs.azurite, proxy.endpoint):
        with OutputLock(blobs.output, "a"):
            assert blobs.files()[LOCK].startswith(b"run a, ")
    assert removed


def test_a_lock_whose_text_cannot_be_written_is_not_held(blobs: Blobs) -> None:
    written = []

    def refuse(request):
        if request.kind == "write":
            written.append(request)
            return failing(403, code="AuthorizationPermissionMismatch") if written[1:] else None

    with Proxy(blobs.azurite.endpoint, refuse) as proxy, connected(blobs.azurite, proxy.endpoint):
        with pytest.raises(PermissionError, match="refuses access"):
            OutputLock(blobs.output, "a").__enter__()
    with OutputLock(blobs.output, "b"):
        pass
    assert blobs.files() == {}


def test_x6_what_the_lock_says_is_escaped_and_bounded(blobs: Blobs) -> None:
    blobs.put({LOCK: b"\x1b[2J\nok"})
    held = _blob(blobs).acquire_lease(60)
    with pytest.raises(OutputBusyError) as caught:
        OutputLock(blobs.output, "s").__enter__()
    assert "('\\x1b[2J\\nok')" in str(caught.value)
    _blob(blobs).upload_blob(b"x" * 5000, overwrite=True, lease=held)
    with pytest.raises(OutputBusyError, match="'unknown'"):
        OutputLock(blobs.output, "s").__enter__()


def test_r9_a_missing_container_is_no_lock(blobs: Blobs) -> None:
    with pytest.raises(PermissionError, match="no such container"):
        OutputLock("azfs://devstoreaccount1/nowhere/out", "a").__enter__()


def test_r3_no_permission_to_write_is_no_lock(blobs: Blobs) -> None:
    refused = always(failing(403, code="AuthorizationPermissionMismatch"), kind="write")
    with Proxy(blobs.azurite.endpoint, refused) as proxy, connected(blobs.azurite, proxy.endpoint):
        with pytest.raises(PermissionError, match="AuthorizationPermissionMismatch"):
            OutputLock(blobs.output, "a").__enter__()
    assert proxy.counts() == {("write", 403): 1}


@pytest.mark.usefixtures("once")
def test_a_lock_that_cannot_be_removed_ends_by_itself(
    blobs: Blobs, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        Proxy(blobs.azurite.endpoint, always(Fault(status=503), kind="delete")) as proxy,
        connected(blobs.azurite, proxy.endpoint),
        OutputLock(blobs.output, "a"),
    ):
        pass
    (told,) = (one.getMessage() for one in caplog.records if one.name == lease.__name__)
    assert "ends by itself within 60 s" in told


def test_a_run_whose_lock_another_took_publishes_nothing(blobs: Blobs) -> None:
    write_by_hand(blobs.output, "good")
    first_run = OutputLock(blobs.output, "slow")
    first_run.__enter__()
    before = blobs.files()
    _break_lease(blobs)
    with OutputLock(blobs.output, "other"):
        with pytest.raises(OutputLostError, match=r"run other, pid .*no report is written"):
            write_by_hand(blobs.output, "slow")
        discard_run(blobs.output, "slow")
        after = blobs.files()
        assert after.pop(LOCK).startswith(b"run other, ")
        before.pop(LOCK)
        assert after == before
        first_run.__exit__(None, None, None)
        assert blobs.files()[LOCK].startswith(b"run other, ")


def test_a_run_whose_client_was_killed_publishes_where_no_other_began(blobs: Blobs) -> None:
    _hold_and_die(blobs, "slow")
    write_by_hand(blobs.output, "slow")  # its lease goes on
    _break_lease(blobs)
    write_by_hand(blobs.output, "other")  # a job without a client: nobody has the lease
    assert b'"other"' in blobs.files()["manifest.json"]


def test_the_lock_is_gone_quietly_where_the_folder_was_deleted(
    blobs: Blobs, caplog: pytest.LogCaptureFixture
) -> None:
    with OutputLock(blobs.output, "a"):
        _break_lease(blobs)
        _blob(blobs).delete_blob()
    assert caplog.records == []
    assert blobs.files() == {}


@pytest.fixture(autouse=True)
def _all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
