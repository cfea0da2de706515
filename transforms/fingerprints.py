"""Stage 1: one read and one reduced decode of each image.

In: ``ImageRef``. Out: ``Fingerprint``, or ``FailedImage`` for what gives no bytes or no pixels.
Guarantee: every input leaves by exactly one of the two outputs; transient errors raise.
"""

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

import apache_beam as beam
import cv2

from transforms.grouping.rank import RankFacts, encode_rank
from transforms.imaging.color import color_descriptor
from transforms.imaging.decode import DecodeLimits, decode
from transforms.imaging.errors import ImageError
from transforms.imaging.quality import measure
from transforms.imaging.wavelet import wavelet_keys
from transforms.outputs import several_outputs
from transforms.records import FailedImage, Failure, Fingerprint, ImageRef, StageStats
from transforms.storage import StorageError, read_bytes
from transforms.telemetry import STATS, MeteredDoFn

STAGE = "fingerprint"
# The shorter side of the decode that all of stage 1 works on: at a quarter of a photograph of
# 500x375 pixels, the cheapest libjpeg scale that still shows sharpness and noise.
MIN_SIDE = 94


class Fingerprints(NamedTuple):
    """The outputs of ``ComputeFingerprints``."""

    fingerprints: beam.PCollection[Fingerprint]
    failed: beam.PCollection[FailedImage]
    stats: beam.PCollection[StageStats]


def fingerprint(ref: ImageRef, data: bytes, limits: DecodeLimits) -> Fingerprint:
    """Measure one image.

    Args:
        ref: the input object.
        data: all its bytes.
        limits: what the decoder may spend.

    Returns:
        Its fingerprint.

    Raises:
        ImageError: if the bytes give no pixels within the limits.
    """
    decoded = decode(data, path=ref.path, min_side=MIN_SIDE, limits=limits)
    info = decoded.info
    keys, texture = wavelet_keys(decoded.pixels)
    quality = measure(decoded.pixels, info)
    rank = encode_rank(
        RankFacts(
            pixels=info.width * info.height,
            effective_pixels=quality.effective_pixels,
            lossless=info.lossless,
            jpeg_origin=info.jpeg_origin,
            jpeg_quality=info.jpeg_quality,
            sharpness=quality.sharpness,
            exif_fields=info.exif_fields,
            captured=info.captured,
            input_index=ref.input_index,
            size_bytes=ref.size_bytes,
            below=ref.below,
            uri=ref.uri,
        )
    )
    return Fingerprint(
        ref=ref,
        format=info.format,
        width=info.width,
        height=info.height,
        frames=info.frames,
        sha256=hashlib.sha256(data).digest(),
        pixel_hash=decoded.pixel_hash,
        wavelet_keys=keys.tobytes(),
        color=color_descriptor(decoded.pixels).tobytes(),
        texture=round(float(texture), 4),
        sharpness=round(quality.sharpness, 4),
        contrast=round(quality.contrast, 4),
        brightness=round(quality.brightness, 4),
        noise=round(quality.noise, 4),
        quality_score=round(quality.score, 4),
        rank=rank,
    )


class _FingerprintDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, limits: DecodeLimits) -> None:
        self.limits = limits

    def setup(self) -> None:
        # The runner's workers are the parallelism; OpenCV's own threads would fight them.
        cv2.setNumThreads(1)

    def process(
        self, ref: ImageRef
    ) -> Iterator[Fingerprint | beam.pvalue.TaggedOutput[Literal["failed"], FailedImage]]:
        data = None
        with self.meter.work():
            result: Fingerprint | FailedImage
            try:
                data = read_bytes(ref.uri, self.limits.max_image_bytes, ref.size_bytes)
                self.meter.bytes_read += len(data)
                result = fingerprint(ref, data, self.limits)
                self.meter.items_out += 1
            except (StorageError, ImageError) as error:
                # The header may have told more than the pixels did.
                known = error if isinstance(error, ImageError) else None
                stage = "decode" if known else "read"
                self.meter.failed += 1
                result = FailedImage(
                    ref=ref,
                    failure=Failure(stage, ref.uri, error.error_type, error.message),
                    format=known.format if known else None,
                    width=known.width if known else None,
                    height=known.height if known else None,
                    sha256=None if data is None else hashlib.sha256(data).digest(),
                )
        if isinstance(result, FailedImage):
            yield beam.pvalue.TaggedOutput("failed", result)
        else:
            yield result


@dataclasses.dataclass(eq=False)
class ComputeFingerprints(beam.PTransform):
    """Read and measure each image once.

    Attributes:
        limits: what the decoder may spend on one image.
    """

    limits: DecodeLimits = dataclasses.field(default_factory=DecodeLimits)

    def __post_init__(self) -> None:
        super().__init__()

    @several_outputs
    def expand(self, refs: beam.PCollection[ImageRef]) -> Fingerprints:
        """Turn ``ImageRef`` elements into fingerprints and failures."""
        out = refs | "Read and measure" >> (
            beam.ParDo(_FingerprintDoFn(self.limits))
            .with_output_types(Fingerprint, failed=FailedImage, stats=StageStats)
            .with_outputs("failed", STATS, main="fingerprints")
        )
        return Fingerprints(out.fingerprints, out.failed, out[STATS])
