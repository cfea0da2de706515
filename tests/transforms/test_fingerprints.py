"""Stage 1 as a transform: every input leaves once, with what was measured."""

import hashlib
import io
from pathlib import Path

import apache_beam as beam
import cv2
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to
from PIL import ExifTags, Image

from tests.transforms.samples import make_ref
from transforms import fingerprints as module
from transforms.access import Access
from transforms.fingerprints import ComputeFingerprints, fingerprint, read_image
from transforms.imaging.decode import DecodeLimits, decode
from transforms.imaging.orientation import ORIENTATIONS, apply
from transforms.records import ImageRef
from transforms.storage import reads, to_uri


def _written(path: Path, data: bytes) -> ImageRef:
    path.write_bytes(data)
    return make_ref(path.name, uri=to_uri(str(path)), path=str(path), size_bytes=len(data))


def test_a_failure_keeps_what_the_header_and_the_bytes_told(tmp_path: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    whole = cv2.imencode(".jpg", pixels)[1].tobytes()
    good = _written(tmp_path / "good.jpg", whole)
    cut = _written(tmp_path / "cut.jpg", whole[: len(whole) // 2])
    gone = make_ref("gone.jpg", uri=to_uri(str(tmp_path / "gone.jpg")))
    with TestPipeline("FnApiRunner") as pipeline:
        out = pipeline | beam.Create([good, cut, gone]) | ComputeFingerprints()
        assert_that(
            out.fingerprints | beam.Map(lambda f: (f.ref, f.format, f.width, f.height)),
            equal_to([(good, "JPEG", 64, 48)]),
            label="read",
        )
        failed = out.failed | beam.Map(
            lambda f: (f.ref, f.failure.stage, f.failure.error_type, f.format, f.width, f.sha256)
        )
        digest = hashlib.sha256(whole[: len(whole) // 2]).digest()
        assert_that(
            failed,
            equal_to(
                [
                    (cut, "decode", "truncated", "JPEG", None, digest),
                    (gone, "read", "vanished", None, None, None),
                ]
            ),
            label="failed",
        )


def _jpeg(pixels: np.ndarray, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", exif=exif)
    return out.getvalue()


@pytest.mark.parametrize(
    ("size", "words", "reduced"),
    [((500, 333), False, (83, 125)), ((500, 333), True, (83, 125)), ((503, 366), False, (92, 126))],
)
def test_reduced_pixels_are_those_that_lie_in_the_picture(
    size: tuple[int, int], words: bool, reduced: tuple[int, int]
) -> None:
    grid = np.random.default_rng(8).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    pixels = cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
    limits, ref = DecodeLimits(), make_ref("a.jpg")
    upright = read_image(ref, _jpeg(pixels, 1), limits, words=False).pixels
    assert read_image(ref, _jpeg(pixels, 1), limits, words=words).pixels.shape == (*reduced, 3)
    for turn in ORIENTATIONS:
        turned = read_image(ref, _jpeg(pixels, turn), limits, words=False).pixels
        np.testing.assert_array_equal(turned, apply(upright, turn))


def test_batches_lose_no_image_and_measure_each_as_if_it_were_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_IMAGES", 4)
    monkeypatch.setattr(module, "_BATCH_SAMPLES", 60_000)
    rng = np.random.default_rng(6)
    refs, expected, lost = [], [], []
    for number in range(11):
        side = int(rng.integers(20, 200))
        pixels = rng.integers(0, 256, (side, 64, 3), dtype=np.uint8)
        data = cv2.imencode(".png", pixels)[1].tobytes()
        broken = number in (2, 3, 10)
        ref = _written(tmp_path / f"{number}.png", data[:-20] if broken else data)
        refs.append(ref)
        if broken:
            lost.append(ref.uri)
        else:
            expected.append(fingerprint(ref, data, DecodeLimits()))
    with TestPipeline("FnApiRunner") as pipeline:
        out = pipeline | beam.Create(refs) | ComputeFingerprints()
        assert_that(out.fingerprints, equal_to(expected), label="read")
        assert_that(out.failed | beam.Map(lambda f: f.ref.uri), equal_to(lost), label="failed")
        counts = out.stats | beam.Map(lambda s: (s.items_in, s.items_out, s.failed))
        sums = (
            counts
            | beam.combiners.ToList()
            | beam.Map(lambda c: [sum(x) for x in zip(*c, strict=True)])
        )
        assert_that(sums, equal_to([[11, 8, 3]]), label="counts")


def test_m5_no_more_pixels_are_held_than_are_measured_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_SAMPLES", 60 * 90 * 3)
    done = []
    measure = module.fingerprints
    monkeypatch.setattr(module, "fingerprints", lambda b: done.append(len(b)) or measure(b))
    monkeypatch.setattr(module, "decode", lambda d, **o: done.append("read") or decode(d, **o))
    rng = np.random.default_rng(8)
    work = module._FingerprintDoFn(DecodeLimits(), False, Access(concurrency=1))
    work.setup()
    work.start_bundle()
    found = []
    for number in range(4):
        pixels = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
        ref = _written(tmp_path / f"{number}.png", cv2.imencode(".png", pixels)[1].tobytes())
        found += work.process(ref)
    assert (len(found), len(work.reads)) == (3, 1)
    found += list(work.finish_bundle())[:-1]
    assert done == ["read", 1] * 4 + [0]  # nothing was left at the end
    assert len(found) == work.meter.items_in == work.meter.items_out == 4


def test_exact_copies_are_decoded_once_and_measure_as_if_they_were_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BATCH_IMAGES", 1)
    monkeypatch.setattr(module, "_TIMED_IMAGES", 1)
    monkeypatch.setattr(module, "_KNOWN_IMAGES", 2)
    monkeypatch.setattr(reads, "_AHEAD", 1)
    decoded = []
    monkeypatch.setattr(
        module, "decode", lambda data, **options: decoded.append(data) or decode(data, **options)
    )
    rng = np.random.default_rng(7)
    contents = [
        cv2.imencode(".jpg", rng.integers(0, 256, (60, 90, 3), dtype=np.uint8))[1].tobytes()
        for _ in range(3)
    ]
    work = module._FingerprintDoFn(DecodeLimits(), False, Access(concurrency=1))
    work.setup()
    work.start_bundle()
    # The first is forgotten when the third is known.
    for number, (which, times) in enumerate([(0, 1), (1, 2), (0, 2), (2, 3), (0, 4), (2, 4)]):
        data = contents[which]
        ref = _written(tmp_path / f"{number}.jpg", data)._replace(input_index=number)
        (found,) = work.process(ref)
        assert len(decoded) == times
        expected = fingerprint(ref, data, DecodeLimits())
        del decoded[times:]
        assert found == expected
    assert work.meter.items_in == work.meter.items_out == 6
