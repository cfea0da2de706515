"""When Python looks for garbage: Beam makes hundreds of thousands of objects that stay."""

import contextlib
import gc
from collections.abc import Iterator

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
