"""Stage 2 decides by colour and wavelet distance alone."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.samples import make_content, make_edge
from transforms.color import ColorSettings, CompareColors, judge_colors, split_unit
from transforms.imaging.color import color_descriptor
from transforms.records import PairUnit

SETTINGS = ColorSettings(0.5, 0.9, 12, 0.1)


def _picture(seed, turn=0):
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.rot90(np.kron(small, np.ones((16, 16, 1), np.uint8)), turn)


def _content(name, pixels, **changes):
    content = make_content(name)
    color = color_descriptor(np.ascontiguousarray(pixels)).tobytes()
    return content._replace(color=color, **changes)


def _edge(a, b, bits=8, orientation=1):
    return make_edge(
        a, b, "undecided", wavelet_distance=bits, orientation=orientation, color_similarity=None,
        global_similarity=None, local_inliers=None, local_overlap=None, local_score=None,
        relation="similar",
    )  # fmt: skip


def _judge(a, b, settings=SETTINGS, **changes):
    (edge,) = judge_colors([_edge(a, b, **changes)], {c.content: c for c in (a, b)}, settings)
    return edge


def test_near_keys_and_equal_colours_are_accepted():
    a, b = _content("a", _picture(1)), _content("b", _picture(1), width=250, height=188)
    edge = _judge(a, b)
    assert (edge.verdict, edge.decided_by, edge.relation) == ("accept", "color", "resized")
    assert edge.color_similarity == 1.0


def test_other_colours_are_rejected():
    edge = _judge(_content("a", _picture(1)), _content("b", _picture(1)[..., [1, 2, 0]]))
    assert (edge.verdict, edge.decided_by) == ("reject", "color")
    assert edge.color_similarity < 0.5


def test_g7_a_distance_equal_to_the_threshold_passes():
    a, b = _content("a", _picture(1)), _content("b", _picture(1))
    assert _judge(a, b, bits=12).verdict == "accept"
    assert _judge(a, b, bits=13).verdict == "undecided"


def test_g7_a_similarity_equal_to_the_threshold_passes():
    a, b = _content("a", _picture(1)), _content("b", _picture(1))
    assert _judge(a, b, ColorSettings(1.0, 1.0, 12, 0.1)).verdict == "accept"


def test_m4_low_information_is_never_accepted_on_a_key():
    flat = np.full((96, 96, 3), 200, np.uint8)
    a, b = _content("a", flat, texture=0.02), _content("b", flat, texture=0.02)
    assert _judge(a, b).verdict == "undecided"
    assert _judge(a, b, ColorSettings(0.5, 0.9, 12, 0.1, verify=False)).verdict == "review"


def test_m3_animations_are_for_a_person():
    a, b = _content("a", _picture(1), animated=True), _content("b", _picture(1))
    assert _judge(a, b).verdict == "review"


@pytest.mark.parametrize("orientation", [6, 8])
def test_m2_a_turned_copy_is_compared_after_the_turn(orientation):
    a = _content("a", _picture(3))
    b = _content("b", _picture(3, turn=-1 if orientation == 6 else 1), width=375, height=500)
    # The orientation is that from the lower id to the higher one.
    forward = orientation if a.content < b.content else {6: 8, 8: 6}[orientation]
    edge = _judge(a, b, orientation=forward)
    assert (edge.verdict, edge.relation) == ("accept", "turned")
    assert edge.color_similarity > 0.95


@pytest.mark.parametrize(("batch_size", "max_group_size"), [(4096, 500), (1, 2), (2, 3)])
def test_bounds_split_work_and_change_no_row(batch_size, max_group_size):
    contents = [_content(f"c{n}", _picture(n % 3)) for n in range(7)]
    pairs = [
        _edge(a, b, bits=8 if (i + j) % 2 else 30)
        for i, a in enumerate(contents)
        for j, b in enumerate(contents)
        if i < j
    ]
    unit = PairUnit("u", b"c", contents, pairs)
    expected = judge_colors(pairs, {c.content: c for c in contents}, SETTINGS)
    with TestPipeline("FnApiRunner") as pipeline:
        out = pipeline | beam.Create([unit]) | CompareColors(SETTINGS, batch_size, max_group_size)
        decided = [(b"c", edge) for edge in expected if edge.verdict != "undecided"]
        assert_that(out.edges, equal_to(decided), label="decided")
        left = [edge for edge in expected if edge.verdict == "undecided"]
        assert left
        assert_that(out.undecided | beam.FlatMap(lambda u: u.pairs), equal_to(left), label="left")
    for part in split_unit(unit, left, max_group_size):
        assert len(part.contents) <= max(max_group_size, 2)
        assert {e for p in part.pairs for e in (p.a, p.b)} == {c.content for c in part.contents}


def test_a_batch_below_one_is_refused():
    with pytest.raises(ValueError, match="batch_size"):
        CompareColors(SETTINGS, 0)
