"""Candidates by embeddings."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.grouping.keys import compact_keys, random_keys
from tests.transforms.imaging import pictures
from tests.transforms.samples import make_content
from transforms import similar as module
from transforms.candidates import DENSE_NOTE
from transforms.color import ColorSettings, CompareColors
from transforms.grouping.bands import turn
from transforms.grouping.cosines import cosines, vectors_of
from transforms.grouping.hamming import distances
from transforms.imaging.color import color_descriptor
from transforms.imaging.layout import layout
from transforms.packing import PackedCandidates, unpack
from transforms.records import Candidate, Cap, Content, Learned
from transforms.reporting.summary import add_up
from transforms.rounds import ComponentInputs
from transforms.similar import (
    SKETCHED_NOTE,
    ProposeByEmbedding,
    block_count,
    is_exhaustive,
)

SIMILARITY = 0.8


def _halves(count, dimensions=24, seed=1, centres=10, spread=0.45):
    """Vectors of length 1 around some centres."""
    random = np.random.default_rng(seed)
    middle = random.standard_normal((centres, dimensions))
    vectors = middle[random.integers(0, centres, count)]
    vectors = vectors + spread * random.standard_normal((count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)


def _learned(vector):
    return Learned(np.asarray(vector, np.float16).tobytes(), "", 0.0, "", "", "")


def _contents(halves, prefix="e"):
    names = (f"{prefix}{number}" for number in range(len(halves)))
    return [
        make_content(name)._replace(learned=_learned(row))
        for name, row in zip(names, halves, strict=True)
    ]


def _brute(contents, similarity):
    """Return the candidates by their definition."""
    contents = sorted(contents, key=lambda content: content.content)
    rows = [np.frombuffer(content.learned.embedding, np.float16) for content in contents]
    vectors = vectors_of(np.array(rows))
    first, second = np.triu_indices(len(contents), 1)
    close = cosines(vectors, vectors, first, second) >= similarity
    return [
        Candidate(contents[i].content, contents[j].content, "embedding", -1, 1)
        for i, j in zip(first[close], second[close], strict=True)
    ]


def _run(contents, similarity, candidates=None, *, pairs=None, caps=(), skipped=0):
    with TestPipeline("FnApiRunner") as pipeline:
        found = pipeline | beam.Create(contents) | ProposeByEmbedding(similarity)
        proposed = found.candidates | beam.FlatMap(unpack)
        if candidates is not None:
            assert_that(proposed, equal_to(candidates))
        if pairs is not None:
            ends = proposed | beam.Map(lambda c: (c.a, c.b))
            assert_that(ends, equal_to(pairs), label="pairs")
        applied = found.caps | beam.combiners.ToList() | beam.FlatMap(add_up)
        assert_that(applied, equal_to(list(caps)), label="caps")
        counted = [(("embedding", "items_in"), len(contents) - skipped)]
        counted += [(("embedding", "skipped"), skipped)]
        told = found.stats | beam.FlatMap(
            lambda s: [((s.stage, name), getattr(s, name)) for name in ("items_in", "skipped")]
        )
        assert_that(told | beam.CombinePerKey(sum), equal_to(counted), label="each searched once")


@pytest.mark.parametrize("block_contents", [2048, 20, 5])
def test_g2_pairs_do_not_depend_on_the_blocks_or_the_order(monkeypatch, block_contents):
    monkeypatch.setattr(module, "_BLOCK_CONTENTS", block_contents)
    contents = _contents(_halves(60))
    expected = _brute(contents, SIMILARITY)
    assert len(expected) > 60
    np.random.default_rng(block_contents).shuffle(contents)
    _run(contents, SIMILARITY, expected)


def test_g2_pairs_do_not_depend_on_how_much_a_bundle_holds(monkeypatch):
    monkeypatch.setattr(module, "_DEALT_BYTES", 100)
    contents = _contents(_halves(30))
    _run(contents, SIMILARITY, _brute(contents, SIMILARITY))


def test_g7_a_cosine_equal_to_the_threshold_passes():
    contents = _contents(_halves(30))
    vectors = vectors_of(_halves(30))
    rows, columns = np.triu_indices(30, 1)
    values = np.sort(cosines(vectors, vectors, rows, columns))
    least = float(values[-20])
    assert len(_brute(contents, least)) >= 20 > len(_brute(contents, least + 0.0001))
    _run(contents, least, _brute(contents, least))
    _run(contents, round(least + 0.0001, 4), _brute(contents, round(least + 0.0001, 4)))


@pytest.mark.parametrize("similarity", [-0.1, 1.1, float("nan")])
def test_g7_a_similarity_out_of_range_is_refused(similarity):
    with pytest.raises(ValueError, match="similarity"):
        ProposeByEmbedding(similarity)


def test_m7_contents_without_a_usable_embedding_are_left_out_and_counted():
    contents = _contents(_halves(20))
    infinite, zero = np.full(24, 1.0), np.zeros(24)
    infinite[3] = np.inf
    bad = [
        make_content("none"),
        make_content("failed")._replace(
            learned=Learned(b"", "", 0.0, "global", "bad_embedding", "no finite vector")
        ),
        make_content("infinite")._replace(learned=_learned(infinite)),
        make_content("zero")._replace(learned=_learned(zero)),
        make_content("nan")._replace(learned=_learned(infinite * np.nan)),
    ]
    _run([*bad, *contents], SIMILARITY, _brute(contents, SIMILARITY), skipped=5)


def test_no_contents_propose_nothing():
    with TestPipeline("FnApiRunner") as pipeline:
        found = pipeline | beam.Create([make_content("a")]) | ProposeByEmbedding(SIMILARITY)
        assert_that(found.candidates, equal_to([]))


def _equal(count, others):
    """Contents with one embedding, in a mixed keep-best order, then others."""
    halves = np.concatenate(
        [
            np.repeat(_halves(1, seed=5), count, axis=0),
            _halves(others, seed=6, centres=others),
        ]
    )
    ranks = np.random.default_rng(3).permutation(len(halves))
    return [
        content._replace(rank=int(rank).to_bytes(4, "big"))
        for content, rank in zip(_contents(halves), ranks, strict=True)
    ]


def test_equal_embeddings_are_proposed_with_the_first_of_them(monkeypatch):
    monkeypatch.setattr(module, "_DENSE", 30)
    monkeypatch.setattr(module, "_DENSE_IN_BLOCK", 30)
    contents = _equal(60, 12)
    first = min(contents[:60], key=lambda content: content.rank).content
    star = [tuple(sorted((first, c.content))) for c in contents[:60] if c.content != first]
    star += [(c.a, c.b) for c in _brute(contents[60:], 0.9)]
    caps = [Cap("embedding", "dense_neighbourhood", 30, 59, DENSE_NOTE)]
    _run(contents, 0.9, pairs=star, caps=caps)


def test_equal_embeddings_of_many_blocks_all_meet_the_first_of_them(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_CONTENTS", 60)
    monkeypatch.setattr(module, "_DENSE", 40)
    monkeypatch.setattr(module, "_DENSE_IN_BLOCK", 10)
    contents = _equal(250, 30)
    first = min(contents[:250], key=lambda content: content.rank).content
    ids = {content.content for content in contents[:250]}

    def check(pairs):
        assert len(pairs) == len(set(pairs)) < 1000
        assert {end for pair in pairs if first in pair for end in pair} == ids

    with TestPipeline("FnApiRunner") as pipeline:
        proposed = pipeline | beam.Create(contents) | ProposeByEmbedding(0.9)
        pairs = proposed.candidates | beam.FlatMap(unpack) | beam.Map(lambda c: (c.a, c.b))
        assert_that(pairs, check)


def test_followers_of_another_block_are_proposed_only_if_they_are_near():
    wide = _halves(1500, centres=3, spread=0.5)
    contents = _contents(wide)
    near = {(c.a, c.b) for c in _brute(contents, SIMILARITY)}
    assert len(near) > 20_000

    def check(pairs):
        assert len(pairs) == len(set(pairs)) < len(near) / 2
        assert set(pairs) <= near
        assert {end for pair in pairs for end in pair} == {end for pair in near for end in pair}

    with pytest.MonkeyPatch.context() as patch, TestPipeline("FnApiRunner") as pipeline:
        patch.setattr(module, "_BLOCK_CONTENTS", 400)
        proposed = pipeline | beam.Create(contents) | ProposeByEmbedding(SIMILARITY)
        pairs = proposed.candidates | beam.FlatMap(unpack) | beam.Map(lambda c: (c.a, c.b))
        assert_that(pairs, check)


def test_embeddings_of_two_lengths_are_refused():
    contents = _contents(_halves(3)) + _contents(_halves(3, dimensions=16), "f")
    with (
        pytest.raises(Exception, match=r"(24 and of 16|16 and of 24) values"),
        TestPipeline("FnApiRunner") as pipeline,
    ):
        _ = pipeline | beam.Create(contents) | ProposeByEmbedding(SIMILARITY)


@pytest.mark.parametrize(
    ("contents", "sketched", "blocks"),
    [
        (0, False, 1),
        (2048, False, 1),
        (2049, False, 2),
        (10**5, False, 6),
        (10**5 + 1, True, 3),
        (10**6, True, 3),
        (10**7, True, 25),
    ],
)
def test_blocks_grow_in_number_and_size(contents, sketched, blocks):
    assert is_exhaustive(contents, 512) is not sketched
    assert block_count(contents, sketched=sketched) == blocks


def test_long_vectors_are_compared_in_pairs_as_long_as_their_values_are_as_many():
    assert is_exhaustive(20_000, 2560)
    assert not is_exhaustive(20_001, 2560)
    assert not is_exhaustive(100_001, 16)


def _planted(copies, similarity, dimensions=64, seed=8):
    """Contents of random vectors, and copies of the first at a cosine; and the planted pairs."""
    random = np.random.default_rng(seed)
    plain = random.standard_normal((3 * copies, dimensions))
    plain /= np.linalg.norm(plain, axis=1, keepdims=True)
    noise = random.standard_normal((copies, dimensions))
    noise -= (noise * plain[:copies]).sum(axis=1, keepdims=True) * plain[:copies]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    near = similarity * plain[:copies] + np.sqrt(1 - similarity**2) * noise
    contents = _contents(np.concatenate([plain, near]))
    pairs = zip(contents[:copies], contents[3 * copies :], strict=True)
    return contents, [tuple(sorted((a.content, b.content))) for a, b in pairs]


@pytest.mark.parametrize("blocks", [1, 3])
def test_beyond_the_limit_sketches_find_copies_and_a_cap_says_so(monkeypatch, blocks):
    monkeypatch.setattr(module, "EXHAUSTIVE_CONTENTS", 239)
    monkeypatch.setattr(module, "_MIN_SKETCHED_BLOCKS", blocks)
    contents, pairs = _planted(60, 0.97)
    np.random.default_rng(blocks).shuffle(contents)
    caps = [Cap("embedding", "exhaustive_contents", 239, 240, SKETCHED_NOTE)]
    _run(contents, 0.9, pairs=pairs, caps=caps)


def test_beyond_the_limit_equal_embeddings_meet_the_first_of_their_block(monkeypatch):
    monkeypatch.setattr(module, "EXHAUSTIVE_CONTENTS", 50)
    contents = _equal(250, 30)
    first = min(contents[:250], key=lambda content: content.rank).content
    ids = {content.content for content in contents[:250]}

    def check(pairs):
        assert len(pairs) == len(set(pairs)) < 1000
        assert {end for pair in pairs if first in pair for end in pair} == ids

    with TestPipeline("FnApiRunner") as pipeline:
        proposed = pipeline | beam.Create(contents) | ProposeByEmbedding(0.9)
        pairs = proposed.candidates | beam.FlatMap(unpack) | beam.Map(lambda c: (c.a, c.b))
        assert_that(pairs, check)
        counts = proposed.caps | beam.Map(lambda cap: (cap.name, cap.applied))
        summed = counts | beam.CombinePerKey(sum)
        expected = [("exhaustive_contents", 280), ("dense_neighbourhood", 247)]
        assert_that(summed, equal_to(expected), label="caps")


def _alike(name, pixels):
    """A content of a picture, with one embedding for all, whose key is far from any other's."""
    pixels = np.ascontiguousarray(pixels)
    return make_content(name)._replace(
        wavelet_keys=compact_keys(random_keys(1, seed=int(name))).tobytes(),
        color=color_descriptor(pixels).tobytes(),
        layout=layout(pixels).tobytes(),
        width=pixels.shape[1],
        height=pixels.shape[0],
        learned=_learned(_halves(1)[0]),
    )


