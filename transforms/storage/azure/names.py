"""Names of blobs: account, container and name, and the URI that stands for them."""

import re
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

SCHEME = "azfs"
# https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]|\$root|\$web|\$logs")
_MAX_NAME = 1024  # characters
_SIGNED = re.compile(r"\?(.*&)?sig=", re.IGNORECASE)
_DOTS = frozenset({".", ".."})


class BlobName(NamedTuple):
    """A blob, or a prefix of names, in a container of an account."""

    account: str
    container: str
    name: str  # as the store has it, not encoded; "" for the whole container

    @property
    def uri(self) -> str:
        """Return the URI: every byte of the name but ``A-Za-z0-9-._~/`` is percent-encoded."""
        container = quote(self.container, safe="-")
        root = f"{SCHEME}://{self.account}/{container}"
        return f"{root}/{quote(self.name, safe='/')}" if self.name else root

    @property
    def can_be_requested(self) -> bool:
        """Tell whether a request can name it: HTTP clients take segments of dots out of paths."""
        return 0 < len(self.name) <= _MAX_NAME and _DOTS.isdisjoint(self.name.split("/"))


def parse_uri(uri: str) -> BlobName:
    """Take a URI apart; taken leniently, ``?``, ``#`` and a lone ``%`` stand for themselves.

    Args:
        uri: ``azfs://account/container`` or ``azfs://account/container/name``.

    Raises:
        ValueError: it is no such URI, or has a shared access signature at its end, which would be
            taken for a part of the name and shown; the message holds nothing of it.
    """
    scheme, separator, rest = uri.partition("://")
    if scheme.lower() != SCHEME or not separator:
        raise ValueError("not a URI of Azure Blob Storage (azfs://account/container/name)")
    account, _, path = rest.partition("/")
    container, _, name = path.partition("/")
    if _SIGNED.search(rest):
        raise ValueError(
            "a shared access signature has no place in a URI: give it by the environment "
            "(AZURE_STORAGE_SAS_TOKEN)"
        )
    if not _ACCOUNT.fullmatch(account):
        raise ValueError(
            "the account of an azfs URI has 3 to 24 lower-case letters and digits "
            "(azfs://account/container/name)"
        )
    container = _decoded(container)
    if not _CONTAINER.fullmatch(container):
        raise ValueError(
            "the container of an azfs URI has 3 to 63 lower-case letters, digits and single "
            "hyphens, or is $root, $web or $logs (azfs://account/container/name)"
        )
    return BlobName(account, container, _decoded(name))


def _decoded(text: str) -> str:
    try:
        return unquote_to_bytes(text.encode("utf-8", "surrogateescape")).decode()
    except UnicodeError:
        raise ValueError("the name in an azfs URI is not UTF-8, so no blob has it") from None
