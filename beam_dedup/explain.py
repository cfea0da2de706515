"""``beam-dedup explain A B``: run every stage on two images, and say what each one makes of them.

The functions are those of the pipeline. Here every stage runs, also where no generator proposed the
pair and where an earlier stage has decided; the first stage that decides has the pipeline's word.
"""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np

from beam_dedup import options
from beam_dedup.access import access_of, add_secret_file_option
from beam_dedup.messages import one_line, size
from beam_dedup.options import OptionParser, PipelineConfig, ProfileSettings, UsageError
from transforms.access import Access
from transforms.cascade import CascadeSettings, global_settings, member_settings
from transforms.color import compare_at_words, has_transform, judge_colors
from transforms.contents import content_of
from transforms.embeddings import learned_of
from transforms.features import failed_record, read_input, read_member
from transforms.fingerprints import fingerprint
from transforms.global_features import (
    GlobalSettings,
    judge_global,
    reviewed,
    similarities,
    with_embedding,
)
from transforms.grouping import words
from transforms.grouping.cosines import cosines, vectors_of
from transforms.grouping.rank import deciding_rule
from transforms.groups import elect
from transforms.imaging.color import compare
from transforms.imaging.errors import ImageError
from transforms.imaging.layout import compare_layouts
from transforms.imaging.local import LocalEvidence, LocalSettings
from transforms.imaging.words import ROW
from transforms.local_features import LocalThresholds, judge_local
from transforms.models import global_handler, local_handler
from transforms.records import (
    Candidate,
    Content,
    ContentRead,
    Edge,
    Fingerprint,
    ImageRef,
    LocalPair,
    MemberRead,
    MemberRecord,
)
from transforms.rounds import (
    ALIGNED_BITS,
    STAR,
    Component,
    blank_edge,
    measure,
    orient,
    star_candidate,
)
from transforms.similar import STAGE as EMBEDDING
from transforms.similar import usable_vector
from transforms.storage import InputError, StorageError, below, read_bytes
from transforms.storage.inputs import expand, pin_inputs, source_of
from transforms.storage.sightings import Kind, Scope

# Options of ``run`` that change what a pair of images is.
_OPTIONS = (
    "profile",
    "wavelet_threshold",
    "wavelet_bits",
    "color_threshold",
    "global_threshold",
    "local_threshold",
    "duplicate_relations",
    "global_model",
    "local_model",
    "global_model_sha256",
    "local_model_sha256",
    "model_cache",
    "device",
    "candidates",
    "labels",
    "max_image_bytes",
    "max_pixels",
)
_SEVERAL, _FLAGS = ("accept_license",), ("within_label",)
# Which evidence meets a threshold, and how; one that is not here is printed with its value alone.
_AT_LEAST, _AT_MOST = ("at least", operator.ge), ("at most", operator.le)
_MEETS: dict[str, tuple[str, tuple[str, Callable[[Any, Any], bool]]]] = {
    "wavelet_bits": ("wavelet_distance", _AT_MOST),
    "word_votes": ("word_votes", _AT_LEAST),
    "propose_similarity": ("embedding_similarity", _AT_LEAST),
    "aligned_bits": ("wavelet_distance", _AT_MOST),
    "reject_similarity": ("similarity", _AT_LEAST),
    "accept_similarity": ("chroma", _AT_LEAST),
    "accept_residual": ("worst", _AT_MOST),
    "reject_residual": ("worst", _AT_MOST),
    "accept_differing": ("differing", _AT_MOST),
    "reject_differing": ("differing", _AT_MOST),
    "placed_differing": ("placed_differing", _AT_MOST),
    "global_reject": ("global_similarity", _AT_LEAST),
    "review_score": ("local_score", _AT_LEAST),
    "accept_score": ("local_score", _AT_LEAST),
    "min_texture": ("texture", _AT_LEAST),
}
# Of an edge these name the pair or hold the verdict; the others are evidence.
_NO_EVIDENCE = frozenset(
    {"a", "b", "generators", "verdict", "decided_by", "derived", "failed_member"}
)


_LABEL = "label"  # what the labels make of a pair, with --within_label


