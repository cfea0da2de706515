"""An output folder on this machine, or on what it has mounted."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from transforms.records import ReportFile
from transforms.reporting.schema import TABLES
from transforms.reporting.store import PART, Drafts, Store, describe, part_of, shard_pattern


class _LocalDrafts(Drafts):
    """Files under part names in the folders where they will be."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._parts: dict[str, Path] = {}  # by path, in the order written

    @contextlib.contextmanager
    def write(self, path: str) -> Iterator[IO[bytes]]:
        final = self._root / path
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(part_of(final.name))
        with part.open("xb") as file:
            self._parts[path] = part
            yield file
            file.flush()
            os.fsync(file.fileno())

    def describe(self, path: str, rows: int | None) -> ReportFile:
        with self._parts[path].open("rb") as file:
            return describe(path, rows, file)

    def publish(self) -> None:
        for path, part in list(self._parts.items()):
            part.replace(self._root / path)
            del self._parts[path]

    def discard(self) -> None:
        for part in self._parts.values():
            part.unlink(missing_ok=True)


class LocalStore(Store):
    """A folder, which is made when the first file is written."""

    def __init__(self, root: Path) -> None:
        """Take the absolute folder."""
        self.root = root

    @property
    def shown(self) -> str:
        """The folder's path."""
        return str(self.root)

    def drafts(self) -> Drafts:
        """Begin files that are to appear together."""
        return _LocalDrafts(self.root)

    def open(self, path: str) -> io.BufferedIOBase:
        """Open a published file for reading."""
        return (self.root / path).open("rb")

    def remove(self, path: str) -> None:
        """Remove a file if it is there; folders on the way are never followed out of the root."""
        target = self.root / path
        if target.parent.resolve().is_relative_to(self.root.resolve()):
            target.unlink(missing_ok=True)

    def sync(self) -> None:
        """Make the names of the published files last."""
        for folder in (self.root, *(self.root / name for name in TABLES)):
            if folder.is_dir():
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)

    def check_lock(self, run_id: str) -> None:
        """Do nothing: the lock is the operating system's, and ends with its process alone."""

    def discard(self, run_id: str) -> None:
        """Remove a run's shards, and all that is under a part name of the report."""
        shard = shard_pattern(run_id)
        for table in TABLES:
            folder = self.root / table
            _remove_matching(folder, rf"{shard}|\.{shard}{PART}")
            if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
                folder.rmdir()
        # These do not carry the run's id, but only one run at a time writes here.
        _remove_matching(self.root, rf"\.(report\.csv|(summary|manifest|metrics)\.json){PART}")


def _remove_matching(folder: Path, pattern: str) -> None:
    if folder.is_dir():
        for path in list(folder.iterdir()):
            if re.fullmatch(pattern, path.name):
                path.unlink(missing_ok=True)
