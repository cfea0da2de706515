"""Pixels, facts and hashes of good images: FAULTS.md, M1-M6."""

import hashlib
import io
import struct
import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from PIL import Image, ImageCms, ImageOps, JpegImagePlugin

from tests.transforms.imaging import files
from transforms.imaging import decode as imaging
from transforms.imaging.containers import PLAIN_HEAD, JpegContainer, MetadataBudget, inspect
from transforms.imaging.decode import Decoded, DecodeLimits, decode, reduction
from transforms.imaging.errors import ImageError
from transforms.imaging.exif import read_exif
from transforms.imaging.orientation import ORIENTATIONS, apply
from transforms.imaging.origin import ijg_quality
from transforms.imaging.png import stored

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LAB_ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
# What each orientation asks of a reader is undone by the transpose of the other column.
_UNDO = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def full(data: bytes) -> Decoded:
    """Decode at full size."""
    return decode(data, min_side=100_000)


def apart(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Return the mean difference of two pictures in grey levels."""
    assert a.shape == b.shape
    return float(np.abs(a.astype(np.int16) - b.astype(np.int16)).mean())


@pytest.mark.parametrize(
    ("size", "min_side", "expected"),
    [
        ((500, 375), 94, (94, 125)),
        ((500, 375), 95, (188, 250)),
        ((500, 375), 47, (47, 63)),
        ((500, 375), 188, (188, 250)),
        ((500, 375), 189, (375, 500)),
        ((500, 375), 9999, (375, 500)),
        ((7, 5), 1, (2, 2)),
        ((9, 8), 1, (1, 2)),
        ((1, 1), 1, (1, 1)),
        ((1, 1), 94, (1, 1)),
        ((1, 300), 94, (300, 1)),
        ((300, 1), 1, (1, 300)),
        ((300, 2), 1, (1, 150)),
    ],
)
@pytest.mark.parametrize("name", ["JPEG", "PNG"])
def test_reduction(
    name: str, size: tuple[int, int], min_side: int, expected: tuple[int, int]
) -> None:
    decoded = decode(files.saved(files.photo(*size), name), min_side=min_side)
    assert decoded.pixels.shape == (*expected, 3)
    assert (decoded.info.width, decoded.info.height) == size
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.flags.c_contiguous
    assert decoded.pixels.flags.writeable


@pytest.mark.parametrize(
    ("size", "min_side", "expected"),
    [((500, 375), 94, 4), ((375, 500), 95, 2), ((500, 375), 189, 1), ((1, 300), 1, 1)],
)
def test_reduction_is_told(size: tuple[int, int], min_side: int, expected: int) -> None:
    assert reduction(*size, min_side) == expected


def test_min_side_must_be_positive() -> None:
    with pytest.raises(ValueError, match="min_side"):
        decode(files.png(8, 8), min_side=0)


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "AVIF"])
def test_reduced_pixels_are_those_of_the_picture(name: str) -> None:
    picture = files.photo(320, 240)
    expected = np.asarray(picture.reduce(4))
    decoded = decode(files.saved(picture, name, quality=95), min_side=60)
    assert apart(decoded.pixels, expected) < 3.0


def test_decode_is_deterministic_and_without_hash_the_same() -> None:
    data = files.saved(files.photo(), "JPEG")
    first, second = decode(data, min_side=64), decode(data, min_side=64)
    bare = decode(data, min_side=64, with_hash=False)
    assert first.info == second.info == bare.info
    assert first.pixel_hash == second.pixel_hash
    assert len(first.pixel_hash) == 32
    assert bare.pixel_hash == b""
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.pixels, bare.pixels)


# M1: modes ---------------------------------------------------------------------------------------


def _grey(values: npt.NDArray[Any], **options: Any) -> bytes:
    return files.saved(Image.fromarray(values), "TIFF", **options)


RAMP = np.tile(np.arange(256, dtype=np.uint8), (64, 1))


@pytest.mark.parametrize(
    ("data", "tolerance"),
    [
        (_grey(RAMP), 0),
        (_grey(RAMP.astype(np.uint16) * 257), 0),
        (_grey(RAMP.astype(np.uint16) * 16 + 8), 1),
        (_grey(RAMP.astype(np.uint16) * 4), 192),
        (_grey(RAMP.astype(np.uint16)), 0),
        (files.saved(Image.fromarray(RAMP.astype(np.uint16) * 257), "PNG"), 0),
        (_grey(RAMP.astype(">u2") * 257), 0),
        (_grey(RAMP.astype(np.int32)), 0),
        (_grey(RAMP.astype(np.int32) * 1_000_000 - 5), 0),
        (_grey(RAMP.astype(np.float32) / 255), 0),
        (_grey(RAMP.astype(np.float32)), 0),
        (_grey(RAMP.astype(np.float32) * 1e30 - 1e32), 0),
        (_grey(RAMP.astype(np.float32) * 1e-6), 0),
        (_grey((RAMP - 127.5).astype(np.float32) * 2.6e36), 0),
    ],
    ids=["l", "i16", "12_in_16", "10_in_16", "8_in_16", "png16", "i16b", "i32", "i32_wide",
         "unit_float", "byte_float", "wide_float", "small_float", "huge_float"],
)  # fmt: skip
def test_m1_grey_depths_are_scaled_not_clipped(data: bytes, tolerance: int) -> None:
    pixels = full(data).pixels
    assert np.ptp(pixels[..., 0].astype(int)) > 60
    assert np.all(np.diff(pixels[0, :, 0].astype(int)) >= 0)
    np.testing.assert_allclose(pixels[..., 1], RAMP, atol=tolerance)


def test_m1_float_with_nan_and_infinity() -> None:
    values = RAMP.astype(np.float32)
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, -np.inf
    values.view(np.uint32)[0, 1] = 0x7F800001  # a signalling NaN
    pixels = full(_grey(values)).pixels
    np.testing.assert_array_equal(pixels[3:, :, 0], RAMP[3:])
    empty = np.full((8, 8), np.nan, np.float32)
    assert full(_grey(empty)).pixels.max() == 0
    constant = np.full((8, 8), 5000.0, np.float32)
    assert full(_grey(constant)).pixels.min() == 128


def test_m1_one_bit() -> None:
    checks = (np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)
    picture = Image.fromarray(checks).convert("1")
    for name, options in (("PNG", {}), ("TIFF", {"compression": "group4"}), ("BMP", {})):
        pixels = full(files.saved(picture, name, **options)).pixels
        np.testing.assert_array_equal(pixels[..., 2], checks)


@pytest.mark.parametrize("name", ["JPEG", "TIFF"])
def test_m1_cmyk(name: str) -> None:
    picture = files.photo(64, 48)
    decoded = full(files.saved(picture.convert("CMYK"), name, quality=95))
    assert decoded.info.mode == "CMYK"
    assert apart(decoded.pixels, np.asarray(picture)) < 6.0


def test_m1_lab() -> None:
    to_lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    picture = Image.new("RGB", (64, 48), (200, 60, 40))
    picture.paste((30, 90, 180), (0, 0, 32, 48))
    lab = ImageCms.applyTransform(picture, to_lab)
    assert lab is not None
    decoded = full(files.saved(lab, "TIFF"))
    assert decoded.info.mode == "LAB"
    assert apart(decoded.pixels, np.asarray(picture)) < 4.0


def _transparent() -> list[tuple[str, bytes]]:
    picture = files.photo(32, 24)
    mask = Image.new("L", (32, 24), 255)
    mask.paste(0, (0, 0, 16, 24))
    rgba = picture.copy()
    rgba.putalpha(mask)
    grey = picture.convert("L")
    la = Image.merge("LA", (grey, mask))
    palette = Image.new("P", (32, 24), 1)
    palette.putpalette([0, 0, 0, 9, 200, 30])
    palette.paste(0, (0, 0, 16, 24))
    keyed = Image.new("RGB", (32, 24), (9, 200, 30))
    keyed.paste((0, 0, 0), (0, 0, 16, 24))
    return [
        ("rgba_png", files.saved(rgba, "PNG")),
        ("rgba_webp", files.saved(rgba, "WEBP", lossless=True)),
        ("rgba_tiff", files.saved(rgba, "TIFF")),
        ("la_png", files.saved(la, "PNG")),
        ("p_png_index", files.saved(palette, "PNG", transparency=0)),
        ("p_png_bytes", files.saved(palette, "PNG", transparency=b"\0\xff")),
        ("p_gif", files.saved(palette, "GIF", transparency=0)),
        ("rgb_png_key", files.saved(keyed, "PNG", transparency=(0, 0, 0))),
        ("l_png_key", files.saved(keyed.convert("L"), "PNG", transparency=0)),
    ]


@pytest.mark.parametrize(
    "data", [data for _, data in _transparent()], ids=[name for name, _ in _transparent()]
)
def test_m1_transparent_pixels_show_the_ground(data: bytes) -> None:
    for min_side in (100_000, 12):
        pixels = decode(data, min_side=min_side).pixels
        half = pixels.shape[1] // 2
        assert np.all(pixels[:, : half - 1] == 128)
        assert not np.all(pixels[:, half + 1 :] == 128)


def test_m1_half_transparent() -> None:
    picture = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    pixels = full(files.saved(picture, "PNG")).pixels
    np.testing.assert_allclose(pixels[0, 0], (192, 64, 64), atol=1)


def test_m4_flat_transparent_is_the_ground_and_not_black() -> None:
    for colour in ((0, 0, 0, 0), (255, 255, 255, 0)):
        pixels = full(files.saved(Image.new("RGBA", (64, 64), colour), "PNG")).pixels
        assert np.all(pixels == 128)


def test_m1_palette_of_a_png() -> None:
    picture = files.photo(64, 48).quantize(64)
    decoded = full(files.saved(picture, "PNG"))
    np.testing.assert_array_equal(decoded.pixels, np.asarray(picture.convert("RGB")))
    assert decoded.info.lossless


# M2: orientation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("PNG", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_m2_eight_orientations_are_one_picture(name: str, options: dict[str, Any]) -> None:
    picture = files.photo(150, 101)
    decoded = []
    for orientation in ORIENTATIONS:
        undo = _UNDO[orientation]
        stored = picture if undo is None else picture.transpose(undo)
        data = files.saved(stored, name, exif=files.exif(orientation), **options)
        decoded.append(decode(data, min_side=40))
        assert decoded[-1].info.orientation == orientation
        assert (decoded[-1].info.width, decoded[-1].info.height) == (150, 101)
    assert len({one.pixel_hash for one in decoded}) == 1
    for one in decoded:
        np.testing.assert_array_equal(one.pixels, decoded[0].pixels)
    assert apart(decoded[0].pixels, np.asarray(picture.reduce(2))) == 0.0


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("name", ["JPEG", "AVIF"])
def test_m2_orientation_of_lossy_formats(name: str, orientation: int) -> None:
    picture = files.photo(160, 96)
    undo = _UNDO[orientation]
    stored = picture if undo is None else picture.transpose(undo)
    data = files.saved(stored, name, exif=files.exif(orientation), quality=95)
    decoded = decode(data, min_side=48)
    assert (decoded.info.orientation, decoded.info.width) == (orientation, 160)
    assert apart(decoded.pixels, np.asarray(picture.reduce(2))) < 3.0
    with Image.open(io.BytesIO(data)) as opened:
        upright = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    assert apart(full(data).pixels, upright) == 0.0


def test_m2_tag_alone_turns_the_same_jpeg() -> None:
    plain = files.saved(files.photo(161, 97), "JPEG")
    upright = decode(plain, min_side=40)
    hashes = set()
    for orientation in ORIENTATIONS:
        data = files.with_segments(plain, files.segment(0xE1, files.exif(orientation)))
        decoded = decode(data, min_side=40)
        np.testing.assert_array_equal(decoded.pixels, apply(upright.pixels, orientation))
        hashes.add(decoded.pixel_hash)
    assert len(hashes) == 8
    assert upright.pixel_hash in hashes


def test_m2_heic_is_turned_by_its_container_only() -> None:
    decoded = decode(files.HEIC, min_side=8)
    assert (decoded.info.format, decoded.info.orientation) == ("HEIF", 1)
    assert (decoded.info.width, decoded.info.height) == (48, 64)
    assert decoded.pixels.shape == (16, 12, 3)
    reds = decoded.pixels[..., 0] > decoded.pixels[..., 2]
    assert reds[:7].all()
    assert not reds[9:].any()
    assert decoded.info.exif_fields == 1


BROKEN = [
    b"Exif\0\0",
    b"Exif\0\0II*\0",
    b"Exif\0\0II*\0\x08\0\0\0",
    b"Exif\0\0XX*\0\x08\0\0\0" + bytes(30),
    b"Exif\0\0II*\0\xff\xff\xff\xff" + bytes(30),
    b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(30),
    b"Exif\0\0" + files.tiff([(0x0112, 3, 1, b"\x09\0\0\0")]),
    b"Exif\0\0" + files.tiff([(0x0112, 3, 1, b"\0\0\0\0")]),
    b"Exif\0\0" + files.tiff([(0x0112, 2, 4, b"six\0")]),
    b"Exif\0\0" + files.tiff([(0x0112, 3, 99, b"\xff\xff\0\0")]),
    b"Exif\0\0" + files.tiff([(0x8769, 4, 1, b"\xff\xff\xff\0")]),
    b"Exif\0\0" + files.tiff([(0x8769, 7, 4, b"\x08\0\0\0")]),
]


@pytest.mark.parametrize("block", BROKEN, ids=range(len(BROKEN)))
def test_m2_broken_exif_is_a_warning(block: bytes) -> None:
    jpeg = files.saved(files.photo(64, 48), "JPEG")
    png = files.png(64, 48, files.chunk(b"eXIf", block[6:]))
    webp = files.saved(files.photo(64, 48), "WEBP", exif=block)
    for data in (files.with_segments(jpeg, files.segment(0xE1, block)), png, webp):
        info = decode(data, min_side=48).info
        assert (info.orientation, info.width, info.captured) == (1, 64, None)
        # An EXIF block of nothing but its prefix is as good as none.
        assert bool(info.warnings) or block == b"Exif\0\0"
        assert all(warning.isprintable() for warning in info.warnings)


def test_m2_broken_exif_of_a_tiff() -> None:
    whole = files.saved(files.photo(64, 48), "TIFF", exif=files.exif(6, "2020:01:02 03:04:05"))
    at = whole.index(struct.pack("<HHI", 0x8769, 4, 1)) + 8
    broken = whole[:at] + struct.pack("<I", len(whole) - 1) + whole[at + 4 :]
    decoded = decode(broken, min_side=48)
    assert (decoded.info.orientation, decoded.info.width) == (6, 48)
    assert decoded.info.warnings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2019:05:04 03:02:01", "2019-05-04T03:02:01"),
        ("0000:00:00 00:00:00", None),
        ("2019:13:04 03:02:01", None),
        ("    :  :     :  :  ", None),
        ("yesterday", None),
    ],
)
def test_capture_date(text: str, expected: str | None) -> None:
    data = files.saved(files.photo(64, 48), "JPEG", exif=files.exif(1, text))
    assert decode(data, min_side=48).info.captured == expected
    assert decode(data, min_side=48).info.exif_fields == 1


def test_exif_of_both_byte_orders() -> None:
    little = files.tiff([(0x0112, 3, 1, b"\6\0\0\0"), (0x0110, 2, 4, b"abc\0")])
    big = b"MM\0*\0\0\0\x08\0\1" + struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0) + bytes(4)
    assert read_exif(little)[:2] == (6, 1)
    assert read_exif(big).orientation == 6
    assert read_exif(None) == read_exif(b"") == (1, 0, None, ())


# M3: frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_m3_frames_are_counted_and_all_hashed(name: str) -> None:
    one, two, other = (files.photo(48, 32, seed) for seed in (1, 2, 3))
    options: dict[str, Any] = {"lossless": True} if name == "WEBP" else {}
    first = files.saved(one, name, save_all=True, append_images=[two], **options)
    second = files.saved(one, name, save_all=True, append_images=[other], **options)
    decoded = [decode(data, min_side=32) for data in (first, second)]
    assert [item.info.frames for item in decoded] == [2, 2]
    assert [item.info.format for item in decoded] == [name, name]
    # The encoder of AVIF looks ahead, so that its first frames are not quite equal.
    assert apart(decoded[0].pixels, decoded[1].pixels) <= (5 if name == "AVIF" else 0)
    assert decoded[0].pixel_hash != decoded[1].pixel_hash
    assert apart(decoded[0].pixels, np.asarray(one)) < (20 if name in ("GIF", "AVIF", "MPO") else 1)
    with pytest.raises(ImageError, match="too_large"):
        decode(first, min_side=32, limits=DecodeLimits(max_frames=1))


def test_m3_first_frame_survives_the_hash_of_the_others() -> None:
    pictures = [files.photo(48, 32, seed) for seed in range(4)]
    for name in ("GIF", "PNG", "WEBP"):
        data = files.saved(
            pictures[0], name, save_all=True, append_images=pictures[1:], lossless=True
        )
        np.testing.assert_array_equal(
            decode(data, min_side=32).pixels, decode(data, min_side=32, with_hash=False).pixels
        )


def test_m3_durations_are_not_in_the_hash() -> None:
    pictures = [files.photo(48, 32, seed) for seed in range(2)]
    fast, slow = (
        files.saved(pictures[0], "GIF", save_all=True, append_images=pictures[1:], duration=time)
        for time in (20, 500)
    )
    assert fast != slow
    assert decode(fast, min_side=32).pixel_hash == decode(slow, min_side=32).pixel_hash


def test_m3_gain_map_of_a_photograph_is_no_frame() -> None:
    pictures = [files.photo(48, 32, seed) for seed in range(2)]
    data = files.saved(pictures[0], "MPO", save_all=True, append_images=pictures[1:])
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version='1.0'/>"
    info = decode(files.with_segments(data, files.segment(0xE1, xmp)), min_side=32).info
    assert (info.frames, info.format) == (1, "JPEG")


# M5: odd shapes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (63520, 32), (32, 63520)])
@pytest.mark.parametrize("name", ["PNG", "JPEG", "BMP", "GIF", "TIFF"])
def test_m5_odd_shapes(name: str, size: tuple[int, int]) -> None:
    data = files.saved(Image.new("L", size, 77), name)
    for min_side in (1, 94):
        decoded = decode(data, min_side=min_side)
        assert (decoded.info.width, decoded.info.height) == size
        assert decoded.pixels.size <= 3 * size[0] * size[1]
        assert np.all(decoded.pixels == 77)


# M6: metadata and profile ------------------------------------------------------------------------


def test_m6_metadata_of_a_jpeg_is_not_in_the_hash() -> None:
    picture = files.photo(64, 48)
    plain = files.saved(picture, "JPEG", optimize=True)
    comment = files.segment(0xFE, b"a comment \xff\xd9")
    xmp = files.segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<x:a b:c="d"><e:f>g</e:f></x:a>')
    bare = decode(plain, min_side=48)
    for extra in (comment, xmp, files.segment(0xE1, files.exif(1, "2019:05:04 03:02:01"))):
        rich = decode(files.with_segments(plain, extra), min_side=48)
        assert rich.pixel_hash == bare.pixel_hash
        assert rich.info.exif_fields > bare.info.exif_fields
        np.testing.assert_array_equal(rich.pixels, bare.pixels)
    without = plain[:2] + plain[2 + 18 :]  # the JFIF segment, of 18 bytes
    assert without[2:4] == b"\xff\xdb"
    assert decode(without, min_side=48).pixel_hash == bare.pixel_hash


def test_m6_metadata_between_scans_is_not_in_the_hash() -> None:
    plain = files.saved(files.photo(64, 48), "JPEG", progressive=True)
    scan = plain.rindex(b"\xff\xda")
    for extra in (files.segment(0xFE, b"comment"), files.segment(0xE7, b"\xff\xd9 application")):
        data = plain[:scan] + extra + plain[scan:]
        assert decode(data, min_side=48).pixel_hash == decode(plain, min_side=48).pixel_hash
        np.testing.assert_array_equal(full(data).pixels, full(plain).pixels)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
def test_a_jpeg_that_ends_with_its_only_scan_is_what_a_search_for_its_end_finds(
    subsampling: str,
) -> None:
    plain = files.saved(files.photo(64, 48), "JPEG", subsampling=subsampling)
    ends, searched = (
        inspect("JPEG", data, MetadataBudget(1 << 20), 1) for data in (plain, plain + b"\0")
    )
    assert isinstance(ends, JpegContainer)
    assert isinstance(searched, JpegContainer)
    assert ends.body is plain
    assert searched.body == plain
    assert (ends.plain, ends.scans, ends.tables) == (True, 1, searched.tables)
    # A file behind the first is given too; the decoder stops at the first end marker.
    np.testing.assert_array_equal(full(plain + plain).pixels, full(plain).pixels)


@pytest.mark.parametrize("restart", [0, 1])
def test_m6_metadata_behind_the_only_scan_is_not_in_the_hash(restart: int) -> None:
    plain = files.saved(files.photo(64, 48), "JPEG", restart_marker_blocks=restart)
    for extra in (files.segment(0xFE, b"comment"), files.segment(0xE7, bytes(300))):
        data = plain[:-2] + extra + plain[-2:]
        assert decode(data, min_side=48).pixel_hash == decode(plain, min_side=48).pixel_hash
        np.testing.assert_array_equal(full(data).pixels, full(plain).pixels)


def test_pixel_hash_of_a_jpeg_is_as_documented() -> None:
    plain = files.saved(files.photo(64, 48), "JPEG")
    assert plain.startswith(PLAIN_HEAD)
    digest, empty = hashlib.sha256(plain).digest(), hashlib.sha256(b"").digest()
    expected = hashlib.sha256(b"JPEG\0" + b"\1Y" + empty + digest).digest()
    assert decode(plain, min_side=48).pixel_hash == expected
    assert decode(plain, min_side=48, digest=digest).pixel_hash == expected


def test_digest_of_a_jpeg_stands_for_what_is_kept_only_where_nothing_else_is_there() -> None:
    plain = files.saved(files.photo(64, 48), "JPEG")
    scan, rest = plain.index(b"\xff\xda"), plain[len(PLAIN_HEAD) :]
    comment = files.segment(0xFE, b"comment")
    for data in (
        files.with_segments(plain, comment),
        plain[:scan] + comment + plain[scan:],
        plain[:2] + rest,
        files.saved(files.photo(64, 48), "JPEG", dpi=(72, 72)),
        plain[:2] + files.segment(0xE0, b"JFXX\0" + bytes(9)) + rest,
        plain[:2] + files.segment(0xFE, bytes(14)) + rest,
    ):
        digest = hashlib.sha256(data).digest()
        found = decode(data, min_side=48, digest=digest).pixel_hash
        assert found == decode(data, min_side=48).pixel_hash
        assert found == decode(plain, min_side=48).pixel_hash


def test_m6_colour_transform_is_in_the_hash() -> None:
    plain = files.saved(files.photo(64, 48), "JPEG")
    without = plain[:2] + plain[2 + 18 :]
    ycc, rgb = (
        files.with_segments(without, files.segment(0xEE, b"Adobe\0\x64\0\0\0\0" + transform))
        for transform in (b"\1", b"\0")
    )
    assert decode(ycc, min_side=48).pixel_hash == decode(plain, min_side=48).pixel_hash
    assert decode(rgb, min_side=48).pixel_hash != decode(plain, min_side=48).pixel_hash
    assert apart(full(rgb).pixels, full(plain).pixels) > 20


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_m6_profile_is_in_the_hash(name: str) -> None:
    picture = files.photo(64, 48)
    data = [files.saved(picture, name, icc_profile=icc) for icc in (None, SRGB, LAB_ICC)]
    decoded = [decode(item, min_side=48) for item in data]
    assert len({item.pixel_hash for item in decoded}) == 3
    for item in decoded:
        np.testing.assert_array_equal(item.pixels, decoded[0].pixels)


def test_m6_long_profile_is_put_together_in_the_order_of_its_parts() -> None:
    plain = files.saved(files.photo(64, 48), "JPEG")
    parts = [
        files.segment(0xE2, b"ICC_PROFILE\0" + bytes((number, 3)) + bytes((number,)) * 50)
        for number in (1, 2, 3)
    ]
    forward = decode(files.with_segments(plain, *parts), min_side=48)
    backward = decode(files.with_segments(plain, *parts[::-1]), min_side=48)
    assert forward.pixel_hash == backward.pixel_hash
    assert forward.pixel_hash != decode(plain, min_side=48).pixel_hash


def test_m6_encoding_of_a_lossless_file_is_not_in_the_hash() -> None:
    picture = files.photo(64, 48)
    text = files.chunk(b"tEXt", b"parameters\0a cat")
    small = files.saved(picture, "PNG", compress_level=9)
    variants = [
        small,
        files.saved(picture, "PNG", compress_level=1),
        small[:33] + text + small[33:],
        files.saved(picture, "BMP"),
        files.saved(picture, "TIFF", compression="tiff_lzw"),
        files.saved(picture, "WEBP", lossless=True),
    ]
    assert len({decode(data, min_side=48).pixel_hash for data in variants}) == 1
    changed = picture.copy()
    changed.putpixel((63, 47), (1, 2, 3))
    other = decode(files.saved(changed, "PNG"), min_side=48)
    assert other.pixel_hash != decode(small, min_side=48).pixel_hash


def test_palettes_are_expanded_before_the_hash() -> None:
    same_indices = []
    for colour in ((255, 0, 0), (0, 0, 255)):
        picture = Image.new("P", (16, 16), 0)
        picture.putpalette(colour)
        same_indices.append(decode(files.saved(picture, "PNG"), min_side=16))
        flat = decode(files.saved(Image.new("RGB", (16, 16), colour), "PNG"), min_side=16)
        assert same_indices[-1].pixel_hash == flat.pixel_hash
    assert same_indices[0].pixel_hash != same_indices[1].pixel_hash


def test_size_is_in_the_hash() -> None:
    wide, high = (files.png(*size) for size in ((32, 16), (16, 32)))
    assert decode(wide, min_side=8).pixel_hash != decode(high, min_side=8).pixel_hash


def test_bands_do_not_change_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    data = files.saved(files.photo(64, 48), "PNG")
    whole = decode(data, min_side=8).pixel_hash
    monkeypatch.setattr(imaging, "_BAND_BYTES", 4 * 64 * 7)
    assert decode(data, min_side=8).pixel_hash == whole


def test_low_bits_of_deep_colour_are_in_the_hash() -> None:
    """Pillow drops the lower byte of 16-bit colour; such files must not count as equal."""

    def deep(low: int) -> bytes:
        header = files.chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
        rows = (b"\0" + bytes((90, low)) * 24) * 8
        data = files.chunk(b"IDAT", zlib.compress(rows))
        return b"\x89PNG\r\n\x1a\n" + header + data + files.chunk(b"IEND", b"")

    first, second = (decode(deep(low), min_side=8) for low in (1, 2))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert first.pixel_hash != second.pixel_hash


# Two decoders of JPEG ----------------------------------------------------------------------------


JPEGS: list[tuple[str, dict[str, Any]]] = [
    ("RGB", {}),
    ("RGB", {"quality": 5}),
    ("RGB", {"subsampling": 0}),
    ("RGB", {"subsampling": 1}),
    ("RGB", {"progressive": True, "quality": 95}),
    ("RGB", {"keep_rgb": True}),
    ("RGB", {"restart_marker_blocks": 3, "comment": b"hello"}),
    ("RGB", {"exif": files.exif(6), "icc_profile": SRGB}),
    ("RGB", {"qtables": [list(range(1, 65)), list(range(300, 364))]}),
    ("L", {}),
    ("L", {"progressive": True}),
]


def _by_pillow(data: bytes, min_side: int, monkeypatch: pytest.MonkeyPatch) -> Decoded:
    def refuse(*_: object, **__: object) -> None:
        raise ValueError

    with monkeypatch.context() as patched:
        patched.setattr(simplejpeg, "decode_jpeg", refuse)
        return decode(data, min_side=min_side)


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 8), (33, 64), (161, 97)])
@pytest.mark.parametrize(("mode", "options"), JPEGS, ids=str)
def test_decoders_of_jpeg_agree(
    mode: str, options: dict[str, Any], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = files.saved(files.photo(*size).convert(mode), "JPEG", **options)
    for min_side in (1, 3, 16, 48, 9999):
        decoded = decode(data, min_side=min_side)
        expected = _by_pillow(data, min_side, monkeypatch)
        assert decoded.info == expected.info
        assert decoded.pixel_hash == expected.pixel_hash
        np.testing.assert_array_equal(decoded.pixels, expected.pixels)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
def test_decoders_of_jpeg_agree_on_every_sampling(
    subsampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.ascontiguousarray(files.photo(161, 97))
    data = simplejpeg.encode_jpeg(picture, colorsubsampling=subsampling)
    for min_side in (13, 25, 49, 97):
        expected = _by_pillow(data, min_side, monkeypatch)
        np.testing.assert_array_equal(decode(data, min_side=min_side).pixels, expected.pixels)


def _seen(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list of what simplejpeg is given from now on."""
    seen: list[bytes] = []
    decode_jpeg = simplejpeg.decode_jpeg

    def note(data: bytes, *args: Any, **options: Any) -> object:
        seen.append(data)
        return decode_jpeg(data, *args, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", note)
    return seen


def test_pillow_decodes_what_is_no_plain_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _seen(monkeypatch)
    plain = files.saved(files.photo(64, 48), "JPEG")
    decode(plain, min_side=48)
    assert seen == [plain]
    at = plain.index(b"\xff\xdb")
    for odd in (
        files.saved(files.photo(64, 48).convert("CMYK"), "JPEG"),
        plain[:at] + b"\xff\xd0" + plain[at:],  # a restart before any scan
        b"\xff\xd8" + files.segment(0xE0, b"JFIF\0\1\1\0") + plain[20:],  # a short JFIF segment
    ):
        assert decode(odd, min_side=48).pixels.shape == (48, 64, 3)
    frame = plain[plain.index(b"\xff\xc0") : plain.index(b"\xff\xc4")]
    with pytest.raises(ImageError):
        decode(plain[:at] + frame + plain[at:], min_side=48)
    assert seen == [plain]


def test_damage_is_judged_by_pillow_and_in_silence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = files.saved(files.photo(161, 97), "JPEG", quality=90)
    rng = np.random.default_rng(5)
    scan = whole.index(b"\xff\xda") + 12
    for _ in range(20):
        damaged = bytearray(whole)
        for place in rng.integers(scan, len(whole) - 2, 3):
            damaged[place] = rng.integers(0, 255)
        decoded = decode(bytes(damaged), min_side=48)
        expected = _by_pillow(bytes(damaged), 48, monkeypatch)
        np.testing.assert_array_equal(decoded.pixels, expected.pixels)
    assert capfd.readouterr() == ("", "")


# Two decoders of PNG and WebP -------------------------------------------------------------------


def _asked(monkeypatch: pytest.MonkeyPatch, *, refuse: bool = False) -> list[bytes]:
    """Return the list of what OpenCV is asked to decode from now on."""
    asked: list[bytes] = []
    imdecode = cv2.imdecode

    def note(data: Any, flags: int) -> Any:
        asked.append(bytes(data))
        return None if refuse else imdecode(data, flags)

    monkeypatch.setattr(cv2, "imdecode", note)
    return asked


def _by_both(data: bytes, min_side: int) -> tuple[Decoded, Decoded]:
    """Decode a file as it is done, and by Pillow alone; OpenCV must be asked for it."""
    with pytest.MonkeyPatch.context() as patched:
        asked = _asked(patched, refuse=True)
        expected = decode(data, min_side=min_side)
        assert asked
    return decode(data, min_side=min_side), expected


PLAIN: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("PNG", {"compress_level": 0}),
    ("PNG", {"compress_level": 9, "exif": files.exif(8), "icc_profile": SRGB, "dpi": (72, 72)}),
    ("WEBP", {}),
    ("WEBP", {"quality": 5, "method": 6}),
    ("WEBP", {"quality": 100, "icc_profile": SRGB}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"lossless": True, "icc_profile": SRGB}),
]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (33, 64), (161, 97), (200, 1)])
@pytest.mark.parametrize("case", range(len(PLAIN)))
def test_decoders_of_png_and_webp_agree(case: int, size: tuple[int, int]) -> None:
    name, options = PLAIN[case]
    data = files.saved(files.photo(*size), name, **options)
    for min_side in (1, 16, 9999):
        decoded, expected = _by_both(data, min_side)
        assert decoded.info == expected.info
        assert decoded.pixel_hash == expected.pixel_hash
        np.testing.assert_array_equal(decoded.pixels, expected.pixels)


