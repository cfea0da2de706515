"""Input bytes that are damaged, hostile or no image: FAULTS.md, B1-B8."""

import contextlib
import io
import os
import pickle
import resource
import struct
import subprocess
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import EpsImagePlugin, Image

from tests.transforms.imaging import files
from transforms.imaging.decode import (
    DecodeLimits,
    classify_unidentified,
    decode,
    looks_like_image_name,
)
from transforms.imaging.errors import ERROR_TYPES, ImageError, one_line

JPEG = files.saved(files.photo(), "JPEG", quality=85)
PROGRESSIVE = files.saved(files.photo(), "JPEG", quality=85, progressive=True)


def failure(data: bytes, path: str = "", limits: DecodeLimits | None = None) -> ImageError:
    """Return the error that bytes lead to, with and without the hash."""
    with pytest.raises(ImageError) as caught:
        decode(data, path=path, min_side=64, limits=limits)
    with pytest.raises(ImageError) as without:
        decode(data, path=path, min_side=64, limits=limits, with_hash=False)
    if caught.value.error_type != "timeout":
        assert caught.value.error_type == without.value.error_type
    assert caught.value.error_type in ERROR_TYPES
    assert caught.value.message.isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("data", "path", "expected"),
    [
        (b"", "a.jpg", "unidentified"),
        (b"", "a.txt", "not_an_image"),
        (b"\xff", "a.jpg", "unidentified"),
        (b"\xff\xd8\xff", "a.txt", "unidentified"),
        (b"hello, this is text\n" * 40, "a.jpg", "unidentified"),
        (b"hello, this is text\n" * 40, "notes.txt", "not_an_image"),
        (b"hello, this is text\n" * 40, "", "unidentified"),
        (b"BM is how this text begins\n" * 9, "notes.md", "not_an_image"),
        (b"PK\x03\x04" + bytes(90), "a.png", "unidentified"),
        (b"PK\x03\x04" + bytes(90), "a.zip", "not_an_image"),
        (b"<!DOCTYPE html><html></html>", "a.png", "unidentified"),
        (b"<!DOCTYPE html><html></html>", "jpg", "not_an_image"),
        (b"\x89PNG\r\n\x1a\n" + b"text, not chunks" * 5, "a.txt", "unidentified"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "a.wav", "not_an_image"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "a.mp4", "not_an_image"),
    ],
)
def test_b1_no_image(data: bytes, path: str, expected: str) -> None:
    assert failure(data, path).error_type == expected


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.99])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("JPEG", {"quality": 85}),
        ("JPEG", {"quality": 85, "progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {"quality": 80}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("AVIF", {"quality": 60}),
    ],
)
def test_b2_truncated(name: str, options: dict[str, object], share: float) -> None:
    whole = files.saved(files.photo(), name, **options)
    decode(whole, min_side=64)
    assert failure(whole[: int(len(whole) * share)]).error_type == "truncated"


def test_b2_truncated_heic() -> None:
    for share in (0.25, 0.5, 0.75, 0.99):
        assert failure(files.HEIC[: int(len(files.HEIC) * share)]).error_type == "truncated"


@pytest.mark.parametrize("frames", ["GIF", "WEBP", "PNG"])
def test_b2_truncated_animation(frames: str) -> None:
    pictures = [files.photo(64, 48, seed) for seed in range(4)]
    whole = files.saved(
        pictures[0], frames, save_all=True, append_images=pictures[1:], lossless=True
    )
    for share in (0.25, 0.5, 0.75, 0.99):
        assert failure(whole[: int(len(whole) * share)]).error_type == "truncated"


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE])
@pytest.mark.parametrize("min_side", [8, 30, 64, 120, 240])
def test_b2_jpeg_without_end_marker(data: bytes, min_side: int) -> None:
    """All pixels are there, at every scale of the draft mode; the file was cut all the same."""
    for end in (-1, -2, -3):
        with pytest.raises(ImageError, match="truncated"):
            decode(data[:end], min_side=min_side)


