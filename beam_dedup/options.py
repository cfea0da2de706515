"""Options: their names, units, defaults and ranges, and how a command line becomes a config.

``parse`` is the one way in, for the command line and for ``beam_dedup.deduplicate`` alike. Values
are checked where they are kept, in ``PipelineConfig`` and ``RunConfig``; every error is a
``UsageError``, which the command line turns into exit code 2.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import difflib
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from beam_dedup.messages import has_secret, one_line, redact
from transforms.access import LOCAL, Access
from transforms.grouping.relations import DUPLICATE_RELATIONS, RELATIONS
from transforms.models.devices import DEVICES
from transforms.models.spec import DESCRIPTOR, ORB, Execution, ModelError, Models

if TYPE_CHECKING:
    from transforms.cascade import CascadeSettings
    from transforms.imaging.decode import DecodeLimits
    from transforms.storage.cache import ListingCache
    from transforms.storage.patterns import Bounds

KEY_BITS = 256  # of a wavelet key
# Options of Beam that carry a credential. Beam's workers log all their options, and a job server
# shows them (fault P6), so these come by the environment or by a managed identity.
_SECRET_OPTIONS = frozenset(
    {"azure_connection_string", "s3_access_key_id", "s3_secret_access_key", "s3_session_token"}
)
_ENGINE_OPTIONS = frozenset({"direct_num_workers", "direct_running_mode"})


class UsageError(ValueError):
    """The command line or an argument is refused before anything runs."""


def _check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise if a value is out of range, not a number, or of the wrong type."""
    kind = "a whole number" if isinstance(low, int) else "a number"
    types = (int,) if isinstance(low, int) else (int, float)
    # Written so that NaN, which compares false with everything, is refused.
    if isinstance(value, bool) or not isinstance(value, types) or not low <= value <= high:
        raise UsageError(f"{name} must be {kind} from {low} to {high}, not {value!r}")


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
    """What one profile decides by; see docs/guides/tuning.md for how it was calibrated.

    Attributes:
        wavelet_bits: Hamming distance of wavelet keys, in bits of 256 and inclusive, up to which
            a pair is a candidate.
        word_votes: local words that must agree on one transform for a pair to be a candidate; 0
            takes no words.
        color_reject: colour similarity, 0..1, below which stage 2 rejects a pair.
        color_accept: chroma similarity, 0..1, from which stage 2 may accept a pair.
        layout_residual: greatest residual of the luma layouts, 0..1, of a pair that stage 2
            accepts as the same whole picture.
        layout_accept: share of the layouts' cells that may differ, 0..1, in a pair that stage 2
            accepts whatever residual is left.
        layout_reject: share of differing cells, 0..1, above which stage 2 rejects a pair.
        global_reject: cosine of global features, 0..1, below which stage 3 rejects a pair.
        local_accept: score of the local comparison, 0..1, from which stage 4 accepts a pair.
        local_review: score, 0..1, from which stage 4 leaves a pair for review; below it rejects.
        rounds: how often the walk of stage 5 may ask for comparisons.
        verify: whether stages 3 and 4 run; without them an undecided pair goes to review.
        local_model: what stage 4 matches points by.
    """

    wavelet_bits: int
    word_votes: int
    color_reject: float
    color_accept: float
    layout_residual: float
    layout_accept: float
    layout_reject: float
    global_reject: float
    local_accept: float
    local_review: float
    rounds: int
    verify: bool
    local_model: str = "orb"

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _check_range("wavelet_bits", self.wavelet_bits, 0, KEY_BITS)
        for name in _SIMILARITIES:
            _check_range(name, getattr(self, name), 0.0, 1.0)
        _check_range("rounds", self.rounds, 1, 16)
        _check_range("word_votes", self.word_votes, 0, 256)
        if self.word_votes == 1:
            raise UsageError("word_votes must be 0 or at least 2: one match fixes no transform")


_SIMILARITIES = (
    "color_reject",
    "color_accept",
    "layout_residual",
    "layout_accept",
    "layout_reject",
    "global_reject",
    "local_accept",
    "local_review",
)

