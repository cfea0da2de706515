"""What is joined goes straight into its shuffle on the embedded runner."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any


def join_directly() -> None:
    """Make Beam's embedded runner write the inputs of a flattened shuffle into that shuffle.

    Beam 2.77 collects them first, and sends them through a stage that only hands them on: a third
    of the stages of this program, and of what its workers send and receive.
    """
    from apache_beam.runners.portability.fn_api_runner import translations

    sink = translations.sink_flattens
    if getattr(sink, "joins_directly", False):
        return

    def sink_flattens(stages: Iterable[Any], context: Any) -> Iterator[Any]:
        yield from sink(_join(list(stages), context), context)

    sink_flattens.joins_directly = True  # type: ignore[attr-defined]
    translations.sink_flattens = sink_flattens


def _join(stages: list[Any], context: Any) -> list[Any]:
    """Replace each flatten that only a shuffle consumes by writes into that shuffle.

    Args:
        stages: of one transform each, with shuffles as a write and a read.
        context: Beam's ``TransformContext``.
    """
    from apache_beam.portability import common_urns

    uses = Counter(pcoll for stage in stages for pcoll in _only(stage).inputs.values())
    writes = {
        pcoll: stage
        for stage in stages
        if _only(stage).spec.payload.startswith(b"group:")
        for pcoll in _only(stage).inputs.values()
    }
    replaced: dict[Any, list[Any]] = {}
    of_shuffle: dict[Any, list[Any]] = {}  # what comes before its read now
    for stage in stages:
        transform = _only(stage)
        if transform.spec.urn != common_urns.primitives.FLATTEN.urn or len(transform.inputs) < 2:
            continue
        (flattened,) = transform.outputs.values()
        if flattened in writes and uses[flattened] == 1:
            write = writes[flattened]
            replaced[stage] = _direct_writes(stage, write, context)
            replaced[write] = []
            of_shuffle[write] = [one for one in replaced[stage] if not _only(one).outputs]
    left = [one for stage in stages for one in replaced.get(stage, [stage])]
    for stage in left:  # the shuffle's read among them
        stage.must_follow = frozenset(
            one for before in stage.must_follow for one in of_shuffle.get(before, [before])
        )
    return left


def _only(stage: Any) -> Any:
    (transform,) = stage.transforms
    return transform


def _direct_writes(flatten: Any, write: Any, context: Any) -> list[Any]:
    """Return stages that write each input of a flatten as another stage writes its output."""
    from apache_beam.runners.portability.fn_api_runner import translations

    *transcoding, flatten = translations.fix_flatten_coders([flatten], context)
    transform, shuffle = _only(flatten), _only(write)
    _, name = translations.split_buffer_id(shuffle.spec.payload)
    made = []
    for tag, pcoll in transform.inputs.items():
        one = type(shuffle)(
            unique_name=f"{shuffle.unique_name}/{tag}",
            inputs={tag: pcoll},
            spec=shuffle.spec,
            environment_id=transform.environment_id,
        )
        made.append(
            translations.Stage(
                one.unique_name,
                [one],
                downstream_side_inputs=frozenset(),
                must_follow=flatten.must_follow | write.must_follow,
            )
        )
        # Whoever groups takes the coders of what is sent from here.
        grouping = context.components.transforms[name]
        for input_tag in grouping.inputs:
            grouping.inputs[input_tag] = pcoll
    return [*transcoding, *made]
