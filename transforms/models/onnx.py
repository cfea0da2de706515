"""ONNX files that users name, run by ONNX Runtime.

The graph has one input, float32 [n, 3, s, s], of any n, or of 1 and then run picture by picture.
The file must hold all of its tensors: one SHA-256 speaks for it, and no other file is read.
"""

import logging
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from transforms.imaging.preparation import Preparation
from transforms.models.network import Network, needs_of, told_by
from transforms.models.sidecar import model_of, read_sidecar
from transforms.models.spec import GlobalModel, ModelError
from transforms.models.weights import Finder, check

__all__ = ["OnnxNetwork", "load", "resolve"]

log = logging.getLogger(__name__)

_CPU: Final = "CPUExecutionProvider"
_CUDA: Final = "CUDAExecutionProvider"
_FATAL: Final = 4  # of the messages that ONNX Runtime writes; its errors are raised


def resolve(text: str, finder: Finder) -> GlobalModel:
    """Return the model that ``onnx:PATH`` names.

    Args:
        text: the option's value.
        finder: of weights.

    Raises:
        ModelError: the file is missing or refused, or gives no vectors for pictures.
    """
    path = text.partition(":")[2]
    if not path:
        raise ModelError(f"onnx needs a file, as in onnx:PATH, not {text!r}")
    weights = finder.file(path)
    session = _session(weights.path, "cpu")
    known = read_sidecar(weights.path, _side(session, weights.path))
    _check_output(session, known.output, weights.path)
    network = OnnxNetwork(session, known.preparation, known.output, weights.size_bytes)
    return model_of(text, "onnx", weights, known, network)


def load(model: GlobalModel, device: str) -> Network:
    """Load a model of ``resolve``, see ``network``."""
    weights, preparation = needs_of(model)
    session = _session(check(weights), device)
    return OnnxNetwork(session, preparation, model.variant, weights.size_bytes)


class OnnxNetwork:
    """A session of ONNX Runtime, as a ``Network``.

    Attributes:
        size_bytes: of the file, which is that of its parameters but for a few names.
    """

    def __init__(
        self, session: Any, preparation: Preparation, output: str, size_bytes: int
    ) -> None:
        """Take a session.

        Args:
            session: an ``onnxruntime.InferenceSession``.
            preparation: whose scale of values the graph expects.
            output: name of the output to take; empty for the first.
            size_bytes: of its file.
        """
        self._session = session
        self._mean = np.array(preparation.mean, np.float32).reshape(1, 3, 1, 1)
        self._std = np.array(preparation.std, np.float32).reshape(1, 3, 1, 1)
        (given,) = session.get_inputs()
        self._input = given.name
        self._single = given.shape[0] == 1
        self._output = output or session.get_outputs()[0].name
        self.size_bytes = size_bytes

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return vectors for prepared pictures, see ``Network``."""
        batch = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32)
        batch /= np.float32(255.0)
        batch -= self._mean
        batch /= self._std
        parts = np.split(batch, len(batch)) if self._single else [batch]
        vectors = [self._session.run([self._output], {self._input: part})[0] for part in parts]
        return np.concatenate(vectors).astype(np.float32, copy=False)


def _session(path: str, device: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = _threads()
    # Tensors in other files are looked for below this, which is no folder.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", path)
    try:
        with open(path, "rb") as file:
            return onnxruntime.InferenceSession(
                file.read(), options, providers=_providers(device, path)
            )
    except Exception as error:  # whatever ONNX Runtime makes of bytes that are no graph
        hint = ""
        if "external" in str(error).lower():
            hint = "it keeps tensors in another file; export it with external_data=False: "
        raise ModelError(f"{path!r} does not run here: {hint}{told_by(error)}") from error


def _threads() -> int:
    """Return how many threads a call may use: as many as PyTorch was given, where it is there."""
    try:
        import torch
    except ImportError:
        return 1
    return torch.get_num_threads()


def _providers(device: str, path: str) -> list[Any]:
    if not device.startswith("cuda"):
        return [_CPU]
    if _CUDA not in onnxruntime.get_available_providers():
        log.warning("model %r runs on the CPU: this onnxruntime has no CUDA", path)
        return [_CPU]
    return [(_CUDA, {"device_id": int(device.partition(":")[2] or 0)}), _CPU]


def _side(session: Any, path: str) -> int | None:
    """Return the side that a graph takes, in pixels; None for any.

    Raises:
        ModelError: it takes anything but batches of square pictures.
    """
    inputs = session.get_inputs()
    shape = inputs[0].shape if inputs else []
    if (
        len(inputs) != 1
        or inputs[0].type != "tensor(float)"
        or len(shape) != 4
        or shape[1] not in (3, None)
        or (isinstance(shape[0], int) and shape[0] != 1)
    ):
        told = ", ".join(f"{one.type} {one.shape}" for one in inputs)
        raise ModelError(f"{path!r} takes {told or 'nothing'}, not tensor(float) [n, 3, s, s]")
    fixed = {side for side in shape[2:] if isinstance(side, int)}
    if len(fixed) > 1:
        raise ModelError(f"{path!r} takes pictures of {shape[3]} x {shape[2]}, no squares")
    return fixed.pop() if fixed else None


def _check_output(session: Any, name: str, path: str) -> None:
    names = [one.name for one in session.get_outputs()]
    if name and name not in names:
        raise ModelError(f"{path!r} has no output {name!r}, but {', '.join(names)}")
