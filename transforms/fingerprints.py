"""Stage 1: one read and one reduced decode of each image.

In: ``ImageRef``. Out: ``Fingerprint``, or ``FailedImage`` for what gives no bytes or no pixels.
Guarantee: every input leaves by exactly one of the two outputs; transient errors raise.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import apache_beam as beam
import cv2
import numpy as np
import numpy.typing as npt
from apache_beam.utils.windowed_value import WindowedValue

from transforms.access import LOCAL, Access
from transforms.grouping.bands import compact
from transforms.grouping.rank import RankFacts, encode_rank, rank_of_copy
from transforms.imaging.blocks import block_means
from transforms.imaging.color import color_descriptors
from transforms.imaging.decode import DecodeLimits, ImageInfo, decode, reduction
from transforms.imaging.errors import ImageError
from transforms.imaging.layout import layouts
from transforms.imaging.orientation import axes
from transforms.imaging.quality import Quality, histograms, measure_batch
from transforms.imaging.wavelet import KEY_BITS, grey_thumbnails, wavelet_signs
from transforms.imaging.words import word_rows
from transforms.outputs import in_global_window, several_outputs
from transforms.records import FailedImage, Failure, Fingerprint, ImageRef, StageStats
from transforms.storage.errors import StorageError
from transforms.storage.reads import Read, ReadAhead, Wanted
from transforms.telemetry import STATS, MeteredDoFn

STAGE = "fingerprint"
# The shorter side of the decode that all of stage 1 works on: at a quarter of photographs of
# 500x375 and 500x333 pixels, the cheapest libjpeg scale that still shows sharpness and noise.
MIN_SIDE = 80
# The same where words are wanted: half of such a photograph.
WORDS_MIN_SIDE = 133
# Images measured together: enough that Python's and numpy's share of the work is small, and few
# enough samples (bytes) to hold.
_BATCH_IMAGES = 64
_TIMED_IMAGES = 16  # read in one piece of work: to ask for a thread's CPU time is a system call
_BATCH_SAMPLES = 16 << 20
# Fingerprints that a bundle remembers for exact copies, 1.5 KB each and up to 6 KB with words.
_KNOWN_IMAGES = 4096


class Fingerprints(NamedTuple):
    """The outputs of ``ComputeFingerprints``."""

    fingerprints: beam.PCollection[Fingerprint]
    failed: beam.PCollection[FailedImage]
    stats: beam.PCollection[StageStats]


class ReadImage(NamedTuple):
    """One image that was read and decoded, and still is to be measured."""

    ref: ImageRef
    info: ImageInfo
    sha256: bytes
    pixel_hash: bytes
    pixels: npt.NDArray[np.uint8]  # [h, w, 3] RGB, reduced
    words: bytes  # see ``Fingerprint``


def read_image(
    ref: ImageRef, data: bytes, limits: DecodeLimits, *, words: bool, digest: bytes = b""
) -> ReadImage:
    """Decode one image.

    Args:
        ref: the input object.
        data: all its bytes.
        limits: what the decoder may spend.
        words: whether to take local words, which need a larger decode.
        digest: the SHA-256 of the bytes, where the caller has it.

    Returns:
        What there is to measure.

    Raises:
        ImageError: if the bytes give no pixels within the limits.
    """
    side = WORDS_MIN_SIDE if words else MIN_SIDE
    digest = digest or hashlib.sha256(data).digest()
    decoded = decode(data, path=ref.path, min_side=side, limits=limits, digest=digest)
    rows, pixels = b"", _trimmed(decoded.pixels, decoded.info, side)
    if words:
        rows, pixels = word_rows(decoded.pixels).tobytes(), _halved(pixels)
    return ReadImage(ref, decoded.info, digest, decoded.pixel_hash, pixels, rows)


def fingerprint(
    ref: ImageRef, data: bytes, limits: DecodeLimits, *, words: bool = False
) -> Fingerprint:
    """Decode and measure one image; see ``read_image`` and ``fingerprints``.

    Raises:
        ImageError: if the bytes give no pixels within the limits.
    """
    return fingerprints([read_image(ref, data, limits, words=words)])[0]


def fingerprints(images: Sequence[ReadImage]) -> list[Fingerprint]:
    """Measure a batch of images, each as if it were alone.

    Args:
        images: any number.

    Returns:
        Their fingerprints, in order.
    """
    if not images:
        return []
    pixels = [image.pixels for image in images]
    greys = [np.asarray(cv2.cvtColor(each, cv2.COLOR_RGB2GRAY), np.uint8) for each in pixels]
    signs, textures = wavelet_signs(grey_thumbnails(greys))
    plain = np.packbits(signs[:, :KEY_BITS], axis=1)
    both_forms = np.concatenate([plain, compact(signs)], axis=1)
    counts = histograms(greys)
    return [
        _fingerprint(*each)
        for each in zip(
            images,
            both_forms,
            textures.tolist(),
            color_descriptors(pixels),
            layouts(greys, counts),
            measure_batch(greys, counts, [image.info for image in images]),
            strict=True,
        )
    ]


def _fingerprint(
    image: ReadImage,
    keys: npt.NDArray[np.uint8],
    texture: float,
    color: npt.NDArray[np.uint8],
    luma: npt.NDArray[np.uint8],
    quality: Quality,
) -> Fingerprint:
    ref, info = image.ref, image.info
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
        sha256=image.sha256,
        pixel_hash=image.pixel_hash,
        wavelet_keys=keys.tobytes(),
        color=color.tobytes(),
        layout=luma.tobytes(),
        words=image.words,
        texture=texture,
        sharpness=quality.sharpness,
        contrast=quality.contrast,
        brightness=quality.brightness,
        noise=quality.noise,
        quality_score=quality.score,
        rank=rank,
    )


def _trimmed(
    pixels: npt.NDArray[np.uint8], info: ImageInfo, min_side: int
) -> npt.NDArray[np.uint8]:
    """Leave out the last row and column of a reduced decode that lie outside for the most part.

    Reduced sizes are rounded up, so that the first and the last pixel of a side are not alike, and
    a turned copy lies up to a pixel beside its original. Rounded sizes halve that.
    """
    scale = reduction(info.width, info.height, min_side)
    height, width = max(round(info.height / scale), 1), max(round(info.width / scale), 1)
    if pixels.shape[:2] == (height, width):
        return pixels
    # JPEG is turned after it is reduced.
    turn = info.orientation if info.format in ("JPEG", "MPO") else 1
    _, flip_y, flip_x = axes(turn)
    top, left = (pixels.shape[0] - height) * flip_y, (pixels.shape[1] - width) * flip_x
    return pixels[top : top + height, left : left + width]


def _halved(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return pixels reduced by the factor that ``MIN_SIDE`` alone would have given."""
    height, width = pixels.shape[:2]
    return block_means(pixels, reduction(width, height, MIN_SIDE))


