"""Helpers for transforms and DoFns with several outputs."""

from collections.abc import Callable
from typing import TypeVar

from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

_Expand = TypeVar("_Expand", bound=Callable[..., object])


def several_outputs(expand: _Expand) -> _Expand:
    """Mark an ``expand`` that returns a NamedTuple of PCollections.

    Beam reads return annotations and warns of every one that is no PCollection; the annotation is
    for readers and type checkers, so it is taken away at run time.
    """
    expand.__annotations__.pop("return", None)
    return expand


def in_global_window(value: object) -> WindowedValue:
    """Wrap a value for emission from ``finish_bundle``."""
    return WindowedValue(value, GlobalWindow().max_timestamp(), [GlobalWindow()])
