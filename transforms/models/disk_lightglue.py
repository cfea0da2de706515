"""DISK, which finds and describes points, with LightGlue, which matches those of two pictures.

M. Tyszkiewicz et al., "DISK: learning local features with policy gradient", NeurIPS 2020,
arXiv 2006.13566; P. Lindenberger et al., "LightGlue: local feature matching at light speed", ICCV
2023, doi 10.1109/ICCV51070.2023.01616; the networks are kornia's.
"""

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from transforms.models.matches import Matches, Pair, View, fill, is_tiny, no_matches, size_of
from transforms.models.spec import LocalModel, ModelError
from transforms.models.weights import Finder, check, read_state_dict

if TYPE_CHECKING:
    import torch

KIND: Final = "disk_lightglue"
PARTS: Final = ("disk", "lightglue")
# The strongest points of a picture of at most 384 pixels; LightGlue's time grows with their square.
_POINTS: Final = 512
_HELD: Final = 256  # pictures whose points are held; 270 KB each
# Of a descriptor of DISK; the one thing in which LightGlue for DISK is built differently.
_DESCRIPTOR: Final = 128
# Kornia's U-Net takes sides that are multiples of it.
_STEP: Final = 16


def resolve(text: str, finder: Finder) -> LocalModel:
    """Return the model that ``--local_model`` names.

    Args:
        text: ``disk_lightglue``, or with the two files, ``disk_lightglue:DISK,LIGHTGLUE``.
        finder: of weights; where it names a SHA-256, it names two, with a comma between.

    Raises:
        ModelError: the weights are missing or refused, or are those of another network.
    """
    _, separator, rest = text.partition(":")
    paths = rest.split(",") if separator else []
    if paths and (len(paths) != len(PARTS) or not all(paths)):
        raise ModelError(f"local_model {text!r} must name two files, {KIND}:DISK,LIGHTGLUE")
    hashes: Sequence[str | None] = finder.sha256.split(",") if finder.sha256 else (None, None)
    if len(hashes) != len(PARTS):
        raise ModelError(f"the SHA-256 of {KIND} must be two, of DISK and of LightGlue: HEX,HEX")
    finders = [dataclasses.replace(finder, sha256=one) for one in hashes]
    if paths:
        weights = [one.file(path) for one, path in zip(finders, paths, strict=True)]
    else:
        weights = [one.known(f"{KIND}:{part}") for one, part in zip(finders, PARTS, strict=True)]
    _networks(*(one.path for one in weights))
    return LocalModel(text, KIND, "", tuple(weights))


def load(model: LocalModel, device: str) -> "DiskLightGlue":
    """Load both networks without a download.

    Args:
        model: of ``resolve``.
        device: cpu or cuda:N.

    Raises:
        ModelError: a file is missing, is another than on the client, or does not fit.
    """
    disk, lightglue = _networks(*(check(one) for one in model.weights))
    return DiskLightGlue(disk.eval().to(device), lightglue.eval().to(device), device)


def _networks(of_disk: str, of_lightglue: str) -> tuple["torch.nn.Module", "torch.nn.Module"]:
    """Build both networks with the weights of two files."""
    from kornia.feature import DISK, LightGlue

    disk = DISK()
    fill(disk, read_state_dict(of_disk), of_disk, "DISK")
    build: Any = LightGlue  # its annotation leaves out None, which downloads nothing
    lightglue = build(None, input_dim=_DESCRIPTOR)
    state = _renamed(read_state_dict(of_lightglue), lightglue.conf.n_layers)
    fill(lightglue, state, of_lightglue, "LightGlue for DISK")
    return disk, lightglue


def _renamed(state: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return LightGlue's weights by the names of today; published files have earlier ones."""
    renamed = {}
    for name, tensor in state.items():
        head, _, rest = name.partition(".")
        number, _, last = rest.partition(".")
        if head in ("self_attn", "cross_attn") and number.isdecimal() and int(number) < layers:
            name = f"transformers.{number}.{head}.{last}"
        renamed[name] = tensor
    return renamed


class _Points(NamedTuple):
    """What DISK found in a view, on the device."""

    places: "torch.Tensor"  # float32 [n, 2], x and y
    descriptors: "torch.Tensor"  # float32 [n, 128], of length 1
    size: "torch.Tensor"  # float32 [2], width and height of the view


class DiskLightGlue:
    """Matches pairs; the points of a picture are looked for once in all of its pairs."""

    def __init__(self, disk: Any, lightglue: Any, device: str) -> None:
        """Take networks of kornia's in evaluation mode, and where they lie."""
        self.disk = disk
        self.lightglue = lightglue
        self.device = device
        self.size_bytes = size_of(disk) + size_of(lightglue)
        self._held: OrderedDict[bytes, _Points] = OrderedDict()

    def __call__(self, pairs: Sequence[Pair]) -> list[Matches]:
        """Return the matches of each pair."""
        import torch

        with torch.inference_mode():
            points = self._points(view for pair in pairs for view in pair if not is_tiny(view))
            return [
                no_matches()
                if is_tiny(a) or is_tiny(b)
                else self._match(points[a.key], points[b.key])
                for a, b in pairs
            ]

    def _points(self, views: Iterable[View]) -> dict[bytes, _Points]:
        """Return the points of views by their keys, those that are not held by DISK."""
        found: dict[bytes, _Points] = {}
        batches: defaultdict[tuple[int, ...], dict[bytes, View]] = defaultdict(dict)
        for view in views:
            held = self._held.pop(view.key, None)
            if held is not None:
                found[view.key] = self._held[view.key] = held
            elif view.key not in found:
                batches[view.pixels.shape][view.key] = view
        for batch in batches.values():
            for key, points in zip(batch, self._detect(list(batch.values())), strict=True):
                found[key] = self._held[key] = points
        while len(self._held) > _HELD:
            self._held.popitem(last=False)
        return found

    def _detect(self, views: Sequence[View]) -> list[_Points]:
        import torch

        pixels = np.stack([view.pixels for view in views]).transpose(0, 3, 1, 2)
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).float() / 255.0
        height, width = images.shape[2:]
        features = self.disk(
            images, n=_POINTS, pad_if_not_divisible=bool(height % _STEP or width % _STEP)
        )
        size = torch.tensor([width, height], dtype=torch.float32, device=self.device)
        return [_Points(one.keypoints, one.descriptors, size) for one in features]

    def _match(self, a: _Points, b: _Points) -> Matches:
        if not len(a.places) or not len(b.places):
            return no_matches()
        # One pair at a time: LightGlue drops points as it goes, in each pair others.
        data = {
            f"image{side}": {
                "keypoints": points.places[None],
                "descriptors": points.descriptors[None],
                "image_size": points.size[None],
            }
            for side, points in enumerate((a, b))
        }
        out = self.lightglue(data)
        numbers = out["matches"][0]
        return Matches(
            a.places[numbers[:, 0]].cpu().numpy(),
            b.places[numbers[:, 1]].cpu().numpy(),
            out["scores"][0].float().cpu().numpy(),
        )
