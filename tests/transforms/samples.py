"""Made-up records for the tests of the transforms."""

import hashlib

import numpy as np

from tests.transforms.grouping.keys import compact_keys
from transforms.contents import content_of
from transforms.grouping.rank import RankFacts, encode_rank
from transforms.imaging.layout import LAYOUT_BYTES
from transforms.records import Content, Edge, Fingerprint, ImageRef


def digest(name: str) -> bytes:
    """Return 32 bytes that stand for a name."""
    return hashlib.sha256(name.encode()).digest()


def make_ref(name: str, **changes) -> ImageRef:
    """Return a reference to an input that need not exist."""
    ref = ImageRef(
        f"file:///in/{name}", f"/in/{name}", name, 0, 1000, "e", 1_600_000_000_000_000, ""
    )
    return ref._replace(**changes)


def make_image(name: str, pixels: str = "", *, area: float = 1e6, **changes) -> Fingerprint:
    """Return a fingerprint; images with the same ``pixels`` are one content."""
    ref = changes.pop("ref", make_ref(name))
    rank = encode_rank(
        RankFacts(
            int(area),
            area,
            False,
            False,
            90,
            0.5,
            0,
            None,
            ref.input_index,
            ref.size_bytes,
            ref.below,
            ref.uri,
        )
    )
    keys = np.random.default_rng(int.from_bytes(digest(pixels or name)[:4], "big"))
    image = Fingerprint(
        ref=ref,
        format="JPEG",
        width=500,
        height=375,
        frames=1,
        sha256=digest(name),
        pixel_hash=digest(pixels or name),
        wavelet_keys=key_forms(keys.integers(0, 256, (8, 32), dtype=np.uint8)),
        color=bytes(108),
        layout=bytes(LAYOUT_BYTES),
        words=b"",
        texture=0.5,
        sharpness=0.5,
        contrast=0.5,
        brightness=0.5,
        noise=0.1,
        quality_score=0.6,
        rank=rank,
    )
    return image._replace(**changes)


def key_forms(keys: np.ndarray) -> bytes:
    """Return what an image carries of its keys in the eight orientations, uint8 [8, 32]."""
    return keys[0].tobytes() + compact_keys(keys[None]).tobytes()


def make_content(name: str, **changes) -> Content:
    """Return the content of one made-up image."""
    return content_of(make_image(name, **changes))


def make_edge(first: Content, second: Content, verdict: str = "accept", **changes) -> Edge:
    """Return a compared edge, its ends in order."""
    a, b = sorted((first.content, second.content))
    edge = Edge(
        a,
        b,
        "wavelet",
        12,
        1,
        0,
        0.95,
        0.97,
        0.9,
        40,
        0.88,
        0.8,
        "reencoded",
        0,
        verdict,
        "local",
        "",
        "",
        "",
        b"",
    )
    return edge._replace(**changes)