class ImageFailedError(Exception):
    """An image cannot be read or decoded; the message is one line."""


class _Subject(NamedTuple):
    """One of the two images."""

    image: Fingerprint
    content: Content
    data: bytes


@dataclasses.dataclass
class _Pair:
    """What the stages look at."""

    subjects: dict[bytes, _Subject]  # by content id, A first
    settings: CascadeSettings
    records: dict[bytes, MemberRecord] = dataclasses.field(default_factory=dict)

    @property
    def contents(self) -> dict[bytes, Content]:
        """The two contents by id."""
        return {name: subject.content for name, subject in self.subjects.items()}

    @property
    def texture(self) -> float:
        """The texture of the image with less information, 0..1."""
        return min(subject.content.texture for subject in self.subjects.values())


def main(argv: list[str]) -> int:
    """Run ``beam-dedup explain``.

    Args:
        argv: the arguments after ``explain``.

    Returns:
        The exit code.

    Raises:
        UsageError: the arguments are refused.
        ImageFailedError: an image cannot be read or decoded.
    """
    values = _parser().parse_or_help(argv)
    if values is None:
        return 0
    given = [(name, getattr(values, name)) for name in _OPTIONS]
    given += [(name, value) for name in _SEVERAL for value in getattr(values, name) or ()]
    config, _, _ = options.parse(
        [
            *(f"--input={name}" for name in (values.A, values.B)),
            *(f"--{name}={value}" for name, value in given if value is not None),
            *(f"--{name}" for name in _FLAGS if getattr(values, name)),
            "--output=",  # no dry run, which would make no labels
        ]
    )
    config = dataclasses.replace(config, access=access_of(values))
    try:
        result = explain(values.A, values.B, config)
    except InputError as error:
        raise UsageError(str(error)) from error
    print(json.dumps(result, indent=1) if values.json else to_text(result))
    return 0


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="beam-dedup explain",
        usage="%(prog)s A B [--profile P] [options of run] [--json]",
        description="Run every stage on two images and print evidence, thresholds and verdicts. "
        "Changes nothing.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("A", help="an image, a path or a URI")
    add("B", help="another one")
    add_secret_file_option(parser)
    add("--json", action="store_true", help="print one JSON object instead of text")
    add("-v", "--verbose", action="store_true", help="show log lines and tracebacks")
    group = parser.add_argument_group("what is a copy", "As in beam-dedup run.")
    for name in _OPTIONS:
        group.add_argument(f"--{name}", metavar="VALUE")
    for name in _SEVERAL:
        group.add_argument(f"--{name}", metavar="VALUE", action="append")
    for name in _FLAGS:
        group.add_argument(f"--{name}", action="store_true")
    return parser


def explain(a: str, b: str, config: PipelineConfig) -> dict[str, Any]:
    """Run every stage on two images.

    Args:
        a: a path or URI.
        b: another one.
        config: its profile and thresholds decide.

    Returns:
        What ``to_text`` prints, as JSON can hold it.

    Raises:
        UsageError: the two are one file, or one of them is no single file.
        InputError: one of them does not exist.
        ImageFailedError: one of them cannot be read or decoded.
    """
    settings = options.cascade_settings(config)
    pair = _Pair(
        _subjects([_measure(ref, config) for ref in _refs((a, b), config.access)]), settings
    )
    if config.embeds_all:
        _learn(pair)
    first, second = pair.subjects.values()
    same = first.image.pixel_hash == second.image.pixel_hash
    star = star_candidate(first.content, second.content)
    candidate = measure(star, first.content, second.content)
    sides = {name: subject.image.words for name, subject in pair.subjects.items()}
    asked = [_alike(pair, config)] if config.candidates == "embedding" else []
    candidate, proposals = propose(candidate, sides, config.settings, asked)
    names = [] if candidate.generators == STAR else candidate.generators.split("+")
    edge = blank_edge(candidate)
    stages, decided = [_exact_stage(first, second)], None
    if settings.color.within_label:
        decided = _judge_labels(pair, edge)
        stages.append(_label_stage(pair, decided))
    for stage in _STAGES:
        after = stage.compare(pair, edge)
        stages.append(_described(stage, pair, edge, after))
        if decided is None and after.verdict != "undecided":
            decided = after
        edge = after._replace(verdict="undecided")
    word = None if same else decided
    _mark(stages)
    _name_models(stages, config)
    return {
        "a": _facts(first),
        "b": _facts(second),
        "profile": config.profile,
        "candidates": {
            "wavelet_distance": candidate.wavelet_distance,
            "orientation": _orientation(pair, candidate),
            "generators": proposals,
            "proposed_by": names,
        },
        "stages": stages,
        **_conclusion(pair, word, stages),
    }


