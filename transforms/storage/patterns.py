"""Globs that take bounded time: ``*``, ``?``, ``[]`` within a name, ``**`` across folders.

A glob is a row of segments, each matched on one name of a path; ``**`` as a whole segment stands
for any number of folders. It runs as a set of positions in that row, so that the work on a path is
at most segments times names. Within a name ``fnmatch.translate`` is used, whose expressions have
atomic groups (Python 3.11) and so never backtrack into an earlier ``*``. Case counts; hidden names
are like any other.
"""

import dataclasses
import fnmatch
import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple, Optional
from urllib.parse import unquote_to_bytes

from transforms.storage.errors import InputError

MAX_PATTERN = 1024  # characters; far more than a person writes, few enough to bound the work
MAGIC = re.compile(r"[*?\[]")
_ENCODED_MAGIC = re.compile("%(?:2A|3F|5B)", re.IGNORECASE)

_Positions = frozenset[int]
ANY_DEPTH = "**"


def with_literals(uri: str) -> str:
    """Return a URI as a glob: an encoded wildcard is literal, a class of that one character."""
    return _ENCODED_MAGIC.sub(r"%5B\g<0>%5D", uri)


def _matcher(segment: str) -> Optional[Callable[[str], object]]:
    if segment == ANY_DEPTH:
        return None
    if not MAGIC.search(segment):
        return segment.__eq__
    return re.compile(fnmatch.translate(segment)).match


def as_text(path: bytes) -> str:
    """Return the text that globs are matched on: UTF-8, other bytes as surrogates."""
    return path.decode("utf-8", "surrogateescape")


class Glob:
    """A compiled row of segments.

    Args:
        segments: globs of one name each, or ``**``; at least one.

    Raises:
        InputError: they are longer than ``MAX_PATTERN`` characters together.
    """

    def __init__(self, segments: Iterable[str]) -> None:
        self.segments = tuple(segments)
        if not self.segments or sum(map(len, self.segments)) > MAX_PATTERN:
            raise InputError(f"a glob must have 1 to {MAX_PATTERN} characters")
        self._matchers = tuple(map(_matcher, self.segments))
        self.start = self._closed({0})

    def __reduce__(self) -> tuple[type["Glob"], tuple[tuple[str, ...]]]:
        # Bound methods of str do not pickle; the segments say everything.
        return Glob, (self.segments,)

    def _closed(self, positions: set[int]) -> _Positions:
        """Add the positions after each ``**``, which may stand for no folder at all."""
        for position in range(len(self._matchers)):
            if position in positions and self._matchers[position] is None:
                positions.add(position + 1)
        return frozenset(positions)

    def step(self, positions: _Positions, name: str) -> _Positions:
        """Return the positions after one more name; empty if nothing can match any more."""
        after = set()
        for position in positions:
            if position == len(self._matchers):
                continue
            matcher = self._matchers[position]
            if matcher is None:
                after.add(position)
            # str.__eq__ gives NotImplemented, which is true, for a non-str only.
            elif matcher(name):
                after.add(position + 1)
        return self._closed(after)

    def accepts(self, positions: _Positions) -> bool:
        """Tell whether the names so far are a whole match."""
        return len(self._matchers) in positions

    def leads_on(self, positions: _Positions) -> bool:
        """Tell whether more names could still make a match."""
        return any(position < len(self._matchers) for position in positions)

    def matches(self, names: Iterable[str]) -> bool:
        """Tell whether a path, given as its names, matches."""
        positions = self.start
        for name in names:
            positions = self.step(positions, name)
            if not positions:
                return False
        return self.accepts(positions)


def filter_glob(pattern: str) -> Glob:
    """Compile an ``--include`` or ``--exclude`` pattern, read as in a ``.gitignore`` file.

    Without a slash it is matched on the name of the file and of every folder above it, below the
    root; with one, on the path from the root. What it matches it takes with everything below it. A
    slash at the end makes it match folders only. (``!`` and ``#`` are names like any other.)

    Args:
        pattern: a glob; undecodable bytes as surrogates, as in ``sys.argv``.

    Raises:
        InputError: it is empty or too long.
    """
    text = as_text(os.fsencode(pattern))
    segments = [segment for segment in text.split("/") if segment]
    if not segments or len(text) > MAX_PATTERN:
        raise InputError(
            f"include and exclude globs must have 1 to {MAX_PATTERN} characters, "
            f"got {pattern[:40]!r}; name what to take, as in '*.jpg' or 'thumbs/'"
        )
    if "/" not in text.rstrip("/"):
        segments.insert(0, ANY_DEPTH)
    if text.endswith("/"):
        segments.append("*")
    return Glob([*segments, ANY_DEPTH])


class Bounds(NamedTuple):
    """Which files are inputs by what the listing knows of them; None sets no bound."""

    min_bytes: Optional[int] = None
    max_bytes: Optional[int] = None
    after_us: Optional[int] = None  # last changed then or later; microseconds since 1970 UTC
    before_us: Optional[int] = None  # last changed earlier

    def keep(self, size_bytes: int, modified_us: Optional[int]) -> bool:
        """Tell whether a file is an input; where nobody knows its date, no date leaves it out."""
        low, high = self.min_bytes, self.max_bytes
        if (low is not None and size_bytes < low) or (high is not None and size_bytes > high):
            return False
        if modified_us is None:
            return True
        if self.after_us is not None and modified_us < self.after_us:
            return False
        return self.before_us is None or modified_us < self.before_us


ANY = Bounds()


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which files below the roots are inputs.

    Args:
        include: patterns of ``filter_glob``; if there are any, a file must match one of them.
        exclude: patterns; a file that matches one is left out, whatever ``include`` says.
        bounds: of size and date.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bounds: Bounds = ANY

    def __post_init__(self) -> None:
        object.__setattr__(self, "_include", tuple(map(filter_glob, self.include)))
        object.__setattr__(self, "_exclude", tuple(map(filter_glob, self.exclude)))

    def keeps(self, below: str) -> bool:
        """Tell whether a file is an input, by its percent-encoded path below the root."""
        if not (self.include or self.exclude):
            return True
        names = as_text(unquote_to_bytes(below)).split("/")
        include: tuple[Glob, ...] = self.__dict__["_include"]
        exclude: tuple[Glob, ...] = self.__dict__["_exclude"]
        if include and not any(glob.matches(names) for glob in include):
            return False
        return not any(glob.matches(names) for glob in exclude)
