"""What stands for a lock where nothing can lock an output: a file that says who writes."""

import logging

from transforms.reporting.store import LOCK
from transforms.reporting.systems import SystemStore

log = logging.getLogger(__name__)


class Notice:
    """Says who writes into a folder of a file system of Beam's; keeps nobody out."""

    hint = ""

    def __init__(self, store: SystemStore, holder: str) -> None:
        """Take the output and the text that says who writes."""
        self._store = store
        self._holder = holder

    def take(self) -> str | None:
        """Write the notice; where there is one of another run, warn of it and replace it.

        Raises:
            OSError: the output cannot be written.
        """
        if other := self._store.writer():
            log.warning(
                "output %r may be written by another run (%r); nothing here can lock it, so make "
                "sure that it has ended",
                self._store.shown,
                other,
            )
        with self._store.publish(LOCK) as out:
            out.write(self._holder.encode())
        return None

    def give_back(self) -> None:
        """Remove the notice."""
        try:
            self._store.remove(LOCK)
        except OSError as error:
            log.warning("%s in %r could not be removed (%s)", LOCK, self._store.shown, error)
