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
from transforms.reporting.systems import SystemStore
from transforms.storage.azure.account import Lease
from transforms.storage.errors import StorageError

if TYPE_CHECKING:
    from beam_dedup.reports.lease import LeaseLock
    from transforms.reporting.blobs import BlobStore


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
        self._lock: _FileLock | _LeaseLock | _Notice
        if isinstance(store, BlobStore):
            self._lock = _LeaseLock(store, holder)
        elif isinstance(store, SystemStore):
            self._lock = _Notice(store, holder)
        else:
            self._lock = _FileLock(store.root / LOCK, holder)

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


def _lock_of(store: Union[LocalStore, "BlobStore"], holder: str) -> Union["_FileLock", "LeaseLock"]:
    if isinstance(store, LocalStore):
        return _FileLock(store.root / LOCK, holder)
    # Not at the top: a job on local files has no use for it.
    from beam_dedup.reports.lease import LeaseLock

    return LeaseLock(store, holder)


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


class _Notice:
    """Says who writes into a folder that nothing can lock."""

    def __init__(self, store: SystemStore, holder: str) -> None:
        self._store = store
        self._holder = holder

    def take(self) -> None:
        self._store.claim(self._holder)

    def give_back(self) -> None:
        try:
            self._store.remove(LOCK)
        except OSError as error:
            log.warning("%s in %r could not be removed (%s)", LOCK, self._store.shown, error)


class _LeaseLock:
    """The lease of a blob: a thread renews it, and it ends by itself where nothing does.

    Where it could not be renewed for too long, another run may take it. What then keeps this run
    from publishing is ``Store.check_lock``, in the worker that would.
    """

    def __init__(self, store: BlobStore, holder: str) -> None:
        self._store = store
        self._blob = store.blob(LOCK)
        self._holder = holder
        self._lease: Lease | None = None
        self._ended = threading.Event()

    def take(self) -> None:
        with os_errors():
            while self._lease is None:
                self._lease = self._take()
            try:
                self._lease.write(self._holder.encode())
            except BaseException:
                self.give_back()
                raise
        threading.Thread(
            target=self._keep, args=(self._lease,), name="beam-dedup-lease", daemon=True
        ).start()

    def _take(self) -> Lease | None:
        """Take the lease; None where the blob went away in between."""
        try:
            self._store.account.put(self._blob, io.BytesIO(), overwrite=False)
        except StorageError as error:
            if error.error_type not in ("exists", "leased"):
                raise
        try:
            return self._store.account.lease(self._blob, _LEASE_S)
        except StorageError as error:
            if error.error_type == "not_found":
                return None
            if error.error_type == "leased":
                raise self._busy() from None
            raise

    def _busy(self) -> OutputBusyError:
        holder = ""
        with contextlib.suppress(OSError):
            holder = self._store.holder()
        hint = f" (if it was killed, for {_LEASE_S} s)"
        return _busy(self._store.shown, holder, hint)

    def _keep(self, lease: Lease) -> None:
        """Renew the lease until the run ends; a renewal that failed is tried again."""
        has_failed = False
        while not self._ended.wait(_RENEW_S):
            try:
                with os_errors():
                    lease.renew()
                has_failed = False
            except OSError as error:
                if not has_failed and not self._ended.is_set():
                    log.warning(
                        "the lock of output %r could not be renewed (%s); if another run takes it, "
                        "no report is written",
                        self._store.shown,
                        error.strerror,
                    )
                has_failed = True

    def give_back(self) -> None:
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        self._ended.set()
        try:
            with contextlib.suppress(FileNotFoundError), os_errors():
                lease.delete()
        except OSError as error:
            log.warning(
                "the lock of output %r could not be removed (%s); it ends by itself within %d s",
                self._store.shown,
                error.strerror,
                _LEASE_S,
            )


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
