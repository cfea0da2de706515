"""The embedded runner writes what is joined into its shuffle, and gives what it gave before."""

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, translations
from apache_beam.testing.util import assert_that, equal_to

from beam_dedup.shuffles import join_directly


@pytest.fixture
def directly(monkeypatch):
    monkeypatch.setattr(translations, "sink_flattens", translations.sink_flattens)
    join_directly()


def _keyed(pipeline, label, values):
    return pipeline | label >> beam.Create(values).with_output_types(tuple[bytes, int])


def _grouped(label):
    return f"Group {label}" >> beam.GroupByKey() | f"Sort {label}" >> beam.MapTuple(
        lambda key, values: (key, sorted(values))
    )


def _stages(pipeline):
    _, stages = FnApiRunner().create_stages(pipeline.to_runner_api())
    return [one.name for one in stages]


def _build(pipeline):
    """Group two inputs, one of them twice and one of another coder, after a shuffle of its own."""
    first = _keyed(pipeline, "First", [(b"a", 1), (b"b", 2)]) | beam.Reshuffle()
    second = pipeline | "Second" >> beam.Create([(b"b", 3), (b"c", 4)])
    joined = (first, second, first) | "Join" >> beam.Flatten()
    return joined | _grouped("joined")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("times", [1, 2])
def test_a_join_needs_no_stage_to_hand_it_on_and_gives_the_same(directly, workers, times):
    for _ in range(times - 1):
        join_directly()
    options = PipelineOptions(
        [f"--direct_num_workers={workers}", "--direct_running_mode=multi_threading"]
    )
    with beam.Pipeline(FnApiRunner(), options=options) as pipeline:
        found = _build(pipeline)
        assert_that(found, equal_to([(b"a", [1, 1]), (b"b", [2, 2, 3]), (b"c", [4])]))
        assert not [name for name in _stages(pipeline) if "Join/Read" in name]


def test_what_others_read_too_is_collected_as_before(directly):
    with beam.Pipeline(FnApiRunner()) as pipeline:
        parts = [_keyed(pipeline, f"Part {number}", [(b"a", number)]) for number in range(3)]
        joined = parts | "Join" >> beam.Flatten()
        assert_that(joined | _grouped("all"), equal_to([(b"a", [0, 1, 2])]), label="grouped")
        assert_that(joined, equal_to([(b"a", 0), (b"a", 1), (b"a", 2)]), label="plain")
        assert [name for name in _stages(pipeline) if "Join/Read" in name]


def test_shuffles_of_shuffles_run_in_order(directly):
    with beam.Pipeline(FnApiRunner()) as pipeline:
        first = _keyed(pipeline, "First", [(b"a", 1)]) | beam.Reshuffle()
        found = first
        for number in range(3):
            other = found | f"Plus {number}" >> beam.MapTuple(lambda key, one: (key, one + 1))
            both = (found, other, first) | f"Join {number}" >> beam.Flatten()
            found = (
                both
                | _grouped(number)
                | f"Sum {number}" >> beam.MapTuple(lambda key, values: (key, sum(values)))
            )
        # 1, 2 and 1 are 4; 4, 5 and 1 are 10; 10, 11 and 1 are 22.
        assert_that(found, equal_to([(b"a", 22)]))
