"""Tests of the learned matcher: true matches give the right evidence, and no pair is lost."""

import dataclasses
import itertools
import math
import pickle
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.imaging.pictures import captioned, jpeg
from tests.transforms.models import matched
from tests.transforms.models.matched import FAKE, install, pair, scaled, whole, words
from transforms.imaging.local import ACCEPT_SCORE, REVIEW_SCORE, LocalEvidence, LocalSettings
from transforms.local_features import LocalThresholds, VerifyLocals
from transforms.models.learned_matcher import LearnedMatcherHandler, turns_of
from transforms.models.matches import Matches, View
from transforms.models.session import Failed
from transforms.models.spec import Execution, LocalModel
from transforms.records import LocalPair

CPU = Execution("cpu")


_names = itertools.count()


def fresh() -> LocalModel:
    """Return a model that no other test has: the last of a process is kept, with its limits."""
    return dataclasses.replace(FAKE, name=f"fake {next(_names)}")


def verified(*pairs: LocalPair, held: int = 9, **settings: Any) -> list[LocalEvidence | Failed]:
    handler = LearnedMatcherHandler(fresh(), CPU, LocalSettings(**settings), 8, held)
    results = list(handler.run_inference(list(pairs), handler.load_model()))
    assert [result.example for result in results] == list(pairs)
    return [result.inference.value for result in results]


def accepted(evidence: LocalEvidence | Failed, relation: str, derived: int) -> bool:
    assert isinstance(evidence, LocalEvidence)
    return evidence.score >= ACCEPT_SCORE and (evidence.relation, evidence.derived) == (
        relation,
        derived,
    )


