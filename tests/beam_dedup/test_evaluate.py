"""``beam-dedup evaluate``: exact figures on small made-up reports, and what is refused."""

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_dedup import cli, evaluate, options
from beam_dedup.options import UsageError
from beam_dedup.reports import Report
from tests.transforms.reporting.made import failed_row, image_row, write_by_hand
from transforms.records import EdgeRow, ImageRow

Capture = pytest.CaptureFixture[str]

# What is in the groups of the report, the kept image first; the others are in none.
GROUPS = {
    "G1": ("o1", "c1", "h1", "e1"),
    "G2": ("o2", "d1"),
    "G3": ("s1", "d2"),
    "G4": ("h2", "d5"),
}
DECIDED = {
    "c1": "local",
    "h1": "color",
    "e1": "exact",
    "d1": "local",
    "d2": "local",
    "d5": "global",
}
TRUTH = """file,note,group_id,transform
o1.jpg,,g1,original
in/c1.jpg,,g1,jpeg
/in/c2.jpg,,g1,crop
c3.jpg,,g1,crop
file:///in/c4.jpg,,g1,jpeg
e1.jpg,"ignored, as a whole",g1,exact
h1.jpg,,n1,hard_form
o2.jpg,,g2,original
d1.jpg,,g2,jpeg
d2.jpg,,g2,border
d3.jpg,,g2,jpeg
d4.jpg,,g2,blur
d5.jpg,,g2,blur

s1.jpg,,g3,original
h2.jpg,,n2,hard_flat
"""


def _row(name: str, **changes: Any) -> ImageRow:
    digest = f"{int.from_bytes(name.encode(), 'big'):064x}"
    row = image_row(f"{name}.jpg", sha256=digest, pixel_hash=digest)
    for group, members in GROUPS.items():
        if name in members:
            status = "best" if name == members[0] else "duplicate"
            row = row._replace(
                group_id=group, status=status, best_uri=f"file:///in/{members[0]}.jpg"
            )
    return row._replace(decided_by=DECIDED.get(name), **changes)


def _edge(a: str, b: str, verdict: str, decided_by: str, *scores: float | None) -> EdgeRow:
    """Return an edge with its colour, global and local score."""
    values: dict[str, Any] = dict.fromkeys(EdgeRow._fields)
    first, second = sorted((a, b))
    color, wide, local = (*scores, None, None, None)[:3]
    values |= {
        "uri_a": f"file:///in/{first}.jpg",
        "uri_b": f"file:///in/{second}.jpg",
        "generators": "wavelet",
        "relation": "similar",
        "verdict": verdict,
        "decided_by": decided_by,
        "color_similarity": color,
        "global_similarity": wide,
        "local_score": local,
        "in_group": verdict == "accept",
    }
    return EdgeRow(**values)


IMAGES = (
    *map(_row, ("o1", "c1", "c2", "c3", "c4", "h1", "o2", "d1", "d2", "d5", "s1", "h2")),
    _row("e1", pixel_hash=_row("o1").pixel_hash),
    failed_row("d3.jpg"),
    _row("unknown"),
)  # fmt: skip
EDGES = (
    _edge("o1", "c1", "accept", "local", 0.9, 0.9, 0.9),
    _edge("o1", "h1", "accept", "color", 0.97),
    _edge("o1", "c3", "reject", "color", 0.3),
    _edge("c1", "c4", "review", "local", 0.9, 0.8, 0.4),
    _edge("c1", "c3", "reject", "global", 0.9, 0.2),
    _edge("c2", "h1", "reject", "local", 0.9, 0.5, 0.1),
    _edge("o2", "d1", "accept", "local", 0.9, 0.9, 0.8),
    _edge("d1", "d2", "accept", "local", 0.9, 0.9, 0.7)._replace(in_group=False),
    _edge("s1", "d2", "accept", "local", 0.9, 0.9, 0.6),
    _edge("h2", "d5", "accept", "global", 0.9, 0.95),
    _edge("unknown", "d5", "reject", "color", 0.1),
)


