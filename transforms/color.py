"""Stage 2: ask for the pairs that the walk needs, and compare their colours and layouts, no I/O.

In: joined components. Out: edges that colour or layout decide, and units of the pairs that stay
undecided; where no stage follows, whole components with their edges. What is decided here answers
the walk at once, which may then need fewer pairs.
Guarantee: a pair is asked for once; the last round asks for every pair that can still change a
group; how pairs are batched or cut into units changes no edge.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, TypeAlias

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from transforms.grouping.relations import (
    DUPLICATE_RELATIONS,
    MOVED_CELLS,
    partial_relation,
    whole_image_relation,
)
from transforms.grouping.units import split_pairs
from transforms.grouping.walk import Pair, Plan
from transforms.grouping.words import unit_maps
from transforms.imaging.color import ColorComparison, compare
from transforms.imaging.layout import (
    LayoutComparison,
    PlacedComparison,
    compare_layouts,
    compare_placed,
    frames,
    invert,
    placed_chroma,
)
from transforms.imaging.orientation import axes
from transforms.outputs import in_global_window, several_outputs
from transforms.records import Candidate, Content, Edge, PairUnit, StageStats
from transforms.rounds import (
    ALIGNED_BITS,
    Component,
    Unfinished,
    answer,
    blank_edge,
    gather,
    leave,
    measure_all,
    promise,
    resume,
    stack,
    star_candidate,
    verified,
)
from transforms.telemetry import STATS, MeteredDoFn, report_progress
from transforms.words import words_size

STAGE = "color"
_LABELS = "global"  # the stage whose model gave the labels

# Figures of three labelled sets (81,000 candidate pairs, 65 kinds of edit); see imaging.layout.
# Pages, forms, charts and things on white: their ground agrees whatever they show.
_PLAIN_GROUND = 0.55
# Copies of such pictures leave at most 0.36, mostly 0.2; one form in 100 filled in anew less.
_PLAIN_RESIDUAL = 0.3
# Fewer cells say nothing, flat, gradients or night. Copies of photographs agree in 0.3 or more.
_LEAST_TELLING = 0.1
# Two such pictures with colours that are less alike are not the same.
_LOW_SIMILARITY = 0.9
# Of the normalised grids. Copies of the whole: 0.94 and more. Different photographs that share so
# few differing cells as the profiles accept: 0.7 at most, and few.
_WHOLE_CORRELATION = 0.9
_PART_CORRELATION = 0.7

# Of chroma, where the layouts had to be moved.
_MOVED_SIMILARITY = 0.7

# Of pairs that are compared where their words lay one in the other. Of 3,500 false ones of three
# sets the nearest to these differed in 0.31 at this correlation.
_PLACED_CORRELATION = 0.8
_PLACED_CELLS = 60  # that agree, to accept, or tell anything, to reject
_PLACED_AREA = 0.6  # common share of the better covered picture: a copy lies in the other
# Of the common cells, that differ where no caption or bar reaches: something was moved or drawn.
_PLACED_INNER = 0.1
# Common share of both from which another picture within one frame is not taken for a crop.
_PLACED_WHOLE = 0.95
_WHOLE_AREA = 0.97  # common share of both from which neither is cut, as in imaging.relation
_SAME_AREA = 0.02
_TURNED = np.deg2rad(2.0)
_OVERLAID = 0.03  # a logo over 3 % of the picture

_UNDECIDED, _ACCEPT, _REJECT, _REVIEW = range(4)
_VERDICTS = ("undecided", "accept", "reject", "review")


@dataclasses.dataclass(frozen=True)
class ColorSettings:
    """What stage 2 decides alone, from colour and luma layouts.

    Pictures that are low in information (flat, gradients, night) are never accepted here; plain
    ones (pages, forms, things on white) only where nothing at all differs.

    Attributes:
        reject_similarity: below this colour similarity a pair is rejected.
        accept_similarity: least similarity of chroma of an accepted pair.
        accept_residual: a pair is accepted as a copy of the whole picture if nowhere a greater
            residual is left (``LayoutComparison.worst``).
        accept_differing: a pair is accepted, whatever residual is left, if at most this share of
            its cells differs: captions, logos, mild crops, turns, borders.
        reject_differing: a pair of which a greater share differs is rejected.
        reject_residual: a plain pair that leaves a greater residual is rejected, unless it looks
            like a crop or an overlay.
        placed_differing: a pair whose words lay one picture in the other is accepted if at most
            this share of what both show differs there; 0 accepts none. Plain pairs, and those that
            lie over each other as a whole, are rejected there by ``reject_differing``, if they are
            more than ``aligned_bits`` apart.
        verify: whether stages 3 and 4 follow; without them an undecided pair goes to review.
        relations: the relations that count as duplicates; a pair of another goes to review.
        aligned_bits: beyond this distance two copies are no longer aligned as a whole, so nothing
            is rejected: 14 to 18 % of the colour similarities of true pairs there are below 0.5.
        within_label: whether a pair of different labels is rejected before anything is compared.
            One with a picture that has no label, since it could not be embedded, goes to review
            unless it is rejected here.
    """

    reject_similarity: float
    accept_similarity: float
    accept_residual: float
    accept_differing: float
    reject_differing: float
    reject_residual: float = 0.6
    placed_differing: float = 0.25
    verify: bool = True
    relations: frozenset[str] = frozenset(DUPLICATE_RELATIONS)
    aligned_bits: int = ALIGNED_BITS
    within_label: bool = False


class ComparedColors(NamedTuple):
    """The outputs of ``CompareColors``."""

    # All but ``stats`` are keyed by component. If nothing is verified, only ``finished`` has any.
    edges: beam.PCollection[tuple[bytes, Edge]]  # decided ones
    undecided: beam.PCollection[PairUnit]  # what the walk needs decided by later stages
    unfinished: beam.PCollection[tuple[bytes, Unfinished]]  # components that go on, in parts
    finished: beam.PCollection[tuple[bytes, dict[str, list[Any]]]]  # contents and edges, joined
    stats: beam.PCollection[StageStats]


def judge_colors(
    pairs: list[Edge], contents: dict[bytes, Content], settings: ColorSettings
) -> list[Edge]:
    """Compare the colours and layouts of a batch of pairs.

    Args:
        pairs: edges of which the wavelet distance is known.
        contents: by id; holds both ends of every pair.
        settings: what this stage decides.

    Returns:
        The edges with their similarities and, where one was reached, a verdict, in their order.
    """
    if not pairs:
        return []
    if settings.within_label:
        return _judge_within_labels(pairs, contents, settings)
    ends = [(contents[pair.a], contents[pair.b]) for pair in pairs]
    turns = np.array([pair.orientation for pair in pairs], np.int8)
    bits = np.array([pair.wavelet_distance for pair in pairs], np.int64)
    colors = compare(stack([a.color for a, _ in ends]), stack([b.color for _, b in ends]), turns)
    # Where colour rejects, which is cheaper, the layouts are not looked at.
    rows = np.flatnonzero(~_rejected_by_color(colors, bits, settings))
    layouts = LayoutComparison(*np.zeros((len(LayoutComparison._fields), len(pairs))))
    if len(rows):
        left = stack([ends[row][0].layout for row in rows])
        right = stack([ends[row][1].layout for row in rows])
        for field, found in zip(layouts, compare_layouts(left, right, turns[rows]), strict=True):
            field[rows] = found
    verdicts = decide(colors, layouts, bits, settings)
    parts = (layouts.zoom, layouts.moved, layouts.framed > 0, layouts.differing)
    judged = [
        pair._replace(
            color_similarity=similarity,
            layout_similarity=alike,
            **_outcome(pair, both, _VERDICTS[verdict], recoloured > 0, tuple(part), settings),
        )
        for pair, both, verdict, similarity, alike, recoloured, *part in zip(
            pairs,
            ends,
            verdicts.tolist(),
            colors.similarity.tolist(),
            _alike(layouts),
            colors.hint.tolist(),
            *(field.tolist() for field in parts),
            strict=True,
        )
    ]
    placed = [
        row
        for row, edge in enumerate(judged)
        if edge.verdict == "undecided" and has_transform(edge)
    ]
    edges = _judge_placed([judged[row] for row in placed], [ends[row] for row in placed], settings)
    for row, edge in zip(placed, edges, strict=True):
        judged[row] = edge
    if settings.verify:
        return judged
    return [
        edge._replace(verdict="review", decided_by=STAGE) if edge.verdict == "undecided" else edge
        for edge in judged
    ]


def _judge_within_labels(
    pairs: list[Edge], contents: dict[bytes, Content], settings: ColorSettings
) -> list[Edge]:
    """Compare pairs as ``judge_colors`` does; of those of two labels nothing more is asked."""
    labels = {name: _label(content) for name, content in contents.items()}
    parted = [
        bool(labels[pair.a] and labels[pair.b]) and labels[pair.a] != labels[pair.b]
        for pair in pairs
    ]
    together = [pair for pair, apart in zip(pairs, parted, strict=True) if not apart]
    judged = iter(
        judge_colors(together, contents, dataclasses.replace(settings, within_label=False))
    )
    edges = [
        pair._replace(verdict="reject", decided_by=_LABELS) if apart else next(judged)
        for pair, apart in zip(pairs, parted, strict=True)
    ]
    for row, edge in enumerate(edges):
        unlabelled = next((end for end in (edge.a, edge.b) if not labels[end]), None)
        if unlabelled is not None and edge.verdict != "reject":
            edges[row] = _left_without_label(edge, contents[unlabelled])
    return edges


def _label(content: Content) -> str:
    return content.learned.label if content.learned is not None else ""


def _left_without_label(edge: Edge, failed: Content) -> Edge:
    """Leave a pair for review, and say why one of its ends has no label."""
    edge = edge._replace(verdict="review", decided_by=_LABELS)
    if failed.learned is None or not failed.learned.error_type:
        return edge
    return edge._replace(
        error_stage=failed.learned.error_stage,
        error_type=failed.learned.error_type,
        error_message=failed.learned.error_message,
        failed_member=failed.content,
    )


def _rejected_by_color(
    colors: ColorComparison, bits: npt.NDArray[np.integer], settings: ColorSettings
) -> npt.NDArray[np.bool_]:
    return np.asarray(
        (bits <= settings.aligned_bits) & (colors.similarity < settings.reject_similarity)
    )


def decide(
    colors: ColorComparison,
    layouts: LayoutComparison,
    bits: npt.NDArray[np.integer],
    settings: ColorSettings,
) -> npt.NDArray[np.int64]:
    """Return the verdict on each pair as an index into undecided, accept, reject, review.

    Args:
        colors: of n pairs.
        layouts: of the same.
        bits: int [n], wavelet distances.
        settings: what this stage decides.
    """
    plain = layouts.ground >= _PLAIN_GROUND
    low = layouts.telling < _LEAST_TELLING
    agreeing = layouts.telling * (1.0 - layouts.differing) >= _LEAST_TELLING
    greatest = np.minimum(settings.accept_residual, np.where(plain, _PLAIN_RESIDUAL, np.inf))
    whole = (layouts.worst <= greatest) & (layouts.correlation >= _WHOLE_CORRELATION)
    part = (
        ~plain
        & (layouts.differing <= settings.accept_differing)
        & (layouts.correlation >= _PART_CORRELATION)
    )
    # The colour layouts of crops and bordered forms are not aligned.
    moved = layouts.moved >= MOVED_CELLS
    least = np.minimum(settings.accept_similarity, np.where(moved, _MOVED_SIMILARITY, 1.0))
    accept = agreeing & (colors.chroma >= least) & (whole | part)
    # On a plain ground crops and turns misfit everywhere, captions in a piece.
    derived = (
        (layouts.differing < 0.35)
        & (layouts.correlation >= 0.75)
        & ((layouts.moved >= 0.8) | (layouts.differing >= 0.15))
    )
    reject = _rejected_by_color(colors, bits, settings) | (bits <= settings.aligned_bits) & (
        (layouts.differing > settings.reject_differing)
        | (low & (colors.similarity < _LOW_SIMILARITY))
        | (plain & (layouts.worst > settings.reject_residual) & ~derived)
    )
    rest = np.where(low, _REVIEW, _UNDECIDED)
    return np.where(reject, _REJECT, np.where(accept, _ACCEPT, rest))


def _alike(layouts: LayoutComparison) -> list[float | None]:
    """Return the correlations of n pairs, 0..1; flat cells have nothing to correlate."""
    return [
        round(max(0.0, value), 4) if tells > 0 else None
        for value, tells in zip(layouts.correlation.tolist(), layouts.telling.tolist(), strict=True)
    ]


def _outcome(
    edge: Edge,
    ends: tuple[Content, Content],
    verdict: str,
    recoloured: bool,
    part: tuple[float, float, bool, float],
    settings: ColorSettings,
) -> dict[str, Any]:
    """Return the fields of an edge that a verdict of ``decide`` changes.

    Args:
        edge: not decided yet.
        ends: its contents.
        verdict: of ``decide``.
        recoloured: whether the colours differ.
        part: the arguments of ``partial_relation``.
        settings: what this stage decides.
    """
    a, b = ends
    if verdict == "reject":
        return {"verdict": verdict, "decided_by": STAGE}
    if a.animated or b.animated:
        # Near stages see first frames only: two animations that share one are for a person.
        return {"verdict": "review", "decided_by": STAGE}
    if verdict == "undecided":
        return {}
    if verdict != "accept":
        return {"verdict": "review", "decided_by": STAGE}
    size_a, size_b = (a.width, a.height), (b.width, b.height)
    if axes(edge.orientation)[0]:
        size_b = size_b[::-1]
    whole = whole_image_relation(edge.orientation, size_a == size_b, recoloured)
    relation, derived = partial_relation(*part) or (whole, 0)
    if relation == "overlaid" and settings.verify:
        return {}  # stage 4 sees which of the two is written on, and so which to keep
    verdict = "accept" if relation in settings.relations else "review"
    return {"verdict": verdict, "decided_by": STAGE, "relation": relation, "derived": derived}


def compare_at_words(
    edges: list[Edge], ends: list[tuple[Content, Content]]
) -> tuple[npt.NDArray[np.float64], PlacedComparison, npt.NDArray[np.float64]]:
    """Compare n pairs where their words lay one in the other.

    Args:
        edges: with the transform of their words, at least one.
        ends: their contents.

    Returns:
        The affine maps between the unit squares, float64 [n, 2, 3], how the layouts agree there,
        and the similarity of chroma, float64 [n].
    """
    placed = unit_maps(
        np.array([_transform(edge) for edge in edges], np.int32),
        np.array([edge.votes for edge in edges], np.int64),
        np.array([words_size(a.width, a.height) for a, _ in ends], np.int64),
        np.array([words_size(b.width, b.height) for _, b in ends], np.int64),
    )
    found = compare_placed(
        stack([a.layout for a, _ in ends]), stack([b.layout for _, b in ends]), placed
    )
    chroma = placed_chroma(
        stack([a.color for a, _ in ends]), stack([b.color for _, b in ends]), placed
    )
    return placed, found, chroma


def _transform(edge: Edge) -> tuple[int, int, int, int]:
    return edge.turn_scale_x, edge.turn_scale_y, edge.shift_x, edge.shift_y


def has_transform(edge: Edge) -> bool:
    """Return whether words say where one picture of a pair lies in the other."""
    return bool(edge.turn_scale_x or edge.turn_scale_y)


def _judge_placed(
    edges: list[Edge], ends: list[tuple[Content, Content]], settings: ColorSettings
) -> list[Edge]:
    """Compare undecided pairs where their words lay one in the other.

    Args:
        edges: undecided ones, with the transform of their words.
        ends: their contents, not animated.
        settings: what this stage decides.

    Returns:
        The edges, decided or not, in their order.
    """
    if not edges:
        return []
    placed, found, chroma = compare_at_words(edges, ends)
    layouts_a, layouts_b = stack([a.layout for a, _ in ends]), stack([b.layout for _, b in ends])
    plain = np.array([is_plain(a.layout) and is_plain(b.layout) for a, b in ends], np.bool_)
    bits = np.array([edge.wavelet_distance for edge in edges], np.int64)
    accept, reject = _decide_placed(found, chroma, plain, bits, settings)
    framed = np.zeros(len(edges), np.bool_)
    for layouts, onto, wider in (
        (layouts_a, invert(placed), found.area_a < found.area_b),
        (layouts_b, placed, found.area_b < found.area_a),
    ):
        rows = np.flatnonzero(accept & wider)
        framed[rows] = frames(layouts[rows], onto[rows])
    out = list(edges)
    for row in np.flatnonzero(accept | reject).tolist():
        edge = edges[row]._replace(
            color_similarity=float(chroma[row]),
            layout_similarity=max(0.0, float(found.correlation[row])),
            verdict="reject",
            decided_by=STAGE,
        )
        if accept[row]:
            areas, differing = (found.area_a[row], found.area_b[row]), found.differing[row]
            relation, derived = _placed_relation(edge, ends[row], areas, framed[row], differing)
            if relation == "overlaid" and settings.verify:
                continue  # as above
            verdict = "accept" if relation in settings.relations else "review"
            edge = edge._replace(verdict=verdict, relation=relation, derived=derived)
        out[row] = edge
    return out


def _decide_placed(
    found: PlacedComparison,
    chroma: npt.NDArray[np.float64],
    plain: npt.NDArray[np.bool_],
    bits: npt.NDArray[np.integer],
    settings: ColorSettings,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Return which of n pairs to accept, and which to reject."""
    accept = (
        ~plain
        & (settings.placed_differing > 0)
        & (found.telling * (1.0 - found.differing) >= _PLACED_CELLS)
        & (found.differing <= settings.placed_differing)
        & (found.inner <= _PLACED_INNER)
        & (found.correlation >= _PLACED_CORRELATION)
        & (chroma >= settings.accept_similarity)
        & (np.maximum(found.area_a, found.area_b) >= _PLACED_AREA)
    )
    # Few words of a photograph may lie wrongly, and a watermark hides much of it. Pages share their
    # letters and frames; those that are near as a whole are decided as a whole.
    whole = np.minimum(found.area_a, found.area_b) >= _PLACED_WHOLE
    reject = (
        (plain | whole)
        & (bits > settings.aligned_bits)
        & (found.telling >= _PLACED_CELLS)
        & (found.differing > settings.reject_differing)
    )
    return accept, reject


