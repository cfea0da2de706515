"""The one decoder of all stages: bytes in, reduced RGB pixels, facts and a pixel hash out.

Formats are told by content: JPEG, MPO, PNG and APNG, WebP, GIF, BMP, TIFF, AVIF, HEIC. Everything
else is refused before a decoder sees it. Rules:

* Of an animation, a multi-page TIFF, an MPO or a HEIF collection the pixels are those of the first
  (HEIF: the primary) frame; ``frames`` counts all of them and the pixel hash covers all of them.
* Transparent pixels are composited on mid grey (128), so that neither black nor white drawings on
  a transparent ground vanish.
* Deeper samples are scaled to 8 bits, never clipped; see ``_to_8_bits``.
* Orientation is that of EXIF (TIFF: of the file itself; AVIF and HEIC: of the container, as their
  standards say). Orientation in XMP is not looked at.
* Files that stop before their end marker are ``truncated``, even if no pixel is missing. Damage
  within a JPEG that has its end marker is invisible here: libjpeg only warns, Pillow drops that.
* Plain JPEG is decoded by simplejpeg, plain PNG (inflated by ISA-L) and WebP by OpenCV, to the
  pixels that Pillow has. All else, and what those do not take, is Pillow's to decode or to refuse.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import math
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, cast

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from transforms.imaging.containers import (
    PLAIN_HEAD,
    Container,
    JpegContainer,
    MetadataBudget,
    inspect,
)
from transforms.imaging.errors import ImageError
from transforms.imaging.exif import ExifFacts, read_exif, xmp_facts
from transforms.imaging.orientation import apply
from transforms.imaging.origin import ijg_quality, shows_jpeg_grid
from transforms.imaging.png import stored
from transforms.imaging.sniff import (
    classify_unidentified,
    describe,
    looks_like_image_name,
    sniff,
)

__all__ = [
    "DecodeLimits",
    "Decoded",
    "ImageInfo",
    "classify_unidentified",
    "decode",
    "looks_like_image_name",
    "reduction",
]

# What decoders raise on bad data, from 13,103 odd files (FAULTS.md, P17) and from their sources:
# KeyError and OverflowError (TIFF), EOFError (frames), AssertionError (Pillow's own checks),
# RuntimeError (libheif), zlib.error (PNG), ZeroDivisionError (rationals). OSError holds
# UnidentifiedImageError; no file is read here, so it never stands for a fault of the machine.
DECODER_ERRORS: Final = (
    OSError,
    ValueError,
    IndexError,
    KeyError,
    SyntaxError,
    TypeError,
    NotImplementedError,
    struct.error,
    EOFError,
    AssertionError,
    OverflowError,
    ZeroDivisionError,
    RuntimeError,
    zlib.error,
    ImageCms.PyCMSError,
    Image.DecompressionBombError,
    MemoryError,
)

# The plugins that may open a file that looks like the key; the rest of Pillow is never imported.
_PLUGINS: Final = {
    "JPEG": (JpegImagePlugin.JpegImageFile.format,),
    "MPO": (JpegImagePlugin.JpegImageFile.format,),
    "PNG": (PngImagePlugin.PngImageFile.format,),
    "GIF": (GifImagePlugin.GifImageFile.format,),
    "WEBP": (WebPImagePlugin.WebPImageFile.format,),
    "BMP": (BmpImagePlugin.BmpImageFile.format,),
    "TIFF": (TiffImagePlugin.TiffImageFile.format,),
    "AVIF": (AvifImagePlugin.AvifImageFile.format,),
    "HEIF": ("HEIF",),
}
_CUT_SHORT: Final = ("truncated", "not enough image data", "unexpected end", "end of file", "eof")
_GROUND: Final = (128, 128, 128)  # what transparent pixels show
_SCALES: Final = (8, 4, 2)  # libjpeg's cheap reductions; other formats follow them
_BAND_BYTES: Final = 1 << 22  # pixels are hashed in bands of about this size
_PLAIN_BYTES: Final = 1 << 26  # of pixels, up to which OpenCV decodes a plain picture
_AS_STORED: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# A palette of more colours than this is taken for a photograph that was reduced to it.
_DRAWN_COLOURS: Final = 128
_JPEG_MODES: Final = {1: "L", 3: "RGB", 4: "CMYK"}  # by the number of components
_PASSES: Final = 16  # scans times pixels that a JPEG may ask for, in units of max_pixels
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class DecodeLimits:
    """What the decoder may spend on one image; beyond it the image fails, the job goes on.

    Attributes:
        max_image_bytes: size of the file.
        max_pixels: width times height of any frame; a picture of just so many passes. The default
            is where Pillow itself refuses: 179 megapixels, 0.8 GB decoded, 2.5 GB in a WebP
            animation.
        max_frames: frames of an animation, pages of a TIFF.
        max_animation_pixels: pixels of all frames together, all of which are hashed.
        max_metadata_bytes: EXIF, XMP, ICC, texts and TIFF fields together, inflated.
        max_seconds: wall time, looked at between frames.
    """

    max_image_bytes: int = 256 * 1024 * 1024
    max_pixels: int = 178_956_970
    max_frames: int = 10_000
    max_animation_pixels: int = 500_000_000
    max_metadata_bytes: int = 64 * 1024 * 1024
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise ValueError(
                    f"{field.name} must be greater than 0, got {value!r}; leave it out for the "
                    f"default of {field.default!r}"
                )


class ImageInfo(NamedTuple):
    """Facts of one image.

    Attributes:
        format: as Pillow names it; ``MPO`` for a JPEG with further pictures.
        mode: as Pillow names it, of the decoded first frame, before any conversion.
        width: pixels, after orientation.
        height: pixels, after orientation.
        orientation: 1..8, what EXIF asked for and was done.
        frames: 1 for a still image.
        lossless: whether the file keeps the pixels that its encoder was given. A palette of more
            than 128 used colours counts as lossy, since the picture was reduced to it.
        jpeg_quality: 1..100 from the luminance table, by libjpeg's scale; None but for JPEG.
        chroma_subsampled: None where unknown or where there is no chroma.
        exif_fields: statements of the metadata: EXIF fields, XMP properties, texts, comments.
        captured: DateTimeOriginal as ``YYYY-MM-DDTHH:MM:SS``, or None.
        warnings: what was odd but did not prevent decoding; one line each.
        jpeg_origin: whether the pixels of a lossless file show the grid of a JPEG.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    frames: int
    lossless: bool
    jpeg_quality: int | None
    chroma_subsampled: bool | None
    exif_fields: int
    captured: str | None
    warnings: tuple[str, ...]
    jpeg_origin: bool


