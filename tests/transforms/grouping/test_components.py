"""Connected components by one worker and by rounds, against a union-find."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.grouping import components as graph


def _id(number):
    """An id that shares its first bytes with a third of all others, so that those decide little."""
    return (number % 3).to_bytes(8, "big") + number.to_bytes(24, "big")


def _hash(number):
    return hashlib.sha256(int(number).to_bytes(8, "big")).digest()


def _pairs(edges, name=_id):
    return np.array([(name(a), name(b)) for a, b in edges], graph.PAIR)


def _set(pairs):
    return set(pairs.tolist())


def _union_find(edges, name):
    """Return {id: least id of its component}."""
    parent = {}

    def find(one):
        while parent.setdefault(one, one) != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for a, b in edges:
        low, high = sorted((find(name(a)), find(name(b))))
        parent[high] = low
    return {one: find(one) for one in list(parent)}


def _shuffle(parts, by, shards):
    """Bring rows of one shard together, as GroupByKey does."""
    pairs = np.concatenate([np.empty(0, graph.PAIR), *parts])
    return [pairs[rows] for _, rows in graph.shard_rows(pairs[by], shards)]


def _by_rounds(pairs, shards, rounds):
    """Label as ``PartitionCandidates`` does; also return how many links the rounds left over."""
    parts = [
        graph.both_ways(graph.spanning_stars(block))
        for block in np.array_split(pairs, 1 + len(pairs) // 500)
    ]
    for _ in range(rounds):
        large = [graph.large_star(part) for part in _shuffle(parts, "a", shards)]
        small = [graph.small_star(part) for part in _shuffle(large, "a", shards)]
        assert sum(map(len, small)) <= sum(map(len, large)) <= sum(map(len, parts)) // 2
        parts = [graph.both_ways(part) for part in small]
    settled = [graph.settle(part) for part in _shuffle(parts, "a", shards)]
    rest = np.concatenate([np.empty(0, graph.PAIR), *(part[1] for part in settled)])
    leaves = np.concatenate([np.empty(0, graph.PAIR), *(part[0] for part in settled)])
    labels = graph.label_pairs(rest)
    found = [np.empty(0, graph.PAIR)]
    for shard in range(shards):
        here = [dict(graph.shard_rows(p[by], shards)) for p, by in ((leaves, "b"), (labels, "a"))]
        none = np.empty(0, np.int64)
        found.append(
            graph.resolve(leaves[here[0].get(shard, none)], labels[here[1].get(shard, none)])
        )
    return np.concatenate(found), len(rest)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda edge: edge[0] != edge[1]),
        max_size=60,
    ),
    st.integers(1, 5),
    st.integers(0, 4),
)
def test_g5_both_ways_give_the_partition_of_a_union_find(edges, shards, rounds):
    pairs = _pairs(edges)
    expected = sorted(_union_find(edges, _id).items())
    assert sorted(graph.label_pairs(pairs).tolist()) == expected
    assert sorted(_by_rounds(pairs, shards, rounds)[0].tolist()) == expected


_N = 100_000
_RANDOM = np.random.default_rng(4)


@pytest.mark.parametrize(
    ("edges", "most_left"),
    [
        (np.stack([np.arange(_N), np.arange(1, _N + 1)], 1), _N // 10),
        (np.stack([np.zeros(_N, int), np.arange(1, _N + 1)], 1), 0),
        (np.stack([np.arange(1, _N) // 2, np.arange(1, _N)], 1), _N // 10),
        (_RANDOM.integers(0, _N, (_N // 2, 2)), _N // 40),
        (_RANDOM.integers(0, 1000, (_N, 2)), 0),
        (np.arange(_N)[:, None] // 8 * 8 + _RANDOM.integers(0, 8, (_N, 2)), _N // 100),
    ],
    ids=["path", "star", "tree", "random", "dense", "small ones"],
)
def test_g5_three_rounds_settle_long_paths_stars_and_random_graphs(edges, most_left):
    names = np.array([_hash(number) for number in range(_N + 1)], graph.ID)
    edges = _RANDOM.permutation(edges[edges[:, 0] != edges[:, 1]])
    pairs = np.empty(len(edges), graph.PAIR)
    pairs["a"], pairs["b"] = names[edges.T]
    found, left = _by_rounds(pairs, 7, 3)
    assert left <= most_left
    assert sorted(found.tolist()) == graph.label_pairs(pairs).tolist()


def test_a_path_in_the_order_of_its_ids_is_left_to_one_worker():
    edges = _RANDOM.permutation([(number, number + 1) for number in range(1000)]).tolist()
    found, left = _by_rounds(_pairs(edges, lambda n: n.to_bytes(32, "big")), 3, 3)
    assert left > 500
    assert _set(found) == {(n.to_bytes(32, "big"), bytes(32)) for n in range(1001)}


@pytest.mark.parametrize("seed", range(4))
def test_labels_without_scipy_are_those_of_scipy(seed):
    random = np.random.default_rng(seed)
    path = random.permutation(3000)
    few, many = random.integers(0, 3000, (2, 2, 1000 * (seed + 1)))
    for rows, columns in ((path[:-1], path[1:]), few, many, np.empty((2, 0), int)):
        labels = graph._label_here(3000, rows, columns)
        assert labels.tolist() == graph._label_by_scipy(3000, rows, columns).tolist()


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(0, 40)).filter(lambda edge: edge[0] != edge[1]),
        max_size=60,
    )
)
def test_many_pairs_are_labelled_by_scipy_and_alike(edges):
    pairs, expected = _pairs(edges), sorted(_union_find(edges, _id).items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "_SCIPY_PAIRS", -1)
        assert sorted(graph.label_pairs(pairs).tolist()) == expected


def test_components_carry_their_least_id():
    pairs = _pairs([(3, 6), (12, 3), (1, 4), (6, 9)])
    ids, labels = graph.label_components(pairs["a"], pairs["b"])
    assert ids.tolist() == [_id(n) for n in (3, 6, 9, 12, 1, 4)]
    assert [ids[label].item() for label in labels] == [_id(n) for n in (3, 3, 3, 3, 1, 1)]
    assert _set(graph.spanning_stars(pairs)) == _set(_pairs([(6, 3), (9, 3), (12, 3), (4, 1)]))


def test_ids_are_numbered_in_order_also_where_their_first_bytes_are_equal():
    numbers = [7, 1, 4, 7, 10, 3, 1]
    ids = np.array([_id(n) for n in numbers], graph.ID)
    distinct, index = graph.index_ids(ids)
    assert distinct.tolist() == [_id(n) for n in (3, 1, 4, 7, 10)]
    assert distinct[index].tolist() == ids.tolist()
    wanted = np.array([_id(n) for n in (10, 2, 3)], graph.ID)
    assert graph.find_ids(distinct, wanted).tolist() == [4, -1, 0]


def test_large_star_moves_larger_neighbours_and_small_star_smaller_ones():
    arcs = _pairs([(6, 3), (6, 9), (6, 12), (15, 6)])
    assert _set(graph.large_star(arcs)) == _set(_pairs([(9, 3), (12, 3)]))
    links = _pairs([(12, 3), (12, 9), (12, 9), (6, 3)])
    assert _set(graph.small_star(links)) == _set(_pairs([(12, 3), (9, 3), (6, 3)]))


def test_leaves_are_settled_and_what_ties_others_together_is_left():
    links = _pairs([(6, 3), (9, 3), (9, 6), (12, 9), (4, 1), (7, 1)])
    leaves, rest = graph.settle(graph.both_ways(links))
    assert _set(leaves) == _set(_pairs([(12, 9), (4, 1), (7, 1)]))
    assert _set(rest) == _set(_pairs([(6, 3), (9, 3), (9, 6)]))
    named = graph.resolve(leaves, graph.label_pairs(rest))
    components = [(3, 3), (6, 3), (9, 3), (12, 3), (1, 1), (4, 1), (7, 1)]
    assert sorted(named.tolist()) == sorted(_pairs(components).tolist())
