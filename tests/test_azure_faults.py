"""Faults of Azure Blob Storage through the whole pipeline; see ``tests/faulty.py``.

Jobs run in this process, where waits can be made short; what the waits are is tested in
``tests/transforms/storage``.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import beam_dedup
from beam_dedup import cli
from beam_dedup.reports import Report
from tests.azurite import ACCOUNT, Azurite
from tests.faulty import Fault, Plan, Proxy, Request, always, failing, nth, reset
from tests.pictures import photo, saved
from transforms.storage import limits
from transforms.storage.azure import account

_NAMES = [f"p/{number}.jpg" for number in range(6)]


class Job:
    """A container with seven pictures, two of them equal, behind a proxy, and runs over it."""

    def __init__(self, azurite: Azurite, proxy: Proxy, folder: Path) -> None:
        self.azurite, self.proxy, self.folder = azurite, proxy, folder
        self.container = azurite.container()
        pictures = {name: saved(photo(number, 96, 72)) for number, name in enumerate(_NAMES)}
        azurite.upload(self.container, pictures | {"p/copy.jpg": pictures["p/0.jpg"]})
        self.input = f"azfs://{ACCOUNT}/{self.container}/p"
        self.output = folder / "report"

    def run(self, plan: Plan | None = None, **options: Any) -> beam_dedup.Result:
        """Run and return the result."""
        self.proxy.plan = plan
        inputs = options.pop("inputs", self.input)
        return beam_dedup.deduplicate(inputs, self.output, profile="fast", workers=1, **options)

    def command(self, plan: Plan | None = None, *, input_uri: str = "") -> int:
        """Run from the command line and return the exit code."""
        self.proxy.plan = plan
        words = ["run", "--input", input_uri or self.input, "--output", str(self.output)]
        return cli.main([*words, "--profile", "fast", "--workers", "1"])

    def fails(self, plan: Plan, match: str) -> None:
        """Run and see it fail without a report, and without the SDK's words in the error."""
        with pytest.raises(beam_dedup.JobError, match=match) as raised:
            self.run(plan)
        assert "azure.core" not in str(raised.value)
        assert not (self.output / "manifest.json").exists()

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the rows of images by name."""
        start = f"azfs://{ACCOUNT}/{self.container}/"
        found = Report.open(str(self.output)).images.to_pylist()
        return {row["uri"].removeprefix(start): row for row in found}

    def change(self, act: Callable[[], object]) -> Plan:
        """Return a plan that does something when the first blob is read, and then nothing."""
        done: list[Request] = []

        def plan(request: Request) -> Fault | None:
            if request.kind == "read" and not done:
                done.append(request)
                act()
            return None

        return plan


@pytest.fixture
def job(azurite: Azurite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """Prepare a job whose waits are short."""
    for name, seconds in (
        ("_FIRST_WAIT_S", 0.001),
        ("_MAX_WAIT_S", 0.005),
        ("MAX_PAUSE_S", 0.01),
        ("HELD_BACK_S", 0.005),
    ):
        monkeypatch.setattr(limits, name, seconds)
    account.forget_accounts()
    with Proxy(azurite.endpoint) as proxy:
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(proxy.endpoint)
        )
        yield Job(azurite, proxy, tmp_path)
    account.forget_accounts()


def _statuses(job: Job) -> dict[str, str]:
    return {name: row["status"] for name, row in job.rows().items()}


def _is_whole(job: Job) -> None:
    statuses = _statuses(job)
    pair = {statuses.pop("p/0.jpg"), statuses.pop("p/copy.jpg")}
    assert pair == {"best", "duplicate"}
    assert statuses == dict.fromkeys(_NAMES[1:], "unique")


def test_r1_r2_r5_with_every_third_request_failing_no_image_is_lost(job: Job) -> None:
    faults = failing(503, retry_after=0), failing(429), reset(), Fault(cut=0.5)
    result = job.run(nth(3, *faults))
    _is_whole(job)
    told = result.summary["requests"]
    seen = job.proxy.counts()
    failed = sum(number for (_, status), number in seen.items() if status in (0, 429, 503))
    assert failed >= 4
    # The client's own requests, before the job, are not the job's.
    assert 0 < told["retries"] < told["sent"] <= sum(seen.values())
    for kind in ("read", "list"):
        answered = sum(one["requests"] for one in told["by_kind"] if one["kind"] == kind)
        assert answered <= sum(number for (name, _), number in seen.items() if name == kind)


@pytest.mark.parametrize("kind", ["read", "list"])
@pytest.mark.parametrize("status", [503, 429])
def test_r1_r2_a_store_that_never_answers_ends_the_job(job: Job, kind: str, status: int) -> None:
    asked = job.proxy.exchanges
    if kind == "read":
        job.fails(
            always(failing(status, retry_after=1), kind="read"),
            rf"UnavailableError: account '{ACCOUNT}' did not answer at http://.* \(read: .*\) in",
        )
    else:
        # Before the job, this is a refusal.
        with pytest.raises(beam_dedup.UsageError, match="did not answer"):
            job.run(always(failing(status), kind="list"))
    assert sum(each.request.kind == kind for each in asked) <= limits.ATTEMPTS * 7


@pytest.mark.parametrize("status", [401, 403])
def test_r3_refused_access_is_one_line_and_an_exit_code(
    job: Job, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    assert job.command(always(failing(status))) == 2
    assert len(job.proxy.exchanges) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"beam-dedup: refused: account '{ACCOUNT}' refuses access (")
    assert told.err.count("\n") == 1
    job.proxy.exchanges.clear()
    assert job.command(always(failing(status), kind="read")) == 1
    assert 1 <= job.proxy.counts()["read", status] <= 7
    told = capsys.readouterr()
    assert told.out == ""
    assert f"AccessError: account '{ACCOUNT}' refuses access (" in told.err
    assert told.err.count("\n") == 1
    assert not (job.output / "manifest.json").exists()


@pytest.mark.parametrize("way", ["deleted", "overwritten", "overwritten, as large"])
def test_r4_a_blob_that_changes_between_list_and_read_is_a_failed_row(job: Job, way: str) -> None:
    blob = job.azurite.client.get_blob_client(job.container, "p/3.jpg")
    data = blob.download_blob().readall()
    acts: dict[str, Callable[[], object]] = {
        "deleted": blob.delete_blob,
        "overwritten": lambda: blob.upload_blob(b"other", overwrite=True),
        "overwritten, as large": lambda: blob.upload_blob(data[::-1], overwrite=True),
    }
    # Read one after the other, the fourth is read after the first.
    result = job.run(job.change(acts[way]), max_failure_ratio=0.5, read_concurrency=1)
    assert result.failures == {"vanished": 1}
    row = job.rows()["p/3.jpg"]
    assert (row["status"], row["error_stage"], row["error_type"]) == ("failed", "read", "vanished")
    assert result.counts["listed"] == 7


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(cut=0.9), "its body was cut"),
        (Fault(change=lambda body: body[::-1]), "do not match its Content-MD5"),
    ],
    ids=["cut", "other"],
)
def test_r5_a_body_that_is_never_whole_is_a_failed_row(
    job: Job, fault: Fault, message: str
) -> None:
    result = job.run(always(fault, kind="read", path="p/3.jpg"))
    assert result.failed_ratio_exceeded
    row = job.rows()["p/3.jpg"]
    assert (row["status"], row["error_type"], row["sha256"]) == ("failed", "other", None)
    assert message in row["error_message"]
    assert job.proxy.counts()["read", 206] == 6 + limits.ATTEMPTS


def test_r7_a_page_that_fails_fails_the_whole_job(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "PAGE", 3)

    def second(request: Request) -> Fault | None:
        return failing(500) if "marker" in request.query else None

    job.fails(second, r"UnavailableError: .* \(list: InternalError\)")
    assert job.proxy.counts()["list", 500] == limits.ATTEMPTS
    assert not list(job.output.rglob("*.parquet"))
    job.run()
    _is_whole(job)


def test_r8_a_huge_wait_that_is_asked_for_ends_the_job_no_later(job: Job) -> None:
    busy = Fault(status=503, forwarded=False, headers={"Retry-After": "999999999"})
    job.run(nth(4, busy, kind="read"))
    _is_whole(job)


def test_r9_a_missing_container_is_refused_and_a_missing_blob_is_a_row(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.command(input_uri=f"azfs://{ACCOUNT}/no-such-container/p") == 2
    assert "has no such container (ContainerNotFound)" in capsys.readouterr().err
    assert job.command(input_uri=f"azfs://{ACCOUNT}/{job.container}/none") == 2
    assert "no such blob, and none below it" in capsys.readouterr().err
    names = tmp_path / "names.txt"
    names.write_text(f"{job.input}/0.jpg\n{job.input}/none.jpg\n")
    result = job.run(inputs=names, max_failure_ratio=0.5)
    assert result.failures == {"not_found": 1}
    row = job.rows()["p/none.jpg"]
    assert (row["status"], row["error_stage"]) == ("failed", "list")


def test_p4_n5_another_account_is_refused_before_any_request(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert job.command(input_uri=f"azfs://other/{job.container}/p") == 2
    assert "account 'other' of an azfs URI cannot be reached" in capsys.readouterr().err
    assert job.proxy.exchanges == []
    assert not (job.output / "manifest.json").exists()
