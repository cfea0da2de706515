"""Weights: found, checked against what was published or fetched, and read without running them."""

import dataclasses
import hashlib
import io
import json
import os
import pickle
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from transforms.models import catalogue
from transforms.models.spec import ModelError, Weights
from transforms.models.weights import (
    Finder,
    Receipt,
    check,
    difference,
    place,
    read_state_dict,
    receipt_path,
)

_BODY = b"some weights"
_SHA256 = hashlib.sha256(_BODY).hexdigest()


@pytest.fixture(autouse=True)
def _no_other_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def _put(cache: Path, name: str, body: bytes = _BODY) -> Path:
    entry = catalogue.find(name)
    path = Path(place(str(cache), entry, entry.files[0]))
    path.parent.mkdir(parents=True)
    path.write_bytes(body)
    return path


def _receipt(path: Path, sha256: str) -> None:
    receipt = Receipt("https://x/y", len(_BODY), sha256, "MIT", "2026-01-01T00:00:00+00:00")
    Path(receipt_path(str(path))).write_text(json.dumps(dataclasses.asdict(receipt)))


class TestFinder:
    def test_a_file_that_the_user_names(self, tmp_path: Path, monkeypatch: Any) -> None:
        (tmp_path / "w").write_bytes(_BODY)
        monkeypatch.chdir(tmp_path)
        expected = Weights(str(tmp_path / "w"), _SHA256, len(_BODY), "unknown")
        assert Finder("").file("w") == expected
        assert Finder("", sha256=_SHA256.upper()).file("w") == expected

    @pytest.mark.parametrize("name", ["missing", "folder"])
    def test_a_file_that_is_none_is_refused_with_its_path(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "folder").mkdir()
        with pytest.raises(ModelError, match=rf"^weights '{tmp_path}/{name}' cannot be read: "):
            Finder("").file(str(tmp_path / name))

    def test_x1_another_sha256_than_the_users_is_refused(self, tmp_path: Path) -> None:
        path = _put(tmp_path, "sscd")
        finder = Finder(str(tmp_path), sha256="0" * 64)
        message = rf"^weights '{path}' have the SHA-256 {_SHA256}, not {'0' * 64}$"
        for ask in (lambda: finder.file(str(path)), lambda: finder.known("sscd")):
            with pytest.raises(ModelError, match=message):
                ask()

    def test_weights_of_the_cache(self, tmp_path: Path) -> None:
        path = _put(tmp_path, "sscd")
        expected = Weights(str(path), _SHA256, len(_BODY), "MIT")
        assert Finder(str(tmp_path)).known("sscd") == expected
        _receipt(path, _SHA256)
        assert Finder(str(tmp_path)).known("sscd:disc_mixup") == expected

    def test_x1_weights_that_changed_since_they_were_fetched_are_refused(
        self, tmp_path: Path
    ) -> None:
        path = _put(tmp_path, "sscd")
        _receipt(path, "1" * 64)
        with pytest.raises(ModelError, match=rf"from the SHA-256 {'1' * 64} to {_SHA256};"):
            Finder(str(tmp_path)).known("sscd")

    @pytest.mark.parametrize("name", ["efficientnet_b0", "loftr", "disk_lightglue:disk"])
    def test_x1_weights_that_are_not_the_published_ones_are_refused(
        self, tmp_path: Path, name: str
    ) -> None:
        path = _put(tmp_path, name)
        published = catalogue.find(name).files[0].sha256
        with pytest.raises(ModelError) as caught:
            Finder(str(tmp_path)).known(name)
        text = str(caught.value)
        assert f"{str(path)!r} of {catalogue.find(name).name!r} have the SHA-256 {_SHA256}" in text
        assert f"not {published} as published (" in text
        assert "move them away and run beam-dedup models fetch" in text

    def test_r12_missing_weights_say_which_file_goes_where(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError) as caught:
            Finder(str(tmp_path)).known("loftr")
        assert str(caught.value) == (
            "weights of 'loftr:outdoor' are missing: run beam-dedup models fetch loftr:outdoor "
            f"--model_cache {tmp_path}, or put "
            "https://huggingface.co/kornia/loftr/resolve/main/loftr_outdoor.ckpt at "
            f"{tmp_path}/loftr/outdoor/loftr_outdoor.ckpt"
        )

    def test_a_licence_that_is_not_accepted_is_refused(self, tmp_path: Path) -> None:
        name = "clip:MobileCLIP-S1/datacompdr"
        _put(tmp_path, name)
        for accepted in (frozenset[str](), frozenset({"CC-BY-NC-4.0"})):
            with pytest.raises(ModelError, match=r"under apple-amlr, .*--accept_license apple-am"):
                Finder(str(tmp_path), accepted).known(name)
        found = Finder(str(tmp_path), frozenset({"apple-amlr"})).known(name)
        assert found.license == "apple-amlr"

    def test_weights_without_a_known_licence_are_refused(self, tmp_path: Path) -> None:
        pytest.importorskip("open_clip")
        name = "clip:nllb-clip-base/v1"
        _put(tmp_path, name)
        with pytest.raises(ModelError, match=r"without a licence .* give --accept_license unknown"):
            Finder(str(tmp_path)).known(name)
        assert Finder(str(tmp_path), frozenset({"unknown"})).known(name).license == "unknown"

    def test_the_caches_of_the_libraries_are_looked_into(self, tmp_path: Path) -> None:
        path = self._in_torch_hub(tmp_path, "loftr:indoor")
        assert Finder(str(tmp_path / "cache")).known("loftr:indoor").path == str(path)

    def test_x1_programs_are_not_taken_from_the_caches_of_the_libraries(
        self, tmp_path: Path
    ) -> None:
        self._in_torch_hub(tmp_path, "sscd")
        with pytest.raises(ModelError, match=r"weights of 'sscd.*' are missing"):
            Finder(str(tmp_path / "cache")).known("sscd")

    def _in_torch_hub(self, folder: Path, name: str) -> Path:
        entry = catalogue.find(name)
        path = folder / "torch/hub/checkpoints" / entry.files[0].file_name
        path.parent.mkdir(parents=True)
        path.write_bytes(_BODY)
        return path

    def test_the_cache_of_the_hugging_face_hub_is_looked_into(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        constants = pytest.importorskip("huggingface_hub.constants")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        repository = tmp_path / "hub/models--laion--CLIP-ViT-B-32-laion2B-s34B-b79K"
        path = repository / "snapshots/abc/open_clip_model.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(_BODY)
        (repository / "refs").mkdir()
        (repository / "refs/main").write_text("abc")
        found = Finder(str(tmp_path / "cache")).known("clip:ViT-B-32/laion2b_s34b_b79k")
        assert found == Weights(str(path), _SHA256, len(_BODY), "MIT")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"url": 1}', '{"url": 1, "more": 2}'])
