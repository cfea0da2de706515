"""The verification of a pair by its local points and an aligned comparison.

``verify`` lays one picture over the other (as a whole where an orientation is known, else by
matched points and a robust similarity transform), and compares them block by block: the normalised
cross-correlation of luma where there is texture, the tone where there is none, and the chroma.
``questions`` does the same for matches that come from elsewhere, such as a learned model.
"""

import dataclasses
from collections.abc import Generator
from typing import Final, Generic, NamedTuple, Optional, TypeVar

import numpy as np
import numpy.typing as npt

from transforms.grouping.relations import RELATIONS as ALL_RELATIONS
from transforms.imaging import orientation
from transforms.imaging.affine import (
    common_areas,
    compose,
    corner_misfit,
    keeps_shape,
    whole_transform,
)
from transforms.imaging.agreement import (
    compare_chroma,
    flat_score,
    graded,
    paper_score,
    paper_share,
    pieces_score,
)
from transforms.imaging.alignment import LEAST_TEXTURED, Picture, align, lay_frame
from transforms.imaging.points import fit_points
from transforms.imaging.relation import name_relation

__all__ = [
    "ACCEPT_SCORE",
    "RELATIONS",
    "REVIEW_SCORE",
    "Fit",
    "LocalEvidence",
    "LocalSettings",
    "Question",
    "questions",
    "verify",
]

_Doubles = npt.NDArray[np.float64]
#: A similarity transform between two pictures, float64 [2, 3], and the matches that agree with it.
Fit = tuple[_Doubles, int]
_Picture = TypeVar("_Picture", bound=Picture)
# What pixels can tell: the exact levels are decided by hashes.
RELATIONS: Final = tuple(name for name in ALL_RELATIONS if name not in ("exact", "pixels"))
ACCEPT_SCORE: Final = 0.5
REVIEW_SCORE: Final = 0.35
_FEW_INLIERS: Final = 10  # below, a fit may be chance, so that more must agree
_FEW_OVERLAP: Final = 0.85
_SURE_INLIERS: Final = 15  # points that rule out the other sense
_SAME_PLACE: Final = 1.5  # pixels at the corners; a crop that counts as one moves them by two
_BETTER: Final = 0.02  # by how much points must raise the score of the comparison as a whole
_LEAST_AREA: Final = 0.05  # share of a picture that must be common
_ALIGNED: Final = 0.85  # share of agreeing blocks that no better alignment would raise
# Each kind of evidence is scaled so that its own limit is a score of one half.
_ACCEPT_OVERLAP: Final = 0.4  # share of the textured blocks that agree
_ACCEPT_CHROMA: Final = 0.7  # 88 of 90 hue turns lie below 0.67, 0.999 of the copies above 0.77
_ACCEPT_AREA: Final = 0.6  # common share of the better covered picture: a copy lies in the other
_PAPER: Final = 0.6  # share of one ground at which the strict comparison begins


@dataclasses.dataclass(frozen=True)
class LocalSettings:
    """What ``verify`` asks of a pair.

    Attributes:
        accept_score: a pair at or above is a copy.
        review_score: a pair at or above, but below ``accept_score``, is for a person to judge.
        direct_score: at or above, the comparison as a whole is taken and points are not matched.
        min_inliers: matched points that a transform must explain.
        inlier_pixels: largest error of an inlier, pixels of the thumbnail.
    """

    accept_score: float = ACCEPT_SCORE
    review_score: float = REVIEW_SCORE
    direct_score: float = 0.85
    min_inliers: int = 6
    inlier_pixels: float = 4.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("accept_score", "review_score", "direct_score"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name} must be in 0..1, got {value!r}")
        if self.review_score > self.accept_score:
            raise ValueError(
                f"review_score must not exceed accept_score, got {self.review_score!r} > "
                f"{self.accept_score!r}"
            )
        if self.min_inliers < 3:
            raise ValueError(f"min_inliers must be at least 3, got {self.min_inliers!r}")
        if not self.inlier_pixels > 0.0:
            raise ValueError(f"inlier_pixels must be above 0, got {self.inlier_pixels!r}")


