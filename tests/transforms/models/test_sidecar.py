"""Tests of the file beside a model."""

import json

import pytest

from transforms.imaging.preparation import Preparation
from transforms.models.sidecar import Sidecar, read_sidecar
from transforms.models.spec import ModelError


@pytest.fixture
def write(tmp_path):
    def written(content, side=None):
        path = tmp_path / "model.pt"
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / "model.pt.json").write_text(text)
        return read_sidecar(str(path), side)

    return written


def test_without_the_file_all_is_as_for_imagenet(tmp_path):
    path = str(tmp_path / "model.pt")
    assert read_sidecar(path) == Sidecar(Preparation(224, 224, "shortest", "bicubic"))
    assert read_sidecar(path, 96).preparation == Preparation(96, 96)


def test_each_key_has_its_effect(write):
    assert write({"resize": 256}).preparation == Preparation(256, 224)
    assert write({"resize": 100}).preparation == Preparation(100, 100)
    assert write({"crop": 100}).preparation == Preparation(100, 100)
    assert write({"crop": 64}, 64).preparation == Preparation(64, 64)
    assert write({"mode": "squash"}).preparation.mode == "squash"
    assert write({"interpolation": "bilinear"}).preparation.interpolation == "bilinear"
    assert write({"mean": [0, 0.5, 1]}).preparation.mean == (0.0, 0.5, 1.0)
    assert write({"std": [1, 0.5, 1]}).preparation.std == (1.0, 0.5, 1.0)
    assert write({"output": "vector"}).output == "vector"
    found = write({"reject_similarity": 0.25})
    assert (found.reject_similarity, found.propose_similarity) == (0.25, 0.9)
    assert found.threshold_source.endswith("model.pt.json: reject_similarity")
    assert write({"propose_similarity": 1}).propose_similarity == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting"),
        ("[]", "it holds no JSON object"),
        ({"size": 224}, "there is no key 'size', but resize, crop, "),
        ({"crop": 224.0}, "crop must be a whole number of pixels, not 224.0"),
        ({"crop": True}, "crop must be a whole number of pixels, not True"),
        ({"crop": 300, "resize": 200}, "1 <= crop <= resize"),
        ({"mode": "longest"}, "mode must be one of"),
        ({"interpolation": 3}, "interpolation must be a text, not 3"),
        ({"mean": [0, 0]}, "mean must be three numbers"),
        ({"mean": [0, 0, "a"]}, "mean must be three numbers"),
        ('{"std": [1, 1, NaN]}', "std must be three numbers"),
        ({"std": [1, 0, 1]}, "std must be above 0"),
        ({"std": [1, 10**400, 1]}, "int too large to convert to float"),
        ("[" * 60_000, "recursion depth exceeded"),
        ({"reject_similarity": 1.5}, "reject_similarity must be a number from 0 to 1, not 1.5"),
        ({"propose_similarity": "0.9"}, "propose_similarity must be a number from 0 to 1"),
    ],
)
def test_what_is_wrong_is_refused_with_the_name_of_the_file(write, content, message):
    with pytest.raises(ModelError, match=message) as caught:
        write(content)
    assert "model.pt.json' is refused: " in str(caught.value)
    assert "\n" not in str(caught.value)
