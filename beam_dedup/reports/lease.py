"""The lock of an output in Azure Blob Storage."""

import contextlib
import io
import logging
import threading

from transforms.reporting.blobs import BlobStore, os_errors
from transforms.reporting.store import LOCK
from transforms.storage.azure.account import Lease
from transforms.storage.errors import StorageError

# A killed client keeps the folder for the one, and has two more tries if one renewal fails;
# https://learn.microsoft.com/rest/api/storageservices/lease-blob allows 15 to 60 s.
_LEASE_S, _RENEW_S = 60, 20.0
_GRACE_S = 5.0  # for a renewal that is under way when the run ends

log = logging.getLogger(__name__)


class LeaseLock:
    """The lease of a blob: a thread renews it, and it ends by itself where nothing does.

    Where it could not be renewed for too long, another run may take it. What then keeps this run
    from publishing is ``Store.check_lock``, in the worker that would.
    """

    hint = f" (if it was killed, for {_LEASE_S} s)"

    def __init__(self, store: BlobStore, holder: str) -> None:
        """Take the output and the text that says who holds it."""
        self._store = store
        self._blob = store.blob(LOCK)
        self._holder = holder
        self._lease: Lease | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> str | None:
        """Take the lock; where another run holds it, return what it says of itself.

        Raises:
            OSError: the lock cannot be written.
        """
        with os_errors():
            while self._lease is None:
                try:
                    self._lease = self._try()
                except StorageError as error:
                    if error.error_type != "leased":
                        raise
                    return self._other()
            try:
                self._lease.write(self._holder.encode())
            except BaseException:
                self.give_back()
                raise
        self._thread = threading.Thread(
            target=self._keep, args=(self._lease,), name="beam-dedup-lease", daemon=True
        )
        self._thread.start()
        return None

    def _try(self) -> Lease | None:
        """Take the lease; None where the blob went away in between."""
        try:
            self._store.account.put(self._blob, io.BytesIO(), overwrite=False)
        except StorageError as error:
            if error.error_type not in ("exists", "leased"):
                raise
        try:
            return self._store.account.lease(self._blob, _LEASE_S)
        except StorageError as error:
            if error.error_type != "not_found":
                raise
        return None

    def _other(self) -> str:
        try:
            return self._store.holder()
        except OSError:
            return ""

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
        """End the lease and remove its blob."""
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        self._ended.set()
        if self._thread is not None:
            self._thread.join(_GRACE_S)
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
