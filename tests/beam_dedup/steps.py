"""DoFns for tests of runners; in a module of their own, so that worker processes import them."""

import json
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import apache_beam as beam
from apache_beam.options.value_provider import RuntimeValueProvider

from transforms.telemetry import report_progress


class WriteFacts(beam.DoFn):
    """Write what this process knows into a file, and pass the element on."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, element: int) -> Iterator[tuple[int, int]]:
        report_progress("fingerprint", 1, 1, flush=True)
        options = RuntimeValueProvider.runtime_options or {}
        facts = [os.getpid(), os.environ.get("BEAM_DEDUP_PROGRESS_DIR"), repr(options)]
        (Path(self._folder) / f"fact-{element}").write_text(json.dumps(facts), encoding="utf-8")
        yield element % 2, element


class Fail(beam.DoFn):
    """Raise on one element."""

    def process(self, element: int) -> Iterator[tuple[int, int]]:
        if element == 7:
            raise OSError(28, "No space left on device", "/x/\x1b[31m")
        yield element % 2, element


class Die(beam.DoFn):
    """End this process by a signal."""

    def process(self, element: int) -> Iterator[tuple[int, int]]:
        os.write(2, b"these are my last words\n")
        os.kill(os.getpid(), signal.SIGKILL)
        yield element % 2, element


class Block(beam.DoFn):
    """Write this process's number into a FIFO, hold it open, and take for ever."""

    def __init__(self, fifo: str) -> None:
        self._fifo = fifo

    def process(self, element: int) -> Iterator[tuple[int, int]]:
        held = os.open(self._fifo, os.O_WRONLY)
        os.write(held, b"%d\n" % os.getpid())
        threading.Event().wait()
        yield element % 2, element


class Sum(beam.DoFn):
    """Write the sum of each group into a file, in whichever process."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, group: tuple[int, Iterable[int]]) -> Iterator[int]:
        key, values = group
        (Path(self._folder) / f"sum-{key}").write_text(str(sum(values)), encoding="utf-8")
        yield key


def build(pipeline: beam.Pipeline, step: beam.DoFn, folder: str) -> None:
    """Apply a pipeline of two stages with a shuffle before each."""
    _ = (
        pipeline
        | "Numbers" >> beam.Create(range(100))
        | "Spread" >> beam.Reshuffle()
        | "Step" >> beam.ParDo(step).with_output_types(tuple[int, int])
        | "Group" >> beam.GroupByKey()
        | "Sum" >> beam.ParDo(Sum(folder))
    )


class _SetUp(beam.DoFn):
    """Write a file when it is set up, and pass elements on."""

    def __init__(self, path: str) -> None:
        self._path = path

    def setup(self) -> None:
        Path(self._path).touch()

    def process(self, element: tuple[int, object]) -> Iterator[tuple[int, object]]:
        yield element


def _write_lengths(_: int, path: str, nothing: list[object], all_: list[object]) -> None:
    Path(path).write_text(f"{len(nothing)} {len(all_)}", encoding="ascii")


def build_with_a_branch_of_nothing(pipeline: beam.Pipeline, folder: str) -> None:
    """Group nothing and something, and write how much of each arrives."""
    some = pipeline | "Some" >> beam.Create([(number % 3, number) for number in range(30)])
    none = some | "Drop" >> beam.Filter(lambda _: False)
    grouped = none | "Group nothing" >> beam.GroupByKey()
    passed = grouped | "Pass nothing" >> beam.ParDo(_SetUp(f"{folder}/nothing"))
    summed = some | "Group" >> beam.GroupByKey()
    all_ = (
        (passed, summed)
        | "All" >> beam.Flatten()
        | "Pass all" >> beam.ParDo(_SetUp(f"{folder}/all"))
    )
    sides = [beam.pvalue.AsList(passed), beam.pvalue.AsList(all_)]
    _ = (
        pipeline
        | "One" >> beam.Create([1])
        | "Write" >> beam.Map(_write_lengths, f"{folder}/lengths", *sides)
    )
