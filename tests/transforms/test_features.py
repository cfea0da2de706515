"""The second read: once over all rounds, and its records only as long as a component needs them."""

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.pictures import photo, saved, write
from tests.transforms.samples import make_content
from transforms.features import ReadMembers, failed_record
from transforms.records import PairUnit
from transforms.rounds import Unfinished


def _unit(name, *contents):
    return PairUnit(name, b"key", list(contents), [])


def test_what_was_read_is_not_read_again_and_goes_on_only_with_its_component(tmp_path):
    data = saved(photo(3))
    fresh, known, waiting, ended = (
        make_content(name)._replace(
            uri=(tmp_path / f"{name}.jpg").as_uri(), size_bytes=len(data), width=320, height=240
        )
        for name in "abcd"
    )
    # Only this one lies there: to read another would fail.
    write(tmp_path / "a.jpg", data)
    records = [failed_record(one, "read", "other", "") for one in (known, waiting, ended)]
    going_on = [Unfinished([fresh, known], [], b"", b""), Unfinished([waiting], [], b"", b"")]
    with TestPipeline("FnApiRunner") as pipeline:
        units = pipeline | "Units" >> beam.Create([_unit("1", fresh, known), _unit("2", fresh)])
        found = units | ReadMembers(
            earlier=[
                pipeline | "Records of one round" >> beam.Create(records[:1]),
                pipeline | "Records of another" >> beam.Create(records[1:]),
            ],
            unfinished=pipeline
            | "Unfinished"
            >> beam.Create([(b"key", part) for part in going_on]).with_output_types(
                tuple[bytes, Unfinished]
            ),
        )
        read = found.fresh | beam.Map(
            lambda one: (one.record.uri, one.record.bytes_read, one.record.error_type, one.units)
        )
        assert_that(read, equal_to([(fresh.uri, len(data), "", ["1", "2"])]), label="fresh")
        assert_that(found.reused, equal_to([("1", records[0])]), label="reused")
        assert_that(found.carried, equal_to(records[:2]), label="carried")


def test_records_without_the_components_that_need_them_are_refused():
    with pytest.raises(ValueError, match="earlier and unfinished are given together"):
        ReadMembers(earlier=[object()])
