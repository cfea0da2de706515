"""LoFTR, which matches two pictures cell by cell without looking for points first.

J. Sun et al., "LoFTR: detector-free local feature matching with transformers", CVPR 2021,
doi 10.1109/CVPR46437.2021.00881; the network is kornia's.
"""

import copy
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from transforms.imaging.points import grey_of
from transforms.models.matches import Matches, Pair, View, fill, is_tiny, no_matches, size_of
from transforms.models.spec import LocalModel, ModelError
from transforms.models.weights import Finder, check, read_state_dict

if TYPE_CHECKING:
    import torch

KIND: Final = "loftr"
PARTS: Final = ("loftr",)
#: Trained on MegaDepth, and twice on ScanNet; the last encodes positions in another way.
VARIANTS: Final = ("outdoor", "indoor", "indoor_new")
# Sides are padded to a multiple of it, so that there are few shapes, and batches of one shape. The
# network's coarse cells are 8 pixels wide.
_STEP: Final = 32
# On a CPU a pair of 384 x 288 pixels takes 330 MB, and 3.4 s of one thread whether it is alone or
# one of eight; so batches gain nothing there, and one of 16 would take 5 GB of each worker.
_AT_ONCE_ON_CPU: Final = 1
# LoFTR puts the centre of the first pixel at 0.5 (kornia.feature.LoFTR, "Convention").
_CENTRE: Final = 0.5


def resolve(text: str, finder: Finder) -> LocalModel:
    """Return the LoFTR that ``--local_model`` names.

    Args:
        text: ``loftr``, ``loftr:VARIANT``, ``loftr:PATH`` of a variant other than indoor_new, or
            ``loftr:VARIANT:PATH``.
        finder: of weights.

    Raises:
        ModelError: the weights are missing or refused, or are those of another network.
    """
    _, _, rest = text.partition(":")
    variant, _, path = rest.partition(":")
    if variant not in VARIANTS:
        variant, path = VARIANTS[0], rest
    if text.endswith(":"):
        raise ModelError(f"{KIND} needs a file after the colon, or no colon, not {text!r}")
    weights = finder.file(path) if path else finder.known(f"{KIND}:{variant}")
    _network(weights.path, variant)
    return LocalModel(text, KIND, variant, (weights,))


def load(model: LocalModel, device: str) -> "LoftrMatcher":
    """Load LoFTR without a download.

    Args:
        model: of ``resolve``.
        device: cpu or cuda:N.

    Raises:
        ModelError: the file is missing, is another than on the client, or does not fit.
    """
    (weights,) = model.weights
    network = _network(check(weights), model.variant)
    return LoftrMatcher(network.eval().to(device), device)


def _network(path: str, variant: str) -> "torch.nn.Module":
    """Build the network with the weights of a file."""
    from kornia.feature import LoFTR
    from kornia.feature.loftr.loftr import default_cfg

    config: dict[str, Any] = copy.deepcopy(default_cfg)
    config["coarse"]["temp_bug_fix"] = variant == "indoor_new"
    network = LoFTR(pretrained=None, config=config)
    state = read_state_dict(path)
    # As the published checkpoints have it.
    state = {name.removeprefix("matcher."): tensor for name, tensor in state.items()}
    fill(network, state, path, f"LoFTR ({variant})")
    return network


class LoftrMatcher:
    """Matches pairs in batches of one shape.

    Attributes:
        size_bytes: of the network in memory.
        at_once: pairs that the network sees at once, at most.
    """

    def __init__(self, network: Any, device: str) -> None:
        """Take a network of kornia's in evaluation mode, and where it lies."""
        self.network = network
        self.device = device
        self.size_bytes = size_of(network)
        self.at_once = _AT_ONCE_ON_CPU if device == "cpu" else sys.maxsize

    def __call__(self, pairs: Sequence[Pair]) -> list[Matches]:
        """Return the matches of each pair."""
        found = [no_matches()] * len(pairs)
        batches: defaultdict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
        for number, (a, b) in enumerate(pairs):
            if not is_tiny(a) and not is_tiny(b):
                batches[_padded(a), _padded(b)].append(number)
        for numbers in batches.values():
            while numbers:
                some, numbers = numbers[: self.at_once], numbers[self.at_once :]
                results = self._match([pairs[number] for number in some])
                for number, matches in zip(some, results, strict=True):
                    found[number] = matches
        return found

    def _match(self, pairs: Sequence[Pair]) -> list[Matches]:
        import torch

        with torch.inference_mode():
            data: dict[str, torch.Tensor] = {}
            for side in (0, 1):
                image, mask = self._batch([pair[side] for pair in pairs])
                data[f"image{side}"], data[f"mask{side}"] = image, mask
            out = self.network(data)
        a, b, confidence, numbers = (
            out[name].cpu().numpy()
            for name in ("keypoints0", "keypoints1", "confidence", "batch_indexes")
        )
        results = []
        for number in range(len(pairs)):
            mine = numbers == number
            results.append(Matches(a[mine] - _CENTRE, b[mine] - _CENTRE, confidence[mine]))
        return results

    def _batch(self, views: Sequence[View]) -> tuple["torch.Tensor", "torch.Tensor"]:
        """Return lumas, float32 [n, 1, h, w] in 0..1, and where they are no padding, [n, h, w]."""
        import torch

        height, width = _padded(views[0])
        pixels = np.zeros((len(views), 1, height, width), np.float32)
        masks = np.zeros((len(views), height, width), np.bool_)
        for number, view in enumerate(views):
            grey = grey_of(view.pixels)
            inside = (slice(grey.shape[0]), slice(grey.shape[1]))
            pixels[number, 0][inside] = grey / np.float32(255.0)
            masks[number][inside] = True
        return (
            torch.from_numpy(pixels).to(self.device),
            torch.from_numpy(masks).to(self.device),
        )


def _padded(view: View) -> tuple[int, int]:
    """Return the height and width of a view with its padding."""
    height, width = view.pixels.shape[:2]
    return -(-height // _STEP) * _STEP, -(-width // _STEP) * _STEP
