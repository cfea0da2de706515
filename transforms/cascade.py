"""Stages 2 to 4 in rounds: from joined candidates to every edge that the walk needs.

Each round compares the pairs that the walk asks for: first those of images that are sure to be
kept, then what their answers leave open. In: contents and candidates by component. Out: joined
components, their contents and edges. Guarantee: after the last round no pair that could change a
group is uncompared.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam

from transforms.access import LOCAL, Access
from transforms.color import ColorSettings, CompareColors
from transforms.imaging.decode import DecodeLimits
from transforms.models.spec import Models
from transforms.outputs import several_outputs
from transforms.packing import PackedCandidates
from transforms.records import Content, Edge, StageStats
from transforms.rounds import ComponentInputs, join_unfinished, without_embedding

if TYPE_CHECKING:
    from transforms.features import MemberSettings
    from transforms.global_features import GlobalSettings

# Of thumbnails, in pixels: what the points and the aligned comparison were tuned on, and what a
# learned matcher gets.
_THUMBNAIL_SIDE = 256
_LEARNED_SIDE = 384


@dataclasses.dataclass(frozen=True)
class CascadeSettings:
    """Thresholds and bounds of stages 2 to 4.

    Attributes:
        color: what stage 2 decides.
        global_reject: cosine of global features below which a pair is rejected, 0..1.
        local_accept: local score from which a pair is accepted, 0..1.
        local_review: local score from which a pair goes to review, 0..1.
        relations: the relations that count as duplicates.
        rounds: how often the walk may ask, at least 1; without verification one is enough.
        limits: what the decoder may spend on one image.
        access: how stores are reached.
        models: of stages 3 and 4, and where they run.
        embedded: whether contents come with their embeddings, which are kilobytes that go no
            further than they are needed.
        max_group_size_color: distinct contents in one unit of stage 2.
        max_group_size_global: distinct contents in one unit of stage 3.
        max_group_size_local: distinct contents held decoded by stage 4.
        batch_size_color: pairs compared in one call of stage 2.
        batch_size_global: images in one batch of stage 3's model.
        batch_size_local: pairs in one batch of stage 4's model.
    """

    color: ColorSettings
    global_reject: float
    local_accept: float
    local_review: float
    relations: frozenset[str]
    rounds: int = 3
    limits: DecodeLimits = dataclasses.field(default_factory=DecodeLimits)
    access: Access = LOCAL
    models: Models = dataclasses.field(default_factory=Models)
    embedded: bool = False
    max_group_size_color: int = 4000
    max_group_size_global: int = 500
    max_group_size_local: int = 200
    batch_size_color: int = 4096
    batch_size_global: int = 32
    batch_size_local: int = 16


def member_settings(models: Models) -> "MemberSettings":
    """Return what the models of stages 3 and 4 take of a member."""
    from transforms.features import MemberSettings

    local = models.local_model
    return MemberSettings(
        side=_LEARNED_SIDE if local.is_learned else _THUMBNAIL_SIDE,
        points=None if local.is_learned else local.kind,
        preparation=models.global_model.preparation,
    )


def global_settings(settings: CascadeSettings) -> "GlobalSettings":
    """Return what stage 3 decides."""
    from transforms.global_features import GlobalSettings

    return GlobalSettings(settings.global_reject, settings.models.global_model.is_learned)


def _without_embeddings(
    contents: tuple[beam.PCollection[tuple[bytes, Content]], ...],
) -> tuple[beam.PCollection[tuple[bytes, Content]], ...]:
    return tuple(
        one
        | f"Leave embeddings {number}"
        >> beam.Map(without_embedding).with_output_types(tuple[bytes, Content])
        for number, one in enumerate(contents)
    )


class CompareResult(NamedTuple):
    """The outputs of ``ComparePairs``."""

    components: beam.PCollection[tuple[bytes, dict[str, list[Any]]]]  # contents and edges
    stats: list[beam.PCollection[StageStats]]


@dataclasses.dataclass(eq=False)
class ComparePairs(beam.PTransform):
    """Run stages 2 to 4 over candidate pairs, in rounds.

    Attributes:
        settings: thresholds and bounds.
        candidates: the proposed pairs by component.
    """

    settings: CascadeSettings
    candidates: beam.PCollection[tuple[bytes, PackedCandidates]]

    def __post_init__(self) -> None:
        super().__init__()
        if self.settings.rounds < 1:
            raise ValueError(f"rounds must be at least 1, not {self.settings.rounds!r}")

    @several_outputs
    def expand(
        self, contents: tuple[beam.PCollection[tuple[bytes, Content]], ...]
    ) -> CompareResult:
        """Turn contents keyed by component into components with all their edges."""
        edges: list[beam.PCollection[tuple[bytes, Edge]]] = []
        stats: list[beam.PCollection[StageStats]] = []
        verify = self.settings.color.verify
        slim = _without_embeddings(contents) if self.settings.embedded else contents
        first = ComponentInputs(contents if verify else slim, self.candidates, [])
        joined = first.join("Round 1: ")
        if not verify:
            colors = joined | "Round 1: colour" >> self._colors(1, last=True)
            return CompareResult(colors.finished, [colors.stats])
        records: list[beam.PCollection] = []
        rounds = self.settings.rounds
        for number in range(1, rounds + 1):
            last = number == rounds
            unfinished, compared, records = self._round(joined, number, last, records, stats)
            edges += compared
            if not last:
                # What colour decided, the component has seen.
                joined = join_unfinished(unfinished, compared[1:], f"Round {number + 1}: ")
        return CompareResult(ComponentInputs(slim, None, edges).join("All rounds: "), stats)

    def _colors(self, number: int, *, last: bool) -> CompareColors:
        settings = self.settings
        return CompareColors(
            settings.color,
            number,
            last,
            settings.batch_size_color,
            settings.max_group_size_color,
            settings.max_group_size_global,
        )

    def _round(
        self,
        joined: beam.PCollection[tuple[bytes, dict[str, list[Any]]]],
        number: int,
        last: bool,
        records: list[beam.PCollection],
        stats: list[beam.PCollection[StageStats]],
    ) -> tuple[beam.PCollection, list[beam.PCollection], list[beam.PCollection]]:
        """Compare what the walk asks for; return what goes on, the edges and the records."""
        settings, name = self.settings, f"Round {number}"
        colors = joined | f"{name}: colour" >> self._colors(number, last=last)
        stats.append(colors.stats)
        # Only here: Beam's inference package imports torch where it is installed.
        from transforms.features import ReadMembers
        from transforms.global_features import CompareGlobals, EmbedMembers
        from transforms.imaging.local import LocalSettings
        from transforms.local_features import LocalThresholds, VerifyLocals
        from transforms.models import global_handler, local_handler

        models = settings.models
        read = colors.undecided | f"{name}: read" >> ReadMembers(
            member_settings(models),
            settings.limits,
            records,
            colors.unfinished if records else None,
            settings.access,
        )
        embedded = read.fresh | f"{name}: embed" >> EmbedMembers(
            global_handler(models.global_model, models.execution, settings.batch_size_global)
        )
        members = [embedded.by_unit, read.reused] if records else [embedded.by_unit]
        compared = colors.undecided | f"{name}: global" >> CompareGlobals(
            global_settings(settings), members, settings.max_group_size_local
        )
        verified = compared.undecided | f"{name}: local" >> VerifyLocals(
            local_handler(
                models.local_model,
                models.execution,
                LocalSettings(settings.local_accept, settings.local_review),
                settings.batch_size_local,
                settings.max_group_size_local,
            ),
            LocalThresholds(settings.local_accept, settings.local_review, settings.relations),
        )
        stats += [read.stats, embedded.stats, compared.stats, verified.stats]
        known = [embedded.records, read.carried] if records else [embedded.records]
        return colors.unfinished, [colors.edges, compared.edges, verified.edges], known
