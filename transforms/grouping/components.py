"""Connected components of a candidate graph, which partition the work and decide nothing.

Where one worker holds the graph, ``label_components`` is all. Beyond, the graph is cut into shards
by the first bytes of the ids and goes through rounds of ``large_star`` and ``small_star`` (Kiveris
et al., "Connected Components in MapReduce and Beyond", SoCC 2014, doi 10.1145/2670979.2670997),
each of which keeps what is connected and never adds edges; ``settle`` then tells what has become a
star, and ``resolve`` names every member's component.

Two kinds of arrays of ``PAIR``: *links*, an edge once with ``a > b``, and *arcs*, an edge from both
ends, so that the shard of ``a`` sees all neighbours of ``a``.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

ID = np.dtype("V32")
PAIR = np.dtype([("a", ID), ("b", ID)])
# To import scipy's graphs takes 0.15 s, more than it takes to label so many pairs without.
_SCIPY_PAIRS = 250_000


def index_ids(ids: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Number ids in their order.

    Args:
        ids: ``ID`` [n].

    Returns:
        The distinct ids in ascending order of their bytes [m], and for each given id its position
        among them, int64 [n].
    """
    words = np.ascontiguousarray(ids).view(">u8").reshape(-1, 4)
    # Numbers of 8 bytes sort ten times as fast as ids of 32; ids that share them are rare.
    prefix = words[:, 0].astype(np.uint64)
    order = np.argsort(prefix)
    new, tied = _changes(words, order), prefix[order[1:]] == prefix[order[:-1]]
    if np.any(new & tied):
        order = np.lexsort(words[:, ::-1].T)
        new = _changes(words, order)
    first = np.concatenate([[True], new])[: len(ids)]
    index = np.empty(len(ids), np.int64)
    index[order] = np.cumsum(first) - 1
    return ids[order[first]], index


