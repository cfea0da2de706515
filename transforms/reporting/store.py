"""The folder that a report is written to, wherever it lies.

``transforms.reporting.stores.open_store`` gives the one of an output; ``folder`` and ``blobs`` make
them. A store goes to the workers with the steps that write, so it names credentials and never holds
one. What cannot be done raises ``OSError``, on every kind of storage.
"""

import abc
import contextlib
import hashlib
import io
import re
import tempfile
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import IO

from transforms.records import ReportFile

# Who writes into the folder now; held by ``beam_dedup.reports.lock``.
LOCK = ".beam-dedup.lock"
# Neither "..", nor hidden, nor anything that a file system reads in a way of its own.
_REPORT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class OutputLostError(Exception):
    """Another run has taken the output folder, so this one must not publish its report."""


def is_report_path(path: str) -> bool:
    """Tell whether a manifest may name this path: plain names, below the output folder."""
    return all(_REPORT_NAME.fullmatch(name) for name in path.split("/"))


def claim_of(run_id: str) -> str:
    """Return how the text of a lock begins that this run holds."""
    return f"run {run_id}, "


def shard_pattern(run_id: str) -> str:
    """Return a regular expression of the names of a run's shards in the folder of their table."""
    return rf"{re.escape(run_id)}-\d{{5,}}\.parquet"


# How a name ends while its file is being written.
PART = r"\.[0-9a-f]{32}\.part"


def part_of(name: str) -> str:
    """Return a name for a file that is being written: hidden, new, and of the form of ``PART``."""
    return f".{name}.{uuid.uuid4().hex}.part"


def scratch_file() -> io.BufferedRandom:
    """Return an empty local file without a name, which ends with its process."""
    return tempfile.TemporaryFile(prefix="beam-dedup-")


def describe(path: str, rows: int | None, file: io.BufferedIOBase) -> ReportFile:
    """Return the manifest's entry of a file, read from its current position to its end."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ReportFile(path, rows, file.tell(), digest)


class Drafts(abc.ABC):
    """Files that nobody sees until they get their names together, or are removed.

    A context manager: on leaving it, what was not published is removed.
    """

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
        self.discard()

    @abc.abstractmethod
    def write(self, path: str) -> contextlib.AbstractContextManager[IO[bytes]]:
        """Open a file for writing.

        Args:
            path: relative to the output folder.

        Returns:
            Gives a binary file; on leaving, all of it is with the store, and lasts.
        """

    @abc.abstractmethod
    def describe(self, path: str, rows: int | None) -> ReportFile:
        """Return the manifest's entry of a file that was written here."""

    @abc.abstractmethod
    def publish(self) -> None:
        """Put the files in the place of whatever has their names, in the order written."""

    @abc.abstractmethod
    def discard(self) -> None:
        """Remove what was not published."""


class Store(abc.ABC):
    """Files of one output folder, each published whole or not at all."""

    @property
    @abc.abstractmethod
    def shown(self) -> str:
        """The folder as messages name it."""

    @abc.abstractmethod
    def drafts(self) -> Drafts:
        """Begin files that are to appear together."""

    @contextlib.contextmanager
    def publish(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file that appears under its name when the body ends without an error.

        Args:
            path: relative to the folder.

        Yields:
            A binary file; see ``Drafts.write``.
        """
        with self.drafts() as drafts:
            with drafts.write(path) as file:
                yield file
            drafts.publish()

    @abc.abstractmethod
    def open(self, path: str) -> io.BufferedIOBase:
        """Open a published file for reading; it can be sought."""

    @abc.abstractmethod
    def remove(self, path: str) -> None:
        """Remove a file if it is there."""

    @abc.abstractmethod
    def sync(self) -> None:
        """Make the names of the published files last."""

    @abc.abstractmethod
    def check_lock(self, run_id: str) -> None:
        """Refuse to go on where another run holds the folder.

        Raises:
            OutputLostError: another run holds it.
        """

    @abc.abstractmethod
    def discard(self, run_id: str) -> None:
        """Remove what a run left that published no manifest; the files of others stay."""