# Chosen on two draws of a labelled set, looked at on a third; docs/guides/tuning.md says
# what each value was seen to do.
PROFILES: Mapping[str, ProfileSettings] = {
    "fast": ProfileSettings(
        wavelet_bits=48,
        word_votes=0,
        color_reject=0.50,
        color_accept=0.85,
        layout_residual=0.60,
        layout_accept=0.35,
        layout_reject=0.60,
        global_reject=0.40,
        local_accept=0.50,
        local_review=0.35,
        rounds=1,
        verify=False,
    ),
    "balanced": ProfileSettings(
        wavelet_bits=60,
        word_votes=4,
        color_reject=0.50,
        color_accept=0.85,
        layout_residual=0.50,
        layout_accept=0.15,
        layout_reject=0.60,
        global_reject=0.40,
        local_accept=0.50,
        local_review=0.35,
        rounds=5,
        verify=True,
    ),
    "thorough": ProfileSettings(
        wavelet_bits=68,
        word_votes=2,
        color_reject=0.40,
        color_accept=0.85,
        layout_residual=0.50,
        layout_accept=0.10,
        layout_reject=0.80,
        global_reject=0.10,
        local_accept=0.45,
        local_review=0.35,
        rounds=6,
        verify=True,
    ),
}


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Everything that decides rows, as the pipeline needs it.

    Attributes:
        inputs: folders, globs, images, list files or URIs, in the order that breaks ties.
        output: the output folder, a path or a URI; empty in a dry run without one.
        run_id: names this run's files; letters, digits and hyphens.
        include: globs; where there are any, only names that match one are inputs.
        exclude: globs; names that match one are no inputs.
        limit: take no more than this many inputs; None takes all.
        min_size: smaller files are left out; bytes.
        max_size: larger files are left out; bytes.
        modified_after: files last changed before are left out; ISO 8601, UTC where it has no zone.
        modified_before: files last changed then or later are left out.
        listing_cache: a folder for listings of remote stores; None lists every time.
        listing_max_age_s: how old a listing may be that is used again; seconds.
        max_requests_per_second: of the whole job, to stores, in any one second; None is no bound.
        access: how one process reaches stores, with its share of that; holds no secret.
        profile: a name in ``PROFILES``.
        wavelet_bits: overrides the profile's; bits of 256, inclusive.
        color_threshold: overrides the profile's ``color_reject``; similarity, 0..1.
        global_threshold: overrides the profile's ``global_reject``; similarity, 0..1.
        local_threshold: overrides the profile's ``local_accept``; similarity, 0..1.
        max_group_size_color: distinct contents in one unit of work of stage 2.
        max_group_size_global: distinct contents in one unit of work of stage 3.
        max_group_size_local: distinct contents in one unit of work of stage 4.
        batch_size_color: pairs in one call of stage 2.
        batch_size_global: images in one batch of stage 3.
        batch_size_local: pairs in one batch of stage 4.
        global_model: what embeds pictures, see ``transforms.models.resolve``.
        local_model: overrides the profile's, see ``transforms.models.resolve``.
        candidates: ``profile``, or ``embedding`` for candidates by embeddings beside them.
        write_embeddings: whether rows hold the embedding of their picture.
        labels: a file of names, a line each, of which each picture gets the likeliest.
        within_label: whether pictures of different labels are never one group.
        device: where models run: auto, cpu, cuda or cuda:N,M.
        share_model: one model for all processes of a machine, see SECURITY.md.
        models: what the models of this config were resolved to.
        duplicate_relations: relations that make a member a duplicate.
        max_image_bytes: files larger than this fail as ``too_large``, unread; bytes.
        max_pixels: images larger than this fail as ``too_large``, undecoded; width times height.
        max_failure_ratio: share of images that may fail, 0..1, before the exit code is 3.
        options: what the summary records of the options; holds no secret.
    """

    inputs: tuple[str, ...]
    output: str
    run_id: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: int | None = None
    min_size: int | None = None
    max_size: int | None = None
    modified_after: str | None = None
    modified_before: str | None = None
    listing_cache: str | None = None
    listing_max_age_s: float = 24 * 3600.0
    max_requests_per_second: int | None = None
    access: Access = LOCAL
    profile: str = "balanced"
    wavelet_bits: int | None = None
    color_threshold: float | None = None
    global_threshold: float | None = None
    local_threshold: float | None = None
    max_group_size_color: int = 4000
    max_group_size_global: int = 500
    max_group_size_local: int = 200
    batch_size_color: int = 4096
    batch_size_global: int = 32
    batch_size_local: int = 16
    global_model: str = DESCRIPTOR
    local_model: str | None = None
    candidates: str = "profile"
    write_embeddings: bool = False
    labels: str | None = None
    within_label: bool = False
    device: str = "auto"
    share_model: bool = False
    models: Models = dataclasses.field(default_factory=Models, compare=False)
    duplicate_relations: tuple[str, ...] = DUPLICATE_RELATIONS
    max_image_bytes: int = 256 * 2**20
    max_pixels: int = 178_956_970
    max_failure_ratio: float = 0.05
    options: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Refuse values out of range and unknown names."""
        if not self.inputs:
            raise UsageError("no input is given; give one or more with --input")
        if "" in self.inputs:
            raise UsageError("an input is empty; give a path or a URI with --input")
        if self.profile not in PROFILES:
            names = ", ".join(PROFILES)
            raise UsageError(f"profile must be one of {names}, not {self.profile!r}")
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None:
                _check_range(name, value, low, high)
        self._check_bounds()
        self._check_models()
        unknown = sorted(set(self.duplicate_relations) - set(RELATIONS))
        if unknown or not self.duplicate_relations:
            raise UsageError(
                "duplicate_relations must name some of "
                f"{', '.join(RELATIONS)}, not {','.join(unknown)!r}"
            )

    def bounds(self) -> Bounds:
        """Return the bounds of size and date."""
        from transforms.storage.patterns import Bounds

        return Bounds(self.min_size, self.max_size, *self._check_bounds())

    def cache(self) -> ListingCache | None:
        """Return where listings of remote stores are kept."""
        from transforms.storage.cache import ListingCache

        if self.listing_cache is None:
            return None
        return ListingCache(self.listing_cache, self.listing_max_age_s)

    def _check_bounds(self) -> list[int | None]:
        """Return the dates in microseconds; refuse bounds between which nothing can lie."""
        names = ("modified_after", "modified_before")
        after, before = (_microseconds(name, getattr(self, name)) for name in names)
        if (
            self.min_size is not None
            and self.max_size is not None
            and self.min_size > self.max_size
        ):
            raise UsageError("min_size is greater than max_size, so that no file fits")
        if after is not None and before is not None and after >= before:
            raise UsageError("modified_after is not before modified_before, so that no file fits")
        return [after, before]

    @property
    def embeds_all(self) -> bool:
        """Whether each picture is embedded, not only those of undecided pairs."""
        return bool(self.candidates == "embedding" or self.write_embeddings or self.labels)

    @property
    def embedding_size(self) -> int | None:
        """Values of the vectors in rows; None where rows have none."""
        return self.models.global_model.dimensions if self.write_embeddings else None

    @property
    def is_learned(self) -> bool:
        """Whether learned models decide rows."""
        verify, models = self.settings.verify, self.models
        return (models.global_model.is_learned and (verify or self.embeds_all)) or (
            models.local_model.is_learned and verify
        )

    def _check_models(self) -> None:
        """Refuse options of models that would have no effect."""
        if self.candidates not in ("profile", "embedding"):
            raise UsageError(f"candidates must be profile or embedding, not {self.candidates!r}")
        if not DEVICES.fullmatch(self.device):
            raise UsageError(f"device must be auto, cpu, cuda or cuda:N,M, not {self.device!r}")
        if self.within_label and not self.labels:
            raise UsageError("within_label needs labels; give a file with --labels")
        if self.labels and not self.global_model.startswith("clip:"):
            raise UsageError(
                "labels are for CLIP; give one with --global_model=clip:ARCH/PRETRAINED"
            )
        if PROFILES[self.profile].verify:
            return
        if self.local_model is not None:
            raise UsageError(f"profile {self.profile} runs no stage 4; local_model has no effect")
        if self.global_model != DESCRIPTOR and not self.embeds_all:
            raise UsageError(
                f"profile {self.profile} runs no stage 3, so that global_model has no effect but "
                "with --candidates=embedding, --write_embeddings or --labels"
            )

    @property
    def settings(self) -> ProfileSettings:
        """The profile's settings with this config's thresholds in their place.

        An override moves the threshold of the same stage that it would otherwise cross: a pair
        that colour may accept is never one that colour rejects.
        """
        base = PROFILES[self.profile]
        changes: dict[str, Any] = {}
        if self.local_model is not None:
            changes["local_model"] = self.local_model
        if self.models.global_model.reject_similarity is not None:
            changes["global_reject"] = self.models.global_model.reject_similarity
        if self.wavelet_bits is not None:
            changes["wavelet_bits"] = self.wavelet_bits
        if self.color_threshold is not None:
            changes["color_reject"] = self.color_threshold
            changes["color_accept"] = max(base.color_accept, self.color_threshold)
        if self.global_threshold is not None:
            changes["global_reject"] = self.global_threshold
        if self.local_threshold is not None:
            changes["local_accept"] = self.local_threshold
            changes["local_review"] = min(base.local_review, self.local_threshold)
        return dataclasses.replace(base, **changes)


