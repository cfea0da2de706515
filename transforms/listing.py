"""List the inputs: one row for each distinct URI, or an error; never a part taken for the whole.

In: the ``--input`` options. Out: ``ImageRef`` for what can be read, ``FailedImage`` (of stage
``list``) for dangling links, missing lines of a list, FIFOs, sockets and devices, which are never
opened.
Failures: an input that is missing, refused, or cannot be listed as a whole raises. Guarantee: every
name that an input stands for is found, failed, or counted as left out; each URI is one row, and of
several sightings of it that with the least input, then ``below``, counts.
"""

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice, pairwise
from typing import Literal, NamedTuple, Optional

import apache_beam as beam

from transforms.access import LOCAL, Access
from transforms.outputs import in_global_window, several_outputs
from transforms.records import Cap, FailedImage, Failure, ImageRef, StageStats
from transforms.storage.cache import (
    Fresh,
    Kept,
    Known,
    ListingCache,
    fresh_parts,
    looks_empty,
    publish,
    read_known,
    resolve,
    walk_fresh,
)
from transforms.storage.errors import InputError
from transforms.storage.inputs import (
    check_list,
    expand,
    is_remote,
    pin_inputs,
    resolve_output,
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
_One = bytes | Source | Known | Fresh  # an input, what it names, or a part of that
_Part = tuple[int, _One]  # with the input's position
_Seen = tuple[int, ImageRef, str, str]  # a Sighting, as a tuple that Beam has a coder for

# Names of an input on a remote store that are looked at for one that is an input: four pages.
_LOOKED_AT = 20_000

beam.coders.registry.register_coder(Kept, beam.coders.FastPrimitivesCoder)

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
    cache: Optional[ListingCache] = None,
) -> None:
    """Refuse what cannot run, before anything runs.

    Looks at every input, reads list files as a whole, and walks until the first image is found. An
    input on a remote store costs one request where there is a listing of it; else one for its name,
    one for a level, and five pages of names at most until one is an input, of a glob twice so many.

    Args:
        inputs: local paths, globs or URIs.
        output: the output folder; what lies in it is no input.
        include: globs that files must match (``storage.patterns.filter_glob``).
        exclude: globs that files must not match.
        bounds: of size and date.
        access: how stores are reached.
        cache: of listings of remote stores.

    Raises:
        InputError: an input is missing, refused or lies in the output folder, a glob matches
            nothing, a list is broken or names a scheme that is not allowed, or nothing is left.
    """
    pinned = pin_inputs(inputs)
    scope = _scope(include, exclude, output, bounds, access, cache)
    unfiltered = dataclasses.replace(scope, selection=Selection())
    is_empty = True
    for index, one in enumerate(pinned):
        here = dataclasses.replace(unfiltered, index=index)
        source, known = resolve(one, here, cache)
        if source.kind == "list":
            names = check_list(source, access)
            if names and scope.selection == Selection():
                is_empty = False
                continue
        elif source.kind == "glob" and _is_empty(source, known, here):
            raise InputError(
                f"input {inputs[index]!r} matched no objects; globs take files only, "
                "end one in '/**' to take all that is below the folders it matches"
            )
        elif scope.in_output(source.uri):
            raise InputError(
                f"input {inputs[index]!r} lies in the output folder, which is never an input, or "
                "in the listing cache; choose another output"
            )
        is_empty = is_empty and _is_empty(source, known, dataclasses.replace(scope, index=index))
    if is_empty:
        filtered = include or exclude or bounds != ANY
        hint = " that the filters of names, size and date leave" if filtered else ""
        raise InputError(f"the inputs matched no objects{hint}")


def _is_empty(source: Source, known: Optional[Known], scope: Scope) -> bool:
    """Tell whether an input is sure to give no row, with few requests where its store is remote."""
    if known is None and _is_paged(source):
        return looks_empty(source, scope, _LOOKED_AT)
    return not any(map(_is_row, _sightings(known or source, scope)))