def _changes(words: NDArray[np.uint64], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    ordered = words[order]
    changes: NDArray[np.bool_] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return changes


def find_ids(table: NDArray[np.void], ids: NDArray[np.void]) -> NDArray[np.int64]:
    """Find ids in a table of distinct ids.

    Args:
        table: ``ID`` [m].
        ids: ``ID`` [n].

    Returns:
        The position of each id in the table, -1 where it is not in it, int64 [n].
    """
    distinct, index = index_ids(np.concatenate([table, ids]))
    position = np.full(len(distinct), -1)
    position[index[: len(table)]] = np.arange(len(table))
    return position[index[len(table) :]]


def shard_rows(ids: NDArray[np.void], shards: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Cut rows into shards by their ids.

    Args:
        ids: ``ID`` [n], hashes, whose first bytes are spread evenly.
        shards: how many there are.

    Yields:
        The number of each shard that has rows, and its rows.
    """
    prefix = np.ascontiguousarray(ids).view(">u8")[::4]
    shard = (prefix % np.uint64(shards)).astype(np.int64)
    order = np.argsort(shard, kind="stable")
    found, starts = np.unique(shard[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, starts[1:]), strict=False)


def label_components(
    left: NDArray[np.void], right: NDArray[np.void]
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Label the ends of edges with the least id of their component.

    Args:
        left: ``ID`` [k].
        right: ``ID`` [k].

    Returns:
        The distinct ids in ascending order [n], and for each the index of the least id of its
        component, int64 [n].
    """
    ids, index = index_ids(np.concatenate([left, right]))
    label = _label_here if len(left) <= _SCIPY_PAIRS else _label_by_scipy
    return ids, label(len(ids), *np.split(index, 2))


def _label_here(
    nodes: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the least node of each node's component.

    Each tree is hung on the least of its neighbours, and then made flat (S. C. Liu and R. E.
    Tarjan, "Simple Concurrent Labeling Algorithms for Connected Components", SOSA 2019).
    """
    labels = np.arange(nodes)
    while len(rows):
        ends = np.sort(labels[np.stack([rows, columns])], axis=0)
        np.minimum.at(labels, ends[1], ends[0])
        while np.any((above := labels[labels]) != labels):
            labels = above
        apart = labels[rows] != labels[columns]
        rows, columns = rows[apart], columns[apart]
    return labels


def _label_by_scipy(
    nodes: int, rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the least node of each node's component."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(nodes, nodes))
    _, labels = connected_components(graph, directed=False)
    # The first node that carries a label is the least.
    _, first, back = np.unique(labels, return_index=True, return_inverse=True)
    least: NDArray[np.int64] = first[back.ravel()]
    return least


def label_pairs(pairs: NDArray[np.void]) -> NDArray[np.void]:
    """Name the component of every id in some pairs.

    Args:
        pairs: ``PAIR`` [k].

    Returns:
        ``PAIR`` [n]: each distinct id, and the least id of its component.
    """
    ids, labels = label_components(pairs["a"], pairs["b"])
    return _pair_up(ids, ids[labels])


def spanning_stars(pairs: NDArray[np.void]) -> NDArray[np.void]:
    """Replace edges by as few as connect the same: from each id to the least of its component.

    Args:
        pairs: ``PAIR`` [k].

    Returns:
        Links, at most one for each id.
    """
    labels = label_pairs(pairs)
    moved: NDArray[np.bool_] = labels["a"] != labels["b"]
    return labels[np.flatnonzero(moved)]


def both_ways(links: NDArray[np.void]) -> NDArray[np.void]:
    """Return the arcs of links."""
    return np.concatenate([links, _pair_up(links["b"], links["a"])])


def large_star(arcs: NDArray[np.void]) -> NDArray[np.void]:
    """Link every larger neighbour of a node to the least id among the node and its neighbours.

    Args:
        arcs: all arcs of the nodes in ``a``.

    Returns:
        Links, at most one for each arc to a larger neighbour.
    """
    ids, node, other = _numbered(arcs)
    least = _least(ids, node, other)
    larger = other > node
    return _links(ids, other[larger], least[node[larger]])


def small_star(links: NDArray[np.void]) -> NDArray[np.void]:
    """Link a node and its smaller neighbours to the least of them.

    Args:
        links: all links of the nodes in ``a``.

    Returns:
        Links, at most one for each link.
    """
    ids, node, other = _numbered(links)
    least = _least(ids, node, other)
    moved = other != least[node]
    high = np.concatenate([other[moved], node])
    return _links(ids, high, np.concatenate([least[node[moved]], least[node]]))


def settle(arcs: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.void]]:
    """Tell the nodes whose one neighbour is smaller from those that still tie others together.

    Args:
        arcs: all arcs of the nodes in ``a``.

    Returns:
        The links of the former, one each; and the links of the latter, whose components are those
        of the whole graph without the former.
    """
    ids, node, other = _numbered(arcs)
    least, most = _least(ids, node, other), np.full(len(ids), -1)
    np.maximum.at(most, node, other)
    leaf = (least == most)[node]
    smaller = other < node
    rest = smaller & ~leaf
    leaves = smaller & leaf
    return _links(ids, node[leaves], other[leaves]), _links(ids, node[rest], other[rest])


def resolve(leaves: NDArray[np.void], labels: NDArray[np.void]) -> NDArray[np.void]:
    """Name the component of leaves and of the nodes that they hang on.

    Args:
        leaves: the first result of ``settle``.
        labels: ``PAIR``: nodes of the second result, and their components; those on which leaves
            hang and that are not among them are the least of theirs.

    Returns:
        ``PAIR``: each node of both arguments once, and its component.
    """
    hubs, hub = index_ids(leaves["b"])
    found = find_ids(labels["a"], hubs)
    component = hubs.copy()
    component[found >= 0] = labels["b"][found[found >= 0]]
    alone = hubs[found < 0]
    return np.concatenate([labels, _pair_up(alone, alone), _pair_up(leaves["a"], component[hub])])


def _pair_up(left: NDArray[np.void], right: NDArray[np.void]) -> NDArray[np.void]:
    pairs = np.empty(len(left), PAIR)
    pairs["a"], pairs["b"] = left, right
    return pairs


def _numbered(
    pairs: NDArray[np.void],
) -> tuple[NDArray[np.void], NDArray[np.int64], NDArray[np.int64]]:
    ids, index = index_ids(np.concatenate([pairs["a"], pairs["b"]]))
    return ids, index[: len(pairs)], index[len(pairs) :]


def _least(
    ids: NDArray[np.void], node: NDArray[np.int64], other: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the least of each node and its neighbours, int64 [len(ids)]."""
    least = np.arange(len(ids))
    np.minimum.at(least, node, other)
    return least


def _links(
    ids: NDArray[np.void], high: NDArray[np.int64], low: NDArray[np.int64]
) -> NDArray[np.void]:
    """Return distinct links between numbered ids."""
    # Fewer than 2**31 ids fit a shard's memory, so two numbers fit 64 bits.
    high, low = np.divmod(np.unique(high * len(ids) + low), max(1, len(ids)))
    return _pair_up(ids[high], ids[low])
