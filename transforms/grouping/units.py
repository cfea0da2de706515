"""Cutting a component's pairs into bounded units of work."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

_Pair = TypeVar("_Pair")


def split_pairs(
    pairs: Iterable[tuple[int, int, _Pair]], members: int, max_members: int
) -> Iterator[list[_Pair]]:
    """Split pairs into units that name at most ``max_members`` distinct members each.

    Members are cut into blocks of half the bound in their order, and a unit holds the pairs of one
    pair of blocks; no pair is left out and none appears twice.

    Args:
        pairs: (member index, member index, payload), indices in 0..members-1.
        members: how many members there are.
        max_members: the bound, at least 2.

    Yields:
        The payloads of one unit, in the order given.

    Raises:
        ValueError: if ``max_members`` is below 2.
    """
    if max_members < 2:
        raise ValueError(f"max_members must be at least 2, not {max_members!r}")
    block = max_members if members <= max_members else max_members // 2
    units: dict[tuple[int, int], list[_Pair]] = {}
    for first, second, payload in pairs:
        low, high = sorted((first // block, second // block))
        units.setdefault((low, high), []).append(payload)
    for key in sorted(units):
        yield units[key]
