"""Options: defaults, ranges, spellings, secrets, and the effect of each on the config."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import beam_dedup
from beam_dedup import options
from beam_dedup.options import PROFILES, PipelineConfig, RunConfig, UsageError, parse
from tests import pictures as made
from tests.transforms import samples as made_up
from tests.transforms.imaging.pictures import gained, photograph
from transforms.access import Access
from transforms.color import judge_colors
from transforms.imaging.color import color_descriptor
from transforms.imaging.layout import layout
from transforms.records import Candidate, Content
from transforms.rounds import blank_edge

_BASE = ["--input=in", "--output=out"]


def _config(*words: str) -> PipelineConfig:
    return parse([*_BASE, *words])[0]


def _run(*words: str) -> RunConfig:
    return parse([*_BASE, *words])[1]


def test_defaults() -> None:
    config, run, beam_args = parse(_BASE)
    assert (config.inputs, config.output) == (("in",), "out")
    assert config.settings == PROFILES["balanced"]
    assert (config.limit, config.include, config.exclude) == (None, (), ())
    assert (config.max_failure_ratio, config.max_image_bytes) == (0.05, 256 * 2**20)
    groups = (config.max_group_size_color, config.max_group_size_global)
    assert (*groups, config.max_group_size_local) == (4000, 500, 200)
    batches = (config.batch_size_color, config.batch_size_global, config.batch_size_local)
    assert batches == (4096, 32, 16)
    assert "similar" not in config.duplicate_relations
    assert len(config.duplicate_relations) == 10
    assert run == RunConfig(None, None, False, False, False)
    assert beam_args == []


@pytest.mark.parametrize(
    ("word", "name", "value"),
    [
        ("--profile=fast", "profile", "fast"),
        ("--include=*.jpg", "include", ("*.jpg",)),
        ("--exclude=*.gif", "exclude", ("*.gif",)),
        ("--limit=7", "limit", 7),
        ("--min_size=8", "min_size", 8),
        ("--max_size=9", "max_size", 9),
        ("--modified_after=2026-11-20", "modified_after", "2026-11-20"),
        ("--modified_before=2026-11-20T10:00:00Z", "modified_before", "2026-11-20T10:00:00Z"),
        ("--listing_cache=/tmp/cache", "listing_cache", "/tmp/cache"),
        ("--listing_max_age=90s", "listing_max_age_s", 90.0),
        ("--listing_max_age=1.5h", "listing_max_age_s", 5400.0),
        ("--listing_max_age=7d", "listing_max_age_s", 7 * 86400.0),
        ("--listing_max_age=12", "listing_max_age_s", 12.0),
        ("--max_requests_per_second=500", "max_requests_per_second", 500),
        ("--max_failure_ratio=0.5", "max_failure_ratio", 0.5),
        ("--max_image_bytes=1000", "max_image_bytes", 1000),
        ("--max_pixels=1000", "max_pixels", 1000),
        ("--wavelet_bits=38", "wavelet_bits", 38),
        ("--wavelet_threshold=0.85", "wavelet_bits", 38),
        ("--color_threshold=0.7", "color_threshold", 0.7),
        ("--global_threshold=0.7", "global_threshold", 0.7),
        ("--local_threshold=0.7", "local_threshold", 0.7),
        ("--max_group_size_color=10", "max_group_size_color", 10),
        ("--max_group_size_global=10", "max_group_size_global", 10),
        ("--max_group_size_local=10", "max_group_size_local", 10),
        ("--batch_size_color=10", "batch_size_color", 10),
        ("--batch_size_global=10", "batch_size_global", 10),
        ("--batch_size_local=10", "batch_size_local", 10),
        ("--duplicate_relations=exact, turned", "duplicate_relations", ("exact", "turned")),
    ],
)
def test_each_option_reaches_the_config_and_the_summary(
    word: str, name: str, value: object
) -> None:
    config = _config(word)
    assert getattr(config, name) == value
    recorded = config.options.get(name)
    assert recorded == (list(value) if isinstance(value, tuple) else value)
    json.dumps(config.options)


def test_access_holds_what_one_process_may_ask_of_stores(tmp_path: Path) -> None:
    assert _config().access == Access()
    config = _config(
        f"--azure_secret_file={tmp_path}/mounted",
        "--read_concurrency=7",
        "--read_memory_bytes=1000",
        "--max_requests_per_second=100",
        "--workers=3",
    )
    # Three workers and the process that starts them.
    assert config.access == Access(f"{tmp_path}/mounted", 25, 7, 1000)
    assert config.options["azure_secret_file"] == f"{tmp_path}/mounted"
    assert (config.options["read_concurrency"], config.options["read_memory_bytes"]) == (7, 1000)
    assert _config("--max_requests_per_second=100", "--workers=1").access.requests_per_second == 100
    assert _config("--azure_secret_file=here").access.secret_file == os.path.abspath("here")


@pytest.mark.parametrize(
    ("words", "share"),
    [
        (["--runner=FlinkRunner", "--parallelism=9"], 10),
        (["--runner=DataflowRunner", "--max_num_workers=2", "--parallelism=4"], 20),
        (["--runner=DirectRunner", "--direct_num_workers=3"], 25),
        (["--runner=SparkRunner", "--parallelism=99"], 1),
    ],
)
def test_a_runner_with_declared_parallelism_shares_the_rate(words: list[str], share: int) -> None:
    config = _config("--max_requests_per_second=100", *words)
    assert config.access.requests_per_second == share


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_requests_per_second=100", "--runner=SparkRunner"], "with --parallelism"),
        # Of machines, each with a process for every core.
        (
            ["--max_requests_per_second=100", "--runner=DataflowRunner", "--max_num_workers=4"],
            "with --parallelism",
        ),
        (["--max_requests_per_second=3", "--workers=3"], "at least 4, one for each process"),
        (["--max_requests_per_second=0"], "max_requests_per_second must be"),
        (["--read_concurrency=0"], "read_concurrency must be"),
        (["--read_memory_bytes=0"], "read_memory_bytes must be"),
        (["--listing_max_age=soon"], "listing_max_age must be a time such as"),
        (["--listing_max_age=-1h"], "listing_max_age must be a time such as"),
        (["--min_size=-1"], "min_size must be"),
        (["--min_size=10", "--max_size=9"], "no file fits"),
        (["--modified_after=yesterday"], "modified_after must be a date or a time in ISO 8601"),
        (["--modified_after=2026-02-01", "--modified_before=2026-02-01"], "no file fits"),
    ],
)
def test_bounds_that_cannot_be_meant_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _config(*words)


def test_bounds_of_size_and_date() -> None:
    words = ("--min_size=1", "--max_size=2", "--modified_after=1970-01-02")
    bounds = _config(*words, "--modified_before=1970-01-02T02:00:00+01:00").bounds()
    assert bounds == (1, 2, 86_400_000_000, 90_000_000_000)
    assert _config().bounds() == (None, None, None, None)


@pytest.mark.parametrize(
    ("word", "changes"),
    [
        ("--wavelet_bits=5", {"wavelet_bits": 5}),
        ("--wavelet_bits=50", {"wavelet_bits": 50}),
        ("--color_threshold=0.1", {"color_reject": 0.1}),
        ("--color_threshold=1", {"color_reject": 1.0, "color_accept": 1.0}),
        ("--global_threshold=0.9", {"global_reject": 0.9}),
        ("--local_threshold=0.9", {"local_accept": 0.9}),
        ("--local_threshold=0", {"local_accept": 0.0, "local_review": 0.0}),
    ],
)
def test_thresholds_override_the_profile(word: str, changes: dict[str, float]) -> None:
    for profile, base in PROFILES.items():
        settings = _config(word, f"--profile={profile}").settings
        assert settings == dataclasses.replace(base, **changes)


def test_cascade_settings_take_every_field() -> None:
    pytest.importorskip("transforms.imaging.decode")
    config = _config(
        "--global_threshold=0.11",
        "--local_threshold=0.92",
        "--color_threshold=0.13",
        "--wavelet_bits=9",
        "--max_group_size_color=21",
        "--max_group_size_global=22",
        "--max_group_size_local=23",
        "--batch_size_color=24",
        "--batch_size_global=25",
        "--batch_size_local=26",
        "--duplicate_relations=cropped",
        "--max_pixels=27",
        "--max_image_bytes=28",
    )
    settings = options.cascade_settings(config)
    assert (settings.global_reject, settings.local_accept) == (0.11, 0.92)
    assert config.settings.wavelet_bits == 9
    assert settings.color.reject_similarity == 0.13
    assert settings.max_group_size_color == 21
    assert settings.max_group_size_global == 22
    assert settings.max_group_size_local == 23
    assert settings.batch_size_color == 24
    assert settings.batch_size_global == 25
    assert settings.batch_size_local == 26
    assert settings.relations == settings.color.relations == {"cropped"}
    assert (settings.limits.max_pixels, settings.limits.max_image_bytes) == (27, 28)


@pytest.mark.parametrize(
    ("name", "value", "stage", "field"),
    [
        ("color_reject", 0.11, "color", "reject_similarity"),
        ("color_accept", 0.12, "color", "accept_similarity"),
        ("layout_residual", 0.13, "color", "accept_residual"),
        ("layout_accept", 0.14, "color", "accept_differing"),
        ("layout_reject", 0.15, "color", "reject_differing"),
        ("verify", None, "color", "verify"),
        ("global_reject", 0.16, "", "global_reject"),
        ("local_accept", 0.17, "", "local_accept"),
        ("local_review", 0.18, "", "local_review"),
        ("rounds", 7, "", "rounds"),
    ],
)
@pytest.mark.parametrize("profile", PROFILES)
def test_each_value_of_a_profile_reaches_its_stage_and_no_other(
    monkeypatch: pytest.MonkeyPatch, profile: str, name: str, value: Any, stage: str, field: str
) -> None:
    config = _config(f"--profile={profile}")
    base, before = PROFILES[profile], options.cascade_settings(config)
    value = not base.verify if value is None else value
    changed = dataclasses.replace(base, **{name: value})
    monkeypatch.setattr(options, "PROFILES", {**PROFILES, profile: changed})
    expected = dataclasses.replace(before.color if stage else before, **{field: value})
    if stage:
        expected = dataclasses.replace(before, color=expected)
    assert expected != before
    assert options.cascade_settings(config) == expected


def _copy(change: Callable[[Any], Any]) -> list[Content]:
    """Return a made-up photograph and a changed form of it, as stage 2 sees them."""
    picture = photograph(4)
    return [
        made_up.make_content(name)._replace(
            color=color_descriptor(pixels).tobytes(), layout=layout(pixels).tobytes()
        )
        for name, pixels in (("a", picture), ("b", np.ascontiguousarray(change(picture))))
    ]


def _warm(picture: Any) -> Any:
    return gained(picture, (1.15, 1.0, 0.85))


def _trimmed(picture: Any) -> Any:
    return picture[4:-4, 4:-4]


def _darker(picture: Any) -> Any:
    """Bend the tone curve: a residual is left, and 2 % of the cells differ."""
    return (255 * (picture / 255.0) ** 2).astype(np.uint8)


def _shaded(picture: Any) -> Any:
    """Darken a piece: no residual of it is small, and 7 % of the cells differ."""
    shaded = picture.copy()
    shaded[40:80, 60:120] = shaded[40:80, 60:120] * 0.6
    return shaded


@pytest.mark.parametrize(
    ("name", "values", "change", "verdicts"),
    [
        ("color_reject", (0.5, 1.0), _warm, ("accept", "reject")),
        ("color_accept", (0.85, 1.0), _warm, ("accept", "undecided")),
        ("layout_residual", (0.5, 0.1), _trimmed, ("accept", "undecided")),
        ("layout_accept", (0.15, 0.0), _darker, ("accept", "undecided")),
        ("layout_reject", (0.6, 0.01), _shaded, ("undecided", "reject")),
    ],
)
def test_each_value_of_stage_2_has_an_effect(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    values: tuple[float, float],
    change: Callable[[Any], Any],
    verdicts: tuple[str, str],
) -> None:
    contents = {content.content: content for content in _copy(change)}
    candidate = Candidate(*sorted(contents), "wavelet", 8, 1)
    config, found = _config(), []
    base = dataclasses.replace(PROFILES["balanced"], layout_accept=0.0)
    for value in values:
        settings = dataclasses.replace(base, **{name: value})
        monkeypatch.setattr(options, "PROFILES", {"balanced": settings})
        color = options.cascade_settings(config).color
        (edge,) = judge_colors([blank_edge(candidate)], contents, color)
        found.append(edge.verdict)
    assert tuple(found) == verdicts


@pytest.mark.parametrize(("word_votes", "proposed"), [(0, None), (2, "words"), (256, None)])
def test_word_votes_have_an_effect(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, word_votes: int, proposed: str | None
) -> None:
    one = made.photo(800, 480, 360)
    made.write(tmp_path / "in/a.jpg", made.saved(one))
    made.write(tmp_path / "in/b.jpg", made.saved(made.cropped(one, 0.2)))
    settings = dataclasses.replace(PROFILES["balanced"], word_votes=word_votes)
    monkeypatch.setattr(options, "PROFILES", {"balanced": settings})
    result = beam_dedup.deduplicate(tmp_path / "in", tmp_path / "out", workers=1)
    generators = [edge["generators"] for edge in result.edges.to_pylist()]
    assert generators == ([proposed] if proposed else [])
    searched = {one["name"] for one in result.summary["generators"]}
    assert searched == ({"wavelet", "words"} if word_votes else {"wavelet"})


@pytest.mark.parametrize(
    "word",
    [
        "--color_threshold=nan",
        "--color_threshold=-0.01",
        "--color_threshold=1.01",
        "--global_threshold=inf",
        "--local_threshold=nan",
        "--wavelet_threshold=nan",
        "--wavelet_threshold=1.5",
        "--wavelet_bits=-1",
        "--wavelet_bits=257",
        "--wavelet_bits=3.5",
        "--max_failure_ratio=nan",
        "--max_failure_ratio=1.01",
        "--limit=0",
        "--limit=x",
        "--workers=0",
        "--max_image_bytes=0",
        "--max_pixels=0",
        "--max_group_size_color=1",
        "--max_group_size_global=0",
        "--max_group_size_local=-1",
        "--batch_size_color=0",
        "--batch_size_global=0",
        "--batch_size_local=0",
        "--profile=best",
        "--duplicate_relations=same",
        "--duplicate_relations=",
    ],
)
def test_g7_out_of_range_is_refused_with_name_and_value(word: str) -> None:
    name, _, value = word[2:].partition("=")
    with pytest.raises(UsageError) as caught:
        parse([*_BASE, word])
    assert name in str(caught.value)
    assert value.strip("-") in str(caught.value)


@pytest.mark.parametrize("value", ["0", "1", "0.5"])
def test_g7_edges_are_accepted(value: str) -> None:
    for name in ("color", "global", "local"):
        assert getattr(_config(f"--{name}_threshold={value}"), f"{name}_threshold") == float(value)


@given(st.integers(0, 256))
def test_g7_the_similarity_of_a_whole_number_of_bits_passes(bits: int) -> None:
    similarity = 1 - bits / 256
    assert options.bits_of_similarity(similarity) == bits
    assert options.bits_of_similarity(float(repr(similarity))) == bits


@given(st.floats(0, 1))
def test_bits_keep_the_order_of_similarities(similarity: float) -> None:
    bits = options.bits_of_similarity(similarity)
    assert 1 - bits / 256 >= similarity - 1e-9
    assert bits == 256 or 1 - (bits + 1) / 256 < similarity


def test_both_wavelet_options_are_refused() -> None:
    with pytest.raises(UsageError, match="not both"):
        parse([*_BASE, "--wavelet_bits=38", "--wavelet_threshold=0.85"])


def test_hyphens_and_separate_values_are_the_same() -> None:
    for words in (
        ["--max-failure-ratio=0.1", "--batch-size-color", "9", "--dry-run"],
        ["--max_failure_ratio", "0.1", "--batch_size_color=9", "--dry_run"],
    ):
        config, run, _ = parse([*_BASE, *words])
        assert (config.max_failure_ratio, config.batch_size_color, run.dry_run) == (0.1, 9, True)


def test_values_keep_their_hyphens() -> None:
    config, _, beam_args = parse(
        ["--input=a-b", "--output", "c-d", "--temp-location=gs://e-f", "--runner=FlinkRunner"]
    )
    assert (config.inputs, config.output) == (("a-b",), "c-d")
    assert beam_args == ["--temp_location=gs://e-f", "--runner=FlinkRunner"]


def test_beam_options_pass_through() -> None:
    words = ["--runner", "FlinkRunner", "--flink_master=localhost:8081", "--parallelism", "4"]
    config, run, beam_args = parse([*_BASE, *words, "--streaming"])
    assert beam_args == [*words, "--streaming"]
    assert run.runner == "FlinkRunner"
    assert config.options["beam"] == {
        "runner": "FlinkRunner",
        "flink_master": "localhost:8081",
        "parallelism": 4,
        "streaming": True,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flink_mater=x"], r"neither beam-dedup nor Beam has an option --flink_mater.*flink_m"),
        (["--no_such_thing_zzz"], "neither beam-dedup nor Beam"),
        (["--profil=fast"], "did you mean --profile"),
        (["stray"], "inputs are given with --input"),
        (["--parallelism=many"], "parallelism.*an option of Beam"),
        (["-x"], "neither"),
    ],
)
def test_unknown_options_are_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse([*_BASE, *words])


def test_p6_no_option_that_holds_a_secret_is_offered() -> None:
    with pytest.raises(UsageError, match="option --azure_sas_token; see beam-dedup run --help"):
        parse([*_BASE, "--azure_sas_token=x"])


def test_workers_are_for_the_embedded_runner() -> None:
    assert _run("--workers=3").workers == 3
    with pytest.raises(UsageError, match="FlinkRunner"):
        parse([*_BASE, "--workers=3", "--runner=FlinkRunner"])
    with pytest.raises(UsageError, match="--workers"):
        parse([*_BASE, "--direct_num_workers=3"])
    assert _run("--direct_num_workers=3", "--runner=DirectRunner").runner == "DirectRunner"


def test_flags() -> None:
    assert _run("-q").quiet
    assert _run("--quiet").quiet
    assert _run("-v").verbose
    assert _run("--dry_run").dry_run


def test_missing_input_or_output_is_refused() -> None:
    with pytest.raises(UsageError, match="--input"):
        parse(["--output=out"])
    with pytest.raises(UsageError, match="--output"):
        parse(["--input=in"])
    with pytest.raises(UsageError, match="input is empty"):
        parse(["--input=", "--output=out"])
    assert parse(["--input=in", "--dry_run"])[0].output == ""


_KEY = "c2VjcmV0LWtleS12YWx1ZQ=="
_SECRETS = [
    [f"--azure_connection_string=DefaultEndpointsProtocol=https;AccountKey={_KEY}"],
    ["--azure_connection_string", f"AccountName=a;AccountKey={_KEY}"],
    ["--azure-connection-string", f"x{_KEY}"],
    [f"--input=https://a.blob.core.windows.net/c/x.jpg?sv=1&sig={_KEY}"],
    [f"--input=azfs://a/c?sig={_KEY}"],
    [f"--temp_location=https://user:{_KEY}@host/x"],
    [f"--s3_secret_access_key={_KEY}"],
    [f"--job_name=accountkey={_KEY}"],
    [f"SharedAccessSignature={_KEY}"],
]


@pytest.mark.parametrize("words", _SECRETS)
def test_x2_secrets_are_refused_and_never_shown(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        parse([*_BASE, *words])
    assert _KEY not in str(caught.value)
    assert "secret" in str(caught.value)
    assert caught.value.__cause__ is None


def test_x2_a_name_that_only_looks_alike_is_taken() -> None:
    config, _, _ = parse(["--input=design=1", "--output=big_sig=2"])
    assert (config.inputs, config.output) == (("design=1",), "big_sig=2")


def test_x6_messages_hold_no_control_characters() -> None:
    for word in ("--limit=\x1b[31m", "\x1b[31mname", "--\x1b[31m=2", "--profile=\x1b[31m"):
        with pytest.raises(UsageError) as caught:
            parse([*_BASE, word])
        assert "\x1b" not in str(caught.value)


def test_names_that_are_no_utf8_are_recorded_escaped() -> None:
    config, _, _ = parse(["--input=a\udcff\n", "--output=out"])
    assert config.inputs == ("a\udcff\n",)
    assert config.options["inputs"] == ["a\\udcff\\x0a"]
    json.dumps(config.options).encode()


def test_run_ids_differ_and_are_plain() -> None:
    ids = {options.new_run_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(one.replace("-", "").isalnum() for one in ids)


def test_python_arguments_become_the_same_config() -> None:
    argv = options.to_argv(
        [Path("a b"), "--odd"],
        Path("out"),
        {
            "profile": "fast",
            "exclude": ["*.gif", "*.tif"],
            "duplicate_relations": ["exact", "turned"],
            "max_failure_ratio": 0.2,
            "limit": None,
            "streaming": True,
            "flink_master": "x:1",
            "runner": "FlinkRunner",
        },
    )
    config, run, beam_args = parse(argv)
    assert config.inputs == ("a b", "--odd")
    assert (config.output, config.profile) == ("out", "fast")
    assert config.exclude == ("*.gif", "*.tif")
    assert config.duplicate_relations == ("exact", "turned")
    assert (config.max_failure_ratio, config.limit) == (0.2, None)
    assert run.runner == "FlinkRunner"
    assert beam_args == ["--streaming", "--flink_master=x:1", "--runner=FlinkRunner"]


@pytest.mark.parametrize("name", ["dry_run", "quiet", "verbose"])
def test_options_of_the_command_line_alone(name: str) -> None:
    with pytest.raises(UsageError, match=name):
        options.to_argv("in", "out", {name: True})


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="color_reject"):
        dataclasses.replace(PROFILES["fast"], color_reject=float("nan"))
    with pytest.raises(UsageError, match="wavelet_bits"):
        dataclasses.replace(PROFILES["fast"], wavelet_bits=257)
    with pytest.raises(UsageError, match="rounds"):
        dataclasses.replace(PROFILES["fast"], rounds=0)
    for name in ("layout_residual", "layout_accept", "layout_reject"):
        for value in (-0.01, 1.01, float("nan"), True):
            with pytest.raises(UsageError, match=name):
                dataclasses.replace(PROFILES["fast"], **{name: value})
    for votes in (-1, 257, 2.5):
        with pytest.raises(UsageError, match="word_votes"):
            dataclasses.replace(PROFILES["fast"], word_votes=votes)
    with pytest.raises(UsageError, match="one match fixes no transform"):
        dataclasses.replace(PROFILES["fast"], word_votes=1)
    assert dataclasses.replace(PROFILES["fast"], word_votes=2).word_votes == 2


def test_help_names_every_option_of_ours_and_points_to_beam() -> None:
    text = options.help_text()
    for name in vars(parse([*_BASE])[0]):
        if name not in ("inputs", "run_id", "options", "access", "models"):
            assert f"--{name.removesuffix('_s')}" in text
    for name in ("azure_secret_file", "read_concurrency", "read_memory_bytes"):
        assert f"--{name}" in text
    assert "--workers" in text
    assert "--runner" in text


@pytest.mark.parametrize("words", [["--input=gs://b/x"], ["--input=/x", "--output=s3://b/o"]])
def test_a_rate_that_nothing_would_keep_is_refused(words: list[str]) -> None:
    argv = ["--output=/o", "--max_requests_per_second=90", "--workers=1", *words]
    with pytest.raises(UsageError, match=r"not those that Beam's file system of (gs|s3) sends"):
        options.parse(argv)


def test_beams_file_systems_know_their_options_before_there_is_a_pipeline() -> None:
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import S3Options

    before = FileSystems._pipeline_options
    try:
        options.parse(["--input=s3://b/x", "--output=/o", "--s3_region_name=nowhere-1"])
        assert FileSystems._pipeline_options.view_as(S3Options).s3_region_name == "nowhere-1"
    finally:
        FileSystems.set_options(before)


def test_a_listing_cache_is_a_folder_with_an_age(tmp_path: Path) -> None:
    words = ["--input=/i", "--output=/o"]
    assert options.parse(words)[0].cache() is None
    config, _, _ = options.parse([*words, f"--listing_cache={tmp_path}", "--listing_max_age=90m"])
    cache = config.cache()
    assert cache is not None
    assert (cache.folder, cache.max_age_s) == (str(tmp_path), 5400.0)


@pytest.mark.parametrize(
    "given", ["--share_model", "--device=cpu", "--device=cuda", "--accept_license=CC-BY-NC-4.0"]
)
@pytest.mark.parametrize("local", ["orb", "sift"])
def test_options_of_learned_models_are_refused_without_one(given: str, local: str) -> None:
    name = given.removeprefix("--").partition("=")[0]
    with pytest.raises(UsageError, match=rf"^{name} has no effect: descriptor and {local} have no"):
        parse([*_BASE, f"--local_model={local}", given])
