"""Verification of pairs: copies of every kind are accepted, look-alikes are not."""

import cv2
import numpy as np
import pytest

from tests.transforms.imaging import pictures
from transforms.imaging.alignment import Picture
from transforms.imaging.local import (
    ACCEPT_SCORE,
    RELATIONS,
    REVIEW_SCORE,
    LocalEvidence,
    LocalSettings,
    questions,
    verify,
)
from transforms.imaging.orientation import apply, inverse_orientation
from transforms.imaging.points import extract, fit_points, no_features


def _verify(
    a: np.ndarray, b: np.ndarray, hint: int | None = None, kind: str = "orb"
) -> LocalEvidence:
    return verify(_read(a, kind), _read(b, kind), orientation_hint=hint)


def _read(pixels: np.ndarray, kind: str = "orb") -> Picture:
    return Picture(pixels, extract(pixels, kind=kind))


def _picture(seed: int) -> np.ndarray:
    return pictures.photograph(seed, 270, 360)


def _exchanged(evidence: LocalEvidence) -> LocalEvidence:
    return evidence._replace(
        area_a=evidence.area_b, area_b=evidence.area_a, derived=-evidence.derived
    )


# ------------------------------------------------------------------------------- settings
def test_features_of_two_kinds_are_refused() -> None:
    a = _picture(0)
    with pytest.raises(ValueError, match="features must be of one kind"):
        verify(_read(a), _read(a, "sift"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("accept_score", 1.2),
        ("review_score", float("nan")),
        ("direct_score", -0.1),
        ("min_inliers", 2),
        ("inlier_pixels", 0.0),
    ],
)
def test_g7_settings_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must"):
        LocalSettings(**{name: value})  # type: ignore[arg-type]


def test_g7_review_must_not_lie_above_accept() -> None:
    with pytest.raises(ValueError, match="review_score must not exceed accept_score"):
        LocalSettings(accept_score=0.3, review_score=0.4)


# ------------------------------------------------------------------------------- copies
@pytest.mark.parametrize("hint", [1, None])
@pytest.mark.parametrize("seed", range(2))
def test_plain_copies_are_accepted(seed: int, hint: int | None) -> None:
    picture = _picture(seed)
    blurred = cv2.GaussianBlur(picture, (0, 0), 1.2)
    for copy, relation in (
        (pictures.jpeg(picture, 25), "reencoded"),
        (blurred, "reencoded"),
        (pictures.resized(picture, 180, 135), "resized"),
        (pictures.grey(picture), "recoloured"),
        (pictures.gained(picture, (1.15, 1.0, 0.84)), "recoloured"),
    ):
        evidence = _verify(picture, copy, hint)
        assert evidence.score >= ACCEPT_SCORE
        assert (evidence.relation, evidence.derived) == (relation, 0)
        assert (evidence.inliers > 0) == (hint is None)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2])
def test_a_crop_is_derived_from_the_whole(share: float) -> None:
    picture = _picture(3)
    dy, dx = round(270 * share), round(360 * share)
    crop = pictures.jpeg(np.ascontiguousarray(picture[dy : 270 - dy, dx : 360 - dx]), 85)
    evidence = _verify(crop, picture)
    assert evidence.score >= ACCEPT_SCORE
    assert (evidence.relation, evidence.derived) == ("cropped", 1)
    assert evidence.area_a == pytest.approx(1.0, abs=0.02)
    assert evidence.area_b == pytest.approx((1 - 2 * share) ** 2, abs=0.02)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (180, 40, 40)])
def test_a_bordered_picture_is_derived_from_its_inside(colour: tuple[int, int, int]) -> None:
    picture = _picture(4)
    framed = cv2.copyMakeBorder(picture, 20, 20, 45, 45, cv2.BORDER_CONSTANT, value=colour)
    evidence = _verify(pictures.jpeg(framed, 85), picture)
    assert evidence.score >= ACCEPT_SCORE
    assert (evidence.relation, evidence.derived) == ("bordered", 1)


