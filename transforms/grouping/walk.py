"""The walk of stage 5, and the plan of which pairs it still needs compared.

Members are numbered in the keep-best order, 0 first. The walk takes the first ungrouped member as
kept and gives it every ungrouped member that has an accepted edge to it; so each duplicate has a
verified edge to the very image that is kept. Only pairs of a kept member and an ungrouped one are
ever asked for, so a plan that verifies just those pairs, in rounds, reaches the walk's result with
few comparisons: a greedy maximal independent set, evaluated lazily.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

Pair = tuple[int, int]  # (i, j) with i < j
# A kept member is first compared with so many of the best that it may take: if one of them turns
# out to be the whole of which it is a crop, overlay or bordered form, that one takes the rest.
_PROBES = 4
_REJECTIONS = 2  # from which on, without an acceptance, no further pair of a member is likely


class Prospect(IntEnum):
    """What a proposed pair promises, a guess about the order of work."""

    CHANCE = 0  # hardly ever accepted: no chain is closed over it until it is
    UNLIKELY = 1  # holds nothing up, but a chain may lead over it
    LIKELY = 2


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
    neighbours: list[list[int]] = [[] for _ in range(members)]
    for (i, j), edge in edges.items():
        if edge.accepted:
            neighbours[i].append(j)
            neighbours[j].append(i)
    places = _places_after_swaps(range(members), edges, neighbours, compared=edges.keys())
    kept = _walk_in(
        sorted(range(members), key=lambda member: places.get(member, member)), neighbours
    )
    return [kept[member] for member in range(members)]


def _walk_in(order: Iterable[int], neighbours: Sequence[Iterable[int]]) -> dict[int, int]:
    kept: dict[int, int] = {}
    for member in order:
        if member not in kept:
            kept[member] = member
            for other in neighbours[member]:
                kept.setdefault(other, member)
    return kept


def _places_after_swaps(
    members: Sequence[int],
    edges: Mapping[Pair, Verified],
    neighbours: Sequence[Iterable[int]],
    compared: Collection[Pair] | None = None,
) -> dict[int, float]:
    """Move each member of which the kept image is a derived form before that image, once.

    With the pairs that were ``compared``, only those members that have been compared with every
    other one of their group: one that has not would lose members that nobody has looked at.

    Args:
        members: their numbers, ascending; each one's place in the order if it is not moved.
        edges: the compared pairs.
        neighbours: by member, the other ends of accepted pairs.
        compared: pairs, or None if it does not matter.

    Returns:
        The places of those that are moved, no two the same.
    """
    derived = [(i, j, edge) for (i, j), edge in edges.items() if edge.accepted and edge.derived]
    if not derived:
        return {}
    kept = _walk_in(members, neighbours)
    group: dict[int, list[int]] = {}
    for member, keeper in kept.items():
        group.setdefault(keeper, []).append(member)
    moved: dict[int, int] = {}
    for i, j, edge in derived:
        # Only i can be the kept one: it comes first in the order.
        if edge.derived == 1 and kept[j] == i:
            if compared is None or all(o == j or _pair(o, j) in compared for o in group[i]):
                moved[j] = i
    # Among those that go before one image, by their numbers: less than a quarter in all.
    step = 0.25 / (members[-1] + 1)
    places = {j: i - 0.75 + step * j for j, i in moved.items()}
    for i, j, edge in derived:
        # Of those that go before one image, a crop, overlay or bordered form of another is last.
        if i in moved and moved[i] == moved.get(j):
            part = i if edge.derived == 1 else j
            places[part] = moved[part] - 0.5 + step * part
    return places


def _pair(a: int, b: int) -> Pair:
    return (a, b) if a < b else (b, a)


class Plan:
    """The pairs that the walk still needs compared, kept up to date while answers come in.

    What a member is in the walk (kept, taken, or not known yet) spreads along accepted pairs and
    along candidates that promise something, so an answer changes no more than the piece of the
    graph that these hold together. Only such pieces are walked again.
    """

    def __init__(
        self, members: int, candidates: Mapping[Pair, Prospect], edges: Mapping[Pair, Verified]
    ) -> None:
        """Take what is known.

        Args:
            members: how many there are, numbered in the keep-best order.
            candidates: the proposed pairs (i, j), i < j, and what each promises. One that is not
                likely holds nothing up: its later end asks as if it were rejected, which costs
                needless comparisons where it is not, and never leaves one out.
            edges: the pairs compared so far.
        """
        self._asked: set[Pair] = set()
        # By member, the other ends of candidates without an answer, and of compared pairs.
        self._chances: list[set[int]] = [set() for _ in range(members)]
        self._hopes: list[set[int]] = [set() for _ in range(members)]
        self._accepted: list[set[int]] = [set() for _ in range(members)]
        self._rejected: list[set[int]] = [set() for _ in range(members)]
        self._unlikely: dict[int, set[int]] = {}  # of the hopes
        self._lonely: set[int] = set()  # rejected several times, never accepted: pages of a form
        self._changed = set(range(members))
        self._derived: list[dict[int, Verified]] = [{} for _ in range(members)]  # i < j alone
        for (i, j), prospect in candidates.items():
            if (i, j) not in edges:
                sides = self._chances if prospect is Prospect.CHANCE else self._hopes
                sides[i].add(j)
                sides[j].add(i)
                if prospect is Prospect.UNLIKELY:
                    self._unlikely.setdefault(i, set()).add(j)
                    self._unlikely.setdefault(j, set()).add(i)
        for pair, edge in edges.items():
            self.answer(pair, edge)
        # What the last walk over a member's piece found.
        self._place: list[float] = list(range(members))
        self._taken = [-1] * members  # by which kept one
        self._asking = [False] * members  # whether it asks for its chances too

    def answer(self, pair: Pair, edge: Verified) -> None:
        """Take the answer to one pair."""
        compared = self._accepted if edge.accepted else self._rejected
        for a, b in (pair, pair[::-1]):
            self._chances[a].discard(b)
            self._hopes[a].discard(b)
            compared[a].add(b)
            if len(self._rejected[a]) >= _REJECTIONS and not self._accepted[a]:
                self._lonely.add(a)
            else:
                self._lonely.discard(a)
        self._changed.update(pair)
        if edge.accepted and edge.derived:
            self._derived[pair[0]][pair[1]] = edge

    def ask(self, *, last: bool) -> list[tuple[int, int, bool]]:
        """List the pairs that the walk needs compared next; none is listed twice.

        Args:
            last: no further round will follow: every candidate that can still matter is listed.

        Returns:
            (i, j, star) in ascending order; ``star`` says that no generator proposed the pair: i is
            kept, and j hangs on a member of i's group alone.
        """
        changed, self._changed = self._changed, set()
        if last:  # what has all its answers is as it was
            changed.update(
                m
                for m, sides in enumerate(zip(self._hopes, self._chances, strict=True))
                if any(sides)
            )
        needed: dict[Pair, bool] = {}
        walked: list[int] = []
        for piece in self._pieces(changed, last):
            self._walk(piece, last, needed)
            walked += piece
        for member in walked:
            for other in self._chances[member]:
                first, later = sorted((member, other), key=self._place.__getitem__)
                taker = self._taken[later]
                free = taker < 0 or self._place[taker] > self._place[first]
                if self._asking[first] and free:
                    needed[_pair(member, other)] = False
        fresh = sorted(needed.keys() - self._asked)
        self._asked.update(fresh)
        return [(*pair, needed[pair]) for pair in fresh]

    def _pieces(self, changed: set[int], last: bool) -> Iterator[list[int]]:
        """Yield the members of each piece in which one has changed, in ascending order."""
        sides = (self._hopes, self._accepted, *([self._chances] if last else []))
        seen: set[int] = set()
        for member in changed:
            if member in seen:
                continue
            seen.add(member)
            piece = [member]
            for inner in piece:
                for side in sides:
                    if fresh := side[inner] - seen:
                        seen |= fresh
                        piece += fresh
            yield sorted(piece)

    def _walk(self, piece: list[int], last: bool, needed: dict[Pair, bool]) -> None:
        """Walk over a piece as far as answers go, and note the pairs that it needs."""
        derived = {(i, j): edge for i in piece for j, edge in self._derived[i].items()}
        moved = _places_after_swaps(piece, derived, self._accepted)
        place, taken = self._place, self._taken
        for member in piece:
            place[member] = moved.get(member, member)
            taken[member] = -1
            self._asking[member] = False
        unsure: set[int] = set()
        for member in sorted(piece, key=place.__getitem__) if moved else piece:
            if taken[member] >= 0:
                continue
            # After the last round nothing corrects a guess: whatever has no answer leaves doubt.
            hoped = self._hopes[member] | self._chances[member] if last else self._hopes[member]
            doubts = hoped if last else self._likely(member)
            if member in unsure:
                if last:
                    pairs = (_pair(member, other) for other in self._free(member, hoped))
                    needed |= dict.fromkeys(pairs, False)
                unsure |= doubts
                unsure |= self._accepted[member]
                continue
            hopes, copies = (self._free(member, side) for side in (hoped, self._accepted[member]))
            for other in copies:
                if other not in unsure:
                    taken[other] = member
            unsure |= doubts
            # Of what has only been rejected the rest will be too; likely pairs are asked at once.
            hopeless = member in self._lonely and member not in self._unlikely
            settled = last or bool(copies) or hopeless
            self._asking[member] = settled or len(hopes) <= 2 * _PROBES
            if not self._asking[member]:
                hopes = sorted(hopes, key=place.__getitem__)[:_PROBES]
            needed |= dict.fromkeys((_pair(member, other) for other in hopes), False)
            self._close_chains(member, copies, unsure, needed)

    def _free(self, member: int, others: set[int]) -> list[int]:
        """Return which of some members are after one and not taken yet."""
        here, place, taken = self._place[member], self._place, self._taken
        return [other for other in others if taken[other] < 0 and place[other] > here]

    def _close_chains(
        self, kept: int, copies: list[int], unsure: set[int], needed: dict[Pair, bool]
    ) -> None:
        """Note the pairs of a kept member and those that hang on one that it took."""
        sides = (self._hopes, self._chances, self._accepted, self._rejected)
        known = {kept}.union(*(side[kept] for side in sides))
        for inner in copies:
            if self._taken[inner] == kept:
                near = (self._hopes[inner] | self._accepted[inner]) - known
                for other in self._free(kept, near):
                    needed[_pair(kept, other)] = True
                    unsure.add(other)

    def _likely(self, member: int) -> set[int]:
        """Return the other ends of its candidates that will probably be accepted."""
        if member in self._lonely:
            return set()
        return self._hopes[member] - self._unlikely.get(member, set()) - self._lonely
