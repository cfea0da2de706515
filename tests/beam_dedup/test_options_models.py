"""Options of models: what is refused since it would have no effect, and what reaches the models."""

from pathlib import Path

import pytest

from beam_dedup.options import PipelineConfig, UsageError, cascade_settings, help_text, parse
from transforms.models.resolve import GLOBAL_NAMES
from transforms.models.spec import LocalModel, Weights

_BASE = ["--input=in", "--output=out"]
_CLIP = "--global_model=clip:ViT-B-32/none.safetensors"
_NO_STAGE_3 = (
    "profile fast runs no stage 3, so that global_model has no effect but with "
    "--candidates=embedding, --write_embeddings or --labels"
)


def _config(*words: str) -> PipelineConfig:
    return parse([*_BASE, *words])[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--candidates=keys"], "candidates must be profile or embedding, not 'keys'"),
        (["--device=gpu"], "device must be auto, cpu, cuda or cuda:N,M, not 'gpu'"),
        (["--within_label"], "within_label needs labels; give a file with --labels"),
        (
            ["--labels=names.txt"],
            "labels are for CLIP; give one with --global_model=clip:ARCH/PRETRAINED",
        ),
        (
            ["--profile=fast", "--local_model=sift"],
            "profile fast runs no stage 4; local_model has no effect",
        ),
        (["--profile=fast", _CLIP], _NO_STAGE_3),
        (["--profile=fast", _CLIP, "--candidates=profile"], _NO_STAGE_3),
        (
            ["--global_model=dino"],
            "global_model must be one of descriptor, clip:ARCH/PRETRAINED, efficientnet_b0..b7, "
            "sscd, torchscript:PATH, onnx:PATH, not 'dino'",
        ),
        (
            ["--local_model=surf"],
            "local_model must be one of orb, sift, loftr, disk_lightglue, not 'surf'",
        ),
        (
            ["--global_model_sha256=00"],
            "global_model_sha256 has no effect: global_model descriptor has no weights",
        ),
        (
            ["--local_model_sha256="],
            "local_model_sha256 has no effect: local_model orb has no weights",
        ),
        (
            ["--local_model=sift", "--local_model_sha256=00"],
            "local_model_sha256 has no effect: local_model sift has no weights",
        ),
        (
            ["--local_model=loftr:none.ckpt", "--local_model_sha256=abc"],
            "local_model_sha256 must be 64 hex digits, not 'abc'",
        ),
        (
            [_CLIP, f"--global_model_sha256={'g' * 64}"],
            f"global_model_sha256 must be 64 hex digits, not '{'g' * 64}'",
        ),
        ([_CLIP, "--global_model_sha256="], "global_model_sha256 must be 64 hex digits, not ''"),
    ],
)
def test_what_would_have_no_effect_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        _config(*words)
    assert str(refused.value) == message


@pytest.mark.parametrize("word", ["--candidates=embedding", "--write_embeddings"])
def test_pictures_are_embedded_where_something_asks(word: str) -> None:
    assert not _config("--profile=fast").embeds_all
    config = _config("--profile=fast", word)
    assert config.embeds_all
    assert (config.embedding_size is not None) == (word == "--write_embeddings")


def test_the_help_names_each_global_model() -> None:
    text = " ".join(help_text().split())
    assert f": {', '.join(GLOBAL_NAMES)} (default: descriptor)" in text


def test_the_matcher_of_points_is_the_one_that_is_named() -> None:
    assert [_config(*words).models.local_model.kind for words in ([], ["--local_model=sift"])] == [
        "orb",
        "sift",
    ]


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the option of a learned matcher, of which nothing needs to be there."""
    found = LocalModel("loftr", "loftr", "outdoor", (Weights("/weights", "0" * 64, 1),))
    monkeypatch.setattr("transforms.models.resolve.resolve_local", lambda *_: found)
    return "--local_model=loftr"


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_the_device_is_the_one_that_is_named(learned: str, device: str) -> None:
    config = _config(learned, f"--device={device}")
    assert cascade_settings(config).models.execution.device == device


@pytest.mark.parametrize(
    ("words", "shared"),
    [
        (["--workers=2"], False),
        (["--workers=2", "--share_model"], True),
        (["--workers=1", "--share_model"], False),  # with nobody
        (["--runner=FlinkRunner", "--share_model"], True),
    ],
)
def test_a_model_is_shared_where_that_is_asked(
    learned: str, words: list[str], shared: bool
) -> None:
    config = _config(learned, *words)
    execution = config.models.execution
    assert (execution.shared, execution.job) == (shared, config.run_id)


def test_x1_the_hash_of_a_matchers_weights_is_the_users(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("kornia")
    path = tmp_path / "loftr.ckpt"
    path.write_bytes(b"whatever")
    with pytest.raises(UsageError, match=rf"{path}' have the SHA-256 [0-9a-f]{{64}}, not 0{{64}}$"):
        _config(f"--local_model=loftr:{path}", f"--local_model_sha256={'0' * 64}")
