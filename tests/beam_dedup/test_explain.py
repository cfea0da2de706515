"""``beam-dedup explain``: what every stage makes of two images, as the pipeline does."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import beam_dedup
from beam_dedup import cli, explain, options
from tests import pictures
from tests.pictures import photo, saved, write
from transforms.imaging.errors import ImageError

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of a picture, copies of it, and another picture."""
    folder = tmp_path_factory.mktemp("pictures")
    sea = photo(0)
    write(folder / "sea.jpg", saved(sea))
    write(folder / "again.jpg", saved(sea))
    write(folder / "small.jpg", saved(pictures.resized(sea, 0.5), quality=80))
    write(folder / "border.jpg", saved(pictures.bordered(sea, 0.05, (255, 255, 255))))
    write(folder / "caption.jpg", saved(pictures.captioned(sea)))
    write(folder / "wide.jpg", saved(pictures.bordered(sea, 0.12, (255, 255, 255))))
    write(folder / "crop.jpg", saved(pictures.cropped(sea, 0.02)))
    write(folder / "turned.jpg", saved(pictures.turned(sea), quality=85))
    write(folder / "lossless.png", saved(sea, "PNG", compress_level=9))
    write(folder / "lossless again.png", saved(sea, "PNG", compress_level=1))
    write(folder / "hill.jpg", saved(photo(1)))
    write(folder / "moves.gif", pictures.animation([sea, photo(2)], "GIF"))
    write(folder / "text.jpg", b"no picture")
    write(folder / "cut.jpg", saved(sea)[:3000])
    write(folder / "list.txt", b"sea.jpg\n")
    os.mkfifo(folder / "fifo.jpg")
    return folder


def _explain(folder: Path, a: str, b: str, *words: str) -> dict[str, Any]:
    config, _, _ = options.parse(["--input=x", "--dry_run", *words])
    found = explain.explain(str(folder / a), str(folder / b), config)
    assert json.loads(json.dumps(found)) == found
    return found


def _verdicts(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(one["stage"], one["verdict"], one["in_pipeline"]) for one in found["stages"]]