def _output(
    result: Fingerprint | FailedImage, windowed: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Return what a DoFn yields to give a result."""
    if isinstance(result, FailedImage):
        return beam.pvalue.TaggedOutput("failed", windowed(result))
    return windowed(result)


class _FingerprintDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, limits: DecodeLimits, words: bool, access: Access) -> None:
        self.limits = limits
        self.words = words
        self.access = access

    def setup(self) -> None:
        # The runner's workers are the parallelism; OpenCV's own threads would fight them.
        cv2.setNumThreads(1)

    def start_bundle(self) -> None:
        super().start_bundle()
        self.reads: ReadAhead[ImageRef] = ReadAhead(self.access, self.limits.max_image_bytes)
        self.batch: list[ReadImage] = []
        self.pixels = 0  # held by the batch
        self.known: dict[bytes, Fingerprint] = {}  # by SHA-256, the oldest first

    def process(
        self, ref: ImageRef
    ) -> Iterator[Fingerprint | beam.pvalue.TaggedOutput[Literal["failed"], FailedImage]]:
        self.reads.add(ref, Wanted(ref.uri, ref.size_bytes, ref.etag))
        while self.reads.is_full:
            for result in self._results(_TIMED_IMAGES):
                yield _output(result)

    def finish_bundle(
        self,
    ) -> Iterator[
        WindowedValue
        | beam.pvalue.TaggedOutput[Literal["failed"], FailedImage]
        | beam.pvalue.TaggedOutput[Literal["stats"], StageStats]
    ]:
        while len(self.reads):
            for result in self._results(_TIMED_IMAGES):
                yield _output(result, in_global_window)
        for result in self._measured():
            yield _output(result, in_global_window)
        self.reads.close()
        yield from super().finish_bundle()

    def _results(self, most: int) -> Iterator[Fingerprint | FailedImage]:
        """Take images that were to be read; what is measured goes on in batches."""
        for result in self._read_some(most):
            if not isinstance(result, ReadImage):
                yield result
                continue
            self.batch.append(result)
            self.pixels += result.pixels.size
            if len(self.batch) >= _BATCH_IMAGES or self.pixels >= _BATCH_SAMPLES:
                yield from self._measured()

    def _read_some(self, most: int) -> list[ReadImage | Fingerprint | FailedImage]:
        """Read on until there are so many, or as much is held as is measured together."""
        results: list[ReadImage | Fingerprint | FailedImage] = []
        pixels = self.pixels
        with self.meter.work() as work:
            for _ in range(min(most, len(self.reads))):
                results.append(self._read(*self.reads.take()))
                if isinstance(results[-1], ReadImage):
                    pixels += results[-1].pixels.size
                if pixels >= _BATCH_SAMPLES:
                    break
            work.work(len(results))  # as many as it turned out to be
        return results

    def _read(self, ref: ImageRef, read: Read) -> ReadImage | Fingerprint | FailedImage:
        digest, data = None, read.data
        self.meter.cpu_us += read.cpu_us
        try:
            if read.error:
                raise read.error
            self.meter.bytes_read += len(data)
            digest = hashlib.sha256(data).digest()
            if measured := self.known.get(digest):
                # All that was measured follows from the bytes.
                self.meter.items_out += 1
                return measured._replace(ref=ref, rank=rank_of_copy(measured.rank, ref))
            return read_image(ref, data, self.limits, words=self.words, digest=digest)
        except (StorageError, ImageError) as error:
            # The header may have told more than the pixels did.
            known = error if isinstance(error, ImageError) else None
            self.meter.failed += 1
            return FailedImage(
                ref=ref,
                failure=Failure(
                    "decode" if known else "read", ref.uri, error.error_type, error.message
                ),
                format=known.format if known else None,
                width=known.width if known else None,
                height=known.height if known else None,
                sha256=digest,
            )

    def _measured(self) -> list[Fingerprint]:
        """Measure and empty the batch."""
        with self.meter.work(0):
            measured = fingerprints(self.batch)
            self.meter.items_out += len(measured)
            self.batch, self.pixels = [], 0
            for image in measured:
                if len(self.known) >= _KNOWN_IMAGES:
                    del self.known[next(iter(self.known))]
                self.known[image.sha256] = image
        return measured


@dataclasses.dataclass(eq=False)
class ComputeFingerprints(beam.PTransform):
    """Read and measure each image once.

    Attributes:
        limits: what the decoder may spend on one image.
        words: whether to take the local words that ``ProposeByWords`` matches.
        access: how stores are reached.
    """

    limits: DecodeLimits = dataclasses.field(default_factory=DecodeLimits)
    words: bool = False
    access: Access = LOCAL

    def __post_init__(self) -> None:
        super().__init__()

    @several_outputs
    def expand(self, refs: beam.PCollection[ImageRef]) -> Fingerprints:
        """Turn ``ImageRef`` elements into fingerprints and failures."""
        out = refs | "Read and measure" >> (
            beam.ParDo(_FingerprintDoFn(self.limits, self.words, self.access))
            .with_output_types(Fingerprint, failed=FailedImage, stats=StageStats)
            .with_outputs("failed", STATS, main="fingerprints")
        )
        return Fingerprints(out.fingerprints, out.failed, out[STATS])
