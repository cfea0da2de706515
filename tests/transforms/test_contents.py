"""Exact copies become one content."""

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.samples import digest, make_image, make_ref
from transforms.contents import CollapseExact, content_of, distinct_bytes, merge_contents


def test_equal_pixels_are_one_content_with_the_best_as_representative():
    images = [
        make_image("a", "p", area=1e5),
        make_image("b", "p", area=1e6),
        make_image("c", "p", area=1e4),
        make_image("d"),
    ]
    with TestPipeline("FnApiRunner") as pipeline:
        found = (
            pipeline
            | beam.Create(images)
            | CollapseExact()
            | beam.Map(lambda c: (c.content, c.uri, c.copies, c.total_bytes))
        )
        assert_that(
            found,
            equal_to(
                [(digest("p"), "file:///in/b", 3, 3000), (digest("d"), "file:///in/d", 1, 1000)]
            ),
        )


def test_g5_hard_links_are_counted_once():
    images = [make_image(n, "p", ref=make_ref(n, storage_id="1:7")) for n in "ab"]
    images.append(make_image("c", "p"))
    merged = merge_contents(content_of(image) for image in images)
    assert merged.copies == 3
    assert distinct_bytes(merged) == 2000


def test_merging_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        merge_contents([])


@given(st.permutations(range(5)), st.integers(1, 4))
def test_g2_merging_is_order_free(order, cut):
    images = [make_image(f"{n}", "p", area=1e5 + 1e5 * (n % 3)) for n in range(5)]
    parts = [content_of(images[n]) for n in order]
    merged = merge_contents([merge_contents(parts[:cut]), merge_contents(parts[cut:])])
    assert merged == merge_contents(content_of(image) for image in images)
    assert merged.second_rank > merged.rank


def test_g4_many_identical_images_stay_one_element():
    images = [make_image(f"{n:05d}", "p") for n in range(3000)]
    with TestPipeline("FnApiRunner") as pipeline:
        found = pipeline | beam.Create(images) | CollapseExact() | beam.Map(lambda c: c.copies)
        assert_that(found, equal_to([3000]))
