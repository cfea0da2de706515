"""Storage: name, list and read objects.

- ``uris``: paths, URIs and the readable form.
- ``patterns``: globs in bounded time.
- ``lists``: list files.
- ``remote``: what stores have in common that are no folders of this machine.
- ``sightings``: what a listing sees.
- ``local``: files of this machine.
- ``stores``: scheme → store, the one place of dispatch.
- ``inputs``: from ``--input`` to sightings.
- ``folders``: flat folders of whole files.
- ``cache``: listings of remote stores that are kept.
- ``read``: one object's bytes.

No module here imports Beam but through ``records``; ``transforms.listing`` makes the PTransform.
"""

from transforms.storage.errors import InputError, StorageError
from transforms.storage.read import read_bytes
from transforms.storage.uris import below, is_supported, readable, to_local_path, to_uri

__all__ = [
    "InputError",
    "StorageError",
    "below",
    "is_supported",
    "read_bytes",
    "readable",
    "to_local_path",
    "to_uri",
]