@pytest.mark.parametrize("verify", [True, False])
def test_what_embeddings_alone_propose_is_asked_for_and_becomes_an_edge_of_theirs(verify):
    picture = pictures.photograph(1)
    contents = [_alike("1", picture), _alike("2", pictures.jpeg(picture, 80))]
    bits = distances(
        turn(np.frombuffer(contents[0].wavelet_keys, np.uint8)[None]),
        turn(np.frombuffer(contents[1].wavelet_keys, np.uint8)[None])[0],
    )
    assert bits.min() > 60
    settings = ColorSettings(0.5, 0.85, 0.5, 0.15, 0.6, verify=verify)

    def check(edges):
        (edge,) = edges
        assert edge.generators == "embedding"
        assert edge[:2] == tuple(sorted(content.content for content in contents))
        # Measured when it was asked for: the generator left it open.
        assert edge.wavelet_distance > 60
        assert edge.layout_similarity is not None
        assert edge.verdict == ("undecided" if verify else "review")

    with TestPipeline("FnApiRunner") as pipeline:
        made = pipeline | beam.Create(contents)
        proposed = made | ProposeByEmbedding(0.9)
        key = beam.Map(lambda one: (b"k", one))
        keyed = made | "Key contents" >> key.with_output_types(tuple[bytes, Content])
        pairs = proposed.candidates | "Key pairs" >> beam.Map(
            lambda one: (b"k", one)
        ).with_output_types(tuple[bytes, PackedCandidates])
        out = ComponentInputs(keyed, pairs, []).join() | CompareColors(settings)
        decided = out.edges | "Decided" >> beam.Values()
        waiting = out.undecided | "Waiting" >> beam.FlatMap(lambda unit: unit.pairs)
        ended = out.finished | "Ended" >> beam.FlatMap(lambda one: one[1]["edges"])
        assert_that((decided, waiting, ended) | beam.Flatten(), check)
