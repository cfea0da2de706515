"""Local files: walk folders, expand globs, look at single names, read.

Every URI given out is the canonical one: the root is resolved once, links below it are resolved to
their targets, folders are entered by their real names. So one file has one URI, by whatever way it
was reached; only hard links are two. Nothing but a regular file is ever opened.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Optional

from transforms.access import LOCAL, Access
from transforms.records import ImageRef
from transforms.storage import lists
from transforms.storage.errors import InputError, StorageError, too_large
from transforms.storage.patterns import ANY_DEPTH, MAGIC, Glob, as_text, with_literals
from transforms.storage.sightings import (
    IsKnown,
    Kind,
    Scope,
    Sighting,
    Source,
    nothing_is_known,
)
from transforms.storage.uris import (
    encode,
    readable,
    scheme_of,
    to_local_path,
    to_uri,
    written_below,
)

# What these say is permanent: no object has this name.
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
# No waiting for the writer of a FIFO; no following a link that took the place of a listed file.
_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_READ_AT_ONCE = 1 << 30  # Linux reads at most 0x7ffff000 bytes a call (read(2))
_KNOWN_FOLDERS = 4096


def pin(text: str) -> bytes:
    """Return an input as absolute bytes, so that it means the same on another machine's worker."""
    raw = os.fsencode(text)
    if raw.startswith(b"/") or scheme_of(text):
        return raw
    return os.path.join(os.getcwdb(), raw)


def check_uri(uri: str, where: str) -> None:
    """Raise ``InputError`` if a URI cannot name a file of this machine; ``where`` names it."""
    try:
        to_local_path(uri)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def source_of(pinned: bytes, _: Access = LOCAL, __: IsKnown = nothing_is_known) -> Source:
    """Find out what an input names: a path that exists is that path, else it is read as a glob.

    Raises:
        InputError: nothing is there, or something that is neither a folder nor a regular file.
    """
    path, pattern = _path_and_pattern(pinned)
    shown = repr(os.fsdecode(pinned))
    if b"\0" in path:
        raise InputError(f"input {shown}: a name cannot hold a NUL character")
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in _FORBIDDEN:
            raise InputError(f"input {shown} cannot be looked at: {error.strerror}") from error
        if error.errno not in _MISSING:
            raise
        if MAGIC.search(pattern) and not os.path.lexists(path):
            return _glob_source(pattern, shown)
        raise InputError(f"input {shown}: no such file or folder") from error
    real = os.path.realpath(path)
    if stat.S_ISDIR(mode):
        return Source("folder", to_uri(real))
    if not stat.S_ISREG(mode):
        raise InputError(f"input {shown} is {_kind_of(mode)}, not a folder or a regular file")
    lists.refuse_pickle(path)
    if lists.is_list(path):
        return Source("list", to_uri(real), os.path.dirname(path))
    return Source("file", to_uri(real), os.path.basename(path))


def _path_and_pattern(pinned: bytes) -> tuple[bytes, str]:
    """Return an input as a literal path and as a glob; an encoded wildcard of a URI is literal."""
    text = os.fsdecode(pinned)
    if scheme_of(text) is None:
        return pinned, as_text(pinned)
    check_uri(text, f"input {text!r}")
    return to_local_path(text), as_text(to_local_path(with_literals(text)))


def _glob_source(pattern: str, shown: str) -> Source:
    names = pattern.split("/")
    first = next(i for i, name in enumerate(names) if MAGIC.search(name))
    root = "/".join(names[:first]) or "/"
    segments = [name for name in names[first:] if name not in ("", ".")]
    if segments[-1] == ANY_DEPTH:
        # At the end it means all that is below, never the thing before it.
        segments.append("*")
    if ".." in segments:
        raise InputError(f"input {shown}: '..' cannot stand after a wildcard")
    real = os.path.realpath(root.encode("utf-8", "surrogateescape"))
    if names[-1] == "" or not os.path.isdir(real):
        raise InputError(f"input {shown} matched no objects; a folder is named without wildcards")
    return Source("glob", to_uri(real), segments=Glob(segments).segments)


class _Folder:
    """A folder that a walk is in: its names still to come, and what stands before them."""

    __slots__ = ("below", "entries", "positions", "shown", "uri")

    def __init__(self, path: bytes, below: str, positions: frozenset[int]) -> None:
        uri = to_uri(path)
        self.uri = uri if uri.endswith("/") else uri + "/"
        self.shown = readable(self.uri)
        self.below = below
        self.positions = positions
        # Folders sort with their slash, so that a walk yields the encoded paths in their order.
        entries = [(_sort_key(entry), entry) for entry in _scan(path)]
        entries.sort(key=itemgetter(0))
        self.entries = iter(entries)


