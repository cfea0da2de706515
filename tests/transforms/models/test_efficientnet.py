"""Tests of EfficientNet: its vectors are what torchvision's classifier would see."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
torchvision = pytest.importorskip("torchvision")

from torchvision.models import EfficientNet_B0_Weights, get_model  # noqa: E402

from tests.transforms.models.made import make_efficientnet  # noqa: E402
from tests.transforms.models.seen import FILES, SAME, embed, turned_cosine, worst  # noqa: E402
from transforms.models.efficientnet import _preparation, resolve  # noqa: E402
from transforms.models.network import load_network  # noqa: E402
from transforms.models.spec import ModelError, Weights  # noqa: E402
from transforms.models.torch_network import build  # noqa: E402
from transforms.models.weights import Finder  # noqa: E402

FINDER = Finder("/nonexistent")


class Fetched(Finder):
    """A finder that has fetched the one file that it was given."""

    def known(self, name: str) -> Weights:
        """Return that file."""
        assert name == "efficientnet_b0"
        return self.file(self.cache)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    return make_efficientnet(tmp_path_factory.mktemp("efficientnet"))


@pytest.fixture(scope="module")
def model(named):
    return resolve(named, FINDER)


@pytest.fixture(scope="module")
def network(model):
    return load_network(model, "cpu")


def test_a_model_is_told_by_its_size_and_its_file(model, named):
    assert (model.name, model.family, model.variant) == (named, "efficientnet", "efficientnet_b0")
    assert model.weights.path == named.partition(":")[2]
    assert model.dimensions == 1280
    assert (model.preparation.resize, model.preparation.crop) == (256, 224)
    assert (model.preparation.mode, model.preparation.interpolation) == ("shortest", "bicubic")
    assert 0 < model.reject_similarity < model.propose_similarity < 1


def test_vectors_equal_those_of_torchvision(model, network):
    library = get_model("efficientnet_b0", weights=None)
    library.load_state_dict(torch.load(model.weights.path, weights_only=True))
    library.classifier = torch.nn.Identity()
    library.eval()
    transform = EfficientNet_B0_Weights.IMAGENET1K_V1.transforms()
    found = worst(model, network, transform, library)
    assert {name: cosine for name, cosine in found.items() if cosine < SAME} == {}


def test_a_copy_has_the_same_vector(model, network):
    first, again = (embed(model, network, FILES["odd"]) for _ in range(2))
    assert np.array_equal(first, again)


def test_a_turned_input_has_the_vector_of_the_turned_file(model, network):
    assert turned_cosine(model, network) >= SAME


def test_fetched_weights_are_those_of_a_file(model):
    fetched = resolve("efficientnet_b0", Fetched(model.weights.path))
    assert (fetched.name, fetched.weights) == ("efficientnet_b0", model.weights)


def test_a_classifier_of_other_classes_makes_no_difference(tmp_path, model, network):
    state = torch.load(model.weights.path, weights_only=True)
    state["classifier.1.weight"] = torch.zeros(7, 1280)
    state["classifier.1.bias"] = torch.zeros(7)
    torch.save({"state_dict": state}, tmp_path / "seven.pth")
    other = load_network(resolve(f"efficientnet_b0:{tmp_path}/seven.pth", FINDER), "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    assert np.array_equal(other(pixels), network(pixels))


@pytest.mark.parametrize("size", [0, 1, 7])
def test_each_size_is_prepared_for_and_measured_as_torchvision_says(tmp_path, size):
    name = f"efficientnet_b{size}"
    whole = build(lambda: get_model(name, weights=None))
    state = {
        key: torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for key, tensor in whole.state_dict().items()
    }
    torch.save(state, tmp_path / "zeros.pth")
    model = resolve(f"{name}:{tmp_path}/zeros.pth", FINDER)
    own = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    assert [model.preparation.crop] == own.crop_size
    assert [model.preparation.resize] == own.resize_size
    assert model.preparation.interpolation == own.interpolation.value
    whole.classifier = torch.nn.Identity()
    crop = model.preparation.crop
    with torch.device("meta"):
        assert whole(torch.zeros(2, 3, crop, crop)).shape == (2, model.dimensions)


def test_the_two_versions_of_b1_are_told_apart_by_the_hash_in_their_names():
    first, second = (_preparation("efficientnet_b1", sha) for sha in ("bac287d4", "c27df63c"))
    assert (first.resize, first.interpolation) == (256, "bicubic")
    assert (second.resize, second.interpolation) == (255, "bilinear")
    assert _preparation("efficientnet_b1", "0" * 64) == second


def test_r12_weights_of_another_size_are_refused_with_their_path(named):
    path = named.partition(":")[2]
    with pytest.raises(ModelError, match="do not fit efficientnet_b1: of their tensors") as caught:
        resolve(f"efficientnet_b1:{path}", FINDER)
    assert repr(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused():
    with pytest.raises(ModelError, match="cannot be read"):
        resolve("efficientnet_b0:/nowhere/weights.pth", FINDER)