@pytest.mark.parametrize("data", [JPEG, PROGRESSIVE])
def test_b2_every_cut_of_a_jpeg_fails(data: bytes) -> None:
    for end in range(3, len(data), 97):
        assert failure(data[:end]).error_type in ("truncated", "unidentified")


def test_b2_gif_without_end_marker() -> None:
    assert failure(files.saved(files.photo(), "GIF")[:-1]).error_type == "truncated"


def test_b2_apng_with_fewer_frames_than_it_claims() -> None:
    pictures = [files.photo(32, 24, seed) for seed in range(2)]
    whole = files.saved(pictures[0], "PNG", save_all=True, append_images=pictures[1:])
    at = whole.index(b"acTL")
    claims = files.chunk(b"acTL", struct.pack(">II", 3, 0))
    with pytest.raises(ImageError, match="truncated"):
        decode(whole[: at - 4] + claims + whole[at + 16 :], min_side=8)


def _jpeg_header(width: int, height: int) -> bytes:
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


def _gif_header(width: int, height: int) -> bytes:
    whole = files.saved(files.photo(16, 16), "GIF")
    return whole[:6] + struct.pack("<HH", width, height) + whole[10:]


def _bmp_header(width: int, height: int) -> bytes:
    whole = files.saved(files.photo(16, 16), "BMP")
    return whole[:18] + struct.pack("<ii", width, height) + whole[26:]


def _webp_header(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    inner = files.saved(files.photo(16, 16), "WEBP")[12:]
    body = b"WEBPVP8X\x0a\0\0\0\0\0\0\0" + size + inner
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff_header(width: int, height: int) -> bytes:
    sides = [(256, 4, 1, struct.pack("<I", width)), (257, 4, 1, struct.pack("<I", height))]
    return files.tiff([*sides, (273, 4, 1, struct.pack("<I", 8))])


def _heic_header(width: int, height: int) -> bytes:
    at = files.HEIC.index(b"ispe") + 8
    return files.HEIC[:at] + struct.pack(">II", width, height) + files.HEIC[at + 8 :]


@pytest.mark.parametrize(
    "data",
    [
        files.png(65535, 65535, rows=1),
        _jpeg_header(65535, 65535),
        _gif_header(65535, 65535),
        _bmp_header(65535, 65535),
        _bmp_header(65535, -65535),
        _webp_header(16383, 16383),
        _tiff_header(65535, 65535),
        _heic_header(65535, 65535),
    ],
    ids=["png", "jpeg", "gif", "bmp", "bmp_top_down", "webp", "tiff", "heic"],
)
def test_b3_header_bomb(data: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = failure(data)
    assert error.error_type == "too_large"
    assert error.width is not None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_b3_limit_is_exact(name: str) -> None:
    data = files.saved(files.photo(80, 60), name)
    for allowed in (80 * 60, 80 * 60 + 1):
        decoded = decode(data, min_side=60, limits=DecodeLimits(max_pixels=allowed))
        assert decoded.pixels.shape == (60, 80, 3)
    error = failure(data, limits=DecodeLimits(max_pixels=80 * 60 - 1))
    assert error.error_type == "too_large"


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_b3_pillows_own_limit_does_not_interfere(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = files.saved(files.photo(80, 60), name)
    expected = decode(data, min_side=60)
    for own in (3000, 1000, 4800, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", own)
        decoded = decode(data, min_side=60)
        assert decoded.pixel_hash == expected.pixel_hash
        assert own == Image.MAX_IMAGE_PIXELS
        assert failure(data, limits=DecodeLimits(max_pixels=4799)).error_type == "too_large"


def test_b3_gif_frame_beyond_the_screen() -> None:
    whole = files.saved(files.photo(16, 16), "GIF")
    at = whole.index(b",\0\0\0\0") + 1
    error = failure(whole[:at] + struct.pack("<HHHH", 60000, 60000, 16, 16) + whole[at + 8 :])
    assert (error.error_type, error.width) == ("too_large", 60016)


def _within(seconds: float, data: bytes, limits: DecodeLimits | None = None) -> str:
    start = time.process_time()
    error = failure(data, limits=limits)
    assert time.process_time() - start < 2 * seconds  # failure() decodes twice
    return error.error_type


@pytest.mark.parametrize(
    "bomb",
    [
        files.chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(3 << 20), 9)),
        files.chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(bytes(3 << 20), 9)),
        files.chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(3 << 20), 9)),
        files.chunk(b"eXIf", bytes(3 << 20)),
        files.chunk(b"tEXt", b"key\0" + b"x" * (3 << 20)),
        files.chunk(b"vpAg", bytes(3 << 20)),
        files.chunk(b"zTXt", b"key\0\0" + zlib.compress(bytes(1 << 19), 9)) * 5,
    ],
    ids=["zTXt", "iTXt", "iCCP", "eXIf", "tEXt", "private", "many"],
)
def test_b4_png_metadata_bomb(bomb: bytes) -> None:
    limits = DecodeLimits(max_metadata_bytes=2 << 20)
    assert _within(1.0, files.png(64, 64, bomb), limits) == "too_large"