@pytest.mark.parametrize("filtering", range(5))
def test_decoders_of_png_agree_on_every_filter(filtering: int) -> None:
    raw = np.random.default_rng(7).integers(0, 256, (19, 3 * 23), np.uint8)
    lines = np.hstack([np.full((19, 1), filtering, np.uint8), raw]).tobytes()
    stream = zlib.compress(lines)
    data = b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            files.chunk(b"IHDR", struct.pack(">IIBBBBB", 23, 19, 8, 2, 0, 0, 0)),
            *(files.chunk(b"IDAT", stream[at : at + 99]) for at in range(0, len(stream), 99)),
            files.chunk(b"IEND", b""),
        )
    )
    decoded, expected = _by_both(data, 9999)
    assert decoded.pixel_hash == expected.pixel_hash
    np.testing.assert_array_equal(decoded.pixels, expected.pixels)


def test_p16_pillow_alone_decodes_what_is_no_plain_png_or_webp(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = _asked(monkeypatch)
    picture = files.photo(33, 24)
    clear = picture.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(picture.size))
    other = files.photo(33, 24, 1)
    png = files.saved(picture, "PNG")
    webp = files.saved(picture, "WEBP", icc_profile=SRGB)
    damaged = bytearray(png)
    damaged[-16] ^= 1  # the checksum of the pixels, which Pillow leaves alone
    for odd in (
        files.saved(clear, "PNG"),
        files.saved(picture.convert("L"), "PNG"),
        files.saved(picture.convert("P"), "PNG"),
        files.saved(picture, "PNG", transparency=(0, 0, 0)),
        files.saved(picture, "PNG", save_all=True, append_images=[other]),
        files.saved(picture.convert("I;16"), "PNG"),
        files.saved(clear, "WEBP"),
        files.saved(clear, "WEBP", lossless=True),
        files.saved(picture, "WEBP", save_all=True, append_images=[other]),
        webp.replace(b"ICCP", b"OTHR"),
        files.saved(picture, "WEBP", exif=files.exif(1)),
        files.saved(picture, "WEBP", xmp=b"<x/>"),
        webp + b"\0\0",
        files.saved(picture, "BMP"),
        bytes(damaged),
    ):
        decode(odd, min_side=9999)
    assert not asked
    decode(png, min_side=9999)
    decode(webp, min_side=9999)
    assert asked == [stored(png, 24 * (1 + 3 * 33)), webp]


