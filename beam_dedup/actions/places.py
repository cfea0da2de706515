"""Where copies go: a folder of this machine, or a prefix of names in Azure.

Both write whole files under names that nothing has, and never over one that is there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from beam_dedup.options import UsageError
from transforms.access import Access
from transforms.storage import InputError, StorageError, read_bytes, to_local_path, to_uri
from transforms.storage.azure.names import SCHEME, BlobName, parse_uri
from transforms.storage.uris import scheme_of

if TYPE_CHECKING:
    from transforms.storage.azure.account import Account

_PARTS = ".parts"  # what is being written, below a local destination
# What says that this one name cannot be written, not that nothing can.
_OF_ONE_NAME = frozenset(
    {
        errno.EACCES,
        errno.EEXIST,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EPERM,
    }
)
# A file system without hard links, such as those of memory cards.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class Seen(NamedTuple):
    """A file at the destination."""

    size_bytes: int
    etag: str
    content_md5: str = ""  # hex; "" where it is not known without a read
    is_empty_leftover: bool = False  # of a copy within Azure that failed


class Place(Protocol):
    """A destination; names are relative to it."""

    uri: str

    def session(self) -> contextlib.AbstractContextManager[None]:
        """Get ready for writing, and tidy up after it."""

    def find(self, name: str) -> Seen | None:
        """Look at a file; None where there is none."""

    def read(self, name: str, size_bytes: int) -> bytes:
        """Return what a file holds."""

    def write(self, name: str, data: bytes) -> str:
        """Write a file; ``StorageError`` says ``exists`` where there is one. Returns its ETag."""

    def can_copy(self, uri: str) -> bool:
        """Tell whether the store can copy this source by itself."""

    def copy(self, uri: str, etag: str, name: str) -> str:
        """Have the store copy a source that still has this ETag; otherwise as ``write``."""

    def remove_leftover(self, name: str, seen: Seen) -> None:
        """Remove what a failed copy left."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted; none where there is no folder."""


def place_of(destination: str, access: Access) -> Place:
    """Return the place that a destination names, without writing anything.

    Raises:
        UsageError: it is no place that can be written.
        AccessError: the store refuses access, or has no such container.
    """
    scheme = scheme_of(destination)
    try:
        if scheme == SCHEME:
            from transforms.storage.azure.account import account_of

            blob = parse_uri(destination)
            return Prefix(blob, account_of(blob.account, access))
        if scheme in (None, "file") and destination:
            path = to_local_path(destination) if scheme else os.fsencode(destination)
            return Folder(Path(os.fsdecode(path)))
    except (ValueError, InputError) as error:
        raise UsageError(f"destination: {error}") from None
    raise UsageError("destination must be a folder of this machine or azfs://account/container/…")


