"""One run at a time in an output folder, and nothing left of a run that failed."""

import fcntl
import json
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from transforms.reporting.manifest import read_manifest
from transforms.reporting.schema import TABLES
from transforms.reporting.store import Store, local_root

_LOCK = ".beam-dedup.lock"
_PART = r"\.[0-9a-f]{32}\.part"  # how the store names what is being written


class OutputBusyError(ValueError):
    """Another run is writing into the same output folder."""


class OutputLock:
    """Holds an output folder for one run.

    The lock is the operating system's (flock), so it ends with its process however that ends. The
    file's content says who holds it.
    """

    def __init__(self, output: str, run_id: str) -> None:
        """Take the output folder and the id of the run that will hold it."""
        self.path = local_root(output) / _LOCK
        self.run_id = run_id
        self._descriptor: int | None = None

    def __enter__(self) -> "OutputLock":
        """Take the lock.

        Raises:
            OutputBusyError: if another run holds it.
            OSError: if the folder cannot be made or written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while self._descriptor is None:
            self._descriptor = self._take()
        return self

    def _take(self) -> int | None:
        # A link under this name is refused, or the file that it leads to would be overwritten.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.path, flags, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.read(descriptor, 4096).decode("utf-8", "replace")
                raise OutputBusyError(
                    f"output {str(self.path.parent)!r} is being written by another run"
                    f" ({holder or 'unknown'!r}); wait for it or choose another folder"
                ) from None
            # Whoever held it before may have removed the file after it was opened here.
            if not self._is_current(descriptor):
                os.close(descriptor)
                return None
            holder = f"run {self.run_id}, pid {os.getpid()}, host {socket.gethostname()}"
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder.encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(self.path.lstat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back and remove its file."""
        if self._descriptor is None:
            return
        try:
            # If someone removed the file, it may be another run's by now.
            if self._is_current(self._descriptor):
                self.path.unlink(missing_ok=True)
        finally:
            os.close(self._descriptor)
            self._descriptor = None


def discard_run(output: str, run_id: str) -> None:
    """Remove the files of a run that ended without a manifest; call it while holding the lock.

    Args:
        output: the output folder.
        run_id: of the run that failed; the files of any other are left alone.
    """
    store = Store(output)
    try:
        manifest = read_manifest(store)
    except ValueError:
        manifest = None
    if manifest is not None and manifest["run_id"] == run_id:
        return  # it was published after all
    shard = rf"{re.escape(run_id)}-\d{{5,}}\.parquet"
    for table in TABLES:
        folder = store.root / table
        _remove_matching(folder, rf"{shard}|\.{shard}{_PART}")
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    # These do not carry the run's id, but only one run at a time writes here.
    _remove_matching(store.root, rf"\.(report\.csv|(summary|manifest|metrics)\.json){_PART}")


def _remove_matching(folder: Path, pattern: str) -> None:
    if folder.is_dir():
        for path in list(folder.iterdir()):
            if re.fullmatch(pattern, path.name):
                path.unlink(missing_ok=True)


def write_metrics(output: str, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json``, Beam's own metrics as the client sees them.

    Args:
        output: the output folder.
        metrics: what JSON can hold.
    """
    with Store(output).publish("metrics.json") as out:
        out.write(json.dumps(metrics, indent=1, sort_keys=True).encode())
