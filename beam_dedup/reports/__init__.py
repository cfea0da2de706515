"""Reading a report, and owning an output folder while one is written.

- ``Report.open(output)``: the tables that the manifest names, verified.
- ``OutputLock``: refuses a second run into the same folder.
- ``python -m beam_dedup.reports.check DIR``: does the report keep its promises?
"""

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
