"""Import Beam without the clients of stores and databases that no embedded run uses.

Beam 2.77 imports every file system and connector whose libraries are installed, with itself: those
of Azure and MongoDB alone are a third of the CPU time of ``import apache_beam``. It takes each of
them for missing where its import fails, and Python lets an import fail for None in its place.
"""

import importlib
import logging
import sys

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


def import_beam() -> None:
    """Import Beam, if it is not yet there, without what the embedded runner never uses.

    Only for processes that are this program's own: in another's, Beam would lack those parts for
    good. What was kept from Beam can be imported as usual afterwards.
    """
    if "apache_beam" in sys.modules:
        return
    kept = [name for name in _UNUSED if name not in sys.modules]
    warner = logging.getLogger("apache_beam.io.mongodbio")  # of a missing bson
    sys.modules.update(dict.fromkeys(kept))  # type: ignore[arg-type]  # None is documented
    warner.disabled = True
    try:
        importlib.import_module("apache_beam")
    finally:
        warner.disabled = False
        for name in kept:
            del sys.modules[name]
