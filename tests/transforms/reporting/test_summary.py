"""The summary adds up, and refuses rows that do not."""

import pytest

from tests.transforms.reporting.made import (
    EDGES,
    GROUPS,
    IMAGES,
    STATS,
    failed_row,
    image_row,
    summary_of,
)
from transforms.records import Cap, RequestCount, StageStats
from transforms.reporting.schema import TABLES, to_arrow
from transforms.reporting.summary import Gathered, add_up, stage_summary, summarise, tally


def test_the_whole_summary():
    assert summary_of() == {
        "run_id": "run-1",
        "counts": {
            "listed": 5, "unique": 1, "best": 1, "duplicate": 2, "failed": 1, "groups": 1,
        },
        "failures": {"truncated": 1},
        "stages": [
            {
                "name": "fingerprint", "seconds": 2.0, "cpu_seconds": 0.5, "workers": 1,
                "utilisation": 0.25, "items_in": 5, "items_out": 4, "failed": 1, "skipped": 0,
                "peak_rss_bytes": 77,
            }
        ],
        "bytes": {"listed": 5000, "read_first": 900, "read_second": 0, "reclaimable": 2000},
        "requests": {
            "sent": 0,
            "retries": 0,
            "seconds_throttled": 0.0,
            "bytes_received": 0,
            "bytes_sent": 0,
            "by_kind": [],
        },
        "features": {"computed": 0, "freed": 4},
        "generators": [
            {"name": "wavelet", "proposed": 2, "compared": 2, "verified": 1, "found_alone": 1}
        ],
        "quality_scores": {"bin_width": 0.05, "counts": [0] * 12 + [4] + [0] * 7, "images": 4},
        "caps": [
            {
                "stage": "wavelet", "name": "bucket", "limit": 100, "applied": 2,
                "note": "representatives elected",
            }
        ],
        "images_per_second": 2.5,
        "speed_up": 0.25,
        "options": {"profile": "fast"},
        "versions": {"python": "3"},
    }  # fmt: skip


def test_a_stage_adds_up_over_bundles_and_workers():
    parts = [
        StageStats("local", "h:1", 1_000_000, 2_000_000, 900_000, 3, 2, 1, 0, 10, 5),
        StageStats("local", "h:2", 1_500_000, 3_000_000, 1_100_000, 4, 3, 0, 1, 20, 9),
        StageStats("local", "h:2", 4_000_000, 5_000_000, 400_000, 1, 1, 0, 0, 30, 7),
    ]
    assert stage_summary("local", parts) == {
        "name": "local", "seconds": 4.0, "cpu_seconds": 2.4, "workers": 2, "utilisation": 0.3,
        "items_in": 8, "items_out": 6, "failed": 1, "skipped": 1, "peak_rss_bytes": 9,
    }  # fmt: skip


def test_a_stage_that_took_no_time_has_no_utilisation():
    assert stage_summary("x", [STATS._replace(ended_us=1_000_000)])["utilisation"] == 0.0


def test_quality_scores_are_counted_in_bins():
    scores = [0.0, 0.049, 0.05, 0.5, 0.999, 1.0]
    rows = [image_row(f"{i}", quality_score=score) for i, score in enumerate(scores)]
    bins = tally("images", to_arrow(TABLES["images"], [*rows, failed_row("x")])).quality
    assert bins == [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2]


def test_failures_are_counted_most_frequent_first():
    kinds = ["timeout", "other", "crashed", "other"]
    rows = [failed_row(f"{i}")._replace(error_type=kind) for i, kind in enumerate(kinds)]
    failures = summary_of(rows, [], [])["failures"]
    assert list(failures.items()) == [("other", 2), ("crashed", 1), ("timeout", 1)]


def test_the_requests_of_stages_and_writers_are_added_up():
    read = RequestCount("read", "200", 3, 1, 250_000, 10, 0)
    written = RequestCount("write", "201", 2, 0, 0, 0, 7)
    stats = (STATS._replace(requests=[read]), STATS._replace(stage="color", requests=[read]))
    assert summary_of(stats=stats, requests=[written, written])["requests"] == {
        "sent": 10, "retries": 2, "seconds_throttled": 0.5, "bytes_received": 20,
        "bytes_sent": 14, "by_kind": [
            {"kind": "read", "status": "200", "requests": 6},
            {"kind": "write", "status": "201", "requests": 4},
        ],
    }  # fmt: skip


def test_each_generator_is_counted():
    edges = [
        EDGES[0]._replace(uri_a=str(number), generators=generators, verdict=verdict)
        for number, (generators, verdict) in enumerate(
            [("words", "accept"), ("wavelet+words", "accept"), ("star", "review"),
             ("star", "accept"), ("words", "reject")]
        )
    ]  # fmt: skip
    stats = [STATS, STATS._replace(stage="words", items_out=9)]
    assert summary_of(edges=edges, stats=stats)["generators"] == [
        {"name": "star", "proposed": 2, "compared": 2, "verified": 1, "found_alone": 1},
        {"name": "wavelet", "proposed": 1, "compared": 1, "verified": 1, "found_alone": 0},
        {"name": "words", "proposed": 9, "compared": 3, "verified": 2, "found_alone": 1},
    ]


def test_caps_of_several_workers_are_added_up():
    cap = Cap("words", "document_frequency", 64, 2, "few")
    caps = [cap, cap._replace(applied=3), cap._replace(name="other")]
    assert [c["applied"] for c in summary_of(caps=caps)["caps"]] == [5, 2]


def test_r11_batches_halved_for_want_of_memory_are_a_cap():
    embed = STATS._replace(stage="embed")
    parts = [embed._replace(halvings=2, batch_limit=8), embed,
             embed._replace(halvings=1, batch_limit=4)]  # fmt: skip
    local = STATS._replace(stage="local", halvings=1, batch_limit=16)
    rows = tally("images", to_arrow(TABLES["images"], []))
    stages = {"fingerprint": [STATS], "embed": parts, "local": [local]}
    note = "batches of the model were halved for want of memory, and run again"
    assert summarise("run-1", Gathered(0, rows, stages, ()), {}, {})["caps"] == [
        {"stage": "embed", "name": "batch_size", "limit": 4, "applied": 3, "note": note},
        {"stage": "local", "name": "batch_size", "limit": 16, "applied": 1, "note": note},
    ]


def test_r7_nothing_listed_gives_zeros():
    summary = summary_of([], [], [])
    assert set(summary["counts"].values()) == {0}
    assert summary["images_per_second"] == 0.0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"listed": 6}, "6 inputs were listed, but 5 rows"),
        ({"images": IMAGES[:4], "listed": 5}, "5 inputs were listed, but 4 rows"),
        ({"images": [*IMAGES[:3], image_row("d", "odd")]}, "4 inputs were listed, but 3 rows"),
        ({"groups": []}, "0 groups have 1 kept images"),
        ({"groups": GROUPS * 2}, "2 groups have 1 kept images"),
        ({"groups": [GROUPS[0]._replace(size=4)]}, "groups of 4 images in all have 3 rows"),
    ],
)
def test_g1_counts_that_do_not_add_up_raise(rows, message):
    with pytest.raises(ValueError, match=message):
        summary_of(**rows)


def test_bounds_that_bundles_counted_add_up():
    caps = [Cap("b", "x", 3, 2, "n"), Cap("a", "x", 3, 1, "n"), Cap("b", "x", 3, 5, "n")]
    assert add_up(caps) == [Cap("a", "x", 3, 1, "n"), Cap("b", "x", 3, 7, "n")]
