"""Join PCollections by key, with few bytes in the shuffle.

In: PCollections of (key, record) under names. Out: (key, {name: [records]}) for every key. The
same as Beam's ``CoGroupByKey``, but records cross the shuffle in their own coders: CoGroupByKey
pickles them (name and record, of no common type), and the embedded runner then holds them as
Python objects, which measured four times the memory.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam import coders
from apache_beam.utils.windowed_value import WindowedValue

from transforms.outputs import in_global_window, several_outputs

_PACKED_BYTES = 1 << 20  # records that a bundle holds before it passes them on
_SIZE_BYTES = 4  # before each record of a pack


class _EncodeDoFn(beam.DoFn):
    """Packs what a bundle has of a key: an element costs more in the shuffle than its record."""

    def __init__(self, number: int, record_type: Any) -> None:
        self.prefix = bytes([number])
        self.record_type = record_type

    def setup(self) -> None:
        self.encode = coders.registry.get_coder(self.record_type).get_impl().encode

    def start_bundle(self) -> None:
        self.packs: dict[Any, list[bytes]] = {}
        self.held = 0

    def process(self, keyed: tuple[Any, Any]) -> Iterable[tuple[Any, bytes]]:
        record = self.encode(keyed[1])
        pack = self.packs.setdefault(keyed[0], [self.prefix])
        pack.append(len(record).to_bytes(_SIZE_BYTES, "big"))
        pack.append(record)
        self.held += len(record)
        return self._packed() if self.held >= _PACKED_BYTES else ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for packed in self._packed():
            yield in_global_window(packed)

    def _packed(self) -> list[tuple[Any, bytes]]:
        packed = [(key, b"".join(pack)) for key, pack in self.packs.items()]
        self.start_bundle()
        return packed


class _DecodeDoFn(beam.DoFn):
    def __init__(self, types: dict[str, Any]) -> None:
        self.types = types

    def setup(self) -> None:
        self.decoders = [
            (name, coders.registry.get_coder(kind).get_impl().decode)
            for name, kind in self.types.items()
        ]

    def process(
        self, grouped: tuple[Any, Iterable[bytes]]
    ) -> Iterator[tuple[Any, dict[str, list[Any]]]]:
        records: dict[str, list[Any]] = {name: [] for name in self.types}
        for pack in grouped[1]:
            name, decode = self.decoders[pack[0]]
            end = 1
            while end < len(pack):
                start = end + _SIZE_BYTES
                end = start + int.from_bytes(pack[end:start], "big")
                records[name].append(decode(pack[start:end]))
        yield grouped[0], records


def _several(one: beam.PCollection | tuple[beam.PCollection, ...]) -> tuple[beam.PCollection, ...]:
    return one if isinstance(one, tuple) else (one,)


@dataclasses.dataclass(eq=False)
class JoinByKey(beam.PTransform):
    """Join PCollections by key.

    Attributes:
        key_type: the type of the keys; its coder must be deterministic.
        types: the type of each named PCollection's records.
    """

    key_type: Any
    types: dict[str, Any]

    def __post_init__(self) -> None:
        super().__init__()
        if not 1 <= len(self.types) <= 256:
            raise ValueError(f"types must name 1..256 PCollections, not {len(self.types)}")

    @several_outputs
    def expand(
        self, named: dict[str, beam.PCollection | tuple[beam.PCollection, ...]]
    ) -> beam.PCollection[tuple[Any, dict[str, list[Any]]]]:
        """Turn named PCollections, or tuples, of (key, record) into (key, {name: [records]})."""
        if set(named) != set(self.types):
            raise ValueError(f"inputs {sorted(named)} are not the types' {sorted(self.types)}")
        key: Any = self.key_type
        encoded = [
            one
            | f"Encode {name} {place}"
            >> beam.ParDo(_EncodeDoFn(number, kind)).with_output_types(tuple[key, bytes])
            for number, (name, kind) in enumerate(self.types.items())
            # To flatten them first would write and read each record once more.
            for place, one in enumerate(_several(named[name]))
        ]
        return (
            encoded
            | "Flatten" >> beam.Flatten()
            | "Group" >> beam.GroupByKey()
            | "Decode"
            >> beam.ParDo(_DecodeDoFn(self.types)).with_output_types(
                tuple[key, dict[str, list[Any]]]
            )
        )
