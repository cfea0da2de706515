"""Tests of what a user may name as a model."""

import importlib.util

import pytest

from transforms.models import weights
from transforms.models.embedder import LoadNetwork
from transforms.models.matches import LoadMatcher
from transforms.models.resolve import GLOBAL_NAMES, LOCAL_NAMES, resolve_global, resolve_local
from transforms.models.spec import EMBEDDED_DESCRIPTOR, ORB, LocalModel, ModelError
from transforms.models.weights import Finder

FINDER = Finder("/nonexistent")


def test_the_models_without_weights_need_nothing():
    assert resolve_global("descriptor", FINDER) is EMBEDDED_DESCRIPTOR
    assert resolve_local("orb", FINDER) is ORB
    assert resolve_local("sift", FINDER) == LocalModel("sift", "sift")


@pytest.mark.parametrize("text", ["", "Descriptor", "dino:ViT", "efficientnet_b8", "clip/ViT"])
def test_an_unknown_global_model_is_refused_with_those_that_there_are(text):
    with pytest.raises(ModelError) as caught:
        resolve_global(text, FINDER)
    assert str(caught.value) == (
        f"global_model must be one of {', '.join(GLOBAL_NAMES)}, not {text!r}"
    )


def test_an_unknown_local_model_is_refused_with_those_that_there_are():
    with pytest.raises(ModelError, match="local_model must be one of orb, sift, loftr, "):
        resolve_local("superglue", FINDER)
    assert LOCAL_NAMES == ("orb", "sift", "loftr", "disk_lightglue")


@pytest.mark.parametrize(
    ("text", "library"),
    [
        ("clip:ViT-B-32/openai", "open_clip"),
        ("efficientnet_b7", "torchvision"),
        ("sscd", "torch"),
        ("torchscript:model.pt", "torch"),
        ("onnx:model.onnx", "onnxruntime"),
    ],
)
def test_a_missing_library_is_named_with_how_to_get_it(monkeypatch, text, library):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == library else find(name)
    )
    with pytest.raises(ModelError) as caught:
        resolve_global(text, FINDER)
    assert f"model {text!r} needs " in str(caught.value)
    assert library in str(caught.value)
    assert str(caught.value).endswith("pip install -c requirements.txt '.[models]'")


def test_each_family_is_resolved_by_its_own_module(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    from tests.transforms.models.made import make_efficientnet, make_torchscript

    for named, family in (
        (make_efficientnet(tmp_path), "efficientnet"),
        (make_torchscript(tmp_path), "torchscript"),
        (make_torchscript(tmp_path, "sscd"), "torchscript"),
    ):
        model = resolve_global(named, FINDER)
        assert (model.name, model.family, model.is_learned) == (named, family, True)
    with pytest.raises(ModelError, match="clip needs an architecture"):
        resolve_global("clip:", FINDER)
    with pytest.raises(ModelError, match="onnx needs a file"):
        resolve_global("onnx:", FINDER)


def _loftr(folder):
    pytest.importorskip("kornia")
    import torch
    from kornia.feature import LoFTR

    torch.save(LoFTR(pretrained=None).state_dict(), folder / "loftr.pt")
    return f"loftr:{folder}/loftr.pt"


def _disk_lightglue(folder):
    pytest.importorskip("kornia")
    import torch
    from kornia.feature import DISK, LightGlue

    torch.save(DISK().state_dict(), folder / "disk.pt")
    torch.save(LightGlue(None, input_dim=128).state_dict(), folder / "lightglue.pt")
    return f"disk_lightglue:{folder}/disk.pt,{folder}/lightglue.pt"


def _made(name):
    pytest.importorskip("torch")
    from tests.transforms.models import made

    return getattr(made, name)


@pytest.mark.parametrize(
    ("make", "library"),
    [
        (lambda folder: _made("make_clip")(folder, text=False), "open_clip"),
        (lambda folder: _made("make_efficientnet")(folder), "torchvision"),
        (lambda folder: _made("make_torchscript")(folder), "torch"),
        (lambda folder: _made("make_onnx")(folder), "onnxscript"),
        (_loftr, "kornia"),
        (_disk_lightglue, "kornia"),
    ],
)
def test_x1_each_file_is_hashed_once_on_the_client_and_again_on_a_worker(
    tmp_path, monkeypatch, make, library
):
    pytest.importorskip(library)
    hashed, before = [], weights.sha256_of
    monkeypatch.setattr(weights, "sha256_of", lambda path: hashed.append(path) or before(path))
    named = make(tmp_path)
    if make in (_loftr, _disk_lightglue):
        model = resolve_local(named, FINDER)
        load = LoadMatcher(model)
        files = list(model.weights)
    else:
        model = resolve_global(named, FINDER)
        load = LoadNetwork(model)
        files = [model.weights]
    paths = [one.path for one in files]
    assert hashed == paths
    load("cpu")
    assert hashed == paths * 2
    # What is another by then is read by no library.
    with open(paths[-1], "ab") as file:
        file.write(b"more")
    with pytest.raises(ModelError, match=f"^weights '{paths[-1]}' have the SHA-256 .* on this wor"):
        load("cpu")


@pytest.mark.parametrize("text", ["loftr:", "loftr:indoor:", "disk_lightglue:"])
def test_a_colon_without_a_file_is_refused(tmp_path, text):
    pytest.importorskip("kornia")
    with pytest.raises(ModelError, match=f"needs? .*file.* not '{text}'|'{text}' must name two"):
        resolve_local(text, FINDER)


def test_an_efficientnet_with_a_colon_needs_a_file():
    pytest.importorskip("torchvision")
    with pytest.raises(ModelError, match="efficientnet_b7 needs a file, as in efficientnet_b7:PAT"):
        resolve_global("efficientnet_b7:", FINDER)
