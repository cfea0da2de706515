"""Tests of CLIP: its vectors are those of open_clip, and what is no CLIP is refused in one line."""

import dataclasses
import os
import pickle

import numpy as np
import pytest

torch = pytest.importorskip("torch")
open_clip = pytest.importorskip("open_clip")

from open_clip.transform import PreprocessCfg, image_transform_v2  # noqa: E402

from tests.pictures import photo, saved  # noqa: E402
from tests.transforms.models.made import CLIP, CLIP_DIMENSIONS, make_clip, make_shapes  # noqa: E402
from tests.transforms.models.seen import FILES, SAME, embed, turned_cosine, worst  # noqa: E402
from transforms.models.clip import resolve  # noqa: E402
from transforms.models.network import load_network  # noqa: E402
from transforms.models.spec import ModelError, Weights  # noqa: E402
from transforms.models.weights import Finder  # noqa: E402

FINDER = Finder("/nonexistent")


class Fetched(Finder):
    """A finder of which every tag has been fetched, and is the one file that it was given."""

    def known(self, name: str) -> Weights:
        """Return that file."""
        assert name.startswith("clip:")
        return self.file(self.cache)


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def model(named):
    return resolve(named, FINDER)


@pytest.fixture(scope="module")
def network(model):
    return load_network(model, "cpu")


def test_a_model_is_told_by_its_architecture_and_its_file(model, named):
    path = named.partition("/")[2]
    assert (model.name, model.family, model.variant) == (named, "clip", CLIP)
    assert model.dimensions == CLIP_DIMENSIONS
    assert (model.weights.path, model.weights.size_bytes) == (path, os.path.getsize(path))
    own = PreprocessCfg()
    assert (model.preparation.resize, model.preparation.crop) == (224, 224)
    assert (model.preparation.mean, model.preparation.std) == (own.mean, own.std)
    assert 0 < model.reject_similarity < model.propose_similarity < 1
    assert model.threshold_source


def test_vectors_equal_those_of_open_clip(model, network):
    library, _, transform = open_clip.create_model_and_transforms(
        CLIP, pretrained=model.weights.path
    )
    library.eval()
    found = worst(model, network, transform, library.encode_image)
    assert {name: cosine for name, cosine in found.items() if cosine < SAME} == {}


def test_a_copy_has_the_same_vector_and_another_picture_has_not(model, network):
    first, again, other = (
        embed(model, network, data)[0]
        for data in (FILES["odd"], FILES["odd"], saved(photo(44, 227, 223), "PNG"))
    )
    assert np.array_equal(first, again)
    assert first @ other < 0.999


def test_a_turned_input_has_the_vector_of_the_turned_file(model, network):
    assert turned_cosine(model, network) >= SAME


def test_a_batch_gives_what_its_pictures_give_alone(model, network):
    side = model.preparation.crop
    pixels = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), np.uint8)
    together = network(pixels)
    assert together.shape == (5, CLIP_DIMENSIONS)
    assert together.dtype == np.float32
    alone = np.concatenate([network(one[None]) for one in pixels])
    assert np.allclose(together, alone, rtol=1e-3, atol=1e-4)
    pixels.flags.writeable = False  # as pictures that came in bytes are
    assert np.array_equal(network(pixels), together)


def test_only_the_tower_for_images_takes_memory(network, model):
    # In single precision, of weights in half: more than the texts' part would leave room for.
    tower = 4 * 22_591_104
    assert abs(network.size_bytes - tower) < 0.01 * tower
    assert model.weights.size_bytes > network.size_bytes * 0.9


def test_weights_without_the_texts_part_are_enough(tmp_path, model, network):
    other = resolve(make_clip(tmp_path, text=False), FINDER)
    pixels = np.full((1, 224, 224, 3), 90, np.uint8)
    assert np.array_equal(load_network(other, "cpu")(pixels), network(pixels))


def test_a_tower_with_tables_that_no_file_holds_is_built_with_them(tmp_path):
    named = make_clip(tmp_path, "PE-Core-T-16-384", text=False)
    model = resolve(named, FINDER)
    assert model.preparation.crop == 384
    (vector,) = load_network(model, "cpu")(np.full((1, 384, 384, 3), 90, np.uint8))
    assert vector.shape == (model.dimensions,)
    assert np.isfinite(vector).all()
    assert vector.any()


