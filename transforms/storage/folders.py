"""A flat folder of whole files, on this machine or in Azure Blob Storage.

Each file appears whole under its name or not at all.
"""

import contextlib
import os
import uuid
from typing import BinaryIO, Optional, Protocol

from transforms.access import Access
from transforms.storage.azure.names import SCHEME, BlobName, parse_uri
from transforms.storage.errors import InputError, StorageError
from transforms.storage.uris import scheme_of, to_local_path

_MOST_BYTES = 2**31  # that are read of a file


class Folder(Protocol):
    """What a folder can do; a name is a file's own, without slashes."""

    def write(self, name: str, body: BinaryIO) -> None:
        """Write a file, from the beginning of a body, over whatever has the name."""

    def read(self, name: str) -> Optional[bytes]:
        """Return what a file holds; None where there is none."""

    def names(self) -> list[str]:
        """Return the names of all files."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""


def pin_folder(text: str, what: str) -> str:
    """Return a folder in a form that means the same on every worker of this storage.

    Args:
        text: a path or URI.
        what: what messages call it.

    Raises:
        InputError: it is empty or lies on another kind of store.
    """
    scheme = scheme_of(text)
    try:
        if scheme == SCHEME:
            return parse_uri(text).uri.rstrip("/")
        if scheme == "file":
            return os.fsdecode(to_local_path(text))
    except ValueError as error:
        raise InputError(f"{what}: {error}") from None
    if scheme is not None or not text:
        raise InputError(f"{what} must be a local folder or one of Azure (azfs://…)")
    return os.path.realpath(text)


def open_folder(pinned: str, name: str, access: Access) -> Folder:
    """Return a folder below one of ``pin_folder``; it is made when a file is written."""
    if scheme_of(pinned) != SCHEME:
        return _LocalFolder(os.path.join(pinned, name))
    root = parse_uri(pinned)
    return _AzureFolder(root._replace(name=f"{root.name}/{name}/".lstrip("/")), access)


class _LocalFolder:
    def __init__(self, path: str) -> None:
        self._path = path

    def write(self, name: str, body: BinaryIO) -> None:
        os.makedirs(self._path, exist_ok=True)
        part = os.path.join(self._path, f".{name}.{uuid.uuid4().hex}.part")
        body.seek(0)
        try:
            with open(part, "xb") as file:
                while some := body.read(2**20):
                    file.write(some)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, os.path.join(self._path, name))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part)
            raise

    def read(self, name: str) -> Optional[bytes]:
        try:
            with open(os.path.join(self._path, name), "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._path))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._path, name))


class _AzureFolder:
    def __init__(self, prefix: BlobName, access: Access) -> None:
        from transforms.storage.azure import account  # not at the top, see ``stores``

        self._prefix = prefix
        self._account = account.account_of(prefix.account, access)

    def write(self, name: str, body: BinaryIO) -> None:
        body.seek(0)
        self._account.put(self._blob(name), body, overwrite=True)

    def read(self, name: str) -> Optional[bytes]:
        try:
            return self._account.get(self._blob(name), _MOST_BYTES)
        except StorageError as error:
            if error.error_type != "not_found":
                raise
            return None

    def names(self) -> list[str]:
        start = self._prefix.name
        pages = self._account.pages(self._prefix.container, start)
        names = [found.name[len(start) :] for page in pages for found in page]
        return [name for name in names if "/" not in name]

    def remove(self, name: str) -> None:
        with contextlib.suppress(StorageError):  # someone else did, or holds it
            self._account.delete(self._blob(name))

    def _blob(self, name: str) -> BlobName:
        return self._prefix._replace(name=self._prefix.name + name)
