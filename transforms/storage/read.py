"""Read one object."""

from typing import Optional

from transforms.access import LOCAL, Access
from transforms.storage.stores import store_of


def read_bytes(
    uri: str,
    max_bytes: int,
    expected_size: Optional[int] = None,
    etag: Optional[str] = None,
    access: Access = LOCAL,
) -> bytes:
    """Read a whole object in one go.

    Args:
        uri: as the listing gave it.
        max_bytes: the most that is read.
        expected_size: bytes according to the listing; an object that is gone or has another size
            now is ``vanished``, since the row would describe a file that is no more. None for an
            object that was never listed: if there is none, it is ``not_found``.
        etag: according to the listing; a blob that has another one now is ``vanished``.
        access: how stores are reached.

    Returns:
        The whole content, never a part of it.

    Raises:
        StorageError: ``vanished``, ``not_found``, ``forbidden``, ``too_large`` (before anything is
            read), or ``other`` for what is not a regular file, which is not opened.
        InputError: the scheme is not supported.
        AccessError: the store refuses access as a whole.
        OSError: any other fault of a local file; it may be transient.
        UnavailableError: a remote store does not answer, however often it is asked.
    """
    return store_of(uri, "object").read(uri, max_bytes, expected_size, etag, access)
