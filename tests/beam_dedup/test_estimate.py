"""The estimate of a dry run."""

from pathlib import Path

import pytest

from beam_dedup import estimate, options
from beam_dedup.estimate import Listed, Sample
from tests.beam_dedup.pictures import write_folder
from transforms.listing import iterate_inputs
from transforms.records import FailedImage, Failure, ImageRef


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
    times = iter([0.0, 1.0, 1000.0])
    listed = estimate.survey(iterate_inputs([str(folder)]))
    assert estimate.measure(listed.sample, config, clock=lambda: next(times)).measured == 2


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