def propose(
    candidate: Candidate,
    sides: dict[bytes, bytes],
    settings: ProfileSettings,
    asked: Sequence[dict[str, Any]] = (),
) -> tuple[Candidate, list[dict[str, Any]]]:
    """Ask each generator of candidates that the profile uses about a pair.

    Args:
        candidate: the pair, with its wavelet distance.
        sides: the words of the two by content id, see ``Fingerprint``.
        settings: of the profile and the options.
        asked: what generators say that no profile uses.

    Returns:
        The candidate as the generators that propose it make it, of ``star`` if none does; and of
        each generator its evidence, its threshold, and whether the two met.
    """
    found = [("wavelet", "wavelet_bits", "wavelet_distance", candidate.wavelet_distance)]
    if settings.word_votes:
        worded = _with_words(candidate, sides[candidate.a], sides[candidate.b])
        found.append(("words", "word_votes", "word_votes", abs(worded.votes)))
        if abs(worded.votes) >= settings.word_votes:
            candidate = worded
    proposals = [
        {"generator": name, **_threshold(option, getattr(settings, option), {evidence: value})}
        for name, option, evidence, value in found
    ]
    proposals += asked
    names = sorted(proposal["generator"] for proposal in proposals if proposal["met"])
    return candidate._replace(generators="+".join(names) or STAR), proposals


def _alike(pair: _Pair, config: PipelineConfig) -> dict[str, Any]:
    """Ask embeddings about a pair; where one has none, they do not propose it."""
    least = config.models.global_model.propose_similarity
    evidence: dict[str, Any] = {}
    one, other = map(usable_vector, pair.contents.values())
    if one is not None and other is not None:
        both, first = vectors_of(np.stack([one, other])), np.zeros(1, np.int64)
        evidence["embedding_similarity"] = float(cosines(both, both, first, first + 1)[0])
    return {"generator": EMBEDDING, **_threshold("propose_similarity", least, evidence)}


def _with_words(candidate: Candidate, a: bytes, b: bytes) -> Candidate:
    """Count agreeing words as a run of the two images alone does, and take their transform."""
    sides = [words.postings(np.frombuffer(one, ROW))[0] for one in (a, b)]
    image = np.repeat([0, 1], [len(side) for side in sides])
    votes, _ = words.find_pairs(np.concatenate(sides), image, words.word_width(2), least=2)
    if not len(votes.votes):
        return candidate
    x, y, right, down = votes.transforms[0].tolist()
    return candidate._replace(
        votes=int(votes.votes[0]), turn_scale_x=x, turn_scale_y=y, shift_x=right, shift_y=down
    )


def _refs(names: tuple[str, str], access: Access) -> list[ImageRef]:
    """Look at two names; each gets the ``below`` that it has where both lie in one input folder."""
    refs, scope = [], Scope(access=access)
    for text, pinned in zip(names, pin_inputs(names), strict=True):
        source = source_of(pinned, scope)
        if source.kind != "file":
            raise UsageError(f"{text!r} is a {source.kind}, not an image")
        sighting = next(expand(pinned, scope))
        if sighting.kind != Kind.FOUND:
            raise ImageFailedError(_failure(sighting.ref, sighting.error_type, sighting.message))
        refs.append(sighting.ref)
    uris = [ref.uri for ref in refs]
    if uris[0] == uris[1]:
        raise UsageError("both names are those of one file; give two images")
    parts = zip(*(uri.split("/") for uri in uris), strict=False)
    root = "/".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], parts))
    return [ref._replace(below=below(root, ref.uri)) for ref in refs]


