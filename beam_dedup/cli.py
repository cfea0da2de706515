"""The command line: commands, exit codes, and what is printed where.

Standard output holds results alone; progress, warnings and errors go to standard error. Exit
codes: 0 done; 1 failed; 2 refused before anything ran; 3 the report is complete but more images
failed than allowed; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn, TextIO

import beam_dedup
from beam_dedup import imports, job, options, progress
from beam_dedup.garbage import end_process, few_collections
from beam_dedup.messages import count, duration, one_line, redact, safe_line, shell_command, size
from beam_dedup.options import UsageError
from beam_dedup.runners import Interrupts, JobError

log = logging.getLogger(__name__)

_DONE, _FAILED, _REFUSED, _INTERRUPTED = 0, 1, 2, 130

_COMMANDS = {
    "run": "find which images are copies of which, and write a report",
    "evaluate": "score a report against what a person says, and calibrate thresholds",
    "explain": "run every stage on two images, and say why they are copies or not",
    "apply": "copy the best of each group, and its duplicates, to another place",
    "check": "try what a run would need of its inputs and its output, and say what is wrong",
    "models": "list, fetch and verify weights of learned models",
}


def main(argv: list[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: the arguments; those of the process if None.

    Returns:
        The exit code.
    """
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name must not end the program because the terminal's encoding lacks a letter.
        sys.stdout.reconfigure(errors="backslashreplace")
    verbose = not {"-v", "--verbose"}.isdisjoint(argv)
    signals = (signal.SIGINT, signal.SIGTERM)
    with few_collections(), _logging(verbose=verbose), Interrupts(signals) as interrupts:
        try:
            return _command(argv, interrupts)
        except UsageError as error:
            return _error(f"refused: {safe_line(str(error))}", _REFUSED)
        except JobError as error:
            return _error(f"failed: {error}; no report was written{_hint(verbose)}", _FAILED)
        except KeyboardInterrupt:
            ending = "; no report was written" if argv[:1] == ["run"] else ""
            return _error(f"interrupted{ending}", _INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has gone; the report, if any, is written.
            with contextlib.suppress(OSError):
                sys.stdout.close()
            return _FAILED
        except Exception as error:
            # What nobody foresaw must still end in one line and a code, with the trace on request.
            log.info("unexpected error", exc_info=True)
            cause = safe_line(f"{type(error).__name__}: {error}")
            return _error(f"failed: {cause}{_hint(verbose)}", _FAILED)


def program() -> NoReturn:
    """Run the command line of this process, and end the process with its exit code."""
    end_process(main())


def run(argv: list[str], interrupts: Interrupts) -> int:
    """Run ``beam-dedup run``.

    Args:
        argv: the arguments after ``run``.
        interrupts: ends the job when a signal comes.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments are refused.
        JobError: the job failed.
        KeyboardInterrupt: SIGINT or SIGTERM came.
    """
    if not {"-h", "--help"}.isdisjoint(argv):
        print(options.help_text())
        return _DONE
    if not any(word.startswith("--runner") for word in argv):
        imports.import_beam()
    config, how, beam_args = options.parse(argv)
    if how.dry_run:
        from beam_dedup.estimate import estimate

        print(estimate(config, how))
        words = [word for word in argv if word.replace("-", "_") != "__dry_run"]
        if config.output:
            print(f"run it with: {shell_command(['beam-dedup', 'run', *words])}")
        return _DONE
    display = None if how.quiet else progress.open_display()
    result = job.run_job(
        config,
        how,
        beam_args,
        interrupts,
        display=display,
    )
    if not how.quiet:
        print(summary_text(result))
    if result.failed_ratio_exceeded:
        return _error(
            "the report is complete, but more images failed than --max_failure_ratio "
            f"{config.max_failure_ratio} allows",
            result.exit_code,
        )
    return result.exit_code


def evaluate(argv: list[str]) -> int:
    """Run ``beam-dedup evaluate``.

    Args:
        argv: the arguments after ``evaluate``.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments, the report or the truth are refused.
    """
    from beam_dedup import evaluate as command

    return command.main(argv)


def explain(argv: list[str]) -> int:
    """Run ``beam-dedup explain``.

    Args:
        argv: the arguments after ``explain``.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments are refused.
    """
    from beam_dedup import explain as command

    try:
        return command.main(argv)
    except command.ImageFailedError as error:
        return _error(f"failed: {error}", _FAILED)


def apply(argv: list[str]) -> int:
    """Run ``beam-dedup apply``.

    Args:
        argv: the arguments after ``apply``.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments, the report or the destination are refused.
    """
    from beam_dedup.actions import command
    from transforms.storage.errors import AccessError

    try:
        return command.main(argv)
    except AccessError as error:
        return _error(f"failed: {safe_line(str(error))}", _FAILED)
    except KeyboardInterrupt:
        return _error("interrupted; the same command goes on from here", _INTERRUPTED)


def check(argv: list[str]) -> int:
    """Run ``beam-dedup check``.

    Args:
        argv: the arguments after ``check``.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments are refused.
    """
    from beam_dedup import check as command

    return command.main(argv)


def models(argv: list[str]) -> int:
    """Run ``beam-dedup models``.

    Args:
        argv: the arguments after ``models``.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments are refused.
    """
    from beam_dedup.models import command

    try:
        return command.main(argv)
    except KeyboardInterrupt:
        return _error("interrupted; the same command goes on from here", _INTERRUPTED)


def summary_text(result: job.Result) -> str:
    """Return what a person wants to know of a finished job, a line for each fact."""
    counts = result.counts
    statuses = ", ".join(
        f"{count(counts[name])} {name}" for name in ("unique", "best", "duplicate", "failed")
    )
    failures = ", ".join(
        f"{count(number)} {safe_line(name)}" for name, number in result.failures.items()
    )
    reclaimable = size(result.summary["bytes"]["reclaimable"])
    rate = counts["listed"] / result.seconds if result.seconds > 0 else 0.0
    lines = [
        ("images", f"{count(counts['listed'])} ({statuses})"),
        ("groups", count(counts["groups"])),
        ("duplicates", f"{count(counts['duplicate'])}, {reclaimable} reclaimable"),
        ("failures", count(counts["failed"]) + (f" ({failures})" if failures else "")),
        ("time", f"{duration(result.seconds)} ({rate:,.1f} images/s)"),
        ("report", one_line(result.output)),
    ]
    return "\n".join(f"{name:<11} {value}" for name, value in lines)


def _command(argv: list[str], interrupts: Interrupts) -> int:
    command = argv[0] if argv else ""
    if command == "run":
        return run(argv[1:], interrupts)
    if command == "evaluate":
        return evaluate(argv[1:])
    if command == "explain":
        return explain(argv[1:])
    if command == "apply":
        return apply(argv[1:])
    if command == "check":
        return check(argv[1:])
    if command == "models":
        return models(argv[1:])
    if command in ("-h", "--help", "help"):
        print(_help())
        return _DONE
    if command == "--version":
        print(f"beam-dedup {beam_dedup.__version__}")
        return _DONE
    if not command:
        print(_help(), file=sys.stderr)
        return _REFUSED
    close = difflib.get_close_matches(command, _COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else "see beam-dedup --help"
    raise UsageError(f"there is no command {redact(one_line(command))!r}; {hint}")


def _hint(verbose: bool) -> str:
    return "" if verbose else "; --verbose shows the traceback"


def _error(text: str, code: int) -> int:
    print(f"beam-dedup: {text}", file=sys.stderr)
    return code


def _help() -> str:
    commands = "\n".join(f"  {name:<8} {what}" for name, what in _COMMANDS.items())
    return (
        "usage: beam-dedup COMMAND [options]\n\n"
        "Finds which images are copies of which. Changes, moves and deletes nothing.\n\n"
        f"commands:\n{commands}\n\n"
        "beam-dedup COMMAND --help explains a command; --version shows the version."
    )


class _LineFormatter(logging.Formatter):
    """Formats a record with control characters escaped and secrets taken out of every line."""

    def format(self, record: logging.LogRecord) -> str:
        lines = super().format(record).split("\n")
        return "\n".join(redact(one_line(line)) for line in lines)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the time, which a progress display replaces."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


@contextlib.contextmanager
def _logging(*, verbose: bool) -> Iterator[None]:
    """Show our warnings, and with ``verbose`` everything that explains a failure.

    Beam logs a failure several times over, each with a traceback, and warns of what no user can
    change; the one line that ``_guarded`` prints says the same.
    """
    handler = _StderrHandler()
    handler.setFormatter(_LineFormatter("beam-dedup: %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    ours = [logging.getLogger(name) for name in ("beam_dedup", "transforms")]
    before = [(one, one.level) for one in (root, *ours)]
    root.addHandler(handler)
    root.setLevel(logging.WARNING if verbose else logging.CRITICAL + 1)
    for one in ours:
        one.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        yield
    finally:
        root.removeHandler(handler)
        for one, level in before:
            one.setLevel(level)