def _conclusion(found: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(
        found[name] for name in ("verdict", "decided_by", "relation", "kept", "keep_reason")
    )


def _stage(found: dict[str, Any], name: str) -> dict[str, Any]:
    (stage,) = (one for one in found["stages"] if one["stage"] == name)
    return stage


def _threshold(found: dict[str, Any], stage: str, name: str) -> tuple[Any, ...]:
    (one,) = (t for t in _stage(found, stage)["thresholds"] if t["threshold"] == name)
    return one["value"], one["evidence"], one["met"]


@pytest.mark.parametrize(
    ("a", "b", "words", "verdicts", "conclusion"),
    [
        ("sea.jpg", "small.jpg", [], "accept undecided accept",
         ("accept", "color", "resized", "A", "effective_resolution")),
        ("small.jpg", "sea.jpg", [], "accept undecided accept",
         ("accept", "color", "resized", "B", "effective_resolution")),
        ("sea.jpg", "caption.jpg", [], "undecided undecided accept",
         ("accept", "local", "overlaid", "A", "no_overlay")),
        ("sea.jpg", "border.jpg", [], "accept undecided accept",
         ("accept", "color", "bordered", "A", "no_border")),
        ("sea.jpg", "turned.jpg", [], "accept undecided accept",
         ("accept", "color", "turned", "A", "origin")),
        ("sea.jpg", "hill.jpg", [], "undecided undecided reject",
         ("reject", "local", "similar", None, "sharpness")),
        ("sea.jpg", "moves.gif", [], "review undecided accept",
         ("review", "color", "similar", None, "origin")),
        ("sea.jpg", "border.jpg", ["--profile=fast"], "accept undecided accept",
         ("accept", "color", "bordered", "A", "no_border")),
        ("sea.jpg", "wide.jpg", ["--profile=fast"], "review undecided accept",
         ("review", "color", "similar", None, "effective_resolution")),
    ],
)  # fmt: skip
def test_the_first_stage_that_decides_has_the_word(
    folder: Path, a: str, b: str, words: list[str], verdicts: str, conclusion: tuple[Any, ...]
) -> None:
    found = _explain(folder, a, b, *words)
    assert found["a"]["path"] == str(folder / a)
    assert found["b"]["path"] == str(folder / b)
    stages = _verdicts(found)
    assert [name for name, _, _ in stages] == ["exact", "color", "global", "local"]
    assert [verdict for _, verdict, _ in stages] == ["undecided", *verdicts.split()]
    place = [name for name, _, _ in stages].index(conclusion[1])
    marks = [mark for _, _, mark in stages]
    assert marks == ["passes_on"] * place + ["decides"] + ["not_reached"] * (3 - place)
    assert _conclusion(found) == conclusion


@pytest.mark.parametrize(
    ("a", "b", "relation", "kept", "reason"),
    [
        ("sea.jpg", "again.jpg", "exact", "B", "path"),
        ("again.jpg", "sea.jpg", "exact", "A", "path"),
        ("lossless.png", "lossless again.png", "pixels", "A", "bytes"),
    ],
)
def test_equal_pixels_decide_and_the_stages_still_run(
    folder: Path, a: str, b: str, relation: str, kept: str, reason: str
) -> None:
    found = _explain(folder, a, b)
    assert _conclusion(found) == ("accept", "exact", relation, kept, reason)
    assert _stage(found, "exact")["evidence"] == {
        "equal_sha256": relation == "exact",
        "equal_pixel_hash": True,
    }
    assert [mark for _, _, mark in _verdicts(found)] == ["decides", *["not_reached"] * 3]
    assert _stage(found, "global")["evidence"] == {"global_similarity": 1.0}
    assert _stage(found, "local")["evidence"]["local_score"] == 1.0


def test_evidence_and_thresholds_of_each_stage(folder: Path) -> None:
    found = _explain(folder, "caption.jpg", "sea.jpg", "--local_threshold=0.6")
    evidence = {one["stage"]: list(one["evidence"]) for one in found["stages"]}
    assert evidence["color"][0] == "color_similarity"
    assert {"similarity", "chroma", "worst", "differing"} <= set(evidence["color"])
    assert evidence["global"] == ["global_similarity"]
    assert evidence["local"] == ["local_inliers", "local_overlap", "local_score", "relation"]
    assert _threshold(found, "color", "reject_similarity") == (0.5, "similarity", True)
    assert _threshold(found, "color", "aligned_bits") == (60, "wavelet_distance", True)
    assert _threshold(found, "global", "global_reject") == (0.4, "global_similarity", True)
    assert _threshold(found, "local", "accept_score") == (0.6, "local_score", True)
    assert _threshold(found, "local", "review_score") == (0.35, "local_score", True)
    assert _threshold(found, "local", "min_texture")[1:] == ("texture", True)
    # Every threshold of a stage is held against some evidence.
    every = [one for stage in found["stages"] for one in stage["thresholds"]]
    assert [one["threshold"] for one in every if one["met"] is None] == []


def test_the_generators_that_propose_the_pair(folder: Path) -> None:
    near = _explain(folder, "sea.jpg", "small.jpg")["candidates"]
    assert near["proposed_by"][0] == "wavelet"
    (wavelet,) = (one for one in near["generators"] if one["generator"] == "wavelet")
    assert wavelet == {
        "generator": "wavelet",
        "threshold": "wavelet_bits",
        "value": 60,
        "evidence": "wavelet_distance",
        "found": near["wavelet_distance"],
        "rule": "at most",
        "met": True,
    }
    bordered = _explain(folder, "sea.jpg", "border.jpg")["candidates"]
    assert bordered["wavelet_distance"] > 60
    assert bordered["proposed_by"] == ["words"]
    far = _explain(folder, "sea.jpg", "hill.jpg")["candidates"]
    assert far["proposed_by"] == []
    assert [one["met"] for one in far["generators"]] == [False] * 2


def test_embeddings_propose_a_pair_as_they_do_in_a_run(folder: Path, tmp_path: Path) -> None:
    def asked(*words: str) -> dict[str, Any]:
        return _explain(folder, "sea.jpg", "border.jpg", "--profile=fast", *words)["candidates"]

    assert asked()["proposed_by"] == []
    found = asked("--candidates=embedding")
    (one,) = (each for each in found["generators"] if each["generator"] == "embedding")
    least, similarity = one["value"], one["found"]
    assert (least, one["evidence"], one["rule"]) == (0.9, "embedding_similarity", "at least")
    assert (one["met"], found["proposed_by"]) == (False, [])
    assert 0.5 < similarity < least
    near = _explain(folder, "sea.jpg", "small.jpg", "--profile=fast", "--candidates=embedding")
    assert near["candidates"]["proposed_by"] == ["embedding", "wavelet"]
    # The cosine is the one that rows give.
    (tmp_path / "in").mkdir()
    for name in ("sea.jpg", "border.jpg"):
        (tmp_path / "in" / name).write_bytes((folder / name).read_bytes())
    options_of = {"workers": 1, "profile": "fast", "write_embeddings": True}
    rows = beam_dedup.deduplicate(tmp_path / "in", tmp_path / "out", **options_of).images
    a, b = (np.array(row, np.float64) for row in rows["embedding"].to_pylist())
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert similarity == round(float(cosine), 4)


def test_a_picture_without_an_embedding_is_not_proposed_by_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ImageError("timeout", "too slow")

    monkeypatch.setattr(explain, "read_input", fail)
    words = ["--profile=fast", "--candidates=embedding"]
    found = _explain(folder, "sea.jpg", "small.jpg", *words)
    assert found["candidates"]["proposed_by"] == ["wavelet"]
    (one,) = (one for one in found["candidates"]["generators"] if one["generator"] == "embedding")
    assert (one["found"], one["met"]) == (None, None)
    assert "embedding_similarity is at least this: " in explain.to_text(found)


def test_a_profile_without_a_generator_does_not_ask_it(folder: Path) -> None:
    found = _explain(folder, "sea.jpg", "border.jpg", "--profile=fast")["candidates"]
    assert [one["generator"] for one in found["generators"]] == ["wavelet"]


def test_the_orientation_turns_a_into_b(folder: Path) -> None:
    there = _explain(folder, "sea.jpg", "turned.jpg")["candidates"]["orientation"]
    back = _explain(folder, "turned.jpg", "sea.jpg")["candidates"]["orientation"]
    assert (there, back) == (8, 6)


OPTIONS = {
    # option: value, the other picture, stage and what it says then; without it, it says otherwise
    "profile": ("fast", "wide.jpg", "color", "review"),
    "color_threshold": ("1", "crop.jpg", "color", "reject"),
    "global_threshold": ("1", "small.jpg", "global", "reject"),
    "local_threshold": ("1", "moves.gif", "local", "review"),
    "duplicate_relations": ("exact,pixels", "small.jpg", "color", "review"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_has_an_effect(folder: Path, name: str) -> None:
    value, other, stage, verdict = OPTIONS[name]
    before = _explain(folder, "sea.jpg", other)
    assert _stage(before, stage)["verdict"] != verdict
    after = _explain(folder, "sea.jpg", other, f"--{name}={value}")
    assert _stage(after, stage)["verdict"] == verdict
    if name == "duplicate_relations":
        assert _stage(after, "local")["verdict"] == "review"


@pytest.mark.parametrize("word", ["--wavelet_bits=0", "--wavelet_threshold=1"])
def test_the_radius_of_the_keys_has_an_effect(folder: Path, word: str) -> None:
    for words, value, met in (([], 60, True), ([word], 0, False)):
        candidates = _explain(folder, "sea.jpg", "small.jpg", *words)["candidates"]
        (wavelet,) = (one for one in candidates["generators"] if one["generator"] == "wavelet")
        assert (wavelet["value"], wavelet["met"]) == (value, met)
        assert ("wavelet" in candidates["proposed_by"]) == met


def test_the_options_are_those_of_a_run(capsys: Capture) -> None:
    assert cli.main(["explain", "--help"]) == 0
    printed = capsys.readouterr().out
    start, end = (
        options.help_text().index(title) for title in ("what is a copy", "bounds on work")
    )
    names = re.findall(r"^  (--\w+)", options.help_text()[start:end], re.MULTILINE)
    assert len(names) >= 7
    assert [name for name in [*names, "--json", "--verbose"] if name not in printed] == []


def test_a_member_that_cannot_be_read_again_is_left_for_review(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ImageError("timeout", "too slow")

    monkeypatch.setattr(explain, "read_member", fail)
    found = _explain(folder, "sea.jpg", "caption.jpg")
    assert _conclusion(found)[:2] == ("review", "global")
    for stage in ("global", "local"):
        evidence = _stage(found, stage)["evidence"]
        assert evidence.get("error_type", "timeout") == "timeout"
        assert _stage(found, stage)["verdict"] == "review"
    assert _stage(found, "global")["evidence"] == {
        "error_stage": "decode", "error_type": "timeout", "error_message": "too slow",
    }  # fmt: skip
    assert _threshold(found, "global", "global_reject") == (0.4, "global_similarity", None)


def test_a_run_says_the_same_of_every_pair(folder: Path, tmp_path: Path) -> None:
    names = ("sea.jpg", "small.jpg", "border.jpg", "turned.jpg", "lossless.png", "hill.jpg")
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).write_bytes((folder / name).read_bytes())
    result = beam_dedup.deduplicate(tmp_path / "in", tmp_path / "out", workers=1)
    edges = result.edges.to_pylist()
    assert len(edges) >= 4
    for edge in edges:
        a, b = (edge[end].rpartition("/")[2] for end in ("uri_a", "uri_b"))
        found = _explain(tmp_path / "in", a, b)
        known = {**found, **found["candidates"]}
        for stage in found["stages"]:
            if stage["in_pipeline"] != "not_reached":
                known |= stage["evidence"]
        columns = (
            "wavelet_distance", "orientation", "color_similarity", "global_similarity",
            "local_inliers", "local_overlap", "local_score", "relation", "verdict", "decided_by",
        )  # fmt: skip
        assert {c: known.get(c) for c in columns} == {c: edge[c] for c in columns}
        assert edge["generators"] in ("+".join(found["candidates"]["proposed_by"]), "star")
    rows = {row["path"]: row for row in result.images.to_pylist()}
    pair = _explain(tmp_path / "in", "lossless.png", "sea.jpg")
    assert pair["kept"] == "A"
    assert rows[str(tmp_path / "in" / "sea.jpg")]["keep_reason"] == pair["keep_reason"]


def test_names_may_be_uris(folder: Path, capsys: Capture) -> None:
    a, b = (folder / "sea.jpg").as_uri(), (folder / "lossless again.png").as_uri()
    assert cli.main(["explain", a, b, "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    found = json.loads(printed.out)
    assert (found["a"]["uri"], found["b"]["uri"]) == (a, b)
    assert found == _explain(folder, "sea.jpg", "lossless again.png")


def test_the_text_of_a_pair(folder: Path, capsys: Capture) -> None:
    assert cli.main(["explain", str(folder / "sea.jpg"), str(folder / "hill.jpg")]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    blocks = printed.out.split("\n\n")
    found = _explain(folder, "sea.jpg", "hill.jpg")
    sizes = [f"{(folder / name).stat().st_size / 1000:.1f} kB" for name in ("sea.jpg", "hill.jpg")]
    assert blocks[0] == (
        f"A  {folder}/sea.jpg (JPEG, 320x240, {sizes[0]})\n"
        f"B  {folder}/hill.jpg (JPEG, 320x240, {sizes[1]})"
    )
    assert blocks[1].splitlines()[0] == "candidates: no generator proposes the pair"
    distance = found["candidates"]["wavelet_distance"]
    assert f"wavelet_distance {distance} is at most this: no" in blocks[1]
    assert blocks[2] == (
        "exact: undecided; goes on\n  equal_sha256      no\n  equal_pixel_hash  no"
    )
    assert blocks[4] == (
        "global: undecided; goes on\n"
        "  model descriptor; threshold: profile balanced\n"
        f"  global_similarity  {_stage(found, 'global')['evidence']['global_similarity']}\n"
        f"  aligned_bits   60   wavelet_distance {distance} is at most this: no\n"
        "  global_reject  0.4  global_similarity "
        f"{_stage(found, 'global')['evidence']['global_similarity']} is at least this: no"
    )
    assert blocks[5].splitlines()[0] == "local: rejected; this is the pipeline's verdict"
    assert blocks[6] == (
        "verdict: rejected by local, relation similar\n"
        "  no generator proposes the pair: a run compares the two only where one is kept and the "
        "other is a copy of one of its copies\n"
        f"kept: both; of the two, {found['better']} comes first, by {found['keep_reason']}\n"
    )


def test_the_text_says_what_the_pipeline_does_not_reach(folder: Path, capsys: Capture) -> None:
    assert cli.main(["explain", str(folder / "sea.jpg"), str(folder / "again.jpg")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "exact: accepted; this is the pipeline's verdict" in lines
    assert "local: accepted (the pipeline has decided before and does not ask)" in lines
    assert lines[-2:] == ["verdict: accepted by exact, relation exact", "kept: B, by path"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["sea.jpg"], 2, "refused: the following arguments are required: B"),
        (["sea.jpg", "hill.jpg", "small.jpg"], 2, "refused: unrecognized arguments"),
        (["sea.jpg", "none.jpg"], 2, "none.jpg': no such file or folder"),
        (["sea.jpg", "."], 2, "is a folder, not an image"),
        (["*.jpg", "sea.jpg"], 2, "is a glob, not an image"),
        (["list.txt", "sea.jpg"], 2, "is a list, not an image"),
        (["sea.jpg", "./sea.jpg"], 2, "both names are those of one file"),
        (["fifo.jpg", "sea.jpg"], 2, "is a FIFO, not a folder or a regular file"),
        (["sea.jpg", "hill.jpg", "--nonsense"], 2, "unrecognized arguments: --nonsense"),
        (["sea.jpg", "hill.jpg", "--profile=best"], 2, "profile must be one of"),
        (["sea.jpg", "hill.jpg", "--local-threshold=2"], 2, "local_threshold must be a number"),
        (["sea.jpg", "hill.jpg", "--wavelet_bits=x"], 2, "must be a whole number, not 'x'"),
        (["sea.jpg", "hill.jpg", "--wavelet_bits=1", "--wavelet_threshold=1"], 2, "not both"),
        (["sea.jpg", "text.jpg"], 1, "text.jpg': unidentified: "),
        (["cut.jpg", "sea.jpg"], 1, "cut.jpg': truncated: "),
        (["sea.jpg", "hill.jpg", "--max_image_bytes=1000"], 1, "sea.jpg': too_large: "),
        (["sea.jpg", "hill.jpg", "--max-pixels=1000"], 1, "sea.jpg': too_large: "),
    ],
)
def test_what_is_no_pair_of_images_is_one_line(
    folder: Path, capsys: Capture, words: list[str], code: int, message: str
) -> None:
    words = [word if word.startswith("--") else str(folder / word) for word in words]
    assert cli.main(["explain", *words]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"beam-dedup: {'refused' if code == 2 else 'failed'}: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("abfs://bucket/a.jpg", 2, "scheme 'abfs' is not supported"),
        ("s3://bucket/a.jpg", 2, "pip install 'apache-beam[aws]'"),
        ("", 2, "an input is empty"),
        ("/x?sig=c2VjcmV0", 2, "is refused: it holds a secret"),
    ],
)
def test_names_that_are_refused(
    folder: Path, capsys: Capture, name: str, code: int, message: str
) -> None:
    assert cli.main(["explain", str(folder / "sea.jpg"), name]) == code
    printed = capsys.readouterr()
    assert message in printed.err
    assert "c2Vj" not in printed.err


def test_x6_a_name_cannot_write_to_the_terminal(folder: Path, capsys: Capture) -> None:
    write(folder / "\x1b[31m.jpg", (folder / "hill.jpg").read_bytes())
    write(folder / "\x1b[32m.jpg", b"no picture")
    assert cli.main(["explain", str(folder / "\x1b[31m.jpg"), str(folder / "sea.jpg")]) == 0
    assert cli.main(["explain", str(folder / "\x1b[32m.jpg"), str(folder / "sea.jpg")]) == 1
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "\\x1b[31m.jpg (JPEG" in printed.out
