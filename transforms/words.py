"""Candidate pairs from local words: what crops, borders and screenshots keep of their original.

In: ``Fingerprint`` with words, and ``Content`` to count them. Out: packed ``Candidate`` pairs with
enough matches that agree on one similarity transform. Words travel packed, a part of the words of
many images an element. Guarantee: how words and pairs are cut into units, and in what order they
arrive, changes no pair.
"""

import dataclasses
import zlib
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

import apache_beam as beam
import numpy as np
import numpy.typing as npt
from apache_beam.utils.windowed_value import WindowedValue

from transforms.fingerprints import WORDS_MIN_SIDE
from transforms.grouping import words as grouping
from transforms.imaging.blocks import fitted_size
from transforms.imaging.decode import reduction
from transforms.imaging.words import ROW, SIDE, WORD_BITS
from transforms.outputs import in_global_window, several_outputs
from transforms.packing import ROW as CANDIDATE
from transforms.packing import PackedCandidates, pack_rows
from transforms.records import Cap, Content, Fingerprint, StageStats
from transforms.telemetry import STATS, MeteredDoFn, report_progress

STAGE = "words"
_ID_BYTES = 32
# Images whose words one worker holds at once where there is one part; each part of several has as
# many words. 131,072 images have 36 million: 290 MB, and twice that while they are matched.
_PART_IMAGES = 1 << 17
_PACKED_IMAGES = 1 << 11  # most images of one element: their words are 4 MB
_SEEN_IMAGES = 1 << 16  # known to be packed, 6 MB; what is packed twice is matched once
_MATCHED = np.dtype([("a", f"V{_ID_BYTES}"), ("b", f"V{_ID_BYTES}"), ("places", grouping.MATCH)])
_MATCHES_PACKED = 1 << 14  # 1.2 MB an element
# Where there is one part, several units have all its words, and each a share of the pairs. A unit
# more costs its copy of the words and a fifth of the work again; few images are not worth it.
_SHARES = 2  # a power of two
_SHARED_IMAGES = 2048


class Unit(NamedTuple):
    """A unit of work: a part of the words, or all of them and a share of the pairs of images."""

    number: int  # of the part or share
    images: int  # distinct ones there are in all


class PackedWords(NamedTuple):
    """Words of some images."""

    ids: bytes  # [n] of 32 bytes
    counts: bytes  # uint32 [n], words of each
    words: bytes  # grouping.words.POSTING


beam.coders.registry.register_coder(Unit, beam.coders.RowCoder)
beam.coders.registry.register_coder(PackedWords, beam.coders.RowCoder)


class ProposedPairs(NamedTuple):
    """The outputs of ``ProposeByWords``."""

    candidates: beam.PCollection[PackedCandidates]
    stats: beam.PCollection[StageStats]
    caps: beam.PCollection[Cap]


