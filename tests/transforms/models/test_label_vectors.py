"""The vectors of labels: those that open_clip makes, kept in a file that cannot do harm."""

import dataclasses
import json
import logging
import pickle
import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import open_clip  # noqa: E402

from tests.transforms.models.made import CLIP, CLIP_DIMENSIONS, make_clip  # noqa: E402
from transforms.models import labels as module  # noqa: E402
from transforms.models.labels import PROMPT, assign, find_or_make  # noqa: E402
from transforms.models.resolve import resolve_global  # noqa: E402
from transforms.models.spec import Labels, ModelError  # noqa: E402
from transforms.models.weights import Finder, read_state_dict  # noqa: E402

NAMES = ("cat", "dog", "{red} fox", "Ünïcode")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Return what names a small CLIP with random weights, and its folder."""
    folder = tmp_path_factory.mktemp("weights")
    return make_clip(folder), folder


@pytest.fixture(scope="module")
def model(weights):
    """Return that model."""
    return resolve_global(weights[0], Finder("none"))


@pytest.fixture(scope="module")
def kept(model):
    """Return labels that were made in the folder of the weights."""
    return find_or_make(NAMES, model, "none")


def _vectors(labels: Labels) -> np.ndarray:
    return np.frombuffer(labels.vectors, np.float32).reshape(len(labels.names), -1)


def _by_hand(model, names):
    """Return what open_clip makes of names, and its scale."""
    whole = open_clip.create_model(model.variant, load_weights=False)
    state = read_state_dict(model.weights.path)
    whole.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    tokens = open_clip.get_tokenizer(model.variant)([PROMPT.format(name) for name in names])
    with torch.inference_mode():
        found = whole.eval().encode_text(tokens, normalize=True).numpy()
    return found, float(whole.logit_scale.detach().exp())


def test_vectors_are_those_of_open_clip(model, kept):
    vectors, scale = _by_hand(model, NAMES)
    assert kept.labels.names == NAMES
    assert _vectors(kept.labels).shape == (4, CLIP_DIMENSIONS)
    assert (vectors * _vectors(kept.labels)).sum(axis=1).min() >= 0.99999
    assert kept.labels.scale == pytest.approx(scale, rel=1e-6)
    assert np.linalg.norm(_vectors(kept.labels), axis=1) == pytest.approx(1.0, abs=1e-6)
    # Each name is nearest to itself.
    assert [assign(row, kept.labels)[0] for row in _vectors(kept.labels)] == list(NAMES)


def test_an_architecture_with_texts_of_its_own_gives_its_vectors(tmp_path):
    torch.manual_seed(1)
    own = {
        "embed_dim": 32, "vision_cfg": {"layers": 1, "width": 64, "patch_size": 16,
        "image_size": 32}, "text_cfg": {"width": 64, "heads": 2, "layers": 2, "embed_cls": True,
        "output_tokens": True, "context_length": 24, "vocab_size": 49408}, "custom_text": True,
    }  # fmt: skip
    (tmp_path / "tiny-custom.json").write_text(json.dumps(own))
    open_clip.add_model_config(tmp_path)
    whole = open_clip.CustomTextCLIP(32, own["vision_cfg"], own["text_cfg"]).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pt")
    model = resolve_global(f"clip:tiny-custom/{tmp_path / 'w.pt'}", Finder("none"))
    found = find_or_make(("cat", "dog"), model, "none").labels
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer("tiny-custom")(["a photo of a cat.", "a photo of a dog."])
        expected = torch.nn.functional.normalize(whole.text(tokens)[0], dim=-1).numpy()
    assert _vectors(found) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ModelError, match=r"label 'very very.*' is too long for 'tiny-custom'"):
        find_or_make(("very " * 20,), model, "none")


def test_vectors_are_made_once_and_kept_beside_the_weights(weights, model, kept, monkeypatch):
    assert kept.is_new
    assert kept.path.startswith(str(weights[1]) + "/labels-")
    # Neither the weights nor torch are needed again.
    monkeypatch.delattr(module, "_embed")
    again = find_or_make(NAMES, model, "none")
    assert again == kept._replace(is_new=False)
    for names in (NAMES[:3], NAMES[::-1]):
        with pytest.raises(NameError, match="_embed"):
            find_or_make(names, model, "none")


@pytest.mark.parametrize("damage", ["cut", "empty", "zip", "text", "nan", "long", "shape", "huge"])
def test_a_damaged_file_is_made_anew(model, kept, tmp_path, damage):
    with open(kept.path, "rb") as file:
        whole = file.read()
    vectors = _vectors(kept.labels).copy()
    kind = module._record_type(*vectors.shape)
    if damage == "nan":
        vectors[1, 5] = np.nan
    if damage == "long":
        vectors[2] *= 2
    if damage == "shape":
        vectors = vectors[:2]
        kind = module._record_type(*vectors.shape)
    if damage in ("nan", "long", "shape"):
        np.save(kept.path, np.array((vectors, kept.labels.scale), kind))
    else:
        huge = whole.replace(b"'shape': ()", b"'shape': (9" + b"9" * 9 + b",)")[: len(whole)]
        broken = {"cut": whole[:-9], "empty": b"", "zip": b"PK\3\4" + whole, "text": b"hello",
                  "huge": huge}[damage]  # fmt: skip
        with open(kept.path, "wb") as file:
            file.write(broken)
    again = find_or_make(NAMES, model, str(tmp_path))
    assert again == kept
    with open(kept.path, "rb") as file:
        assert file.read() == whole
    assert list(tmp_path.iterdir()) == []


class _Canary:
    """A pickle of it makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_x1_a_pickle_in_place_of_kept_labels_is_not_read(model, kept, tmp_path):
    canary = tmp_path / "canary"
    payload = pickle.dumps(_Canary(canary))
    objects = tmp_path / "objects.npy"
    np.save(objects, np.array([_Canary(canary)], object), allow_pickle=True)
    for data in (payload, objects.read_bytes()):
        with open(kept.path, "wb") as file:
            file.write(data)
        assert find_or_make(NAMES, model, str(tmp_path)) == kept
    assert not canary.exists()