class Decoded(NamedTuple):
    """One decoded image.

    Attributes:
        info: its facts.
        pixel_hash: 32 bytes; empty if it was not asked for.
        pixels: uint8 [h, w, 3] RGB, contiguous, oriented, reduced by 1, 2, 4 or 8.
    """

    info: ImageInfo
    pixel_hash: bytes
    pixels: npt.NDArray[np.uint8]


def decode(
    data: bytes,
    *,
    path: str = "",
    min_side: int,
    limits: DecodeLimits | None = None,
    with_hash: bool = True,
    digest: bytes = b"",
) -> Decoded:
    """Decode one image at a reduced size.

    The reduction is the largest of 8, 4, 2 and 1 that leaves the shorter side, rounded up, at
    ``min_side`` or more and is no larger than that side.

    The pixel hash of a JPEG covers its bytes without APPn and COM segments (of a sequential file,
    those before its only scan) but with ``PLAIN_HEAD``, orientation, colour transform and ICC
    profile; that of other formats covers mode, size and all pixels of all frames after orientation
    (not their durations), with the ICC profile. Palettes are expanded first. Where Pillow drops
    bits (colour deeper than 8 bits), it covers the compressed data too.

    Args:
        data: the file.
        path: its path or URI, which only words the error of bytes that are no known image.
        min_side: pixels that the shorter side keeps, where the image has them.
        limits: what may be spent; the defaults if None.
        with_hash: whether to compute the hash, which needs every frame.
        digest: the SHA-256 of the file, where the caller has it.

    Returns:
        Pixels, facts and hash, the same for the same bytes.

    Raises:
        ImageError: if the bytes give no pixels within the limits.
        ValueError: if ``min_side`` is less than 1.
    """
    if min_side < 1:
        raise ValueError(f"min_side must be at least 1, got {min_side!r}")
    limits = limits or DecodeLimits()
    if len(data) > limits.max_image_bytes:
        raise ImageError(
            "too_large", f"{len(data)} bytes are more than the limit of {limits.max_image_bytes}"
        )
    name = sniff(data)
    if name is None:
        raise ImageError(classify_unidentified(data, path), describe(data))
    container = None
    try:
        container = inspect(
            name, data, MetadataBudget(limits.max_metadata_bytes), limits.max_frames
        )
        _check_size(container, limits)
        if isinstance(container, JpegContainer):
            pixel_hash = _jpeg_hash(container, digest) if with_hash else b""
            return _decode_jpeg(container, min_side, limits, pixel_hash)
        return _decode_other(container, min_side, limits, with_hash)
    except ImageError as error:
        if error.format is not None:
            raise
        # The walk of the headers ended before it could tell a size; the name is known.
        raise ImageError(error.error_type, error.message, error.stage, format=name) from error
    except DECODER_ERRORS as error:
        raise _as_image_error(error, name, container) from error