class LocalEvidence(NamedTuple):
    """What the aligned comparison of a and b found."""

    inliers: int  # matched points that agree with the transform; 0 if points were not matched
    overlap: float  # share of the textured blocks that agree, 0..1, 4 decimals
    area_a: float  # share of a that the transform lays over b
    area_b: float  # share of b that a covers
    chroma: float  # agreement of the colours, 0..1, 4 decimals
    relation: str  # one of RELATIONS
    derived: int  # +1: a is a crop, overlay or bordered form of b; -1: b of a; 0: neither
    score: float  # 0..1, 4 decimals: meets accept_score and review_score


class Question(NamedTuple, Generic[_Picture]):
    """Asks where a picture, turned, lies in another, by points that are matched."""

    a: _Picture
    b: _Picture
    turn: int  # EXIF orientation 1..8 in which a is to be matched


_NO_EVIDENCE: Final = LocalEvidence(0, 0.0, 0.0, 0.0, 0.0, "similar", 0, 0.0)


def verify(
    a: Picture,
    b: Picture,
    *,
    settings: Optional[LocalSettings] = None,
    orientation_hint: Optional[int] = None,
    mirrored: Optional[bool] = None,
) -> LocalEvidence:
    """Compare two pictures after laying one over the other.

    The two are put into a fixed order first, so that exchanging a and b (and inverting the hint)
    exchanges ``area_a`` with ``area_b``, negates ``derived`` and changes nothing else.

    Args:
        a: a picture with features.
        b: another, with features of the same kind.
        settings: what to ask; the defaults if None.
        orientation_hint: EXIF orientation 1..8 that turns a into b as a whole, or None if the two
            are not known to be aligned. It is tried first and need not be right.
        mirrored: whether b shows a mirrored, where that is known: points are matched in this sense
            alone. None tries both, that of the hint first.

    Raises:
        ValueError: if the kinds of the features differ.
    """
    settings = settings or LocalSettings()
    kinds = a.features.kind, b.features.kind
    if kinds[0] != kinds[1]:
        raise ValueError(f"features must be of one kind, got {kinds[0]!r}, {kinds[1]!r}")
    first = orientation_hint is not None and orientation.is_mirror(orientation_hint)
    senses = (first, not first) if mirrored is None else (mirrored,)
    # Points tell their own direction, so that a turn is nothing to them, but a mirror is.
    turns = tuple(2 if sense else 1 for sense in senses)
    asked = questions(a, b, turns, settings=settings, orientation_hint=orientation_hint)
    try:
        question = next(asked)
        while True:
            question = asked.send(_answer(question, settings))
    except StopIteration as done:
        evidence: LocalEvidence = done.value
        return evidence


def _answer(question: Question[Picture], settings: LocalSettings) -> Optional[Fit]:
    """Match the points of two pictures, the first as it is or mirrored."""
    of_a = question.a.mirrored if question.turn == 2 else question.a.features
    return fit_points(of_a, question.b.features, settings.min_inliers, settings.inlier_pixels)


def questions(
    a: _Picture,
    b: _Picture,
    turns: tuple[int, ...],
    *,
    settings: LocalSettings,
    orientation_hint: Optional[int] = None,
) -> Generator[Question[_Picture], Optional[Fit], LocalEvidence]:
    """Compare two pictures as ``verify`` does, but ask the caller for the matched points.

    Nothing is asked where the comparison as a whole is enough, nor once an answer is.

    Args:
        a: a picture, whose features are asked for their size alone.
        b: another.
        turns: the EXIF orientations in which a may be matched with b, likeliest first.
        settings: what to ask.
        orientation_hint: as in ``verify``.

    Yields:
        Questions. The answer to each is the transform from its first picture, turned, to its
        second one, or None if there is none.

    Returns:
        The evidence.
    """
    if _comes_first(b, a):
        hint = orientation_hint and orientation.inverse_orientation(orientation_hint)
        back = tuple(orientation.inverse_orientation(turn) for turn in turns)
        found = yield from _verify(b, a, settings, hint, back)
        return found._replace(area_a=found.area_b, area_b=found.area_a, derived=-found.derived)
    return (yield from _verify(a, b, settings, orientation_hint, turns))


