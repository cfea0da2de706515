"""The figures of the benchmark of scale are computed from what its jobs told."""

import numpy as np
import scale
from machine import Took
from scale import Job, make_chunk, planted, planted_counts, ratios

from transforms.grouping.bands import turn


def _job(count: int, hot: int, workers: int, cpu_s: float, **told: int) -> Job:
    return Job(count, hot, workers, Took(cpu_s, 2.0, 2_000_000, 3_000_000), told)


def test_a_row_tells_the_recall_of_all_copies_and_by_bits() -> None:
    told = {"grouped binomial": 1000, "grouped 8 bits": 25, "grouped 16 bits": 25}
    told |= {"grouped 24 bits": 24, "grouped 31 bits": 20, "peak client": 1_000_000}
    row = _job(10_000, 0, 2, 5.0, **told, **{"peak 7": 3_000_000, "peak 5": 2_000_000}).row
    assert row == (
        "| 10,000 | 0 | exhaustive | 2 | 5.0 | 2.0 | 2 | 1 + 2 + 3 "
        "| 0.9945 | 1.0000 | 1.0000 | 0.9600 | 0.8000 |"
    )


def test_ratios_say_which_search_they_compare() -> None:
    jobs = [_job(n, 0, 1, cpu) for n, cpu in ((100_000, 10.0), (200_000, 20.0), (10**6, 100.0))]
    assert list(ratios([*jobs, _job(100_000, 100_000, 1, 30.0)])) == [
        "1 worker(s): N^1.00 from 100,000 (exhaustive) to 200,000 (bands)",
        "1 worker(s): N^1.00 from 100,000 (exhaustive) to 1,000,000 (bands)",
        "1 worker(s): N^1.00 from 200,000 (bands) to 1,000,000 (bands)",
        "1 worker(s): 100,000 hot among 100,000 spread, 3.00 times 100,000 spread "
        "(bands over exhaustive)",
        "1 worker(s): 100,000 hot among 100,000 spread, 1.50 times 200,000 spread "
        "(bands over bands, as many images in all)",
    ]


def test_planted_copies_are_as_far_from_their_originals_as_they_say() -> None:
    contents = list(make_chunk((0, False), 1, 0.01))
    ids = np.frombuffer(b"".join(one.content for one in contents), scale._ID)
    signs = np.frombuffer(b"".join(one.wavelet_keys for one in contents), np.uint8).reshape(-1, 64)
    keys = turn(signs).transpose(1, 0, 2)
    copies = np.flatnonzero(ids["original"] != ids["number"])
    bits = (
        np.bitwise_count(keys[copies] ^ keys[ids["original"][copies], :1]).sum(axis=2).min(axis=1)
    )
    kinds = [
        next(planted(contents[one].content, contents[int(ids["original"][one])].content))
        for one in copies
    ]
    found: dict[str, set[int]] = {}
    for kind, distance in zip(kinds, bits.tolist(), strict=True):
        found.setdefault(kind, set()).add(distance)
    assert {kind: kinds.count(kind) for kind in found} == planted_counts(10_000)
    assert {kind: found[kind] for kind in found if kind != "binomial"} == {
        f"{n} bits": {n} for n in (8, 16, 24, 31)
    }
    assert max(found["binomial"]) < 31
    assert not list(planted(contents[-1].content, contents[-2].content))
