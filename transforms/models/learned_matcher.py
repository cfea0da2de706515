"""A learned matcher as a ModelHandler: pairs in, the evidence of their aligned comparison out.

The comparison is that of points (``imaging.local``); the model gives no more than the matches, and
only of the pairs that the comparison as a whole leaves open. Those of one batch are matched
together, in the likeliest orientation of each first.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Final, Optional

import cv2
import numpy as np
import numpy.typing as npt
from apache_beam.ml.inference.base import PredictionResult

from transforms.features import decode_thumbnail, make_thumbnail
from transforms.imaging import orientation
from transforms.imaging.alignment import Picture
from transforms.imaging.local import Fit, LocalEvidence, LocalSettings, Question, questions
from transforms.imaging.points import fit_matches, no_features
from transforms.models.learned import LearnedHandler
from transforms.models.matches import LoadMatcher, Matches, View
from transforms.models.session import Failed, Session
from transforms.models.spec import Execution, LocalModel
from transforms.records import Edge, LocalPair, MemberRecord
from transforms.rounds import ALIGNED_BITS
from transforms.telemetry import Timed

_Points = npt.NDArray[np.float32]
# Pixels of the longer side of what is compared: every limit of imaging.local was tuned on it.
_COMPARED_SIDE: Final = 256
# Of RANSAC: matches of a learned model have no turn and size of their own, which would rule out
# false ones first; where 15 % agree, 100 tries would miss them in one case of ten.
_TRIES: Final = 1000
_STRONGEST: Final = 512  # matches that a transform is made of; all are asked in the end
# Parts of a pixel to which matches are rounded: what batches of other sizes change is far less.
_PARTS: Final = 16
# A turn by words is to the nearest quarter: EXIF orientations by clockwise quarter turns.
_QUARTERS: Final = (1, 6, 3, 8)


class Member(Picture):
    """A decoded member: what is compared, and the larger picture that the matcher sees."""

    def __init__(self, record: MemberRecord) -> None:
        """Decode a record."""
        self.content = record.content
        self.large = decode_thumbnail(record.thumbnail)
        small = make_thumbnail(self.large, _COMPARED_SIDE)
        super().__init__(small, no_features(small.shape[1], small.shape[0]))

    def view(self, turn: int) -> View:
        """Return what the matcher sees of it, turned by an EXIF orientation."""
        pixels = self.large if turn == 1 else orientation.apply(self.large, turn)
        return View(self.content + bytes([turn]), pixels)

    def scaled(self, points: _Points, turn: int) -> _Points:
        """Return points of a view as points of the compared picture, turned alike."""
        (height, width), (large_height, large_width) = self.grey.shape, self.large.shape[:2]
        scale = np.array([width / large_width, height / large_height], np.float32)
        if orientation.axes(turn)[0]:
            scale = scale[::-1]
        return np.asarray((points + np.float32(0.5)) * scale - np.float32(0.5), np.float32)


class LearnedMatcherHandler(LearnedHandler[LocalPair]):
    """Compares undecided pairs by matches of a learned model."""

    def __init__(
        self,
        model: LocalModel,
        execution: Execution,
        settings: LocalSettings,
        batch_size: int,
        held: int,
    ) -> None:
        """Take the model.

        Args:
            model: a learned one.
            execution: where it runs.
            settings: what is asked of a pair.
            batch_size: the most pairs of one batch.
            held: members that are held decoded, at least 2.
        """
        if held < 2:
            raise ValueError(f"held must be at least 2, not {held!r}")
        where = " and ".join(repr(one.path) for one in model.weights)
        super().__init__(LoadMatcher(model), execution, f"{model.name!r} of {where}", batch_size)
        self.settings = settings
        self.held = held
        self._members: OrderedDict[bytes, Member] = OrderedDict()

    def run_inference(
        self,
        batch: Sequence[LocalPair],
        model: Session[Any, Any],
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        """Compare a batch of pairs.

        Args:
            batch: pairs with both records, which hold no points.
            model: of ``load_model``.
            inference_args: none are taken.

        Returns:
            Per pair, as ``Timed``, its evidence, or ``Failed``. What the model took is shared out
            evenly among those that were matched.

        Raises:
            ModelError: the model cannot be loaded.
        """
        started = time.time_ns()
        running = [_Running(pair, self.settings) for pair in batch]
        asking = [(one, asked) for one in running if (asked := one.begin(self._member))]
        matched = [one for one, _ in asking]
        while asking:
            answers = model([(a.view(turn), b.view(1)) for _, (a, b, turn) in asking])
            asking = [
                (one, further)
                for (one, asked), answer in zip(asking, answers, strict=True)
                if (further := one.take(asked, answer))
            ]
        told = model.take()
        ended = time.time_ns()
        self.publish(batch, (ended - started) // 1000, told)
        for one in matched:
            one.cpu_ns += told.cpu_us * 1000 // len(matched)
        timed = [
            Timed(one.result, started // 1000, ended // 1000, one.cpu_ns // 1000) for one in running
        ]
        timed[0] = timed[0]._replace(halvings=told.halvings, batch_limit=told.limit)
        return [PredictionResult(*pair) for pair in zip(batch, timed, strict=True)]

    def get_num_bytes(self, batch: Sequence[LocalPair]) -> int:
        """Return the bytes of the batch's thumbnails; Beam would pickle all of it to know."""
        return sum(len(pair.record_a.thumbnail) + len(pair.record_b.thumbnail) for pair in batch)

    def get_metrics_namespace(self) -> str:
        """Name the metrics of stage 4."""
        return "beam_dedup_local"

    def _member(self, record: MemberRecord) -> Member:
        found = self._members.pop(record.content, None) or Member(record)
        while len(self._members) >= self.held:
            self._members.popitem(last=False)
        self._members[record.content] = found
        return found