def part_count(contents: int) -> int:
    """Return into how many parts the words of that many images are cut."""
    return max(1, -(-contents // _PART_IMAGES))


def share_count(contents: int) -> int:
    """Return into how many shares the pairs of that many images are cut: each is a unit of work.

    Where there are several parts, each is a unit with all pairs of images.
    """
    return _SHARES if _SHARED_IMAGES <= contents and part_count(contents) == 1 else 1


def words_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height, pixels, in which the words of a picture lie.

    Args:
        width: of the picture after orientation, pixels.
        height: of the same.
    """
    # As stage 1 decodes it, and then as imaging.words reduces it.
    part = reduction(width, height, WORDS_MIN_SIDE)
    return fitted_size(-(-width // part), -(-height // part), SIDE)


class _PackDoFn(beam.DoFn):
    """Packs the words of a bundle's contents, of which it may not be the only bundle."""

    def start_bundle(self) -> None:
        self.images: list[tuple[bytes, bytes]] = []
        self.seen: set[bytes] = set()

    def process(self, image: Fingerprint) -> Iterator[PackedWords]:
        if not image.words or image.pixel_hash in self.seen:
            return
        report_progress(STAGE, 0, 1)
        if len(self.seen) == _SEEN_IMAGES:
            self.seen.clear()
        self.seen.add(image.pixel_hash)
        self.images.append((image.pixel_hash, image.words))
        if len(self.images) == _PACKED_IMAGES:
            yield _packed(self.images)
            self.images = []

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self.images:
            yield in_global_window(_packed(self.images))


def _packed(images: list[tuple[bytes, bytes]]) -> PackedWords:
    """Pack the ids and ``imaging.words.ROW`` of images, at most 65,536."""
    names, rows = zip(*images, strict=True)
    lengths = [len(row) // ROW.itemsize for row in rows]
    words, row = grouping.postings(np.frombuffer(b"".join(rows), ROW))
    number = np.repeat(np.arange(len(images), dtype=np.uint16), lengths)[row]
    counts = np.bincount(number, minlength=len(images)).astype(np.uint32)
    order = np.argsort(number, kind="stable")
    return PackedWords(b"".join(names), counts.tobytes(), words[order].tobytes())


class _CountDoFn(beam.DoFn):
    """Counts the elements of a bundle."""

    def start_bundle(self) -> None:
        self.count = 0

    def process(self, _: object) -> None:
        self.count += 1

    def finish_bundle(self) -> Iterator[WindowedValue]:
        if self.count:
            yield in_global_window(self.count)


def _deal(packed: PackedWords, counts: Iterable[int]) -> Iterator[tuple[Unit, PackedWords]]:
    """Send words to the units that match them."""
    images = sum(counts)
    parts = part_count(images)
    if parts == 1:
        for share in range(share_count(images)):
            yield Unit(share, images), packed
        return
    words = np.frombuffer(packed.words, grouping.POSTING)
    own = np.frombuffer(packed.counts, np.uint32)
    number = np.repeat(np.arange(len(own)), own)
    shortest = words["word"] >> np.uint32(WORD_BITS - grouping.word_width(images))
    # Multiplied, so that words that differ in few bits are spread.
    part = (shortest * np.uint32(2654435761) >> np.uint32(8)) % np.uint32(parts)
    for index in range(parts):
        inside = part == index
        inner = np.bincount(number[inside], minlength=len(own)).astype(np.uint32)
        some = PackedWords(packed.ids, inner.tobytes(), words[inside].tobytes())
        yield Unit(index, images), some


def _unpack(
    parts: Iterable[PackedWords],
) -> tuple[npt.NDArray[np.void], npt.NDArray[np.int32], npt.NDArray[np.void]]:
    """Return ids in ascending order, and of each word the number of its image and the word.

    Of a content that several bundles gave, once: equal pixels have equal words.
    """
    parts = list(parts)
    ids = np.frombuffer(b"".join(part.ids for part in parts), f"V{_ID_BYTES}")
    counts = np.frombuffer(b"".join(part.counts for part in parts), np.uint32)
    words = np.frombuffer(b"".join(part.words for part in parts), grouping.POSTING)
    names, first, number = np.unique(ids, return_index=True, return_inverse=True)
    image = np.repeat(number.astype(np.int32), counts)
    if len(names) == len(ids):
        return names, image, words
    once = np.zeros(len(ids), np.bool_)
    once[first] = True
    kept = np.repeat(once, counts)
    return names, image[kept], words[kept]


def _candidates(names: npt.NDArray[np.void], votes: grouping.Votes) -> Iterator[PackedCandidates]:
    rows = np.zeros(len(votes.first), CANDIDATE)
    rows["a"], rows["b"] = names[votes.first], names[votes.second]
    numbers = rows["numbers"]
    numbers[:, 0], numbers[:, 1] = -1, 1  # the distance is not measured
    numbers[:, 2], numbers[:, 3:] = votes.votes, votes.transforms
    yield from pack_rows(STAGE, rows)


class _MatchDoFn(MeteredDoFn):
    """Matches the words of one part; where there is only one, counts a share's votes as well."""

    stage = STAGE

    def __init__(self, least_votes: int) -> None:
        self.least_votes = least_votes

    def process(
        self, packed: tuple[Unit, Iterable[PackedWords]]
    ) -> Iterator[
        PackedCandidates
        | beam.pvalue.TaggedOutput[Literal["matches"], tuple[int, bytes]]
        | beam.pvalue.TaggedOutput[Literal["caps"], Cap]
    ]:
        unit = packed[0]
        parts, width = part_count(unit.images), grouping.word_width(unit.images)
        with self.meter.work(0):
            names, image, words = _unpack(packed[1])
            # Each image is in all units: it is counted in the first.
            searched = len(names) if unit.number == 0 else 0
            self.meter.items_in += searched
        report_progress(STAGE, searched)
        cut = 0
        if parts == 1:
            with self.meter.work(0):
                share = grouping.Share(unit.number, share_count(unit.images))
                votes, cut = grouping.find_pairs(words, image, width, self.least_votes, share)
                self.meter.items_out += len(votes.first)
            yield from _candidates(names, votes)
            cut = 0 if share.number else cut  # the same in all
        else:
            slices = grouping.match_words(words, image, width)
            while True:
                with self.meter.work(0):
                    matches = next(slices, None)
                if matches is None:
                    break
                cut += matches.cut
                for key, data in _pack_matches(names, matches, parts):
                    yield beam.pvalue.TaggedOutput("matches", (key, data))
        if cut:
            note = "words of more images match them with the first few alone"
            cap = Cap(STAGE, "document_frequency", grouping.DF_CUT, cut, note)
            yield beam.pvalue.TaggedOutput("caps", cap)


def _pack_matches(
    names: npt.NDArray[np.void], matches: grouping.Matches, parts: int
) -> Iterator[tuple[int, bytes]]:
    """Yield matches by the part that counts the votes of their pair."""
    crc = np.array([zlib.crc32(name.tobytes()) for name in names], np.uint32)
    part = (crc[matches.first] ^ crc[matches.second]) % np.uint32(parts)
    order = np.argsort(part, kind="stable")
    ends = np.searchsorted(part[order], np.arange(parts + 1))
    for number in range(parts):
        some = order[ends[number] : ends[number + 1]]
        for start in range(0, len(some), _MATCHES_PACKED):
            these = some[start : start + _MATCHES_PACKED]
            out = np.zeros(len(these), _MATCHED)
            out["a"], out["b"] = names[matches.first[these]], names[matches.second[these]]
            out["places"] = matches.places[these]
            yield number, out.tobytes()


class _VoteDoFn(MeteredDoFn):
    """Counts the votes of the pairs of one part."""

    stage = STAGE

    def __init__(self, least_votes: int) -> None:
        self.least_votes = least_votes

    def process(self, packed: tuple[int, Iterable[bytes]]) -> Iterator[PackedCandidates]:
        with self.meter.work(0):
            rows = np.frombuffer(b"".join(packed[1]), _MATCHED)
            ends = np.concatenate([rows["a"], rows["b"]])
            names, number = np.unique(ends, return_inverse=True)
            votes = grouping.count_votes(
                number[: len(rows)], number[len(rows) :], rows["places"], self.least_votes
            )
            self.meter.items_out += len(votes.first)
        yield from _candidates(names, votes)


@dataclasses.dataclass(eq=False)
class ProposeByWords(beam.PTransform):
    """Propose every pair of contents with enough words in common whose places agree.

    Attributes:
        contents: those of all the images.
        least_votes: matches that must agree on one similarity transform, at least 2.
    """

    contents: beam.PCollection[Content]
    least_votes: int = 2

    def __post_init__(self) -> None:
        super().__init__()
        if self.least_votes < 2:
            raise ValueError(f"least_votes must be at least 2, not {self.least_votes!r}")

    @several_outputs
    def expand(self, images: beam.PCollection[Fingerprint]) -> ProposedPairs:
        """Turn images into candidates, and the statistics and caps of the search."""
        packed = images | "Pack words" >> beam.ParDo(_PackDoFn()).with_output_types(PackedWords)
        counts = self.contents | "Count contents" >> beam.ParDo(_CountDoFn()).with_output_types(int)
        matched = (
            packed
            | "Deal words"
            >> beam.FlatMap(_deal, beam.pvalue.AsIter(counts)).with_output_types(
                tuple[Unit, PackedWords]
            )
            | "Group words" >> beam.GroupByKey()
            | "Match words"
            >> beam.ParDo(_MatchDoFn(self.least_votes))
            .with_output_types(
                PackedCandidates, matches=tuple[int, bytes], caps=Cap, stats=StageStats
            )
            .with_outputs("matches", "caps", STATS, main="candidates")
        )
        voted = (
            matched.matches
            | "Group matches" >> beam.GroupByKey()
            | "Count votes"
            >> beam.ParDo(_VoteDoFn(self.least_votes))
            .with_output_types(PackedCandidates, stats=StageStats)
            .with_outputs(STATS, main="candidates")
        )
        return ProposedPairs(
            (matched.candidates, voted.candidates) | "All pairs" >> beam.Flatten(),
            (matched[STATS], voted[STATS]) | "All statistics" >> beam.Flatten(),
            matched.caps,
        )
