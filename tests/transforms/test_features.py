"""The second read: once over all rounds, and its records only as long as a component needs them."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from PIL import Image

from tests.pictures import photo, saved, write
from tests.transforms.samples import make_content
from transforms.features import (
    MemberSettings,
    ReadMembers,
    decode_thumbnail,
    failed_record,
    read_input,
    read_member,
)
from transforms.global_features import are_unit_vectors
from transforms.imaging.decode import DecodeLimits, decode
from transforms.imaging.orientation import apply
from transforms.imaging.points import LocalFeatures
from transforms.imaging.preparation import Preparation
from transforms.records import Learned, PairUnit
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


@pytest.mark.parametrize("kind", ["orb", "sift"])
def test_a_record_has_the_points_that_are_asked_for_within_128_kb(kind):
    # Noise is what JPEG makes most bytes of.
    noise = np.random.default_rng(0).integers(0, 256, (600, 600, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise))
    content = make_content("a")._replace(width=600, height=600)
    settings = MemberSettings(points=kind)
    record = read_member(content, data, b"", settings, DecodeLimits()).record
    features = LocalFeatures.unpack(record.points)
    assert features.kind == kind
    assert 100 <= len(features.points) <= 200
    assert len(record.points) + len(record.thumbnail) <= 124 * 1024


def test_a_record_for_a_learned_matcher_has_a_larger_picture_and_no_points():
    content = make_content("a")._replace(width=900, height=600)
    data = saved(photo(3, 900, 600))
    record = read_member(content, data, b"", MemberSettings(384, None), DecodeLimits()).record
    assert record.points == b""
    assert decode_thumbnail(record.thumbnail).shape == (256, 384, 3)


def test_a_learned_model_sees_the_whole_picture_in_each_turn_but_those_that_it_has_seen():
    preparation = Preparation(24, 16)
    settings = MemberSettings(preparation=preparation)
    data = saved(photo(3, 90, 60))
    fresh = make_content("a")._replace(width=90, height=60)
    read = read_member(fresh, data, b"\x03\x06", settings, DecodeLimits())
    assert (read.turns, read.record.turns, read.record.embedding) == (b"\x01\x03\x06", b"", b"")
    pixels = decode(data, min_side=1 << 30).pixels
    seen = [preparation.apply(np.ascontiguousarray(apply(pixels, turn))) for turn in (1, 3, 6)]
    np.testing.assert_array_equal(preparation.unpack(read.inputs), np.stack(seen))
    upright = read_input(fresh, data, settings, DecodeLimits())
    np.testing.assert_array_equal(preparation.unpack(upright), seen[:1])

    stored = np.array([0.6, -0.8, 1e-9], np.float16)
    known = fresh._replace(learned=Learned(stored.tobytes(), "", 0.0, "", "", ""))
    read = read_member(known, data, b"\x06", settings, DecodeLimits())
    assert (read.turns, read.record.turns) == (b"\x06", b"\x01")
    np.testing.assert_array_equal(preparation.unpack(read.inputs), seen[2:])
    vector = np.frombuffer(read.record.embedding, np.float32)
    assert are_unit_vectors(read.record.embedding, 1)
    np.testing.assert_allclose(vector, [0.6, -0.8, 0], atol=1e-3)
    assert read_member(known, data, b"", settings, DecodeLimits()).inputs == b""
