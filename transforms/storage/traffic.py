"""What this process asked of stores: counters by kind of request and by what became of it.

The counters are the process's, since requests run in threads of their own; whoever takes them takes
all that was counted since the last time, so that the sum over all takes is right.
"""

import threading
from typing import Optional

from transforms.records import RequestCount

_lock = threading.Lock()
_counts: dict[tuple[str, str], list[int]] = {}


def count(
    kind: str,
    status: str,
    *,
    requests: int = 0,
    retries: int = 0,
    waited_s: float = 0.0,
    bytes_received: int = 0,
    bytes_sent: int = 0,
) -> None:
    """Add to the counters.

    Args:
        kind: ``list``, ``head``, ``read``, ``write``, ``copy``, ``delete`` or ``lease``.
        status: the HTTP status, ``reset`` or ``timeout`` where there was none, or ``retry``.
        requests: that were sent.
        retries: operations that were begun again because of this status.
        waited_s: seconds during which some request of this process was held back, for the rate
            limit or before it was tried again.
        bytes_received: of bodies.
        bytes_sent: of bodies.
    """
    added = (requests, retries, round(waited_s * 1e6), bytes_received, bytes_sent)
    with _lock:
        counts = _counts.setdefault((kind, status), [0] * len(added))
        for place, number in enumerate(added):
            counts[place] += number


def is_any() -> bool:
    """Tell whether anything was counted since the last time that it was taken."""
    return bool(_counts)


def take() -> list[RequestCount]:
    """Return what was counted since the last time, in a fixed order."""
    with _lock:
        taken = [RequestCount(*key, *counts) for key, counts in sorted(_counts.items())]
        _counts.clear()
    return taken


def total(counts: list[RequestCount], kind: Optional[str] = None) -> int:
    """Return how many requests there were, of one kind or of all."""
    return sum(one.requests for one in counts if kind in (None, one.kind))
