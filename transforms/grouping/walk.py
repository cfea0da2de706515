"""The walk of stage 5, and the plan of which pairs it still needs compared.

Members are numbered in the keep-best order, 0 first. The walk takes the first ungrouped member as
kept and gives it every ungrouped member that has an accepted edge to it; so each duplicate has a
verified edge to the very image that is kept. Only pairs of a kept member and an ungrouped one are
ever asked for, so a plan that verifies just those pairs, in rounds, reaches the walk's result with
few comparisons: a greedy maximal independent set, evaluated lazily.
"""

from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

Pair = tuple[int, int]  # (i, j) with i < j
# A kept member is first compared with so many of the best that it may take: if one of them turns
# out to be the whole of which it is a crop, overlay or bordered form, that one takes the rest.
_PROBES = 4
_REJECTIONS = 2  # from which on, without an acceptance, no further pair of a member is likely


class Verified(NamedTuple):
    """What is known of one compared pair (i, j), i < j."""

    accepted: bool
    derived: int  # +1: i is a crop, overlay or bordered form of j; -1: j of i; 0: neither


def walk(members: int, edges: Mapping[Pair, Verified]) -> list[int]:
    """Group members by the walk, with the one swap for crops, overlays and borders.

    Args:
        members: how many there are, numbered in the keep-best order.
        edges: the compared pairs; a pair that is absent was not accepted.

    Returns:
        For each member the number of the one that is kept in its group (its own if kept).
    """
    neighbours = _accepted_neighbours(members, edges)
    order = _order_after_swaps(members, edges, neighbours, compared=True)
    return _walk_in(order, neighbours)


def _accepted_neighbours(members: int, edges: Mapping[Pair, Verified]) -> list[list[int]]:
    neighbours: list[list[int]] = [[] for _ in range(members)]
    for (i, j), edge in edges.items():
        if edge.accepted:
            neighbours[i].append(j)
            neighbours[j].append(i)
    return neighbours


def _walk_in(order: Iterable[int], neighbours: list[list[int]]) -> list[int]:
    kept = [-1] * len(neighbours)
    for member in order:
        if kept[member] >= 0:
            continue
        kept[member] = member
        for other in neighbours[member]:
            if kept[other] < 0:
                kept[other] = member
    return kept


def _order_after_swaps(
    members: int,
    edges: Mapping[Pair, Verified],
    neighbours: list[list[int]],
    *,
    compared: bool = False,
) -> list[int]:
    """Move each member of which the kept image is a derived form before that image, once.

    With ``compared``, only those that have been compared with every other member of its group: one
    that has not would lose members that nobody has looked at.
    """
    kept = _walk_in(range(members), neighbours)
    group: dict[int, list[int]] = {}
    for member, keeper in enumerate(kept):
        group.setdefault(keeper, []).append(member)
    place = [float(member) for member in range(members)]
    moved = {}
    for (i, j), edge in edges.items():
        # Only i can be the kept one: it comes first in the order.
        if edge.accepted and edge.derived == 1 and kept[j] == i:
            others = group[i] if compared else ()
            if all(o == j or (min(o, j), max(o, j)) in edges for o in others):
                moved[j] = i
                place[j] = i - 0.5
    for (i, j), edge in edges.items():
        # Of those that go before one image, a crop, overlay or bordered form of another is last.
        if edge.accepted and edge.derived and i in moved and moved[i] == moved.get(j):
            part = i if edge.derived == 1 else j
            place[part] = moved[part] - 0.25
    return sorted(range(members), key=lambda member: (place[member], member))


def _loners(members: int, edges: Mapping[Pair, Verified]) -> list[bool]:
    """Return which members were rejected several times and never accepted: pages of one layout."""
    rejected, accepted = [0] * members, [False] * members
    for pair, edge in edges.items():
        for end in pair:
            rejected[end] += not edge.accepted
            accepted[end] = accepted[end] or edge.accepted
    return [n >= _REJECTIONS and not a for n, a in zip(rejected, accepted, strict=True)]


def plan(
    members: int,
    candidates: Mapping[Pair, bool],
    edges: Mapping[Pair, Verified],
    *,
    last: bool,
    waiting: Container[Pair] = (),
) -> list[tuple[int, int, bool]]:
    """List the pairs that the walk needs compared next.

    Args:
        members: how many there are, numbered in the keep-best order.
        candidates: the proposed pairs (i, j), i < j, and whether each is likely to be accepted. An
            unlikely one holds nothing up: its later end asks as if it were rejected, which costs
            needless comparisons where it is not, and never leaves one out.
        edges: the pairs compared so far.
        last: no further round will follow: every candidate that can still matter is listed.
        waiting: pairs that were asked for and have no answer yet; they are not listed again.

    Returns:
        (i, j, star) in ascending order; ``star`` says that no generator proposed the pair: i is
        kept, and j hangs on a member of i's group alone.
    """
    known = set(edges)
    links: list[set[int]] = [set() for _ in range(members)]
    proposed = set()
    for pair in candidates:
        proposed.add(pair)
        verdict = edges.get(pair)
        if verdict is None or verdict.accepted:
            links[pair[0]].add(pair[1])
            links[pair[1]].add(pair[0])
    neighbours = _accepted_neighbours(members, edges)
    for i, others in enumerate(neighbours):
        links[i].update(others)
    order = _order_after_swaps(members, edges, neighbours)
    place = {member: index for index, member in enumerate(order)}

    taken = [-1] * members
    unsure = [False] * members
    needed: dict[Pair, bool] = {}

    def need(a: int, b: int, star: bool) -> None:
        pair = (min(a, b), max(a, b))
        if pair not in known and pair not in waiting:
            needed.setdefault(pair, star)

    loners = _loners(members, edges)

    def likely(a: int, b: int) -> bool:
        return candidates.get((min(a, b), max(a, b)), True) and not (loners[a] or loners[b])

    for member in order:
        if taken[member] >= 0:
            continue
        accepted = set(neighbours[member])
        later = [o for o in links[member] if place[o] > place[member] and taken[o] < 0]
        if unsure[member]:
            for other in later:
                unsure[other] = unsure[other] or likely(member, other)
                if last:
                    need(member, other, False)
            continue
        unknown = [o for o in later if (min(member, o), max(member, o)) not in known]
        for other in later:
            if other in accepted and not unsure[other]:
                taken[other] = member
        for other in unknown:
            unsure[other] = unsure[other] or likely(member, other)
        if not last and len(unknown) == len(later) and len(unknown) > 2 * _PROBES:
            unknown = sorted(unknown, key=place.__getitem__)[:_PROBES]
        for other in unknown:
            need(member, other, False)
        group = [o for o in accepted if taken[o] == member]
        for inner in group:
            for other in links[inner]:
                if taken[other] < 0 and other != member and place[other] > place[member]:
                    pair = (min(member, other), max(member, other))
                    if pair not in known and pair not in proposed:
                        need(member, other, True)
                        unsure[other] = True
    return [(i, j, star) for (i, j), star in sorted(needed.items())]
