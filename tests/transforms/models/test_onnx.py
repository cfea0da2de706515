"""Tests of ONNX files."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from torchvision import transforms  # noqa: E402

from tests.transforms.models.made import DIMENSIONS, SIDE, make_onnx, small_network  # noqa: E402
from tests.transforms.models.seen import SAME, turned_cosine, worst  # noqa: E402
from transforms.imaging.preparation import Preparation  # noqa: E402
from transforms.models.network import load_network  # noqa: E402
from transforms.models.onnx import resolve  # noqa: E402
from transforms.models.spec import ModelError  # noqa: E402
from transforms.models.weights import Finder  # noqa: E402

FINDER = Finder("/nonexistent")


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    return make_onnx(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="module")
def model(named):
    return resolve(named, FINDER)


def test_the_side_is_read_from_the_graph(model, named):
    assert (model.name, model.family, model.variant) == (named, "onnx", "")
    assert model.preparation == Preparation(SIDE, SIDE)
    assert (model.dimensions, model.reject_similarity) == (DIMENSIONS, 0.0)


def test_vectors_equal_those_of_the_exported_network(model):
    own = transforms.Compose(
        [
            transforms.Resize(SIDE, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(SIDE),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    network = load_network(model, "cpu")
    found = worst(model, network, own, small_network())
    assert {name: cosine for name, cosine in found.items() if cosine < SAME} == {}
    assert turned_cosine(model, network) >= SAME
    assert network.size_bytes == model.weights.size_bytes


def test_a_graph_of_single_pictures_runs_one_by_one(tmp_path, model):
    single = resolve(make_onnx(tmp_path, batch=1), FINDER)
    pixels = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    one, many = load_network(single, "cpu")(pixels), load_network(model, "cpu")(pixels)
    assert one.dtype == np.float32
    assert np.allclose(one, many, atol=1e-5)


def change(named, folder, edit):
    """Write a changed copy of a graph; return what names it."""
    graph = onnx.load(named.partition(":")[2])
    edit(graph)
    path = folder / "changed.onnx"
    path.write_bytes(graph.SerializeToString())
    return f"onnx:{path}"


def add_means(graph):
    name = graph.graph.input[0].name
    graph.graph.node.append(onnx.helper.make_node("Flatten", [name], ["flat"], axis=1))
    flat = onnx.helper.make_tensor_value_info("flat", onnx.TensorProto.FLOAT, [None, None])
    graph.graph.output.insert(0, flat)


def test_the_file_beside_it_names_the_output(tmp_path, named, model):
    two = change(named, tmp_path, add_means)
    assert resolve(two, FINDER).dimensions == 3 * SIDE * SIDE
    (wanted,) = onnxruntime.InferenceSession(
        model.weights.path, providers=["CPUExecutionProvider"]
    ).get_outputs()
    beside = Path(f"{two.partition(':')[2]}.json")
    beside.write_text(json.dumps({"output": wanted.name, "resize": 80}))
    found = resolve(two, FINDER)
    assert (found.dimensions, found.variant) == (DIMENSIONS, wanted.name)
    assert found.preparation == Preparation(80, SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    vectors = [load_network(one, "cpu")(pixels) for one in (found, model)]
    assert np.array_equal(*vectors)
    beside.write_text(json.dumps({"output": "nothing"}))
    with pytest.raises(ModelError, match=r"changed.onnx' has no output 'nothing', but flat, "):
        resolve(two, FINDER)
    beside.write_text(json.dumps({"crop": 32}))
    with pytest.raises(ModelError, match="crop is 32, but the model takes 64 pixels"):
        resolve(two, FINDER)


def _of_two(graph):
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def _oblong(graph):
    graph.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 2 * SIDE


def _of_doubles(graph):
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_of_two, r"takes tensor\(float\) \[2, 3, 64, 64\], not tensor\(float\) \[n, 3, s, s\]"),
        (_oblong, "takes pictures of 128 x 64"),
        (_of_doubles, "does not run here|takes tensor"),
    ],
)
def test_a_graph_that_takes_no_batches_of_squares_is_refused(tmp_path, named, edit, message):
    with pytest.raises(ModelError, match=message) as caught:
        resolve(change(named, tmp_path, edit), FINDER)
    assert "changed.onnx'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_gives_no_vectors_is_refused(tmp_path):
    named = make_onnx(tmp_path, network=torch.nn.Conv2d(3, 4, 8, 8))
    with pytest.raises(ModelError, match=r"gives \[2, 4, 8, 8\] for 2 pictures, not \[2, d\]"):
        resolve(named, FINDER)


def test_x1_no_other_file_is_read(tmp_path, named, monkeypatch):
    graph = onnx.load(named.partition(":")[2])
    path = tmp_path / "split.onnx"
    onnx.save_model(graph, path, save_as_external_data=True, location="tensors", size_threshold=0)
    assert (tmp_path / "tensors").exists()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="export it with external_data=False"):
        resolve(f"onnx:{path}", FINDER)


def test_what_is_no_graph_is_refused(tmp_path):
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 100)
    with pytest.raises(ModelError, match=r"junk.onnx' does not run here") as caught:
        resolve(f"onnx:{tmp_path}/junk.onnx", FINDER)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match="needs a file"):
        resolve("onnx:", FINDER)
    with pytest.raises(ModelError, match="cannot be read"):
        resolve(f"onnx:{tmp_path}/nothing.onnx", FINDER)


def test_x1_another_graph_than_on_the_client_is_not_run(tmp_path, named):
    model = resolve(change(named, tmp_path, lambda graph: None), FINDER)
    with open(model.weights.path, "ab") as file:
        file.write(b" ")
    with pytest.raises(ModelError, match="on this worker"):
        load_network(model, "cpu")


def test_a_runtime_without_cuda_says_so_once_and_runs_on_the_cpu(model, caplog, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with caplog.at_level(logging.WARNING):
        network = load_network(model, "cuda:0")
    (record,) = [one for one in caplog.records if one.name == "transforms.models.onnx"]
    assert record.getMessage() == (
        f"model {model.weights.path!r} runs on the CPU: this onnxruntime has no CUDA"
    )
    assert network(np.zeros((1, SIDE, SIDE, 3), np.uint8)).shape == (1, DIMENSIONS)
