"""``explain`` with learned models: the run's own answers, by random weights in files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")

import kornia  # noqa: E402

from beam_dedup import cli, explain, options  # noqa: E402
from beam_dedup.options import UsageError  # noqa: E402
from tests import pictures  # noqa: E402
from tests.pictures import photo, saved, write  # noqa: E402
from tests.transforms.models.made import make_clip  # noqa: E402
from transforms.embeddings import learned_of  # noqa: E402
from transforms.imaging.decode import DecodeLimits, decode  # noqa: E402
from transforms.models.labels import assign  # noqa: E402
from transforms.models.network import load_network  # noqa: E402
from transforms.models.session import free_models  # noqa: E402
from transforms.records import Learned  # noqa: E402

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a picture, its copies, names of labels, and weights."""
    folder = tmp_path_factory.mktemp("pictures")
    write(folder / "sea.jpg", saved(photo(0)))
    write(folder / "caption.jpg", saved(pictures.captioned(photo(0))))
    write(folder / "small.jpg", saved(pictures.resized(photo(0), 0.5), quality=80))
    write(folder / "blue.jpg", saved(Image.merge("RGB", photo(0).split()[::-1])))
    (folder / "labels.txt").write_text("cat\ndog\n", encoding="utf-8")
    torch.manual_seed(0)
    torch.save(kornia.feature.LoFTR(pretrained=None).state_dict(), folder / "loftr.pth")
    return folder


@pytest.fixture(scope="module")
def clip(folder: Path) -> str:
    """Return what names a small CLIP."""
    return make_clip(folder)


@pytest.fixture(scope="module", autouse=True)
def _freed() -> Any:
    yield
    free_models()


def _run(folder: Path, capsys: Capture, *words: str) -> dict[str, Any]:
    names = [str(folder / name) for name in ("sea.jpg", "caption.jpg")]
    assert cli.main(["explain", *names, "--device=cpu", "--json", *words]) == 0
    printed = capsys.readouterr()
    found: dict[str, Any] = json.loads(printed.out)
    return found


def _pixels(path: Path) -> Any:
    return decode(
        path.read_bytes(), path=str(path), min_side=4096, limits=DecodeLimits(), with_hash=False
    ).pixels


