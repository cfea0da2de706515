"""Find copies of images, exact and near, with an Apache Beam pipeline.

A tour, from the command line inwards:

- ``cli``: the commands, their exit codes and what they print.
- ``options``: every option with its unit, default and range; the profiles.
- ``job``: one job from config to result; ``deduplicate`` is its Python form.
- ``pipeline``: the whole dataflow on one page, made of the PTransforms of ``transforms``.
- ``runners``: the embedded runner and its worker processes (``worker``), or any other.
- ``progress``: what a running job shows.
- ``estimate``: what a dry run says.
- ``reports``: read a report, lock an output folder.
- ``imports``: Beam without what an embedded run never uses.
- ``garbage``: when Python looks for it.
- ``messages``: text that is safe for terminals, logs and shells.

Example::

    import beam_dedup

    result = beam_dedup.deduplicate("photos", "report")
    print(result.counts)
"""

from beam_dedup.job import Result, deduplicate
from beam_dedup.options import UsageError
from beam_dedup.runners import JobError

__all__ = ["JobError", "Result", "UsageError", "deduplicate"]
__version__ = "0.1.0"
