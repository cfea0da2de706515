"""Tests of DISK with LightGlue and random weights: kornia's own matches, loaded by path."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("kornia")

from safetensors.torch import save_file  # noqa: E402

from tests.transforms.imaging.pictures import photograph  # noqa: E402
from transforms.models.disk_lightglue import DiskLightGlue, load, resolve  # noqa: E402
from transforms.models.matches import View  # noqa: E402
from transforms.models.spec import ModelError  # noqa: E402
from transforms.models.weights import Finder  # noqa: E402

_LAYERS = 9


def networks(seed: int = 0) -> tuple[Any, Any]:
    """Return DISK and LightGlue with random weights that take any match."""
    from kornia.feature import DISK, LightGlue

    torch.manual_seed(seed)
    return DISK().eval(), loosened(LightGlue(None, input_dim=128).eval())


def loosened(lightglue: Any) -> Any:
    """Have random weights give matches: nothing is dropped, and nothing is too weak."""
    lightglue.conf.filter_threshold = 0.0
    lightglue.conf.width_confidence = lightglue.conf.depth_confidence = -1
    return lightglue


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write random weights as the published files have them."""
    folder = tmp_path_factory.mktemp("disk")
    disk, lightglue = networks()
    torch.save({"extractor": disk.state_dict()}, folder / "disk.pth")
    state = lightglue.state_dict()
    del state["confidence_thresholds"]
    for layer in range(_LAYERS):
        for kind in ("self_attn", "cross_attn"):
            state = {
                name.replace(f"transformers.{layer}.{kind}", f"{kind}.{layer}"): tensor
                for name, tensor in state.items()
            }
    assert not any(name.startswith("transformers") for name in state)
    torch.save(state, folder / "lightglue.pth")
    return f"disk_lightglue:{folder}/disk.pth,{folder}/lightglue.pth"


@pytest.fixture(scope="module")
def matcher(text: str) -> DiskLightGlue:
    made = load(resolve(text, Finder("")), "cpu")
    loosened(made.lightglue)
    return made


def view(seed: int, height: int, width: int) -> View:
    return View(bytes([seed, height, width]), photograph(seed, height, width))


def image(of: View) -> Any:
    return torch.from_numpy(of.pixels.copy()).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize(("height", "width"), [(80, 96), (70, 90)])
def test_matches_are_those_of_kornia_called_by_hand(
    matcher: DiskLightGlue, height: int, width: int
) -> None:
    disk, lightglue = networks()
    a, b = view(1, 96, 64), view(2, height, width)
    with torch.inference_mode():
        (of_a,), (of_b,) = (disk(image(one), n=512, pad_if_not_divisible=True) for one in (a, b))
        data = {
            f"image{side}": {
                "keypoints": one.keypoints[None],
                "descriptors": one.descriptors[None],
                "image_size": torch.tensor([of.pixels.shape[1::-1]]),
            }
            for side, (one, of) in enumerate(((of_a, a), (of_b, b)))
        }
        out = lightglue(data)
    (found,) = matcher([(a, b)])
    numbers = out["matches"][0]
    assert len(found.a) == len(numbers) > 0
    np.testing.assert_allclose(found.a, of_a.keypoints[numbers[:, 0]].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.b, of_b.keypoints[numbers[:, 1]].numpy(), atol=1e-4)
    np.testing.assert_allclose(found.confidence, out["scores"][0].numpy(), atol=1e-5)


def test_an_image_lies_in_itself_where_it_lies(matcher: DiskLightGlue) -> None:
    a = view(3, 96, 128)
    (found,) = matcher([(a, View(b"same", a.pixels))])
    assert len(found.a) >= 5
    np.testing.assert_array_equal(found.a, found.b)


def test_pairs_of_several_shapes_match_as_they_do_alone(matcher: DiskLightGlue) -> None:
    a, b, c = view(1, 96, 64), view(2, 96, 64), view(3, 70, 90)
    tiny = View(b"tiny", photograph(5, 64, 200)[:31])
    pairs = [(a, b), (c, a), (tiny, a), (b, c), (b, a)]
    together = matcher(pairs)
    for pair, found in zip(pairs, together, strict=True):
        fresh = DiskLightGlue(matcher.disk, matcher.lightglue, "cpu")
        (alone,) = fresh([pair])
        np.testing.assert_array_equal(found.a, alone.a)
        np.testing.assert_array_equal(found.b, alone.b)
    assert len(together[2].a) == 0


def test_points_of_a_member_are_looked_for_once(text: str) -> None:
    matcher = load(resolve(text, Finder("")), "cpu")
    shapes = []
    disk = matcher.disk

    def counted(images: Any, **options: Any) -> Any:
        shapes.append(tuple(images.shape))
        return disk(images, **options)

    matcher.disk = counted
    a, b, c = view(1, 96, 64), view(2, 96, 64), view(3, 64, 96)
    matcher([(a, b), (a, c), (b, c)])
    matcher([(b, a), (c, b)])
    assert shapes == [(2, 3, 96, 64), (1, 3, 64, 96)]


def test_a_picture_without_points_matches_nothing(matcher: DiskLightGlue) -> None:
    flat = View(b"flat", np.full((64, 64, 3), 90, np.uint8))
    (found,) = matcher([(flat, view(1, 64, 64))])
    assert len(found.a) == len(found.b) == len(found.confidence)


def test_two_files_are_named_with_two_hashes(text: str) -> None:
    model = resolve(text, Finder(""))
    assert (model.kind, len(model.weights)) == ("disk_lightglue", 2)
    hashes = ",".join(one.sha256 for one in model.weights)
    assert resolve(text, Finder("", sha256=hashes)) == model
    wrong = {
        "disk_lightglue:one": "must name two files",
        "disk_lightglue:one,": "must name two files",
        "disk_lightglue:/no/one,/no/two": "'/no/one'",
        "disk_lightglue": "disk_lightglue:disk",
    }
    for named, reason in wrong.items():
        with pytest.raises(ModelError, match=reason) as refused:
            resolve(named, Finder("/no/cache"))
        assert "\n" not in str(refused.value)
    with pytest.raises(ModelError, match="must be two"):
        resolve(text, Finder("", sha256="0" * 64))
    with pytest.raises(ModelError, match="SHA-256"):
        resolve(text, Finder("", sha256=f"{model.weights[0].sha256},{'0' * 64}"))


def test_x1_r12_weights_that_do_not_fit_are_refused_in_one_line(text: str, tmp_path: Path) -> None:
    disk, lightglue = text.partition(":")[2].split(",")
    other = tmp_path / "other.safetensors"
    save_file({"unet.path_down.0.weight": torch.zeros(2)}, other)
    shaped = {name: torch.zeros(3) for name in networks()[1].state_dict()}
    misshapen = tmp_path / "shape.safetensors"
    save_file(shaped, misshapen)
    for named, path, what in (
        (f"{other},{lightglue}", other, "DISK: "),
        (f"{lightglue},{lightglue}", Path(lightglue), "DISK: "),
        (f"{disk},{disk}", Path(disk), "LightGlue for DISK: "),
        (f"{disk},{misshapen}", misshapen, "LightGlue for DISK: size mismatch for "),
    ):
        with pytest.raises(ModelError) as refused:
            load(resolve(f"disk_lightglue:{named}", Finder("")), "cpu")
        message = str(refused.value)
        assert "\n" not in message
        assert f"{str(path)!r} do not fit {what}" in message
