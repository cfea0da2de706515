"""Import Beam without the clients of stores and databases that no embedded run uses.

Beam 2.77 imports every file system and connector whose libraries are installed, with itself: those
of Azure and MongoDB alone are a third of the CPU time of ``import apache_beam``. It takes each of
them for missing where its import fails, and Python lets an import fail for None in its place. Of
other libraries it wants a function that is not called: it gets one that imports them when it is.
"""

import atexit
import gc
import importlib
import importlib.util
import logging
import os
import sys
import traceback
from types import ModuleType
from typing import Any

from beam_dedup.garbage import no_collections

# What Beam imports only to have it, each where Beam goes on without it.
_UNUSED = (
    "apache_beam.io.aws.s3filesystem",
    "apache_beam.io.azure.blobstoragefilesystem",
    "apache_beam.io.gcp.bigquery",
    "apache_beam.io.gcp.gcsfilesystem",
    "apache_beam.io.hadoopfilesystem",
    "bson",
    "pymongo",
)
# Of which Beam takes functions, or nothing: a third of the rest of its import.
_LATE = (
    "asyncio",  # of gRPC, whose other form this program uses
    "beartype.door",
    "beartype.roar",
    "cryptography.fernet",
    "dateutil.parser",
    "fastavro",
    "fastavro.read",
    "fastavro.write",
    "grpc.aio",
    "httplib2",
    "multiprocessing.pool",
    "numpy._core._add_newdocs",  # the texts that help() shows
    "numpy._core._add_newdocs_scalars",
    "proto",
    "urllib.request",
    "yaml",
    "zstandard",
)
# Reads Arrow's own documentation of its functions: half of the import of ``pyarrow.compute``.
_READER = "pyarrow.vendored.docscrape"
# Read by OpenBLAS and by OpenMP when they are loaded.
_THREADS = "OMP_NUM_THREADS"
# Read by Arrow. With an allocator of its own it maps new memory, while the heap has some to spare.
_ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"


class _Late(ModuleType):
    """Stands for a module until one of its functions is called."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(importlib.import_module(self.__name__), name)(*args, **kwargs)

        return call


class _NoReader(ModuleType):
    """Stands for what reads the documentation of functions, and finds no parameters there."""

    @staticmethod
    def NumpyDocString(text: str) -> dict[str, tuple[()]]:
        """Return what ``pyarrow.compute`` asks for of a text."""
        return {"Parameters": ()}


def import_beam() -> None:
    """Import Beam and Arrow, if Beam is not yet there, without what the embedded runner never uses.

    Only for processes that are this program's own: in another's, Beam would lack those parts for
    good. What was kept from Beam can be imported as usual afterwards.

    Such a process is one of as many as there are CPUs, so that BLAS gets no threads of its own:
    after each product they would wait for the next by spinning. Nor does the collector look at all
    of Beam again when the process ends, which takes 0.3 s.
    """
    if "apache_beam" in sys.modules:
        return
    os.environ.setdefault(_THREADS, "1")
    os.environ.setdefault(_ARROW_POOL, "system")
    atexit.register(gc.freeze)
    # Where Google's libraries are there, Beam imports them, and they take classes.
    late = _LATE if importlib.util.find_spec("apitools") is None else ()
    instead = {**dict.fromkeys(_UNUSED), **{name: _Late(name) for name in late}}
    instead[_READER] = _NoReader(_READER)
    kept = {name: module for name, module in instead.items() if name not in sys.modules}
    # Beam notes for each hint the lines that it comes from, and reads its own source for that.
    format_stack = traceback.format_stack
    traceback.format_stack = lambda *_, **__: []
    warner = logging.getLogger("apache_beam.io.mongodbio")  # of a missing bson
    sys.modules.update(kept)  # type: ignore[arg-type]  # None is documented
    warner.disabled = True
    try:
        with no_collections():
            importlib.import_module("apache_beam")
            importlib.import_module("pyarrow.compute")
    finally:
        traceback.format_stack = format_stack
        warner.disabled = False
        for name in kept:
            del sys.modules[name]
