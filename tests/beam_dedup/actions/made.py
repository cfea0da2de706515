"""Sources on disk and in Azure, and reports of them made by hand."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.azurite import Azurite
from tests.transforms.reporting.made import image_row, write_by_hand
from transforms.records import GroupRow, ImageRow
from transforms.storage.azure.names import BlobName
from transforms.storage.uris import readable, to_uri

RUN_ID = "20260101T000000Z-0123abcd"


class Source(NamedTuple):
    """A file as a listing saw it."""

    uri: str
    data: bytes
    etag: str


def local(path: Path, data: bytes) -> Source:
    """Write a local file; return what a listing says of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    info = path.stat()
    return Source(to_uri(str(path)), data, f"{info.st_mtime_ns:x}-{info.st_size:x}")


def local_groups(folder: Path, count: int = 3, size: int = 2) -> list[list[Source]]:
    """Write groups of files with equal base names in different folders (S1)."""
    return [
        [local(folder / f"{group}/{one}/IMG 1.jpg", b"%d %d" % (group, one)) for one in range(size)]
        for group in range(count)
    ]


def remote(azurite: Azurite, container: str, name: str, data: bytes) -> Source:
    """Upload a blob; return what a listing says of it."""
    azurite.upload(container, {name: data})
    client = azurite.client.get_blob_client(container, name)
    etag = client.get_blob_properties().etag.strip('"')
    return Source(BlobName(azurite.account, container, name).uri, data, etag)


def remote_groups(
    azurite: Azurite, container: str, count: int = 3, size: int = 2
) -> list[list[Source]]:
    """Upload groups of blobs with equal base names, some of which a URL must encode (P2)."""
    return [
        [
            remote(azurite, container, f"{group}/{one}/a?x=1 #%20.jpg", b"%d %d" % (group, one))
            for one in range(size)
        ]
        for group in range(count)
    ]


def rows_of(groups: Sequence[Sequence[Source]]) -> tuple[list[ImageRow], list[GroupRow]]:
    """Return the rows of groups; the first of each is the kept image."""
    rows, table = [], []
    for members in groups:
        sha256 = hashlib.sha256(members[0].data).hexdigest()
        name = "g" + hashlib.sha256(sha256.encode()).hexdigest()[:16]
        table.append(GroupRow(name, len(members), members[0].uri, "area", 0.9, 0, 0))
        for place, source in enumerate(members):
            row = image_row(
                "x",
                "duplicate" if place else "best",
                uri=source.uri,
                path=readable(source.uri),
                group_id=name,
                group_size=len(members),
                best_uri=members[0].uri,
                size_bytes=len(source.data),
                sha256=hashlib.sha256(source.data).hexdigest(),
                etag=source.etag,
            )
            rows.append(row)
    return sorted(rows, key=lambda row: row.uri), sorted(table)


def report_of(output: Path, groups: Sequence[Sequence[Source]], run_id: str = RUN_ID) -> Path:
    """Write the report of groups, with an image beside them that is in none."""
    rows, table = rows_of(groups)
    write_by_hand(output, run_id, [*rows, image_row("alone.jpg")], table, [])
    return output


def copies(destination: Path) -> dict[str, bytes]:
    """Return what is at a local destination but for the journal."""
    return {
        path.relative_to(destination).as_posix(): path.read_bytes()
        for path in sorted(destination.rglob("*"))
        if path.is_file() and "journal" not in path.relative_to(destination).parts
    }


def expected(groups: Sequence[Sequence[Source]]) -> list[bytes]:
    """Return the contents that copies of groups have, sorted."""
    return sorted(source.data for members in groups for source in members)


def blobs(azurite: Azurite, container: str, prefix: str = "") -> Mapping[str, bytes]:
    """Return what is below a prefix but for the journal, by the name below it."""
    names = [name for name in azurite.names(container) if name.startswith(prefix)]
    below = {name.removeprefix(prefix): name for name in names}
    return {
        short: azurite.read(container, name)
        for short, name in below.items()
        if not short.startswith("journal/")
    }


def touch(path: Path) -> None:
    """Give a file another time of change, and nothing else."""
    info = path.stat()
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns + 1_000_000))