def iterate_inputs(
    inputs: Sequence[str],
    output: Optional[str] = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    limit: Optional[int] = None,
    bounds: Bounds = ANY,
    access: Access = LOCAL,
    cache: Optional[ListingCache] = None,
    *,
    keep: bool = False,
) -> Iterator[ImageRef | FailedImage]:
    """List without Beam, in the order of input and ``below``: the rows of ``ListImages``.

    Holds every URI so far in memory (0.2 KB each) where a name may come twice: of local folders,
    which may hold links, of lists, which are held whole, and of inputs within others.

    Args:
        inputs: local paths, globs or URIs.
        output: the output folder; what lies in it is no input.
        include: globs that files must match.
        exclude: globs that files must not match.
        limit: stop after so many rows.
        bounds: of size and date.
        access: how stores are reached.
        cache: of listings of remote stores.
        keep: keep a listing that is made anew; the rows of its input are in no order then. It is
            not kept where there is a limit, or where not all rows are taken.

    Raises:
        InputError: an input is refused, or could not be listed as a whole.
    """
    scope = _scope(include, exclude, output, bounds, access, cache)
    parts: list[_Part] = []
    sources: list[Source] = []
    for index, one in enumerate(pin_inputs(inputs)):
        here = dataclasses.replace(scope, index=index)
        source, known = resolve(one, here, cache)
        sources.append(source)
        if keep and cache and limit is None and known is None and _is_paged(source):
            parts += ((index, part) for part in fresh_parts(source, here, cache))
        else:
            parts.append((index, known or source))
    kept: list[Kept] = []
    sightings = _distinct(parts, scope, limit, may_repeat=_may_repeat(sources), keep=kept.append)
    for sighting in filter(_is_row, sightings):
        yield sighting.ref if sighting.kind == Kind.FOUND else _failed_image(*sighting[1:4])
    for _, together in groupby(kept, key=lambda one: one.part.listing):
        publish(together, access)


def _is_paged(source: Source) -> bool:
    """Tell whether an input is a walk of a remote store, of which listings are kept."""
    return source.kind in ("folder", "glob") and is_remote(source.uri)


def _may_repeat(sources: Sequence[Source]) -> bool:
    """Tell whether inputs may hold one name twice."""
    if not all(map(_is_paged, sources)):
        return True
    roots = sorted(source.uri + "/" for source in sources)
    return any(second.startswith(first) for first, second in pairwise(roots))


def _scope(
    include: Sequence[str],
    exclude: Sequence[str],
    output: Optional[str],
    bounds: Bounds,
    access: Access,
    cache: Optional[ListingCache],
) -> Scope:
    for patterns in (include, exclude):
        if isinstance(patterns, str):
            raise InputError(f"include and exclude are lists of globs, got one string {patterns!r}")
    selection = Selection(tuple(include), tuple(exclude), bounds)
    return Scope(0, selection, resolve_output(output), access, cache.uri if cache else None)


def _is_row(sighting: Sighting) -> bool:
    return sighting.kind in (Kind.FOUND, Kind.FAILED)


def _sightings(
    one: _One,
    scope: Scope,
    *,
    in_order: bool = False,
    keep: Callable[[Kept], None] = lambda _: None,
) -> Iterator[Sighting]:
    """Yield the sightings of an input or a part of it; ``keep`` is told of listings to be kept."""
    if isinstance(one, Known):
        yield from read_known(one, scope)
    elif isinstance(one, Fresh):
        yield from walk_fresh(one, scope, keep)
    else:
        yield from expand(one, scope, in_order=in_order)


def _distinct(
    parts: Iterable[_Part],
    scope: Scope,
    limit: Optional[int] = None,
    *,
    may_repeat: bool = True,
    keep: Callable[[Kept], None] = lambda _: None,
) -> Iterator[Sighting]:
    """Yield the first sighting of each URI in order, up to ``limit`` rows, and all left out."""
    seen: set[str] = set()
    rows = 0
    for index, one in parts:
        here = dataclasses.replace(scope, index=index)
        for sighting in _sightings(one, here, in_order=True, keep=keep):
            if not _is_row(sighting):
                yield sighting
            elif sighting.ref.uri not in seen:
                if limit is not None and rows >= limit:
                    return
                rows += 1
                if may_repeat:
                    seen.add(sighting.ref.uri)
                yield sighting


def _failed_image(ref: ImageRef, error_type: str, message: str) -> FailedImage:
    return FailedImage(ref, Failure(STAGE, ref.uri, error_type, message), None, None, None, None)


class _SplitInputs(MeteredDoFn):
    """Inputs to parts that are walked by several workers; with a limit, all of them by one.

    Where there is a listing of an input, its shards are the parts.
    """

    stage = STAGE

    def __init__(
        self, scope: Scope, limit: Optional[int], cache: Optional[ListingCache] = None
    ) -> None:
        self._scope = scope
        self._limit = limit
        self._cache = cache

    def process(
        self, pinned: list[_Pinned]
    ) -> Iterator[list[_Part] | beam.pvalue.TaggedOutput[Literal["caps"], Cap]]:
        together: list[_Part] = []
        for index, one in pinned:
            scope = dataclasses.replace(self._scope, index=index)
            with self.meter.work(0):
                source, known = resolve(one, scope, self._cache)
                parts = self._parts(source, known, scope)
            if known:
                yield beam.pvalue.TaggedOutput("caps", _reused(known, index))
            if self._limit is None:
                yield from ([(index, part)] for part in parts)
            else:
                together += ((index, part) for part in parts)
        if together:
            yield together

    def _parts(self, source: Source, known: Optional[Known], scope: Scope) -> list[_One]:
        if self._limit is not None:
            return [known or source]
        if known:
            return [known._replace(shards=(shard,)) for shard in known.shards]
        if self._cache and _is_paged(source):
            return list(fresh_parts(source, scope, self._cache))
        return list(split(source, scope))


