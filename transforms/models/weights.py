"""Files of weights: where they are, what they must hash to, and how they are read without risk.

A pickle can run code when it is read, so weights are read as safetensors, or by ``torch.load`` with
``weights_only``, which knows tensors alone. TorchScript and ONNX are programs: they are run only
from a path that the user names, or as SSCD's own files that the user fetched.

The cache holds a folder for each name of ``catalogue``, made of the name's parts, for example
``clip/ViT-B-32/laion2b_s34b_b79k``; in it the file under its publisher's name, and beside a fetched
file its receipt, the same name with ``.receipt.json`` behind it. Files that a person puts there
have none.
"""

import dataclasses
import hashlib
import json
import os
import pickle
import re
import shlex
import warnings
import zipfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Optional

from transforms.models.catalogue import Entry, Source, find
from transforms.models.spec import ModelError, Weights

if TYPE_CHECKING:
    import torch


RECEIPT: Final = ".receipt.json"  # behind the name of the file that it is of


@dataclasses.dataclass(frozen=True)
class Receipt:
    """What is written beside a fetched file.

    Attributes:
        url: whence it came, without a password or a query.
        size_bytes: of the file.
        sha256: of the file, 64 hex digits.
        license: SPDX identifier, or the name that its publisher gives.
        fetched_at: ISO 8601, UTC.
    """

    url: str
    size_bytes: int
    sha256: str
    license: str
    fetched_at: str

    @classmethod
    def read(cls, path: str) -> Optional["Receipt"]:
        """Return the receipt of a file of weights; None where there is none that can be read."""
        try:
            with open(receipt_path(path), encoding="utf-8") as file:
                found = cls(**json.load(file))
        except (OSError, ValueError, TypeError):
            return None
        return found if isinstance(found.sha256, str) else None


def receipt_path(path: str) -> str:
    """Return where the receipt of a file of weights is."""
    return f"{path}{RECEIPT}"


@dataclasses.dataclass(frozen=True)
class Finder:
    """Finds files of weights on the client, before anything runs.

    Attributes:
        cache: the folder of fetched weights.
        accepted: licences that the user accepts beside those that allow any use.
        sha256: what the file must hash to, by the user; None where the user does not say.
    """

    cache: str
    accepted: frozenset[str] = frozenset()
    sha256: Optional[str] = None

    def file(self, path: str) -> Weights:
        """Return a file that the user names.

        Raises:
            ModelError: it is missing, cannot be read, or hashes to something else.
        """
        path = os.path.abspath(path)
        try:
            found = sha256_of(path)
            size = os.path.getsize(path)
        except OSError as error:
            raise ModelError(f"weights {path!r} cannot be read: {error.strerror}") from error
        if self.sha256 is not None and found != self.sha256.lower():
            raise ModelError(f"weights {path!r} have the SHA-256 {found}, not {self.sha256}")
        return Weights(path, found, size)

    def known(self, name: str) -> Weights:
        """Return weights of the catalogue.

        They are looked for in the cache, and then where the libraries themselves keep what they
        fetched: the caches of the Hugging Face hub and of torch.hub. Programs are taken from ours
        alone.

        Args:
            name: as ``catalogue.find`` takes it.

        Raises:
            ModelError: there is no such name, its licence is not accepted, or the file is missing,
                cannot be read, or is another than was published or fetched.
        """
        entry = find(name)
        check_license(entry, self.accepted)
        source, path = self._place(entry)
        found = self.file(path)
        if wrong := difference(found.sha256, source, Receipt.read(path)):
            raise ModelError(
                f"weights {path!r} of {entry.name!r} {wrong}; move them away and run "
                f"{self._fetch(entry)}"
            )
        return dataclasses.replace(found, license=entry.license)

    def _place(self, entry: Entry) -> tuple[Source, str]:
        for source in entry.files:
            others = () if entry.is_program else _elsewhere(source)
            for path in (place(self.cache, entry, source), *others):
                if os.path.isfile(path):
                    return source, path
        first = entry.files[0]
        raise ModelError(
            f"weights of {entry.name!r} are missing: run {self._fetch(entry)}, or put "
            f"{first.urls[0]} at {place(self.cache, entry, first)}"
        )

    def _fetch(self, entry: Entry) -> str:
        words = ["beam-dedup", "models", "fetch", entry.name, "--model_cache", self.cache]
        if not entry.any_use:
            words += ["--accept_license", entry.license]
        return shlex.join(words)


def place(cache: str, entry: Entry, source: Source) -> str:
    """Return where a file is, or would be, in the cache."""
    return os.path.join(cache, entry.folder, source.file_name)


