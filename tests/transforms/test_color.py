"""Stage 2 decides by colour and luma layouts alone."""

import dataclasses

import apache_beam as beam
import cv2
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.imaging import pictures
from tests.transforms.samples import make_content, make_edge
from transforms.color import ColorSettings, CompareColors, judge_colors, split_unit
from transforms.imaging.color import color_descriptor
from transforms.imaging.layout import layout
from transforms.imaging.orientation import inverse_orientation
from transforms.records import PairUnit

SETTINGS = ColorSettings(
    reject_similarity=0.5,
    accept_similarity=0.85,
    accept_residual=0.5,
    accept_differing=0.15,
    reject_differing=0.6,
    reject_residual=0.6,
)
LENIENT = dataclasses.replace(SETTINGS, accept_differing=0.35, verify=False)


def _content(name, pixels, **changes):
    pixels = np.ascontiguousarray(pixels)
    changes = {"width": pixels.shape[1], "height": pixels.shape[0]} | changes
    return make_content(name)._replace(
        color=color_descriptor(pixels).tobytes(), layout=layout(pixels).tobytes(), **changes
    )


def _edge(a, b, bits=8, orientation=1):
    return make_edge(
        a, b, "undecided", wavelet_distance=bits, orientation=orientation, color_similarity=None,
        global_similarity=None, local_inliers=None, local_overlap=None, local_score=None,
        relation="similar",
    )  # fmt: skip


def _judge(a, b, settings=SETTINGS, *, turn=1, **changes):
    """Judge two pictures; ``turn`` is the orientation that turns the first into the second."""
    first, second = _content("a", a), _content("b", b)
    # The orientation of an edge is that from the lower id to the higher one.
    turn = turn if first.content < second.content else inverse_orientation(turn)
    edge = _edge(first, second, orientation=turn, **changes)
    (edge,) = judge_colors([edge], {c.content: c for c in (first, second)}, settings)
    return edge, 1 if first.content < second.content else -1


def _framed(picture, side=7):
    white = (255, 255, 255)
    return cv2.copyMakeBorder(picture, *[side] * 4, cv2.BORDER_CONSTANT, value=white)


@pytest.mark.parametrize(
    ("name", "change", "relation"),
    [
        ("same size", lambda p: pictures.jpeg(p, 40), "reencoded"),
        ("half size", lambda p: pictures.resized(p, 120, 90), "resized"),
        ("grey", pictures.grey, "recoloured"),
        ("dark", lambda p: pictures.gained(p, (0.7, 0.7, 0.7)), "recoloured"),
        ("bright", lambda p: pictures.gained(p, (1.4, 1.4, 1.4)), "recoloured"),
    ],
)
def test_copies_of_the_whole_are_accepted(name, change, relation):
    edge, _ = _judge(pictures.photograph(1), change(pictures.photograph(1)))
    assert (edge.verdict, edge.decided_by, edge.relation) == ("accept", "color", relation), name
    assert edge.derived == 0
    assert edge.color_similarity > 0.7


@pytest.mark.parametrize(("turn", "relation"), [(6, "turned"), (8, "turned"), (2, "mirrored")])
def test_m2_a_turned_copy_is_compared_after_the_turn(turn, relation):
    picture = pictures.photograph(3)
    turned = {6: np.rot90(picture, -1), 8: np.rot90(picture), 2: picture[:, ::-1]}[turn]
    edge, _ = _judge(picture, turned, turn=turn)
    assert (edge.verdict, edge.relation) == ("accept", relation)
    assert edge.color_similarity > 0.95


def test_another_hue_is_rejected():
    edge, _ = _judge(pictures.photograph(1), pictures.photograph(1)[..., [1, 2, 0]])
    assert (edge.verdict, edge.decided_by) == ("reject", "color")
    assert edge.color_similarity < 0.5


def test_another_picture_is_rejected_where_the_keys_are_near():
    grey, other = pictures.grey(pictures.photograph(1)), pictures.grey(pictures.photograph(50))
    lenient = dataclasses.replace(LENIENT, reject_similarity=0.0)
    assert _judge(grey, other, lenient)[0].verdict == "reject"
    # Beyond, crops misfit everywhere too.
    assert _judge(grey, other, lenient, bits=80)[0].verdict == "review"
    verified = dataclasses.replace(lenient, verify=True)
    assert _judge(grey, other, verified, bits=80)[0].verdict == "undecided"


def test_a_caption_is_accepted_only_if_a_piece_may_differ():
    picture = pictures.photograph(2)
    captioned = pictures.captioned(picture)
    assert _judge(picture, captioned)[0].verdict == "undecided"
    edge, _ = _judge(picture, captioned, LENIENT)
    assert (edge.verdict, edge.relation, edge.derived) == ("accept", "overlaid", 0)


def test_a_crop_is_derived_from_the_whole():
    picture = pictures.photograph(2)
    edge, first_is_a = _judge(picture, picture[6:-6, 8:-8], LENIENT)
    assert (edge.verdict, edge.relation) == ("accept", "cropped")
    assert edge.derived == -first_is_a


