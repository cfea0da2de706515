"""From what ``--output`` names to the store of a report; the one place that looks at its scheme."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Union

from transforms.access import LOCAL, Access
from transforms.reporting.folder import LocalStore
from transforms.storage.azure.names import SCHEME, parse_uri
from transforms.storage.uris import SCHEMES, to_local_path

if TYPE_CHECKING:
    from transforms.reporting.blobs import BlobStore
    from transforms.reporting.systems import SystemStore


def open_store(
    output: str, access: Access = LOCAL
) -> Union[LocalStore, "BlobStore", "SystemStore"]:
    """Return the store of an output folder, without looking whether it is there.

    Args:
        output: a path, a ``file://`` URI, ``azfs://account/container/prefix``, or a URI of a file
            system of Beam.
        access: how a store is reached that is not local.

    Raises:
        ValueError: the output is empty, lies on another kind of storage, or is no valid URI.
    """
    if not output:
        raise ValueError("no output folder is given")
    scheme, separator, _ = output.partition("://")
    if separator and scheme == "file":
        return LocalStore(Path(os.fsdecode(to_local_path(output))))
    if separator and scheme.lower() == SCHEME:
        # Not at the top: a job on local files has no use for it.
        from transforms.reporting.blobs import BlobStore

        folder = parse_uri(output)
        return BlobStore(folder._replace(name=folder.name.rstrip("/")), access)
    if separator and scheme.lower() in SCHEMES:
        from transforms.reporting.systems import SystemStore
        from transforms.storage import filesystems

        filesystems.check_uri(output, f"output {output!r}")
        place = filesystems.parse_uri(output)
        return SystemStore(place._replace(name=place.name.rstrip("/")))
    if separator and scheme.isalnum():
        raise ValueError(f"output {output!r} is on {scheme!r} storage, which cannot be written yet")
    return LocalStore(Path(output).absolute())
