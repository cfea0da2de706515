"""The library that beam-dedup is made of: one PTransform a stage.

In the order of the pipeline:

- ``ListImages``: inputs to ``ImageRef``, one per distinct URI.
- ``ComputeFingerprints`` (stage 1): one read and one reduced decode per image.
- ``CollapseExact``: images with equal pixels become one ``Content``.
- ``EmbedContents``, where it is asked for: the vector of a global model of each content.
- ``ProposeByWavelet``: contents with near wavelet keys become candidate pairs.
- ``PartitionCandidates``, ``KeyByComponent``: connected components, which partition the work.
- ``ComparePairs`` (stages 2 to 4), made of ``CompareColors``, ``ReadMembers``,
  ``EmbedMembers``, ``CompareGlobals`` and ``VerifyLocals``.
- ``ElectBest`` (stage 5): groups, and the image that is kept.
- ``AssembleRows``, ``WriteReport``: a row for every input, and the report.

Element types are in ``transforms.records``. Names are loaded when they are first used, so that a
pipeline without stages 3 and 4 never imports Beam's inference package, and with it torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transforms.candidates import ProposeByWavelet
    from transforms.cascade import CascadeSettings, ComparePairs
    from transforms.color import ColorSettings, CompareColors
    from transforms.components import KeyByComponent, PartitionCandidates
    from transforms.contents import CollapseExact
    from transforms.embeddings import EmbedContents
    from transforms.features import ReadMembers
    from transforms.fingerprints import ComputeFingerprints
    from transforms.global_features import CompareGlobals, EmbedMembers
    from transforms.groups import ElectBest
    from transforms.listing import ListImages
    from transforms.local_features import LocalThresholds, VerifyLocals
    from transforms.report import ReportInput, WriteReport
    from transforms.rounds import ComponentInputs
    from transforms.rows import AssembleRows

__all__ = [
    "AssembleRows",
    "CascadeSettings",
    "CollapseExact",
    "ColorSettings",
    "CompareColors",
    "CompareGlobals",
    "ComparePairs",
    "ComponentInputs",
    "ComputeFingerprints",
    "ElectBest",
    "EmbedContents",
    "EmbedMembers",
    "KeyByComponent",
    "ListImages",
    "LocalThresholds",
    "PartitionCandidates",
    "ProposeByWavelet",
    "ReadMembers",
    "ReportInput",
    "VerifyLocals",
    "WriteReport",
]

_MODULES = {
    "candidates": ("ProposeByWavelet",),
    "cascade": ("CascadeSettings", "ComparePairs"),
    "color": ("ColorSettings", "CompareColors"),
    "components": ("KeyByComponent", "PartitionCandidates"),
    "contents": ("CollapseExact",),
    "embeddings": ("EmbedContents",),
    "features": ("ReadMembers",),
    "fingerprints": ("ComputeFingerprints",),
    "global_features": ("CompareGlobals", "EmbedMembers"),
    "groups": ("ElectBest",),
    "listing": ("ListImages",),
    "local_features": ("LocalThresholds", "VerifyLocals"),
    "report": ("ReportInput", "WriteReport"),
    "rounds": ("ComponentInputs",),
    "rows": ("AssembleRows",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