def test_b4_png_text_beyond_pillows_own_limit_is_read() -> None:
    """Workflows of image generators exceed the 1 MiB at which Pillow refuses the whole image."""
    long = files.chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(3 << 20), 9))
    assert decode(files.png(64, 64, long), min_side=64).info.exif_fields == 1


def test_b4_jpeg_metadata_bomb() -> None:
    heavy = files.with_segments(JPEG, *[files.segment(0xE1, b"Exif\0\0" + bytes(60000))] * 40)
    assert failure(heavy, limits=DecodeLimits(max_metadata_bytes=1 << 20)).error_type == "too_large"
    decode(heavy, min_side=64, limits=DecodeLimits(max_metadata_bytes=4 << 20))


@pytest.mark.parametrize("name", [b"ICCP", b"EXIF", b"XMP "])
def test_b4_webp_metadata_bomb(name: bytes) -> None:
    inner = files.saved(files.photo(16, 16), "WEBP")[12:] + name + struct.pack("<I", 2 << 20)
    body = b"WEBP" + inner + bytes(2 << 20)
    data = b"RIFF" + struct.pack("<I", len(body)) + body
    assert failure(data, limits=DecodeLimits(max_metadata_bytes=1 << 20)).error_type == "too_large"


def test_b4_gif_comment_that_pillow_joins_in_quadratic_time() -> None:
    whole = files.saved(files.photo(16, 16), "GIF")
    comment = b"!\xfe" + (b"\xff" + bytes(255)) * 40_000 + b"\0"
    start = time.process_time()
    decoded = decode(whole[:-1] + comment + b";", min_side=16)
    assert time.process_time() - start < 1.0
    assert decoded.pixel_hash == decode(whole, min_side=16).pixel_hash
    limits = DecodeLimits(max_metadata_bytes=1 << 20)
    assert failure(whole[:-1] + comment + b";", limits=limits).error_type == "too_large"


def test_b4_too_many_frames() -> None:
    frame = b",\0\0\0\0\1\0\1\0\0\2\2D\1\0"
    gif = b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff" + frame * 100_000 + b";"
    assert _within(2.0, gif) == "too_large"
    apng = files.png(8, 8, files.chunk(b"acTL", struct.pack(">II", 100_000, 0)))
    assert _within(0.5, apng) == "too_large"


def test_b4_too_many_pixels_of_an_animation() -> None:
    pictures = [files.photo(32, 24, seed) for seed in range(3)]
    data = files.saved(pictures[0], "GIF", save_all=True, append_images=pictures[1:])
    decode(data, min_side=8, limits=DecodeLimits(max_animation_pixels=3 * 32 * 24))
    limits = DecodeLimits(max_animation_pixels=3 * 32 * 24 - 1)
    assert failure(data, limits=limits).error_type == "too_large"


def test_b4_animation_beyond_the_time_limit() -> None:
    pictures = [files.photo(32, 24, seed) for seed in range(3)]
    data = files.saved(pictures[0], "WEBP", save_all=True, append_images=pictures[1:])
    with pytest.raises(ImageError, match="timeout"):
        decode(data, min_side=8, limits=DecodeLimits(max_seconds=1e-9))