def _placed_relation(
    edge: Edge,
    ends: tuple[Content, Content],
    areas: tuple[float, float],
    framed: bool,
    differing: float,
) -> tuple[str, int]:
    """Name the relation of a pair that agrees where its words lay one in the other.

    Args:
        edge: with the transform of its words.
        ends: its contents.
        areas: shares of a and of b that the other shows too.
        framed: whether the one that shows more ends in a plain frame.
        differing: share of the common cells that differ.
    """
    angle = abs(np.arctan2(edge.turn_scale_y, edge.turn_scale_x))
    turn = "mirrored" if edge.votes < 0 else "turned" if angle > _TURNED else None
    area_a, area_b = areas
    if min(areas) < _WHOLE_AREA:
        if abs(area_a - area_b) < _SAME_AREA:
            return turn or "cropped", 0
        first_is_wider = 1 if area_a < area_b else -1
        return ("bordered", first_is_wider) if framed else ("cropped", -first_is_wider)
    if differing >= _OVERLAID:
        return "overlaid", 0
    a, b = ends
    return turn or whole_image_relation(1, (a.width, a.height) == (b.width, b.height), False), 0


def is_plain(descriptor: bytes) -> bool:
    """Return whether a layout is of a picture that is mostly one ground."""
    return bool(descriptor) and descriptor[-1] >= _PLAIN_GROUND * 255


