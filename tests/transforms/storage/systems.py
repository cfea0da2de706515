"""File systems of Beam that lie in memory: one like a bucket, one with folders."""

import io
from collections.abc import Iterator
from typing import ClassVar

from apache_beam.io.filesystem import BeamIOError, CompressionTypes, FileMetadata, FileSystem

MODIFIED_S = 1_600_000_000.25


class Bucket(FileSystem):  # type: ignore[misc]  # Beam's is untyped
    """Objects by path; without folders, as ``gs`` and ``s3``."""

    objects: ClassVar[dict[str, bytes]] = {}
    served = ""  # the scheme, while a test uses this
    opened: ClassVar[list[tuple[str, str]]] = []  # paths and how they are decompressed
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

    def create(self, path: str, *_: str) -> io.BytesIO:
        raise NotImplementedError

    def copy(self, source: list[str], target: list[str]) -> None:
        raise NotImplementedError

    def rename(self, source: list[str], target: list[str]) -> None:
        raise NotImplementedError

    def last_updated(self, path: str) -> float:
        raise NotImplementedError

    def delete(self, paths: list[str]) -> None:
        raise NotImplementedError


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