def test_b4_tiff_directory_loops() -> None:
    sides = [(256, 3, 1, b"\x08\0\0\0"), (257, 3, 1, b"\x08\0\0\0")]
    to_itself = files.tiff(sides, following=8)
    assert _within(0.5, to_itself) == "other"
    sub_loop = files.tiff([*sides, (0x8769, 4, 1, struct.pack("<I", 8))])
    assert _within(0.5, sub_loop) in ERROR_TYPES
    pair = bytearray(files.tiff([], following=14))
    pair += struct.pack("<HI", 0, 8)
    assert _within(0.5, bytes(pair)) == "other"


def test_b4_tiff_entries_that_share_their_bytes() -> None:
    """A file of 1 MB whose 20,000 entries all name the same megabyte would take 20 GB."""
    entries = [(40_000 + tag, 7, 1 << 20, struct.pack("<I", 8)) for tag in range(20_000)]
    data = files.tiff(entries, extra=bytes(1 << 20))
    assert _within(0.5, data) == "too_large"


def test_b4_progressive_jpeg_of_endless_scans() -> None:
    at = PROGRESSIVE.rindex(b"\xff\xda")
    scan = PROGRESSIVE[at:-2]
    assert _within(0.5, PROGRESSIVE[:-2] + scan * 600 + b"\xff\xd9") == "too_large"


@pytest.mark.parametrize("at", range(4))
def test_b6_heic_whose_item_type_is_no_text(at: int) -> None:
    """pi_heif 1.4.0 dies of a segmentation fault when asked for the metadata of such a file."""
    start = files.HEIC.index(b"Exif") + at
    data = files.HEIC[:start] + b"\xff" + files.HEIC[start + 1 :]
    assert failure(data).error_type == "unidentified"


def test_b5_file_size() -> None:
    limits = DecodeLimits(max_image_bytes=len(JPEG))
    decode(JPEG, min_side=64, limits=limits)
    assert failure(JPEG + b"\0", limits=limits).error_type == "too_large"