def _as_image_error(error: BaseException, name: str, container: Container | None) -> ImageError:
    text = f"{name}: {error or type(error).__name__}"
    if isinstance(error, MemoryError):
        kind, text = "out_of_memory", f"{name}: not enough memory to decode it"
    elif isinstance(error, Image.DecompressionBombError):
        kind = "too_large"
    elif isinstance(error, UnidentifiedImageError):
        kind, text = "unidentified", f"{name}: its decoder does not take it"
    elif isinstance(error, EOFError) or any(part in str(error).lower() for part in _CUT_SHORT):
        kind = "truncated"
    else:
        kind = "other"
    if container is None or not container.width:
        return ImageError(kind, text, format=name)
    return ImageError(
        kind, text, format=container.format, width=container.width, height=container.height
    )


def _check_size(container: Container, limits: DecodeLimits) -> None:
    pixels = container.width * container.height
    scans = container.scans if isinstance(container, JpegContainer) else 1
    if pixels > limits.max_pixels:
        what = f"{container.width}x{container.height} pixels are more than {limits.max_pixels}"
    elif container.frames > limits.max_frames:
        what = f"{container.frames} frames are more than {limits.max_frames}"
    elif container.frames > 1 and container.total_pixels > limits.max_animation_pixels:
        what = f"{container.frames} frames hold more than {limits.max_animation_pixels} pixels"
    elif scans * pixels > _PASSES * limits.max_pixels:
        what = f"{scans} scans of {container.width}x{container.height} pixels"
    else:
        return
    raise ImageError(
        "too_large",
        what,
        format=container.format,
        width=container.width,
        height=container.height,
    )


# Pillow's process-wide settings ------------------------------------------------------------------


