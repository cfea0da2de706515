"""An account of a remote store that lies in memory, with Azure's pages and levels."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import BinaryIO

import pytest

from transforms.storage.azure import account, blobs
from transforms.storage.azure.account import Level, Properties
from transforms.storage.azure.names import BlobName
from transforms.storage.errors import StorageError

MODIFIED_US = 1_600_000_000_000_000


class FakeAccount:
    """Blobs by container and name, and a count of what was asked by kind."""

    def __init__(self, page: int = 5000) -> None:
        self.page = page
        self.blobs: dict[str, dict[str, Properties]] = {}
        self.data: dict[tuple[str, str], bytes] = {}
        self.asked: Counter[str] = Counter()
        self.levels: list[tuple[str, int]] = []  # that were asked for, and how many names
        self.fails_after: int | None = None  # pages of names that are given

    def fill(self, container: str, names: Mapping[str, bytes], tier: str = "Hot") -> None:
        """Add blobs."""
        for name, data in names.items():
            md5 = hashlib.md5(data, usedforsecurity=False).hexdigest()
            found = Properties(name, len(data), md5[:8], MODIFIED_US, md5, tier, False, {})
            self.blobs.setdefault(container, {})[name] = found
            self.data[container, name] = data

    def used(self, monkeypatch: pytest.MonkeyPatch) -> "FakeAccount":
        """Have the store of ``azfs`` use this account, whatever its name."""
        for module in (blobs, account):
            monkeypatch.setattr(module, "account_of", lambda name, access: self)
        return self

    def take(self) -> dict[str, int]:
        """Return what was asked since the last time."""
        asked, self.asked = dict(self.asked), Counter()
        return asked

    def pages(
        self, container: str, prefix: str = "", *, deep: bool = True
    ) -> Iterator[list[Properties]]:
        """Yield pages of names."""
        names = sorted(name for name in self.blobs.get(container, {}) if name.startswith(prefix))
        if not deep:
            names = [name for name in names if "/" not in name[len(prefix) :]]
        for start in range(0, max(len(names), 1), self.page):
            self.asked["list"] += 1
            if self.fails_after is not None:
                if not self.fails_after:
                    raise ConnectionError("a page of names is cut")
                self.fails_after -= 1
            yield [self.blobs[container][name] for name in names[start : start + self.page]]

    def level(self, container: str, prefix: str = "", most: int | None = None) -> Level:
        """Return a level of names, up to so many of them."""
        self.asked["list"] += 1
        names = sorted(name for name in self.blobs.get(container, {}) if name.startswith(prefix))
        folders_ = {name for name in names if "/" in name[len(prefix) :]}
        prefixes = sorted({prefix + n[len(prefix) :].partition("/")[0] + "/" for n in folders_})
        found = [self.blobs[container][name] for name in names if name not in folders_]
        most = most or 5000
        self.levels.append((prefix, most))
        return Level(prefixes[:most], found[:most], len(prefixes) + len(found) <= most)

    def head(self, blob: BlobName) -> Properties:
        """Look at a blob."""
        self.asked["head"] += 1
        try:
            return self.blobs.get(blob.container, {})[blob.name]
        except KeyError:
            raise StorageError("not_found", "there is no such blob") from None

    def get(
        self,
        blob: BlobName,
        max_bytes: int,
        size_bytes: int | None = None,
        etag: str | None = None,
    ) -> bytes:
        """Read a blob."""
        self.asked["read"] += 1
        try:
            return self.data[blob.container, blob.name]
        except KeyError:
            raise StorageError("not_found", "there is no such blob") from None

    def put(self, blob: BlobName, body: BinaryIO, *, overwrite: bool) -> str:
        """Write a blob."""
        self.asked["write"] += 1
        self.fill(blob.container, {blob.name: body.read()})
        return ""

    def delete(self, blob: BlobName, etag: str | None = None) -> None:
        """Delete a blob."""
        self.asked["delete"] += 1
        del self.blobs[blob.container][blob.name], self.data[blob.container, blob.name]
