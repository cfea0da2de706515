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
_Place = tuple[float, int]  # in the order of the walk
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
    kept = _walk_in(sorted(range(members), key=places.__getitem__), neighbours)
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
) -> dict[int, _Place]:
    """Move each member of which the kept image is a derived form before that image, once.

    With the pairs that were ``compared``, only those members that have been compared with every
    other one of their group: one that has not would lose members that nobody has looked at.
    """
    places = {member: (float(member), member) for member in members}
    derived = [(i, j, edge) for (i, j), edge in edges.items() if edge.accepted and edge.derived]
    if not derived:
        return places
    kept = _walk_in(members, neighbours)
    group: dict[int, list[int]] = {}
    for member, keeper in kept.items():
        group.setdefault(keeper, []).append(member)
    moved = {}
    for i, j, edge in derived:
        # Only i can be the kept one: it comes first in the order.
        if edge.derived == 1 and kept[j] == i:
            if compared is None or all(o == j or _pair(o, j) in compared for o in group[i]):
                moved[j] = i
                places[j] = (i - 0.5, j)
    for i, j, edge in derived:
        # Of those that go before one image, a crop, overlay or bordered form of another is last.
        if i in moved and moved[i] == moved.get(j):
            part = i if edge.derived == 1 else j
            places[part] = (moved[part] - 0.25, part)
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
        self._candidates = candidates
        self._asked: set[Pair] = set()
        self._answered: set[Pair] = set()
        # By member, the other ends of candidates without an answer and of accepted pairs.
        self._chances: list[set[int]] = [set() for _ in range(members)]
        self._hopes: list[set[int]] = [set() for _ in range(members)]
        self._accepted: list[set[int]] = [set() for _ in range(members)]
        self._changed = set(range(members))
        self._derived: list[dict[int, Verified]] = [{} for _ in range(members)]  # i < j alone
        self._rejections = [0] * members
        for pair, prospect in candidates.items():
            if pair not in edges:
                _link(self._chances if prospect is Prospect.CHANCE else self._hopes, pair)
        for pair, edge in edges.items():
            self.answer(pair, edge)
        # What the last walk over a member's piece found.
        self._place: list[_Place] = [(float(member), member) for member in range(members)]
        self._taken = [-1] * members  # by which kept one
        self._asking = [False] * members  # whether it asks for its chances too

    def answer(self, pair: Pair, edge: Verified) -> None:
        """Take the answer to one pair."""
        self._answered.add(pair)
        for a, b in (pair, pair[::-1]):
            self._chances[a].discard(b)
            self._hopes[a].discard(b)
            self._rejections[a] += not edge.accepted
            if edge.accepted:
                self._accepted[a].add(b)
            self._changed.add(a)
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
        changed = set(range(len(self._place))) if last else self._changed
        self._changed = set()
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
                    fresh = side[inner] - seen
                    seen |= fresh
                    piece += fresh
            yield sorted(piece)

    def _walk(self, piece: list[int], last: bool, needed: dict[Pair, bool]) -> None:
        """Walk over a piece as far as answers go, and note the pairs that it needs."""
        derived = {(i, j): edge for i in piece for j, edge in self._derived[i].items()}
        place = _places_after_swaps(piece, derived, self._accepted)
        for member in piece:
            self._place[member] = place[member]
            self._taken[member] = -1
            self._asking[member] = False
        taken = self._taken
        unsure: set[int] = set()
        for member in sorted(piece, key=place.__getitem__):
            if taken[member] >= 0:
                continue
            here = place[member]
            # After the last round nothing corrects a guess: whatever has no answer leaves doubt.
            hoped = self._hopes[member] | self._chances[member] if last else self._hopes[member]
            hopes, copies = (
                [o for o in side if taken[o] < 0 and place[o] > here]
                for side in (hoped, self._accepted[member])
            )
            if member not in unsure:
                for other in copies:
                    if other not in unsure:
                        taken[other] = member
            unsure.update(other for other in hopes if last or self._likely(member, other))
            sure = member not in unsure
            self._asking[member] = sure and (last or bool(copies) or len(hopes) <= 2 * _PROBES)
            if sure and not self._asking[member]:
                hopes = sorted(hopes, key=place.__getitem__)[:_PROBES]
            if sure or last:
                needed |= dict.fromkeys((_pair(member, other) for other in hopes), False)
            if sure:
                self._close_chains(member, copies, unsure, needed)
            else:
                unsure.update(copies)

    def _close_chains(
        self, kept: int, copies: list[int], unsure: set[int], needed: dict[Pair, bool]
    ) -> None:
        """Note the pairs of a kept member and those that hang on one that it took."""
        here = self._place[kept]
        for inner in copies:
            if self._taken[inner] != kept:
                continue
            for other in (*self._hopes[inner], *self._accepted[inner]):
                pair = _pair(kept, other)
                free = self._taken[other] < 0 and self._place[other] > here
                if free and pair not in self._answered and pair not in self._candidates:
                    needed[pair] = True
                    unsure.add(other)

    def _likely(self, a: int, b: int) -> bool:
        """Return whether a candidate without an answer will probably be accepted."""
        prospect = self._candidates[_pair(a, b)]
        return prospect is Prospect.LIKELY and not (self._alone(a) or self._alone(b))

    def _alone(self, member: int) -> bool:
        """Return whether a member was rejected several times, never accepted: a page of a form."""
        return self._rejections[member] >= _REJECTIONS and not self._accepted[member]


def _link(sides: list[set[int]], pair: Pair) -> None:
    i, j = pair
    sides[i].add(j)
    sides[j].add(i)