def _write(
    folder: Path, images: Any = IMAGES, edges: Any = EDGES, truth: str = TRUTH, **more: Any
) -> list[str]:
    """Write report and truth; return the arguments that name them."""
    write_by_hand(folder / "report", "run-1", images, [], edges, **more)
    (folder / "truth.csv").write_text(truth, encoding="utf-8")
    return ["evaluate", f"--report={folder / 'report'}", f"--truth={folder / 'truth.csv'}"]


def _evaluate(folder: Path, *more: str, **made: Any) -> dict[str, Any]:
    """Evaluate a made-up report."""
    words = _write(folder, **made)
    found = evaluate.evaluate(
        Report.open(str(folder / "report")),
        evaluate.read_truth(words[2].partition("=")[2]),
        float(more[0]) if more else None,
    )
    assert json.loads(json.dumps(found)) == found
    return found


def test_the_figures_of_a_report(tmp_path: Path) -> None:
    found = _evaluate(tmp_path)
    assert found["files"] == {
        "truth": 15, "report": 15, "truth_without_row": 1, "report_without_truth": 1,
    }  # fmt: skip
    everything, photographs = found["all"], found["photographs"]
    assert everything == {
        "files": 15,
        "true_pairs": 30,
        "predicted_pairs": 9,
        "correct_pairs": 4,
        "pairwise": pytest.approx({"precision": 4 / 9, "recall": 4 / 30, "f1": 8 / 39}),
        "b_cubed": pytest.approx(
            {"precision": 11.5 / 15, "recall": 19 / 45, "f1": 2 * 34.5 * 19 / 45 / (34.5 + 19)}
        ),
    }
    assert photographs["files"] == 13
    assert photographs["predicted_pairs"] == 5
    assert photographs["pairwise"] == pytest.approx(
        {"precision": 4 / 5, "recall": 4 / 30, "f1": 8 / 35}
    )
    assert found["recall_by_kind"] == {
        "blur": {"found": 0, "of": 2, "recall": 0.0},
        "border": {"found": 0, "of": 1, "recall": 0.0},
        "crop": {"found": 0, "of": 2, "recall": 0.0},
        "exact": {"found": 1, "of": 1, "recall": 1.0},
        "jpeg": {"found": 2, "of": 4, "recall": 0.5},
    }
    assert found["false_merges_by_kind"] == {
        "blur": {"merged": 1, "of": 2},
        "border": {"merged": 1, "of": 1},
        "crop": {"merged": 0, "of": 2},
        "exact": {"merged": 1, "of": 1},
        "hard_flat": {"merged": 1, "of": 1},
        "hard_form": {"merged": 1, "of": 1},
        "jpeg": {"merged": 1, "of": 4},
        "original": {"merged": 2, "of": 3},
    }


def test_which_stage_decided_wrongly(tmp_path: Path) -> None:
    found = _evaluate(tmp_path)
    assert found["false_joins"] == {
        "total": 3,
        "by_stage": {"color": 1, "global": 1, "local": 1},
        "by_kind": {"blur": {"global": 1}, "border": {"local": 1}, "hard_form": {"color": 1}},
    }
    assert found["missed_copies"] == {
        "total": 7,
        "by_stage": dict.fromkeys(
            (
                "absent", "failed_decode", "false_group", "reject_global", "review_local", "taken",
                "unproposed",
            ),
            1,
        ),
        "by_kind": {
            "blur": {"absent": 1, "false_group": 1},
            "border": {"taken": 1},
            "crop": {"reject_global": 1, "unproposed": 1},
            "jpeg": {"failed_decode": 1, "review_local": 1},
        },
    }  # fmt: skip


def _cause_of(found: dict[str, Any], kind: str) -> dict[str, int]:
    return dict(found["missed_copies"]["by_kind"].get(kind, {}))


def test_an_equal_hash_that_the_truth_denies_is_a_false_join_by_exact(tmp_path: Path) -> None:
    found = _evaluate(tmp_path, truth=TRUTH.replace('as a whole",g1', 'as a whole",g9'))
    assert found["false_joins"]["by_kind"]["exact"] == {"exact": 1}


