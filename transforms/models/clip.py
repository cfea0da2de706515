"""CLIP and its kin (A. Radford et al., ICML 2021) as open_clip has them: the tower for images.

``clip:ARCH/PRETRAINED`` is split at the first ``/``. What follows is a file, or else one of the
tags of that architecture, whose weights have been fetched. open_clip itself is never asked for
weights, since it would download them; nor does it build the tower for texts, of which some
architectures take the shape from another hub.
"""

import dataclasses
import difflib
import os
from typing import Any, Final

import open_clip
import torch
from open_clip.transform import PreprocessCfg

from transforms.imaging.preparation import Preparation
from transforms.models.network import Network, needs_of
from transforms.models.spec import GlobalModel, ModelError
from transforms.models.torch_network import TorchNetwork, build, check_fit, fill
from transforms.models.weights import Finder, check, read_state_dict

__all__ = ["load", "resolve"]

_VISUAL: Final = "visual."
_QUICK: Final = "-quickgelu"
_TAGS_TOLD: Final = 6
# People remove near copies from 0.95 on (fastdup and users of it: 0.9 to 0.98), since pictures of
# one kind are alike to CLIP. Two pictures of nothing in common have about 0.5 with ViT-B/32; crops
# and overlays of one picture stay far above.
_PROPOSE: Final = 0.95
_REJECT: Final = 0.5
_SOURCE: Final = (
    "propose: usual for near copies by CLIP (0.95 to 0.98); reject: assumed, unlike photographs"
)
# A tower for texts that costs next to nothing.
_NO_TEXT: Final = {"context_length": 1, "vocab_size": 1, "width": 1, "heads": 1, "layers": 1}


def resolve(text: str, finder: Finder) -> GlobalModel:
    """Return the model that ``clip:ARCH/PRETRAINED`` names.

    Args:
        text: the option's value.
        finder: of weights.

    Raises:
        ModelError: there is no such architecture or tag, or the weights are missing, are refused,
            or are those of another architecture.
    """
    architecture, _, pretrained = text.partition(":")[2].partition("/")
    if not architecture or not pretrained:
        raise ModelError(
            "clip needs an architecture and weights, as in clip:ViT-B-32/laion2b_s34b_b79k or "
            f"clip:ViT-B-32/PATH, not {text!r}"
        )
    _check_architecture(architecture)
    tag = open_clip.get_pretrained_cfg(architecture, pretrained)
    if os.path.exists(pretrained) or not tag:
        _check_tag(architecture, pretrained)
        weights = finder.file(pretrained)
        published = _published(architecture)
    else:
        weights = finder.known(f"clip:{architecture}/{pretrained}")
        published = tag
        if tag.get("quick_gelu") and architecture + _QUICK in open_clip.list_models():
            architecture += _QUICK  # with which these weights were trained
    tower = build(lambda: _tower(architecture))
    check_fit(tower, _image_part(weights.path), weights.path, architecture)
    return GlobalModel(
        name=text,
        family="clip",
        variant=architecture,
        weights=weights,
        preparation=_preparation(architecture, tower, published),
        dimensions=_configuration(architecture)["embed_dim"],
        reject_similarity=_REJECT,
        propose_similarity=_PROPOSE,
        threshold_source=_SOURCE,
    )


def load(model: GlobalModel, device: str) -> Network:
    """Load a model of ``resolve``, see ``network``."""
    weights, preparation = needs_of(model)
    state = _image_part(check(weights))
    tower = fill(lambda: _tower(model.variant), state, weights.path, model.variant)
    return TorchNetwork(tower, preparation, device)


def _check_architecture(name: str) -> None:
    names = open_clip.list_models()
    if name in names:
        return
    folded = {one.casefold(): one for one in names}
    close = difflib.get_close_matches(name.casefold(), folded, n=4, cutoff=0.5)
    some = [folded[one] for one in close] or ["ViT-B-32", "ViT-L-14"]
    raise ModelError(
        f"open_clip has no architecture {name!r}; it has {', '.join(some)} and others "
        "(open_clip.list_models())"
    )


def _check_tag(architecture: str, pretrained: str) -> None:
    """Refuse what is neither a tag nor looks like a path."""
    looks_like_path = os.sep in pretrained or "." in pretrained
    if looks_like_path or os.path.exists(pretrained):
        return
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    some = ", ".join(tags[:_TAGS_TOLD]) + (" and others" if len(tags) > _TAGS_TOLD else "")
    raise ModelError(
        f"{pretrained!r} is no file and none of the weights of {architecture} ({some or 'none'})"
    )


def _configuration(architecture: str) -> dict[str, Any]:
    found: dict[str, Any] = open_clip.get_model_config(architecture)
    return found


def _tower(architecture: str) -> torch.nn.Module:
    own = _configuration(architecture)
    whole = open_clip.CLIP(
        embed_dim=own["embed_dim"],
        vision_cfg={**own["vision_cfg"], "timm_model_pretrained": False},
        text_cfg=_NO_TEXT,
        quick_gelu=own.get("quick_gelu", False),
    )
    tower: torch.nn.Module = whole.visual
    return tower


def _image_part(path: str) -> dict[str, torch.Tensor]:
    """Return the tensors of the tower for images, under their names in it."""
    state = read_state_dict(path)
    part = {
        key.removeprefix(_VISUAL): value for key, value in state.items() if key.startswith(_VISUAL)
    }
    if not part:
        raise ModelError(
            f"weights {path!r} hold no tensors named {_VISUAL}*, as those of open_clip do"
        )
    return part


def _published(architecture: str) -> dict[str, Any]:
    """Return what a user's own weights expect: what all published ones of that kind do.

    Those of a few architectures differ among themselves; then open_clip's own default holds, as it
    does for all files in open_clip.
    """
    keys = [field.name for field in dataclasses.fields(PreprocessCfg)]
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    found = [open_clip.get_pretrained_cfg(architecture, tag) for tag in tags]
    ways = [{key: one[key] for key in keys if key in one} for one in found]
    return ways[0] if ways and all(way == ways[0] for way in ways) else {}


def _preparation(architecture: str, tower: Any, published: dict[str, Any]) -> Preparation:
    own = {**dataclasses.asdict(PreprocessCfg()), **published}
    sides = tower.image_size if isinstance(tower.image_size, tuple) else (tower.image_size,) * 2
    try:
        if sides[0] != sides[1]:
            raise ValueError(f"takes {sides[1]} x {sides[0]} pixels, no square")
        return Preparation(
            resize=sides[0],
            crop=sides[0],
            mode=own["resize_mode"],
            interpolation=own["interpolation"],
            mean=tuple(own["mean"]),
            std=tuple(own["std"]),
        )
    except ValueError as error:
        raise ModelError(f"pictures cannot be prepared for {architecture}: {error}") from error