def _microseconds(name: str, text: str | None) -> int | None:
    """Return a date and time as microseconds since 1970-01-01 UTC."""
    if text is None:
        return None
    try:
        then = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"{name} must be a date or a time in ISO 8601 (2026-11-21 or 2026-11-21T20:15:00Z), "
            f"not {text!r}"
        ) from None
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    return round(then.timestamp() * 1e6)


# Option, least and greatest value; integers where the bounds are.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("limit", 1, 2**62),
    ("min_size", 0, 2**62),
    ("max_size", 0, 2**62),
    ("listing_max_age_s", 0.0, 1e9),
    ("max_requests_per_second", 1, 10**6),
    ("wavelet_bits", 0, KEY_BITS),
    ("color_threshold", 0.0, 1.0),
    ("global_threshold", 0.0, 1.0),
    ("local_threshold", 0.0, 1.0),
    ("max_group_size_color", 2, 10**6),
    ("max_group_size_global", 2, 10**6),
    ("max_group_size_local", 2, 10**6),
    ("batch_size_color", 1, 10**6),
    ("batch_size_global", 1, 10**5),
    ("batch_size_local", 1, 10**5),
    ("max_image_bytes", 1, 2**40),
    ("max_pixels", 1, 2**40),
    ("max_failure_ratio", 0.0, 1.0),
)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How to run; nothing here changes a row.

    Attributes:
        workers: processes of the embedded runner; None is what the machine allows.
        runner: the Beam runner that the user named; None is the embedded one.
        dry_run: estimate and write nothing.
        quiet: show no progress and no summary.
        verbose: show log lines and tracebacks.
    """

    workers: int | None = None
    runner: str | None = None
    dry_run: bool = False
    quiet: bool = False
    verbose: bool = False

    def __post_init__(self) -> None:
        """Refuse values out of range and combinations that contradict each other."""
        if self.workers is not None:
            _check_range("workers", self.workers, 1, 1024)
            if self.runner is not None:
                raise UsageError(
                    f"--workers is for the embedded runner; with --runner={self.runner} give that "
                    "runner's own options"
                )


def cascade_settings(config: PipelineConfig) -> CascadeSettings:
    """Return what stages 2 to 4 need of a config."""
    from transforms.cascade import CascadeSettings
    from transforms.color import ColorSettings

    settings = config.settings
    return CascadeSettings(
        color=ColorSettings(
            reject_similarity=settings.color_reject,
            accept_similarity=settings.color_accept,
            accept_residual=settings.layout_residual,
            accept_differing=settings.layout_accept,
            reject_differing=settings.layout_reject,
            verify=settings.verify,
            relations=frozenset(config.duplicate_relations),
            within_label=config.within_label,
        ),
        global_reject=settings.global_reject,
        local_accept=settings.local_accept,
        local_review=settings.local_review,
        relations=frozenset(config.duplicate_relations),
        rounds=settings.rounds,
        limits=decode_limits(config),
        access=config.access,
        models=config.models,
        embedded=config.embeds_all,
        max_group_size_color=config.max_group_size_color,
        max_group_size_global=config.max_group_size_global,
        max_group_size_local=config.max_group_size_local,
        batch_size_color=config.batch_size_color,
        batch_size_global=config.batch_size_global,
        batch_size_local=config.batch_size_local,
    )


def decode_limits(config: PipelineConfig) -> DecodeLimits:
    """Return what the decoder may spend on one image."""
    from transforms.imaging.decode import DecodeLimits

    return DecodeLimits(max_image_bytes=config.max_image_bytes, max_pixels=config.max_pixels)


def bits_of_similarity(similarity: float) -> int:
    """Return the greatest distance in bits whose similarity is no less than a threshold.

    Args:
        similarity: 1 - bits / 256, from 0 to 1.
    """
    # A billionth of a bit makes up for decimals that no binary fraction meets: 0.8516 is given
    # for 38 / 256 by hand, and the similarity of a whole number of bits must pass.
    return math.floor((1.0 - similarity) * KEY_BITS + 1e-9)


def parse(argv: list[str]) -> tuple[PipelineConfig, RunConfig, list[str]]:
    """Turn a command line into what to run, how to run it, and Beam's own options.

    Args:
        argv: the arguments after ``beam-dedup run``.

    Returns:
        The config of the pipeline, that of the run, and the arguments left to Beam, unchanged
        but for hyphens in option names.

    Raises:
        UsageError: an option is unknown, out of range, contradicts another or holds a secret.
    """
    argv = _normalised(argv)
    _refuse_secrets(argv)
    values, beam_args = _parser().parse_known_args(argv)
    beam_options = _check_beam_args(beam_args)
    runner = beam_options.get("runner")
    run = RunConfig(values.workers, runner, values.dry_run, values.quiet, values.verbose)
    if runner is None and (engine := _ENGINE_OPTIONS & beam_options.keys()):
        raise UsageError(
            f"--{min(engine)} is for a runner that you name with --runner; the embedded runner "
            "takes --workers"
        )
    config = PipelineConfig(
        inputs=tuple(values.input or ()),
        output=values.output or "",
        run_id=new_run_id(),
        include=tuple(values.include or ()),
        exclude=tuple(values.exclude or ()),
        listing_max_age_s=_seconds("listing_max_age", values.listing_max_age),
        access=_access(values, run, beam_options),
        wavelet_bits=_wavelet_bits(values),
        duplicate_relations=_relations(values.duplicate_relations),
        **{name: getattr(values, name) for name in _SAME_NAMES},
    )
    if values.output is None and not values.dry_run:
        raise UsageError("no output folder is given; give one with --output")
    if beam_args:
        _use_for_file_systems(beam_args)
    config = dataclasses.replace(config, models=_models(values, config, run))
    recorded = _recorded_options(config, beam_options)
    return dataclasses.replace(config, options=recorded), run, beam_args


_SHA256 = re.compile("[0-9a-fA-F]{64}")
_NO_WEIGHTS = frozenset({DESCRIPTOR, ORB.name, "sift"})


def _models(values: argparse.Namespace, config: PipelineConfig, run: RunConfig) -> Models:
    """Look for the models that a config names, and for their weights."""
    execution = Execution(config.device)
    names = (config.global_model, config.settings.local_model)
    pins = (values.global_model_sha256, values.local_model_sha256)
    for stage, name, pin in zip(("global", "local"), names, pins, strict=True):
        if pin is not None and name in _NO_WEIGHTS:
            raise UsageError(
                f"{stage}_model_sha256 has no effect: {stage}_model {name} has no weights"
            )
        check_sha256(f"{stage}_model_sha256", pin)
    if _NO_WEIGHTS.issuperset(names):
        given = {
            "share_model": config.share_model,
            "device": config.device != PipelineConfig.device,
            "accept_license": values.accept_license,
        }
        for name in (name for name, value in given.items() if value):
            raise UsageError(f"{name} has no effect: {' and '.join(names)} have no weights")
    if names == (DESCRIPTOR, ORB.name):
        return Models(execution=execution)
    from transforms.models.labels import find_or_make, read_names
    from transforms.models.resolve import resolve_global, resolve_local
    from transforms.models.weights import Finder

    finder = Finder(model_cache(values.model_cache), frozenset(values.accept_license or ()))
    try:
        execution = _execution(config, run)
        # Before any file of weights is read, which takes longer.
        labels = read_names(config.labels) if config.labels else ()
        model = resolve_global(names[0], dataclasses.replace(finder, sha256=pins[0]))
        return Models(
            model,
            resolve_local(names[1], dataclasses.replace(finder, sha256=pins[1])),
            # A dry run writes nothing, and an estimate asks for no label.
            find_or_make(labels, model, finder.cache).labels
            if labels and not values.dry_run
            else None,
            execution,
        )
    except ModelError as error:
        raise UsageError(one_line(str(error))) from error


def _execution(config: PipelineConfig, run: RunConfig) -> Execution:
    """Say where learned models run, and refuse a GPU that the embedded runner's machine lacks."""
    processes = 0
    if run.runner is None:  # workers of another may be on machines that are not like this one
        from beam_dedup.runners import default_workers
        from transforms.models.devices import check_device

        check_device(config.device)
        processes = run.workers or default_workers()
    # One process has nobody to share with, and would talk to itself over a socket.
    return Execution(config.device, config.share_model and processes != 1, processes, config.run_id)


