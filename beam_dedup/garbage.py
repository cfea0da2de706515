"""When Python looks for garbage: Beam makes hundreds of thousands of objects that stay."""

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from typing import NoReturn

# Objects made and not freed; Python's default is 700. A stage frees most of its own when it ends:
# with a quarter of this, a job over 5,420 images looked at a million objects, for 0.04 s.
_COLLECT_AFTER = 200_000


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
        # What is young has become old: with fewer objects allowed, it would be looked at at once.
        gc.freeze()
        gc.set_threshold(*before)
        gc.unfreeze()


@contextlib.contextmanager
def no_collections() -> Iterator[None]:
    """Collect nothing while the body makes what stays, nor look at it before ``gc.unfreeze``."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def end_process(code: int) -> NoReturn:
    """End this process with an exit code, once what it wrote is out and what must run has run.

    Python would take apart each object of each module first: 0.02 s, of which nothing comes, but
    that threads of libraries which still run can end the process with SIGABRT.
    """
    with contextlib.suppress(OSError, ValueError):  # where nobody reads any more, or it is closed
        for stream in (sys.stdout, sys.stderr):
            print(end="", file=stream, flush=True)
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)
