"""One run at a time in an output folder, and nothing left of a run that failed."""

import fcntl
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from transforms.reporting.manifest import read_manifest
from transforms.reporting.schema import TABLES
from transforms.reporting.store import Store, local_root

_LOCK = ".beam-dedup.lock"


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
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 4096).decode("utf-8", "replace").strip()
            os.close(descriptor)
            raise OutputBusyError(
                f"output {str(self.path.parent)!r} is being written by another run"
                f" ({holder or 'unknown'}); wait for it or choose another folder"
            ) from None
        # Whoever held it before may have removed the file after it was opened here.
        try:
            current = self.path.stat().st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            current = False
        if not current:
            os.close(descriptor)
            return None
        os.ftruncate(descriptor, 0)
        holder = f"run {self.run_id}, pid {os.getpid()}, host {socket.gethostname()}"
        os.pwrite(descriptor, holder.encode(), 0)
        return descriptor

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the lock back and remove its file."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def discard_run(output: str, run_id: str) -> None:
    """Remove the files of a run that ended without a manifest.

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
    for table in TABLES:
        folder = store.root / table
        for path in _files_of(folder, run_id):
            path.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    for name in ("report.csv", "summary.json"):
        for path in store.root.glob(f".{name}.*.part"):
            path.unlink(missing_ok=True)


def _files_of(folder: Path, run_id: str) -> list[Path]:
    return [*folder.glob(f"{run_id}-*.parquet"), *folder.glob(f".{run_id}-*.part")]


def write_metrics(output: str, metrics: Mapping[str, Any]) -> None:
    """Write ``metrics.json``, Beam's own metrics as the client sees them.

    Args:
        output: the output folder.
        metrics: what JSON can hold.
    """
    with Store(output).publish("metrics.json") as out:
        out.write(json.dumps(metrics, indent=1, sort_keys=True).encode())
