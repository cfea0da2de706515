"""What is known of a component: its contents, candidates and edges, joined and numbered."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray

from transforms.grouping.bands import turn
from transforms.grouping.hamming import distances
from transforms.grouping.walk import Pair, Prospect, Verified
from transforms.imaging.orientation import inverse_orientation
from transforms.joins import JoinByKey
from transforms.packing import PackedCandidates, unpack
from transforms.records import Candidate, Content, Edge

STAR = "star"
#: Beyond this wavelet distance two copies are not aligned as a whole, and the best of the eight
#: orientations is a matter of chance.
ALIGNED_BITS = 60
# Beyond these, most candidates of a labelled set were rejected; within them, most were accepted.
# What embeddings alone propose is beyond them: of 4,525 such pairs of two sets 47 were accepted.
_LIKELY_BITS = 24
_LIKELY_VOTES = 5
_CHAIN_VOTES = 3
_PART_CONTENTS = 1000  # of an unfinished component in one element: 1 MB, fewer with embeddings
_CONTENT_BYTES = 1000  # without its embedding
_PART_PAIRS = 8192


class Component(NamedTuple):
    """What is known of one component."""

    key: bytes
    contents: list[Content]  # in the keep-best order
    candidates: dict[Pair, Candidate]  # by member numbers i < j
    edges: dict[Pair, Edge]
    known: Mapping[Pair, Verified] = MappingProxyType({})  # of earlier rounds, without their edges


class Unfinished(NamedTuple):
    """A part of what a round leaves of a component to the next; the parts have no order."""

    contents: list[Content]
    candidates: list[Candidate]
    numbers: bytes  # int32 [n, 2], the members of each candidate, i < j
    known: bytes  # int32 [n, 4], the compared pairs: i, j, accepted, derived


beam.coders.registry.register_coder(Unfinished, beam.coders.RowCoder)


class ComponentInputs(NamedTuple):
    """Everything known of the components, each keyed by component."""

    contents: beam.PCollection | tuple[beam.PCollection, ...]  # of (bytes, Content)
    candidates: beam.PCollection[tuple[bytes, PackedCandidates]] | None
    edges: list[beam.PCollection[tuple[bytes, Edge]]]

    def join(self, prefix: str = "") -> beam.PCollection[tuple[bytes, dict[str, list[Any]]]]:
        """Gather each component's contents, candidates and edges."""
        tagged: dict[str, Any] = {"contents": self.contents}
        if self.candidates is not None:
            tagged["candidates"] = self.candidates
        tagged |= {f"edges{number}": edges for number, edges in enumerate(self.edges)}
        kinds = {"contents": Content, "candidates": PackedCandidates}
        types = {name: kinds.get(name, Edge) for name in tagged}
        return tagged | f"{prefix}join components" >> JoinByKey(bytes, types)


def join_unfinished(
    unfinished: beam.PCollection[tuple[bytes, Unfinished]],
    edges: list[beam.PCollection[tuple[bytes, Edge]]],
    prefix: str,
) -> beam.PCollection[tuple[bytes, dict[str, list[Any]]]]:
    """Gather what a round left of each component and the edges that have come of it since."""
    tagged = {"unfinished": unfinished}
    tagged |= {f"edges{number}": some for number, some in enumerate(edges)}
    types = {name: Edge for name in tagged} | {"unfinished": Unfinished}
    return tagged | f"{prefix}join components" >> JoinByKey(bytes, types)


