"""The folder that a report is written to; the one place that knows where it lies."""

import contextlib
import hashlib
import io
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from transforms.records import ReportFile
from transforms.storage.uris import to_local_path

# Neither "..", nor hidden, nor anything that a file system reads in a way of its own.
_REPORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def local_root(output: str) -> Path:
    """Return the local folder that an output names.

    Args:
        output: a path or a ``file://`` URI.

    Returns:
        The absolute folder.

    Raises:
        ValueError: if the output is empty or lies on another kind of storage.
    """
    if not output:
        raise ValueError("no output folder is given")
    scheme, separator, _ = output.partition("://")
    if separator and scheme == "file":
        return Path(os.fsdecode(to_local_path(output)))
    if separator and scheme.isalnum():
        raise ValueError(f"output {output!r} is on {scheme!r} storage, which cannot be written yet")
    return Path(output).absolute()


def is_report_path(path: str) -> bool:
    """Tell whether a manifest may name this path: plain names, below the output folder."""
    return all(_REPORT_NAME.fullmatch(name) for name in path.split("/"))


class Drafts:
    """Files under part names that get their own names together, or are removed.

    A context manager: on leaving it, parts that were not published are removed.
    """

    def __init__(self, root: Path) -> None:
        """Take the output folder."""
        self._root = root
        self._parts: dict[str, Path] = {}  # by path, in the order written

    def __enter__(self) -> "Drafts":
        """Begin with no files."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove what was not published."""
        for part in self._parts.values():
            part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def write(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for writing under another name in its folder.

        Args:
            path: relative to the output folder.

        Yields:
            A binary file; it is synced to disk on leaving.
        """
        final = self._root / path
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f".{final.name}.{uuid.uuid4().hex}.part")
        with part.open("xb") as file:
            self._parts[path] = part
            yield file
            file.flush()
            os.fsync(file.fileno())

    def describe(self, path: str, rows: int | None) -> ReportFile:
        """Return the manifest's entry of a file that was written here."""
        with self._parts[path].open("rb") as file:
            return _describe(path, rows, file)

    def publish(self) -> None:
        """Rename the files over whatever has their names, in the order written."""
        for path, part in list(self._parts.items()):
            part.replace(self._root / path)
            del self._parts[path]


class Store:
    """Files of one output folder, each published whole or not at all."""

    def __init__(self, output: str) -> None:
        """Take the output folder, which is made when the first file is written."""
        self.root = local_root(output)

    def drafts(self) -> Drafts:
        """Begin files that are to appear together."""
        return Drafts(self.root)

    @contextlib.contextmanager
    def publish(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file that appears under its name when the body ends without an error.

        Args:
            path: relative to the folder.

        Yields:
            A binary file under another name in the same folder; on leaving it is synced to disk
            and renamed over whatever has the name.
        """
        with self.drafts() as drafts:
            with drafts.write(path) as file:
                yield file
            drafts.publish()

    def describe(self, path: str, rows: int | None) -> ReportFile:
        """Return the manifest's entry of a file that was published."""
        with self.open(path) as file:
            return _describe(path, rows, file)

    def open(self, path: str) -> io.BufferedReader:
        """Open a published file for reading."""
        return (self.root / path).open("rb")

    def remove(self, path: str) -> None:
        """Remove a file if it is there; folders on the way are never followed out of the root."""
        target = self.root / path
        if target.parent.resolve().is_relative_to(self.root.resolve()):
            target.unlink(missing_ok=True)

    def sync(self) -> None:
        """Make the names of the published files last."""
        for folder in (self.root, *(self.root / name for name in ("images", "groups", "edges"))):
            if folder.is_dir():
                descriptor = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)


def _describe(path: str, rows: int | None, file: io.BufferedReader) -> ReportFile:
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ReportFile(path, rows, file.tell(), digest)