class Folder:
    """A folder of this machine; it is made when the first file is written."""

    def __init__(self, path: Path) -> None:
        """Take the folder.

        Raises:
            UsageError: what is there is no folder.
        """
        self._root = Path(os.path.realpath(path))
        self.uri = to_uri(str(self._root))
        if self._root.exists() and not self._root.is_dir():
            raise UsageError(f"destination {str(path)!r} is no folder")

    @contextlib.contextmanager
    def session(self) -> Iterator[None]:
        """Hold the folder of parts, and clear it of what processes left that were killed."""
        with self._hold_parts() as descriptor:
            try:
                yield
            finally:
                if self._clear_parts(descriptor):
                    (self._root / _PARTS).rmdir()

    @contextlib.contextmanager
    def _hold_parts(self) -> Iterator[int]:
        parts = self._root / _PARTS
        while True:
            parts.mkdir(parents=True, exist_ok=True)
            try:
                # A link under this name is refused: what lies where it leads is not ours to clear.
                descriptor = os.open(parts, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue  # the process that had it has just tidied up
            try:
                self._clear_parts(descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH)
                if self._is_current(descriptor):
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        """Tell whether nobody has removed the folder of parts since it was opened."""
        try:
            return os.path.samestat((self._root / _PARTS).lstat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _clear_parts(self, descriptor: int) -> bool:
        """Remove all parts, unless another process is writing; tell whether that was done."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        for name in os.listdir(descriptor):
            os.unlink(name, dir_fd=descriptor)
        return True

    def find(self, name: str) -> Seen | None:
        """Look at a file; what is no regular file has no size that a file could have."""
        try:
            info = self._path(name).lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _of_one_name(error) from error
        size = info.st_size if stat.S_ISREG(info.st_mode) else -1
        return Seen(size, _etag(info))

    def read(self, name: str, size_bytes: int) -> bytes:
        """Return what a file holds."""
        return read_bytes(to_uri(str(self._path(name))), size_bytes, size_bytes)

    def write(self, name: str, data: bytes) -> str:
        """Write a file under another name, then give it its own if nothing has it."""
        final, part = self._path(name), self._root / _PARTS / uuid.uuid4().hex
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _rename_to_free(part, final)
            return _etag(final.lstat())
        except OSError as error:
            raise _of_one_name(error) from error
        finally:
            part.unlink(missing_ok=True)

    def can_copy(self, _: str) -> bool:
        """Tell that every byte passes through this process."""
        return False

    def copy(self, uri: str, etag: str, name: str) -> str:
        """Refuse; see ``can_copy``."""
        raise NotImplementedError

    def remove_leftover(self, name: str, seen: Seen) -> None:
        """Do nothing: parts never have the names of files."""

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder, sorted."""
        try:
            return sorted(os.listdir(self._path(folder)))
        except FileNotFoundError:
            return []

    def _path(self, name: str) -> Path:
        """Return the path of a name; nothing below the folder may lead out of it."""
        path = self._root / name
        if not path.parent.resolve().is_relative_to(self._root):
            raise StorageError("forbidden", "a link leads out of the destination")
        return path


def _rename_to_free(part: Path, final: Path) -> None:
    try:
        os.link(part, final)
        return
    except FileExistsError:
        pass
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # Two processes of this program that meet here have the same bytes for the same name.
        if not os.path.lexists(final):
            part.rename(final)
            return
    raise StorageError("exists", "there is a file of this name")


def _of_one_name(error: OSError) -> Exception:
    if error.errno not in _OF_ONE_NAME:
        return error
    return StorageError("other", f"the destination refuses it: {error.strerror}")


def _etag(info: os.stat_result) -> str:
    return f"{info.st_mtime_ns:x}-{info.st_size:x}-{info.st_ino:x}"


class Prefix:
    """A prefix of names in a container, which must be there."""

    def __init__(
        self, blob: BlobName, account: Account, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Take the prefix, and ask for one level of names to see whether it can be reached."""
        name = blob.name.rstrip("/")
        self._root = blob._replace(name=name + "/" if name else "")
        self._account = account
        self._sleep = sleep
        self.uri = self._root._replace(name=name).uri
        if not self._blob("best").can_be_requested:
            raise UsageError("destination: no request can name a blob with a segment . or ..")
        account.level(blob.container, self._root.name)

    def session(self) -> contextlib.AbstractContextManager[None]:
        """Do nothing: what is not whole has no name in Azure."""
        return contextlib.nullcontext()

    def find(self, name: str) -> Seen | None:
        """Look at a blob; wait where it is being copied, perhaps since before we began.

        Raises:
            StorageError: it is under way for longer than ``Account.copy`` waits, or is refused.
        """
        from transforms.storage.azure.account import COPY_WAITS_S  # loaded with the account

        waits = iter(COPY_WAITS_S)
        while True:
            try:
                found = self._account.head(self._blob(name))
            except StorageError as error:
                if error.error_type == "not_found":
                    return None
                raise
            if found.copy_status != "pending":
                break
            wait_s = next(waits, None)
            if wait_s is None:
                raise StorageError("other", "a copy of another time is still under way")
            self._sleep(wait_s)
        # https://learn.microsoft.com/rest/api/storageservices/copy-blob: a copy that fails or is
        # aborted leaves a blob of no length.
        leftover = found.copy_status in ("aborted", "failed") and found.size_bytes == 0
        return Seen(found.size_bytes, found.etag, found.content_md5, leftover)

    def read(self, name: str, size_bytes: int) -> bytes:
        """Return what a blob holds."""
        return self._account.get(self._blob(name), size_bytes, size_bytes)

    def write(self, name: str, data: bytes) -> str:
        """Upload a blob; the store verifies its MD5."""
        return self._account.put(self._blob(name), io.BytesIO(data), overwrite=False)

    def can_copy(self, uri: str) -> bool:
        """Tell whether a source is in the same account."""
        return scheme_of(uri) == SCHEME and parse_uri(uri).account == self._account.name

    def copy(self, uri: str, etag: str, name: str) -> str:
        """Copy within the account."""
        return self._account.copy(parse_uri(uri), self._blob(name), etag)

    def remove_leftover(self, name: str, seen: Seen) -> None:
        """Delete a blob of no length that a failed copy left, if it is that one still."""
        self._account.delete(self._blob(name), seen.etag)

    def names(self, folder: str) -> list[str]:
        """Return the names of the blobs of one folder, sorted."""
        start = self._blob(folder + "/")
        pages = self._account.pages(start.container, start.name)
        return sorted(found.name.removeprefix(start.name) for page in pages for found in page)

    def _blob(self, name: str) -> BlobName:
        return self._root._replace(name=self._root.name + name)
