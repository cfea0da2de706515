"""Pictures as files, and what a network makes of them: through the second read, and by hand."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.pictures import grey, photo, saved, turned
from tests.transforms.samples import make_content
from transforms.features import MemberSettings, read_member
from transforms.imaging.decode import DecodeLimits
from transforms.models.network import Network
from transforms.models.spec import GlobalModel

FILES = {
    "landscape": saved(photo(1, 480, 320)),
    "portrait, subsampled": saved(photo(2, 301, 453), subsampling=2, quality=85),
    "tiny": saved(photo(3, 41, 30)),
    "odd": saved(photo(4, 227, 223), "PNG"),
    "grey": saved(photo(5, 333, 250).convert("L")),
    "panorama": saved(grey(photo(6, 900, 120)), "PNG"),
    # So large that a decoder would be tempted to halve it.
    "large": saved(photo(7, 2600, 1950), quality=90),
}
SAME = 0.9999  # cosine from which two vectors are those of one picture


def embed(model: GlobalModel, network: Network, data: bytes, turns: bytes = b"") -> np.ndarray:
    """Return what a network makes of a file, as the pipeline reads it: rows of length 1."""
    preparation = model.preparation
    assert preparation is not None
    with Image.open(io.BytesIO(data)) as image:
        content = make_content("one", width=image.width, height=image.height)
    settings = MemberSettings(points=None, preparation=preparation)
    member = read_member(content, data, turns, settings, DecodeLimits())
    return _to_unit(network(preparation.unpack(member.inputs)))


def embed_pixels(model: GlobalModel, network: Network, data: bytes) -> np.ndarray:
    """Return what a network makes of a file's own pixels."""
    assert model.preparation is not None
    pixels = np.asarray(opened(data))
    return _to_unit(network(model.preparation.apply(pixels)[None]))


def by_hand(
    data: bytes, transform: Callable[[Image.Image], Any], forward: Callable[[Any], Any]
) -> np.ndarray:
    """Return what a library makes of a file, with its own transform."""
    with torch.inference_mode():
        return _to_unit(np.asarray(forward(transform(opened(data))[None])))


def opened(data: bytes) -> Image.Image:
    """Return the picture of a file."""
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB")


def worst(
    model: GlobalModel,
    network: Network,
    transform: Callable[[Image.Image], Any],
    forward: Callable[[Any], Any],
) -> dict[str, float]:
    """Return, of each file, the lowest cosine of the network's vectors with the library's."""
    found = {}
    for name, data in FILES.items():
        expected = by_hand(data, transform, forward)
        rows = np.concatenate([embed_pixels(model, network, data), embed(model, network, data)])
        found[name] = float((rows @ expected.T).min())
    return found


def turned_cosine(model: GlobalModel, network: Network) -> float:
    """Return the cosine of a picture's turned input with the picture that was turned and saved."""
    image = photo(8, 480, 360)
    rows = embed(model, network, saved(image, "PNG"), b"\x08")
    return float(rows[1] @ embed(model, network, saved(turned(image), "PNG"))[0])


def _to_unit(vectors: np.ndarray) -> np.ndarray:
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (norms > 0).all()
    return vectors / norms
