"""Stage 2 decides by colour and luma layouts alone."""

import dataclasses
import itertools
from typing import NamedTuple

import apache_beam as beam
import cv2
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.imaging import pictures
from tests.transforms.samples import key_forms, make_content, make_edge
from transforms import color as module
from transforms.color import ColorSettings, CompareColors, judge_colors
from transforms.grouping.walk import Verified, walk
from transforms.imaging.color import color_descriptor
from transforms.imaging.layout import layout
from transforms.imaging.orientation import inverse_orientation
from transforms.imaging.wavelet import wavelet_keys
from transforms.packing import PackedCandidates, pack
from transforms.records import Candidate, Content, Edge, Learned, PairUnit
from transforms.rounds import ComponentInputs, blank_edge, resume, verified
from transforms.words import words_size

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
    keys, _ = wavelet_keys(pixels)
    return make_content(name, wavelet_keys=key_forms(keys))._replace(
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


class _Pictures(NamedTuple):
    """Contents in the keep-best order, and the candidates among them."""

    contents: list[Content]
    candidates: list[Candidate]


def _candidate(first, second, bits=8, name="wavelet"):
    return Candidate(*sorted((first.content, second.content)), name, bits, 1)


def _component(name, made, *, near=lambda i, j: True):
    """Return made pictures, of which every pair is a candidate, at 8 bits or at 30."""
    contents = [_content(f"{name}{n:02d}", picture) for n, picture in enumerate(made)]
    pairs = itertools.combinations(range(len(contents)), 2)
    candidates = [_candidate(contents[i], contents[j], 8 if near(i, j) else 30) for i, j in pairs]
    return _Pictures(contents, candidates)


def _compared(pipeline, components, label="Compare", edges=(), **options):
    """Run the stage over joined components; the key of each is its number."""

    def keyed(what, kind, rows):
        create = beam.Create(list(rows), reshuffle=False).with_output_types(tuple[bytes, kind])
        return pipeline | f"{label}: {what}" >> create

    numbered = [(bytes([number]), one) for number, one in enumerate(components)]
    inputs = ComponentInputs(
        keyed("contents", Content, ((key, c) for key, one in numbered for c in one.contents)),
        keyed(
            "candidates",
            PackedCandidates,
            ((key, some) for key, one in numbered for some in pack(one.candidates)),
        ),
        [keyed("edges", Edge, edges)],
    )
    options = {"settings": SETTINGS, **options}
    return inputs.join(f"{label}: ") | label >> CompareColors(**options)


def _all(values, label):
    """Return one sorted list of all elements."""
    listed = values | f"All {label}" >> beam.combiners.ToList()
    return listed | f"Sort {label}" >> beam.Map(lambda rows: sorted(rows, key=repr))


def _counts(stats):
    return (
        stats
        | "Numbers" >> beam.Map(lambda s: np.array([s.items_in, s.items_out, s.skipped]))
        | "Add up" >> beam.CombineGlobally(sum)
        | "As a tuple" >> beam.Map(lambda numbers: tuple(np.asarray(numbers).tolist()))
    )


def _copies(number):
    """Return ``number`` copies of one picture, no two alike in every byte."""
    picture = pictures.photograph(1)
    return [picture, *(pictures.jpeg(picture, 95 - 2 * n) for n in range(number - 1))]


@pytest.mark.parametrize(("hub", "skipped"), [(None, 406), (0, 0), (1, 0)])
def test_30_copies_of_a_picture_are_settled_in_one_round_by_29_comparisons(hub, skipped):
    contents, candidates = _component("c", _copies(30))
    ids = [content.content for content in contents]
    if hub is not None:
        # A star: some generator found each copy by one of them alone.
        candidates = [c for c in candidates if ids[hub] in (c.a, c.b)]
    expected = [(b"\0", tuple(sorted((ids[0], other))), "accept") for other in ids[1:]]
    with TestPipeline("FnApiRunner") as pipeline:
        out = _compared(pipeline, [_Pictures(contents, candidates)], round_number=1, last=True)
        verdicts = out.edges | beam.Map(lambda keyed: (keyed[0], keyed[1][:2], keyed[1].verdict))
        assert_that(verdicts, equal_to(expected), label="edges")
        assert_that(out.undecided, equal_to([]), label="undecided")
        # Where the second is the hub, it is the best that nobody compared with the other 28.
        left = skipped if hub != 1 else 28
        assert_that(_counts(out.stats), equal_to([(29, 0, left)]), label="counts")
        names = out.edges | "Names" >> beam.Map(lambda keyed: keyed[1].generators)
        stars = 28 if hub == 1 else 0
        counted = names | beam.combiners.Count.PerElement()
        proposed = [("wavelet", 29 - stars), *([("star", stars)] if stars else [])]
        assert_that(counted, equal_to(proposed), label="generators")


def _mixed():
    """Return components of copies, captioned copies and other pictures."""
    one, other = pictures.photograph(1), pictures.photograph(50)
    written = [pictures.captioned(one, text) for text in ("some words", "other words", "no words")]
    return [
        _component("c", _copies(5)),
        _component(
            "m",
            [one, written[0], pictures.jpeg(one, 60), written[1], other, pictures.jpeg(other, 50),
             written[2], pictures.grey(one), pictures.captioned(other)],
            near=lambda i, j: (i + j) % 2 == 1,
        ),
        _component("p", [other, pictures.resized(other, 120, 90)]),
        _component("u", [other, pictures.captioned(other)]),
    ]  # fmt: skip


def test_units_are_of_one_component_and_name_their_contents_once():
    (_, _, _, unsure) = _mixed()
    a, b = unsure.contents
    bare = {"wavelet_keys": b"", "color": b"", "layout": b""}
    with TestPipeline("FnApiRunner") as pipeline:
        out = _compared(pipeline, [unsure], round_number=3)
        (expected,) = judge_colors([_edge(a, b)], {c.content: c for c in (a, b)}, SETTINGS)
        assert expected.verdict == "undecided"
        unit = PairUnit("00/3/0", b"\0", [a._replace(**bare), b._replace(**bare)],
                        [expected._replace(decided_by="wavelet")])  # fmt: skip
        assert_that(out.undecided, equal_to([unit]), label="undecided")
        assert_that(out.edges, equal_to([]), label="edges")


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize(
    "bounds",
    [
        {"batch_size": 1},
        {"max_group_size": 2},
        {"max_unit_size": 2},
        {"batch_size": 2, "max_group_size": 3, "max_unit_size": 3},
    ],
    ids=str,
)
def test_g2_bounds_split_work_and_change_no_edge(bounds, last):
    components = _mixed()
    least = bounds.get("max_unit_size", 500)
    with TestPipeline("FnApiRunner") as pipeline:
        usual = _compared(pipeline, components, "usual", last=last)
        bounded = _compared(pipeline, components, "bounded", last=last, **bounds)
        for name, one, two in (
            ("decided", usual.edges, bounded.edges),
            ("undecided", *(out.undecided | label >> beam.FlatMap(_pairs_of)
                            for label, out in (("usual pairs", usual), ("pairs", bounded)))),
        ):  # fmt: skip
            expected = beam.pvalue.AsSingleton(_all(one, f"{name} usual"))
            same = _all(two, f"{name} bounded") | f"Same {name}" >> beam.Map(_same, expected)
            assert_that(same, equal_to([True]), label=name)
        assert_that(bounded.undecided | beam.Map(_is_whole, least), _each_is_true, label="units")


def _pairs_of(unit):
    return [(unit.component, pair) for pair in unit.pairs]


def _same(rows, expected):
    return bool(expected) and rows == expected


def _is_whole(unit, most):
    """Return whether a unit is within its bound and names just what its pairs name."""
    ends = [end for pair in unit.pairs for end in (pair.a, pair.b)]
    names = [content.content for content in unit.contents]
    return len(names) <= most and len(set(names)) == len(names) and set(names) == set(ends)


def _each_is_true(values):
    assert values, "no units"
    assert all(values)


def test_small_components_are_judged_together(monkeypatch):
    sizes = []

    def judge(pairs, contents, settings):
        sizes.append((len(pairs), len(contents)))
        return judge_colors(pairs, contents, settings)

    monkeypatch.setattr(module, "judge_colors", judge)
    one = pictures.photograph(1)
    components = [_component(f"{n}-", [one, pictures.jpeg(one, 60)]) for n in range(20)]
    expected = [
        (bytes([n]), tuple(sorted(content.content for content in one.contents)), "accept")
        for n, one in enumerate(components)
    ]
    for most, calls in ((2000, [(20, 40)]), (10, [(5, 10)] * 4)):
        sizes.clear()
        with TestPipeline("FnApiRunner") as pipeline:
            out = _compared(pipeline, components, max_group_size=most)
            told = out.edges | beam.Map(lambda keyed: (keyed[0], keyed[1][:2], keyed[1].verdict))
            assert_that(told, equal_to(expected), label="edges")
            assert_that(_counts(out.stats), equal_to([(20, 0, 0)]), label="counts")
        assert sizes == calls


@pytest.mark.parametrize(
    ("last", "asked"), [(False, {(0, 1), (0, 2)}), (True, {(0, 1), (0, 2), (1, 2)})]
)
def test_the_last_round_asks_for_all_that_can_still_matter(last, asked):
    # Whether 1 and 2 are compared hangs on what stages 3 and 4 say of them and 0.
    one = pictures.photograph(1)
    made = [one, pictures.captioned(one, "some words"), pictures.captioned(one, "other words")]
    contents, candidates = _component("c", made)
    ids = [content.content for content in contents]
    with TestPipeline("FnApiRunner") as pipeline:
        out = _compared(pipeline, [_Pictures(contents, candidates)], last=last)
        pairs = (out.undecided | beam.FlatMap(_pairs_of), out.edges) | beam.Flatten()
        named = pairs | beam.Map(
            lambda keyed: tuple(sorted((ids.index(keyed[1].a), ids.index(keyed[1].b))))
        )
        assert_that(named, equal_to(list(asked)), label="asked")


def test_a_pair_that_an_earlier_round_answered_is_not_asked_for_again():
    one = pictures.photograph(1)
    contents, candidates = _component("c", [one, pictures.captioned(one), pictures.jpeg(one, 60)])
    a, b, c = contents
    known = [(b"\0", make_edge(a, b, "reject"))]
    with TestPipeline("FnApiRunner") as pipeline:
        out = _compared(
            pipeline, [_Pictures(contents, candidates)], edges=known, round_number=2, last=True
        )
        told = out.edges | beam.Map(lambda keyed: (keyed[1][:2], keyed[1].verdict))
        assert_that(told, equal_to([(tuple(sorted((a.content, c.content))), "accept")]))
        waiting = out.undecided | beam.FlatMap(_pairs_of) | beam.Map(lambda keyed: keyed[1][:2])
        expected = [tuple(sorted((b.content, c.content)))]
        assert_that(waiting, equal_to(expected), label="undecided")
        assert_that(_counts(out.stats), equal_to([(2, 1, 0)]), label="counts")


def test_only_a_component_that_waits_goes_on_with_what_it_knows():
    one = pictures.photograph(1)
    waits = _component("c", [one, pictures.captioned(one), pictures.jpeg(one, 60)])
    ended = _component("e", _copies(3))
    with TestPipeline("FnApiRunner") as pipeline:
        out = _compared(pipeline, [waits, ended], last=False)
        left = out.unfinished | beam.Map(
            lambda keyed: (
                keyed[0],
                [content.uri for content in resume(_left(keyed)).contents],
                verified(resume(_left(keyed))),
            )
        )
        known = {(0, 2): Verified(True, 0)}
        uris = [content.uri for content in waits.contents]
        assert_that(left, equal_to([(b"\0", uris, known)]), label="unfinished")
        waiting = out.undecided | beam.FlatMap(_pairs_of) | beam.Map(lambda keyed: keyed[1][:2])
        a, b, _ = waits.contents
        assert_that(waiting, equal_to([tuple(sorted((a.content, b.content)))]), label="undecided")
        # Of the copies one candidate is needless; the others may yet be asked for.
        assert_that(_counts(out.stats), equal_to([(4, 1, 1)]), label="counts")


def _left(keyed):
    return keyed[0], {"unfinished": [keyed[1]]}


def test_skipped_candidates_are_counted_where_the_last_round_asks_for_nothing():
    contents, candidates = _component("c", _copies(3))
    a, b, c = contents
    known = [(b"\0", make_edge(a, b)), (b"\0", make_edge(a, c))]
    with TestPipeline("FnApiRunner") as pipeline:
        out = _compared(
            pipeline, [_Pictures(contents, candidates)], edges=known, round_number=2, last=True
        )
        assert_that(out.edges, equal_to([]), label="edges")
        assert_that(_counts(out.stats), equal_to([(0, 0, 1)]), label="counts")


@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_out_changes_no_group(seed):
    rng = np.random.default_rng(seed)
    made = []
    for n in rng.integers(0, 4, 14).tolist():
        picture = pictures.photograph(n)
        changes = (pictures.captioned, pictures.grey, lambda p: pictures.jpeg(p, 50), np.copy)
        made.append(
            changes[int(rng.integers(4))](pictures.jpeg(picture, int(rng.integers(60, 95))))
        )
    one = _component("c", made, near=lambda i, j: bool((i * j + seed) % 3))
    number = {content.content: n for n, content in enumerate(one.contents)}
    settings = dataclasses.replace(SETTINGS, verify=False)

    def groups(edges):
        told = {
            tuple(sorted((number[e.a], number[e.b]))): Verified(e.verdict == "accept", 0)
            for e in edges
        }
        return walk(len(number), told)

    every = judge_colors(
        [blank_edge(candidate) for candidate in one.candidates],
        {content.content: content for content in one.contents},
        settings,
    )
    expected = groups(every)
    assert 1 < len(set(expected)) < len(expected)
    with TestPipeline("FnApiRunner") as pipeline:
        out = _compared(pipeline, [one], settings=settings)
        for left, name in ((out.edges, "edges"), (out.undecided, "undecided")):
            assert_that(left, equal_to([]), label=name)
        finished = out.finished | beam.Map(lambda joined: (joined[0], joined[1]["contents"]))
        assert_that(finished, equal_to([(b"\0", one.contents)]), label="finished")
        edges = (
            out.finished | beam.FlatMap(lambda joined: joined[1]["edges"]) | beam.combiners.ToList()
        )
        assert_that(edges | beam.Map(groups), equal_to([expected]))
        fewer = edges | beam.Map(lambda found: len(found) < len(every))
        assert_that(fewer, equal_to([True]), label="fewer")


def test_no_pairs_give_no_edges():
    assert judge_colors([], {}, SETTINGS) == []


@pytest.mark.parametrize(
    ("name", "least"), [("batch_size", 1), ("max_group_size", 2), ("max_unit_size", 2)]
)
def test_g7_a_bound_below_its_least_is_refused(name, least):
    CompareColors(SETTINGS, **{name: least})
    with pytest.raises(ValueError, match=f"{name} must be at least {least}, not {least - 1}"):
        CompareColors(SETTINGS, **{name: least - 1})


def _judge_placed(a, b, x, y, width, height, settings=SETTINGS, *, bits=90, **changes):
    """Judge a pair of which the first lies in the second at pixel (x, y) at that size."""
    first, second = _content("a", a, **changes), _content("b", b)
    (wide_a, high_a), (wide_b, high_b) = (words_size(c.width, c.height) for c in (first, second))
    scale = wide_b * width / second.width / wide_a
    shift_x = wide_b * x / second.width + 0.5 * scale - 0.5
    shift_y = high_b * y / second.height + 0.5 * scale - 0.5
    assert wide_a * high_b * height * second.width == pytest.approx(
        wide_b * high_a * width * second.height, rel=0.03
    )
    if first.content > second.content:
        scale, shift_x, shift_y = 1 / scale, -shift_x / scale, -shift_y / scale
    fixed = [round(65536 * value) for value in (scale, 0, shift_x, shift_y)]
    names = ("turn_scale_x", "turn_scale_y", "shift_x", "shift_y")
    edge = _edge(first, second, bits=bits)._replace(votes=8, **dict(zip(names, fixed, strict=True)))
    (edge,) = judge_colors([edge], {c.content: c for c in (first, second)}, settings)
    swapped = -1 if first.content > second.content else 1
    return edge.verdict, edge.relation, edge.derived * swapped


def _cut(picture):
    """Return a crop, and its x, y, width and height in the picture."""
    height, width = picture.shape[:2]
    x, y, w, h = round(0.15 * width), round(0.2 * height), round(0.7 * width), round(0.7 * height)
    return picture[y : y + h, x : x + w], (x, y, w, h)


def test_a_crop_is_accepted_where_its_words_lay_it():
    picture = pictures.photograph(3)
    crop, place = _cut(picture)
    assert _judge_placed(crop, picture, *place) == ("accept", "cropped", 1)
    assert _judge(crop, picture, bits=90)[0].verdict == "undecided"
    none = dataclasses.replace(SETTINGS, placed_differing=0.0)
    assert _judge_placed(crop, picture, *place, none) == ("undecided", "similar", 0)


def test_a_bordered_picture_is_the_derived_one():
    picture = pictures.photograph(3)
    height, width = picture.shape[:2]
    bordered = cv2.copyMakeBorder(picture, 60, 60, 80, 80, cv2.BORDER_CONSTANT, value=(9, 9, 9))
    found = _judge_placed(picture, bordered, 80, 60, width, height)
    assert found == ("accept", "bordered", -1)


def test_what_words_lay_over_another_picture_is_not_accepted():
    picture, other = pictures.photograph(3), pictures.photograph(50)
    crop, place = _cut(picture)
    assert _judge_placed(_cut(other)[0], picture, *place)[0] == "undecided"
    assert _judge_placed(crop[..., [1, 2, 0]], picture, *place)[0] == "undecided"
    assert _judge_placed(crop, picture, *place, animated=True)[0] == "review"


def test_plain_pages_that_differ_where_words_lay_them_are_rejected():
    one, other = pictures.form(1), pictures.form(2)
    crop, place = _cut(one)
    assert _judge_placed(crop, one, *place)[0] == "undecided"
    white = np.full_like(other, 255)
    rng = np.random.default_rng(0)
    for _ in range(40):
        x, y = (int(rng.integers(0, side)) for side in (one.shape[1], one.shape[0]))
        cv2.rectangle(white, (x, y), (x + 14, y + 9), (40, 40, 40), -1)
    assert _judge_placed(_cut(white)[0], one, *place)[0] == "reject"
    assert _judge_placed(_cut(white)[0], one, *place, bits=60)[0] != "accept"


def _labelled(content, label):
    learned = Learned(b"\0\0", label, 0.5 if label else 0.0, "", "", "")
    if not label:
        learned = Learned(b"", "", 0.0, "decode", "corrupt", "no pixels")
    return content._replace(learned=learned)


WITHIN = dataclasses.replace(SETTINGS, within_label=True)


def _judge_labels(first, second, settings, other=None):
    picture = pictures.photograph(1)
    a = _labelled(_content("a", picture), first)
    b = _labelled(_content("b", pictures.jpeg(picture, 40) if other is None else other), second)
    contents = {content.content: content for content in (a, b)}
    return judge_colors([_edge(a, b)], contents, settings)[0], a, b


@pytest.mark.parametrize("verify", [True, False])
def test_a_copy_of_another_label_is_rejected_before_anything_is_compared(verify):
    settings = dataclasses.replace(WITHIN, verify=verify)
    edge, a, b = _judge_labels("cat", "dog", settings)
    assert edge == _edge(a, b)._replace(verdict="reject", decided_by="global")
    same, *_ = _judge_labels("cat", "cat", settings)
    assert same == _judge_labels("cat", "cat", dataclasses.replace(SETTINGS, verify=verify))[0]
    assert same.verdict == "accept"


@pytest.mark.parametrize("verify", [True, False])
def test_a_copy_without_a_label_is_left_for_review_with_the_reason(verify):
    settings = dataclasses.replace(WITHIN, verify=verify)
    for labels in (("cat", ""), ("", "cat"), ("", "")):
        edge, a, b = _judge_labels(*labels, settings)
        assert (edge.verdict, edge.decided_by) == ("review", "global")
        # Of two failed ones, the first by id is named.
        failed = min((one for one in (a, b) if not one.learned.label), key=lambda c: c.content)
        assert edge.failed_member == failed.content
        assert (edge.error_stage, edge.error_type) == ("decode", "corrupt")
        assert edge.error_message == "no pixels"


def test_what_colours_reject_is_rejected_without_a_label_too():
    other = np.ascontiguousarray(255 - pictures.photograph(1))
    edge, *_ = _judge_labels("cat", "", WITHIN, other)
    assert (edge.verdict, edge.decided_by, edge.error_type) == ("reject", "color", "")


def test_labels_change_nothing_where_groups_may_span_them():
    edge, a, b = _judge_labels("cat", "dog", SETTINGS)
    plain = {one.content: one._replace(learned=None) for one in (a, b)}
    assert edge == judge_colors([_edge(a, b)], plain, SETTINGS)[0]
    assert edge.verdict == "accept"


def test_contents_that_were_never_embedded_are_in_no_group_within_labels():
    edge, a, b = _judge_labels("cat", "cat", WITHIN)
    assert edge.verdict == "accept"
    plain = {one.content: one._replace(learned=None) for one in (a, b)}
    edge = judge_colors([_edge(a, b)], plain, WITHIN)[0]
    assert (edge.verdict, edge.decided_by, edge.error_type) == ("review", "global", "")
