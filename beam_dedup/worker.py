"""One worker process of the embedded runner: Beam's SDK worker on a lifeline.

Beam starts workers as plain child processes: nothing ends them when the client is killed, and a
Ctrl-C reaches each of them on its own. So a worker holds the reading end of a FIFO whose only
writing end is the client's. When that closes, by the client's will or by its death, the worker
ends at once. Signals of the terminal are left to the client.
"""

import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import MethodType
from typing import Any

_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1  # of glibc's malloc.h
_COLLECT_AFTER = 50_000  # objects made and not freed; Python's default is 700
_KEPT_BYTES = 256 << 20  # free at the end of the heap; given back beyond
_MAPPED_BYTES = 128 << 20  # from which on an array or buffer is a mapping of its own
LIFELINE = "BEAM_DEDUP_LIFELINE"  # environment variable: path of the FIFO
MARK = "worker-"  # beside the FIFO: an empty file for each worker, named by its process id
LAST_WORDS = "stderr-"  # beside the FIFO: what each worker wrote to standard error


def hold_lifeline(path: Path) -> None:
    """End this process as soon as the writing end of a FIFO is closed.

    Leaves a file ``MARK`` + PID beside the FIFO, by which the client can end a process that holds
    the interpreter's lock and so cannot end itself.

    Args:
        path: the FIFO, as the client made it.
    """
    try:
        (path.parent / f"{MARK}{os.getpid()}").touch()
        lifeline = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # A FIFO without a writer reads as ended; one with a writer has nothing to read yet.
        if os.read(lifeline, 1) == b"":
            os._exit(1)
    except FileNotFoundError:
        os._exit(1)
    except BlockingIOError:
        os.set_blocking(lifeline, True)
    threading.Thread(target=_wait, args=(lifeline,), name="lifeline", daemon=True).start()


def _wait(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)


def _bound_arenas() -> None:
    """Keep glibc from giving each of Beam's threads a heap of its own, which it never gives back.

    Measured on 20,000 images with two workers: 329 MiB in the client instead of 484. Each mapping
    is filled with zeroed pages again when it is made: with glibc's thresholds, and with low ones,
    that was 6 of 52 CPU seconds of a job over 5,420 images.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such call
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def release_buffers() -> None:
    """Make Beam's worker, or its embedded runner, hold little memory that it no longer needs.

    Beam 2.77 keeps each output's last buffer, of up to 16 MB, for as long as it keeps the stage
    for reuse: with dozens of outputs that was 200 MB of a job over 20,000 images.
    """
    from apache_beam.runners.worker.bundle_processor import DataOutputOperation

    _bound_arenas()
    finish = DataOutputOperation.finish
    if getattr(finish, "releases_buffer", False):
        return

    def finish_and_release(operation: DataOutputOperation) -> None:
        finish(operation)
        operation.output_stream = None  # set anew at the start of every bundle

    finish_and_release.releases_buffer = True  # type: ignore[attr-defined]
    DataOutputOperation.finish = finish_and_release


def remember_states() -> None:
    """Make Beam look for state and timers once in each class of DoFn.

    Beam 2.77 reads the signature of every method of a DoFn whenever it asks, eight times for each
    step of a job: 0.3 s of a job's start. None of this program's DoFns has either.
    """
    from apache_beam.transforms import userstate

    ask = userstate.get_dofn_specs
    if getattr(ask, "remembers", False):
        return
    known: dict[type, Any] = {}

    def answer(dofn: Any) -> Any:
        # A method that the instance alone has says nothing of its class.
        if any(isinstance(value, MethodType) for value in vars(dofn).values()):
            return ask(dofn)
        kind = type(dofn)
        if kind not in known:
            known[kind] = ask(dofn)
        # The caller may change its sets.
        return tuple(map(set, known[kind]))

    answer.remembers = True  # type: ignore[attr-defined]
    userstate.get_dofn_specs = answer


@contextlib.contextmanager
def few_collections() -> Iterator[None]:
    """Collect garbage seldom while the body runs.

    Importing Beam and building a pipeline make hundreds of thousands of objects that stay, and the
    collector looks at them again and again: 0.4 s of a job's start.
    """
    before = gc.get_threshold()
    gc.set_threshold(_COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def keep_last_words(folder: Path) -> None:
    """Send standard output and error into a file, with a trace if this process crashes.

    Beam prints every failure there, which the client reports anyway, in one line.

    Args:
        folder: of the lifeline.
    """
    with (folder / f"{LAST_WORDS}{os.getpid()}").open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()


def main() -> None:
    """Run Beam's SDK worker until the client closes its control connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Log lines go to the client, which decides what is shown; without a handler here, Beam would
    # set up one of its own that writes to the terminal past the client.
    logging.getLogger().addHandler(logging.NullHandler())
    if path := os.environ.get(LIFELINE):
        hold_lifeline(Path(path))
        keep_last_words(Path(path).parent)
    from apache_beam.runners.worker import sdk_worker_main

    release_buffers()
    remember_states()
    with few_collections():
        sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
