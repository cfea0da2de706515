"""Class labels without training: a picture gets the name whose text is nearest to it for CLIP.

The names are embedded once, on the client, and kept as an ``.npy`` file beside the model's weights;
what travels to the workers are vectors, so that labels need no text model, and no torch, there.
Source: A. Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
2021, arXiv:2103.00020, section 3.1.
"""

import hashlib
import io
import json
import logging
import os
import unicodedata
import zipfile
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from transforms.access import LOCAL
from transforms.models.network import needs_of
from transforms.models.spec import GlobalModel, Labels, ModelError
from transforms.models.weights import read_state_dict
from transforms.storage.folders import open_folder

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

#: What a name is put into before it is embedded: "a good default" (section 3.1.4 of the paper).
PROMPT: Final = "a photo of a {}."
_FORMAT: Final = 1  # of kept files; another number makes all of them anew
_MOST_NAMES: Final = 100_000
_MOST_CHARACTERS: Final = 200  # of a name
_MOST_BYTES: Final = 4 * _MOST_NAMES * (_MOST_CHARACTERS + 2)
_BATCH: Final = 256  # prompts
_TEXT_PARTS: Final = (
    "token_embedding.",
    "positional_embedding",
    "transformer.",
    "ln_final.",
    "text_projection",
)
# A tower for images that costs nothing.
_NO_VISION: Final = {"layers": 0, "width": 64, "patch_size": 1, "image_size": 1}
# Cosines of float32 vectors that differ by less are equal: the order in which a product is summed
# up, which depends on the machine, changes them by about a tenth of this.
_EQUAL: Final = 1e-5


class KeptLabels(NamedTuple):
    """Labels, and the file that keeps them."""

    labels: Labels
    path: str  # "" where no folder could be written
    is_new: bool  # whether they were made now


def read_names(path: str) -> tuple[str, ...]:
    """Read the names of ``--labels``.

    Args:
        path: a UTF-8 file of one name a line; blank lines, blanks around a name and byte order
            marks are skipped.

    Returns:
        1 to 100,000 different names of at most 200 characters, in the order of the file.

    Raises:
        ModelError: the file cannot be read, or what it holds is refused.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ModelError(f"labels {path!r} are larger than {_MOST_BYTES} bytes")
        # Files that were put together have such a mark inside, too.
        text = data.decode().replace("\ufeff", "")
    except OSError as error:
        raise ModelError(f"labels {path!r} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"labels {path!r} are not UTF-8") from error
    found: dict[str, int] = {}
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        name = line.strip()
        if not name:
            continue
        if reason := _refusal(name):
            raise ModelError(f"labels {path!r}: line {number} {reason}")
        if (first := found.setdefault(name, number)) != number:
            raise ModelError(f"labels {path!r}: lines {first} and {number} are both {name!r}")
    if not found:
        raise ModelError(f"labels {path!r} hold no name; give one a line")
    if len(found) > _MOST_NAMES:
        raise ModelError(f"labels {path!r} hold {len(found)} names, more than {_MOST_NAMES}")
    return tuple(found)


def _refusal(name: str) -> str:
    """Return why a name is refused; empty if it is not."""
    if len(name) > _MOST_CHARACTERS:
        return f"is longer than {_MOST_CHARACTERS} characters"
    if any(unicodedata.category(character) == "Cc" for character in name):
        return "holds a control character"
    return ""


def find_or_make(names: tuple[str, ...], model: GlobalModel, cache: str) -> KeptLabels:
    """Return names with their vectors, kept or made now.

    They are kept beside the weights or, where that folder cannot be written, in the model cache. A
    kept file that is damaged, or of another shape, is made anew.

    Args:
        names: of ``read_names``.
        model: a CLIP model with its weights.
        cache: the model cache, a folder.

    Raises:
        ModelError: the model has no text tower that can be used here, its weights are refused, or
            a name is too long for it.
    """
    if model.family != "clip" or model.weights is None:
        raise ModelError(f"labels need a model of the family clip, not {model.name!r}")
    name, kind = _file_name(names, model), _record_type(len(names), model.dimensions)
    folders = list(dict.fromkeys((os.path.dirname(model.weights.path), os.path.abspath(cache))))
    for folder in folders:
        kept = _read(folder, name, kind)
        if kept is not None:
            labels = Labels(names, kept["vectors"].tobytes(), float(kept["scale"]))
            return KeptLabels(labels, os.path.join(folder, name), False)
    log.info("%d labels are embedded with %r", len(names), model.name)
    vectors, scale = _embed(names, model)
    body = io.BytesIO()
    np.save(body, np.array((vectors, scale), kind), allow_pickle=False)
    path = _write(folders, name, body)
    return KeptLabels(Labels(names, vectors.tobytes(), scale), path, True)


def _file_name(names: tuple[str, ...], model: GlobalModel) -> str:
    """Name a file by all that its vectors depend on."""
    weights, _ = needs_of(model)
    key = json.dumps([_FORMAT, model.variant, weights.sha256, PROMPT, names])
    return f"labels-{hashlib.sha256(key.encode()).hexdigest()[:32]}.npy"


def _record_type(count: int, dimensions: int) -> np.dtype[Any]:
    """Return what a kept file holds, as one record: vectors as in ``Labels``, and the scale."""
    return np.dtype([("vectors", "<f4", (count, dimensions)), ("scale", "<f8")])


def _read(folder: str, name: str, kind: np.dtype[Any]) -> Optional[npt.NDArray[Any]]:
    """Return a kept record; None where there is none that can be used."""
    try:
        data = open_folder(folder, "", LOCAL).read(name)
        if data is None:
            return None
        found = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(found, np.ndarray) and found.dtype == kind and found.shape == ():
            norms = np.linalg.norm(found["vectors"], axis=1)
            # Written so that NaN, which compares false with everything, is refused.
            if (np.abs(norms - 1.0) <= 1e-3).all() and 0.0 < found["scale"] < np.inf:
                return found
    except (ValueError, EOFError, OSError, MemoryError, zipfile.BadZipFile) as error:
        log.info("kept labels %r cannot be used: %s", os.path.join(folder, name), error)
        return None
    log.info("kept labels %r cannot be used: they are damaged", os.path.join(folder, name))
    return None


def _write(folders: list[str], name: str, body: io.BytesIO) -> str:
    """Write a file into the first folder that takes it; return its path, empty if none does."""
    for folder in folders:
        path = os.path.join(folder, name)
        try:
            open_folder(folder, "", LOCAL).write(name, body)
        except OSError as error:
            log.info("labels cannot be kept in %r: %s", path, error.strerror)
        else:
            log.info("labels are kept in %r", path)
            return path
    return ""


def _embed(names: tuple[str, ...], model: GlobalModel) -> tuple[npt.NDArray[np.float32], float]:
    """Return vectors, float32 [n, d] of length 1, and the scale of a model's cosines."""
    import torch

    tokens = _tokens(names, model)
    tower, scale = _text_tower(model)
    parts = []
    with torch.inference_mode():
        for start in range(0, len(names), _BATCH):
            found = tower(tokens[start : start + _BATCH])
            # Some architectures give the vectors of the tokens beside that of the text.
            parts.append((found[0] if isinstance(found, tuple) else found).numpy())
    vectors = np.concatenate(parts).astype(np.float64)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(norms) & (norms > 0.0)).all() or not 0.0 < scale < np.inf:
        raise ModelError(f"model {model.name!r} makes no finite vectors of the labels")
    return (vectors / norms).astype(np.float32), scale


