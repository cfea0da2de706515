"""Where a file goes below the destination."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from urllib.parse import unquote_to_bytes

BEST, DUPLICATES = "best", "duplicates"

# Letters and digits of any script stay; what a shell, a file system or a URL reads in a way of its
# own does not.
_UNSAFE = re.compile(r"[^\w.-]+")
# File systems allow 255 bytes of a name, Azure 1,024 characters of all names with their slashes.
_MOST_BYTES, _MOST_ENDING_BYTES = 120, 16


def target_of(uri: str, group_id: str, *, is_best: bool) -> str:
    """Return the name of a copy, relative to the destination.

    The part that tells two files apart is the SHA-256 of the URI; the rest is for people. Should 64
    bits of it ever be equal, the second file is not copied, since a file that is there is never
    overwritten.

    Args:
        uri: of the source, as the report has it.
        group_id: letters and digits.
        is_best: whether it is the kept image of its group.

    Returns:
        ``best/GROUP/HASH_NAME`` or ``duplicates/GROUP/HASH_NAME``.
    """
    digest = hashlib.sha256(uri.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{BEST if is_best else DUPLICATES}/{group_id}/{digest}_{_safe(uri)}"


def _safe(uri: str) -> str:
    """Return the base name of a URI, with nothing in it but letters, digits and ``._-``."""
    name = unquote_to_bytes(uri.rpartition("/")[2]).decode("utf-8", "replace")
    # A name that ends in a dot loses it in Azure and on Windows.
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).rstrip(".")
    stem, ending = os.path.splitext(name)
    ending = _cut(ending, _MOST_ENDING_BYTES)
    return (_cut(stem, _MOST_BYTES - len(ending.encode())) + ending).rstrip(".")


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode("utf-8", "ignore")