def test_a_receipt_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "w.receipt.json").write_text(text)
    assert Receipt.read(str(tmp_path / "w")) is None


def test_a_difference_is_told_by_the_digits_that_are_published() -> None:
    source = catalogue.Source("w", (), _SHA256[:8], "the file's name")
    assert difference(_SHA256, source, None) == ""
    assert "as published (the file's name)" in difference("0" * 64, source, None)


def test_r12_a_worker_refuses_weights_that_are_missing_or_others(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(_BODY)
    weights = Weights(str(path), _SHA256, len(_BODY))
    assert check(weights) == str(path)
    path.write_bytes(_BODY * 2)
    with pytest.raises(ModelError, match=rf"^weights '{path}' have the SHA-256 .* on this worker"):
        check(weights)
    path.unlink()
    with pytest.raises(ModelError, match=rf"^weights '{path}' cannot be read on this worker: No "):
        check(weights)


class _Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def _bare(path: Path, payload: object) -> None:
    path.write_bytes(pickle.dumps(payload, protocol=2))  # torch's own; it warns of others


def _zip(path: Path, payload: object) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.zeros(2), "more": payload}, path)


def _legacy(path: Path, payload: object) -> None:
    torch = pytest.importorskip("torch")
    torch.save(
        {"weight": torch.zeros(2), "more": payload}, path, _use_new_zipfile_serialization=False
    )


