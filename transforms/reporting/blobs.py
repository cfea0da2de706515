"""An output folder in Azure Blob Storage: a prefix of names in a container.

What is written goes to the store as the parts of a blob that is not there yet, verified by their
MD5, and appears at once when its parts are committed: nothing is renamed, and nothing half-written
can be read.
"""

import contextlib
import errno
import io
import re
from collections.abc import Iterator
from typing import IO, NoReturn

from transforms.access import Access
from transforms.records import ReportFile
from transforms.reporting.schema import TABLES
from transforms.reporting.store import (
    LOCK,
    Drafts,
    OutputLostError,
    Store,
    claim_of,
    describe,
    scratch_file,
    shard_pattern,
)
from transforms.storage.azure.account import Account, Staged, account_of
from transforms.storage.azure.names import BlobName
from transforms.storage.errors import InputError, StorageError, UnavailableError

_LOCK_BYTES = 4096  # of the text of a lock that are read


class _BlobDrafts(Drafts):
    """Files whose parts were sent; a local file without a name holds each while it is written."""

    def __init__(self, store: "BlobStore") -> None:
        self._store = store
        self._staged: dict[str, Staged] = {}  # by path, in the order written
        self._described: dict[str, ReportFile] = {}

    @contextlib.contextmanager
    def write(self, path: str) -> Iterator[IO[bytes]]:
        with scratch_file() as file:
            yield file
            file.seek(0)
            self._described[path] = describe(path, None, file)
            file.seek(0)
            with os_errors():
                self._staged[path] = self._store.account.stage(self._store.blob(path), file)

    def describe(self, path: str, rows: int | None) -> ReportFile:
        return self._described[path]._replace(rows=rows)

    def publish(self) -> None:
        for path, staged in list(self._staged.items()):
            with os_errors():
                self._store.account.commit(staged)
            del self._staged[path]

    def discard(self) -> None:
        """Do nothing: the service forgets parts of which no blob is made."""


class BlobStore(Store):
    """Blobs below a prefix."""

    def __init__(self, folder: BlobName, access: Access) -> None:
        """Take the prefix of names, which ends in no slash, and how the account is reached.

        Raises:
            ValueError: no request can name what lies below this prefix.
        """
        self._folder = folder
        self._access = access
        if not self.blob("/".join(["x" * 100] * 2)).can_be_requested:
            raise ValueError(
                f"output {folder.uri!r} has a name that no request can have: leave out segments "
                ". and .., and keep it below 800 characters"
            )

    @property
    def account(self) -> Account:
        """The account as this process reaches it."""
        return account_of(self._folder.account, self._access)

    @property
    def shown(self) -> str:
        """The URI of the folder."""
        return self._folder.uri

    def blob(self, path: str) -> BlobName:
        """Return the name of a file's blob."""
        name = f"{self._folder.name}/{path}" if self._folder.name else path
        return self._folder._replace(name=name)

    def drafts(self) -> Drafts:
        """Begin files that are to appear together."""
        return _BlobDrafts(self)

    def open(self, path: str) -> io.BufferedIOBase:
        """Read a blob into a local file without a name, verified, and open that."""
        file = scratch_file()
        try:
            with os_errors():
                self.account.save(self.blob(path), file)
        except BaseException:
            file.close()
            raise
        return file

    def remove(self, path: str) -> None:
        """Remove a blob if it is there."""
        with contextlib.suppress(FileNotFoundError), os_errors():
            self.account.delete(self.blob(path))

    def sync(self) -> None:
        """Do nothing: what the store has answered for lasts."""

    def check_lock(self, run_id: str) -> None:
        """Refuse to go on where another run has the lease of the lock.

        A lock without a lease is what a killed client left. One without a blob is none: the job has
        no client, or its client is gone.

        Raises:
            OutputLostError: another run has it.
        """
        with contextlib.suppress(FileNotFoundError), os_errors():
            if self.account.head(self.blob(LOCK)).is_leased:
                holder = self.holder()
                if not holder.startswith(claim_of(run_id)):
                    raise OutputLostError(
                        f"output {self.shown!r} was taken by another run ({holder!r}) while this "
                        "one was cut off from the store: no report is written"
                    )

    def holder(self) -> str:
        """Return what the lock says of who holds it."""
        with os_errors():
            data = self.account.get(self.blob(LOCK), _LOCK_BYTES)
        return data.decode("utf-8", "replace")

    def discard(self, run_id: str) -> None:
        """Remove a run's shards."""
        for table in TABLES:
            start = self.blob(f"{table}/").name
            with os_errors():
                for page in self.account.pages(self._folder.container, f"{start}{run_id}-"):
                    for found in page:
                        name = found.name.removeprefix(start)
                        if re.fullmatch(shard_pattern(run_id), name):
                            self.remove(f"{table}/{name}")


@contextlib.contextmanager
def os_errors() -> Iterator[None]:
    """Raise what the body meets of a store as a local folder would raise it.

    Raises:
        OSError: with one line.
    """
    try:
        yield
    except StorageError as error:
        _raise(errno.ENOENT if error.error_type == "not_found" else errno.EIO, error.message)
    except InputError as error:  # also AccessError
        _raise(errno.EACCES, str(error))
    except UnavailableError as error:
        _raise(errno.EIO, str(error))


def _raise(number: int, message: str) -> NoReturn:
    # Python makes FileNotFoundError and PermissionError of the number.
    raise OSError(number, message) from None