def test_without_a_truth_of_the_kept_image_the_larger_part_of_its_group_is_right(
    tmp_path: Path,
) -> None:
    truth = TRUTH.replace("o1.jpg,,g1,original\n", "").replace("s1.jpg,,g3,original\n", "")
    found = _evaluate(tmp_path, truth=truth)
    assert found["files"]["report_without_truth"] == 3
    assert found["false_joins"]["by_kind"] == {
        "blur": {"global": 1}, "hard_form": {"color": 1},
    }  # fmt: skip
    # c1 and e1 are together, so their group stands for g1; its copies are missed as before.
    assert _cause_of(found, "crop") == {"reject_global": 1, "unproposed": 1}
    assert _cause_of(found, "exact") == {}


@pytest.mark.parametrize("failed", ["c1", "c4"])
def test_a_pair_left_for_review_by_an_error_failed(tmp_path: Path, failed: str) -> None:
    images = [
        row._replace(error_stage="read", error_type="vanished") if f"/{failed}." in row.uri else row
        for row in IMAGES
    ]
    found = _evaluate(tmp_path, images=images)
    assert _cause_of(found, "jpeg") == {"failed_decode": 1, "failed_read": 1}


def test_an_edge_stands_for_all_images_with_the_pixels_of_its_ends(tmp_path: Path) -> None:
    images = [
        row._replace(pixel_hash=_row("c2").pixel_hash) if "unknown" in row.uri else row
        for row in IMAGES
    ]
    edges = [*EDGES, _edge("o1", "unknown", "review", "local", 0.9, 0.9, 0.45)]
    found = _evaluate(tmp_path, "0.5", images=images, edges=edges)
    assert _cause_of(found, "crop") == {"reject_global": 1, "review_local": 1}
    assert found["calibration"]["scores"][2]["pairs"] == 7


def test_the_edge_that_came_furthest_names_the_stage(tmp_path: Path) -> None:
    edges = [edge for edge in EDGES if edge.decided_by != "global"]
    assert _cause_of(_evaluate(tmp_path / "1", edges=edges), "crop") == {
        "reject_color": 1, "unproposed": 1,
    }  # fmt: skip
    edges += [_edge("c3", "e1", "review", "color", 0.6)]
    assert _cause_of(_evaluate(tmp_path / "2", edges=edges), "crop")["review_color"] == 1


def test_without_originals_any_true_partner_will_do(tmp_path: Path) -> None:
    truth = (
        "file,group_id,transform\no1.jpg,g1,a\nc1.jpg,g1,b\nc2.jpg,g1,b\nd1.jpg,g2,b\ns1.jpg,g3,b\n"
        "o2.jpg,g2,a\nh1.jpg,n1,hard_form\n"
    )
    found = _evaluate(tmp_path, truth=truth)
    assert found["recall_by_kind"] == {
        "a": {"found": 2, "of": 2, "recall": 1.0},
        "b": {"found": 2, "of": 3, "recall": 2 / 3},
    }
    assert found["missed_copies"]["by_kind"] == {"b": {"unproposed": 1}}


def test_without_kinds_all_files_are_of_one(tmp_path: Path) -> None:
    truth = "group_id,file\ng1,o1.jpg\ng1,c1.jpg\ng1,c2.jpg\n"
    found = _evaluate(tmp_path, truth=truth)
    assert found["recall_by_kind"] == {"unlabelled": {"found": 2, "of": 3, "recall": 2 / 3}}
    assert "photographs" not in found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12))
def test_the_counts_are_those_of_all_pairs(codes: list[tuple[int, int]]) -> None:
    truth, predicted = (np.array(column, np.int64) for column in zip(*codes, strict=True))
    nothing = np.zeros(len(codes), np.int64)
    found = evaluate.agreement(evaluate.Labels(truth, predicted, nothing, nothing, [""]))
    pairs = list(itertools.combinations(codes, 2))
    assert found["true_pairs"] == sum(a[0] == b[0] for a, b in pairs)
    assert found["predicted_pairs"] == sum(a[1] == b[1] for a, b in pairs)
    assert found["correct_pairs"] == sum(a == b for a, b in pairs)
    shares = [
        [sum(a == b for b in codes) / sum(a[side] == b[side] for b in codes) for a in codes]
        for side in (1, 0)
    ]
    assert found["b_cubed"]["precision"] == pytest.approx(np.mean(shares[0]))
    assert found["b_cubed"]["recall"] == pytest.approx(np.mean(shares[1]))


