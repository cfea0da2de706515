"""Helpers for transforms and DoFns with several outputs."""

from collections.abc import Callable
from typing import TypeVar

from apache_beam.pvalue import PCollection
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

_WINDOW = GlobalWindow()
_END = _WINDOW.max_timestamp()
_Expand = TypeVar("_Expand", bound=Callable[..., object])


def several_outputs(expand: _Expand) -> _Expand:
    """Mark an ``expand`` that takes or returns several PCollections.

    Beam reads annotations and warns of every one that is no PCollection; those are for readers and
    type checkers, so they are taken away at run time.
    """
    for name, hint in list(expand.__annotations__.items()):
        if getattr(hint, "__origin__", hint) is not PCollection:
            del expand.__annotations__[name]
    return expand


def in_global_window(value: object) -> WindowedValue:
    """Wrap a value for emission from ``finish_bundle``."""
    return WindowedValue(value, _END, (_WINDOW,))
