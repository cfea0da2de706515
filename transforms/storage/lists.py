"""List files: ``.txt``, ``.csv``, ``.json``, ``.jsonl`` and ``.parquet`` with one name a row.

A name is a path, relative to the folder of the list, or a URI; what it names is not looked at here.
Names are never globbed: a literal ``a[1].jpg`` is that file.
"""

import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple, Optional

import pyarrow as pa
import pyarrow.parquet as pq

from transforms.storage.errors import InputError

COLUMN = "uri"

_PICKLE_SUFFIXES = frozenset({".pkl", ".pickle", ".pck", ".dill", ".joblib"})
# PROTO opcode and protocol 2-5 (pickletools); no UTF-8 text starts with byte 0x80.
_PICKLE_START = re.compile(rb"\x80[\x02-\x05]")
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One row of a list file."""

    number: int  # from 1: the line of the file, or the row for JSON and Parquet
    name: bytes  # a path or URI as written


def is_list(name: bytes) -> bool:
    """Tell whether a file that is named as ``--input`` is a list, by its suffix."""
    return _suffix(name) in _READERS


def refuse_pickle(name: bytes) -> None:
    """Raise ``InputError`` if the suffix says that a file is a pickle."""
    if _suffix(name) in _PICKLE_SUFFIXES:
        raise InputError(
            "a pickle is refused, since reading one runs code; "
            "write the list as .txt, .csv, .json, .jsonl or .parquet"
        )


def read_list(path: bytes, shown: Optional[str] = None) -> Iterator[Line]:
    """Yield the rows of a list file in their order; blank lines are left out.

    A ``.json`` file is held in memory as a whole, the others are streamed.

    Args:
        path: a regular file for which ``is_list`` is true.
        shown: what messages call it; its path if None.

    Raises:
        InputError: the file is not what its suffix says, lacks the ``uri`` column or an entry, or
            may not be read. Whatever was yielded before belongs to a list that is not whole.
    """
    suffix, shown = _suffix(path), shown or os.fsdecode(path)
    try:
        with open(path, "rb") as file:
            head = file.read(len(_BOM))
            if _PICKLE_START.match(head):
                raise InputError("the content is a pickle, which is refused")
            file.seek(len(_BOM) if head == _BOM else 0)
            yield from _READERS[suffix](file)
    except (ValueError, csv.Error, pa.ArrowInvalid, RecursionError) as error:
        # JSONDecodeError, UnicodeError and InputError are ValueErrors; the text of an Arrow error
        # may have several lines.
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"list file {shown!r}: {reason}") from error
    except PermissionError as error:
        raise InputError(f"list file {shown!r}: {error.strerror}") from error


def _suffix(path: bytes) -> str:
    return os.path.splitext(os.fsdecode(path))[1].lower()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _named(entry: object, number: int) -> Line:
    """Take the name out of a row: text, or an object with a text under ``uri``."""
    name = entry.get(COLUMN) if isinstance(entry, dict) else entry
    if not isinstance(name, str) or not name:
        raise InputError(f"row {number} has no text under {COLUMN!r}")
    # JSON can spell surrogates that no file name holds: those raise UnicodeEncodeError here.
    return Line(number, name.encode("utf-8", "surrogateescape"))


def _read_txt(file: BinaryIO) -> Iterator[Line]:
    for number, raw in enumerate(file, 1):
        # Only the line end goes: spaces at either end may belong to the name.
        name = raw.removesuffix(b"\n").removesuffix(b"\r")
        if name:
            yield Line(number, name)


def _read_csv(file: BinaryIO) -> Iterator[Line]:
    with io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="") as text:
        rows = csv.DictReader(text, strict=True)
        if COLUMN not in (rows.fieldnames or ()):
            raise InputError(f"there is no column {COLUMN!r}")
        for row in rows:
            yield _named(row, rows.line_num)


def _read_json(file: BinaryIO) -> Iterator[Line]:
    entries = json.loads(_text(file.read()))
    if not isinstance(entries, list):
        raise InputError(f"it must hold an array of strings or of objects with {COLUMN!r}")
    for number, entry in enumerate(entries, 1):
        yield _named(entry, number)


def _read_jsonl(file: BinaryIO) -> Iterator[Line]:
    for number, raw in enumerate(file, 1):
        if raw.strip():
            yield _named(json.loads(_text(raw)), number)


def _read_parquet(file: BinaryIO) -> Iterator[Line]:
    table = pq.ParquetFile(file)
    schema = table.schema_arrow
    if COLUMN not in schema.names:
        raise InputError(f"there is no column {COLUMN!r}")
    kind = schema.field(COLUMN).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InputError(f"column {COLUMN!r} must hold strings, not {kind}")
    number = 0
    for batch in table.iter_batches(columns=[COLUMN]):
        for name in batch.column(0).to_pylist():
            number += 1
            yield _named(name, number)


_READERS: dict[str, Callable[[BinaryIO], Iterator[Line]]] = {
    ".txt": _read_txt,
    ".csv": _read_csv,
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
