"""The vectors of the benchmark of candidates are what its table says."""

import argparse

import candidates
import numpy as np
import pytest
from candidates import COSINES, Job, make_chunk, make_vectors, planted
from machine import Took


def _args(kind: str) -> argparse.Namespace:
    return argparse.Namespace(kind=kind, dimensions=64, cone=0.2, seed=1)


def test_planted_copies_have_the_cosine_that_they_say() -> None:
    contents = list(make_chunk(0, _args("clustered")))
    ids = np.frombuffer(b"".join(one.content for one in contents), candidates._ID)
    vectors = np.stack([np.frombuffer(one.learned.embedding, np.float16) for one in contents])
    counts = {}
    for row in np.flatnonzero(ids["cosine"]).tolist():
        original = int(ids["original"][row])
        cosine = float(vectors[row].astype(np.float64) @ vectors[original])
        assert cosine == pytest.approx(ids["cosine"][row] / 100 + 0.001, abs=0.0009)
        assert planted(contents[original].content, contents[row].content) == ids["cosine"][row]
        counts[int(ids["cosine"][row])] = counts.get(int(ids["cosine"][row]), 0) + 1
    assert counts == {round(100 * value): 200 for value in COSINES}
    assert planted(contents[-1].content, contents[-2].content) == 0


@pytest.mark.parametrize(("kind", "least"), [("equal", 0.9999), ("alike", 0.95)])
def test_what_a_bad_model_makes_is_all_alike(kind: str, least: float) -> None:
    vectors, _, _ = make_vectors(np.random.default_rng(2), _args(kind))
    assert (vectors[:200] @ vectors[-200:].T).min() > least


def test_a_row_tells_the_recall_at_each_cosine() -> None:
    told = {"planted 98": 200, "planted 95": 200, "planted 90": 199, "planted 85": 100}
    told |= {"candidates": 1234, "peak client": 1_000_000, "peak 7": 3_000_000}
    row = Job(10_000, "clustered", 64, Took(5.0, 2.0, 2_000_000, 3_000_000), told).row
    assert row == (
        "| 10,000 | clustered | exhaustive | 1,234 | 5.0 | 2.0 | 3 "
        "| 1.0000 | 1.0000 | 0.9950 | 0.5000 | 0.0000 |"
    )