def _use_for_file_systems(beam_args: list[str]) -> None:
    """Have Beam's file systems know their options before there is a pipeline."""
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions(beam_args))


_SAME_NAMES = (
    "limit",
    "min_size",
    "max_size",
    "modified_after",
    "modified_before",
    "listing_cache",
    "max_requests_per_second",
    "profile",
    "color_threshold",
    "global_threshold",
    "local_threshold",
    "max_group_size_color",
    "max_group_size_global",
    "max_group_size_local",
    "batch_size_color",
    "batch_size_global",
    "batch_size_local",
    "global_model",
    "local_model",
    "candidates",
    "write_embeddings",
    "labels",
    "within_label",
    "device",
    "share_model",
    "max_image_bytes",
    "max_pixels",
    "max_failure_ratio",
)


def to_argv(
    inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    options: Mapping[str, Any],
) -> list[str]:
    """Return the command line that Python arguments stand for.

    Args:
        inputs: one input or several.
        output: the output folder.
        options: option names with values; True gives a flag, None and False leave it out, a list
            repeats the option.

    Raises:
        UsageError: an option has no meaning in Python.
    """
    several = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    argv = [f"--input={os.fsdecode(one)}" for one in several]
    argv.append(f"--output={os.fsdecode(output)}")
    for name, value in options.items():
        if name in ("dry_run", "quiet", "verbose"):
            raise UsageError(f"{name} is an option of the command line alone")
        if name == "duplicate_relations" and not isinstance(value, str):
            value = ",".join(value)
        if value is True:
            argv.append(f"--{name}")
        elif isinstance(value, list | tuple):
            argv += [f"--{name}={one}" for one in value]
        elif isinstance(value, dict):
            argv.append(f"--{name}={json.dumps(value)}")
        elif value is not None and value is not False:
            argv.append(f"--{name}={value}")
    return argv