def _sort_key(entry: os.DirEntry[bytes]) -> str:
    name = encode(entry.name)
    return name + "/" if entry.is_dir(follow_symlinks=False) else name


def _scan(path: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except PermissionError as error:
        raise InputError(
            f"folder {os.fsdecode(path)!r} cannot be listed: {error.strerror}; give access, or "
            "name other folders as inputs: a part of the images is never taken for all of them"
        ) from error


def walk(source: Source, scope: Scope) -> Iterator[Sighting]:
    """Yield every file below a folder, or those that a glob matches, in the order of ``below``.

    Links to folders are not entered, the output folder neither. A folder that cannot be listed, or
    goes away meanwhile, ends the walk with an error. Memory: the entries of the folders on the way
    down, about 0.4 KB each.

    Args:
        source: of kind ``folder`` or ``glob``.
        scope: of the input.

    Raises:
        InputError: a folder may not be listed.
        OSError: listing failed otherwise.
    """
    glob = Glob(source.segments) if source.segments else None
    if scope.in_output(source.uri):
        return
    stack = [_Folder(to_local_path(source.uri), "", glob.start if glob else frozenset())]
    while stack:
        folder = stack[-1]
        for key, entry in folder.entries:
            positions = folder.positions
            if glob:
                positions = glob.step(positions, as_text(entry.name))
            below = folder.below + key
            if key.endswith("/"):
                leads_on = glob is None or glob.leads_on(positions)
                if leads_on and not scope.in_output(folder.uri + key[:-1]):
                    stack.append(_Folder(entry.path, below, positions))
                    break
            elif glob is None or glob.accepts(positions):
                sighting = _sight_entry(folder, key, entry, below, scope)
                if sighting:
                    yield sighting
        else:
            stack.pop()


def _sight_entry(
    folder: _Folder, key: str, entry: os.DirEntry[bytes], below: str, scope: Scope
) -> Optional[Sighting]:
    uri = folder.uri + key
    if not scope.selection.keeps(below):
        # A link to a folder is no input in any case, so nothing left it out.
        if entry.is_symlink() and os.path.isdir(entry.path):
            return None
        return scope.unseen(Kind.EXCLUDED, uri, below)
    if entry.is_symlink():
        return _follow(entry.path, uri, below, scope)
    try:
        info = entry.stat(follow_symlinks=False)
    except OSError as error:
        if error.errno in _MISSING:
            return scope.failed(uri, below, "vanished", "it went away while it was listed")
        return scope.failed(uri, below, *_fault(error))
    if not stat.S_ISREG(info.st_mode):
        return scope.failed(uri, below, *_not_regular(info.st_mode))
    shown = folder.shown + key if "%" not in key else readable(uri)
    return scope.found(_ref(uri, shown, below, scope.index, info))


def _follow(path: bytes, uri: str, below: str, scope: Scope) -> Optional[Sighting]:
    """Take a link for its target; None for a link to a folder, which is not followed."""
    try:
        target = os.path.realpath(path, strict=True)
        info = os.lstat(target)
    except OSError as error:
        if error.errno in _MISSING:
            return scope.failed(uri, below, "not_found", "the link leads to no file")
        return scope.failed(uri, below, *_fault(error))
    if stat.S_ISDIR(info.st_mode):
        return None
    return _sight_resolved(to_uri(target), below, scope, info)


def _sight_resolved(uri: str, below: str, scope: Scope, info: os.stat_result) -> Sighting:
    if scope.in_output(uri):
        return scope.unseen(Kind.IN_OUTPUT, uri, below)
    if not stat.S_ISREG(info.st_mode):
        return scope.failed(uri, below, *_not_regular(info.st_mode))
    return scope.found(_ref(uri, readable(uri), below, scope.index, info))


class Names:
    """Looks at single names, such as the lines of a list.

    Args:
        scope: of the input that they come from.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._real: dict[bytes, bytes] = {}

    def sight_line(self, line: bytes, folder: bytes) -> Sighting:
        """Look at a line of a list: a file URI, or a path relative to the list's folder.

        Its ``below`` is the path as written, without ``.`` and ``..`` (``written_below``). A URI
        must have passed ``check_uri``.
        """
        text = os.fsdecode(line)
        path = to_local_path(text) if scheme_of(text) else line
        return self.sight(os.path.join(folder, path), written_below(path))

    def sight_source(self, source: Source) -> Sighting:
        """Look at a single file that an input names."""
        return self.sight(to_local_path(source.uri), encode(source.below))

    def sight_lines(self, lines: Sequence[bytes], folder: bytes) -> list[Sighting]:
        """Look at lines of a list; see ``sight_line``."""
        return [self.sight_line(line, folder) for line in lines]

    def sight(self, path: bytes, below: str) -> Sighting:
        """Look at one absolute path; whatever is wrong with it, it is one sighting."""
        scope = self._scope
        if b"\0" in path:
            return scope.failed(to_uri(path), below, "not_found", "a name cannot hold a NUL byte")
        real = self._resolve(path)
        uri = to_uri(real)
        if left_out := scope.left_out(uri, below):
            return left_out
        try:
            info = os.lstat(real)
        except OSError as error:
            return scope.failed(uri, below, *_fault(error))
        if stat.S_ISLNK(info.st_mode):
            followed = _follow(real, uri, below, scope)
            return followed or scope.failed(uri, below, *_not_regular(stat.S_IFDIR))
        return _sight_resolved(uri, below, scope, info)

    def _resolve(self, path: bytes) -> bytes:
        """Resolve all but the last name; lists mostly stay in a folder, so folders are kept."""
        folder, name = os.path.split(path)
        if name in (b"", b".", b".."):
            return os.path.realpath(path)
        real = self._real.get(folder)
        if real is None:
            if len(self._real) >= _KNOWN_FOLDERS:
                self._real.clear()
            real = self._real[folder] = os.path.realpath(folder)
        return os.path.join(real, name)


def _ref(uri: str, shown: str, below: str, index: int, info: os.stat_result) -> ImageRef:
    return ImageRef(
        uri,
        shown,
        below,
        index,
        info.st_size,
        # Changes with every write that moves the clock or the size; costs no read.
        f"{info.st_mtime_ns:x}-{info.st_size:x}",
        info.st_mtime_ns // 1000,
        f"{info.st_dev}:{info.st_ino}" if info.st_nlink > 1 else "",
    )


def _fault(error: OSError) -> tuple[str, str]:
    """Return the error type and message of a permanent fault; raise any other again."""
    if error.errno in _FORBIDDEN:
        return "forbidden", "permission denied"
    if error.errno in _MISSING:
        return "not_found", f"no such file ({error.strerror})"
    raise error


def _kind_of(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def _not_regular(mode: int) -> tuple[str, str]:
    return "other", f"{_kind_of(mode)}, which is never opened"


def local_copy(source: Source, _: Access = LOCAL) -> contextlib.AbstractContextManager[bytes]:
    """Give the path of a file while it is read."""
    return contextlib.nullcontext(to_local_path(source.uri))


def read(
    uri: str,
    max_bytes: int,
    expected_size: Optional[int] = None,
    etag: Optional[str] = None,
    access: Access = LOCAL,
) -> bytes:
    """Read a whole file; see ``transforms.storage.read.read_bytes``."""
    missing = "not_found" if expected_size is None else "vanished"
    path = to_local_path(uri)
    try:
        # Looked at before it is opened: opening a device can already do something.
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode):
            changed = "other" if expected_size is None else "vanished"
            raise StorageError(changed, _not_regular(mode)[1])
        descriptor = os.open(path, _OPEN_FLAGS)
    except OSError as error:
        error_type, message = _fault(error)
        if error_type == "not_found":
            raise StorageError(missing, message) from error
        raise StorageError(error_type, message) from error
    except ValueError as error:  # a NUL byte
        raise StorageError(missing, "a name cannot hold a NUL byte") from error
    try:
        return _read_open(descriptor, max_bytes, expected_size)
    finally:
        os.close(descriptor)


def _read_open(descriptor: int, max_bytes: int, expected_size: Optional[int]) -> bytes:
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode):
        raise StorageError("vanished", f"it became {_kind_of(info.st_mode)}")
    if info.st_size > max_bytes:
        raise too_large(info.st_size, max_bytes)
    if expected_size is not None and info.st_size != expected_size:
        raise StorageError(
            "vanished", f"it has {info.st_size} bytes, but had {expected_size} when it was listed"
        )
    # One byte more than there should be: a read that stops short of it has met the end.
    wanted = info.st_size + 1
    data = os.read(descriptor, min(wanted, _READ_AT_ONCE))
    while 0 < len(data) < wanted - 1:
        more = os.read(descriptor, min(wanted - len(data), _READ_AT_ONCE))
        if not more:
            break
        data += more
    if len(data) != info.st_size:
        # Never hash a part: someone is writing to the file right now.
        raise StorageError("vanished", "its size changed while it was read")
    return data
