"""What is known of a component: joined, numbered, merged and measured."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.imaging import pictures
from tests.transforms.samples import key_forms, make_content, make_edge
from transforms import rounds as module
from transforms.grouping.walk import Prospect, Verified
from transforms.imaging.wavelet import wavelet_keys
from transforms.packing import pack
from transforms.records import Candidate, Learned
from transforms.rounds import (
    ComponentInputs,
    blank_edge,
    gather,
    leave,
    measure,
    merge,
    orient,
    promise,
    resume,
    star_candidate,
    verified,
)

# In the keep-best order, which is not that of the ids.
CONTENTS = [make_content(name) for name in "abef"]


def _candidate(first, second, *rest):
    return Candidate(*sorted((first.content, second.content)), *rest)


def _joined(candidates=(), **edges):
    # Joins keep no order.
    return b"key", {"contents": CONTENTS[::-1], "candidates": pack(candidates), **edges}


def test_members_are_numbered_in_the_keep_best_order():
    a, b, e, f = CONTENTS
    assert [a.rank, b.rank, e.rank, f.rank] == sorted(content.rank for content in CONTENTS)
    far, near = _candidate(f, a, "wavelet", 40, 1, 0), _candidate(e, b, "wavelet", 3, 6, 0)
    first, second = make_edge(a, b), make_edge(b, f, "reject")
    found = gather(_joined([far, near], edges0=[first], edges1=[second]))
    assert found.key == b"key"
    assert found.contents == CONTENTS
    assert found.candidates == {(0, 3): far, (1, 2): near}
    assert found.edges == {(0, 1): first, (1, 3): second}


def test_candidates_of_two_generators_are_one_with_the_evidence_of_both():
    a, b = CONTENTS[:2]
    wavelet = _candidate(a, b, "wavelet", 12, 6, 0)
    words = _candidate(a, b, "words", -1, 1, -7)
    for both in ([wavelet, words], [words, wavelet], [words, wavelet, words]):
        assert gather(_joined(both)).candidates == {
            (0, 1): _candidate(a, b, "wavelet+words", 12, 6, -7)
        }
    # What one generator says twice stays one.
    assert merge(wavelet, wavelet) == wavelet


def test_an_edge_takes_the_evidence_of_its_candidate_and_nothing_else():
    a, b = CONTENTS[:2]
    candidate = _candidate(a, b, "wavelet+words", 12, 6, -7)
    edge = blank_edge(candidate)
    assert {name: getattr(edge, name) for name in candidate._fields if name in edge._fields} == {
        name: value for name, value in candidate._asdict().items() if name in edge._fields
    }
    assert (edge.generators, edge.wavelet_distance, edge.votes) == ("wavelet+words", 12, -7)
    assert [name for name, value in edge._asdict().items() if value is None] == [
        "color_similarity", "layout_similarity", "global_similarity", "local_inliers",
        "local_overlap", "local_score",
    ]  # fmt: skip
    assert (edge.verdict, edge.relation, edge.derived) == ("undecided", "similar", 0)


@pytest.mark.parametrize(
    ("bits", "votes", "expected"),
    [
        (0, 0, Prospect.LIKELY),
        (24, 0, Prospect.LIKELY),
        (25, 0, Prospect.CHANCE),
        (-1, 0, Prospect.CHANCE),  # of embeddings alone: one in a hundred was a copy
        (-1, 2, Prospect.CHANCE),
        (-1, -3, Prospect.UNLIKELY),
        (-1, 4, Prospect.UNLIKELY),
        (-1, 5, Prospect.LIKELY),
        (60, -5, Prospect.LIKELY),
    ],
)
def test_near_keys_or_many_votes_of_either_sign_make_a_pair_likely(bits, votes, expected):
    candidate = _candidate(*CONTENTS[:2], "words", bits, 1, votes)
    assert promise(candidate, plain=False, verify=True) is expected
    # Plain pages are near whatever they show.
    assert promise(candidate, plain=True, verify=True) is min(expected, Prospect.UNLIKELY)
    # Where stage 2 is the last, nothing is asked for on a guess.
    assert promise(candidate, plain=True, verify=False) is Prospect.LIKELY


def test_answers_say_which_member_is_derived_whatever_the_order_of_the_ids():
    a, b, e, _ = CONTENTS
    # +1 on an edge is about its lower id, +1 in an answer about the first in the keep-best order.
    a_is_lower, b_is_lower = a.content < b.content, b.content < e.content
    assert a_is_lower != b_is_lower
    edges = [
        make_edge(a, b, derived=1 if a_is_lower else -1),
        make_edge(b, e, "review", derived=-1 if b_is_lower else 1),
    ]
    assert verified(gather(_joined(edges0=edges))) == {
        (0, 1): Verified(True, 1),
        (1, 2): Verified(False, -1),
    }


def _turned(picture, orientation):
    """Apply an EXIF orientation to pixels."""
    return {1: picture, 2: picture[:, ::-1], 3: picture[::-1, ::-1], 6: np.rot90(picture, -1),
            8: np.rot90(picture)}[orientation]  # fmt: skip


def _keyed(name, picture):
    return make_content(
        name, wavelet_keys=key_forms(wavelet_keys(np.ascontiguousarray(picture))[0])
    )


@pytest.mark.parametrize("turn", [1, 2, 3, 6, 8])
def test_m2_measuring_gives_the_distance_and_what_turns_a_into_b(turn):
    picture = pictures.photograph(1)
    upright, turned = _keyed("upright", picture), _keyed("turned", _turned(picture, turn))
    swapped = turned.content < upright.content
    proposed = _candidate(upright, turned, "words", -1, 1, 9)
    found = measure(proposed, upright, turned)
    assert found == proposed._replace(wavelet_distance=0, orientation=orient(turn, swapped))
    assert measure(proposed, turned, upright) == found


def test_a_measured_distance_is_the_least_over_the_eight_turns():
    made = [pictures.photograph(3), pictures.photograph(4)]
    contents = [_keyed(name, picture) for name, picture in zip("ab", made, strict=True)]
    if contents[0].content > contents[1].content:
        made, contents = made[::-1], contents[::-1]
    left, right = contents
    turns, key = wavelet_keys(made[0])[0], wavelet_keys(made[1])[0][0]
    bits = np.bitwise_count(turns ^ key).sum(axis=1)
    assert bits.min() > 0
    found = measure(_candidate(left, right, "words", -1, 1, 3), left, right)
    assert (found.wavelet_distance, found.orientation) == (bits.min(), bits.argmin() + 1)
    known = _candidate(left, right, "wavelet", 60, 2, 0)
    assert measure(known, left, right) == known


def test_a_star_pair_is_measured_and_its_ends_are_in_order():
    picture = pictures.photograph(2)
    contents = [_keyed("one", picture), _keyed("two", picture[:, ::-1])]
    expected = _candidate(*contents, "star", 0, 2, 0)
    star = star_candidate(*contents)
    assert star == star_candidate(*contents[::-1])
    assert (star.wavelet_distance, star.orientation) == (-1, 1)
    assert measure(star, *contents) == measure(star, *contents[::-1]) == expected


@pytest.mark.parametrize("proposed", [True, False])
def test_joined_inputs_hold_everything_known_of_each_component(proposed):
    a, b, e, f = CONTENTS
    candidates = {1: _candidate(a, b, "wavelet", 3, 1, 0), 2: _candidate(e, f, "words", -1, 1, 4)}
    packed = [(key, *pack([candidate])) for key, candidate in candidates.items()]
    edges = [make_edge(a, b, "reject"), make_edge(e, f)]

    def keyed(pipeline, label, rows):
        return pipeline | label >> beam.Create([(bytes([key]), row) for key, row in rows])

    def listed(joined):
        found = gather(joined)
        return (
            found.key,
            sorted(content.uri for content in found.contents),
            list(found.candidates.values()),
            list(found.edges.values()),
        )

    with TestPipeline("FnApiRunner") as pipeline:
        inputs = ComponentInputs(
            keyed(pipeline, "contents", [(1, a), (1, b), (2, e), (2, f)]),
            keyed(pipeline, "candidates", packed) if proposed else None,
            [
                keyed(pipeline, "edges of round 1", [(1, edges[0])]),
                keyed(pipeline, "edges of round 2", [(2, edges[1])]),
            ],
        )
        found = inputs.join("Test: ") | beam.Map(listed)
        expected = [
            (b"\1", [a.uri, b.uri], [candidates[1]] if proposed else [], [edges[0]]),
            (b"\2", [e.uri, f.uri], [candidates[2]] if proposed else [], [edges[1]]),
        ]
        assert_that(found, equal_to(expected))


def test_a_component_goes_on_with_all_that_is_still_open(monkeypatch):
    monkeypatch.setattr(module, "_PART_CONTENTS", 3)
    monkeypatch.setattr(module, "_PART_PAIRS", 2)
    a, b, e, f = CONTENTS
    near, far, done = (_candidate(*ends, "wavelet", 3, 1) for ends in ((a, b), (a, e), (b, f)))
    component = gather(_joined([near, far, done]))
    answers = {
        (0, 1): Verified(True, -1),
        (1, 3): Verified(False, 1),
        (2, 3): Verified(True, 0),
    }
    parts = list(leave(component, answers))
    assert [len(part.contents) for part in parts] == [3, 1]
    edge = make_edge(a, e, "reject")
    found = resume((b"key", {"unfinished": parts[::-1], "edges0": [edge]}))
    assert (found.key, found.contents) == (b"key", CONTENTS)
    # That (1, 3) was rejected is all that its candidate can say.
    assert found.candidates == {(0, 1): near, (0, 2): far}
    assert found.edges == {(0, 2): edge}
    assert verified(found) == {**answers, (0, 2): Verified(False, 0)}


@pytest.mark.parametrize(("values", "most"), [(0, 1000), (500, 500), (2560, 163)])
def test_a_part_with_embeddings_is_as_many_bytes_with_fewer_contents(values, most):
    learned = Learned(bytes(2 * values), "", 0.0, "", "", "")
    contents = [make_content(f"{number:04}") for number in range(1000)]
    # One that could not be embedded says nothing of the others.
    contents[1:] = [content._replace(learned=learned) for content in contents[1:]]
    component = gather((b"key", {"contents": contents}))
    parts = list(leave(component, {}))
    assert {len(part.contents) for part in parts[:-1]} <= {most}
    assert [content for part in parts for content in part.contents] == component.contents
    assert len(parts) == -(-1000 // most)
