"""Wavelet candidates."""

import itertools

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.grouping.keys import compact_keys, flipped, random_keys, signs_of
from tests.transforms.samples import make_content
from transforms import candidates as module
from transforms.candidates import BANDED_NOTE, DENSE_NOTE, ProposeByWavelet, block_count
from transforms.grouping.bands import turn
from transforms.imaging.orientation import inverse_orientation
from transforms.imaging.wavelet import wavelet_keys_batch
from transforms.packing import unpack
from transforms.records import Candidate, Cap
from transforms.reporting.summary import add_up


def _content(name, keys, **changes):
    return _signed(name, compact_keys(keys[None]), **changes)


def _signed(name, signs, **changes):
    return make_content(name)._replace(wavelet_keys=signs.tobytes(), **changes)


def _pictures(count, seed, levels=256):
    cells = np.random.default_rng(seed).integers(0, levels, (count, 16, 16), dtype=np.uint8)
    return cells.repeat(4, axis=1).repeat(4, axis=2)


def _contents():
    """Sixty contents: fields, some with one cell changed, turned or mirrored."""
    fields = _pictures(40, 1)
    changed = fields[:12].copy()
    changed[:, 8:16, 20:28] //= 2
    turned = np.rot90(fields[6:14], axes=(1, 2))
    pictures = np.concatenate([fields, changed, turned])
    return [_content(f"c{n}", keys) for n, keys in enumerate(wavelet_keys_batch(pictures)[0])]


def _brute(contents, radius):
    """Return the candidates by their definition; no key here has a coefficient of zero."""
    found = []
    for i, first in enumerate(contents):
        for second in contents[i + 1 :]:
            a, b = sorted((first, second), key=lambda content: content.content)
            keys, (plain, *_) = (
                turn(np.frombuffer(one.wavelet_keys, np.uint8)[None])[:, 0] for one in (a, b)
            )
            bits = np.bitwise_count(keys ^ plain).sum(axis=1)
            if bits.min() <= radius:
                orientation = int(bits.argmin()) + 1
                least = int(bits.min())
                found.append(Candidate(a.content, b.content, "wavelet", least, orientation))
    return found


def _run(contents, radius, candidates=None, *, pairs=None, caps=()):
    with TestPipeline("FnApiRunner") as pipeline:
        found = pipeline | beam.Create(contents) | ProposeByWavelet(radius)
        proposed = found.candidates | beam.FlatMap(unpack)
        if candidates is not None:
            assert_that(proposed, equal_to(candidates))
        if pairs is not None:
            ends = proposed | beam.Map(lambda c: (c.a, c.b))
            assert_that(ends, equal_to(pairs), label="pairs")
        applied = found.caps | beam.combiners.ToList() | beam.FlatMap(add_up)
        assert_that(applied, equal_to(list(caps)), label="caps")
        read = found.stats | beam.Map(lambda s: (s.stage, s.items_in)) | beam.CombinePerKey(sum)
        assert_that(read, equal_to([("wavelet", len(contents))]), label="every key searched once")


@pytest.mark.parametrize("block_keys", [2048, 20, 5])
def test_g2_pairs_do_not_depend_on_the_blocks_or_the_order(monkeypatch, block_keys):
    monkeypatch.setattr(module, "_BLOCK_KEYS", block_keys)
    contents = _contents()
    expected = _brute(contents, 60)
    assert len(expected) == 26
    assert {candidate.orientation for candidate in expected} == {1, 6, 8}
    np.random.default_rng(block_keys).shuffle(contents)
    _run(contents, 60, expected)


@pytest.mark.parametrize("block_keys", [2048, 4])
def test_g2_keys_with_zeros_have_one_distance_however_they_are_cut(monkeypatch, block_keys):
    # Where a coefficient is zero, it matters which of two images is turned.
    contents = [_content(f"z{n}", key) for n, key in enumerate(random_keys(40, 5, levels=2))]
    packed = module._pack([(c.content, c.wavelet_keys, bytes(40)) for c in contents])
    keyed = np.sort(np.frombuffer(packed, module._KEYED), order=["place", "id"])
    turned = turn(keyed["signs"])
    expected = []
    for i, j in itertools.combinations(range(40), 2):
        bits = np.bitwise_count(turned[:, i] ^ turned[0, j]).sum(axis=1)
        if bits.min() <= 100:
            ends, orientation = (keyed["id"][i].tobytes(), keyed["id"][j].tobytes()), 1
            orientation += int(bits.argmin())
            if ends[0] > ends[1]:
                ends, orientation = ends[::-1], inverse_orientation(orientation)
            expected.append(Candidate(*ends, "wavelet", int(bits.min()), orientation))
    assert len(expected) > 40
    monkeypatch.setattr(module, "_BLOCK_KEYS", block_keys)
    _run(contents[::-1], 100, expected)