# ------------------------------------------------------------------------------- copies
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_crop_in_any_orientation_is_found(monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    picture = whole(3)
    crop = picture.cropped(60, 70, 180, 230).turned(turn)
    matcher, (a, b) = install(monkeypatch, crop, picture)
    mirrored = turn in (2, 4, 5, 7)
    (evidence,) = verified(pair(a, b, **words(crop, mirrored=mirrored)))
    assert accepted(evidence, "cropped", 1)
    assert isinstance(evidence, LocalEvidence)
    assert evidence.inliers > 100
    assert evidence.area_b == pytest.approx(180 * 230 / (matched.HEIGHT * matched.WIDTH), abs=0.02)
    assert matcher.calls in ([[turn]], [[{6: 8, 8: 6}.get(turn, turn)]])


@pytest.mark.parametrize("turn", [2, 3, 6, 8])
def test_the_keys_say_how_a_picture_is_turned(monkeypatch: pytest.MonkeyPatch, turn: int) -> None:
    picture = whole(4)
    matcher, (a, b) = install(monkeypatch, picture, picture.turned(turn))
    # As a whole the two agree, so that nothing is asked but where everything is.
    (evidence,) = verified(pair(a, b, wavelet_distance=3, orientation=turn))
    assert accepted(evidence, "mirrored" if turn == 2 else "turned", 0)
    assert matcher.calls == []
    (evidence,) = verified(pair(a, b, wavelet_distance=3, orientation=turn), direct_score=1.0)
    assert accepted(evidence, "mirrored" if turn == 2 else "turned", 0)


def test_a_mirrored_part_is_found_in_the_second_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = whole(5)
    crop = picture.cropped(20, 90, 200, 250).turned(2)
    matcher, (a, b) = install(monkeypatch, crop, picture)
    (evidence,) = verified(pair(a, b))
    assert accepted(evidence, "cropped", 1)
    assert matcher.calls == [[1], [2]]


def test_places_are_those_of_the_compared_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    # Compared at 256 pixels, matched at 384 and at 200.
    picture = whole(6)
    small = scaled(picture.cropped(48, 64, 200, 256), 200 / 256)
    _, (a, b) = install(monkeypatch, small, picture)
    (evidence,) = verified(pair(a, b, votes=5, turn_scale_x=65536))
    assert accepted(evidence, "cropped", 1)
    assert isinstance(evidence, LocalEvidence)
    assert evidence.overlap >= 0.97


def test_exchanging_a_and_b_mirrors_the_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = whole(7)
    for turn in (1, 6, 5):
        other = picture.cropped(30, 40, 220, 280).turned(turn)
        _, (a, b) = install(monkeypatch, other, picture)
        back = {6: 8}.get(turn, turn)
        there, again = (
            verified(pair(*ends, wavelet_distance=59, orientation=shown))[0]
            for ends, shown in (((a, b), back), ((b, a), turn))
        )
        assert isinstance(there, LocalEvidence)
        assert there.score >= ACCEPT_SCORE
        exchanged = there._replace(area_a=there.area_b, area_b=there.area_a, derived=-there.derived)
        assert again == exchanged


def test_other_pictures_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher, (a, b) = install(monkeypatch, whole(8), whole(9))
    far, near = verified(pair(a, b), pair(a, b, wavelet_distance=40))
    for evidence in (far, near):
        assert isinstance(evidence, LocalEvidence)
        assert evidence.score < REVIEW_SCORE
    assert matcher.calls == [[1, 1], [2, 2]]


# ------------------------------------------------------------------------------- what is asked
def test_only_what_the_whole_leaves_open_is_matched(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = whole(1)
    copy = dataclasses.replace(picture, pixels=jpeg(picture.pixels, 40))
    crop = picture.cropped(60, 70, 180, 230)
    matcher, (a, b, c) = install(monkeypatch, picture, copy, crop)
    near: dict[str, Any] = {"wavelet_distance": 2, "orientation": 1}
    results = verified(
        pair(a, b, **near), pair(c, a, votes=7, turn_scale_x=65536), pair(b, a, **near),
        pair(c, b, votes=7, turn_scale_x=65536),
    )  # fmt: skip
    assert all(isinstance(one, LocalEvidence) and one.score >= ACCEPT_SCORE for one in results)
    assert matcher.calls == [[1, 1]]


def test_without_an_open_pair_no_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = whole(2)
    copy = dataclasses.replace(picture, pixels=jpeg(picture.pixels, 60))
    matcher, (a, b) = install(monkeypatch, picture, copy)
    (evidence,) = verified(pair(a, b, wavelet_distance=0, orientation=1))
    assert accepted(evidence, "reencoded", 0)
    assert (matcher.loaded, matcher.calls) == ([], [])


def test_what_points_would_say_the_same_of_stays_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = whole(3)
    overlaid = dataclasses.replace(picture, pixels=captioned(picture.pixels))
    matcher, (a, b) = install(monkeypatch, overlaid, picture)
    (evidence,) = verified(pair(a, b, wavelet_distance=9, orientation=1))
    assert accepted(evidence, "overlaid", 1)
    assert isinstance(evidence, LocalEvidence)
    assert (matcher.calls, evidence.inliers) == ([[1]], 0)


@pytest.mark.parametrize(
    ("changes", "turns"),
    [
        ({}, (1, 2)),
        ({"wavelet_distance": 5, "orientation": 6}, (6, 5)),
        ({"wavelet_distance": 5, "orientation": 7}, (7, 8)),
        ({"wavelet_distance": 5, "orientation": 6, "votes": 4}, (6,)),
        ({"wavelet_distance": 5, "orientation": 1, "votes": -4}, (2,)),
        ({"orientation": 6, "votes": 4, "turn_scale_x": 50_000, "turn_scale_y": 9_000}, (1,)),
        ({"votes": 4, "turn_scale_x": -9_000, "turn_scale_y": 50_000}, (6,)),
        ({"votes": 4, "turn_scale_x": -50_000, "turn_scale_y": -9_000}, (3,)),
        ({"votes": 4, "turn_scale_x": 9_000, "turn_scale_y": -50_000}, (8,)),
        ({"votes": -4, "turn_scale_x": 9_000, "turn_scale_y": 50_000}, (5,)),
        ({"votes": -4, "turn_scale_x": -50_000, "turn_scale_y": 0}, (4,)),
    ],
)
def test_turns_are_told_by_keys_and_words(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, int], turns: tuple[int, ...]
) -> None:
    _, (a, b) = install(monkeypatch, whole(1), whole(2))
    assert turns_of(pair(a, b, **changes).edge) == turns


# ------------------------------------------------------------------------------- failures
def test_p12_r10_a_pair_on_which_the_model_fails_goes_to_review_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = whole(1)
    crop, bad = picture.cropped(60, 70, 180, 230), whole(2)
    matcher, (a, b, c) = install(monkeypatch, crop, picture, bad, fault=ValueError("no\nmore"))
    matcher.bad = c.content
    told: dict[str, int] = {"votes": 7, "turn_scale_x": 65536}
    pairs = [pair(a, b, **told), pair(c, b, **told), pair(b, a, **told)]
    handler = LearnedMatcherHandler(fresh(), CPU, LocalSettings(), 8, 9)
    thresholds = LocalThresholds(ACCEPT_SCORE, REVIEW_SCORE, frozenset({"cropped"}))
    with TestPipeline("FnApiRunner") as pipeline:
        edges = pipeline | beam.Create(pairs) | VerifyLocals(handler, thresholds)
        shown = edges.edges | beam.Map(
            lambda edge: (edge[1].a, edge[1].verdict, edge[1].error_type, edge[1].error_message)
        )
        assert_that(
            shown,
            equal_to(
                [
                    (a.content, "accept", "", ""),
                    (b.content, "accept", "", ""),
                    (c.content, "review", "other", "ValueError: no"),
                ]
            ),
        )


def test_r11_a_batch_too_large_for_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    matcher, records = install(monkeypatch, whole(1), whole(2), whole(3))
    call = matcher._match

    def tight(self: Any, pairs: Any) -> list[Matches]:
        matcher.calls.append([len(pairs)])
        if len(pairs) > 1:
            raise MemoryError
        return [call(one) for one in pairs]

    monkeypatch.setattr(type(matcher), "__call__", tight)
    a, b, c = records
    results = verified(pair(a, b, votes=3), pair(a, c, votes=3), pair(b, c, votes=3))
    assert all(isinstance(one, LocalEvidence) for one in results)
    assert matcher.calls == [[3], [1], [1], [1]]


def test_a_thumbnail_that_cannot_be_decoded_fails_its_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    picture = whole(1)
    _, (a, b, c) = install(monkeypatch, picture.cropped(60, 70, 180, 230), picture, whole(2))
    broken = c._replace(thumbnail=b"no picture")
    good, bad = verified(pair(a, b, votes=5, turn_scale_x=65536), pair(a, broken))
    assert accepted(good, "cropped", 1)
    assert isinstance(bad, Failed)
    assert bad.error_type == "other"
    assert "cannot be decoded" in bad.message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_m7_places_that_are_no_numbers_fail_the_pair(
    monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    matcher, (a, b) = install(monkeypatch, whole(1).cropped(9, 9, 200, 300), whole(1))
    call = matcher._match

    def broken(self: Any, pairs: Any) -> list[Matches]:
        found = [call(one) for one in pairs]
        found[0].b[3] = value
        return found

    monkeypatch.setattr(type(matcher), "__call__", broken)
    told = {"votes": 5, "turn_scale_x": 65536}
    bad, good = verified(pair(a, b, **told), pair(b, a, **told))
    assert bad == Failed("other", "'the model gave places that are no numbers'")
    assert accepted(good, "cropped", -1)


# ------------------------------------------------------------------------------- contracts
def test_what_is_held_and_how_pairs_are_batched_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    members = [whole(1), whole(2)]
    members += [one.cropped(40, 50, 200, 260).turned(turn) for one in members for turn in (1, 6)]
    _, records = install(monkeypatch, *members)
    pairs = [
        pair(a, b) for number, a in enumerate(records) for b in records[number + 1 :]
    ]  # fmt: skip
    together = verified(*pairs, held=2)
    assert together == [verified(one)[0] for one in pairs]


def test_the_handler_travels_and_is_named_after_its_stage() -> None:
    handler = LearnedMatcherHandler(FAKE, CPU, LocalSettings(), 8, 9)
    other = pickle.loads(pickle.dumps(handler))  # noqa: S301 - made here
    assert other.loader == handler.loader
    assert handler.get_metrics_namespace() == "beam_dedup_local"
    assert handler.batch_elements_kwargs() == {"min_batch_size": 1, "max_batch_size": 8}
    shared = Execution("cpu", shared=True, job="run-1")
    assert (
        LearnedMatcherHandler(FAKE, shared, LocalSettings(), 8, 9).identifier
        == "beam_dedup_local-run-1"
    )


def test_bytes_and_time_of_a_batch_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (a, b) = install(monkeypatch, whole(1), whole(2))
    handler = LearnedMatcherHandler(fresh(), CPU, LocalSettings(), 8, 9)
    batch = [pair(a, b), pair(b, a)]
    assert handler.get_num_bytes(batch) == 2 * (len(a.thumbnail) + len(b.thumbnail))
    timed = [one.inference for one in handler.run_inference(batch, handler.load_model())]
    assert all(one.started_us <= one.ended_us and one.cpu_us > 0 for one in timed)


def test_fewer_than_two_held_members_are_refused() -> None:
    with pytest.raises(ValueError, match="held must be at least 2, not 1"):
        LearnedMatcherHandler(FAKE, CPU, LocalSettings(), 8, 1)


def test_the_made_up_matcher_tells_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = whole(1)
    crop = picture.cropped(10, 20, 200, 300)
    matcher, (a, b) = install(monkeypatch, crop, picture)
    views = (View(a.content + b"\x01", crop.pixels), View(b.content + b"\x01", picture.pixels))
    ((of_a, of_b, confidence),) = matcher([views])
    good = confidence > 0.5
    steps = of_b[good] - of_a[good]
    assert abs(steps.mean(axis=0) - [20, 10]).max() < 0.2