def test_a_bordered_form_is_derived_from_what_it_frames():
    picture = pictures.photograph(2)
    edge, first_is_a = _judge(_framed(picture), picture, LENIENT)
    assert (edge.verdict, edge.relation) == ("accept", "bordered")
    assert edge.derived == first_is_a


def test_a_relation_that_does_not_count_goes_to_review():
    picture = pictures.photograph(2)
    settings = dataclasses.replace(LENIENT, relations=frozenset({"reencoded"}))
    assert _judge(picture, picture[6:-6, 8:-8], settings)[0].verdict == "review"
    assert _judge(picture, pictures.jpeg(picture, 60), settings)[0].verdict == "accept"


def test_m4_forms_and_pages_filled_in_anew_are_never_accepted():
    for seed in range(4):
        for make in (pictures.form, pictures.page):
            other = make(seed + 10)
            assert _judge(make(seed), other, LENIENT)[0].verdict in ("reject", "review")
            copy = pictures.jpeg(make(seed), 70)
            assert _judge(make(seed), copy, LENIENT)[0].verdict == "accept"


@pytest.mark.parametrize("verify", [False, True])
def test_m4_low_information_is_never_accepted_on_a_key(verify):
    flat = np.full((96, 96, 3), 200, np.uint8)
    settings = dataclasses.replace(LENIENT, verify=verify)
    assert _judge(flat, flat, settings)[0].verdict == "review"
    other = np.full((96, 96, 3), (200, 60, 60), np.uint8)
    assert _judge(flat, other, settings)[0].verdict == "reject"


def test_m3_animations_are_for_a_person():
    a = _content("a", pictures.photograph(1), animated=True)
    b = _content("b", pictures.photograph(1))
    (edge,) = judge_colors([_edge(a, b)], {c.content: c for c in (a, b)}, SETTINGS)
    assert edge.verdict == "review"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("accept_similarity", lambda p: pictures.gained(p, (1.15, 1.0, 0.85))),
        ("accept_residual", lambda p: pictures.jpeg(p, 20)),
    ],
)
def test_g7_a_value_equal_to_the_threshold_passes(name, change):
    picture = pictures.photograph(4)
    strict = dataclasses.replace(SETTINGS, accept_differing=-1.0)
    low, high = (0.0, 1.0) if name == "accept_similarity" else (2.0, 0.0)
    assert _judge(picture, change(picture), dataclasses.replace(strict, **{name: low}))[
        0
    ].verdict == ("accept")
    limits = np.round(np.arange(10001) / 10000 * (high - low) + low, 4)
    verdicts = [
        _judge(picture, change(picture), dataclasses.replace(strict, **{name: float(v)}))[0].verdict
        for v in limits[:: len(limits) // 50]
    ]
    # Stricter limits accept less and less.
    assert verdicts == sorted(verdicts)
    assert verdicts[-1] == "undecided"


@pytest.mark.parametrize(("batch_size", "max_group_size"), [(4096, 500), (1, 2), (2, 3)])
def test_bounds_split_work_and_change_no_row(batch_size, max_group_size):
    contents = []
    for n in range(7):
        picture = pictures.photograph(n % 3)
        contents.append(_content(f"c{n}", picture if n < 4 else pictures.captioned(picture)))
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
        assert decided
        assert_that(out.edges, equal_to(decided), label="decided")
        left = [edge for edge in expected if edge.verdict == "undecided"]
        assert left
        assert_that(out.undecided | beam.FlatMap(lambda u: u.pairs), equal_to(left), label="left")
    for part in split_unit(unit, left, max_group_size):
        assert len(part.contents) <= max(max_group_size, 2)
        assert {e for p in part.pairs for e in (p.a, p.b)} == {c.content for c in part.contents}


def test_units_are_judged_together_and_stay_apart():
    picture = pictures.photograph(1)
    a, b = _content("a", picture), _content("b", pictures.jpeg(picture, 60))
    c, d = _content("c", picture), _content("d", pictures.captioned(picture))
    units = [PairUnit("u", b"1", [a, b], [_edge(a, b)]), PairUnit("v", b"2", [c, d], [_edge(c, d)])]
    with TestPipeline("FnApiRunner") as pipeline:
        out = pipeline | beam.Create(units, reshuffle=False) | CompareColors(SETTINGS)
        verdicts = out.edges | beam.Map(lambda keyed: (keyed[0], keyed[1].verdict))
        assert_that(verdicts, equal_to([(b"1", "accept")]), label="decided")
        left = out.undecided | beam.Map(lambda u: (u.component, len(u.contents), len(u.pairs)))
        assert_that(left, equal_to([(b"2", 2, 1)]), label="left")
        counts = out.stats | beam.Map(lambda stats: (stats.stage, stats.items_in, stats.items_out))
        assert_that(counts, equal_to([("color", 2, 1)]), label="counted")


def test_no_pairs_give_no_edges():
    assert judge_colors([], {}, SETTINGS) == []


def test_a_batch_below_one_is_refused():
    with pytest.raises(ValueError, match="batch_size"):
        CompareColors(SETTINGS, 0)