def test_g7_a_distance_equal_to_the_radius_passes():
    contents = _contents()[:52]
    expected = _brute(contents, 60)
    bits = max(candidate.wavelet_distance for candidate in expected)
    _run(contents, bits, expected)
    _run(contents, bits - 1, [c for c in expected if c.wavelet_distance < bits])


@pytest.mark.parametrize("radius", [-1, 257])
def test_g7_a_radius_out_of_range_is_refused(radius):
    with pytest.raises(ValueError, match="radius_bits"):
        ProposeByWavelet(radius)


@pytest.mark.parametrize("blocks", [1, 4])
def test_beyond_the_limit_bands_find_near_copies_and_a_cap_says_so(monkeypatch, blocks):
    monkeypatch.setattr(module, "EXHAUSTIVE_KEYS", 59)
    monkeypatch.setattr(module, "_MIN_BANDED_BLOCKS", blocks)
    contents = _contents()
    caps = [Cap("wavelet", "exhaustive_keys", 59, 60, BANDED_NOTE)]
    _run(contents, 30, _brute(contents, 30), caps=caps)


@pytest.mark.parametrize(
    ("keys", "blocks"),
    [(0, 1), (4096, 1), (4097, 2), (10**5, 12), (10**5 + 1, 3), (10**6, 3), (10**8, 200)],
)
def test_blocks_grow_in_number_and_size(keys, blocks):
    assert block_count(keys) == blocks


def _hot(count, flips, spread):
    """Contents with near-identical keys, then others; the rank is the place in a mixed order."""
    random = np.random.default_rng(3)
    base = random.integers(0, 256, (1, 32), dtype=np.uint8)
    near = np.concatenate([flipped(base, flips, n) for n in range(count)])
    plain = np.concatenate([near, random.integers(0, 256, (spread, 32), dtype=np.uint8)])
    ranks = random.permutation(len(plain))
    return [
        _signed(f"h{n}", signs, rank=int(ranks[n]).to_bytes(4, "big"))
        for n, signs in enumerate(signs_of(plain))
    ]


@pytest.mark.parametrize("limit", [10**5, 50])
@pytest.mark.parametrize("block_keys", [2048, 20])
def test_images_with_one_key_are_proposed_with_the_first_of_them(monkeypatch, limit, block_keys):
    monkeypatch.setattr(module, "EXHAUSTIVE_KEYS", limit)
    monkeypatch.setattr(module, "_BLOCK_KEYS", block_keys)
    monkeypatch.setattr(module, "_DENSE", 30)
    monkeypatch.setattr(module, "_DENSE_IN_BLOCK", 30)
    contents = _hot(60, 0, 30)
    first = min(contents[:60], key=lambda content: content.rank).content
    star = [tuple(sorted((first, c.content))) for c in contents[:60] if c.content != first]
    caps = [Cap("wavelet", "dense_neighbourhood", 30, 59, DENSE_NOTE)]
    if limit == 50:
        caps.append(Cap("wavelet", "exhaustive_keys", 50, 90, BANDED_NOTE))
    _run(contents, 60, pairs=star, caps=caps)


def test_near_identical_images_of_many_blocks_all_meet_the_first_of_them(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_KEYS", 100)
    monkeypatch.setattr(module, "_DENSE", 40)
    monkeypatch.setattr(module, "_DENSE_IN_BLOCK", 10)
    contents = _hot(250, 8, 50)
    first = min(contents[:250], key=lambda content: content.rank).content
    ids = {content.content for content in contents[:250]}

    def check(pairs):
        assert len(pairs) == len(set(pairs)) < 1500
        assert {end for pair in pairs if first in pair for end in pair} == ids

    with TestPipeline("FnApiRunner") as pipeline:
        proposed = pipeline | beam.Create(contents) | ProposeByWavelet(60)
        pairs = proposed.candidates | beam.FlatMap(unpack) | beam.Map(lambda c: (c.a, c.b))
        assert_that(pairs, check)


def test_followers_meet_the_first_image_that_has_their_very_key(monkeypatch):
    monkeypatch.setattr(module, "_DENSE", 30)
    monkeypatch.setattr(module, "_DENSE_IN_BLOCK", 30)
    contents = _hot(60, 5, 10)
    by_rank = sorted(contents[:60], key=lambda content: content.rank)
    leader, others = by_rank[0], by_rank[1:]
    others[7] = others[7]._replace(wavelet_keys=others[3].wavelet_keys)
    others[9] = others[9]._replace(wavelet_keys=others[3].wavelet_keys)
    names = [(leader, other) for other in others] + [(others[3], others[7]), (others[3], others[9])]
    pairs = [tuple(sorted((a.content, b.content))) for a, b in names]
    caps = [Cap("wavelet", "dense_neighbourhood", 30, 59, DENSE_NOTE)]
    _run([leader, *others, *contents[60:]], 60, pairs=pairs, caps=caps)


def test_orientations_undo_each_other_when_a_pair_is_stored_the_other_way_round():
    assert module._INVERSE[1:].tolist() == [inverse_orientation(value) for value in range(1, 9)]