def _stages(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {stage["stage"]: stage for stage in found["stages"]}


def test_a_pair_goes_through_both_learned_models(folder: Path, clip: str, capsys: Capture) -> None:
    loftr = f"loftr:{folder / 'loftr.pth'}"
    found = _run(folder, capsys, f"--global_model={clip}", f"--local_model={loftr}")
    stages = _stages(found)
    wide, local = stages["global"], stages["local"]
    config, _, _ = options.parse(["--input=x", "--dry_run", f"--global_model={clip}"])
    model = config.models.global_model
    assert (wide["model"], local["model"]) == (clip, loftr)
    assert wide["threshold_source"] == model.threshold_source
    assert local["threshold_source"] == "profile balanced"
    # The cosine is that of the network called by hand.
    assert model.preparation is not None
    network = load_network(model, "cpu")
    seen = [model.preparation.apply(_pixels(folder / name)) for name in ("sea.jpg", "caption.jpg")]
    one, other = network(np.stack(seen)).astype(np.float64)
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert wide["evidence"] == {"global_similarity": pytest.approx(cosine, abs=2e-4)}
    # What a learned model says holds for any pair, so nothing but its threshold is met.
    thresholds = [(one["threshold"], one["value"], one["met"]) for one in wide["thresholds"]]
    assert thresholds == [("global_reject", model.reject_similarity, True)]
    assert local["evidence"].keys() >= {"local_score", "local_overlap", "local_inliers"}
    assert local["verdict"] in ("accept", "review", "reject")
    assert found["decided_by"] == "local"
    assert "label" not in found["a"]


def test_the_text_names_model_threshold_and_labels(
    folder: Path, clip: str, capsys: Capture
) -> None:
    names = [str(folder / name) for name in ("sea.jpg", "caption.jpg")]
    words = ["--device=cpu", f"--global_model={clip}", f"--labels={folder / 'labels.txt'}"]
    assert cli.main(["explain", *names, *words, "--global_threshold=0.25"]) == 0
    text = capsys.readouterr().out
    assert f"\n  model {clip}; threshold: --global_threshold\n" in text
    assert "\n  model orb; threshold: profile balanced\n" in text
    found = _run(folder, capsys, *words[1:])
    for name, start in (("a", "A  "), ("b", "B  ")):
        (place,) = (n for n, line in enumerate(text.splitlines()) if line.startswith(start))
        facts = found[name]
        told = f"   label {facts['label']} ({facts['label_score']:g})"
        assert text.splitlines()[place + 1] == told


def test_labels_are_those_of_the_names_nearest_to_the_pictures(
    folder: Path, clip: str, capsys: Capture
) -> None:
    words = [f"--global_model={clip}", f"--labels={folder / 'labels.txt'}"]
    found = _run(folder, capsys, *words)
    config, _, _ = options.parse(["--input=x", "--output=", *words])
    model, labels = config.models.global_model, config.models.labels
    assert labels is not None
    assert model.preparation is not None
    assert labels.names == ("cat", "dog")
    network = load_network(model, "cpu")
    for facts in (found["a"], found["b"]):
        pixels = _pixels(Path(facts["path"]))
        (vector,) = network(model.preparation.apply(pixels)[None])
        name, score = assign(vector / np.linalg.norm(vector), labels)
        assert facts["label"] == name
        assert facts["label_score"] == pytest.approx(score, abs=2e-3)


def _explain_labelled(
    folder: Path, names: str, labels: tuple[str, str], *words: str
) -> dict[str, Any]:
    """Explain two pictures within labels; one of an empty label could not be embedded."""
    words = (*words, f"--labels={folder / 'labels.txt'}", "--within_label")
    config, _, _ = options.parse(["--input=x", "--output=", *words])
    given = iter(labels)

    def labelled(*args: Any) -> Learned:
        label = next(given)
        learned = learned_of(*args)._replace(label=label, label_score=0.5)
        return learned if label else Learned(b"", "", 0.0, "global", "bad_embedding", "none")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("beam_dedup.explain.learned_of", labelled)
        return explain.explain(*(str(folder / name) for name in names.split()), config)


def _last_lines(found: dict[str, Any]) -> str:
    return explain.to_text(found).rpartition("\n\n")[2]


@pytest.mark.parametrize("profile", ["fast", "balanced"])
def test_pictures_of_two_labels_are_parted_within_labels(
    folder: Path, clip: str, profile: str
) -> None:
    words = (f"--global_model={clip}", f"--profile={profile}")
    found = _explain_labelled(folder, "sea.jpg small.jpg", ("cat", "dog"), *words)
    assert (found["a"]["label"], found["b"]["label"]) == ("cat", "dog")
    assert (found["verdict"], found["decided_by"], found["kept"]) == ("reject", "global", None)
    stages = _stages(found)
    assert list(stages) == ["exact", "label", "color", "global", "local"]
    assert stages["label"] == {
        "stage": "label",
        "evidence": {
            "label_a": "cat",
            "label_score_a": 0.5,
            "label_b": "dog",
            "label_score_b": 0.5,
        },
        "thresholds": [],
        "verdict": "reject",
        "in_pipeline": "decides",
    }
    # Colour has its own word, as without labels, which nobody asks for.
    config, _, _ = options.parse(["--input=x", "--output=", f"--profile={profile}"])
    free = explain.explain(str(folder / "sea.jpg"), str(folder / "small.jpg"), config)
    assert stages["color"] == {**_stages(free)["color"], "in_pipeline": "not_reached"}
    assert stages["color"]["verdict"] == "accept"
    assert "label" not in _stages(free)
    assert "\nlabel: rejected; this is the pipeline's verdict\n" in explain.to_text(found)
    assert _last_lines(found).startswith(
        "verdict: rejected by global, relation similar, since the labels differ: cat / dog\n"
    )


def test_equal_labels_leave_the_pair_to_colour(folder: Path, clip: str) -> None:
    model = f"--global_model={clip}"
    found = _explain_labelled(folder, "sea.jpg small.jpg", ("cat", "cat"), model)
    marks = {name: (one["verdict"], one["in_pipeline"]) for name, one in _stages(found).items()}
    assert marks["label"] == ("undecided", "passes_on")
    assert marks["color"] == ("accept", "decides")
    assert (found["decided_by"], found["relation"], found["kept"]) == ("color", "resized", "A")
    assert "label" not in _last_lines(found)


def test_a_picture_without_a_label_goes_to_review_unless_colour_rejects(
    folder: Path, clip: str
) -> None:
    model = f"--global_model={clip}"
    found = _explain_labelled(folder, "sea.jpg small.jpg", ("cat", ""), model)
    marks = {name: (one["verdict"], one["in_pipeline"]) for name, one in _stages(found).items()}
    assert marks["label"] == ("review", "decides")
    assert marks["color"] == ("accept", "not_reached")
    assert (found["verdict"], found["decided_by"]) == ("review", "global")
    assert _last_lines(found).splitlines()[0].endswith(", since no label was found for B")
    assert "\n  label_b        none\n" in explain.to_text(found)
    found = _explain_labelled(folder, "sea.jpg blue.jpg", ("cat", ""), model)
    marks = {name: (one["verdict"], one["in_pipeline"]) for name, one in _stages(found).items()}
    assert marks["label"] == ("undecided", "passes_on")
    assert marks["color"] == ("reject", "decides")
    assert (found["verdict"], found["decided_by"]) == ("reject", "color")


def test_a_dry_run_makes_no_labels_but_reads_their_names(folder: Path, clip: str) -> None:
    (folder / "other.txt").write_text("red fox\n", encoding="utf-8")
    before = sorted(folder.iterdir())
    words = ["--input=x", "--dry_run", f"--global_model={clip}"]
    config, _, _ = options.parse([*words, f"--labels={folder / 'other.txt'}"])
    assert config.models.labels is None
    assert sorted(folder.iterdir()) == before
    with pytest.raises(UsageError, match=r"none\.txt' cannot be read: No such file"):
        options.parse([*words, f"--labels={folder / 'none.txt'}"])
