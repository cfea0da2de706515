"""What ``beam-dedup run`` refuses of weights, before anything runs or with the path of the file."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from beam_dedup import cli, options
from tests.beam_dedup.pictures import write_folder

pytest.importorskip("open_clip")
pytest.importorskip("kornia")

from tests.transforms.models.made import make_torchscript

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEAM_DEDUP_MODELS", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return write_folder(tmp_path / "in")


def _run(pictures: Path, *words: str) -> int:
    output = pictures.parent / "out"
    argv = [f"--input={pictures}", f"--output={output}", "--workers=1", "--device=cpu", "-q"]
    return cli.main(["run", *argv, *words])


def _one_line(pictures: Path, capsys: Capture) -> str:
    """Return the one line of an error, once nothing else was printed or written."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert not list((pictures.parent / "out").glob("**/*.*"))
    return printed.err


class _Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


def test_x1_another_sha256_than_the_users_is_refused(pictures: Path, capsys: Capture) -> None:
    path = pictures.parent / "w.safetensors"
    path.write_bytes(b"whatever")
    words = (f"--global_model=clip:ViT-B-32/{path}", f"--global_model_sha256={'0' * 64}")
    assert _run(pictures, *words) == 2
    line = _one_line(pictures, capsys)
    assert line.startswith(f"beam-dedup: refused: weights '{path}' have the SHA-256 ")
    assert line.endswith(f", not {'0' * 64}\n")


@pytest.mark.parametrize(
    "model",
    [
        "--global_model=clip:ViT-B-32/{path}",
        "--global_model=efficientnet_b0:{path}",
        "--local_model=loftr:{path}",
        "--local_model=disk_lightglue:{path},{path}",
    ],
)
def test_x1_a_pickle_with_a_payload_is_refused(pictures: Path, capsys: Capture, model: str) -> None:
    path, canary = pictures.parent / "w.pt", pictures.parent / "canary"
    path.write_bytes(pickle.dumps(_Payload(canary), protocol=2))
    assert _run(pictures, model.format(path=path)) == 2
    assert f"refused: weights '{path}' are refused: " in _one_line(pictures, capsys)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("--global_model=sscd", "sscd:disc_mixup"),
        ("--global_model=efficientnet_b7", "efficientnet_b7"),
        ("--global_model=clip:ViT-B-32/laion2b_s34b_b79k", "clip:ViT-B-32/laion2b_s34b_b79k"),
        ("--local_model=loftr", "loftr:outdoor"),
        ("--local_model=disk_lightglue", "disk_lightglue:disk"),
    ],
)
def test_r12_missing_weights_are_refused_with_what_to_do(
    pictures: Path, capsys: Capture, model: str, name: str
) -> None:
    assert _run(pictures, model) == 2
    line = _one_line(pictures, capsys)
    assert line.startswith(
        f"beam-dedup: refused: weights of '{name}' are missing: run beam-dedup models fetch {name} "
        f"--model_cache {pictures.parent}/cache, or put https://"
    )


def test_non_commercial_weights_are_refused_by_run(pictures: Path, capsys: Capture) -> None:
    assert _run(pictures, "--global_model=clip:ViT-B-32/metaclip_400m") == 2
    assert "give --accept_license CC-BY-NC-4.0" in _one_line(pictures, capsys)
    accept = "--accept_license=CC-BY-NC-4.0"
    assert _run(pictures, "--global_model=clip:ViT-B-32/metaclip_400m", accept) == 2
    assert "are missing" in _one_line(pictures, capsys)


def test_r12_weights_that_change_before_a_worker_reads_them_fail_the_job_with_their_path(
    pictures: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = make_torchscript(pictures.parent)
    path = Path(name.removeprefix("torchscript:"))
    parse = options.parse

    def then_swap(argv: list[str]) -> Any:
        parsed = parse(argv)
        path.write_bytes(path.read_bytes() + b"\0")
        return parsed

    monkeypatch.setattr(options, "parse", then_swap)
    assert _run(pictures, f"--global_model={name}", "--write_embeddings") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"weights '{path}' have the SHA-256 " in error
    assert "on this worker, not " in error
    assert error.startswith("beam-dedup: failed: ")


def test_fetched_weights_are_used_by_their_bare_name(pictures: Path, capsys: Capture) -> None:
    name = make_torchscript(pictures.parent, "sscd")
    for kind in ("disc_mixup", "disc_large"):
        path = pictures.parent / f"cache/sscd/{kind}/sscd_{kind}.torchscript.pt"
        path.parent.mkdir(parents=True)
        path.write_bytes(Path(name.removeprefix("sscd:")).read_bytes())
    for model in ("sscd", "sscd:disc_large"):
        assert _run(pictures, f"--global_model={model}", "--write_embeddings") == 0
        assert capsys.readouterr() == ("", "")
