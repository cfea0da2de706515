"""Names of labels, and which one a picture gets; no model is needed for either."""

import dataclasses
import math

import numpy as np
import pytest

from transforms.models.labels import assign, find_or_make, read_names
from transforms.models.spec import EMBEDDED_DESCRIPTOR, GlobalModel, Labels, ModelError, Weights


def _write(folder, data):
    path = folder / "labels.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


@pytest.mark.parametrize(
    ("data", "names"),
    [
        ("cat\ndog\n", ("cat", "dog")),
        ("cat\ndog", ("cat", "dog")),
        ("\ufeffcat\r\n\r\n  \t\r\n red fox \r\n", ("cat", "red fox")),
        ("cat\rdog\r", ("cat", "dog")),
        ("\ufeffcat\n\ufeffdog\n", ("cat", "dog")),
        # Order is kept, case and braces are a name's own, and so is a script of its own.
        (
            "z\na\nA\n{}\n\u0915\u094d\u200d\u0937\n",
            ("z", "a", "A", "{}", "\u0915\u094d\u200d\u0937"),
        ),
    ],
)
def test_a_file_gives_a_name_a_line(tmp_path, data, names):
    assert read_names(_write(tmp_path, data)) == names


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "hold no name; give one a line"),
        ("\n \r\n\ufeff", "hold no name"),
        ("cat\n\ndog\n cat\n", "lines 1 and 4 are both 'cat'"),
        (b"caf\xe9\n", "are not UTF-8"),
        ("a" * 201, "line 1 is longer than 200 characters"),
        ("ok\nca\0t", "line 2 holds a control character"),
        ("ok\nca\x1bt", "line 2 holds a control character"),
        ("\n".join(map(str, range(100_001))), "hold 100001 names, more than 100000"),
        (b"a" * (4 * 100_000 * 202 + 1), "are larger than 80800000 bytes"),
    ],
)
def test_a_file_is_refused(tmp_path, data, message):
    path = _write(tmp_path, data)
    with pytest.raises(ModelError) as error:
        read_names(path)
    assert message in str(error.value)
    assert repr(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read: No such file or directory"):
        read_names(str(tmp_path / "none.txt"))
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        read_names(str(tmp_path))


def test_100_000_names_are_taken(tmp_path):
    names = tuple(f"{number:06}" + "x" * 194 for number in range(100_000))
    assert read_names(_write(tmp_path, "\n".join(names))) == names


def _labels(vectors, scale=10.0):
    rows = np.array(vectors, np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = tuple(f"name {number}" for number in range(len(rows)))
    return Labels(names, rows.astype(np.float32).tobytes(), scale)


def test_the_likeliest_name_comes_with_its_probability():
    labels = _labels([[1, 0], [0.6, 0.8], [-1, 0]])
    # Cosines 0.8, 0.96 and -0.8, times 10.
    logits = [8.0, 9.6, -8.0]
    expected = math.exp(9.6) / sum(map(math.exp, logits))
    vector = np.array([0.8, 0.6], np.float32)
    assert assign(vector, labels) == ("name 1", round(expected, 4))
    assert assign(-vector, labels) == ("name 2", 1.0)


def test_one_name_is_certain():
    assert assign(np.array([0.0, 1.0], np.float32), _labels([[1, 0]])) == ("name 0", 1.0)


def test_a_great_scale_overflows_nothing():
    labels = _labels([[1, 0], [0, 1]], scale=1e6)
    assert assign(np.array([1.0, 0.0], np.float32), labels) == ("name 0", 1.0)


@pytest.mark.parametrize("dimensions", [8, 256, 513])
def test_of_equal_names_it_is_the_first(dimensions):
    rng = np.random.default_rng(dimensions)
    one = rng.normal(size=dimensions)
    # Wherever the equal rows lie, and however the library adds up a product of many rows.
    for count, first, second in ((9, 3, 8), (1000, 1, 999), (5, 0, 4)):
        rows = rng.normal(size=(count, dimensions))
        rows[[first, second]] = one
        vector = (one / np.linalg.norm(one)).astype(np.float32)
        name, score = assign(vector, _labels(rows, scale=100.0))
        assert name == f"name {first}"
        assert score == pytest.approx(0.5, abs=1e-3)


def test_a_vector_of_another_model_is_refused():
    with pytest.raises(ValueError, match="mismatch"):
        assign(np.ones(3, np.float32), _labels([[1, 0]]))


def test_labels_need_clip_and_its_weights(tmp_path):
    with pytest.raises(ModelError, match="labels need a model of the family clip, not 'descr"):
        find_or_make(("cat",), EMBEDDED_DESCRIPTOR, str(tmp_path))
    other = GlobalModel("clip:x", "clip")
    with pytest.raises(ModelError, match="labels need a model of the family clip, not 'clip:x'"):
        find_or_make(("cat",), other, str(tmp_path))
    sized = dataclasses.replace(other, family="onnx", weights=Weights("/w", "0" * 64, 1))
    with pytest.raises(ModelError, match="labels need"):
        find_or_make(("cat",), sized, str(tmp_path))


@pytest.mark.parametrize(("more", "name"), [(5e-6, "first"), (5e-5, "second")])
def test_g2_of_names_that_differ_by_rounding_alone_the_first_wins(more, name):
    # Unit vectors whose cosines with the first axis are 0.6 and a little more.
    texts = np.array([[c, np.sqrt(1 - c * c)] for c in (0.6, 0.6 + more)], np.float32)
    labels = Labels(("first", "second"), texts.tobytes(), 100.0)
    assert assign(np.array([1.0, 0.0], np.float32), labels)[0] == name
