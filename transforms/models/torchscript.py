"""TorchScript files: SSCD as its authors publish it, and what users name.

``sscd`` and ``sscd:disc_large`` take fetched files; ``sscd:PATH`` and ``torchscript:PATH`` take a
user's. TorchScript is a program, so it runs only where its user said so: on the client, with two
grey pictures, to see that it gives vectors (which takes about as long as to read it), and on the
workers.
"""

import warnings
from typing import Final

import torch

from transforms.imaging.preparation import Preparation
from transforms.models import catalogue
from transforms.models.network import Network, needs_of, told_by
from transforms.models.sidecar import Sidecar, model_of, read_sidecar
from transforms.models.spec import GlobalModel, ModelError
from transforms.models.torch_network import TorchNetwork
from transforms.models.weights import Finder, check

__all__ = ["load", "resolve"]

# E. Pizzi et al., "A Self-Supervised Descriptor for Image Copy Detection", CVPR 2022; pictures are
# prepared for batches as the README of facebookresearch/sscd-copy-detection says: squashed to 320.
# There, too: from a cosine of 0.75 on 90 % of the pairs of DISC2021 are copies (sscd_disc_mixup).
# Hard edits lie below, and unlike pictures around 0, for its training spreads them evenly.
_SSCD: Final = Sidecar(
    Preparation(resize=320, crop=320, mode="squash", interpolation="bilinear"),
    reject_similarity=0.2,
    propose_similarity=0.75,
    threshold_source="propose: SSCD's README, 90 % precision on DISC2021; reject: assumed, well "
    "below",
)


def resolve(text: str, finder: Finder) -> GlobalModel:
    """Return the model that ``sscd``, ``sscd:PATH`` or ``torchscript:PATH`` names.

    Args:
        text: the option's value.
        finder: of weights.

    Raises:
        ModelError: the file is missing or refused, or gives no vectors for pictures.
    """
    family, separator, path = text.partition(":")
    if not path and (separator or family != "sscd"):
        raise ModelError(f"{family} needs a file, as in {family}:PATH, not {text!r}")
    weights = finder.known(text) if catalogue.has(text) else finder.file(path)
    known = _SSCD if family == "sscd" else read_sidecar(weights.path)
    network = _network(weights.path, known.preparation, known.output, "cpu")
    return model_of(text, "torchscript", weights, known, network)


def load(model: GlobalModel, device: str) -> Network:
    """Load a model of ``resolve``, see ``network``."""
    weights, preparation = needs_of(model)
    return _network(check(weights), preparation, model.variant, device)


def _network(path: str, preparation: Preparation, output: str, device: str) -> Network:
    try:
        with warnings.catch_warnings():
            # PyTorch wants new programs made in another way; the published ones are TorchScript.
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
            module = torch.jit.load(path, map_location=device)
    except Exception as error:  # whatever PyTorch makes of bytes that are no program
        # Of other files PyTorch says, in several sentences, what its reader of archives missed.
        known = "PytorchStreamReader" in str(error)
        reason = "it is another kind of file, or is damaged" if known else told_by(error)
        raise ModelError(f"{path!r} is no TorchScript that runs here: {reason}") from error
    return TorchNetwork(module, preparation, device, output)