@pytest.mark.parametrize(
    ("files", "paths", "rows"),
    [
        (["b.jpg", "a.jpg"], ["/in/a.jpg", "/in/b.jpg"], [1, 0]),
        (["x/a.jpg", "y/a.jpg"], ["/in/y/a.jpg", "/in/x/a.jpg"], [1, 0]),
        (["./x/a.jpg"], ["/in/y/a.jpg", "/in/x/a.jpg"], [1]),
        (["/other/root/a.jpg"], ["/in/a.jpg"], [0]),
        (["aa.jpg", "a.jp", "none"], ["/in/a.jpg"], [-1, -1, -1]),
        (["q/a.jpg", "p/in/a.jpg"], ["/in/a.jpg"], [-1, 0]),
        (["p/in/a.jpg", "q/a.jpg"], ["/in/a.jpg"], [0, -1]),
        (["/in/a.jpg"], ["/x/in/a.jpg", "/in/a.jpg"], [1]),
        (["file:///in/%C3%A9%0A.jpg", "\n.jpg"], ["/in/é\\x0a.jpg", "/in/\\x0a.jpg"], [0, 1]),
        (["y/a.jpg", "z/a.jpg", "in/a.jpg"], ["/in/a.jpg"], [-1, -1, 0]),
        (["A.jpg"], ["/in/a.jpg"], [-1]),
        ([], ["/in/a.jpg"], []),
        (["a.jpg"], [], [-1]),
    ],
)
def test_files_are_found_by_their_longest_ending(
    files: list[str], paths: list[str], rows: list[int]
) -> None:
    assert evaluate.match(files, paths).tolist() == rows