def _comes_first(a: Picture, b: Picture) -> bool:
    """Return whether a is before b in an order that depends on what they show alone."""
    if a.features.size != b.features.size:
        return a.features.size < b.features.size
    for of_a, of_b in (
        (a.features.points, b.features.points),
        (a.features.descriptors, b.features.descriptors),
    ):
        bytes_a, bytes_b = of_a.tobytes(), of_b.tobytes()
        if bytes_a != bytes_b:
            return bytes_a < bytes_b
    return a.rgb.tobytes() < b.rgb.tobytes()


def _verify(
    a: _Picture,
    b: _Picture,
    settings: LocalSettings,
    hint: Optional[int],
    turns: tuple[int, ...],
) -> Generator[Question[_Picture], Optional[Fit], LocalEvidence]:
    best, whole = _NO_EVIDENCE, None
    if hint is not None:
        whole = whole_transform(a.grey.shape, b.grey.shape, hint)
        best = _compare(a, b, whole, 0, settings)
        # A mild crop agrees as a whole but for its border: its points tell it from an overlay.
        if best.score >= settings.direct_score and best.relation != "overlaid":
            return best
        if best.score < settings.review_score and best.overlap >= _ALIGNED:
            return best  # well aligned already: what differs is what the two show
    for turn in turns:
        answer = yield Question(a, b, turn)
        if answer is None:
            continue
        transform, inliers = answer
        if turn != 1:
            transform = compose(transform, orientation.matrix(turn, *a.features.size))
        if (
            whole is not None
            and best.score >= settings.accept_score
            and corner_misfit(a.features.size, transform, whole) <= _SAME_PLACE
        ):
            return best  # points say the same
        evidence = _compare(a, b, transform, inliers, settings)
        # A score that ends the pair is a bound, which no other has to exceed.
        if (
            evidence.score > best.score + _BETTER
            or best.score < settings.review_score <= evidence.score
            or best is _NO_EVIDENCE
        ):
            best = evidence
        if best.score >= settings.review_score or inliers >= _SURE_INLIERS:
            break
    return best


def _compare(
    a: Picture, b: Picture, transform: _Doubles, inliers: int, settings: LocalSettings
) -> LocalEvidence:
    """Return the evidence of one transform from a to b, the cheapest first.

    What ends below ``review_score`` is not looked at further: its score is then an upper bound.
    """
    areas = common_areas(a.grey.shape, b.grey.shape, transform)
    if min(areas) < _LEAST_AREA:
        return _NO_EVIDENCE
    frame = lay_frame(a, b, transform)
    blocks = align(frame)
    textured = int(np.count_nonzero(blocks.textured))
    inside = int(np.count_nonzero(blocks.inside))
    if not inside:
        return _NO_EVIDENCE
    overlap, chroma, moved = 0.0, 0.0, False
    if textured < LEAST_TEXTURED * max(1.0, inside / 400.0):
        score = chroma = flat_score(frame, blocks) if keeps_shape(transform) else 0.0
    else:
        overlap = float(np.count_nonzero(blocks.agree)) / textured
        score = min(graded(overlap, _ACCEPT_OVERLAP), graded(max(areas), _ACCEPT_AREA))
        if 0 < inliers < _FEW_INLIERS:
            score = min(score, graded(overlap, _FEW_OVERLAP))
        if score >= settings.review_score:
            score = min(score, pieces_score(blocks))
        if score >= settings.review_score:
            chroma, moved = compare_chroma(frame, blocks)
            score = min(score, graded(chroma, _ACCEPT_CHROMA))
        if score >= settings.review_score and paper_share(frame, blocks.inside) >= _PAPER:
            score = min(score, paper_score(frame, align(frame, 1), settings.review_score))
    relation, derived = "similar", 0
    if score >= settings.review_score:
        relation, derived = name_relation(frame, transform, areas, blocks, moved)
    return LocalEvidence(
        inliers, round(overlap, 4), round(areas[0], 4), round(areas[1], 4), round(chroma, 4),
        relation, derived, round(score, 4),
    )  # fmt: skip