@pytest.mark.parametrize("seed", range(3))
def test_an_overlay_is_derived_from_what_it_hides(seed: int) -> None:
    picture = _picture(seed)
    logo = picture.copy()
    logo[180:, 240:] = (200, 30, 60)
    cv2.ellipse(logo, (300, 225), (40, 30), 0, 0, 360, (55, 225, 195), -1)
    for copy in (pictures.captioned(picture), logo):
        evidence = _verify(copy, picture, 1)
        assert evidence.score >= ACCEPT_SCORE
        assert (evidence.relation, evidence.derived) == ("overlaid", 1)


@pytest.mark.parametrize("seed", range(3))
def test_a_sticker_is_derived_from_what_it_hides(seed: int) -> None:
    picture = _picture(seed)
    sticker = picture.copy()
    cv2.circle(sticker, (170, 140), 36, (250, 210, 40), -1)
    cv2.circle(sticker, (158, 130), 5, (30, 30, 30), -1)
    cv2.circle(sticker, (182, 130), 5, (30, 30, 30), -1)
    evidence = _verify(pictures.jpeg(sticker, 85), picture, 1)
    assert evidence.score >= ACCEPT_SCORE
    assert (evidence.relation, evidence.derived) == ("overlaid", 1)


@pytest.mark.parametrize(
    ("colour", "noise"),
    [((150, 180, 220), 2.0), ((150, 130, 100), 6.0), ((6, 6, 6), 2.0), ((255, 255, 255), 0.0)],
)
def test_captions_on_a_plain_ground_are_overlays(
    colour: tuple[int, int, int], noise: float
) -> None:
    picture = pictures.on_ground(11, colour, noise)
    copy = pictures.jpeg(picture, 70)
    for overlaid in (pictures.captioned(picture), pictures.lettered(picture)):
        evidence = _verify(pictures.jpeg(overlaid, 85), copy, 1)
        assert evidence.score >= ACCEPT_SCORE
        assert evidence.relation == "overlaid"


def test_another_picture_in_the_middle_is_no_sticker() -> None:
    picture, pasted = _picture(0), _picture(0)
    mask = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(mask, (180, 135), (70, 55), 0, 0, 360, 1, -1)
    pasted[mask > 0] = _picture(11)[mask > 0]
    assert _verify(pasted, picture, 1).score < ACCEPT_SCORE


@pytest.mark.parametrize("kind", ["orb", "sift"])
@pytest.mark.parametrize("value", [2, 3, 4, 5, 6, 7, 8])
def test_turns_and_mirrors_are_accepted_with_and_without_a_hint(value: int, kind: str) -> None:
    picture = _picture(5)
    turned = pictures.jpeg(apply(picture, value), 85)
    relation = "mirrored" if value in (2, 4, 5, 7) else "turned"
    for hint in (value, None):
        evidence = _verify(picture, turned, hint, kind)
        assert evidence.score >= ACCEPT_SCORE
        assert (evidence.relation, evidence.derived) == (relation, 0)


def test_a_wrong_hint_does_no_harm() -> None:
    picture = _picture(6)
    for hint in (2, 3, 6):
        assert _verify(picture, pictures.jpeg(picture, 60), hint).score >= ACCEPT_SCORE


def test_a_small_turn_is_accepted() -> None:
    picture = _picture(7)
    matrix = cv2.getRotationMatrix2D((180, 135), 4.0, 1.0)
    turned = cv2.warpAffine(picture, matrix, (360, 270))
    evidence = _verify(picture, turned)
    assert evidence.score >= ACCEPT_SCORE
    assert evidence.relation == "turned"


# ------------------------------------------------------------------------------- look-alikes
def test_other_pictures_are_rejected() -> None:
    for seed in range(6):
        for hint in (1, None):
            assert _verify(_picture(seed), _picture(seed + 10), hint).score < REVIEW_SCORE


def test_halves_of_one_picture_are_rejected() -> None:
    picture = _picture(8)
    left, right = picture[:, :172], picture[:, 188:]
    assert _verify(np.ascontiguousarray(left), np.ascontiguousarray(right)).score < REVIEW_SCORE