def leave(component: Component, answers: Mapping[Pair, Verified]) -> Iterator[Unfinished]:
    """Yield the parts of a component that the next round needs.

    Args:
        component: its contents and candidates.
        answers: everything that is known of its pairs.
    """
    # A rejected candidate says nothing more than its answer does.
    open_ = [
        (pair, candidate)
        for pair, candidate in component.candidates.items()
        if pair not in answers or answers[pair].accepted
    ]
    numbers = np.array([pair for pair, _ in open_], np.int32).reshape(-1, 2)
    known = np.array([(*pair, *one) for pair, one in answers.items()], np.int32).reshape(-1, 4)
    most = _part_contents(component.contents)
    parts = max(
        -(-len(component.contents) // most),
        -(-len(open_) // _PART_PAIRS),
        -(-len(known) // _PART_PAIRS),
    )
    for part in range(parts):
        pairs = slice(part * _PART_PAIRS, (part + 1) * _PART_PAIRS)
        yield Unfinished(
            component.contents[part * most : (part + 1) * most],
            [candidate for _, candidate in open_[pairs]],
            numbers[pairs].tobytes(),
            known[pairs].tobytes(),
        )


def _part_contents(contents: list[Content]) -> int:
    """Return how many contents go into one part."""
    longest = max((len(one.learned.embedding) for one in contents if one.learned), default=0)
    return max(1, _PART_CONTENTS * _CONTENT_BYTES // (_CONTENT_BYTES + longest))


def without_embedding(keyed: tuple[bytes, Content]) -> tuple[bytes, Content]:
    """Return a keyed content without its embedding, for stages that have no use for it."""
    key, content = keyed
    if content.learned is None:
        return keyed
    return key, content._replace(learned=content.learned._replace(embedding=b""))


def resume(joined: tuple[bytes, dict[str, list[Any]]]) -> Component:
    """Return a component as ``leave`` left it, with the edges that have come since."""
    key, parts = joined
    left: list[Unfinished] = parts["unfinished"]
    contents = [content for part in left for content in part.contents]
    candidates: dict[Pair, Candidate] = {}
    known: dict[Pair, Verified] = {}
    for part in left:
        numbers = np.frombuffer(part.numbers, np.int32).reshape(-1, 2).tolist()
        pairs = ((i, j) for i, j in numbers)
        candidates.update(zip(pairs, part.candidates, strict=True))
        for i, j, accepted, derived in np.frombuffer(part.known, np.int32).reshape(-1, 4).tolist():
            known[i, j] = Verified(bool(accepted), derived)
    return gather((key, {**parts, "contents": contents}))._replace(
        candidates=candidates, known=known
    )


def gather(joined: tuple[bytes, dict[str, list[Any]]]) -> Component:
    """Number a joined component's members in the keep-best order."""
    key, parts = joined
    contents = sorted(parts["contents"], key=lambda content: content.rank)
    number = {content.content: index for index, content in enumerate(contents)}
    edges: dict[Pair, Edge] = {}
    for name, values in parts.items():
        if name.startswith("edges"):
            edges.update((_pair(number, edge.a, edge.b), edge) for edge in values)
    candidates: dict[Pair, Candidate] = {}
    for candidate in chain.from_iterable(map(unpack, parts.get("candidates", ()))):
        pair = _pair(number, candidate.a, candidate.b)
        known = candidates.setdefault(pair, candidate)
        if known is not candidate:
            candidates[pair] = merge(known, candidate)
    return Component(key, contents, candidates, edges)


def _pair(number: dict[bytes, int], a: bytes, b: bytes) -> Pair:
    i, j = number[a], number[b]
    return (i, j) if i < j else (j, i)


def verified(component: Component) -> dict[Pair, Verified]:
    """Return what the walk needs to know of the compared pairs."""
    found = {pair: answer(component, pair, edge) for pair, edge in component.edges.items()}
    return {**component.known, **found}


def answer(component: Component, pair: Pair, edge: Edge) -> Verified:
    """Return what the walk needs to know of one compared pair."""
    derived = edge.derived if component.contents[pair[0]].content == edge.a else -edge.derived
    return Verified(edge.verdict == "accept", derived)


def blank_edge(candidate: Candidate) -> Edge:
    """Return the edge of a pair that was proposed and not yet compared."""
    return Edge(
        a=candidate.a,
        b=candidate.b,
        generators=candidate.generators,
        wavelet_distance=candidate.wavelet_distance,
        orientation=candidate.orientation,
        votes=candidate.votes,
        color_similarity=None,
        layout_similarity=None,
        global_similarity=None,
        local_inliers=None,
        local_overlap=None,
        local_score=None,
        relation="similar",
        derived=0,
        verdict="undecided",
        decided_by="wavelet",
        error_stage="",
        error_type="",
        error_message="",
        failed_member=b"",
        turn_scale_x=candidate.turn_scale_x,
        turn_scale_y=candidate.turn_scale_y,
        shift_x=candidate.shift_x,
        shift_y=candidate.shift_y,
    )


def promise(candidate: Candidate, plain: bool, verify: bool) -> Prospect:
    """Return what a candidate promises.

    Args:
        candidate: as it was proposed.
        plain: whether both pictures are mostly one ground: such are near whatever they show.
        verify: whether stages 3 and 4 follow. Where none does, every answer comes at once, and to
            wait for it saves comparisons that a guess would ask for.
    """
    if not verify:
        return Prospect.LIKELY
    votes = abs(candidate.votes)
    near = 0 <= candidate.wavelet_distance <= _LIKELY_BITS
    if not plain and (near or votes >= _LIKELY_VOTES):
        return Prospect.LIKELY
    return Prospect.UNLIKELY if near or votes >= _CHAIN_VOTES else Prospect.CHANCE


def star_candidate(first: Content, second: Content) -> Candidate:
    """Return a pair that no generator proposed; nothing of it is measured."""
    left, right = sorted((first.content, second.content))
    return Candidate(left, right, STAR, -1, 1)


def measure(candidate: Candidate, first: Content, second: Content) -> Candidate:
    """Return a candidate with its wavelet distance and orientation.

    Args:
        candidate: of the two contents.
        first: one of them.
        second: the other.
    """
    return measure_all([candidate], [(first, second)])[0]


def measure_all(
    candidates: Sequence[Candidate], ends: Sequence[tuple[Content, Content]]
) -> list[Candidate]:
    """Return candidates with their wavelet distances and orientations; see ``measure``."""
    measured = list(candidates)
    rows = [row for row, one in enumerate(measured) if one.wavelet_distance < 0]
    if not rows:
        return measured
    left, right = [], []
    for row in rows:
        first, second = ends[row]
        if first.content != measured[row].a:
            first, second = second, first
        left.append(first.wavelet_keys)
        right.append(second.wavelet_keys)
    turned, plain = turn(stack(left)), turn(stack(right))[0]
    bits = distances(turned, plain[None])
    best = bits.argmin(axis=0)
    for row, least, orientation in zip(rows, bits.min(axis=0).tolist(), best.tolist(), strict=True):
        measured[row] = measured[row]._replace(wavelet_distance=least, orientation=orientation + 1)
    return measured


def stack(descriptors: list[bytes]) -> NDArray[np.uint8]:
    """Return descriptors of one length, at least one of them, as the rows of uint8 [n, bytes]."""
    return np.frombuffer(b"".join(descriptors), np.uint8).reshape(len(descriptors), -1)


def merge(one: Candidate, other: Candidate) -> Candidate:
    """Merge what two generators say of one pair."""
    names = sorted({*one.generators.split("+"), *other.generators.split("+")})
    known = one if one.wavelet_distance >= 0 else other
    voted = one if one.votes else other
    return voted._replace(
        generators="+".join(names),
        wavelet_distance=known.wavelet_distance,
        orientation=known.orientation,
    )


def orient(orientation: int, swapped: bool) -> int:
    """Return an edge's orientation as seen from its other end, if ``swapped``."""
    return inverse_orientation(orientation) if swapped else orientation
