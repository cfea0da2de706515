"""What a listing sees: one element for each name that it comes upon, before names are made one."""

import dataclasses
import enum
from collections.abc import Callable
from typing import NamedTuple, Optional

from transforms.access import LOCAL, Access
from transforms.records import ImageRef
from transforms.storage.patterns import Selection
from transforms.storage.uris import readable


class Kind(enum.IntEnum):
    """What became of a name; where one URI has several, the smallest counts."""

    FOUND = 0
    FAILED = 1
    EXCLUDED = 2  # by --include or --exclude
    IN_OUTPUT = 3  # a line or a link that leads into the output folder


class Sighting(NamedTuple):
    """One name that a listing came upon."""

    kind: int  # of Kind
    ref: ImageRef
    error_type: str  # "" unless the kind is FAILED
    message: str
    content_md5: str = ""  # hex, where the store has it without a read


class Source(NamedTuple):
    """What one ``--input`` turned out to name, or a part of it that is walked by itself."""

    kind: str  # folder | glob | file | list
    uri: str  # canonical, of the folder, of the folder before the first wildcard, or of the file
    below: bytes = b""  # of a single file; for a list, the folder that its lines start from
    segments: tuple[str, ...] = ()  # of a glob
    part: str = ""  # only names that start so, below the URI
    deep: bool = True  # whether names beyond the next slash belong to it


IsKnown = Callable[[Source], bool]  # whether a listing of a folder or glob is at hand


def nothing_is_known(_: Source) -> bool:
    """Tell that there is no listing at hand."""
    return False


@dataclasses.dataclass(frozen=True)
class Scope:
    """What a listing must know of the whole job.

    Args:
        index: position of the input among all of them.
        selection: which files are inputs.
        output_uri: the output folder without a slash at its end, resolved; None if there is none.
        access: how stores are reached.
        cache_uri: the folder of kept listings, likewise; what lies in it is no input either.
    """

    index: int = 0
    selection: Selection = dataclasses.field(default_factory=Selection)
    output_uri: Optional[str] = None
    access: Access = LOCAL
    cache_uri: Optional[str] = None

    def in_output(self, uri: str) -> bool:
        """Tell whether an object is a folder of this program's own, or lies below it."""
        own = (self.output_uri, self.cache_uri)
        return any(one is not None and (uri + "/").startswith(one + "/") for one in own)

    def found(self, ref: ImageRef, content_md5: str = "") -> Sighting:
        """Return the sighting of an object, which size or date may leave out."""
        kept = self.selection.bounds.keep(ref.size_bytes, ref.modified_us)
        return Sighting(Kind.FOUND if kept else Kind.EXCLUDED, ref, "", "", content_md5)

    def left_out(self, uri: str, below: str) -> Optional[Sighting]:
        """Return the sighting of a name that is no input, whatever its object is."""
        if self.in_output(uri):
            return self.unseen(Kind.IN_OUTPUT, uri, below)
        if not self.selection.keeps(below):
            return self.unseen(Kind.EXCLUDED, uri, below)
        return None

    def unseen(self, kind: Kind, uri: str, below: str) -> Sighting:
        """Return the sighting of a name about whose object nothing more is known."""
        ref = ImageRef(uri, readable(uri), below, self.index, 0, None, None, "")
        return Sighting(kind, ref, "", "")

    def failed(self, uri: str, below: str, error_type: str, message: str) -> Sighting:
        """Return the sighting of a name that is no input because of a fault."""
        sighting = self.unseen(Kind.FAILED, uri, below)
        return sighting._replace(error_type=error_type, message=message)