def _judged(data: bytes, *, refuse: bool) -> object:
    """Return the hash of a file or its failure; OpenCV must be asked, and may be made to refuse."""
    with pytest.MonkeyPatch.context() as patched:
        asked = _asked(patched, refuse=refuse)
        try:
            return decode(data, min_side=1).pixel_hash
        except ImageError as error:
            return error.error_type, error.message
        finally:
            assert len(asked) == 1


def test_p16_what_opencv_refuses_is_judged_by_pillow() -> None:
    """Faults that no checksum tells of, such as a wrong one within the stream of zlib."""
    header = files.chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0))
    whole = zlib.compress(bytes(8 * 25))
    for stream in (whole[:-1] + b"\0", whole[:-4], whole[:4], zlib.compress(b"\5" + bytes(199))):
        idat, end = files.chunk(b"IDAT", stream), files.chunk(b"IEND", b"")
        png = b"\x89PNG\r\n\x1a\n" + header + idat + end
        assert _judged(png, refuse=False) == _judged(png, refuse=True)
    for lossless in (False, True):
        webp = files.saved(files.photo(64, 48), "WEBP", lossless=lossless)
        for place in np.random.default_rng(3).integers(40, len(webp) - 1, 20):
            data = webp[:place] + bytes((webp[place] ^ 64,)) + webp[place + 1 :]
            assert _judged(data, refuse=False) == _judged(data, refuse=True)
        for left in (0, 4, 9, 20, (len(webp) - 20) // 4 * 2):
            cut = webp[12:16] + struct.pack("<I", left) + webp[20 : 20 + left] + bytes(left & 1)
            data = b"RIFF" + struct.pack("<I", 4 + len(cut)) + b"WEBP" + cut
            assert _judged(data, refuse=False) == _judged(data, refuse=True)


def test_pillow_decodes_plain_pictures_that_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = _asked(monkeypatch)
    data = files.saved(files.photo(64, 48), "PNG")
    monkeypatch.setattr(imaging, "_PLAIN_BYTES", 64 * 48 * 3 - 1)
    whole = decode(data, min_side=9999)
    assert not asked
    monkeypatch.setattr(imaging, "_PLAIN_BYTES", 64 * 48 * 3)
    assert decode(data, min_side=9999).pixel_hash == whole.pixel_hash
    assert len(asked) == 1


@pytest.mark.parametrize(("mode", "options"), [*JPEGS, ("CMYK", {})], ids=str)
def test_facts_of_a_jpeg_are_those_of_pillow(mode: str, options: dict[str, Any]) -> None:
    data = files.saved(files.photo(64, 48).convert(mode), "JPEG", **options)
    container = inspect("JPEG", data, MetadataBudget(1 << 20), 1)
    assert isinstance(container, JpegContainer)
    with Image.open(io.BytesIO(data)) as opened:
        assert isinstance(opened, JpegImagePlugin.JpegImageFile)
        assert list(container.layers) == opened.layer
        assert {k: list(v) for k, v in container.tables.items()} == opened.quantization
    assert container.plain is (mode != "CMYK")
    assert decode(data, min_side=48).info.mode == mode


# Facts -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [1, 10, 25, 50, 75, 85, 90, 95, 99, 100])
def test_jpeg_quality(quality: int) -> None:
    data = files.saved(files.photo(64, 48), "JPEG", quality=quality)
    assert decode(data, min_side=48).info.jpeg_quality == quality


def test_jpeg_quality_of_odd_tables() -> None:
    assert ijg_quality(()) is None
    assert ijg_quality([1] * 64) == 100
    assert ijg_quality([255] * 64) == 1
    data = files.saved(files.photo(64, 48), "JPEG", qtables=[[7] * 64, [9] * 64])
    assert 80 < (decode(data, min_side=48).info.jpeg_quality or 0) < 100


@pytest.mark.parametrize(
    ("mode", "subsampling", "expected"),
    [("RGB", 0, False), ("RGB", 1, True), ("RGB", 2, True), ("L", 0, None), ("CMYK", 0, False)],
)
def test_chroma_subsampling(mode: str, subsampling: int, expected: bool | None) -> None:
    data = files.saved(files.photo(64, 48).convert(mode), "JPEG", subsampling=subsampling)
    assert decode(data, min_side=48).info.chroma_subsampled is expected


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("JPEG", {}, False),
        ("PNG", {}, True),
        ("BMP", {}, True),
        ("TIFF", {"compression": "tiff_lzw"}, True),
        ("TIFF", {"compression": "jpeg"}, False),
        ("WEBP", {"lossless": True}, True),
        ("WEBP", {"quality": 80}, False),
        ("GIF", {}, False),
        ("AVIF", {}, False),
    ],
)
def test_lossless(name: str, options: dict[str, Any], expected: bool) -> None:
    info = decode(files.saved(files.photo(), name, **options), min_side=48).info
    assert info.lossless is expected
    assert (info.jpeg_quality is not None) is (name == "JPEG")


def test_drawing_in_a_palette_is_lossless() -> None:
    drawing = Image.new("P", (64, 64), 3)
    assert decode(files.saved(drawing, "GIF"), min_side=32).info.lossless


def test_jpeg_origin() -> None:
    photo = files.photo(400, 300)
    plain = decode(files.saved(photo, "PNG"), min_side=64)
    assert plain.info.jpeg_origin is False
    for quality in (50, 70):
        with Image.open(io.BytesIO(files.saved(photo, "JPEG", quality=quality))) as coded:
            data = files.saved(coded.convert("RGB"), "PNG")
            cropped = files.saved(coded.convert("RGB").crop((3, 5, 400, 300)), "PNG")
        assert decode(data, min_side=64).info.jpeg_origin is True
        assert decode(cropped, min_side=64).info.jpeg_origin is True
    flat = decode(files.saved(Image.new("RGB", (400, 300), (9, 9, 9)), "PNG"), min_side=64)
    assert flat.info.jpeg_origin is False
