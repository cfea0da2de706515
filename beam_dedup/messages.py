"""Text for terminals, logs and shells: names escaped, secrets taken out, errors on one line."""

import re
import shlex

_MAX_CHARACTERS = 500
# The parts of Azure connection strings and shared access signatures that give access; see
# https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string
_SECRET = re.compile(
    r"(?P<name>AccountKey|SharedAccessKey|SharedAccessSignature|(?<![A-Za-z0-9_])sig)"
    r"(?P<equals>\s*=\s*|%3D)(?P<value>[^\s;&'\"]+)",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/\s@]*:[^/\s@]*@", re.IGNORECASE)
_STEP = re.compile(r"\s*\[while running '(?P<step>[^']*)'\]")
_EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Died)\b")
_NESTED = re.compile(r"RuntimeError: (?=[A-Za-z_][\w.]*(?:Error|Exception)\b)")


def one_line(text: str) -> str:
    """Escape control characters, line ends, marks of direction and lone surrogates."""
    # Not at the top: it imports Beam, which takes a second and warns on the root logger before
    # the command line has set logging up.
    from transforms.storage import uris

    return uris.one_line(text)


def has_secret(text: str) -> bool:
    """Tell whether a text holds an account key, a shared access signature or a password."""
    return _SECRET.search(text) is not None or _USERINFO.search(text) is not None


def redact(text: str) -> str:
    """Replace the values of account keys, shared access signatures and passwords."""
    text = _SECRET.sub(r"\g<name>\g<equals>[redacted]", text)
    return _USERINFO.sub(r"\g<scheme>[redacted]@", text)


def safe_line(text: str) -> str:
    """Return a text on one line, without control characters, secrets or undue length."""
    line = redact(one_line(text.strip()))
    return line if len(line) <= _MAX_CHARACTERS else line[: _MAX_CHARACTERS - 1] + "…"


def describe_failure(error: BaseException) -> str:
    """Return one line that says what failed and in which step of the pipeline.

    An exception of a worker process arrives as text, with its whole traceback in the message; the
    last line that starts with the name of an exception is the cause.

    Args:
        error: what Beam raised.
    """
    lines = [line for line in str(error).splitlines() if line.strip()]
    cause = next((line for line in reversed(lines) if _EXCEPTION.match(line)), None)
    if cause is None:
        cause = f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
    while _NESTED.match(cause):
        cause = _NESTED.sub("", cause, count=1)
    step = _STEP.search(cause)
    cause = safe_line(_STEP.sub("", cause))
    return f"step {step['step']!r}: {cause}" if step else cause


def shell_word(word: str) -> str:
    r"""Quote one argument for a POSIX shell; control characters become bash's ``$'\x1b'``."""
    if one_line(word) == word:
        return shlex.quote(word)
    return "$'" + "".join(map(_ansi_c, word)) + "'"


def shell_command(words: list[str]) -> str:
    """Return a command line that a person can paste into a shell."""
    return " ".join(map(shell_word, words))


def _ansi_c(char: str) -> str:
    if char in "'\\":
        return "\\" + char
    if one_line(char) == char:
        return char
    # Bytes, not code points: a name may hold bytes that are no UTF-8 (as surrogates here).
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def count(number: int) -> str:
    """Format a count with separators of thousands."""
    return f"{number:,}"


def size(size_bytes: float) -> str:
    """Format a number of bytes in the nearest decimal unit."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size_bytes) < 1000:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def duration(seconds: float) -> str:
    """Format a duration as ``h:mm:ss``, or with a tenth of a second below a minute."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