@pytest.mark.parametrize(
    ("architecture", "tag"),
    [
        ("ViT-B-32", "laion2b_s34b_b79k"),
        ("ViT-B-16-SigLIP", "webli"),
        ("ViT-L-14-CLIPA", "datacomp1b"),
        ("MobileCLIP-S1", "datacompdr"),
        ("RN50", "cc12m"),
    ],
)
def test_pictures_are_prepared_as_for_the_published_weights(tmp_path, architecture, tag):
    path = make_shapes(tmp_path, architecture)
    by_tag = resolve(f"clip:{architecture}/{tag}", Fetched(str(path)))
    by_path = resolve(f"clip:{architecture}/{path}", FINDER)
    assert by_path.preparation == by_tag.preparation
    keys = [field.name for field in dataclasses.fields(PreprocessCfg)]
    published = open_clip.get_pretrained_cfg(architecture, tag)
    own = PreprocessCfg(**{key: published[key] for key in keys if key in published})
    own.size = open_clip.get_model_config(architecture)["vision_cfg"]["image_size"]
    image = photo(9, 500, 333)
    expected = image_transform_v2(own, is_train=False)(image).numpy()
    way = by_tag.preparation
    pixels = way.apply(np.asarray(image)).transpose(2, 0, 1) / 255.0
    scaled = (pixels - np.reshape(way.mean, (3, 1, 1))) / np.reshape(way.std, (3, 1, 1))
    assert np.abs(scaled - expected).max() < 1e-5


def test_weights_that_were_trained_with_quick_gelu_run_with_it(tmp_path):
    path = make_shapes(tmp_path, "ViT-B-32")
    assert resolve("clip:ViT-B-32/openai", Fetched(str(path))).variant == "ViT-B-32-quickgelu"
    assert resolve("clip:ViT-B-32/laion2b_e16", Fetched(str(path))).variant == "ViT-B-32"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clip:", "clip needs an architecture and weights"),
        ("clip:ViT-B-32", "clip needs an architecture and weights"),
        ("clip:ViT-B-32/", "clip needs an architecture and weights"),
        ("clip:vit-b-33/openai", r"no architecture 'vit-b-33'; it has .*ViT-B-32"),
        ("clip:ViT-B-32/nothing", r"'nothing' is no file and none of the weights of ViT-B-32 \("),
        ("clip:ViT-B-32//nowhere/weights.pt", "'/nowhere/weights.pt' cannot be read: No such file"),
        ("clip:ViT-B-32/weights.pt", "weights.pt' cannot be read: No such file"),
    ],
)
def test_what_names_no_model_is_refused(text, message):
    with pytest.raises(ModelError, match=message) as caught:
        resolve(text, FINDER)
    assert "\n" not in str(caught.value)


def test_r12_weights_of_another_architecture_are_refused_with_their_path(named):
    path = named.partition("/")[2]
    with pytest.raises(ModelError) as caught:
        resolve(f"clip:ViT-S-16/{path}", FINDER)
    told = f"weights {path!r} do not fit ViT-S-16: of their tensors "
    assert str(caught.value).startswith(told)
    assert "of another shape (positional_embedding)" in str(caught.value)


def test_r12_weights_of_something_else_are_refused(tmp_path):
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"other.pt' hold no tensors named visual\.\*"):
        resolve(f"clip:{CLIP}/{tmp_path}/other.pt", FINDER)


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (self.canary,)


def test_x1_a_pickle_with_a_payload_is_refused_and_does_not_run(tmp_path):
    path, canary = tmp_path / "weights.pt", tmp_path / "canary"
    with open(path, "wb") as file:
        pickle.dump({"visual.proj": Payload(str(canary))}, file)
    with pytest.raises(ModelError, match=r"weights\.pt' are refused"):
        resolve(f"clip:{CLIP}/{path}", FINDER)
    torch.save({"visual.proj": Payload(str(canary))}, path)
    with pytest.raises(ModelError, match=r"weights\.pt' are refused"):
        resolve(f"clip:{CLIP}/{path}", FINDER)
    assert not canary.exists()


def test_x1_another_hash_is_refused(named, model):
    with pytest.raises(ModelError, match="have the SHA-256"):
        resolve(named, Finder("/nonexistent", sha256="0" * 64))
    other = dataclasses.replace(model.weights, sha256="0" * 64)
    with pytest.raises(ModelError, match="on this worker"):
        load_network(dataclasses.replace(model, weights=other), "cpu")
