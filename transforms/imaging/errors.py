"""The one exception of the imaging package, and the closed list of what can go wrong."""

from typing import Final

__all__ = ["ERROR_TYPES", "ImageError", "one_line"]

ERROR_TYPES: Final[frozenset[str]] = frozenset(
    {
        "unidentified",
        "not_an_image",
        "truncated",
        "too_large",
        "format_not_allowed",
        "timeout",
        "crashed",
        "vanished",
        "not_found",
        "forbidden",
        "bad_embedding",
        "out_of_memory",
        "other",
    }
)

_STAGES: Final[frozenset[str]] = frozenset({"read", "decode"})
_MAX_MESSAGE: Final = 300  # characters; a message may quote bytes of a hostile file


def one_line(text: str) -> str:
    """Return text on one line of at most 300 characters, its control characters escaped.

    Args:
        text: any text, surrogates and terminal escapes included.

    Returns:
        Printable text that encodes as UTF-8.
    """
    cut = text[:_MAX_MESSAGE]
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in cut
    )
    return shown[:_MAX_MESSAGE]


class ImageError(Exception):
    """A permanent failure of one image: the element becomes a failed row, the job goes on.

    Attributes:
        error_type: a member of ``ERROR_TYPES``.
        message: one line, control characters escaped.
        stage: ``read`` or ``decode``.
        format: as Pillow names it, if it was known before the failure.
        width: pixels as stored, if the header was read before the failure.
        height: of the same.
    """

    def __init__(
        self,
        error_type: str,
        message: str,
        stage: str = "decode",
        format: str | None = None,
        width: int | None = None,
        height: int | None = None,
    ) -> None:
        if error_type not in ERROR_TYPES:
            raise ValueError(f"error_type must be one of {sorted(ERROR_TYPES)}, got {error_type!r}")
        if stage not in _STAGES:
            raise ValueError(f"stage must be read or decode, got {stage!r}")
        shown = one_line(message)
        # Everything goes to args, so that the error survives pickling between worker processes.
        super().__init__(error_type, shown, stage, format, width, height)
        self.error_type = error_type
        self.message = shown
        self.stage = stage
        self.format = format
        self.width = width
        self.height = height

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}"