def test_the_model_cache_takes_what_the_folder_of_the_weights_does_not(
    weights, kept, tmp_path, caplog
):
    shutil.copytree(weights[1], tmp_path / "read", ignore=shutil.ignore_patterns("labels-*"))
    text = weights[0].replace(str(weights[1]), str(tmp_path / "read"))
    model = resolve_global(text, Finder("none"))
    name = kept.path.rpartition("/")[2]
    # A folder of its name: nothing can be kept there, whoever runs this.
    (tmp_path / "read" / name / "full").mkdir(parents=True)
    cache = tmp_path / "cache"
    with caplog.at_level(logging.INFO, "transforms.models.labels"):
        found = find_or_make(NAMES, model, str(cache))
    assert found == kept._replace(path=str(cache / name))
    told = "\n".join(caplog.messages)
    assert f"cannot be kept in {str(tmp_path / 'read' / name)!r}" in told
    assert f"labels are kept in {str(cache / name)!r}" in told
    assert find_or_make(NAMES, model, str(cache)) == found._replace(is_new=False)
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert find_or_make(NAMES, model, str(blocked)) == kept._replace(path="")
    assert sorted(path.name for path in (tmp_path / "read").iterdir())[0].startswith(CLIP)


def test_other_weights_have_other_vectors(tmp_path, kept):
    other = resolve_global(make_clip(tmp_path, seed=1), Finder("none"))
    found = find_or_make(NAMES, other, "none")
    assert found.path.rpartition("/")[2] != kept.path.rpartition("/")[2]
    assert found.labels.vectors != kept.labels.vectors


def test_r12_weights_without_texts_label_nothing(tmp_path):
    other = resolve_global(make_clip(tmp_path, text=False), Finder("none"))
    with pytest.raises(ModelError, match=r"weights '.*' hold no part for texts, so that they can"):
        find_or_make(NAMES, other, str(tmp_path))


def test_a_name_that_would_be_cut_is_refused(model, tmp_path):
    with pytest.raises(ModelError, match=f"is too long for '{CLIP}'; shorten it"):
        find_or_make(("x9 " * 66,), model, str(tmp_path))


@pytest.mark.parametrize("architecture", ["ViT-B-16-SigLIP", "xlm-roberta-base-ViT-B-32"])
def test_a_tokenizer_that_would_be_downloaded_is_refused(model, tmp_path, architecture):
    with pytest.raises(ModelError, match=f"labels cannot be made with '{architecture}'"):
        find_or_make(NAMES, dataclasses.replace(model, variant=architecture), str(tmp_path))
