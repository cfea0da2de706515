"""Names of objects: paths as bytes, URIs as ASCII text, and a form that people can read.

A file name on a POSIX system is bytes, in no known encoding and never normalised: the NFC and NFD
spellings of one word are two names. The URI of RFC 8089 keeps every byte, so it is the identity of
a row; the readable form is for the eye only and cannot be turned back.
"""

import os
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

BEAM_SCHEMES = frozenset({"gs", "hdfs", "s3"})  # reached through Beam's own file systems
# The allowlist; transforms.storage.stores has a store for each.
SCHEMES = frozenset({"azfs", "file", *BEAM_SCHEMES})

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://|(file):/", re.IGNORECASE)
_FILE = re.compile(r"file:(?://(?:localhost)?(?=/)|(?=/(?!/)))", re.IGNORECASE)
# Marks that turn the direction of the text around them (Unicode Standard Annex #9, table 4):
# a name that holds one can look like another name.
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINE_ENDS = frozenset("\u2028\u2029")


def scheme_of(text: str) -> str | None:
    """Return the scheme of a URI in lower case, or None for a local path.

    A scheme has two letters or more, so that ``C:/x`` is a (strange) path, and is followed by
    ``://``; only ``file`` may have one slash (RFC 8089, appendix B).
    """
    match = _SCHEME.match(text)
    return (match[1] or match[2]).lower() if match else None


def is_supported(uri: str) -> bool:
    """Tell whether objects of this URI's scheme can be listed and read."""
    return scheme_of(uri) in SCHEMES


def encode(part: bytes) -> str:
    """Percent-encode every byte but ``A-Za-z0-9-._~/`` (RFC 3986, section 2.3)."""
    return quote_from_bytes(part)


def to_uri(path: bytes | str) -> str:
    """Return the ``file`` URI of an absolute local path, as it is written.

    Args:
        path: bytes, or text as ``os.fsdecode`` makes it (undecodable bytes as surrogates).

    Returns:
        ASCII text, ``file:///…``; equal for equal bytes and different for different ones.

    Raises:
        ValueError: the path is not absolute.
    """
    raw = os.fsencode(path)
    if not raw.startswith(b"/"):
        raise ValueError(f"a file URI needs an absolute path, not {path!r}")
    return "file://" + encode(raw)


def to_local_path(uri: str) -> bytes:
    """Return the path that a ``file`` URI names; the inverse of ``to_uri``.

    Text that people wrote is taken leniently: ``?``, ``#`` and a ``%`` without two hex digits stand
    for themselves, since files have neither queries nor fragments.

    Args:
        uri: ``file:///path``, ``file://localhost/path`` or ``file:/path``.

    Raises:
        ValueError: another scheme, another host, or a relative path.
    """
    match = _FILE.match(uri)
    if match is None:
        raise ValueError("not a file URI of this machine (file:///absolute/path)")
    return unquote_to_bytes(os.fsencode(uri[match.end() :]))


def readable(uri: str) -> str:
    r"""Return the form of a URI for people: valid UTF-8 on one line, never turned back.

    Bytes that are no UTF-8 are shown as ``\xff``; control characters, line separators and marks
    that turn the direction of text are escaped, so that a name cannot break a log line or a CSV
    row or pass for another. All other text, combining marks and emoji included, stays as it is.

    Args:
        uri: a file URI gives its path; any other keeps its scheme.
    """
    part = uri[7:] if uri.startswith("file:///") else uri
    if "%" not in part and part.isascii() and part.isprintable():
        return part
    return one_line(unquote_to_bytes(part).decode("utf-8", "backslashreplace"))


def one_line(text: str) -> str:
    """Escape what must not stand raw in a message, a log line or a table (see ``readable``)."""
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    code = ord(char)
    # C0, DEL and C1 are the whole of category Cc; lone surrogates have no UTF-8 form.
    if code < 0x20 or 0x7F <= code < 0xA0:
        return f"\\x{code:02x}"
    if char in _BIDI or char in _LINE_ENDS or 0xD800 <= code < 0xE000:
        return f"\\u{code:04x}"
    return char


def below(root_uri: str, uri: str) -> str:
    """Return the percent-encoded part of a URI below the root of its input.

    Args:
        root_uri: a folder, with or without a slash at its end, or the object itself.
        uri: what was found there.

    Returns:
        The part after the root and a slash; the base name if the two are equal.

    Raises:
        ValueError: the URI does not lie below the root.
    """
    root = root_uri.removesuffix("/") + "/"
    if uri.startswith(root) and len(uri) > len(root):
        return uri[len(root) :]
    if uri.removesuffix("/") + "/" == root:
        return uri.removesuffix("/").rpartition("/")[2]
    raise ValueError(f"{uri!r} does not lie below {root_uri!r}")


def written_below(path: bytes) -> str:
    """Return the ``below`` of a line of a list: the path as written, percent-encoded.

    Empty, ``.`` and ``..`` segments are left out and with them the slash in front, so that no
    ``below`` ever leads out of a folder that it is joined to. Two lines may share one ``below``.
    """
    return encode(b"/".join(part for part in path.split(b"/") if part not in (b"", b".", b"..")))
