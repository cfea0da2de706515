"""File systems of Beam that lie in memory: one like a bucket, one with folders."""

import contextlib
import io
from collections.abc import Iterator
from typing import ClassVar

import pytest
from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem
from apache_beam.io.filesystems import FileSystems

MODIFIED_S = 1_600_000_000.25


class Bucket(FileSystem):  # type: ignore[misc]  # Beam's is untyped
    """Objects by path; without folders, as ``gs`` and ``s3``."""

    objects: ClassVar[dict[str, bytes]] = {}
    served = ""  # the scheme, while a test uses this
    opened: ClassVar[list[tuple[str, str]]] = []  # paths and how they are decompressed
    full = False  # whether nothing more can be written
    short = 0  # bytes that streams lack at their end

    @classmethod
    def scheme(cls) -> str:
        return cls.served or f"unused-{cls.__name__}"

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path in sorted(self.objects):
            if path.startswith(dir_or_prefix):
                yield self.metadata(path)

    def exists(self, path: str) -> bool:
        return path in self.objects

    def metadata(self, path: str) -> FileMetadata:
        if path not in self.objects:
            raise BeamIOError("Metadata operation failed", {path: OSError("404")})
        return FileMetadata(path, len(self.objects[path]), MODIFIED_S)

    def size(self, path: str) -> int:
        return int(self.metadata(path).size_in_bytes)

    def open(
        self,
        path: str,
        mime_type: str = "application/octet-stream",
        compression_type: str = CompressionTypes.AUTO,
    ) -> io.BytesIO:
        self.opened.append((path, compression_type))
        if path not in self.objects:
            raise BeamIOError("Open operation failed", {path: OSError("404")})
        data = self.objects[path]
        return io.BytesIO(data[: len(data) - self.short])

    def join(self, basepath: str, *paths: str) -> str:
        raise NotImplementedError

    def split(self, path: str) -> tuple[str, str]:
        raise NotImplementedError

    def mkdirs(self, path: str) -> None:
        raise NotImplementedError

    def create(
        self,
        path: str,
        mime_type: str = "application/octet-stream",
        compression_type: str = CompressionTypes.AUTO,
    ) -> "_Written":
        assert compression_type == CompressionTypes.UNCOMPRESSED
        if self.full:
            raise BeamIOError("Create operation failed", {path: OSError("no space left")})
        return _Written(self, path)

    def copy(self, source: list[str], target: list[str]) -> None:
        raise NotImplementedError

    def rename(self, source: list[str], target: list[str]) -> None:
        for one, other in zip(source, target, strict=True):
            if self.has_dirs() and self.exists(other):
                raise BeamIOError("Rename operation failed", {other: FileExistsError(other)})
            self.objects[other] = self.objects.pop(one)

    def last_updated(self, path: str) -> float:
        raise NotImplementedError

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            del self.objects[path]


class _Written(io.BytesIO):
    """A file that is there when it is closed."""

    def __init__(self, system: Bucket, path: str) -> None:
        super().__init__()
        self._system, self._path = system, path

    def close(self) -> None:
        if not self.closed:
            data = self.getvalue()
            self._system.objects[self._path] = data[: len(data) - self._system.short]
        super().close()


class Tree(Bucket):
    """The same with folders, as ``hdfs``: a listing is one level and does not tell what is what."""

    objects: ClassVar[dict[str, bytes]] = {}
    opened: ClassVar[list[tuple[str, str]]] = []
    served = ""

    def has_dirs(self) -> bool:
        return True

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        path = dir_or_prefix.rstrip("/")
        if path in self.objects:
            cause = NotADirectoryError(f"{path} is not a directory.")
            raise BeamIOError("List operation failed", {path: cause})
        if not self.exists(path):
            raise BeamIOError("List operation failed", {path: OSError("File does not exist")})
        inside = [one[len(path) + 1 :] for one in self.objects if one.startswith(path + "/")]
        for name in {one.partition("/")[0] for one in inside}:
            yield self.metadata(f"{path}/{name}")

    def exists(self, path: str) -> bool:
        path = path.rstrip("/")
        return path in self.objects or any(one.startswith(path + "/") for one in self.objects)

    def metadata(self, path: str) -> FileMetadata:
        if path not in self.objects and self.exists(path):
            return FileMetadata(path, 0, MODIFIED_S)  # a folder
        return super().metadata(path)


@contextlib.contextmanager
def served(system: type[Bucket], scheme: str) -> Iterator[None]:
    """Have a file system serve a scheme, in the place of Beam's own."""
    options = FileSystems._pipeline_options
    with pytest.MonkeyPatch.context() as patch:
        for one in FileSystem.get_all_subclasses():
            if one.scheme() == scheme:
                patch.setattr(one, "scheme", classmethod(lambda _: "hidden"))
        patch.setattr(system, "served", scheme)
        yield
    system.short = 0
    system.objects.clear()
    system.opened.clear()
    FileSystems.set_options(options)


class Objects:
    """An output on such a file system; see ``tests.places``."""

    def __init__(self, system: type[Bucket]) -> None:
        """Take the file system, which serves a scheme."""
        self.output = f"{system.served}://buck/of ours/"
        self.shown = f"{system.served}://buck/of%20ours"
        self._system, self._root = system, f"{system.served}://buck/of ours/"

    def files(self) -> dict[str, bytes]:
        """Return what every file holds."""
        found = sorted(self._system.objects.items())
        return {path.removeprefix(self._root): data for path, data in found}

    def put(self, files: dict[str, bytes]) -> None:
        """Write files."""
        self._system.objects.update({self._root + name: data for name, data in files.items()})