@pytest.mark.parametrize(
    ("data", "path", "expected"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a.jpg", "format_not_allowed"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a", "format_not_allowed"),
        (b"\xc5\xd0\xd3\xc6" + bytes(40), "a.jpg", "format_not_allowed"),
        (b"8BPS\0\1" + bytes(40), "a.jpg", "format_not_allowed"),
        (b"SIMPLE  =                    T", "a.jpg", "format_not_allowed"),
        (b"\xd7\xcd\xc6\x9a" + bytes(40), "a.jpg", "format_not_allowed"),
        (b"\1\0\0\0" + bytes(36) + b" EMF", "a.jpg", "format_not_allowed"),
        (b"%PDF-1.7\n", "a.jpg", "format_not_allowed"),
        (b"%PDF-1.7\n", "paper.pdf", "not_an_image"),
        (b"%!PS-Adobe-3.0\n", "paper.ps", "not_an_image"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "a.jpg", "format_not_allowed"),
        (b"\xef\xbb\xbf<svg/>", "a", "format_not_allowed"),
        (b"\0\0\1\0\1\0" + bytes(40), "a.png", "format_not_allowed"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "a.jpg", "format_not_allowed"),
        (b"P6\n1 1\n255\n\0\0\0", "a.jpg", "format_not_allowed"),
        (files.tiff([(0xC612, 1, 4, b"\1\4\0\0"), (256, 3, 1, b"\1\0\0\0")]), "a.dng",
         "format_not_allowed"),
    ],
)  # fmt: skip
def test_b7_format_not_allowed(
    data: bytes, path: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    for name in ("gs", "gswin32c", "gswin64c"):
        fake = tmp_path / name
        fake.write_text(f"#!/bin/sh\ntouch '{started}'\n")
        fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert failure(data, path).error_type == expected
    assert classify_unidentified(data, path) in (expected, "unidentified")
    assert not started.exists()


def test_b7_the_fake_ghostscript_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow alone does start it, so that the test above can fail."""
    started = tmp_path / "started"
    fake = tmp_path / "gs"
    fake.write_text(f"#!/bin/sh\ntouch '{started}'\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
    with (
        pytest.raises((OSError, subprocess.CalledProcessError)),
        Image.open(io.BytesIO(eps)) as image,
    ):
        image.load()
    assert started.exists()
    assert failure(eps, "a.jpg").error_type == "format_not_allowed"


@pytest.mark.parametrize("name", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF"])
def test_b8_content_decides(name: str) -> None:
    data = files.saved(files.photo(64, 48), name)
    for path in ("a.jpg", "a.png", "a.txt", "a", ""):
        assert decode(data, path=path, min_side=32).info.format == name


def test_p17_random_damage_is_always_an_image_error() -> None:
    rng = np.random.default_rng(5)
    icc = Image.Exif()
    icc[0x0112] = 6
    samples = [
        files.saved(files.photo(40, 30), name, **options)
        for name, options in (
            ("JPEG", {"exif": icc}),
            ("JPEG", {"progressive": True}),
            ("PNG", {"exif": icc}),
            ("GIF", {}),
            ("WEBP", {"lossless": True, "exif": icc}),
            ("BMP", {}),
            ("TIFF", {"compression": "tiff_lzw", "exif": icc}),
            ("AVIF", {"exif": icc}),
        )
    ] + [files.HEIC]
    limits = DecodeLimits(max_pixels=1 << 20)
    for sample in samples:
        for _ in range(60):
            damaged = bytearray(sample)
            for at in rng.integers(0, min(len(sample), 700), 3):
                damaged[at] = rng.integers(0, 256)
            with contextlib.suppress(ImageError):
                decoded = decode(bytes(damaged), min_side=16, limits=limits)
                assert decoded.pixels.shape[2] == 3


def test_p17_no_memory_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Image, "open", refuse)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", refuse)
    for data in (JPEG, files.png(8, 8)):
        assert failure(data).error_type == "out_of_memory"


def test_unknown_errors_are_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Surprise(Exception):
        pass

    def surprise(*_: object, **__: object) -> None:
        raise Surprise

    monkeypatch.setattr(Image, "open", surprise)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", surprise)
    for data in (JPEG, files.png(8, 8)):
        with pytest.raises(Surprise):
            decode(data, min_side=64)


def test_warning_filters_are_restored_after_threads_overlap() -> None:
    data = files.saved(files.photo(64, 48), "PNG")
    before = list(warnings.filters)
    threads = [
        threading.Thread(target=lambda: [decode(data, min_side=16) for _ in range(20)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_image_error_is_one_line_and_survives_pickling() -> None:
    error = ImageError("other", "a\nb\x1b[31m\u202e" + "x" * 999, format="PNG", width=3, height=4)
    assert error.message.startswith("a\\nb\\x1b[31m\\u202ex")
    assert len(error.message) <= 300
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made here
    assert vars(copy) == vars(error)
    assert str(copy) == f"other: {error.message}"
    assert one_line("\udcff") == "\\udcff"


@pytest.mark.parametrize(
    ("error_type", "stage", "message"),
    [("strange", "decode", "error_type"), ("other", "list", "stage")],
)
def test_image_error_refuses_unknown_names(error_type: str, stage: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageError(error_type, "x", stage)


@pytest.mark.parametrize(
    "field",
    [
        "max_image_bytes",
        "max_pixels",
        "max_frames",
        "max_animation_pixels",
        "max_metadata_bytes",
        "max_seconds",
    ],
)
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_must_be_positive(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        DecodeLimits(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.jpg", True),
        ("a.JPEG", True),
        ("file:///x/y%20z.PNG", True),
        ("a.b/c.psd", True),
        ("jpg", False),
        (".jpg", False),
        ("a.jpg/readme", False),
        ("a.txt", False),
        ("", False),
    ],
)
def test_looks_like_image_name(path: str, expected: bool) -> None:
    assert looks_like_image_name(path) is expected
