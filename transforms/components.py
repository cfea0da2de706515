"""The components that partition the work, and contents and candidates keyed by them.

In: ``Content``, and the component of every content that is in some pair. Out: contents keyed by
component; a content in no pair is a component of its own. Guarantee: every content that is in a
pair, or has more than one row, leaves once; lone contents have nothing left to decide.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.utils.windowed_value import WindowedValue

from transforms.grouping.components import label_components
from transforms.joins import JoinByKey
from transforms.outputs import in_global_window, several_outputs
from transforms.records import Candidate, Content

_ID_BYTES = 32
_PAIRS_PACKED = 16_384  # 1 MB an element
_PAIR = np.dtype([("a", f"V{_ID_BYTES}"), ("b", f"V{_ID_BYTES}")])


class Components(NamedTuple):
    """The outputs of ``PartitionCandidates``."""

    candidates: beam.PCollection[tuple[bytes, Candidate]]  # keyed by component
    members: beam.PCollection[tuple[bytes, bytes]]  # content id, component


class _PackPairsDoFn(beam.DoFn):
    """Packs the pairs of a bundle into few elements, all under one key."""

    def start_bundle(self) -> None:
        self.pairs: list[bytes] = []

    def process(self, candidate: Candidate) -> None:
        self.pairs.append(candidate.a + candidate.b)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for start in range(0, len(self.pairs), _PAIRS_PACKED):
            yield in_global_window((0, b"".join(self.pairs[start : start + _PAIRS_PACKED])))


def _label(packed: tuple[int, Iterable[bytes]]) -> Iterator[tuple[bytes, bytes]]:
    pairs = np.frombuffer(b"".join(packed[1]), _PAIR)
    ids, labels = label_components(pairs["a"], pairs["b"])
    for content, label in zip(ids, labels.tolist(), strict=True):
        yield content.tobytes(), ids[label].tobytes()


def _by_first(candidate: Candidate) -> tuple[bytes, Candidate]:
    return candidate.a, candidate


def _with_component(
    joined: tuple[bytes, dict[str, list[Any]]],
) -> Iterator[tuple[bytes, Candidate]]:
    for component in joined[1]["component"]:
        for candidate in joined[1]["candidate"]:
            yield component, candidate


@dataclasses.dataclass(eq=False)
class PartitionCandidates(beam.PTransform):
    """Label candidates with their connected component, which decides nothing but who works."""

    def __post_init__(self) -> None:
        super().__init__()

    @several_outputs
    def expand(self, candidates: beam.PCollection[Candidate]) -> Components:
        """Key candidates by component, and name the component of every content in a pair."""
        members = (
            candidates
            | "Pack pairs" >> beam.ParDo(_PackPairsDoFn()).with_output_types(tuple[int, bytes])
            | "Gather pairs" >> beam.GroupByKey()
            | "Label" >> beam.FlatMap(_label).with_output_types(tuple[bytes, bytes])
        )
        keyed = candidates | "Key by first" >> beam.Map(_by_first).with_output_types(
            tuple[bytes, Candidate]
        )
        labelled = (
            {"candidate": keyed, "component": members}
            | "Join components" >> JoinByKey(bytes, {"candidate": Candidate, "component": bytes})
            | "Key by component"
            >> beam.FlatMap(_with_component).with_output_types(tuple[bytes, Candidate])
        )
        return Components(labelled, members)


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