class _Walk:
    """A component on its way through a round: what is asked, answered, and waits."""

    def __init__(self, component: Component, last: bool, verify: bool) -> None:
        self.component = component
        self.last = last
        plain = [is_plain(content.layout) for content in component.contents]
        candidates = {
            (i, j): promise(candidate, plain[i] and plain[j], verify)
            for (i, j), candidate in component.candidates.items()
        }
        self.answers = verified(component)
        self.plan = Plan(len(component.contents), candidates, self.answers)
        self.decided: list[Edge] = []
        self.waiting: dict[Pair, Edge] = {}

    def ask(self) -> list[tuple[Pair, Candidate]]:
        """Return the pairs that the walk needs compared before it can go on; none at its end."""
        # What colour decides at once may settle what the last round would have to ask in any case.
        needed = self.plan.ask(last=False) or (self.plan.ask(last=True) if self.last else [])
        contents, candidates = self.component.contents, self.component.candidates
        return [
            ((i, j), star_candidate(contents[i], contents[j]) if star else candidates[i, j])
            for i, j, star in needed
        ]

    def tell(self, pair: Pair, edge: Edge) -> None:
        """Take the answer to one pair."""
        if edge.verdict == "undecided":
            self.waiting[pair] = edge
        else:
            self.answers[pair] = answer(self.component, pair, edge)
            self.plan.answer(pair, self.answers[pair])
            self.decided.append(edge)

    @property
    def ended(self) -> bool:
        """Whether no later round has anything to do; true of what neither asks nor waits."""
        return self.last or not self.waiting

    def joined(self) -> tuple[bytes, dict[str, list[Any]]]:
        """Return the component with its edges, as if these had been joined to it."""
        key, contents, edges = self.component.key, self.component.contents, self.component.edges
        return key, {"contents": contents, "edges": [*edges.values(), *self.decided]}

    def unneeded(self) -> int:
        """Return how many candidates nobody asked for."""
        candidates = self.component.candidates.keys()
        return len(candidates - self.answers.keys() - self.waiting.keys())

    def units(self, number: int, max_group_size: int) -> Iterator[PairUnit]:
        """Yield what waits in units of bounded size."""
        contents = self.component.contents
        numbered = [(i, j, (i, j, edge)) for (i, j), edge in sorted(self.waiting.items())]
        named = sorted({end for pair in self.waiting for end in pair})
        place = {member: index for index, member in enumerate(named)}
        placed = [(place[i], place[j], payload) for i, j, payload in numbered]
        for index, part in enumerate(split_pairs(placed, len(named), max_group_size)):
            ends = sorted({end for i, j, _ in part for end in (i, j)})
            yield PairUnit(
                f"{self.component.key.hex()}/{number}/{index}",
                self.component.key,
                # Keys and layouts have done their work.
                [contents[e]._replace(wavelet_keys=b"", color=b"", layout=b"") for e in ends],
                [edge for _, _, edge in part],
            )


