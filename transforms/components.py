"""Key contents by the component that they belong to.

In: ``Content``, and the component of every content that is in some pair. Out: contents keyed by
component; a content in no pair is a component of its own. Guarantee: every content that is in a
pair, or has more than one row, leaves once; lone contents have nothing left to decide.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import apache_beam as beam

from transforms.joins import JoinByKey
from transforms.outputs import several_outputs
from transforms.records import Content


class KeyedContents(NamedTuple):
    """The outputs of ``KeyByComponent``."""

    paired: beam.PCollection[tuple[bytes, Content]]  # in some pair
    all: beam.PCollection[tuple[bytes, Content]]  # those, and exact copies in no pair


def _by_content(content: Content) -> tuple[bytes, Content]:
    return content.content, content


def _key(
    joined: tuple[bytes, dict[str, list[Any]]],
) -> Iterator[
    tuple[bytes, Content] | beam.pvalue.TaggedOutput[Literal["copies"], tuple[bytes, Content]]
]:
    component = next(iter(joined[1]["component"]), None)
    for content in joined[1]["content"]:
        if component is not None:
            yield component, content
        elif content.copies > 1:
            yield beam.pvalue.TaggedOutput("copies", (joined[0], content))


@dataclasses.dataclass(eq=False)
class KeyByComponent(beam.PTransform):
    """Join contents with their components.

    Attributes:
        members: (content id, component) of every content that is in some pair.
    """

    members: beam.PCollection[tuple[bytes, bytes]]

    def __post_init__(self) -> None:
        super().__init__()

    @several_outputs
    def expand(self, contents: beam.PCollection[Content]) -> KeyedContents:
        """Turn contents into contents keyed by component."""
        keyed = contents | "Key by id" >> beam.Map(_by_content).with_output_types(
            tuple[bytes, Content]
        )
        out = (
            {"content": keyed, "component": self.members}
            | "Join members" >> JoinByKey(bytes, {"content": Content, "component": bytes})
            | "Key by component"
            >> beam.FlatMap(_key)
            .with_output_types(tuple[bytes, Content], copies=tuple[bytes, Content])
            .with_outputs("copies", main="paired")
        )
        every = (out.paired, out.copies) | "All keyed" >> beam.Flatten()
        return KeyedContents(out.paired, every)