def _failure(ref: ImageRef, error_type: str, message: str) -> str:
    return f"{one_line(ref.path)!r}: {error_type}: {message}"


def _measure(ref: ImageRef, config: PipelineConfig) -> _Subject:
    """Run stage 1 on one image."""
    limits = options.decode_limits(config)
    try:
        data = read_bytes(ref.uri, limits.max_image_bytes, ref.size_bytes, ref.etag, config.access)
        image = fingerprint(ref, data, limits, words=config.settings.word_votes > 0)
    except (StorageError, ImageError) as error:
        raise ImageFailedError(_failure(ref, error.error_type, error.message)) from error
    return _Subject(image, content_of(image), data)


def _subjects(both: list[_Subject]) -> dict[bytes, _Subject]:
    """Give the two images ids of their own, also where they are one content."""
    first, second = both
    if first.content.content == second.content.content:
        # The pipeline compares no content with itself; here the near stages shall see both.
        other = bytes(byte ^ 255 for byte in second.content.content)
        second = second._replace(content=second.content._replace(content=other))
    return {one.content.content: one for one in (first, second)}


def _learn(pair: _Pair) -> None:
    """Embed both images as a run embeds each, and label them."""
    models = pair.settings.models
    handler = global_handler(models.global_model, models.execution, batch_size=2)
    reads = [_content_read(subject, pair.settings) for subject in pair.subjects.values()]
    for result in handler.run_inference(reads, handler.load_model()):
        learned = learned_of(result.example, result.inference.value, models.labels)
        content = result.example.content._replace(learned=learned)
        name = content.content
        pair.subjects[name] = pair.subjects[name]._replace(content=content)


def _content_read(subject: _Subject, settings: CascadeSettings) -> ContentRead:
    content, needs = subject.content, member_settings(settings.models)
    try:
        inputs = read_input(content, subject.data, needs, settings.limits)
    except ImageError as error:
        return ContentRead(content, b"", "decode", error.error_type, error.message)
    return ContentRead(content, inputs, "", "", "")


def _exact_stage(first: _Subject, second: _Subject) -> dict[str, Any]:
    evidence = {
        f"equal_{name}": getattr(first.image, name) == getattr(second.image, name)
        for name in ("sha256", "pixel_hash")
    }
    verdict = "accept" if evidence["equal_pixel_hash"] else "undecided"
    return {"stage": "exact", "evidence": evidence, "thresholds": [], "verdict": verdict}


def _judge_labels(pair: _Pair, edge: Edge) -> Edge | None:
    """Return the edge of a pair that its labels decide; None where they leave it to colour."""
    (judged,) = judge_colors([edge], pair.contents, pair.settings.color)
    # Stage 2 asks for the labels, and names the stage whose model gave them.
    return judged if judged.decided_by == "global" else None


def _label_stage(pair: _Pair, judged: Edge | None) -> dict[str, Any]:
    evidence = {
        f"{name}_{end}": value
        for end, content in zip("ab", pair.contents.values(), strict=True)
        for name, value in _label(content).items()
    }
    verdict = "undecided" if judged is None else judged.verdict
    return {"stage": _LABEL, "evidence": evidence, "thresholds": [], "verdict": verdict}


def _compare_colors(pair: _Pair, edge: Edge) -> Edge:
    """Run stage 2, whatever the labels are: they have a place of their own here."""
    settings = dataclasses.replace(pair.settings.color, within_label=False)
    (compared,) = judge_colors([edge], pair.contents, settings)
    return compared


def _color_evidence(pair: _Pair, edge: Edge) -> dict[str, float]:
    """Return what stage 2 looks at and keeps on no edge: the fields of its two comparisons."""
    ends = (pair.contents[edge.a], pair.contents[edge.b])
    turns = np.array([edge.orientation], np.int8)
    color_a, color_b = (np.frombuffer(end.color, np.uint8)[None] for end in ends)
    layout_a, layout_b = (np.frombuffer(end.layout, np.uint8)[None] for end in ends)
    colors = compare(color_a, color_b, turns)
    layouts = compare_layouts(layout_a, layout_b, turns)
    fields = {**colors._asdict(), **layouts._asdict()}
    if has_transform(edge):
        _, placed, chroma = compare_at_words([edge], [ends])
        fields |= {f"placed_{name}": values for name, values in placed._asdict().items()}
        fields["placed_chroma"] = chroma
    return {name: values[0].item() for name, values in fields.items()}


