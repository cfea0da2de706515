"""The estimate of a dry run."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from beam_dedup import cli, estimate, options
from beam_dedup.estimate import Listed, Remote, Sample
from tests.azurite import Azurite
from tests.beam_dedup.pictures import write_folder
from transforms.access import LOCAL, Access
from transforms.listing import iterate_inputs
from transforms.records import FailedImage, Failure, ImageRef
from transforms.storage import reads, traffic
from transforms.storage.azure.account import forget_accounts
from transforms.storage.reads import ReadAhead


def _ref(number: int) -> ImageRef:
    name = f"{number}.jpg"
    return ImageRef(f"file:///{name}", f"/{name}", name, 0, 1000, None, None, "")


def test_a_survey_counts_all_and_samples_some() -> None:
    failed = FailedImage(
        _ref(-1), Failure("list", "file:///-1.jpg", "not_found", "gone"), None, None, None, None
    )
    rows = [*map(_ref, range(500)), failed]
    listed = estimate.survey(rows, wanted=50)
    assert (listed.inputs, listed.failed, listed.total_bytes) == (501, 1, 500_000)
    assert len(set(listed.sample)) == 50
    assert {ref.uri for ref in listed.sample} <= {ref.uri for ref in map(_ref, range(500))}
    assert estimate.survey(rows, wanted=50) == listed
    # Late rows are drawn too, not the first fifty alone.
    assert max(int(ref.below.removesuffix(".jpg")) for ref in listed.sample) > 250


def test_a_sample_is_read_and_measured(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    (folder / "broken.jpg").write_bytes(b"no picture")
    config, _, _ = options.parse([f"--input={folder}", "--dry_run"])
    listed = estimate.survey(iterate_inputs([str(folder)]))
    sample = estimate.measure(listed.sample, config)
    assert (sample.measured, sample.failed) == (5, 1)
    assert sample.bytes_read == listed.total_bytes
    assert sample.cpu_s > 0


def test_a_sample_ends_in_time(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "in")
    config, _, _ = options.parse([f"--input={folder}", "--dry_run"])
    times = iter([0.0, 1.0, 1000.0, 1001.0])
    listed = estimate.survey(iterate_inputs([str(folder)]))
    sample = estimate.measure(listed.sample, config, clock=lambda: next(times))
    assert (sample.measured, sample.wall_s) == (2, 1001.0)


def test_a_sample_reads_no_more_at_once_than_the_rate_limit_lets_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Access] = []

    class Ended(ReadAhead[ImageRef]):
        """Of which the last wait for the rate limit ends with its threads."""

        def __init__(self, access: Access, max_bytes: int) -> None:
            used.append(access)
            super().__init__(access, max_bytes)

        def close(self) -> None:
            super().close()
            traffic.count("read", "200", waited_s=3.0)

    monkeypatch.setattr(reads, "ReadAhead", Ended)
    folder = write_folder(tmp_path / "in")
    listed = estimate.survey(iterate_inputs([str(folder)]))
    config, _, _ = options.parse([f"--input={folder}", "--dry_run"])
    for per_second, at_once in ((2, 2), (100, 32), (None, 32)):
        access = dataclasses.replace(config.access, requests_per_second=per_second)
        sample = estimate.measure(listed.sample, dataclasses.replace(config, access=access))
        assert sample.held_s == 3.0
        assert used.pop().concurrency == at_once


def test_the_words() -> None:
    listed = Listed(inputs=1_000_001, failed=1, total_bytes=100_000_000_000, sample=[])
    sample = Sample(measured=100, failed=3, cpu_s=0.36, bytes_read=10_000_000)
    text = estimate.describe(listed, sample, 4, verify=False)
    assert text.splitlines() == [
        "inputs    1,000,001, 100.0 GB",
        "sample    100 images, 3 of them failed",
        "reads     100.0 GB",
        "CPU time  1:00:00 to measure, up to 0.0 s to compare",
        "time      0:15:00 to 0:15:00 with 4 workers",
        "memory    about 11.2 GB in 5 processes",
        "report    about 700.0 MB",
    ]
    verified = estimate.describe(listed, sample, 1, verify=True)
    assert "reads     100.0 GB, and again those that are compared" in verified
    assert "up to 2:18:23 to compare" in verified
    assert "in 1 processes" in verified


def test_embeddings_of_all_are_a_read_more_and_bytes_in_the_report() -> None:
    listed = Listed(inputs=1_000_000, failed=0, total_bytes=100_000_000_000, sample=[])
    sample = Sample(measured=100, failed=0, cpu_s=0.36, bytes_read=10_000_000)
    text = estimate.describe(listed, sample, 4, verify=True, embeds=512, writes_embeddings=True)
    lines = dict(line.split(maxsplit=1) for line in text.replace("CPU time", "CPU").splitlines())
    assert lines["reads"] == (
        "100.0 GB, all again for embeddings, and again those that are compared"
    )
    assert lines["CPU"] == (
        "1:00:00 to measure, 1:00:00 to read again for the model, and what that takes, up to "
        "2:18:23 to compare"
    )
    assert lines["time"] == "0:30:00 to 1:04:36 with 4 workers"
    assert lines["report"] == "about 1.7 GB"
    unwritten = estimate.describe(listed, sample, 4, verify=True, embeds=512)
    assert unwritten.splitlines()[:-1] == text.splitlines()[:-1]
    assert unwritten.splitlines()[-1] == "report    about 700.0 MB"
    plain = estimate.describe(listed, sample, 4, verify=False).splitlines()
    fast = estimate.describe(listed, sample, 4, verify=False, embeds=512).splitlines()
    assert fast[2] == "reads     100.0 GB, all again for embeddings"
    longer = estimate.describe(listed, sample, 4, verify=False, embeds=1024).splitlines()
    assert len({lines_of[5] for lines_of in (plain, fast, longer)}) == 3  # memory


def test_long_embeddings_are_more_files() -> None:
    output = "azfs://account/container/out"
    writes = [estimate._writes(20_000_000, output, size) for size in (0, 512)]
    assert writes == [3 * 400 + 10, 605 + 2 * 400 + 10]


def test_another_runner_gets_cpu_time_alone() -> None:
    listed = Listed(inputs=10, failed=0, total_bytes=100, sample=[])
    text = estimate.describe(listed, Sample(0, 0, 0.0, 0), None, verify=True)
    assert "workers" not in text
    assert "memory" not in text


@pytest.mark.parametrize("profile", ["fast", "balanced"])
def test_estimates_follow_the_profile(tmp_path: Path, profile: str) -> None:
    folder = write_folder(tmp_path / "in")
    config, run, _ = options.parse([f"--input={folder}", "--dry_run", f"--profile={profile}"])
    text = estimate.estimate(config, run)
    assert ("and again those" in text) == (profile == "balanced")


# Remote stores

_MILLION = Listed(inputs=1_000_000, failed=0, total_bytes=100_000_000_000, sample=[])
# A second for 100 images, of which a CPU has 0.36 s to do: the rest is the wait for the store.
_SLOW = Sample(100, 0, 0.36, 10_000_000, wall_s=1.0, most_held_bytes=5_000_000)


def _lines(sample: Sample, remote: Remote, workers: int | None = 4, **options: Any) -> list[str]:
    text = estimate.describe(
        _MILLION, sample, workers, remote=remote, **{"verify": False, **options}
    )
    assert {line[9] for line in text.splitlines()} == {" "}
    return [
        line for line in text.splitlines() if line.split()[0] in ("requests", "time", "slowest")
    ]


def test_a_remote_store_costs_requests_and_the_wait_for_them() -> None:
    assert _lines(_SLOW, Remote(LOCAL, 200, 120.0, 0)) == [
        "requests  1,000,200 (200 to list, 1,000,000 to read)",
        "time      0:42:10 to 0:43:40 with 4 workers",  # 10,000 s / 4, and 120 s / 4 or 120 s
        "slowest   the wait for the store; more --read_concurrency may help",
    ]


def test_a_kept_listing_and_a_cpu_that_has_enough_to_do() -> None:
    busy = dataclasses.replace(_SLOW, cpu_s=0.9)
    assert _lines(busy, Remote(LOCAL, 0, 0.0, 610), workers=1) == [
        "requests  1,000,000 (listed already, 1,000,000 to read) to 1,000,610 (up to 0 to read "
        "again, 610 to write)",
        "time      2:46:40 to 2:46:40 with 1 workers",
        "slowest   the CPU",
    ]


def test_the_rate_limit_may_be_what_takes_the_time() -> None:
    share = Access(requests_per_second=25)
    assert _lines(_SLOW, Remote(share, 200, 0.0, 0)) == [
        "requests  1,000,200 (200 to list, 1,000,000 to read)",
        "time      2:46:42 to 2:46:42 with 4 workers",  # 1,000,200 / 100
        "slowest   the rate limit, without which it is 0:41:40 to 0:41:40",
    ]
    # What the sample was held back for is the limit's, not the store's.
    held = dataclasses.replace(_SLOW, wall_s=10.0, held_s=9.0)
    assert _lines(held, Remote(share, 200, 0.0, 0)) == _lines(_SLOW, Remote(share, 200, 0.0, 0))
    wide = Remote(Access(requests_per_second=1000), 200, 0.0, 0)
    assert _lines(_SLOW, wide)[2].startswith("slowest   the wait")


def test_a_second_read_counts_once_more_at_most() -> None:
    lines = _lines(_SLOW, Remote(LOCAL, 0, 0.0, 10), verify=True)
    assert lines[0].endswith(" to 2,000,010 (up to 1,000,000 to read again, 10 to write)")
    # 20,000 s of reads and 8,303 s of comparing, in four processes.
    assert lines[1] == "time      0:41:40 to 1:57:56 with 4 workers"
    other = _lines(_SLOW, Remote(LOCAL, 0, 0.0, 0), workers=None)
    assert other[1] == "time      2:46:40 to 2:46:40 in one process, less in several"


def test_embeddings_of_all_cost_a_request_more_for_each() -> None:
    lines = _lines(_SLOW, Remote(LOCAL, 200, 0.0, 0), embeds=512)
    assert lines[0] == "requests  2,000,200 (200 to list, 2,000,000 to read)"
    assert lines[1] == "time      1:23:20 to 1:23:20 with 4 workers"  # 20,000 s / 4


@pytest.mark.parametrize("options_", [["--write_embeddings"], ["--candidates=embedding"]])
def test_a_dry_run_knows_of_embeddings(tmp_path: Path, options_: list[str]) -> None:
    folder = write_folder(tmp_path / "in")
    words = [f"--input={folder}", "--dry_run", "--profile=fast", *options_]
    config, run, _ = options.parse(words)
    assert ", all again for embeddings\n" in estimate.estimate(config, run)


def test_what_is_read_ahead_counts_in_each_worker() -> None:
    text = estimate.describe(_MILLION, _SLOW, 4, verify=False, remote=Remote(LOCAL, 0, 0.0, 0))
    assert "memory    about 11.3 GB in 5 processes" in text  # 5 x 250 MB, 10 GB, 4 x 5 MB


def test_what_is_too_large_is_not_read() -> None:
    rows = [_ref(1), _ref(2)._replace(size_bytes=5000)]
    listed = estimate.survey(rows, max_bytes=4999)
    assert (listed.inputs, listed.failed, listed.total_bytes) == (2, 1, 1000)
    assert [ref.below for ref in listed.sample] == ["1.jpg"]


def test_a_dry_run_on_azure(
    azurite: Azurite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string())
    forget_accounts()
    container = azurite.container()
    folder = write_folder(tmp_path / "in")
    azurite.upload(container, {f"p/{one.name}": one.read_bytes() for one in folder.iterdir()})
    root = f"azfs://{azurite.account}/{container}"
    words = ["run", f"--input={root}/p", f"--output={root}/out", "--dry_run", "--workers=2"]
    assert cli.main([*words, "--profile=fast", "--max_requests_per_second=300"]) == 0
    said = capsys.readouterr().out
    assert "inputs    4, " in said
    assert "sample    4 images, 0 of them failed" in said
    assert "requests  7 (3 to list, 4 to read) to 20 (up to 0 to read again, 13 to write)" in said
    assert "with 2 workers" in said
    assert azurite.names(container) == sorted(f"p/{one.name}" for one in folder.iterdir())
    cache = tmp_path / "kept"
    for _ in range(2):
        assert cli.main([*words, f"--listing_cache={cache}"]) == 0
        assert "requests  5 (1 to list, 4 to read) to 22" in capsys.readouterr().out
    assert len(list(cache.rglob("manifest.json"))) == 1
    assert azurite.names(container) == sorted(f"p/{one.name}" for one in folder.iterdir())


def test_a_dry_run_of_an_account_without_access_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "another")
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    forget_accounts()
    assert cli.main(["run", "--input=azfs://acc/pics", "--dry_run"]) == 2
    assert capsys.readouterr().err.startswith("beam-dedup: refused: ")