def test_forms_filled_in_differently_are_rejected() -> None:
    for seed in range(6):
        a, b = pictures.jpeg(pictures.form(seed), 90), pictures.jpeg(pictures.form(seed + 10), 90)
        assert _verify(a, b, 1).score < ACCEPT_SCORE
        assert _verify(a, pictures.jpeg(a, 50), 1).score >= ACCEPT_SCORE


def test_pages_with_other_letters_are_rejected() -> None:
    for seed in range(4):
        a, b = pictures.jpeg(pictures.page(seed), 90), pictures.jpeg(pictures.page(seed + 10), 90)
        assert _verify(a, b, 1).score < REVIEW_SCORE
        assert _verify(a, pictures.jpeg(a, 60), 1).score >= ACCEPT_SCORE


@pytest.mark.parametrize("noise", [0.0, 4.0])
@pytest.mark.parametrize("quality", [40, 90])
def test_cards_with_one_photograph_and_other_figures_are_rejected(
    quality: int, noise: float
) -> None:
    for seed in range(3):
        cards = []
        for figures in (seed, seed + 10):
            grain = np.random.default_rng(figures).normal(0.0, noise, (268, 384, 3))
            noisy = np.clip(pictures.card(figures, 77) + grain, 0, 255).astype(np.uint8)
            cards.append(pictures.jpeg(noisy, quality))
        assert _verify(cards[0], cards[1], 1).score < ACCEPT_SCORE
        assert _verify(cards[0], pictures.jpeg(cards[0], 50), 1).score >= ACCEPT_SCORE


@pytest.mark.parametrize("tint", [(190, 190, 190), (250, 215, 225)])
def test_forms_and_pages_on_other_paper_are_rejected(tint: tuple[int, int, int]) -> None:
    gains = (tint[0] / 255.0, tint[1] / 255.0, tint[2] / 255.0)
    for make in (pictures.form, pictures.page):
        for quality in (30, 80):
            a, b = (pictures.jpeg(pictures.gained(make(seed), gains), quality) for seed in (3, 13))
            assert _verify(a, b, 1).score < ACCEPT_SCORE


def test_pictures_in_one_frame_are_rejected() -> None:
    frames = []
    for seed in (20, 21, 22):
        frame = np.full((288, 384, 3), (12, 30, 90), np.uint8)
        frame[12:210, 96:372] = pictures.resized(_picture(seed), 276, 198)
        frame[222:264] = (200, 20, 30)
        cv2.putText(frame, "BREAKING", (12, 252), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255,) * 3, 2)
        frames.append(frame)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert _verify(frames[a], frames[b], 1).score < REVIEW_SCORE


def test_a_turned_hue_is_rejected() -> None:
    layout = _picture(9).mean(axis=2, keepdims=True) / 255.0
    red = np.clip(np.array([230, 50, 40]) * (0.3 + layout), 0, 255).astype(np.uint8)
    assert _verify(red, pictures.hue_turned(red, 120), 1).score < ACCEPT_SCORE


def test_m4_flat_pictures_are_judged_by_their_colour() -> None:
    def flat(level: int) -> np.ndarray:
        return np.full((200, 300, 3), level, np.uint8)

    assert _verify(flat(90), pictures.jpeg(flat(90), 60), 1).score >= ACCEPT_SCORE
    assert _verify(flat(90), flat(97), 1).score < REVIEW_SCORE
    assert _verify(flat(90), np.full((200, 500, 3), 90, np.uint8), 1).score < REVIEW_SCORE


def test_m4_different_grain_is_for_a_person() -> None:
    nights = [
        np.clip(np.random.default_rng(seed).normal(12, 5, (240, 320, 3)), 0, 255).astype(np.uint8)
        for seed in (0, 1)
    ]
    assert _verify(nights[0], nights[1], 1).score < ACCEPT_SCORE