def _no_more(pair: _Pair, edge: Edge) -> dict[str, float]:
    """Return no evidence beyond that of the edge."""
    return {}


def _compare_globals(pair: _Pair, edge: Edge) -> Edge:
    models = pair.settings.models
    handler = global_handler(models.global_model, models.execution, batch_size=2)
    # The pipeline, too, shows the first picture to a model in the turn of the pair.
    turns = {edge.a: bytes({edge.orientation} - {1})}
    members = [
        _member(subject, turns.get(name, b""), pair.settings)
        for name, subject in pair.subjects.items()
    ]
    for result in handler.run_inference(members, handler.load_model()):
        record = with_embedding(result.example, result.inference.value)
        pair.records[record.content] = record
    failed = [record for record in pair.records.values() if record.error_type]
    if failed:
        return reviewed(edge, failed[0], "global")
    settings = global_settings(pair.settings)
    (score,) = similarities([edge], pair.records, learned=settings.learned)
    return judge_global(edge, score, settings)


def _member(subject: _Subject, turns: bytes, settings: CascadeSettings) -> MemberRead:
    content, needs = subject.content, member_settings(settings.models)
    try:
        return read_member(content, subject.data, turns, needs, settings.limits)
    except ImageError as error:
        return MemberRead(failed_record(content, "decode", error.error_type, error.message), [])


def _compare_locals(pair: _Pair, edge: Edge) -> Edge:
    failed = [record for record in pair.records.values() if record.error_type]
    if failed:
        return reviewed(edge, failed[0], "local")
    settings = LocalSettings(pair.settings.local_accept, pair.settings.local_review)
    models = pair.settings.models
    handler = local_handler(models.local_model, models.execution, settings, batch_size=1, held=2)
    a, b = pair.records[edge.a], pair.records[edge.b]
    (result,) = handler.run_inference(
        [LocalPair(b"", edge, a, b, pair.texture)], handler.load_model()
    )
    evidence = result.inference.value
    if isinstance(evidence, LocalEvidence):
        return judge_local(edge, pair.texture, evidence, _local_thresholds(pair.settings))
    broken = a._replace(
        error_stage="local", error_type=evidence.error_type, error_message=evidence.message
    )
    return reviewed(edge, broken, "local")


def _local_thresholds(settings: CascadeSettings) -> LocalThresholds:
    return LocalThresholds(settings.local_accept, settings.local_review, settings.relations)


def _global_thresholds(settings: GlobalSettings) -> dict[str, float]:
    bits = {} if settings.learned else {"aligned_bits": ALIGNED_BITS}
    return {**bits, "global_reject": settings.reject_similarity}


