"""The local matcher (points, robust fit, aligned comparison) as a ModelHandler."""

import functools
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import cv2
from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from transforms.features import decode_thumbnail
from transforms.imaging.alignment import Picture
from transforms.imaging.local import LocalEvidence, LocalSettings, verify
from transforms.imaging.points import LocalFeatures
from transforms.models.session import Failed
from transforms.records import LocalPair, MemberRecord
from transforms.rounds import ALIGNED_BITS
from transforms.telemetry import Timed


class MatchPair:
    """The model: two members to the evidence of their local comparison."""

    def __init__(self, settings: LocalSettings, held: int) -> None:
        """Take the settings, and how many decoded members to hold at once."""
        self.settings = settings
        self.held = held
        self._pictures: OrderedDict[bytes, Picture] = OrderedDict()

    def __call__(self, pair: LocalPair) -> LocalEvidence | Failed:
        """Return the evidence of one pair, or why OpenCV refused it."""
        try:
            return self._verify(pair)
        except cv2.error as error:
            return Failed("other", f"{str(error)!r:.200}")

    def _verify(self, pair: LocalPair) -> LocalEvidence:
        # Beyond this distance the best of the eight orientations is a matter of chance.
        aligned = pair.edge.wavelet_distance <= ALIGNED_BITS
        return verify(
            self._picture(pair.record_a),
            self._picture(pair.record_b),
            settings=self.settings,
            orientation_hint=pair.edge.orientation if aligned else None,
            # The words have seen in which sense the two match.
            mirrored=pair.edge.votes < 0 if pair.edge.votes else None,
        )

    def _picture(self, record: MemberRecord) -> Picture:
        found = self._pictures.pop(record.content, None)
        if found is None:
            decode = functools.partial(decode_thumbnail, record.thumbnail)
            found = Picture(decode, LocalFeatures.unpack(record.points))
            while len(self._pictures) >= self.held:
                self._pictures.popitem(last=False)
        self._pictures[record.content] = found
        return found


class MatcherHandler(ModelHandler[LocalPair, PredictionResult, MatchPair]):
    """Compares undecided pairs by local features."""

    def __init__(self, settings: LocalSettings, batch_size: int, held: int) -> None:
        """Take the settings, the largest batch in pairs, and how many members to hold decoded."""
        if batch_size < 1 or held < 2:
            raise ValueError(
                f"batch_size must be at least 1 and held at least 2, not {batch_size!r}, {held!r}"
            )
        super().__init__(min_batch_size=batch_size, max_batch_size=batch_size)
        self.settings = settings
        self.held = held

    def load_model(self) -> MatchPair:
        """Return the matcher."""
        cv2.setNumThreads(1)
        return MatchPair(self.settings, self.held)

    def run_inference(
        self,
        batch: Sequence[LocalPair],
        model: MatchPair,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        """Compare a batch of pairs, each by itself.

        Args:
            batch: pairs with both records.
            model: of ``load_model``.
            inference_args: none are taken.

        Yields:
            Per pair, as ``Timed``, its evidence or ``Failed``.
        """
        for pair in batch:
            yield PredictionResult(pair, Timed.call(model, pair))

    def get_num_bytes(self, batch: Sequence[LocalPair]) -> int:
        """Return the bytes that are compared; Beam would pickle all of the batch to know."""
        records = (record for pair in batch for record in (pair.record_a, pair.record_b))
        return sum(len(record.thumbnail) + len(record.points) for record in records)

    def get_metrics_namespace(self) -> str:
        """Name the metrics of stage 4."""
        return "beam_dedup_local"