# ------------------------------------------------------------------------------- contracts
def test_exchanging_a_and_b_mirrors_the_evidence() -> None:
    a = _picture(1)
    others = [
        pictures.jpeg(a, 40),
        pictures.captioned(a),
        np.ascontiguousarray(a[20:230, 30:320]),
        apply(a, 6),
        _picture(2),
        np.zeros((1, 1, 3), np.uint8),
    ]
    for b in others:
        for hint in (None, 1, 6):
            back = inverse_orientation(hint) if hint else None
            assert _verify(b, a, back) == _exchanged(_verify(a, b, hint))


def test_the_evidence_is_plain_rounded_and_in_range() -> None:
    for b in (pictures.jpeg(_picture(1), 40), _picture(2), pictures.captioned(_picture(1))):
        evidence = _verify(_picture(1), b, 1)
        assert [type(value) for value in evidence] == [
            int, float, float, float, float, str, int, float,
        ]  # fmt: skip
        for value in (evidence.overlap, evidence.area_a, evidence.chroma, evidence.score):
            assert 0.0 <= value <= 1.0
            assert value == round(value, 4)
        assert evidence.relation in RELATIONS


def test_repeated_calls_agree() -> None:
    a, b = _picture(1), np.ascontiguousarray(_picture(1)[15:250, 20:330])
    assert {_verify(a, b) for _ in range(5)} == {_verify(a, b)}


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (7, 5), (31, 40)])
def test_m5_tiny_and_thin_pictures_are_compared(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    pair = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for _ in range(2)]
    for a in (*pair, np.zeros((*shape, 3), np.uint8), _picture(0)):
        for b in pair:
            for hint in (None, 1, 6):
                assert 0.0 <= _verify(a, b, hint).score <= 1.0
    black = np.zeros((*shape, 3), np.uint8)
    assert _verify(black, black.copy(), 1).score == 1.0
    assert len(extract(pair[0]).points) == 0 or min(shape) >= 32


def test_the_sense_that_is_known_is_tried_alone() -> None:
    picture = _picture(2)
    crop = np.ascontiguousarray(picture[40:230, 50:310])
    for other, sense in ((crop, False), (np.ascontiguousarray(crop[:, ::-1]), True)):
        a, b = _read(picture), _read(other)
        assert verify(a, b).score >= ACCEPT_SCORE
        assert verify(a, b, mirrored=sense).score >= ACCEPT_SCORE
        assert verify(a, b, mirrored=not sense).score == 0.0


def test_a_picture_is_decoded_when_its_pixels_are_needed() -> None:
    decoded = []

    def decode(name: str, pixels: np.ndarray) -> np.ndarray:
        decoded.append(name)
        return pixels

    first, second = _picture(1), _picture(2)
    a = Picture(lambda: decode("a", first), extract(first))
    b = Picture(lambda: decode("b", second), extract(second))
    copy = Picture(lambda: decode("copy", first), extract(first))
    assert verify(a, b, mirrored=False).score < REVIEW_SCORE
    assert decoded == []
    assert verify(a, copy, mirrored=False).score >= ACCEPT_SCORE
    assert verify(a, copy, mirrored=False).score >= ACCEPT_SCORE
    assert sorted(decoded) == ["a", "copy"]


@pytest.mark.parametrize("seed", range(3))
def test_points_tell_a_mild_crop_from_an_overlay(seed: int) -> None:
    picture = _picture(seed)
    crop = np.ascontiguousarray(picture[8:262, 10:350])
    evidence = _verify(crop, picture, 1)
    assert evidence.score >= ACCEPT_SCORE
    assert (evidence.relation, evidence.derived) == ("cropped", 1)
    assert evidence.inliers > 0
    # Nothing but what they confirm is taken from points that lie where the whole does.
    overlaid = _verify(pictures.captioned(picture), picture, 1)
    assert (overlaid.relation, overlaid.inliers) == ("overlaid", 0)