@pytest.mark.parametrize(
    ("files", "paths", "message"),
    [
        (["a.jpg"], ["/x/a.jpg", "/y/a.jpg"], "'a.jpg' of the truth names several files"),
        (
            ["x/a.jpg"],
            ["/p/x/a.jpg", "/b.jpg", "/q/x/a.jpg"],
            "'x/a.jpg' of the truth names several",
        ),
        (["x/a.jpg", "y/a.jpg"], ["/a.jpg"], "'x/a.jpg' and 'y/a.jpg' of the truth name one file"),
    ],
)
def test_names_that_fit_equally_well_are_refused(
    files: list[str], paths: list[str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate.match(files, paths)


@pytest.mark.parametrize(
    ("precision", "pairs", "found"),
    [
        # (score, whether it is a true pair); status, threshold, precision, recall
        (0.5, [(0.9, 1), (0.8, 1), (0.3, 0)], ("reached", 0.3, 2 / 3, 1.0)),
        (0.75, [(0.9, 1), (0.8, 1), (0.7, 1), (0.6, 1), (0.3, 0), (0.2, 0), (0.1, 1)],
         ("reached", 0.3, 0.8, 0.8)),
        # Pairs of one score cannot be told apart.
        (0.5, [(0.9, 1), (0.8, 1), (0.8, 0), (0.8, 0), (0.8, 0)], ("too_few", None, None, None)),
        (0.5, [(0.9, 0), (0.8, 0), (0.7, 1)], ("unreached", None, None, None)),
        (0.5, [(0.9, 1)], ("too_few", None, None, None)),
        (0.5, [], ("too_few", None, None, None)),
        # Precision rises again below a false pair: the smallest threshold counts.
        (0.6, [(0.9, 0), (0.8, 1), (0.7, 1), (0.6, 1)], ("reached", 0.6, 0.75, 1.0)),
    ],
)  # fmt: skip
def test_the_smallest_threshold_of_a_precision(
    precision: float, pairs: list[tuple[float, int]], found: tuple[Any, ...]
) -> None:
    scores = np.array([score for score, _ in pairs])
    same = np.array([bool(true) for _, true in pairs], bool)
    for order in (slice(None), slice(None, None, -1)):
        result = evaluate.threshold_for(precision, scores[order], same[order])
        names = ("status", "threshold", "precision", "recall")
        assert tuple(result[name] for name in names) == pytest.approx(found)
        assert (result["pairs"], result["copies"]) == (len(pairs), int(same.sum()))


@pytest.mark.parametrize(("precision", "needed"), [(0.5, 2), (0.99, 100), (0.999, 1000)])
def test_a_share_of_errors_needs_as_many_pairs_to_be_seen(precision: float, needed: int) -> None:
    for number, status in ((needed - 1, "too_few"), (needed, "reached")):
        found = evaluate.threshold_for(precision, np.ones(number), np.ones(number, bool))
        assert (found["needed"], found["status"]) == (needed, status)


def test_each_score_is_calibrated_on_the_pairs_that_have_it(tmp_path: Path) -> None:
    scores = _evaluate(tmp_path, "0.5")["calibration"]["scores"]
    names = ("option", "status", "pairs", "copies", "threshold", "precision", "recall")
    assert [tuple(score[name] for name in names) for score in scores] == [
        ("color_threshold", "reached", 2, 1, 0.3, 0.5, 1.0),
        ("global_threshold", "reached", 8, 5, 0.2, 0.625, 1.0),
        ("local_threshold", "reached", 6, 4, 0.1, pytest.approx(4 / 6), 1.0),
    ]


TEXT = """\
report  {folder}/report (run run-1, 15 files)
truth   {folder}/truth.csv (15 files)
in the truth alone   1 (each counts as a group of its own)
in the report alone  1 (left out)

                          precision  recall      F1  correct  predicted  true
pairs                        0.4444  0.1333  0.2051        4          9    30
B-cubed                      0.7667  0.4222  0.5445
pairs, photographs alone     0.8000  0.1333  0.2286        4          5    30

copies found, by kind  found  of  recall
  blur                     0   2  0.0000
  border                   0   1  0.0000
  crop                     0   2  0.0000
  exact                    1   1  1.0000
  jpeg                     2   4  0.5000

merged with others, by kind  files  of
  blur                           1   2
  border                         1   1
  exact                          1   1
  hard_flat                      1   1
  hard_form                      1   1
  jpeg                           1   4
  original                       2   3

joined wrongly, by stage  files
  color                       1
  global                      1
  local                       1

copies missed, by stage                              copies
  no row in the report                                    1
  failed at decode                                        1
  not compared: one is in a group of other pictures       1
  rejected by global                                      1
  left for review by local                                1
  accepted, but taken by another kept image               1
  never proposed                                          1
"""
CALIBRATION = """
thresholds for a precision of 0.6, of the pairs in edges
  --color_threshold none: too few pairs with a truth, 3 must lie at or above a threshold
    color_similarity of the 2 pairs that went no further than stage 2, 1 of them copies
    below it stage 2 rejects a pair whose keys are near; at or above it the pair goes on, or is \
accepted within the limits of the profile
  --global_threshold 0.2000: precision 0.6250, recall 1.0000
    global_similarity of the 8 pairs that stage 3 compared, 5 of them copies
    below it stage 3 rejects a pair whose keys are near; at or above it the pair goes on
  --local_threshold 0.1000: precision 0.6667, recall 1.0000
    local_score of the 6 pairs that stage 4 compared, 4 of them copies
    at or above it stage 4 accepts a pair, unless it is almost without texture or its relation is \
no duplicate; below it the pair is left for review or rejected
"""


def test_the_command_prints_tables(tmp_path: Path, capsys: Capture) -> None:
    words = _write(tmp_path)
    assert cli.main(words) == 0
    assert capsys.readouterr() == (TEXT.format(folder=tmp_path), "")
    assert cli.main([*words, "--precision", "0.6"]) == 0
    assert capsys.readouterr() == (TEXT.format(folder=tmp_path) + CALIBRATION, "")
    assert cli.main([*words, "--precision=0.7"]) == 0
    text = capsys.readouterr().out
    assert "--global_threshold none: no threshold reaches this precision" in text
    assert "--local_threshold 0.4000: precision 0.8000, recall 1.0000" in text


CLIP = "clip:ViT-B-32/my weights.safetensors"
OPTIONS = {"global_model": CLIP, "local_model": "loftr", "global_reject": 0.62, "verify": True}


def test_a_threshold_is_for_the_model_of_its_report(tmp_path: Path, capsys: Capture) -> None:
    words = _write(tmp_path, options=OPTIONS)
    assert cli.main([*words, "--precision=0.6"]) == 0
    text = capsys.readouterr().out
    assert f"\nmodels  {CLIP}, loftr (global_threshold 0.62)\n" in text
    # The model rejects whatever the keys say, so the option means something else.
    assert "    below it stage 3 rejects a pair; at or above it the pair goes on\n" in text
    lines = [line for line in text.split("\n") if "valid for this model alone" in line]
    assert lines == [
        f"    valid for this model alone: '--global_model={CLIP}' --global_threshold=0.2",
        "    valid for this model alone: --local_model=loftr --local_threshold=0.1",
    ]
    found = _evaluate(tmp_path / "again", "0.6", options=OPTIONS)
    assert found["models"] == {
        "global_model": CLIP, "local_model": "loftr", "global_threshold": 0.62,
    }  # fmt: skip
    assert [(score["model"], score["use"]) for score in found["calibration"]["scores"]] == [
        (None, None),
        (CLIP, f"'--global_model={CLIP}' --global_threshold=0.2"),
        ("loftr", "--local_model=loftr --local_threshold=0.1"),
    ]


def test_the_option_line_is_what_run_takes(tmp_path: Path) -> None:
    options_of = {**OPTIONS, "global_model": "descriptor", "local_model": "sift"}
    scores = _evaluate(tmp_path, "0.5", options=options_of)["calibration"]["scores"]
    words = [word for score in scores for word in shlex.split(score["use"])]
    config, _, _ = options.parse(["--input=x", "--dry_run", *words])
    assert (config.global_model, config.local_model) == ("descriptor", "sift")
    thresholds = (config.color_threshold, config.global_threshold, config.local_threshold)
    assert thresholds == (0.3, 0.2, 0.1)
    assert "whose keys are near" in scores[1]["meaning"]


@pytest.mark.parametrize(
    ("recorded", "models"),
    [
        ({}, None),
        ({"verify": False, "global_model": "descriptor", "local_model": "orb"}, None),
        ({"verify": False, "global_model": CLIP}, (CLIP, None, None)),
        # A report of before there were models to choose.
        ({"verify": True, "global_reject": 0.4}, ("descriptor", "orb", 0.4)),
        ({"verify": True, "local_model": None}, ("descriptor", "orb", None)),
    ],
)
def test_models_that_did_not_run_are_not_named(
    tmp_path: Path, recorded: dict[str, Any], models: tuple[Any, ...] | None
) -> None:
    found = _evaluate(tmp_path, "0.5", options=recorded)
    assert found["models"] == (models and evaluate.UsedModels(*models)._asdict())
    text = evaluate.to_text({"report": "r", "run_id": "1", "truth": "t", **found})
    assert ("\nmodels  " in text) == (models is not None)


def test_nothing_wrong_is_said(tmp_path: Path, capsys: Capture) -> None:
    words = _write(tmp_path, truth="file,group_id\no2.jpg,g2\nd1.jpg,g2\n")
    assert cli.main(words) == 0
    text = capsys.readouterr().out
    assert "merged with others, by kind  files  of\n  none\n" in text
    assert "joined wrongly, by stage  files\n  none\n" in text
    assert "copies missed, by stage  copies\n  none\n" in text


def test_json_is_one_object_on_standard_output_alone(tmp_path: Path, capsys: Capture) -> None:
    assert cli.main([*_write(tmp_path), "--json", "--precision=0.5"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert printed.err == ""
    assert found.pop("run_id") == "run-1"
    assert found.pop("report") == str(tmp_path / "report")
    assert found.pop("truth") == str(tmp_path / "truth.csv")
    assert found == _evaluate(tmp_path / "again", "0.5")


def test_help_names_the_options(capsys: Capture) -> None:
    assert cli.main(["evaluate", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in ("report", "truth", "json", "precision", "verbose"))


def test_x6_names_of_the_truth_cannot_write_to_the_terminal(
    tmp_path: Path, capsys: Capture
) -> None:
    truth = "file,group_id,transform\no1.jpg,g1,original\nc2.jpg,g1,\x1b[31m\n"
    assert cli.main(_write(tmp_path, truth=truth)) == 0
    assert "\\x1b[31m" in capsys.readouterr().out


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_truth_may_come_from_a_spreadsheet(tmp_path: Path, start: bytes, end: str) -> None:
    path = tmp_path / "truth.csv"
    path.write_bytes(
        start + f'file,group_id{end}"a, b.jpg",1{end}"a, b.jpg",1{end}é.jpg,2'.encode()
    )
    assert evaluate.read_truth(str(path)) == (["a, b.jpg", "é.jpg"], ["1", "2"], ["unlabelled"] * 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "there is no column 'file'"),
        (b"file,group\na,1\n", "there is no column 'group_id'"),
        (b"path,group_id\na,1\n", "there is no column 'file'"),
        (b"file,group_id\n", "holds no row"),
        (b"\xef\xbb\xbffile,group_id\r\n\r\n", "holds no row"),
        (b"file,group_id\na\n", "line 2 has no group_id"),
        (b"file,group_id\n,1\n", "line 2 has no file"),
        (b"file,group_id\na,1\nb,1\na,2\n", "line 4 gives 'a' another group or kind"),
        (b"file,group_id,transform\na,1,x\na,1,y\n", "line 3 gives 'a' another group or kind"),
        (b"file,group_id\n\xff,1\n", "is not UTF-8"),
        ("file,group_id\na,1\n".encode("utf-16"), "is not UTF-8"),
        (b'file,group_id\n"a,1\n', "cannot be read: unexpected end of data"),
        (b"file,group_id\n" + b"a" * 200_000 + b",1\n", "cannot be read: field larger than"),
        (b"file,group_id\nc1.jpg,1\nx/c1.jpg,1\n", "of the truth name one file"),
    ],
)
def test_a_truth_that_is_refused_is_one_line_and_exit_2(
    tmp_path: Path, capsys: Capture, content: bytes | None, message: str
) -> None:
    words = _write(tmp_path)
    (tmp_path / "truth.csv").unlink()
    if content is not None:
        (tmp_path / "truth.csv").write_bytes(content)
    assert cli.main(words) == 2
    _assert_refused(capsys, message)


def _assert_refused(capsys: Capture, message: str) -> None:
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("beam-dedup: refused: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "the following arguments are required: --report, --truth"),
        (["--report={0}/report"], "the following arguments are required: --truth"),
        (["--report={0}/none", "--truth={0}/truth.csv"], "no manifest.json in"),
        (["--report=", "--truth={0}/truth.csv"], "no output folder is given"),
        (["--report=s3://b/c", "--truth={0}/truth.csv"], "pip install 'apache-beam[aws]'"),
        (["--report={0}/report", "--truth={0}"], "cannot be read: Is a directory"),
        (["--precision=0"], "precision must be above 0 and below 1, not 0.0"),
        (["--precision=1"], "precision must be above 0 and below 1, not 1.0"),
        (["--precision=nan"], "precision must be above 0 and below 1, not nan"),
        (["--precision=x"], "argument --precision: invalid float value: 'x'"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(
    tmp_path: Path, capsys: Capture, words: list[str], message: str
) -> None:
    given = _write(tmp_path)
    words = [word.format(tmp_path) for word in words]
    names = {word.partition("=")[0] for word in words}
    if not names <= {"--report", "--truth"}:
        words = [*given[1:], *words]
    assert cli.main(["evaluate", *words]) == 2
    _assert_refused(capsys, message)


def test_a8_only_what_the_manifest_names_is_read(tmp_path: Path, capsys: Capture) -> None:
    words = _write(tmp_path)
    (tmp_path / "report" / "images" / "stale-00000.parquet").write_bytes(b"no table")
    assert cli.main(words) == 0
    assert capsys.readouterr().out == TEXT.format(folder=tmp_path)
    (tmp_path / "report" / "images" / "run-1-00000.parquet").write_bytes(b"changed")
    assert cli.main(words) == 2
    _assert_refused(capsys, "is not the file that the manifest names")


def test_an_empty_report_finds_nothing(tmp_path: Path) -> None:
    found = _evaluate(tmp_path, "0.5", images=[], edges=[])
    assert found["all"]["pairwise"] == {"precision": 1.0, "recall": 0.0, "f1": 0.0}
    assert found["missed_copies"]["by_stage"] == {"absent": 10}
    assert [score["status"] for score in found["calibration"]["scores"]] == ["too_few"] * 3
