"""The ratios are medians of runs side by side, and the pictures those that the model sees."""

from pathlib import Path

import inference
import numpy as np
import pytest
from PIL import Image

from transforms.imaging.preparation import Preparation
from transforms.models.spec import GlobalModel


def test_the_ratio_is_the_median_of_runs_side_by_side() -> None:
    runs = {"bare": [1.0, 2.0, 4.0], "fixed": [1.1, 2.0, 8.0], "adaptive": [1.0, 1.0, 1.0]}
    assert inference.ratios(runs) == {"fixed": pytest.approx(1.1), "adaptive": 0.5}


def test_pictures_are_prepared_and_begin_again(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, grey in enumerate((10, 200)):
        Image.new("RGB", (30, 20), (grey, grey, grey)).save(folder / f"{number}.png")
    model = GlobalModel("x", "x", preparation=Preparation(8, 6))
    inference.prepare(folder, 3, model, tmp_path / "prepared.npy")
    prepared = np.load(tmp_path / "prepared.npy")
    assert prepared.shape == (3, 6, 6, 3)
    assert [int(one.min()) for one in prepared] == [10, 200, 10]


def test_a_reader_gives_its_picture_and_a_keeper_keeps_its_vector(tmp_path: Path) -> None:
    pictures = np.arange(2 * 12, dtype=np.uint8).reshape(2, 2, 2, 3)
    np.save(tmp_path / "pictures.npy", pictures)
    np.save(tmp_path / "vectors.npy", np.zeros((2, 2), np.float32))
    member = inference.Reader(str(tmp_path / "pictures.npy"))(1)
    assert (member.inputs, member.turns) == (pictures[1].tobytes(), b"\x01")
    vector = np.array([0.6, 0.8], np.float32)
    record = member.record._replace(embedding=vector.tobytes())
    inference.Keeper(str(tmp_path / "vectors.npy"))(record)
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), [[0, 0], vector])


def test_the_least_cosine_is_that_of_the_farthest_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.npy", np.array([[1, 0], [0.6, 0.8]], np.float32))
    np.save(tmp_path / "fixed.npy", np.array([[1, 0], [0.8, 0.6]], np.float32))
    assert inference.least_cosine(tmp_path, "fixed") == pytest.approx(0.96)
