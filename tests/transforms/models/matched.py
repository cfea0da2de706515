"""Members whose true places in one another are known, and a matcher that knows them too."""

import dataclasses
import sys
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from tests.transforms.imaging.pictures import photograph
from tests.transforms.samples import make_content, make_edge
from transforms.features import encode_thumbnail
from transforms.imaging import orientation
from transforms.imaging.affine import compose, invert
from transforms.models.matches import Matches, Pair, no_matches
from transforms.models.spec import LocalModel
from transforms.records import LocalPair, MemberRecord

FAKE = LocalModel("fake", "fake_matcher")
HEIGHT, WIDTH = 288, 384
UPRIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_FAR = 999  # bits of a wavelet distance at which the orientation says nothing
Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """A picture made of another.

    Attributes:
        world: seed of the photograph that it shows.
        place: float64 [2, 3], where a pixel of that photograph lies in this picture.
        pixels: uint8 [h, w, 3].
    """

    world: int
    place: npt.NDArray[np.float64]
    pixels: Pixels

    def record(self, name: str) -> MemberRecord:
        """Return what the second read makes of it for a learned matcher."""
        thumbnail = encode_thumbnail(self.pixels, 200_000)
        content = make_content(name).content
        return MemberRecord(content, f"file:///{name}", thumbnail, b"", b"", "", "", "", 0)

    def turned(self, value: int) -> "Member":
        """Return it turned by an EXIF orientation."""
        height, width = self.pixels.shape[:2]
        place = compose(orientation.matrix(value, width, height), self.place)
        return Member(self.world, place, orientation.apply(self.pixels, value))

    def cropped(self, top: int, left: int, height: int, width: int) -> "Member":
        """Return a part of it."""
        place = self.place.copy()
        place[:, 2] -= left, top
        part = np.ascontiguousarray(self.pixels[top : top + height, left : left + width])
        return Member(self.world, place, part)


def whole(world: int) -> Member:
    """Return a photograph as it is."""
    return Member(world, UPRIGHT, photograph(world, HEIGHT, WIDTH))


@dataclasses.dataclass
class TrueMatcher:
    """Gives true matches of pictures that stand alike, as learned matchers do, and some that lie.

    Attributes:
        members: by content id.
        fault: raised for a pair with the member ``bad``.
        calls: the turns in which the first pictures of each call were shown.
    """

    members: dict[bytes, Member]
    bad: bytes = b""
    fault: Exception | None = None
    size_bytes: int = 77
    calls: list[list[int]] = dataclasses.field(default_factory=list)
    loaded: list[str] = dataclasses.field(default_factory=list)

    def load(self, model: LocalModel, device: str) -> "TrueMatcher":
        """Stand for the module of a kind."""
        self.loaded.append(device)
        return self

    def __call__(self, pairs: list[Pair]) -> list[Matches]:
        self.calls.append([a.key[-1] for a, _ in pairs])
        return [self._match(pair) for pair in pairs]

    def _match(self, pair: Pair) -> Matches:
        places = []
        for view in pair:
            if self.fault is not None and view.key[:-1] == self.bad:
                raise self.fault
            member = self.members[view.key[:-1]]
            height, width = member.pixels.shape[:2]
            turned = orientation.matrix(view.key[-1], width, height)
            places.append(compose(turned, member.place))
        worlds = {self.members[view.key[:-1]].world for view in pair}
        between = compose(places[1], invert(places[0]))
        angle = abs(np.degrees(np.arctan2(between[1, 0], between[0, 0])))
        if len(worlds) > 1 or np.linalg.det(between[:, :2]) < 0 or angle > 40:
            return no_matches()
        x, y = np.meshgrid(np.arange(3.5, WIDTH, 8.0), np.arange(3.5, HEIGHT, 8.0))
        world = np.stack([x.ravel(), y.ravel()], axis=1)
        a, b = (world @ place[:, :2].T + place[:, 2] for place in places)
        inside = np.ones(len(world), np.bool_)
        for points, view in zip((a, b), pair, strict=True):
            inside &= ((points >= 0) & (points < view.pixels.shape[1::-1])).all(axis=1)
        a, b = a[inside], b[inside]
        rng = np.random.default_rng(0)
        b = b + rng.normal(0.0, 0.7, b.shape)
        lies = rng.random(len(b)) < 0.4
        b[lies] = rng.uniform(0, 280, (int(lies.sum()), 2))
        confidence = np.where(lies, 0.3, 0.8)
        return Matches(*(part.astype(np.float32) for part in (a, b, confidence)))


def install(
    monkeypatch: pytest.MonkeyPatch, *members: Member, **options: Any
) -> tuple[TrueMatcher, list[MemberRecord]]:
    """Put a matcher that knows some members into the place of a module; return their records."""
    records = [member.record(f"member-{number}") for number, member in enumerate(members)]
    contents = [record.content for record in records]
    matcher = TrueMatcher(dict(zip(contents, members, strict=True)), **options)
    name = f"transforms.models.{FAKE.kind}"
    monkeypatch.setitem(sys.modules, name, matcher)  # type: ignore[arg-type]
    return matcher, records


def pair(a: MemberRecord, b: MemberRecord, **changes: Any) -> LocalPair:
    """Return an undecided pair of two members in this order; far apart as wholes if not said."""
    edge = make_edge(make_content("a"), make_content("b"), "undecided")
    edge = edge._replace(**{"wavelet_distance": _FAR, "local_score": None, **changes})
    return LocalPair(b"component", edge._replace(a=a.content, b=b.content), a, b, 0.5)


def words(member: Member, *, mirrored: bool = False) -> dict[str, int]:
    """Return what words say of a pair: that a member lies in b, turned as its place is undone."""
    back = invert(member.place)
    if mirrored:
        back = compose(orientation.matrix(2, WIDTH, HEIGHT), back)
    z = back[:, 0] * 65536
    return {
        "votes": -9 if mirrored else 9,
        "turn_scale_x": round(float(z[0])),
        "turn_scale_y": round(float(z[1])),
    }


def scaled(member: Member, factor: float) -> Member:
    """Return a member at another size."""
    height, width = member.pixels.shape[:2]
    size = (round(width * factor), round(height * factor))
    matrix = np.diag([size[0] / width, size[1] / height])
    shift = 0.5 * np.diag(matrix) - 0.5
    place = compose(np.concatenate([matrix, shift[:, None]], axis=1), member.place)
    pixels = cv2.resize(member.pixels, size, interpolation=cv2.INTER_AREA)
    return Member(member.world, place, np.asarray(pixels, np.uint8))