def _tar(path: Path, payload: object) -> None:
    body = pickle.dumps(payload)
    with tarfile.open(path, "w") as tar:
        for name in ("sys_info", "pickle", "tensors", "storages"):
            info = tarfile.TarInfo(name)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))


@pytest.mark.parametrize("name", ["w.pt", "w.ckpt", "w.bin", "w.safetensors"])
@pytest.mark.parametrize("write", [_bare, _zip, _legacy, _tar])
def test_x1_a_pickle_with_a_payload_is_refused_and_not_run(
    tmp_path: Path, write: Callable[[Path, object], None], name: str
) -> None:
    pytest.importorskip("torch")
    path, canary = tmp_path / name, tmp_path / "canary"
    write(path, _Payload(canary))
    with pytest.raises(ModelError, match=rf"^weights '{path}' are refused: ") as caught:
        read_state_dict(str(path))
    assert not canary.exists()
    assert "\n" not in str(caught.value)
    # The library's own advice is to read the file without the safeguard.
    assert "weights_only" not in str(caught.value)
    # The payload is one: without the safeguard it runs.
    if write is _bare:
        pickle.loads(path.read_bytes())  # noqa: S301
        assert canary.exists()


def test_x1_the_message_names_what_a_pickle_asks_for(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    _zip(tmp_path / "w.pt", _Payload(tmp_path / "canary"))
    with pytest.raises(ModelError, match=r"a pickle that asks for posix\.system, which could run"):
        read_state_dict(str(tmp_path / "w.pt"))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_a_pickle_of_another_protocol_is_refused_without_a_warning(
    tmp_path: Path, protocol: int
) -> None:
    pytest.importorskip("torch")
    (tmp_path / "w.pt").write_bytes(pickle.dumps(_Payload(tmp_path), protocol=protocol))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ModelError, match="are refused: "):
            read_state_dict(str(tmp_path / "w.pt"))
    assert [str(one.message) for one in warned] == []


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("body", [b"", b"\x08\x08\x12\x07pytorch", b"<!DOCTYPE html>", b"\x80\x02"])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str, body: bytes) -> None:
    pytest.importorskip("torch")
    (tmp_path / name).write_bytes(body)
    with pytest.raises(ModelError, match=rf"^weights '{tmp_path}/{name}' are refused: "):
        read_state_dict(str(tmp_path / name))


def test_x1_torchscript_is_not_run_as_a_checkpoint(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    path = tmp_path / "w.pt"
    with warnings.catch_warnings():
        # torch calls the format deprecated in which SSCD is published.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))
    with pytest.raises(ModelError, match="they are TorchScript, a program"):
        read_state_dict(str(path))


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"weight": torch.arange(5000)}
    torch.save(tensors, tmp_path / "w.pt")
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "w.safetensors")
    for name in ("w.pt", "old.pt", "w.safetensors"):
        path = tmp_path / name
        whole = path.read_bytes()
        for share in (0.1, 0.5, 0.999):
            path.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(ModelError, match="are refused: "):
                read_state_dict(str(path))


def test_tensors_are_read_from_every_format(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}
    prefixed = {f"module.{name}": value for name, value in tensors.items()}
    torch.save(prefixed, tmp_path / "plain.pt")
    torch.save(prefixed, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for key in ("state_dict", "model", "extractor"):
        torch.save({key: prefixed, "epoch": 3}, tmp_path / f"{key}.ckpt")
    save_file(tensors, tmp_path / "w.safetensors")
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 6
    for path in paths:
        found = read_state_dict(str(path))
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)


@pytest.mark.parametrize("value", [[1], {}, {"epoch": 3}, {"state_dict": {"n": 1}}])
def test_a_file_without_tensors_is_refused(tmp_path: Path, value: object) -> None:
    torch = pytest.importorskip("torch")
    torch.save(value, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="hold no tensors by name"):
        read_state_dict(str(tmp_path / "w.pt"))
