"""The walk and its lazy plan, as properties over random graphs."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.grouping.walk import Pair, Plan, Prospect, Verified, walk


def _accepted(derived: int = 0) -> Verified:
    return Verified(True, derived)


REJECTED = Verified(False, 0)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[int, dict[Pair, Verified]]:
    members = draw(st.integers(1, 9))
    pairs = list(itertools.combinations(range(members), 2))
    edges = {}
    for pair in pairs:
        kind = draw(st.sampled_from(["none", "reject", "accept", "derived", "reverse"]))
        if kind != "none":
            derived = {"derived": 1, "reverse": -1}.get(kind, 0)
            edges[pair] = Verified(kind != "reject", derived)
    return members, edges


@given(graphs())
def test_g1_groups_are_a_partition_with_one_keeper_each(graph):
    members, edges = graph
    kept = walk(members, edges)
    assert len(kept) == members
    assert all(kept[keeper] == keeper for keeper in kept)


@given(graphs())
def test_g3_every_duplicate_has_an_accepted_edge_to_its_keeper(graph):
    members, edges = graph
    for member, keeper in enumerate(walk(members, edges)):
        if keeper != member:
            assert edges[min(member, keeper), max(member, keeper)].accepted


def test_g3_a_chain_keeps_the_far_end():
    assert walk(3, {(0, 1): _accepted(), (1, 2): _accepted()}) == [0, 0, 2]


def test_a_crop_goes_behind_the_whole_picture_once():
    # 0 would be kept, but is a crop of 2; 2 then takes 0, and 1 is no copy of it.
    edges = {(0, 1): _accepted(), (0, 2): _accepted(derived=1), (1, 2): REJECTED}
    assert walk(3, edges) == [2, 1, 2]


def test_of_several_wholes_one_that_is_a_crop_itself_is_last():
    # 0 is a crop of 1 and of 2, and 1 is a crop of 2.
    edges = {(0, 1): _accepted(1), (0, 2): _accepted(1), (1, 2): _accepted(1)}
    assert walk(3, edges) == [2, 2, 2]


def test_a_crop_stays_before_a_whole_that_was_not_compared_with_its_copies():
    edges = {(0, 1): _accepted(), (0, 2): _accepted(derived=1)}
    assert walk(3, edges) == [0, 0, 0]


def test_the_swap_happens_once():
    # 1 goes before 0, of which it is the whole; that 1 is itself a crop of 2 moves nothing more.
    edges = {(0, 1): _accepted(1), (1, 2): _accepted(1), (0, 2): REJECTED}
    assert walk(3, edges) == [1, 1, 1]


def _play(members, truth, candidates, rounds, at_once=lambda pair: False):
    """Answer the plan's questions from the truth; return the edges and how many were asked."""
    edges: dict[Pair, Verified] = {}
    for number in range(1, rounds + 1):
        waiting = {}
        plan = Plan(members, candidates, edges)
        last = number == rounds
        while asked := plan.ask(last=False) or (plan.ask(last=True) if last else []):
            for i, j, star in asked:
                pair = (i, j)
                assert pair not in edges | waiting, "asked twice"
                assert star == (pair not in candidates)
                answer = truth.get(pair, REJECTED)
                if at_once(pair):
                    edges[pair] = answer
                    plan.answer(pair, answer)
                else:
                    waiting[pair] = answer
        edges |= waiting
    return edges


@settings(max_examples=300)
@given(graphs(), st.integers(1, 4), st.randoms(use_true_random=False))
def test_the_lazy_plan_reaches_the_walk_of_the_whole_graph(graph, rounds, random):
    members, truth = graph
    # Without swaps and with every pair a candidate, nothing that was left out may matter.
    truth = {pair: Verified(edge.accepted, 0) for pair, edge in truth.items()}
    pairs = itertools.combinations(range(members), 2)
    candidates = {pair: random.choice(list(Prospect)) for pair in pairs}
    asked = _play(members, truth, candidates, rounds, lambda pair: random.random() < 0.5)
    assert walk(members, asked) == walk(members, truth)


def test_two_hundred_near_copies_need_one_comparison_each():
    members = 200
    candidates = dict.fromkeys(itertools.combinations(range(members), 2), Prospect.LIKELY)
    truth = dict.fromkeys(candidates, _accepted())
    edges = _play(members, truth, candidates, 3)
    assert len(edges) == members - 1
    assert walk(members, edges) == [0] * members


def test_a_pair_of_keeper_and_linked_member_is_compared_never_inferred():
    # 2 hangs on 1, which 0 takes; nobody proposed (0, 2), so the plan asks for it.
    candidates = {(0, 1): Prospect.LIKELY, (1, 2): Prospect.LIKELY}
    truth = {(0, 1): _accepted(), (1, 2): _accepted(), (0, 2): _accepted()}
    edges = _play(3, truth, candidates, 3)
    assert set(edges) == {(0, 1), (0, 2)}
    assert walk(3, edges) == [0, 0, 0]


def test_no_chain_is_closed_over_a_chance_until_it_is_accepted():
    candidates = {(0, 1): Prospect.LIKELY, (1, 2): Prospect.CHANCE}
    truth = {(0, 1): _accepted(), (1, 2): _accepted(), (0, 2): _accepted()}
    assert set(_play(3, truth, candidates, 3)) == {(0, 1)}
    accepted = {(0, 1): _accepted(), (1, 2): _accepted()}
    assert Plan(3, candidates, accepted).ask(last=False) == [(0, 2, True)]


def test_answers_to_one_piece_ask_nothing_of_another():
    candidates = {(0, 1): Prospect.LIKELY, (2, 3): Prospect.LIKELY, (1, 3): Prospect.CHANCE}
    plan = Plan(4, candidates, {})
    assert plan.ask(last=False) == [(0, 1, False), (2, 3, False)]
    plan.answer((0, 1), REJECTED)
    # 1 is kept now, and 3 is not taken yet.
    assert plan.ask(last=False) == [(1, 3, False)]
    plan.answer((2, 3), _accepted())
    assert plan.ask(last=False) == []


def test_a_member_that_the_keeper_rejects_is_still_compared_with_the_next():
    candidates = dict.fromkeys([(0, 1), (0, 2), (1, 2)], Prospect.LIKELY)
    truth = {(0, 1): REJECTED, (0, 2): REJECTED, (1, 2): _accepted()}
    edges = _play(3, truth, candidates, 2)
    assert walk(3, edges) == [0, 1, 1]


@pytest.mark.parametrize("prospect", [Prospect.LIKELY, Prospect.UNLIKELY])
def test_the_rest_of_what_was_only_rejected_is_asked_at_once_if_it_is_likely(prospect):
    plan = Plan(21, {(0, other): prospect for other in range(1, 21)}, {})
    asked = plan.ask(last=False)
    assert asked == [(0, other, False) for other in range(1, 5)]
    for pair in asked:
        plan.answer(pair[:2], REJECTED)
    rest = range(5, 21) if prospect is Prospect.LIKELY else range(5, 9)
    assert plan.ask(last=False) == [(0, other, False) for other in rest]
