"""Word candidates through the pipeline."""

import apache_beam as beam
import cv2
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.samples import digest, make_image
from transforms import words as module
from transforms.contents import content_of
from transforms.fingerprints import read_image
from transforms.grouping import words as grouping
from transforms.imaging import words as imaging
from transforms.imaging.decode import DecodeLimits
from transforms.imaging.words import word_rows
from transforms.packing import unpack
from transforms.records import Candidate, ImageRef
from transforms.rounds import blank_edge, merge
from transforms.words import ProposeByWords, part_count, share_count, words_size


def _picture(seed):
    rng = np.random.default_rng(seed)
    out = np.full((180, 240), 120, np.uint8)
    for _ in range(120):
        x, y, w, h = (int(v) for v in rng.integers(0, (240, 180, 40, 40)))
        cv2.rectangle(out, (x, y), (x + w + 4, y + h + 4), int(rng.integers(0, 256)), -1)
    return cv2.GaussianBlur(out, (3, 3), 0)


def _proposed(pipeline, images, least):
    made = pipeline | beam.Create(images)
    return made | ProposeByWords(made | beam.Map(content_of), least)


def _images():
    """Three pictures, a crop of the first, a mirrored crop of the second, and one without words."""
    one, two, three = (_picture(seed) for seed in (1, 2, 3))
    pictures = {
        "one": one,
        "crop": one[20:170, 20:220],
        "two": two,
        "mirrored": two[10:170, 15:230][:, ::-1],
        "three": three,
        "flat": np.zeros((180, 240), np.uint8),
    }
    return [
        make_image(name, words=word_rows(np.ascontiguousarray(pixels)).tobytes())
        for name, pixels in pictures.items()
    ]


def _shape(candidate):
    assert candidate.generators == "words"
    assert candidate.wavelet_distance == -1
    assert abs(candidate.votes) >= 4
    return candidate.a, candidate.b, candidate.votes > 0


def _pair(first, second, plain):
    return (*sorted((digest(first), digest(second))), plain)


@pytest.mark.parametrize(
    ("images", "packed", "shares"),
    [(1 << 17, 2048, 1), (1 << 17, 2, 1), (1 << 17, 2, 4), (2, 2048, 2), (1, 3, 1)],
)
def test_g2_pairs_do_not_depend_on_the_units(monkeypatch, images, packed, shares):
    monkeypatch.setattr(module, "_PART_IMAGES", images)
    monkeypatch.setattr(module, "_PACKED_IMAGES", packed)
    monkeypatch.setattr(module, "_SHARES", shares)
    monkeypatch.setattr(module, "_SHARED_IMAGES", 0)
    with TestPipeline("FnApiRunner") as pipeline:
        found = _proposed(pipeline, _images(), 4)
        assert_that(
            found.candidates | beam.FlatMap(unpack) | beam.Map(_shape),
            equal_to([_pair("one", "crop", True), _pair("two", "mirrored", False)]),
        )
        read = found.stats | beam.Map(lambda s: s.items_in) | beam.CombineGlobally(sum)
        assert_that(read, equal_to([5]), label="every content with words counted once")


def test_words_that_several_bundles_packed_are_matched_once():
    words = {name: word_rows(_picture(seed)).tobytes() for seed, name in enumerate("abc")}
    bundles = [[(digest(name), words[name]) for name in names] for names in ("ca", "abc", "b")]
    names, image, found = module._unpack(map(module._packed, bundles))
    assert [name.tobytes() for name in names] == sorted(map(digest, "abc"))
    for number, name in enumerate(sorted("abc", key=digest)):
        own = grouping.postings(np.frombuffer(words[name], imaging.ROW))[0]
        np.testing.assert_array_equal(found[image == number], own)


def test_a_bundle_packs_a_content_once(monkeypatch):
    monkeypatch.setattr(module, "_SEEN_IMAGES", 2)
    words = word_rows(_picture(1)).tobytes()
    work = module._PackDoFn()
    work.start_bundle()
    for name in "aabbacd":  # the first two are forgotten when the third is seen
        assert not list(work.process(make_image(name, words=words)))
    assert [image[0] for image in work.images] == [digest(name) for name in "abcd"]


@pytest.mark.parametrize("shared_images", [0, 100])
def test_h5_a_cut_is_a_cap(monkeypatch, shared_images):
    monkeypatch.setattr(grouping, "DF_CUT", 2)
    monkeypatch.setattr(module, "_SHARED_IMAGES", shared_images)
    words = word_rows(_picture(1))
    images = [make_image(name, words=words.tobytes()) for name in "abc"]
    different = len(np.unique(grouping.postings(words)[0]["word"]))
    with TestPipeline("FnApiRunner") as pipeline:
        found = _proposed(pipeline, images, 4)
        caps = found.caps | beam.Map(lambda c: (c.stage, c.name, c.limit, c.applied))
        assert_that(caps, equal_to([("words", "document_frequency", 2, different)]))


def test_no_words_no_candidates():
    with TestPipeline("FnApiRunner") as pipeline:
        found = _proposed(pipeline, [make_image("a"), make_image("b")], 2)
        assert_that(found.candidates, equal_to([]))


def test_g7_one_vote_is_refused():
    with pytest.raises(ValueError, match="least_votes"):
        ProposeByWords(None, 1)


def test_parts_grow_with_the_images_and_one_part_has_shares():
    counts = (0, 2047, 2048, 1 << 17, (1 << 17) + 1)
    assert [share_count(n) for n in counts] == [1, 1, 2, 2, 1]
    assert [part_count(n) for n in (0, 1, 1 << 17, (1 << 17) + 1, 10**6)] == [1, 1, 1, 2, 8]


@pytest.mark.parametrize(
    "size",
    [
        (240, 180),
        (500, 375),
        (319, 400),
        (320, 320),
        (64, 900),
        (300, 290),
        (1281, 1279),
        (900, 2001),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_words_lie_in_a_picture_of_the_size_that_is_derived(monkeypatch, size, suffix):
    seen = []
    reduced = imaging._reduced
    monkeypatch.setattr(imaging, "_reduced", lambda pixels: seen.append(reduced(pixels)) or seen[0])
    _, data = cv2.imencode(suffix, np.zeros((size[1], size[0], 3), np.uint8))
    ref = ImageRef("file:///a", "a", "a", 0, len(data), None, None, "")
    read_image(ref, data.tobytes(), DecodeLimits(), words=True)
    assert seen[0].shape[::-1] == words_size(*size)


def test_the_transform_is_carried_to_the_edge():
    words = Candidate(b"a", b"b", "words", -1, 1, -7, 65536, 12, -3, 4)
    wavelet = Candidate(b"a", b"b", "wavelet", 12, 6)
    for both in (merge(words, wavelet), merge(wavelet, words)):
        assert both == Candidate(b"a", b"b", "wavelet+words", 12, 6, -7, 65536, 12, -3, 4)
        assert blank_edge(both)[-4:] == (65536, 12, -3, 4)