def _reused(known: Known, index: int) -> Cap:
    """Return the summary's word that a listing was used again; its limit is its age in seconds."""
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(known.began))
    age_s = int(known.age_s(time.time()))
    note = f"input {index + 1} was not listed: a listing of {began} was used, so many seconds old"
    return Cap(STAGE, "listing_cache", age_s, 1, note)


class _WalkInputs(MeteredDoFn):
    """Inputs or parts of them to sightings by URI; with a limit, one element has all inputs."""

    stage = STAGE

    def __init__(self, scope: Scope, limit: Optional[int]) -> None:
        self._scope = scope
        self._limit = limit

    def process(
        self, pinned: list[_Part]
    ) -> Iterator[tuple[str, _Seen] | beam.pvalue.TaggedOutput[Literal["kept"], tuple[str, Kept]]]:
        kept: list[Kept] = []
        sightings = self._sightings(pinned, kept.append)
        while True:
            # Only the walk is timed, not the steps that are fused to this one.
            with self.meter.work(0):
                batch = list(islice(sightings, _BATCH))
            if not batch:
                break
            self.meter.items_in += len(batch)
            report_progress(STAGE, len(batch), len(batch))
            # What is found will be read; a few of them may be left out or double.
            report_progress(_NEXT_STAGE, 0, len(batch))
            for sighting in batch:
                kind, ref, error_type, message, _ = sighting
                yield ref.uri, (kind, ref, error_type, message)
        for one in kept:
            yield beam.pvalue.TaggedOutput("kept", (one.part.listing, one))

    def _sightings(self, pinned: list[_Part], keep: Callable[[Kept], None]) -> Iterator[Sighting]:
        if self._limit is not None:
            yield from _distinct(pinned, self._scope, self._limit)
        else:
            for index, one in pinned:
                scope = dataclasses.replace(self._scope, index=index)
                yield from _sightings(one, scope, keep=keep)


class _KeepListing(MeteredDoFn):
    """All parts of a listing to its manifest; gives nothing but its statistics."""

    stage = STAGE

    def __init__(self, access: Access) -> None:
        self._access = access

    def process(self, element: tuple[str, Iterable[Kept]]) -> None:
        with self.meter.work(0):
            publish(element[1], self._access)


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
        cache: of listings of remote stores, which are kept as they are made; with a limit it is
            read alone.

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
    cache: Optional[ListingCache] = None

    def __post_init__(self) -> None:
        super().__init__()
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit must be 1 or more, got {self.limit!r}; leave it out for all")
        self._pinned = list(enumerate(pin_inputs(self.inputs)))
        self._scope = _scope(
            self.include, self.exclude, self.output, self.bounds, self.access, self.cache
        )

    @several_outputs
    def expand(self, begin: beam.pvalue.PBegin) -> Listing:
        """Apply the transform."""
        work = [[one] for one in self._pinned] if self.limit is None else [self._pinned]
        parts = begin | "Inputs" >> beam.Create(work, reshuffle=len(work) > 1).with_output_types(
            list[_Pinned]
        )
        stats, caps = [], []
        if any(is_remote(os.fsdecode(one)) for _, one in self._pinned):
            cut = parts | "Split" >> (
                beam.ParDo(_SplitInputs(self._scope, self.limit, self.cache))
                .with_output_types(list[_Part], stats=StageStats, caps=Cap)
                .with_outputs(STATS, "caps", main="parts")
            )
            parts = cut.parts | "Spread parts" >> beam.Reshuffle()
            stats.append(cut[STATS])
            caps.append(cut.caps)
        walked = parts | "Walk" >> beam.ParDo(
            _WalkInputs(self._scope, self.limit)
        ).with_output_types(
            tuple[str, _Seen], stats=StageStats, kept=tuple[str, Kept]
        ).with_outputs(STATS, "kept", main="sightings")
        if self.cache and caps:
            done = (
                walked.kept
                | "Group by listing" >> beam.GroupByKey()
                | "Keep listing"
                >> beam.ParDo(_KeepListing(self.access))
                .with_output_types(None, stats=StageStats)
                .with_outputs(STATS, main="nothing")
            )
            stats.append(done[STATS])
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
            caps=(*caps, chosen.caps) | "Caps" >> beam.Flatten() if caps else chosen.caps,
            listed=chosen.listed,
            stats=(*stats, walked[STATS], chosen[STATS]) | "Statistics" >> beam.Flatten(),
        )