def _text_tower(model: GlobalModel) -> tuple["torch.nn.Module", float]:
    """Return the part of a CLIP that embeds texts, on the CPU, and the scale of its cosines."""
    import open_clip

    from transforms.models.torch_network import fill

    weights, _ = needs_of(model)
    path, own = weights.path, open_clip.get_model_config(model.variant)
    state = read_state_dict(path)
    # Where architectures have texts of their own they are named so; else they lie beside ``visual``
    # and what belongs to neither.
    part = {key.removeprefix("text."): state[key] for key in state if key.startswith("text.")}
    part = part or {key: state[key] for key in state if key.startswith(_TEXT_PARTS)}
    if "logit_scale" not in state or "token_embedding.weight" not in part:
        raise ModelError(f"weights {path!r} hold no part for texts, so that they can label nothing")

    def make() -> "torch.nn.Module":
        whole = open_clip.CustomTextCLIP(
            embed_dim=own["embed_dim"],
            vision_cfg=_NO_VISION,
            text_cfg=own["text_cfg"],
            quick_gelu=own.get("quick_gelu", False),
        )
        texts: torch.nn.Module = whole.text
        return texts

    tower = fill(make, part, path, f"the texts of {model.variant}").eval()
    return tower, float(state["logit_scale"].double().exp())


def _tokens(names: tuple[str, ...], model: GlobalModel) -> "torch.Tensor":
    """Return what CLIP's own tokenizer makes of the prompts, int64 [n, context length]."""
    import open_clip

    text = (open_clip.get_model_config(model.variant) or {}).get("text_cfg", {})
    # The vocabularies of these come from a hub; CLIP's own is part of open_clip.
    if text.get("hf_tokenizer_name") or "siglip" in model.variant.lower():
        raise ModelError(
            f"labels cannot be made with {model.variant!r}, whose tokenizer would have to be "
            "downloaded; take an architecture with CLIP's own tokenizer, such as ViT-B-32"
        )
    tokenizer = open_clip.get_tokenizer(model.variant)
    prompts = [PROMPT.format(name) for name in names]
    most = tokenizer.context_length - 2  # start and end
    for name, prompt in zip(names, prompts, strict=True):
        if len(tokenizer.encode(prompt)) > most:
            raise ModelError(f"label {name!r} is too long for {model.variant!r}; shorten it")
    tokens: torch.Tensor = tokenizer(prompts)
    return tokens


def assign(vector: npt.NDArray[np.float32], labels: Labels) -> tuple[str, float]:
    """Return the likeliest name of a picture.

    The probability is the softmax, over all names, of the cosines times the model's scale (section
    3.1.2 of the paper). Of names that are equally likely, it is the first one's.

    Args:
        vector: float32 [d], of length 1.
        labels: in the same model's space.

    Returns:
        The name, and its probability, 0..1, rounded to 4 decimals.

    Raises:
        ValueError: the vector has another length than those of the labels.
    """
    texts = np.frombuffer(labels.vectors, np.float32).reshape(len(labels.names), -1)
    # One picture at a time: the rounding of a product of matrices depends on the batch.
    cosines = (texts @ vector).astype(np.float64)
    greatest = cosines.max()
    best = int(np.argmax(cosines >= greatest - _EQUAL))
    weights = np.exp(labels.scale * (cosines - greatest))
    return labels.names[best], round(float(weights[best] / weights.sum()), 4)