_Walked: TypeAlias = (
    tuple[bytes, Edge]
    | beam.pvalue.TaggedOutput[Literal["undecided"], PairUnit]
    | beam.pvalue.TaggedOutput[Literal["unfinished"], tuple[bytes, Unfinished]]
    | beam.pvalue.TaggedOutput[Literal["finished"], tuple[bytes, dict[str, list[Any]]]]
)


class _CompareDoFn(MeteredDoFn):
    stage = STAGE

    def __init__(self, compare: "CompareColors") -> None:
        self.settings = compare.settings
        self.round_number = compare.round_number
        self.last = compare.last
        self.batch_size = compare.batch_size
        self.max_group_size = compare.max_group_size
        self.max_unit_size = compare.max_unit_size

    def start_bundle(self) -> None:
        super().start_bundle()
        self.walks: list[_Walk] = []
        self.contents = 0

    def process(self, joined: tuple[bytes, dict[str, list[Any]]]) -> Iterator[_Walked]:
        # Most components are small, and a call on a few pairs costs as much as one on a hundred.
        component = resume(joined) if "unfinished" in joined[1] else gather(joined)
        self.walks.append(_Walk(component, self.last, self.settings.verify))
        self.contents += len(component.contents)
        if self.contents >= self.max_group_size:
            yield from self._walk()

    def finish_bundle(self) -> Iterator[Any]:
        for output in self._walk():
            if isinstance(output, beam.pvalue.TaggedOutput):
                yield beam.pvalue.TaggedOutput(output.tag, in_global_window(output.value))
            else:
                yield in_global_window(output)
        yield from super().finish_bundle()

    def _walk(self) -> Iterator[_Walked]:
        """Take the components that wait as far as colour alone can take them."""
        walks, self.walks, self.contents = self.walks, [], 0
        with self.meter.work(0):
            self._answer(walks)
            self.meter.skipped += sum(walk.unneeded() for walk in walks if walk.ended)
        for walk in walks:
            if not self.settings.verify:
                yield beam.pvalue.TaggedOutput("finished", walk.joined())
                continue
            for edge in walk.decided:
                yield walk.component.key, edge
            report_progress("global", 0, len(walk.waiting))
            self.meter.items_out += len(walk.waiting)
            for unit in walk.units(self.round_number, self.max_unit_size):
                yield beam.pvalue.TaggedOutput("undecided", unit)
            if not walk.ended:
                for part in leave(walk.component, walk.answers):
                    yield beam.pvalue.TaggedOutput("unfinished", (walk.component.key, part))

    def _answer(self, walks: list[_Walk]) -> None:
        active = walks
        while active:
            asked = [(walk, *question) for walk in active for question in walk.ask()]
            for start in range(0, len(asked), self.batch_size):
                batch = asked[start : start + self.batch_size]
                ends = [
                    (walk.component.contents[i], walk.component.contents[j])
                    for walk, (i, j), _ in batch
                ]
                contents = {content.content: content for both in ends for content in both}
                measured = measure_all([candidate for _, _, candidate in batch], ends)
                edges = judge_colors(list(map(blank_edge, measured)), contents, self.settings)
                for (walk, pair, _), edge in zip(batch, edges, strict=True):
                    walk.tell(pair, edge)
            self.meter.items_in += len(asked)
            active = list({id(walk): walk for walk, _, _ in asked}.values())