def _numbers(settings: Any) -> dict[str, float]:
    """Return the fields of a dataclass that are numbers."""
    fields = ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings))
    return {
        name: value
        for name, value in fields
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


class _Stage(NamedTuple):
    """One of stages 2 to 4."""

    name: str
    compare: Callable[[_Pair, Edge], Edge]
    evidence: Callable[[_Pair, Edge], dict[str, float]]  # beyond what is on the edge
    thresholds: Callable[[CascadeSettings], dict[str, float]]


_STAGES = (
    _Stage("color", _compare_colors, _color_evidence, lambda cascade: _numbers(cascade.color)),
    _Stage(
        "global",
        _compare_globals,
        _no_more,
        lambda cascade: _global_thresholds(global_settings(cascade)),
    ),
    _Stage(
        "local",
        _compare_locals,
        _no_more,
        lambda cascade: _numbers(_local_thresholds(cascade)),
    ),
)


def _described(stage: _Stage, pair: _Pair, before: Edge, after: Edge) -> dict[str, Any]:
    """Describe a stage by what it changed on the edge."""
    changed = {
        field: value
        for field, value in after._asdict().items()
        if field not in _NO_EVIDENCE and value != getattr(before, field)
    }
    more = stage.evidence(pair, before)
    known = {**after._asdict(), **more, "texture": pair.texture}
    thresholds = stage.thresholds(pair.settings).items()
    return {
        "stage": stage.name,
        "evidence": {**changed, **more},
        "thresholds": [_threshold(name, value, known) for name, value in thresholds],
        "verdict": after.verdict,
    }


def _threshold(name: str, value: float, evidence: dict[str, Any]) -> dict[str, Any]:
    """Hold evidence against a threshold; ``met`` is null where nothing is to be compared."""
    field = rule = found = met = None
    if name in _MEETS:
        field, (rule, meets) = _MEETS[name]
        found = evidence.get(field)
        met = None if found is None else meets(found, value)
    return {
        "threshold": name,
        "value": value,
        "evidence": field,
        "found": found,
        "rule": rule,
        "met": met,
    }


def _name_models(stages: list[dict[str, Any]], config: PipelineConfig) -> None:
    """Say of stages 3 and 4 which model they ran, and of its threshold where it comes from."""
    models, profile = config.models, f"profile {config.profile}"
    source = models.global_model.threshold_source
    if config.global_threshold is not None:
        source = "--global_threshold"
    elif models.global_model.reject_similarity is None:
        source = profile
    local = profile if config.local_threshold is None else "--local_threshold"
    for stage in stages:
        if stage["stage"] == "global":
            stage |= {"model": models.global_model.name, "threshold_source": source}
        if stage["stage"] == "local":
            stage |= {"model": models.local_model.name, "threshold_source": local}


def _mark(stages: list[dict[str, Any]]) -> None:
    """Say of each stage what it is to the pipeline: the first that decides has its word."""
    decided = False
    for stage in stages:
        if decided:
            stage["in_pipeline"] = "not_reached"
        else:
            decided = stage["verdict"] != "undecided"
            stage["in_pipeline"] = "decides" if decided else "passes_on"


def _facts(subject: _Subject) -> dict[str, Any]:
    image = subject.image
    return {
        "uri": image.ref.uri,
        "path": image.ref.path,
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "frames": image.frames,
        "size_bytes": image.ref.size_bytes,
        "sha256": image.sha256.hex(),
        "pixel_hash": image.pixel_hash.hex(),
        "texture": image.texture,
        "sharpness": image.sharpness,
        "quality_score": image.quality_score,
        **_label(subject.content),
    }


def _label(content: Content) -> dict[str, Any]:
    """Return the label of an image, or why it has none, where labels are asked for."""
    learned = content.learned
    if learned is None or not (learned.label or learned.error_type):
        return {}
    if learned.error_type:
        return {"label": None, "label_error": f"{learned.error_type}: {learned.error_message}"}
    return {"label": learned.label, "label_score": learned.label_score}


def _orientation(pair: _Pair, candidate: Candidate) -> int:
    """Return the EXIF orientation value that turns A into B."""
    return orient(candidate.orientation, next(iter(pair.subjects)) != candidate.a)


def _conclusion(pair: _Pair, decided: Edge | None, stages: list[dict[str, Any]]) -> dict[str, Any]:
    """Say what the pipeline makes of the pair: verdict, relation, and which one it keeps."""
    ranked = sorted((s.content for s in pair.subjects.values()), key=lambda one: one.rank)
    best, other = ranked
    verdict, decided_by, relation = "accept", "exact", "pixels"
    reason = deciding_rule(best.rank, other.rank)
    uri: str | None = best.uri
    if decided is None:
        relation = "exact" if stages[0]["evidence"]["equal_sha256"] else "pixels"
    else:
        verdict, decided_by, relation = decided.verdict, decided.decided_by, decided.relation
        uri = None
        if verdict == "accept":
            _, (group,), _ = elect(Component(b"", ranked, {}, {(0, 1): decided}))
            uri, reason = group.best_uri, group.keep_reason
    names = {
        subject.content.uri: name
        for name, subject in zip("AB", pair.subjects.values(), strict=True)
    }
    return {
        "verdict": verdict,
        "decided_by": decided_by,
        "relation": relation,
        "kept": names[uri] if uri else None,
        "better": names[uri or best.uri],
        "keep_reason": reason,
    }


def to_text(result: dict[str, Any]) -> str:
    """Return what ``explain`` found as lines for people."""
    lines = []
    for name in "AB":
        facts = result[name.lower()]
        lines.append(
            f"{name}  {one_line(facts['path'])} ({facts['format']}, {facts['width']}x"
            f"{facts['height']}, {size(facts['size_bytes'])})"
        )
        if "label" in facts:
            lines.append(f"   {_label_text(facts)}")
    candidates = result["candidates"]
    by = " and ".join(candidates["proposed_by"])
    lines += ["", f"candidates: {f'proposed by {by}' if by else 'no generator proposes the pair'}"]
    lines += _aligned([_threshold_cells(one) for one in candidates["generators"]])
    lines.append(f"  orientation that turns A into B: {candidates['orientation']}")
    for stage in result["stages"]:
        lines += ["", f"{stage['stage']}: {_VERDICTS[stage['verdict']]}{_notes(stage)}"]
        if "model" in stage:
            lines.append(f"  model {one_line(stage['model'])}; threshold: ")
            lines[-1] += one_line(stage["threshold_source"])
        lines += _aligned([(name, _shown(value), "") for name, value in stage["evidence"].items()])
        lines += _aligned([_threshold_cells(one) for one in stage["thresholds"]])
    lines += ["", *_conclusion_lines(result)]
    return "\n".join(lines)


_VERDICTS = {
    "accept": "accepted",
    "reject": "rejected",
    "review": "left for review",
    "undecided": "undecided",
}


def _label_text(facts: dict[str, Any]) -> str:
    if facts["label"] is None:
        return f"no label: {one_line(facts['label_error'])}"
    return f"label {one_line(facts['label'])} ({facts['label_score']:g})"


def _notes(stage: dict[str, Any]) -> str:
    notes = {
        "decides": "; this is the pipeline's verdict",
        "passes_on": "; goes on",
        "not_reached": " (the pipeline has decided before and does not ask)",
    }
    return notes[stage["in_pipeline"]]


_YES = {True: "yes", False: "no", None: "not measured"}


def _threshold_cells(one: dict[str, Any]) -> tuple[str, str, str]:
    """Return threshold and value, and how the evidence meets it."""
    if one["evidence"] is None:
        return one["threshold"], f"{one['value']:g}", ""
    found = "" if one["found"] is None else f" {one['found']:g}"
    meets = f"{one['evidence']}{found} is {one['rule']} this: {_YES[one['met']]}"
    return one["threshold"], f"{one['value']:g}", meets


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return _YES[value]
    return "none" if value is None else one_line(str(value))


def _aligned(rows: list[tuple[str, str, str]]) -> list[str]:
    widths = [max((len(row[place]) for row in rows), default=0) for place in (0, 1)]
    return [
        f"  {first:<{widths[0]}}  {second:<{widths[1]}}  {third}".rstrip()
        for first, second, third in rows
    ]


def _since_labels(result: dict[str, Any]) -> str:
    """Say how the labels decided; nothing where they did not."""
    for stage in result["stages"]:
        if stage["stage"] == _LABEL and stage["in_pipeline"] == "decides":
            labels = {end: stage["evidence"][f"label_{end.lower()}"] for end in "AB"}
            without = [end for end, label in labels.items() if label is None]
            if without:
                return f", since no label was found for {' and '.join(without)}"
            return f", since the labels differ: {' / '.join(map(one_line, labels.values()))}"
    return ""


def _conclusion_lines(result: dict[str, Any]) -> list[str]:
    verdict = f"verdict: {_VERDICTS[result['verdict']]} by {result['decided_by']}"
    lines = [f"{verdict}, relation {result['relation']}{_since_labels(result)}"]
    compared = result["decided_by"] == "exact" or result["candidates"]["proposed_by"]
    if not compared:
        lines.append(
            "  no generator proposes the pair: a run compares the two only where one is kept and "
            "the other is a copy of one of its copies"
        )
    reason = result["keep_reason"]
    if result["kept"]:
        lines.append(f"kept: {result['kept']}, by {reason}")
    else:
        lines.append(f"kept: both; of the two, {result['better']} comes first, by {reason}")
    return lines