def test_what_ends_below_review_is_bounded_from_above() -> None:
    everything = LocalSettings(review_score=0.0)
    for seed in range(4):
        a, b = _read(_picture(seed)), _read(_picture(seed + 10))
        bound = verify(a, b, orientation_hint=1)
        exact = verify(a, b, orientation_hint=1, settings=everything)
        assert exact.score <= bound.score < REVIEW_SCORE
        assert exact.overlap == bound.overlap
    form, other = pictures.jpeg(pictures.form(0), 90), pictures.jpeg(pictures.form(10), 90)
    bound = verify(_read(form), _read(other), orientation_hint=1)
    exact = verify(_read(form), _read(other), orientation_hint=1, settings=everything)
    assert exact.score <= bound.score < ACCEPT_SCORE


def test_settings_have_an_effect() -> None:
    picture = _picture(2)
    a = _read(picture)
    b = _read(np.ascontiguousarray(picture[40:230, 50:310]))
    assert verify(a, b).score >= ACCEPT_SCORE
    assert verify(a, b, settings=LocalSettings(min_inliers=250)).score == 0.0
    copy = _read(pictures.jpeg(picture, 30))
    assert verify(a, copy, orientation_hint=1).inliers == 0
    direct = LocalSettings(direct_score=1.0)
    assert verify(a, copy, orientation_hint=1, settings=direct).inliers in (0, *range(6, 201))
    loose = verify(a, b, settings=LocalSettings(inlier_pixels=9))
    tight = verify(a, b, settings=LocalSettings(inlier_pixels=0.5))
    assert loose.inliers > tight.inliers
    # What the scores mean is the caller's: review_score alone changes when a relation is named.
    named = verify(a, copy, orientation_hint=1)
    strict = LocalSettings(accept_score=1.0, review_score=1.0)
    unnamed = verify(a, copy, orientation_hint=1, settings=strict)
    assert named.relation == "reencoded"
    assert unnamed.relation == ("reencoded" if named.score == 1.0 else "similar")


# ------------------------------------------------------------------------------- questions
def _unread(pixels: np.ndarray) -> Picture:
    return Picture(pixels, no_features(pixels.shape[1], pixels.shape[0]))


@pytest.mark.parametrize("turn", [1, 3, 5, 6, 7, 8])
def test_a_caller_may_match_the_points_itself(turn: int) -> None:
    picture = _picture(2)
    crop = apply(np.ascontiguousarray(picture[40:230, 50:310]), turn)
    shown = inverse_orientation(turn)
    for a, b, turns in ((crop, picture, (shown,)), (picture, crop, (turn,))):
        asked = questions(_unread(a), _unread(b), turns, settings=LocalSettings())
        question = next(asked)
        assert question.turn in (turn, shown)
        of_a, of_b = (
            extract(pixels) for pixels in (apply(question.a.rgb, question.turn), question.b.rgb)
        )
        with pytest.raises(StopIteration) as done:
            asked.send(fit_points(of_a, of_b, 6, 4.0))
        evidence: LocalEvidence = done.value.value
        assert evidence.score >= ACCEPT_SCORE
        assert (evidence.relation, evidence.derived) == ("cropped", 1 if a is crop else -1)


def test_nothing_is_asked_where_the_whole_is_enough_or_no_turn_is_left() -> None:
    picture, settings = _picture(2), LocalSettings()
    copy = pictures.jpeg(picture, 40)
    for b, hint, turns in ((copy, 1, (1, 2)), (_picture(12), None, ())):
        asked = questions(
            _unread(picture), _unread(b), turns, settings=settings, orientation_hint=hint
        )
        with pytest.raises(StopIteration) as done:
            next(asked)
        assert (done.value.value.score >= ACCEPT_SCORE) == (b is copy)


def test_without_an_answer_the_next_turn_is_asked() -> None:
    a, b = _unread(_picture(2)), _unread(_picture(12))
    asked = questions(a, b, (1, 2, 3), settings=LocalSettings())
    assert next(asked).turn == 1
    assert [asked.send(None).turn, asked.send(None).turn] == [2, 3]
    with pytest.raises(StopIteration) as done:
        asked.send(None)
    assert done.value.value.score == 0.0
