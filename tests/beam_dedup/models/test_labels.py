"""``beam-dedup models labels``: makes what a run then finds."""

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from beam_dedup import cli, options  # noqa: E402
from tests.transforms.models.made import make_clip  # noqa: E402
from transforms.models import labels as made  # noqa: E402

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what names a small CLIP."""
    return make_clip(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def names(tmp_path: Path) -> Path:
    """Return a file of two names."""
    path = tmp_path / "names.txt"
    path.write_text("cat\ndog\n", encoding="utf-8")
    return path


def test_the_command_makes_what_run_takes(
    clip: str, names: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"--global_model={clip}", f"--labels={names}"]
    assert cli.main(["models", "labels", *words, "--json"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    path = Path(found.pop("path"))
    scale = found.pop("scale")
    assert found == {
        "labels": 2,
        "dimensions": 256,
        "prompt": "a photo of a {}.",
        "model": clip,
        "made": True,
    }
    assert path.parent == Path(clip.partition("/")[2]).parent
    # From here on no text is embedded.
    monkeypatch.delattr(made, "_embed")
    config, _, _ = options.parse(["--input=x", "--output=y", *words])
    labels = config.models.labels
    assert labels is not None
    assert (labels.names, labels.scale) == (("cat", "dog"), scale)
    assert cli.main(["models", "labels", *words]) == 0
    assert capsys.readouterr().out == f"2 labels of {clip}, made before\n{path}\n"


def test_r12_no_folder_that_takes_the_file_is_a_failure(
    clip: str, tmp_path: Path, names: Path, capsys: Capture
) -> None:
    words = ["models", "labels", f"--labels={names}", "--json"]
    assert cli.main([*words, f"--global_model={clip}"]) == 0
    name = Path(json.loads(capsys.readouterr().out)["path"]).name
    weights = Path(shutil.copy(clip.partition("/")[2], tmp_path))
    (tmp_path / name).mkdir()  # nothing can take its name, whoever runs this
    (tmp_path / name / "full").touch()
    model = f"--global_model={clip.partition('/')[0]}/{weights}"
    assert cli.main([*words, model, f"--model_cache={tmp_path / 'names.txt'}"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("beam-dedup: failed: neither the folder of the weights nor the ")
    assert printed.err.count("\n") == 1
    cache = tmp_path / "cache"
    assert cli.main([*words, model, f"--model_cache={cache}"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(cache / name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--labels=none.txt"], "labels 'none.txt' cannot be read: No such file or directory"),
        (["--labels={names}", "--global_model=descriptor"], "of the family clip"),
        (["--labels={names}", "--global_model=clip:ViT-S-32-alt/none.pt"], "cannot be read"),
        (["--labels={names}", f"--global_model_sha256={'0' * 64}"], "have the SHA-256"),
        ([], "--labels"),
    ],
)
def test_what_is_refused_is_one_line_and_exit_2(
    clip: str, names: Path, capsys: Capture, words: list[str], message: str
) -> None:
    filled = [word.format(names=names) for word in words]
    assert cli.main(["models", "labels", f"--global_model={clip}", *filled]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("beam-dedup: refused: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_run_refuses_labels_that_it_cannot_read_before_the_weights(
    names: Path, capsys: Capture, tmp_path: Path
) -> None:
    names.write_text("cat\ncat\n", encoding="utf-8")
    words = ["--global_model=clip:ViT-S-32-alt/none.pt", f"--labels={names}"]
    assert cli.main(["run", "--input=x", f"--output={tmp_path / 'out'}", *words]) == 2
    printed = capsys.readouterr()
    assert "lines 1 and 2 are both 'cat'" in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
