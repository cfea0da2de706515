"""List the inputs: one row for each distinct URI, or an error; never a part taken for the whole.

In: the ``--input`` options. Out: ``ImageRef`` for what can be read, ``FailedImage`` (of stage
``list``) for dangling links, missing lines of a list, FIFOs, sockets and devices, which are never
opened.
Failures: an input that is missing, refused, or cannot be listed as a whole raises. Guarantee: every
name that an input stands for is found, failed, or counted as left out; each URI is one row, and of
several sightings of it that with the least input, then ``below``, counts.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple, Optional

import apache_beam as beam

from transforms.access import LOCAL, Access
from transforms.outputs import in_global_window, several_outputs
from transforms.records import Cap, FailedImage, Failure, ImageRef, StageStats
from transforms.storage.errors import InputError
from transforms.storage.inputs import (
    can_split,
    check_list,
    expand,
    pin_inputs,
    resolve_output,
    source_of,
    split,
)
from transforms.storage.patterns import ANY, Bounds, Selection
from transforms.storage.sightings import Kind, Scope, Sighting, Source
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "list"
_NEXT_STAGE = "fingerprint"  # that of transforms.fingerprints, which loads the decoder

# Sightings timed together; enough that the clock costs nothing, few enough for a live display.
_BATCH = 1000

_Pinned = tuple[int, bytes]  # an input's position and its pinned form
_Part = tuple[int, bytes | Source]  # the same, or a part of what it names
_Seen = tuple[int, ImageRef, str, str]  # a Sighting, as a tuple that Beam has a coder for

_CAPS = {
    Kind.EXCLUDED: ("excluded", "names left out by --include and --exclude"),
    Kind.IN_OUTPUT: ("in_output", "lines and links that lead into the output folder"),
}


def check_inputs(
    inputs: Sequence[str],
    output: Optional[str] = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    bounds: Bounds = ANY,
    access: Access = LOCAL,
) -> None:
    """Refuse what cannot run, before anything runs.

    Looks at every input, reads list files as a whole, and walks until the first image is found.

    Args:
        inputs: local paths, globs or URIs.
        output: the output folder; what lies in it is no input.
        include: globs that files must match (``storage.patterns.filter_glob``).
        exclude: globs that files must not match.
        bounds: of size and date.
        access: how stores are reached.

    Raises:
        InputError: an input is missing, refused or lies in the output folder, a glob matches
            nothing, a list is broken or names a scheme that is not allowed, or nothing is left.
    """
    pinned, scope = pin_inputs(inputs), _scope(include, exclude, output, bounds, access)
    unfiltered = dataclasses.replace(scope, selection=Selection())
    for index, one in enumerate(pinned):
        here = dataclasses.replace(unfiltered, index=index)
        source = source_of(one, here)
        if source.kind == "list":
            check_list(source, access)
        elif source.kind == "glob" and not any(map(_is_row, expand(source, here))):
            raise InputError(
                f"input {inputs[index]!r} matched no objects; globs take files only, "
                "end one in '/**' to take all that is below the folders it matches"
            )
        elif scope.in_output(source.uri):
            raise InputError(
                f"input {inputs[index]!r} lies in the output folder, which is never an input; "
                "choose another output"
            )
    if not any(map(_is_row, _distinct(list(enumerate(pinned)), scope))):
        filtered = include or exclude or bounds != ANY
        hint = " that the filters of names, size and date leave" if filtered else ""
        raise InputError(f"the inputs matched no objects{hint}")


def iterate_inputs(
    inputs: Sequence[str],
    output: Optional[str] = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: Optional[int] = None,
    bounds: Bounds = ANY,
    access: Access = LOCAL,
) -> Iterator[ImageRef | FailedImage]:
    """List without Beam, in the order of input and ``below``: the rows of ``ListImages``.

    Holds every URI so far, and a list file, in memory.

    Args:
        inputs: local paths, globs or URIs.
        output: the output folder; what lies in it is no input.
        include: globs that files must match.
        exclude: globs that files must not match.
        limit: stop after so many rows.
        bounds: of size and date.
        access: how stores are reached.

    Raises:
        InputError: an input is refused, or could not be listed as a whole.
    """
    pinned = list(enumerate(pin_inputs(inputs)))
    scope = _scope(include, exclude, output, bounds, access)
    for sighting in filter(_is_row, _distinct(pinned, scope, limit)):
        yield sighting.ref if sighting.kind == Kind.FOUND else _failed_image(*sighting[1:4])


def _scope(
    include: Sequence[str],
    exclude: Sequence[str],
    output: Optional[str],
    bounds: Bounds,
    access: Access,
) -> Scope:
    for patterns in (include, exclude):
        if isinstance(patterns, str):
            raise InputError(f"include and exclude are lists of globs, got one string {patterns!r}")
    selection = Selection(tuple(include), tuple(exclude), bounds)
    return Scope(0, selection, resolve_output(output), access)


def _is_row(sighting: Sighting) -> bool:
    return sighting.kind in (Kind.FOUND, Kind.FAILED)


def _distinct(
    pinned: Iterable[_Part], scope: Scope, limit: Optional[int] = None
) -> Iterator[Sighting]:
    """Yield the first sighting of each URI in order, up to ``limit`` rows, and all left out."""
    seen: set[str] = set()
    for index, one in pinned:
        for sighting in expand(one, dataclasses.replace(scope, index=index), in_order=True):
            if not _is_row(sighting):
                yield sighting
            elif sighting.ref.uri not in seen:
                if limit is not None and len(seen) >= limit:
                    return
                seen.add(sighting.ref.uri)
                yield sighting


def _failed_image(ref: ImageRef, error_type: str, message: str) -> FailedImage:
    return FailedImage(ref, Failure(STAGE, ref.uri, error_type, message), None, None, None, None)


class _SplitInputs(MeteredDoFn):
    """Inputs to parts that are walked by several workers."""

    stage = STAGE

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def process(self, pinned: list[_Pinned]) -> Iterator[list[_Part]]:
        for index, one in pinned:
            with self.meter.work(0):
                parts = list(split(one, dataclasses.replace(self._scope, index=index)))
            for part in parts:
                yield [(index, part)]


class _WalkInputs(MeteredDoFn):
    """Inputs or parts of them to sightings by URI; with a limit, one element has all inputs."""

    stage = STAGE

    def __init__(self, scope: Scope, limit: Optional[int]) -> None:
        self._scope = scope
        self._limit = limit

    def process(self, pinned: list[_Part]) -> Iterator[tuple[str, _Seen]]:
        sightings = self._sightings(pinned)
        while True:
            # Only the walk is timed, not the steps that are fused to this one.
            with self.meter.work(0):
                batch = list(islice(sightings, _BATCH))
            if not batch:
                return
            self.meter.items_in += len(batch)
            report_progress(STAGE, len(batch), len(batch))
            # What is found will be read; a few of them may be left out or double.
            report_progress(_NEXT_STAGE, 0, len(batch))
            for sighting in batch:
                kind, ref, error_type, message, _ = sighting
                yield ref.uri, (kind, ref, error_type, message)

    def _sightings(self, pinned: list[_Part]) -> Iterator[Sighting]:
        if self._limit is not None:
            yield from _distinct(pinned, self._scope, self._limit)
        else:
            for index, one in pinned:
                yield from expand(one, dataclasses.replace(self._scope, index=index))


def _order(seen: _Seen) -> tuple[int, int, str]:
    kind, ref, _, _ = seen
    return kind, ref.input_index, ref.below


class _ChooseSighting(MeteredDoFn):
    """All sightings of a URI to its one row, or to the kind of what left it out."""

    stage = STAGE

    def process(
        self, element: tuple[str, Iterable[_Seen]]
    ) -> Iterator[ImageRef | beam.pvalue.TaggedOutput[Literal["failed"], FailedImage]]:
        best, *others = element[1]
        if others:  # to read the clocks takes longer than to find nothing to choose from
            with self.meter.work(0):
                best = min([best, *others], key=_order)
        kind, ref, error_type, message = best
        if kind == Kind.FOUND:
            self.meter.items_out += 1
            yield ref
        elif kind == Kind.FAILED:
            self.meter.failed += 1
            yield beam.pvalue.TaggedOutput("failed", _failed_image(ref, error_type, message))
        else:
            self.meter.skipped += 1
            self.left_out[Kind(kind)] += 1

    def start_bundle(self) -> None:
        super().start_bundle()
        self.left_out: Counter[Kind] = Counter()

    def finish_bundle(
        self,
    ) -> Iterator[
        beam.pvalue.TaggedOutput[Literal["stats"], StageStats]
        | beam.pvalue.TaggedOutput[Literal["listed"], int]
        | beam.pvalue.TaggedOutput[Literal["caps"], Cap]
    ]:
        with self.meter.work(0):
            rows = self.meter.items_out + self.meter.failed
            caps = [
                Cap(STAGE, name, 0, count, note)
                for kind, count in sorted(self.left_out.items())
                for name, note in (_CAPS[kind],)
            ]
        # items_in was counted by the walk; the statistics of a bundle without it go out all the
        # same, which super() would hold back.
        if rows or caps:
            yield beam.pvalue.TaggedOutput(STATS, in_global_window(self.meter.stats()))
        if rows:
            yield beam.pvalue.TaggedOutput("listed", in_global_window(rows))
        for cap in caps:
            yield beam.pvalue.TaggedOutput("caps", in_global_window(cap))


class Listing(NamedTuple):
    """The outputs of ``ListImages``."""

    found: beam.PCollection[ImageRef]
    failed: beam.PCollection[FailedImage]
    caps: beam.PCollection[Cap]  # distinct URIs left out by a bundle, by reason; none where it is 0
    listed: beam.PCollection[int]  # adds up to the number of rows, found and failed
    stats: beam.PCollection[StageStats]


@dataclasses.dataclass(eq=False)
class ListImages(beam.PTransform):
    """List every input once, from the pipeline's begin to a ``Listing``.

    The GroupByKey that makes URIs distinct also breaks fusion before the images are read.

    Attributes:
        inputs: local paths, globs or URIs; relative ones are pinned to the current folder.
        include: globs that files must match (``storage.patterns.filter_glob``).
        exclude: globs that files must not match.
        output: the output folder; what lies in it is no input.
        limit: take only the first so many rows by input and ``below``; then one worker walks.
        bounds: of size and date.
        access: how stores are reached.

    Raises:
        InputError: a scheme, a glob or the limit is refused; ``check_inputs`` looks at the rest.
    """

    inputs: Sequence[str]
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    output: Optional[str] = None
    limit: Optional[int] = None
    bounds: Bounds = ANY
    access: Access = LOCAL

    def __post_init__(self) -> None:
        super().__init__()
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit must be 1 or more, got {self.limit!r}; leave it out for all")
        self._pinned = list(enumerate(pin_inputs(self.inputs)))
        self._scope = _scope(self.include, self.exclude, self.output, self.bounds, self.access)

    @several_outputs
    def expand(self, begin: beam.pvalue.PBegin) -> Listing:
        """Apply the transform."""
        work = [[one] for one in self._pinned] if self.limit is None else [self._pinned]
        parts = begin | "Inputs" >> beam.Create(work, reshuffle=len(work) > 1).with_output_types(
            list[_Pinned]
        )
        stats = []
        if self.limit is None and any(can_split(one) for _, one in self._pinned):
            cut = parts | "Split" >> (
                beam.ParDo(_SplitInputs(self._scope))
                .with_output_types(list[_Part], stats=StageStats)
                .with_outputs(STATS, main="parts")
            )
            parts = cut.parts | "Spread parts" >> beam.Reshuffle()
            stats.append(cut[STATS])
        walked = parts | "Walk" >> beam.ParDo(
            _WalkInputs(self._scope, self.limit)
        ).with_output_types(tuple[str, _Seen], stats=StageStats).with_outputs(
            STATS, main="sightings"
        )
        chosen = (
            walked.sightings
            | "Group by URI" >> beam.GroupByKey()
            | "One row a URI"
            >> beam.ParDo(_ChooseSighting())
            .with_output_types(ImageRef, failed=FailedImage, caps=Cap, listed=int, stats=StageStats)
            .with_outputs("failed", "caps", "listed", STATS, main="found")
        )
        return Listing(
            found=chosen.found,
            failed=chosen.failed,
            caps=chosen.caps,
            listed=chosen.listed,
            stats=(*stats, walked[STATS], chosen[STATS]) | "Statistics" >> beam.Flatten(),
        )
