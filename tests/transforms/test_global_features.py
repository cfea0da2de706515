"""Stage 3 with a learned model: each pair by the vector of its turn, and none lost without one."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.samples import make_content, make_edge
from transforms.global_features import (
    CompareGlobals,
    GlobalSettings,
    judge_global,
    similarities,
    with_embedding,
)
from transforms.records import Embedded, MemberRead, MemberRecord, PairUnit
from transforms.rounds import ALIGNED_BITS

A, B = sorted((make_content("a"), make_content("b")), key=lambda one: one.content)
UP, SIDEWAYS, BETWEEN = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]


def _vectors(*rows):
    return np.array(rows, np.float32).tobytes()


def _record(content, turns=b"\x01", *rows, **changes):
    record = MemberRecord(content.content, content.uri, b"t", b"p", b"", "", "", "", 1)
    return record._replace(embedding=_vectors(*rows), turns=turns, **changes)


def _edge(orientation=1, bits=12):
    edge = make_edge(A, B, "undecided", orientation=orientation, wavelet_distance=bits)
    return edge._replace(global_similarity=None)


def _compare(edges, *, learned=True):
    records = {A.content: _record(A, b"\x01\x06", UP, SIDEWAYS), B.content: _record(B, b"\x01", UP)}
    return similarities(edges, records, learned=learned)


@pytest.mark.parametrize(
    ("orientation", "bits", "expected"),
    [
        (1, 12, 1.0),
        (6, 12, 0.0),
        (6, ALIGNED_BITS, 0.0),
        (6, ALIGNED_BITS + 1, 1.0),  # the turn is a matter of chance
        (8, ALIGNED_BITS + 1, 1.0),
        (8, 12, None),  # the model has not seen it so
    ],
)
def test_a_pair_is_compared_in_its_turn(orientation, bits, expected):
    upright = _edge()
    assert _compare([upright, _edge(orientation, bits), upright]) == [1.0, expected, 1.0]


def test_no_pairs_have_no_similarities():
    assert _compare([]) == []


@pytest.mark.parametrize("bits", [12, ALIGNED_BITS + 1])
def test_a_learned_model_rejects_pairs_that_are_not_aligned_too(bits):
    edge = _edge(bits=bits)
    for learned in (True, False):
        settings = GlobalSettings(0.5, learned)
        assert judge_global(edge, None, settings) == edge
        assert judge_global(edge, 0.5, settings) == edge._replace(global_similarity=0.5)
        rejects = learned or bits <= ALIGNED_BITS
        decided = {"verdict": "reject", "decided_by": "global"} if rejects else {}
        judged = judge_global(edge, 0.4999, settings)
        assert judged == edge._replace(global_similarity=0.4999, **decided)


def test_a_turn_that_was_not_seen_in_an_earlier_round_goes_on_to_stage_4():
    edges = [_edge(8), _edge(6), _edge()]
    unit = PairUnit("u", b"component", [A, B], edges)
    records = [_record(A, b"\x01\x06", UP, SIDEWAYS), _record(B, b"\x01", BETWEEN)]
    with TestPipeline() as pipeline:
        units = pipeline | "Units" >> beam.Create([unit]).with_output_types(PairUnit)
        members = [
            pipeline
            | f"Records {number}"
            >> beam.Create([("u", record)]).with_output_types(tuple[str, MemberRecord])
            for number, record in enumerate(records)
        ]
        compared = units | CompareGlobals(GlobalSettings(0.7, learned=True), members)
        rejected = edges[2]._replace(global_similarity=0.6, verdict="reject", decided_by="global")
        assert_that(
            compared.edges | "Settled" >> beam.MapTuple(lambda _, edge: tuple(edge)),
            equal_to([tuple(rejected)]),
            label="settled",
        )
        left = compared.undecided | "Left" >> beam.Map(
            lambda pair: (tuple(pair.edge), pair.record_a.content, pair.record_b.content)
        )
        expected = [
            (tuple(edge), edge.a, edge.b)
            for edge in (edges[0], edges[1]._replace(global_similarity=0.8))
        ]
        assert_that(left, equal_to(expected), label="left")


def test_an_embedding_of_before_is_kept_beside_those_of_other_turns():
    known = _record(A, b"\x01", UP)
    read = MemberRead(known, ["u"], b"inputs", b"\x06")
    found = with_embedding(read, Embedded(_vectors(SIDEWAYS)))
    assert found == known._replace(embedding=_vectors(UP, SIDEWAYS), turns=b"\x01\x06")
    # Nothing was left to embed.
    assert with_embedding(read._replace(inputs=b"", turns=b""), Embedded(b"")) == known


@pytest.mark.parametrize(
    ("embedded", "error"),
    [
        (Embedded(b"", "out_of_memory", "none"), ("global", "out_of_memory", "none")),
        (
            Embedded(_vectors([np.nan, 1.0])),
            ("global", "bad_embedding", "the embedding is no finite vector of length 1"),
        ),
    ],
)
def test_m7_a_member_of_which_one_turn_fails_is_compared_in_none(embedded, error):
    read = MemberRead(_record(A, b"\x01", UP), ["u"], b"inputs", b"\x06")
    found = with_embedding(read, embedded)
    assert (found.embedding, found.turns) == (b"", b"")
    assert (found.error_stage, found.error_type, found.error_message) == error
