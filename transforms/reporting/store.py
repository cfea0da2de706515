"""The folder that a report is written to; the one place that knows where it lies."""

import contextlib
import hashlib
import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from transforms.records import ReportFile
from transforms.storage.uris import to_local_path

_CHUNK = 1 << 20


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
    """Tell whether a manifest may name this path: relative, and below the output folder."""
    pure = PurePosixPath(path)
    return bool(path) and not pure.is_absolute() and ".." not in pure.parts and "\0" not in path


class Store:
    """Files of one output folder, each published whole or not at all."""

    def __init__(self, output: str) -> None:
        """Take the output folder, which is made when the first file is written."""
        self.root = local_root(output)

    @contextlib.contextmanager
    def publish(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file that appears under its name when the body ends without an error.

        Args:
            path: relative to the folder.

        Yields:
            A binary file under another name in the same folder; on leaving it is synced to disk
            and renamed over whatever has the name.
        """
        final = self.root / path
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f".{final.name}.{uuid.uuid4().hex}.part")
        try:
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(final)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def describe(self, path: str, rows: int | None) -> ReportFile:
        """Return the manifest's entry of a file that was published."""
        digest, size = hashlib.sha256(), 0
        with self.open(path) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
        return ReportFile(path, rows, size, digest.hexdigest())

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
