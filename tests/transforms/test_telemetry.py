"""The statistics of a bundle."""

import pytest

from transforms.telemetry import MeteredDoFn, StageMeter, Timed


@pytest.mark.parametrize(
    ("counts", "told"),
    [({}, 0), ({"items_in": 2}, 1), ({"items_out": 3}, 1), ({"skipped": 1}, 1)],
)
def test_a_bundle_tells_what_it_did_if_it_did_something(counts, told):
    stage = MeteredDoFn()
    stage.start_bundle()
    for name, count in counts.items():
        setattr(stage.meter, name, count)
    found = [tagged.value.value for tagged in stage.finish_bundle()]
    assert len(found) == told
    assert all(getattr(found[0], name) == count for name, count in counts.items())


def test_r11_halvings_of_a_bundle_add_up_to_the_least_batch():
    meter = StageMeter("embed")
    for halvings, limit in ((0, 0), (2, 4), (0, 0), (1, 8)):
        meter.add(Timed(None, 1, 2, 3, halvings, limit))
    told = meter.stats()
    assert (told.items_in, told.halvings, told.batch_limit) == (4, 3, 4)
