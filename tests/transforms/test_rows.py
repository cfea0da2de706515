"""Rows: one for every input, with what its content came to."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.samples import make_content, make_image, make_ref
from transforms.records import (
    Content,
    Decision,
    FailedImage,
    Failure,
    Fingerprint,
    Learned,
)
from transforms.rows import AssembleRows, row_of

VECTOR = np.array([0.6, -0.8], np.float16).tobytes()
KNOWN = Learned(VECTOR, "cat", 0.75, "", "", "")
UNKNOWN = Learned(b"", "", 0.0, "decode", "truncated", "cut")
FURTHER = ("label", "label_score", "embedding")
ERROR = ("error_stage", "error_type", "error_message")


def _lone(image, *error):
    content = make_content("x")
    return Decision(
        image.pixel_hash, image.pixel_hash, "", 1, image.ref.uri, image.sha256, 1, None, None,
        None, None, None, None, None, content.rank, "", *error,
    )  # fmt: skip


def _values(row, names):
    return tuple(getattr(row, name) for name in names)


@pytest.mark.parametrize(
    ("learned", "further"),
    [
        (None, (None, None, None)),
        (KNOWN, ("cat", 0.75, VECTOR)),
        (KNOWN._replace(label="", label_score=0.0), (None, None, VECTOR)),
        (KNOWN._replace(label_score=0.0), ("cat", 0.0, VECTOR)),
        (UNKNOWN, (None, None, None)),
    ],
)
def test_a_row_has_label_and_embedding_of_its_content(learned, further):
    image = make_image("a")
    row = row_of(image, None, learned)
    assert _values(row, FURTHER) == further
    error = learned is UNKNOWN
    assert _values(row, ERROR) == (("decode", "truncated", "cut") if error else (None,) * 3)
    same = dict.fromkeys((*FURTHER, *ERROR))
    assert row._replace(**same) == row_of(image, None)


def test_m7_the_error_of_an_embedding_is_told_where_nothing_else_is():
    image = make_image("a")
    of_pair = ("local", "other", "no match")
    assert _values(row_of(image, _lone(image, *of_pair), UNKNOWN), ERROR) == of_pair
    assert _values(row_of(image, _lone(image, *of_pair), KNOWN), ERROR) == of_pair
    nothing = _lone(image, None, None, None)
    assert _values(row_of(image, nothing, UNKNOWN), ERROR) == ("decode", "truncated", "cut")


def test_every_row_of_a_content_has_its_embedding_and_failed_ones_have_none():
    images = [make_image("a", "same"), make_image("b", "same"), make_image("c"), make_image("d")]
    ref = make_ref("e")
    failed = FailedImage(ref, Failure("read", ref.uri, "vanished", "gone"), None, None, None, None)
    contents = [
        make_content("a", pixels="same")._replace(learned=KNOWN),
        make_content("c")._replace(learned=UNKNOWN),
        make_content("d"),
    ]
    expected = [
        ("/in/a", "cat", 0.75, VECTOR, None),
        ("/in/b", "cat", 0.75, VECTOR, None),
        ("/in/c", None, None, None, "truncated"),
        ("/in/d", None, None, None, None),
        ("/in/e", None, None, None, "vanished"),
    ]
    with TestPipeline("FnApiRunner") as pipeline:
        none = pipeline | "Decisions" >> beam.Create([]).with_output_types(Decision)
        lost = pipeline | "Failed" >> beam.Create([failed]).with_output_types(FailedImage)
        known = pipeline | "Contents" >> beam.Create(contents).with_output_types(Content)
        read = pipeline | "Images" >> beam.Create(images).with_output_types(Fingerprint)
        rows = read | "With" >> AssembleRows(none, lost, known)
        assert_that(
            rows | "Columns" >> beam.Map(_values, ("path", *FURTHER, "error_type")),
            equal_to(expected),
        )
        plain = read | "Without" >> AssembleRows(none, lost)
        assert_that(
            plain | "Of plain" >> beam.Map(_values, ("path", *FURTHER)),
            equal_to([(row[0], None, None, None) for row in expected]),
            label="without",
        )
