"""When garbage is collected."""

import gc

from beam_dedup.garbage import few_collections, no_collections


def test_what_is_made_meanwhile_is_not_looked_at_until_the_job_ends() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with few_collections():
        assert gc.get_threshold()[0] > before[0][0]
        with no_collections():
            assert not gc.isenabled()
            kept = [[] for _ in range(1000)]  # type: ignore[var-annotated]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before[1] + len(kept)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before[0], 0)


def test_a_collector_that_is_off_stays_off() -> None:
    gc.disable()
    try:
        with few_collections(), no_collections():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
