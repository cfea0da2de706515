"""One run at a time in an output folder, and nothing left of a run that failed."""

import fcntl
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Union

from transforms.access import LOCAL, Access
from transforms.reporting.folder import LocalStore
from transforms.reporting.manifest import read_manifest
from transforms.reporting.store import LOCK, claim_of
from transforms.reporting.stores import open_store

if TYPE_CHECKING:
    from beam_dedup.reports.lease import LeaseLock
    from beam_dedup.reports.notice import Notice
    from transforms.reporting.blobs import BlobStore
    from transforms.reporting.systems import SystemStore


class OutputBusyError(ValueError):
    """Another run is writing into the same output folder."""


class OutputLock:
    """Holds an output folder for one run.

    It ends with its process however that ends: at once on this machine, a minute later in Azure.
    What is written into it says who holds it.
    """

    def __init__(self, output: str, run_id: str, access: Access = LOCAL) -> None:
        """Take the output folder, the id of the run that will hold it, and how it is reached.

        Raises:
            ValueError: if the output is on a kind of storage that cannot be written.
        """
        store = open_store(output, access)
        self._shown = store.shown
        holder = f"{claim_of(run_id)}pid {os.getpid()}, host {socket.gethostname()}"
        self._lock = _lock_of(store, holder)

    def __enter__(self) -> "OutputLock":
        """Take the lock.

        Raises:
            OutputBusyError: if another run holds it.
            OSError: if the folder cannot be made or written.
        """
        other = self._lock.take()
        if other is not None:
            raise OutputBusyError(
                f"output {self._shown!r} is being written by another run"
                f" ({other or 'unknown'!r}); wait for it{self._lock.hint} or choose another folder"
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back and remove its file."""
        self._lock.give_back()


def _lock_of(
    store: Union[LocalStore, "BlobStore", "SystemStore"], holder: str
) -> Union["_FileLock", "LeaseLock", "Notice"]:
    if isinstance(store, LocalStore):
        return _FileLock(store.root / LOCK, holder)
    # Not at the top: a job on local files has no use for them.
    from transforms.reporting.blobs import BlobStore

    if isinstance(store, BlobStore):
        from beam_dedup.reports.lease import LeaseLock

        return LeaseLock(store, holder)
    from beam_dedup.reports.notice import Notice

    return Notice(store, holder)


class _FileLock:
    """The operating system's lock of a file (flock), which ends with its process."""

    hint = ""

    def __init__(self, path: Path, holder: str) -> None:
        self._path = path
        self._holder = holder
        self._descriptor: int | None = None

    def take(self) -> str | None:
        """Take the lock; where another run holds it, return what it says of itself."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        other = None
        while self._descriptor is None and other is None:
            other = self._try()
        return other

    def _try(self) -> str | None:
        # A link under this name is refused, or the file that it leads to would be overwritten.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return os.read(descriptor, 4096).decode("utf-8", "replace")
            # Whoever held it before may have removed the file after it was opened here.
            if self._is_current(descriptor):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, self._holder.encode(), 0)
                self._descriptor = descriptor
        finally:
            if self._descriptor is None:
                os.close(descriptor)
        return None

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(self._path.lstat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def give_back(self) -> None:
        """Give the lock back and remove its file."""
        if self._descriptor is None:
            return
        try:
            # If someone removed the file, it may be another run's by now.
            if self._is_current(self._descriptor):
                self._path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)
            self._descriptor = None


def discard_run(output: str, run_id: str, access: Access = LOCAL) -> None:
    """Remove the files of a run that ended without a manifest; call it while holding the lock.

    Args:
        output: the output folder.
        run_id: of the run that failed; the files of any other are left alone.
        access: how a store is reached that is not local.
    """
    store = open_store(output, access)
    try:
        manifest = read_manifest(store)
    except ValueError:
        manifest = None
    if manifest is not None and manifest["run_id"] == run_id:
        return  # it was published after all
    store.discard(run_id)


def write_metrics(output: str, metrics: Mapping[str, Any], access: Access = LOCAL) -> None:
    """Write ``metrics.json``, Beam's own metrics as the client sees them.

    Args:
        output: the output folder.
        metrics: what JSON can hold.
        access: how a store is reached that is not local.
    """
    with open_store(output, access).publish("metrics.json") as out:
        out.write(json.dumps(metrics, indent=1, sort_keys=True).encode())
