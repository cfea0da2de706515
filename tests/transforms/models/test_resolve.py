"""Tests of what a user may name as a model."""

import importlib.util

import pytest

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
