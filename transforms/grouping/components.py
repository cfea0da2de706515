"""Connected components of a candidate graph, which partition the work and decide nothing."""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def label_components(
    left: NDArray[np.void], right: NDArray[np.void]
) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Label the ends of edges with the least id of their component.

    Args:
        left: fixed-width byte ids [k].
        right: fixed-width byte ids [k] of the same dtype.

    Returns:
        The distinct ids in ascending order [n], and for each the index of the least id of its
        component, int64 [n].
    """
    ids, index = np.unique(np.concatenate([left, right]), return_inverse=True)
    rows, columns = np.split(index.ravel(), 2)
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(len(ids), len(ids)))
    _, labels = connected_components(graph, directed=False)
    # ids are sorted, so the first index that carries a label is its least id.
    _, first, back = np.unique(labels, return_index=True, return_inverse=True)
    return ids, first[back.ravel()]
