"""The errors of the storage layer; everything else that it meets is raised as it is."""


class InputError(ValueError):
    """An input that is refused, or a listing that cannot be whole; the message is one line.

    The command line turns it into exit code 2 when it is met before anything ran.
    """


class StorageError(Exception):
    """A permanent failure of one object: the element becomes a failed row, the job goes on.

    Transient and unknown faults (``EIO``, ``ENFILE``, ``ESTALE``, …) are never turned into it.

    Args:
        error_type: one of ``vanished``, ``not_found``, ``forbidden``, ``too_large``, ``other``;
            where something is written, also ``exists`` and ``leased``.
        message: one line, without control characters, without the name of the object.
    """

    def __init__(self, error_type: str, message: str) -> None:
        # Both go to args, so that the error survives pickling between worker processes.
        super().__init__(error_type, message)
        self.error_type = error_type
        self.message = message

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}"


def too_large(size_bytes: int, max_bytes: int) -> StorageError:
    """Return the failure of an object that is larger than what may be read."""
    return StorageError("too_large", f"{size_bytes} bytes, more than the {max_bytes} allowed")


class AccessError(InputError):
    """A store refuses access as a whole, or has no such container: the job ends with this line.

    Never a failure of one object: three million rows that say the same help nobody.

    Args:
        message: one line, without a secret.
        code: what the store or the library calls it; "" where it has no name for it.
    """

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message, code)
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


class UnavailableError(OSError):
    """A store did not answer as it should, however often it was asked; later it may.

    It stands for the errors of the store's own library, whose messages hold URLs, and those may
    hold a secret.
    """