class _Running:
    """The comparison of one pair, which halts where it needs matches."""

    def __init__(self, pair: LocalPair, settings: LocalSettings) -> None:
        self.pair = pair
        self.settings = settings
        self.result: LocalEvidence | Failed | None = None
        self.cpu_ns = 0
        self._asked: Generator[Question[Member], Optional[Fit], LocalEvidence]

    def begin(self, member: Callable[[MemberRecord], Member]) -> Optional[Question[Member]]:
        """Go on to the first question, or to the result."""
        return self._work(lambda: self._first(member))

    def take(self, asked: Question[Member], answer: Matches | Failed) -> Optional[Question[Member]]:
        """Take the matches and go on to the next question, or to the result."""
        if isinstance(answer, Failed):
            self.result = answer
            return None
        return self._work(lambda: self._asked.send(_fit(asked, answer, self.settings)))

    def _first(self, member: Callable[[MemberRecord], Member]) -> Question[Member]:
        edge = self.pair.edge
        self._asked = questions(
            member(self.pair.record_a),
            member(self.pair.record_b),
            turns_of(edge),
            settings=self.settings,
            orientation_hint=edge.orientation if _is_aligned(edge) else None,
        )
        return next(self._asked)

    def _work(self, step: Callable[[], Question[Member]]) -> Optional[Question[Member]]:
        """Take a step; a pair that OpenCV or the codec refuses fails by itself."""
        started = time.thread_time_ns()
        try:
            return step()
        except StopIteration as done:
            self.result = done.value
        except (cv2.error, ValueError) as error:
            self.result = Failed("other", f"{str(error)!r:.200}")
        finally:
            self.cpu_ns += time.thread_time_ns() - started
        return None


def _fit(asked: Question[Member], matches: Matches, settings: LocalSettings) -> Optional[Fit]:
    """Return the transform that matches agree on, between the pictures as they are compared."""
    if not (np.isfinite(matches.a).all() and np.isfinite(matches.b).all()):
        raise ValueError("the model gave places that are no numbers")
    points_a = _rounded(asked.a.scaled(matches.a, asked.turn))
    points_b = _rounded(asked.b.scaled(matches.b, 1))
    likely = np.zeros(len(points_a), np.bool_)
    likely[np.argsort(-matches.confidence, kind="stable")[:_STRONGEST]] = True
    least, pixels = settings.min_inliers, settings.inlier_pixels
    return fit_matches(points_a, points_b, least, pixels, likely, _TRIES)


def turns_of(edge: Edge) -> tuple[int, ...]:
    """Return the EXIF orientations in which a is shown to the matcher, likeliest first.

    Learned matchers know pictures that stand upright. The keys tell the turn of two pictures that
    are alike as a whole, the words that of parts, and whether it is mirrored. Where neither does,
    both senses are tried, not turned.
    """
    if _is_aligned(edge):
        turn = edge.orientation
    else:
        angle = math.atan2(edge.turn_scale_y, edge.turn_scale_x)
        turn = _QUARTERS[round(angle / (0.5 * math.pi)) % 4]
    if edge.votes and orientation.is_mirror(turn) != (edge.votes < 0):
        turn = _flipped(turn)
    return (turn,) if edge.votes else (turn, _flipped(turn))


def _is_aligned(edge: Edge) -> bool:
    # Beyond this distance the best of the eight orientations is a matter of chance.
    return edge.wavelet_distance <= ALIGNED_BITS


def _flipped(turn: int) -> int:
    """Return an orientation followed by a flip from left to right."""
    return (turn - 1 ^ 1) + 1


def _rounded(points: _Points) -> _Points:
    return np.asarray(np.rint(points * _PARTS) / _PARTS, np.float32)