class _Quiet:
    """Silences Pillow's warnings, and lifts its own limit where the caller's is higher.

    Both are settings of the process. The depth is counted, so that threads that overlap restore
    what the first of them found.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._restore = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self, max_pixels: int) -> Iterator[None]:
        with self._lock:
            if self._depth == 0:
                self._restore.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"(PIL|pi_heif)(\.|$)")
                self._restore.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
            self._depth += 1
            # Pillow refuses above twice this number.
            if Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS < max_pixels:
                Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    self._restore.close()


_quiet: Final = _Quiet()


@functools.cache
def _register_heif() -> None:
    # Only here: its libraries take longer to load than ten JPEG to decode.
    import pi_heif

    # One thread an image: the runner's workers are the parallelism, as for AVIF in _open.
    pi_heif.register_heif_opener(
        decode_threads=1, thumbnails=False, depth_images=False, aux_images=False
    )


def _open(container: Container) -> Image.Image:
    if container.format == "HEIF":
        _register_heif()
    elif container.format == "AVIF":
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    return Image.open(io.BytesIO(container.body), formats=_PLUGINS[container.format])


# JPEG --------------------------------------------------------------------------------------------


def _decode_jpeg(
    container: JpegContainer, min_side: int, limits: DecodeLimits, pixel_hash: bytes
) -> Decoded:
    scale = reduction(container.width, container.height, min_side)
    pixels = _plain_jpeg_pixels(container, scale)
    if pixels is None:
        pixels = _any_jpeg_pixels(container, scale, limits)
    layers, exif = container.layers, container.exif
    if exif.orientation != 1:
        pixels = apply(pixels, exif.orientation)
    width, height = container.width, container.height
    if exif.orientation > 4:
        width, height = height, width
    return Decoded(
        ImageInfo(
            format=container.format,
            mode=_JPEG_MODES[len(layers)],
            width=width,
            height=height,
            orientation=exif.orientation,
            frames=container.frames,
            lossless=False,
            jpeg_quality=ijg_quality(container.tables.get(layers[0][3], ())),
            chroma_subsampled=_is_subsampled(layers),
            exif_fields=exif.fields + container.facts,
            captured=exif.captured,
            warnings=exif.warnings,
            jpeg_origin=False,
        ),
        pixel_hash,
        pixels,
    )


def _plain_jpeg_pixels(container: JpegContainer, scale: int) -> npt.NDArray[np.uint8] | None:
    """Return RGB pixels of a plain JPEG that has no fault, else None: Pillow judges the others.

    The pixels are Pillow's, as both ask libjpeg-turbo the same, but take a fifth less time.
    """
    width, height = -(-container.width // scale), -(-container.height // scale)
    # Of a smaller picture some other scale may give as many pixels.
    if not container.plain or max(container.width, container.height) < 8:
        return None
    reduced = {} if scale == 1 else {"min_width": width, "min_height": height}
    try:
        pixels = simplejpeg.decode_jpeg(container.body, "RGB", **reduced)
    except ValueError:  # whatever libjpeg warns of
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def _any_jpeg_pixels(
    container: JpegContainer, scale: int, limits: DecodeLimits
) -> npt.NDArray[np.uint8]:
    bomb = Image.MAX_IMAGE_PIXELS
    if bomb is not None and container.width * container.height > bomb:
        with _quiet(limits.max_pixels):
            opened = _open(container)
    else:
        opened = _open(container)
    image = cast(JpegImagePlugin.JpegImageFile, opened)
    with image:
        if scale > 1:
            image.draft(None, (container.width // scale, container.height // scale))
        # One read: Pillow otherwise copies what is left of each 64 KB to the next.
        image.decodermaxblock = max(len(container.body), 1)
        return np.array(image if image.mode == "RGB" else image.convert("RGB"), np.uint8)


def reduction(width: int, height: int, min_side: int) -> int:
    """Return by what ``decode`` reduces a picture: 8, 4, 2 or 1.

    Args:
        width: of the picture, pixels.
        height: of the same.
        min_side: pixels that the shorter side keeps, where the picture has them.
    """
    shorter = min(width, height)
    for scale in _SCALES:
        if shorter >= scale and -(-shorter // scale) >= min_side:
            return scale
    return 1


def _is_subsampled(layers: Sequence[tuple[int, int, int, int]]) -> bool | None:
    if len(layers) < 3:
        return None
    (_, across, down, _), (_, a, b, _), (_, c, d, _) = layers[:3]
    return min(a, c) < across or min(b, d) < down


def _jpeg_hash(container: JpegContainer, digest: bytes) -> bytes:
    if not (digest and container.bare):
        bare = hashlib.sha256(PLAIN_HEAD)
        for piece in container.kept:
            bare.update(piece)
        digest = bare.digest()
    head = b"JPEG\0" + bytes((container.exif.orientation,)) + container.salt
    return hashlib.sha256(head + hashlib.sha256(container.icc).digest() + digest).digest()


# Everything else ---------------------------------------------------------------------------------


def _decode_other(
    container: Container, min_side: int, limits: DecodeLimits, with_hash: bool
) -> Decoded:
    deadline = time.monotonic() + limits.max_seconds
    pixels = _plain_pixels(container)
    with (
        _quiet(limits.max_pixels),
        _open(container) if pixels is None else Image.fromarray(pixels) as image,
    ):
        container = _complete(container, image)
        _check_size(container, limits)
        exif = container.exif
        turn = 1 if container.format == "TIFF" else exif.orientation  # Pillow turns TIFF itself
        image.load()
        mode = image.mode
        lossless = container.lossless and not _is_reduced_palette(image)
        first = _oriented(image, turn)
        if first is image and container.frames > 1:
            first = image.copy()  # the next frame is drawn over this one
        pixel_hash = b""
        if with_hash:
            stored = pixels if first is image else None
            pixel_hash = _pixel_hash(container, image, first, stored, turn, deadline)
        reduced = _reduced(first, min_side)
        return Decoded(
            ImageInfo(
                format=container.format,
                mode=mode,
                width=first.width,
                height=first.height,
                orientation=exif.orientation,
                frames=container.frames,
                lossless=lossless,
                jpeg_quality=None,
                chroma_subsampled=True if container.format == "WEBP" and not lossless else None,
                exif_fields=exif.fields + container.facts,
                captured=exif.captured,
                warnings=exif.warnings,
                jpeg_origin=lossless and shows_jpeg_grid(_luma(first)),
            ),
            pixel_hash,
            np.array(_to_rgb(reduced)),
        )


def _plain_pixels(container: Container) -> npt.NDArray[np.uint8] | None:
    """Return RGB pixels of a plain PNG or WebP that has no fault, else None, as for JPEG."""
    size = container.height, container.width, 3
    # Pillow needs two copies less of a large picture.
    if not container.plain or math.prod(size) > _PLAIN_BYTES:
        return None
    body = container.body
    if container.format == "PNG":
        body = stored(body, container.height * (1 + 3 * container.width)) or body
    try:
        pixels = cv2.imdecode(np.frombuffer(body, np.uint8), _AS_STORED)
    except cv2.error:
        return None
    # None for whatever the decoder does not take.
    return np.asarray(pixels, np.uint8) if pixels is not None and pixels.shape == size else None


def _complete(container: Container, image: Image.Image) -> Container:
    """Add what only the decoder knows: size and metadata of AVIF and HEIC, the size of others."""
    frames = container.frames or int(getattr(image, "n_frames", 1))
    width, height = image.size
    exif, facts, icc = container.exif, container.facts, container.icc
    if container.format in ("AVIF", "HEIF"):
        # pi_heif has turned the pixels already; of AVIF Pillow writes the container's turn here.
        exif = read_exif(image.info.get("exif"))
        if container.format == "HEIF":
            exif = ExifFacts(1, exif.fields, exif.captured, exif.warnings)
        facts = xmp_facts(image.info.get("xmp") or b"")
        icc = image.info.get("icc_profile") or b""
    return dataclasses.replace(
        container,
        width=max(width, container.width if container.frames > 1 else 0),
        height=max(height, container.height if container.frames > 1 else 0),
        frames=frames,
        total_pixels=max(container.total_pixels, width * height * frames),
        exif=exif,
        facts=facts,
        icc=icc,
    )


def _is_reduced_palette(image: Image.Image) -> bool:
    if image.mode != "P":
        return False
    return sum(count > 0 for count in image.histogram()) > _DRAWN_COLOURS


def _oriented(image: Image.Image, orientation: int) -> Image.Image:
    """Return a frame with its palette and transparent colour expanded, turned upright."""
    mode = image.mode
    if mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif "transparency" in image.info and mode in ("1", "L", "RGB"):
        image = image.convert("RGBA" if mode == "RGB" else "LA")
    elif mode == "1":
        image = image.convert("L")
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _pixel_hash(
    container: Container,
    image: Image.Image,
    first: Image.Image,
    stored: npt.NDArray[np.uint8] | None,
    turn: int,
    deadline: float,
) -> bytes:
    digest = hashlib.sha256(b"pixels\0")
    digest.update(struct.pack("<I", container.frames))
    digest.update(hashlib.sha256(container.icc).digest())
    digest.update(hashlib.sha256(container.salt).digest())
    shown = image.tell()
    _hash_frame(digest, first, stored)
    for frame in range(container.frames):
        if frame == shown:
            continue
        if time.monotonic() > deadline:
            raise ImageError("timeout", f"{frame} of {container.frames} frames took all the time")
        image.seek(frame)
        image.load()
        _hash_frame(digest, _oriented(image, turn))
    return digest.digest()


def _hash_frame(
    digest: "hashlib._Hash", frame: Image.Image, stored: npt.NDArray[np.uint8] | None = None
) -> None:
    width, height = frame.size
    digest.update(f"{frame.mode} {width} {height}\0".encode("ascii"))
    if stored is not None:  # what Pillow would gather
        digest.update(stored.data)
        return
    rows = max(1, _BAND_BYTES // (4 * width))
    for top in range(0, height, rows):
        band = frame if rows >= height else frame.crop((0, top, width, min(top + rows, height)))
        digest.update(band.tobytes())


def _luma(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return grey levels of the middle of an image, cut at multiples of 8 pixels."""
    left, top = (max(0, (side - 1024) // 2 // 8 * 8) for side in image.size)
    box = (left, top, min(left + 1024, image.width), min(top + 1024, image.height))
    part = image if box == (0, 0, *image.size) else image.crop(box)
    return np.asarray(_to_rgb(_to_8_bits(part)).convert("L"))


def _reduced(image: Image.Image, min_side: int) -> Image.Image:
    image = _to_8_bits(image)
    scale = reduction(image.width, image.height, min_side)
    return image.reduce(scale) if scale > 1 else image


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale deep grey levels to 8 bits.

    Integers are divided by 257 if they need 13 bits or more, by 16 if they need 9 to 12 (sensors
    of 10 and 12 bits are stored in 16-bit words; they would look black), and else taken as they
    are; integers beyond 16 bits and negative ones are stretched from least to most. Floats within
    0..1 that use more than a sixteenth of it are multiplied by 255, those within 0..255 that
    exceed 1 are taken as they are, others are stretched over their finite values.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        low, high = float(values.min()), float(values.max())
        if low < 0 or high > 65535:
            values = _stretched(values, low, high)
        elif high > 4095:
            values = values / 257.0
        elif high > 255:
            values = values / (4095.0 / 255.0)
    elif image.mode == "F":
        with np.errstate(invalid="ignore"):  # signalling NaNs
            values = np.asarray(image).astype(np.float64)
        finite = np.isfinite(values)
        low = float(values[finite].min()) if finite.any() else 0.0
        high = float(values[finite].max()) if finite.any() else 0.0
        values = np.where(finite, values, low)
        if low >= 0 and 1.0 / 16.0 < high <= 1:
            values = values * 255.0
        elif low < 0 or high > 255 or high <= 1:
            values = _stretched(values, low, high)
    else:
        return image
    return Image.fromarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))


def _stretched(values: npt.NDArray[np.float64], low: float, high: float) -> npt.NDArray[np.float64]:
    # Halved first: the range of the largest floats is no float.
    span = high / 2 - low / 2
    if span <= 0:
        return np.full_like(values, 0.0 if high == 0 else 128.0)
    return (values / 2 - low / 2) / span * 255.0


@functools.cache
def _lab_to_rgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of 8 bits a sample to RGB; transparent pixels show the ground."""
    if image.mode == "RGB":
        return image
    if image.mode == "LAB":
        # The result is None only where the image itself is to be changed.
        return cast(Image.Image, ImageCms.applyTransform(image, _lab_to_rgb()))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        ground = Image.new("RGB", image.size, _GROUND)
        ground.paste(layer, mask=layer.getchannel("A"))
        return ground
    return image.convert("RGB")
