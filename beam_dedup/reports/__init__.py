"""Reading a report, and owning an output folder while one is written.

- ``Report.open(output)``: the tables that the manifest names, verified.
- ``OutputLock``: refuses a second run into the same folder.
- ``python -m beam_dedup.reports.check DIR``: does the report keep its promises?
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_dedup.reports.lock import OutputBusyError, OutputLock, discard_run, write_metrics
    from beam_dedup.reports.reader import Report, ReportError

__all__ = [
    "OutputBusyError",
    "OutputLock",
    "Report",
    "ReportError",
    "discard_run",
    "write_metrics",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is: it imports Beam, which warns on the root logger.

    ``python -m`` imports this package before the command can set logging up.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "reader" if name in ("Report", "ReportError") else "lock"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
