import json

import pytest
import quality
from limit import Limit
from machine import Took

_MB = 2**20


def took(cpu_s: float) -> Took:
    return Took(cpu_s, 2 * cpu_s, 300 * _MB, 400 * _MB)


def test_the_slope_leaves_the_start_out() -> None:
    cost = quality.Cost(3000, took(13.0), took(5.0), Limit(1000, 0, 1.0), Limit(2000, 1, 4.0))
    assert cost.times_limit == pytest.approx(13 / 5)
    assert cost.times_limit_slope == pytest.approx(8 / 4)
    assert cost.ms_an_image == pytest.approx(13 / 3)


def test_a_small_set_has_no_slope() -> None:
    cost = quality.Cost(500, took(4.0), None, Limit(500, 0, 2.0), Limit(0, 0, 0.0))
    assert (cost.times_limit, cost.times_limit_slope) == (2.0, None)
    written = json.loads(json.dumps(cost.to_json()))
    assert written["first"] is None
    assert written["whole"]["peak_sum_bytes"] == 400 * _MB
    assert written["limit_first"] == {"images": 500, "undecoded": 0, "cpu_s": 2.0}


def test_tables_are_flush() -> None:
    assert quality.table(["kind", "fast"], [["a", "0.5"], ["longer", "12345"]]) == (
        "kind     fast\na         0.5\nlonger  12345"
    )


def test_kinds_have_a_column_for_each_profile() -> None:
    score = {
        "recall_by_kind": {"crop": {"recall": 0.25}},
        "hard_by_kind": {"hard_form": {"merged": 2, "of": 9}},
    }
    assert quality.by_kind({"fast": score, "mine": score}).split("\n") == [
        "kind         fast    mine",
        "crop        0.250   0.250",
        "hard_form  2 of 9  2 of 9",
    ]
