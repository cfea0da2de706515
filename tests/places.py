"""Where a report may lie: a folder of this machine, or blobs below a prefix in Azurite."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from tests.azurite import ACCOUNT, Azurite
from transforms.storage import traffic
from transforms.storage.azure.account import forget_accounts
from transforms.storage.azure.credentials import CONNECTION_STRING

PREFIX = "of ours/é"  # of the names of blobs


class Place(Protocol):
    """An output and what is in it, read and written without the code under test."""

    output: str  # for --output
    shown: str  # in messages

    def files(self) -> dict[str, bytes]:
        """Return what every file holds, by its path below the output, sorted."""

    def put(self, files: dict[str, bytes]) -> None:
        """Write files by path, over those that are there."""


class Folder:
    """A folder that is not there yet."""

    def __init__(self, path: Path) -> None:
        """Take its path."""
        self.output = self.shown = str(path)
        self._path = path

    def files(self) -> dict[str, bytes]:
        """Return what every file holds."""
        paths = (path for path in self._path.rglob("*") if path.is_file())
        return {str(path.relative_to(self._path)): path.read_bytes() for path in sorted(paths)}

    def put(self, files: dict[str, bytes]) -> None:
        """Write files."""
        for name, data in files.items():
            (self._path / name).parent.mkdir(parents=True, exist_ok=True)
            (self._path / name).write_bytes(data)


class Blobs:
    """A prefix in an empty container of its own."""

    def __init__(self, azurite: Azurite) -> None:
        """Make the container."""
        self.azurite = azurite
        self.container = azurite.container()
        self.output = f"azfs://{ACCOUNT}/{self.container}/{PREFIX}/"
        self.shown = f"azfs://{ACCOUNT}/{self.container}/of%20ours/%C3%A9"

    def files(self) -> dict[str, bytes]:
        """Return what every blob holds."""
        names = self.azurite.names(self.container)
        assert all(name.startswith(f"{PREFIX}/") for name in names)
        return {
            name.removeprefix(f"{PREFIX}/"): self.azurite.read(self.container, name)
            for name in sorted(names)
        }

    def put(self, files: dict[str, bytes]) -> None:
        """Write blobs."""
        self.azurite.upload(self.container, {f"{PREFIX}/{n}": data for n, data in files.items()})


@contextmanager
def connected(azurite: Azurite, endpoint: str = "") -> Iterator[None]:
    """Let the code under test reach Azurite, or a proxy before it, as a user would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONNECTION_STRING, azurite.connection_string(endpoint))
        forget_accounts()
        try:
            yield
        finally:
            forget_accounts()
            traffic.take()