@dataclasses.dataclass(eq=False)
class CompareColors(beam.PTransform):
    """Decide by colour what colour can decide of the pairs that the walk needs compared.

    Attributes:
        settings: the thresholds.
        round_number: 1 for the first round.
        last: whether no further round follows: every pair that can still matter is asked for.
        batch_size: pairs compared in one call.
        max_group_size: distinct contents of components compared together; a larger component is
            compared by itself.
        max_unit_size: distinct contents of one unit of undecided pairs, at least 2.
    """

    settings: ColorSettings
    round_number: int = 1
    last: bool = True
    batch_size: int = 4096
    max_group_size: int = 4000
    max_unit_size: int = 500

    def __post_init__(self) -> None:
        super().__init__()
        for name, least in (("batch_size", 1), ("max_group_size", 2), ("max_unit_size", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)!r}")

    @several_outputs
    def expand(
        self, joined: beam.PCollection[tuple[bytes, dict[str, list[Any]]]]
    ) -> ComparedColors:
        """Turn joined components into decided edges and units of undecided pairs."""
        out = joined | "Compare colours" >> (
            beam.ParDo(_CompareDoFn(self))
            .with_output_types(
                tuple[bytes, Edge],
                undecided=PairUnit,
                unfinished=tuple[bytes, Unfinished],
                finished=tuple[bytes, dict[str, list[Any]]],
                stats=StageStats,
            )
            .with_outputs("undecided", "unfinished", "finished", STATS, main="edges")
        )
        return ComparedColors(out.edges, out.undecided, out.unfinished, out.finished, out[STATS])