def check_license(entry: Entry, accepted: frozenset[str]) -> None:
    """Refuse weights whose licence does not allow every use, unless the user accepts it.

    Raises:
        ModelError: it is not accepted.
    """
    if entry.any_use or entry.license.lower() in {name.lower() for name in accepted}:
        return
    known = entry.license != "unknown"
    what = (
        f"are under {entry.license}, which does not allow every use ({entry.license_source})"
        if known
        else "come without a licence that beam-dedup knows; read what their publisher says"
    )
    raise ModelError(
        f"weights of {entry.name!r} {what}; if it allows yours, give --accept_license "
        f"{entry.license}"
    )


def difference(sha256: str, source: Source, receipt: Optional[Receipt]) -> str:
    """Say how a file differs from the one that was published or fetched; empty if it does not.

    Args:
        sha256: of the file, 64 hex digits.
        source: what is published of it.
        receipt: of when it was fetched; None if it was not.
    """
    if not sha256.startswith(source.sha256):
        return (
            f"have the SHA-256 {sha256}, not {source.sha256} as published ({source.sha256_source})"
        )
    if receipt is not None and sha256 != receipt.sha256:
        return (
            f"have changed since they were fetched, from the SHA-256 {receipt.sha256} to {sha256}"
        )
    return ""


def _elsewhere(source: Source) -> Iterator[str]:
    """Yield where the libraries themselves keep a file that they have fetched."""
    for url in source.urls:
        if hub := re.match(r"https://huggingface\.co/([^/]+/[^/]+)/resolve/main/(.+)", url):
            yield from _in_hub_cache(hub[1], hub[2])
    home = os.environ.get("TORCH_HOME") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "torch"
    )
    yield os.path.join(home, "hub", "checkpoints", source.file_name)


def _in_hub_cache(repository: str, file_name: str) -> Iterator[str]:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return
    found = try_to_load_from_cache(repository, file_name)
    if isinstance(found, str):
        yield found


def sha256_of(path: str) -> str:
    """Return the SHA-256 of a file, in hex.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check(weights: Weights) -> str:
    """Return the path of weights, on a worker, once the file is the one that the client saw.

    Raises:
        ModelError: it is missing there, or is another.
    """
    try:
        found = sha256_of(weights.path)
    except OSError as error:
        raise ModelError(
            f"weights {weights.path!r} cannot be read on this worker: {error.strerror}"
        ) from error
    if found != weights.sha256:
        raise ModelError(
            f"weights {weights.path!r} have the SHA-256 {found} on this worker, not "
            f"{weights.sha256} as on the client"
        )
    return weights.path


def read_state_dict(path: str) -> dict[str, "torch.Tensor"]:
    """Read tensors by name, for the CPU.

    The file is mapped where its format allows that: its bytes are read as they are used, and are
    shared by the processes of a machine until one of them writes to a tensor. A checkpoint that
    holds the tensors under ``state_dict``, ``model`` or ``extractor`` gives those; the ``module.``
    that DataParallel puts before every name is taken off.

    Args:
        path: of a file whose SHA-256 was compared: by ``Finder`` on the client, by ``check`` on a
            worker.

    Raises:
        ModelError: the file cannot be read, or holds anything but tensors.
    """
    try:
        found = _read(path)
    except Exception as error:  # whatever the library makes of bytes that are no weights
        raise ModelError(f"weights {path!r} are refused: {_reason(error)}") from error
    for key in ("state_dict", "model", "extractor"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    return _tensors(found, path)


def _read(path: str) -> Any:
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    # What torch saved before 1.6 is no zip, and cannot be mapped.
    mapped = zipfile.is_zipfile(path)
    with warnings.catch_warnings():
        # Of a pickle that torch did not write; it is read, or refused in a line of our own.
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def _tensors(found: Any, path: str) -> dict[str, "torch.Tensor"]:
    import torch

    named = found.items() if isinstance(found, dict) else ()
    tensors = {
        str(name).removeprefix("module."): value
        for name, value in named
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise ModelError(f"weights {path!r} hold no tensors by name")
    return tensors


def _reason(error: Exception) -> str:
    """Say in one line why a library refused a file.

    What torch says goes on for paragraphs, and advises to read the file without the safeguard.
    """
    text = str(error)
    if "TorchScript" in text:
        return "they are TorchScript, a program; name a file of tensors, best as safetensors"
    if asked := re.search(r"GLOBAL ([\w.]+)", text):
        return f"they are a pickle that asks for {asked[1]}, which could run code"
    if ".tar format" in text:
        return "they are in a format of torch before 0.2, which is read by running a pickle"
    if isinstance(error, pickle.UnpicklingError | EOFError) or "PytorchStreamReader" in text:
        return "they are damaged, or no file of tensors"
    return f"{type(error).__name__}: {text.splitlines()[0] if text else ''}"[:200]