def new_run_id() -> str:
    """Return a name for a run that sorts by time and is unique."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(4)


def help_text() -> str:
    """Return the help of ``beam-dedup run``."""
    return _parser().format_help()


def _normalised(argv: list[str]) -> list[str]:
    """Return arguments with underscores for hyphens in the names of options."""
    result: list[str] = []
    for number, word in enumerate(argv):
        if word == "--":
            return result + argv[number:]
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            word = "--" + name.replace("-", "_") + equals + value
        result.append(word)
    return result


def _refuse_secrets(argv: list[str]) -> None:
    """Raise if an argument carries a credential; the message never holds its value."""
    for word in argv:
        name = word[2:].partition("=")[0] if word.startswith("--") else ""
        if name in _SECRET_OPTIONS or has_secret(word):
            option = f"--{name}" if name else "an argument"
            raise UsageError(
                f"{one_line(redact(option))} is refused: it holds a secret, which every user of "
                "this machine and every worker's log could show; give it by the environment or "
                "use a managed identity"
            )


class OptionParser(argparse.ArgumentParser):
    """An argument parser that raises instead of printing its usage and exiting.

    Option names may be written with hyphens.
    """

    def error(self, message: str) -> NoReturn:
        """Raise ``UsageError``, with no secret in it."""
        raise UsageError(one_line(redact(message)))

    def parse_or_help(self, argv: list[str]) -> argparse.Namespace | None:
        """Parse arguments; where they ask for help, print it and return None.

        Raises:
            UsageError: an argument is refused, or holds a secret.
        """
        if not {"-h", "--help"}.isdisjoint(argv):
            print(self.format_help())
            return None
        argv = _normalised(argv)
        _refuse_secrets(argv)
        return self.parse_args(argv)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}") from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text!r}") from None


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="beam-dedup run",
        usage="%(prog)s --input URI [--input URI ...] --output URI [options] [Beam options]",
        description="Find which images are copies of which, and write a report of them all. "
        "No image is changed, moved or deleted.",
        epilog="Option names may be written with hyphens. Beam's own options (--runner, "
        "--temp_location, ...) are passed on unchanged; see "
        "https://beam.apache.org/documentation/runners/. Exit codes: 0 done; 1 failed; 2 refused "
        "before anything ran; 3 the report is complete, but more images failed than "
        "--max_failure_ratio allows; 130 interrupted.",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=98),
    )
    _add_input_options(parser)
    _add_decision_options(parser)
    _add_work_options(parser)
    _add_model_options(parser)
    _add_store_options(parser)
    _add_run_options(parser)
    return parser


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input and output")
    add = group.add_argument
    add(
        "--input",
        action="append",
        metavar="URI",
        help="a folder, glob, image or list file (.txt .csv .json .jsonl .parquet); repeatable",
    )
    add("--output", metavar="URI", help="folder of the report; never an input itself")
    add("--include", action="append", metavar="GLOB", help="take only these names; repeatable")
    add("--exclude", action="append", metavar="GLOB", help="leave these names out; repeatable")
    add("--limit", type=_whole, metavar="N", help="take at most N inputs")
    for name, what in (("min", "smaller"), ("max", "larger")):
        add(f"--{name}_size", type=_whole, metavar="BYTES", help=f"leave {what} files out")
    for name, what in (("after", "before"), ("before", "then or later")):
        add(
            f"--modified_{name}",
            metavar="TIME",
            help=f"leave files out that were last changed {what} (ISO 8601)",
        )
    add(
        "--max_image_bytes",
        type=_whole,
        default=PipelineConfig.max_image_bytes,
        metavar="BYTES",
        help="larger files fail as too_large, unread (default: %(default)s)",
    )
    add(
        "--max_pixels",
        type=_whole,
        default=PipelineConfig.max_pixels,
        metavar="PIXELS",
        help="larger images fail as too_large, undecoded (default: %(default)s)",
    )
    add(
        "--max_failure_ratio",
        type=_number,
        default=PipelineConfig.max_failure_ratio,
        metavar="RATIO",
        help="share of images, 0 to 1, above which failures give exit code 3 "
        "(default: %(default)s)",
    )


def _add_decision_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "what is a copy", "A value equal to a threshold passes. Defaults are the profile's."
    )
    add = group.add_argument
    add(
        "--profile",
        default=PipelineConfig.profile,
        metavar="|".join(PROFILES),
        help="speed against recall (default: %(default)s)",
    )
    add(
        "--wavelet_threshold",
        type=_number,
        metavar="SIMILARITY",
        help="stage 1: least similarity of wavelet keys, 0 to 1 (1 - bits/256)",
    )
    add("--wavelet_bits", type=_whole, metavar="BITS", help="the same as a distance, 0 to 256")
    for stage, what in (
        ("color", "stage 2: colour similarity below which a pair is rejected"),
        ("global", "stage 3: similarity of global features below which a pair is rejected"),
        ("local", "stage 4: score of the local comparison from which a pair is accepted"),
    ):
        add(f"--{stage}_threshold", type=_number, metavar="SIMILARITY", help=f"{what}, 0 to 1")
    add(
        "--duplicate_relations",
        metavar="LIST",
        help="relations that make a duplicate, separated by commas (default: all but similar; "
        f"known: {', '.join(RELATIONS)})",
    )


def _add_work_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "bounds on work", "They split work; they never skip it and never change a row."
    )
    for name, what in (
        ("max_group_size", "distinct contents in one unit of work"),
        ("batch_size", "items in one batch"),
    ):
        for number, stage in enumerate(("color", "global", "local"), 2):
            option = f"{name}_{stage}"
            group.add_argument(
                f"--{option}",
                type=_whole,
                default=getattr(PipelineConfig, option),
                metavar="N",
                help=f"stage {number}: {what} (default: %(default)s)",
            )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "models",
        "Weights are read from files; nothing is downloaded (beam-dedup models fetch does that). "
        "See docs/guides/models.md.",
    )
    add = group.add_argument
    add(
        "--global_model",
        default=DESCRIPTOR,
        metavar="NAME",
        help="stage 3, embeddings, labels: descriptor, clip:ARCH/PRETRAINED, efficientnet_b0..b7, "
        "sscd, torchscript:PATH, onnx:PATH (default: %(default)s)",
    )
    add(
        "--local_model",
        metavar="NAME",
        help="stage 4: orb, sift, loftr, disk_lightglue (default: the profile's)",
    )
    for stage in ("global", "local"):
        add(
            f"--{stage}_model_sha256",
            metavar="HEX",
            help=f"what the file of --{stage}_model must hash to",
        )
    add("--model_cache", metavar="DIR", help="where fetched weights are, on every worker")
    add(
        "--accept_license",
        action="append",
        metavar="NAME",
        help="take weights of this licence, which does not allow every use; repeatable",
    )
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N,M", help="where models run")
    add(
        "--share_model",
        action="store_true",
        help="one model for all processes of a machine (on one GPU), which Beam shares over a "
        "local port with a key that is public: whoever may connect to it can run code as this "
        "user, so only where nobody else has an account",
    )
    add(
        "--candidates",
        default="profile",
        metavar="profile|embedding",
        help="embedding: pictures with near embeddings are candidates too; embeds each picture",
    )
    add(
        "--write_embeddings",
        action="store_true",
        help="embed each picture, and write that into images as a column",
    )
    add("--labels", metavar="FILE", help="names, a line each: each picture gets the likeliest")
    add("--within_label", action="store_true", help="never group pictures of different labels")


def _add_store_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "remote stores",
        "Credentials come from the environment or a file, never from an option; see "
        "docs/guides/azure.md.",
    )
    add = group.add_argument
    add(
        "--azure_secret_file",
        metavar="PATH",
        help="a file of NAME=VALUE lines in place of the environment, on every worker",
    )
    add(
        "--max_requests_per_second",
        type=_whole,
        metavar="N",
        help="of the whole job, in any one second (default: no bound)",
    )
    add(
        "--read_concurrency",
        type=_whole,
        default=LOCAL.concurrency,
        metavar="N",
        help="objects that each process reads at once (default: %(default)s)",
    )
    add(
        "--read_memory_bytes",
        type=_whole,
        default=LOCAL.memory_bytes,
        metavar="BYTES",
        help="of objects that each process has asked for and not yet used (default: %(default)s)",
    )
    add(
        "--listing_cache",
        metavar="URI",
        help="a folder in which listings of remote stores are kept, to be used again",
    )
    add(
        "--listing_max_age",
        default="24h",
        metavar="TIME",
        help="how old a listing may be to be used again: 90s, 30m, 24h, 7d (default: %(default)s)",
    )


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("running").add_argument
    add(
        "--workers",
        type=_whole,
        metavar="N",
        help="processes of the embedded runner (default: what CPU affinity, cgroup quota and "
        "memory allow)",
    )
    add(
        "--dry_run",
        action="store_true",
        help="list, sample and estimate hours, requests, bytes and memory; write nothing but "
        "the listing cache",
    )
    add("-q", "--quiet", action="store_true", help="show neither progress nor the summary")
    add("-v", "--verbose", action="store_true", help="show log lines and tracebacks")


def _check_beam_args(beam_args: list[str]) -> dict[str, Any]:
    """Return the options that Beam parses from its arguments, without those left at defaults.

    Raises:
        UsageError: Beam does not know an option, or refuses a value.
    """
    if not beam_args:
        return {}  # without Beam's long list of options
    from apache_beam.options import pipeline_options

    # The parser class has no public name, and the public methods only warn of what is unknown.
    class BeamParser(pipeline_options._BeamArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(one_line(redact(f"{message} (an option of Beam)")))

    parser = BeamParser(allow_abbrev=False, add_help=False)
    for options in pipeline_options.PipelineOptions.__subclasses__():
        options._add_argparse_args(parser)
    known, unknown = parser.parse_known_args(beam_args)
    if unknown:
        names = [*parser._option_string_actions, *_parser()._option_string_actions]
        raise UsageError(_unknown(unknown[0], names))
    return {
        name: value
        for name, value in vars(known).items()
        if value != parser.get_default(name) and isinstance(value, str | int | float | list | dict)
    }


def _unknown(word: str, names: list[str]) -> str:
    option = word.partition("=")[0]
    if not option.startswith("-"):
        return f"unexpected argument {one_line(redact(word))!r}; inputs are given with --input"
    # Not one that is refused in its turn, and that a secret would be typed after.
    offered = [name for name in names if name.removeprefix("--") not in _SECRET_OPTIONS]
    close = difflib.get_close_matches(option, offered, n=1)
    hint = f"; did you mean {close[0]}?" if close else "; see beam-dedup run --help"
    return f"neither beam-dedup nor Beam has an option {one_line(redact(option))}{hint}"


_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)")
_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(name: str, text: str) -> float:
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{name} must be a time such as 90s, 30m, 24h or 7d, not {text!r}")
    return float(match[1]) * _UNITS_S[match[2]]


def _access(values: argparse.Namespace, run: RunConfig, beam_options: Mapping[str, Any]) -> Access:
    """Return how one process of the job reaches stores."""
    _check_range("read_concurrency", values.read_concurrency, 1, 1024)
    _check_range("read_memory_bytes", values.read_memory_bytes, 1, 2**40)
    share, most = None, values.max_requests_per_second
    if most is not None:
        _check_range("max_requests_per_second", most, 1, 10**6)
        processes = _processes(run, beam_options)
        share = most // processes
        _check_bounded([*(values.input or ()), values.output or ""])
        if share == 0:
            raise UsageError(
                f"max_requests_per_second must be at least {processes}, one for each process of "
                f"this job, not {most}"
            )
    return Access(
        values.azure_secret_file and os.path.abspath(values.azure_secret_file),
        share,
        values.read_concurrency,
        values.read_memory_bytes,
    )


def _check_bounded(texts: list[str]) -> None:
    from transforms.storage.uris import BEAM_SCHEMES, scheme_of

    if found := BEAM_SCHEMES & {scheme_of(text) for text in texts}:
        raise UsageError(
            "max_requests_per_second bounds requests to azfs, not those that Beam's file system of "
            f"{min(found)} sends"
        )


# Options of Beam by which a user says how many workers there will be at most.
_PARALLELISM = ("parallelism", "direct_num_workers")


def _processes(run: RunConfig, beam_options: Mapping[str, Any]) -> int:
    """Return how many processes of a job may ask stores at once, this one included.

    Raises:
        UsageError: nobody says how many workers a named runner has.
    """
    if run.runner is None:
        from beam_dedup.runners import default_workers

        workers = run.workers or default_workers()
        return workers + (workers > 1)
    for name in _PARALLELISM:
        number = beam_options.get(name)
        if isinstance(number, int) and number > 0:
            return number + 1
    raise UsageError(
        "max_requests_per_second is for the whole job, and is shared by its processes; say how "
        f"many processes --runner={run.runner} will have, with --parallelism"
    )


def _wavelet_bits(values: argparse.Namespace) -> int | None:
    if values.wavelet_threshold is None:
        bits: int | None = values.wavelet_bits
        return bits
    if values.wavelet_bits is not None:
        raise UsageError("give --wavelet_threshold or --wavelet_bits, not both")
    _check_range("wavelet_threshold", values.wavelet_threshold, 0.0, 1.0)
    return bits_of_similarity(values.wavelet_threshold)


def _relations(text: str | None) -> tuple[str, ...]:
    if text is None:
        return DUPLICATE_RELATIONS
    return tuple(dict.fromkeys(name.strip() for name in text.split(",")))


def _recorded_options(config: PipelineConfig, beam_options: dict[str, Any]) -> dict[str, Any]:
    """Return the options for the summary: effective values, names escaped, no secret."""
    recorded = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in ("access", "models", "options", "run_id")
    }
    recorded["azure_secret_file"] = config.access.secret_file
    recorded["read_concurrency"] = config.access.concurrency
    recorded["read_memory_bytes"] = config.access.memory_bytes
    recorded |= dataclasses.asdict(config.settings)
    recorded["models"] = recorded_models(config.models)
    recorded["beam"] = beam_options
    cleaned: dict[str, Any] = _clean(recorded)
    return cleaned


def recorded_models(models: Models) -> dict[str, Any]:
    """Return what the summary says of each learned model: name, files with their hashes."""
    one, other = models.global_model, models.local_model
    found: dict[str, Any] = {}
    if one.is_learned:
        files = [one.weights] if one.weights else []
        found["global"] = {"name": one.name, "weights": list(map(dataclasses.asdict, files))}
    if other.is_learned:
        files = list(other.weights)
        found["local"] = {"name": other.name, "weights": list(map(dataclasses.asdict, files))}
    return found


def model_cache(given: str | None) -> str:
    """Return the folder of fetched weights: as given, by the environment, or the user's own."""
    if given:
        return os.path.abspath(given)
    if folder := os.environ.get("BEAM_DEDUP_MODELS"):
        return os.path.abspath(folder)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "beam-dedup", "models")


def check_sha256(option: str, given: str | None) -> None:
    """Refuse what cannot be a SHA-256; None, where the user gives none, is none to refuse.

    Raises:
        UsageError: it is not 64 hex digits.
    """
    if given is not None and not _SHA256.fullmatch(given):
        raise UsageError(f"{option} must be 64 hex digits, not {given!r}")


def _clean(value: Any) -> Any:
    """Return a value that JSON can hold, without secrets and surrogates."""
    if isinstance(value, str):
        return one_line(redact(value))
    if isinstance(value, dict):
        return {one_line(str(name)): _clean(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(one) for one in value]
    return value
