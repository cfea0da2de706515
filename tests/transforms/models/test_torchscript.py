"""Tests of TorchScript files: SSCD's way and a user's own."""

import json
import os
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms")

from tests.transforms.models.made import (  # noqa: E402
    DIMENSIONS,
    make_torchscript,
    small_network,
)
from tests.transforms.models.seen import FILES, SAME, embed, turned_cosine, worst  # noqa: E402
from transforms.imaging.preparation import Preparation  # noqa: E402
from transforms.models.network import load_network  # noqa: E402
from transforms.models.spec import ModelError, Weights  # noqa: E402
from transforms.models.torchscript import resolve  # noqa: E402
from transforms.models.weights import Finder  # noqa: E402

FINDER = Finder("/nonexistent")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Fetched(Finder):
    """A finder that has fetched the one file that it was given."""

    def known(self, name: str) -> Weights:
        """Return that file."""
        assert name == "sscd"
        return self.file(self.cache)


def by_library(path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
        return torch.jit.load(path).eval()


def test_sscd_equals_its_own_example(tmp_path):
    model = resolve(make_torchscript(tmp_path, "sscd"), FINDER)
    assert model.preparation == Preparation(320, 320, "squash", "bilinear")
    assert (model.family, model.dimensions, model.propose_similarity) == (
        "torchscript",
        DIMENSIONS,
        0.75,
    )
    assert 0 < model.reject_similarity < 0.5
    # As the README of facebookresearch/sscd-copy-detection has it.
    skew_320 = transforms.Compose(
        [
            transforms.Resize([320, 320]),
            transforms.ToTensor(),
            transforms.Normalize(mean=MEAN, std=STD),
        ]
    )
    network = load_network(model, "cpu")
    found = worst(model, network, skew_320, by_library(model.weights.path))
    assert {name: cosine for name, cosine in found.items() if cosine < SAME} == {}
    assert turned_cosine(model, network) >= SAME
    first, again = (embed(model, network, FILES["odd"]) for _ in range(2))
    assert np.array_equal(first, again)


def test_fetched_sscd_is_that_of_a_file(tmp_path):
    model = resolve(make_torchscript(tmp_path, "sscd"), FINDER)
    assert resolve("sscd", Fetched(model.weights.path)).weights == model.weights


def test_a_file_is_prepared_for_as_the_file_beside_it_says(tmp_path):
    named = make_torchscript(tmp_path)
    path = named.partition(":")[2]
    beside = {
        "resize": 160,
        "crop": 128,
        "interpolation": "bilinear",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "reject_similarity": 0.25,
        "propose_similarity": 0.8,
    }
    with open(f"{path}.json", "w") as file:
        json.dump(beside, file)
    model = resolve(named, FINDER)
    assert (model.reject_similarity, model.propose_similarity) == (0.25, 0.8)
    assert model.threshold_source == f"{path}.json: reject_similarity, propose_similarity"
    own = transforms.Compose(
        [
            transforms.Resize(160),
            transforms.CenterCrop(128),
            transforms.ToTensor(),
            transforms.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    found = worst(model, load_network(model, "cpu"), own, by_library(path))
    assert {name: cosine for name, cosine in found.items() if cosine < SAME} == {}


def test_a_file_of_which_nothing_is_known_rejects_nothing(tmp_path):
    model = resolve(make_torchscript(tmp_path), FINDER)
    assert model.preparation == Preparation(224, 224)
    assert model.reject_similarity == 0.0
    assert "rejects nothing" in model.threshold_source


class InDict(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = small_network()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"classes": x.mean(dim=[2, 3]), "vector": self.inner(x)}


class InTuple(InDict):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.inner(x), x


@pytest.mark.parametrize("kind", [InDict, InTuple])
def test_one_of_several_outputs_is_taken(tmp_path, kind):
    plain = resolve(make_torchscript(tmp_path, "plain"), FINDER)
    named = make_torchscript(tmp_path, network=kind())
    if kind is InDict:
        with open(f"{named.partition(':')[2]}.json", "w") as file:
            json.dump({"output": "vector"}, file)
    model = resolve(named, FINDER)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    vectors = [load_network(one, "cpu")(pixels) for one in (model, plain)]
    assert np.array_equal(*vectors)


class Wrong(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(3, -1, 5)


def test_what_gives_no_vectors_is_refused_with_its_path(tmp_path):
    named = make_torchscript(tmp_path, network=torch.nn.Conv2d(3, 4, 8, 8))
    with pytest.raises(ModelError, match=r"torchscript.pt' gives \[2, 4, 28, 28\] for 2 pictures"):
        resolve(named, FINDER)
    named = make_torchscript(tmp_path, network=Wrong())
    with pytest.raises(ModelError, match=r"torchscript.pt' does not run on float32") as caught:
        resolve(named, FINDER)
    assert str(caught.value).endswith("shape '[3, -1, 5]' is invalid for input of size 301056")
    named = make_torchscript(tmp_path, network=InDict())
    with pytest.raises(ModelError, match=r"torchscript.pt' does not run on float32"):
        resolve(named, FINDER)


@pytest.mark.parametrize("text", ["torchscript", "torchscript:", "sscd:"])
def test_a_path_is_asked_for(text):
    with pytest.raises(ModelError, match="needs a file, as in"):
        resolve(text, FINDER)


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def test_x1_a_pickle_with_a_payload_is_refused_and_does_not_run(tmp_path):
    path, canary = tmp_path / "weights.pt", tmp_path / "canary"
    torch.save({"weight": Payload(str(canary))}, path)
    with pytest.raises(ModelError, match=r"weights.pt' is no TorchScript") as caught:
        resolve(f"torchscript:{path}", FINDER)
    assert not canary.exists()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_tensors_is_refused_in_a_whole_sentence(tmp_path, zipped):
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelError) as caught:
        resolve(f"torchscript:{path}", FINDER)
    assert str(caught.value) == (
        f"'{path}' is no TorchScript that runs here: it is another kind of file, or is damaged"
    )


def test_x1_another_program_than_on_the_client_is_not_run(tmp_path):
    model = resolve(make_torchscript(tmp_path), FINDER)
    with open(model.weights.path, "ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match="on this worker"):
        load_network(model, "cpu")
