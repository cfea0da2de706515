"""The embedding of every content: read once, embedded as stage 3 does it, and never lost."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.ml.inference.base import ModelHandler, PredictionResult
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests import pictures
from tests.pictures import photo, saved, write
from tests.transforms.samples import make_content
from transforms import EmbedContents, EmbedMembers, ReadMembers, embeddings
from transforms.embeddings import EmbeddedContents, learned_of
from transforms.features import MemberSettings, read_member
from transforms.imaging.decode import DecodeLimits
from transforms.imaging.descriptor import DIMENSIONS
from transforms.imaging.preparation import Preparation
from transforms.models.descriptor import EmbedThumbnail
from transforms.models.spec import EMBEDDED_DESCRIPTOR, GlobalModel, Labels
from transforms.records import (
    Content,
    ContentRead,
    Embedded,
    ImageInput,
    Learned,
    PairUnit,
    StageStats,
)
from transforms.rounds import blank_edge, measure, star_candidate
from transforms.telemetry import Timed

LIMITS = DecodeLimits()
SIDE = 16
PREPARATION = Preparation(SIDE, SIDE)
MODEL = GlobalModel("fake:means", "fake", preparation=PREPARATION, dimensions=3)
LEARNED_SETTINGS = MemberSettings(preparation=PREPARATION)


def _content(folder: Path, name: str, data: bytes) -> Content:
    path = write(folder / name, data)
    return make_content(name)._replace(
        uri=path.as_uri(), size_bytes=len(data), etag=None, width=320, height=240
    )


class _Means:
    """A model: the mean of each channel of each picture; raises for no picture."""

    seen: list[int] = []  # noqa: RUF012 - pictures of each call, in this process
    lock = threading.Lock()

    def __call__(self, image: ImageInput) -> Embedded:
        pixels = PREPARATION.unpack(image.inputs)
        with self.lock:
            self.seen.append(len(pixels))
        if not len(pixels):
            return Embedded(b"")
        means = pixels.reshape(len(pixels), -1, 3).mean(axis=1) + 1.0
        rows = means / np.linalg.norm(means, axis=1, keepdims=True)
        return Embedded(rows.astype(np.float32).tobytes())


class _MeansHandler(ModelHandler[Any, PredictionResult, _Means]):
    def load_model(self) -> _Means:
        return _Means()

    def run_inference(
        self,
        batch: Sequence[Any],
        model: _Means,
        inference_args: Mapping[str, Any] | None = None,
    ) -> Iterator[PredictionResult]:
        for image in batch:
            yield PredictionResult(image, Timed.call(model, image))


def _fake_handler(*_: object) -> _MeansHandler:
    return _MeansHandler()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have the fake model embed; gives the pictures of each of its calls."""
    monkeypatch.setattr(embeddings, "global_handler", _fake_handler)
    _Means.seen.clear()
    return _Means.seen


def _embed(pipeline: beam.Pipeline, contents: list[Content], **options: Any) -> EmbeddedContents:
    made = pipeline | "Contents" >> beam.Create(contents).with_output_types(Content)
    found: EmbeddedContents = made | EmbedContents(**options)
    return found


def _vector(content: Content, data: bytes) -> bytes:
    """Return what stage 3 makes of a picture that is not embedded before."""
    member = read_member(content, data, b"", MemberSettings(), LIMITS)
    vector = np.frombuffer(EmbedThumbnail()(member).vectors, np.float32)
    assert vector.shape == (DIMENSIONS,)
    return vector.astype(np.float16).tobytes()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_content_has_the_embedding_of_stage_3_or_why_it_has_none(
    tmp_path: Path, batch_size: int
) -> None:
    data = {f"{seed}.jpg": saved(photo(seed)) for seed in range(4)}
    contents = [_content(tmp_path, name, each) for name, each in data.items()]
    cut = _content(tmp_path, "cut.jpg", saved(photo(9))[:2000])
    gone = _content(tmp_path, "gone.jpg", b"")._replace(size_bytes=10)
    (tmp_path / "gone.jpg").unlink()
    expected = [
        one._replace(learned=Learned(_vector(one, each), "", 0.0, "", "", ""))
        for one, each in zip(contents, data.values(), strict=True)
    ]

    def check(found: list[Content]) -> None:
        failed = {one.uri: one for one in found if one.learned and one.learned.error_type}
        assert sorted(one for one in found if one.uri not in failed) == sorted(expected)
        assert [one._replace(learned=None) for _, one in sorted(failed.items())] == [cut, gone]
        errors = [one.learned and one.learned[:5] for _, one in sorted(failed.items())]
        assert errors == [
            (b"", "", 0.0, "decode", "truncated"),
            (b"", "", 0.0, "read", "vanished"),
        ]
        assert all(one.learned and one.learned.error_message for one in failed.values())

    with TestPipeline("FnApiRunner") as pipeline:
        found = _embed(pipeline, [*contents, cut, gone], batch_size=batch_size)
        assert_that(found.contents, check)
        size = sum(map(len, data.values())) + cut.size_bytes
        totals = {"embeddings": (6, 4, 2, size), "embed": (6, 4, 0, 0)}

        def check_stats(parts: list[StageStats]) -> None:
            for stage, expected in totals.items():
                rows = [
                    (one.items_in, one.items_out, one.failed, one.bytes_read)
                    for one in parts
                    if one.stage == stage
                ]
                assert tuple(map(sum, zip(*rows, strict=True))) == expected

        assert_that(found.stats, check_stats, label="stats")


def _read(error: str = "") -> ContentRead:
    return ContentRead(make_content("a"), b"", "decode" if error else "", error, error and "why")


_UNIT = np.array([0.6, -0.8, 0.0], np.float32)


def test_an_embedding_is_kept_as_float16() -> None:
    assert learned_of(_read(), Embedded(_UNIT.tobytes()), None) == Learned(
        _UNIT.astype(np.float16).tobytes(), "", 0.0, "", "", ""
    )


@pytest.mark.parametrize(
    "vector",
    [
        np.array([np.nan, 0, 0], np.float32).tobytes(),
        np.array([np.inf, 0, 0], np.float32).tobytes(),
        bytes(12),
        (1.1 * _UNIT).astype(np.float32).tobytes(),
        _UNIT.tobytes()[:-1],
        b"",
    ],
)
def test_m7_an_embedding_that_cannot_be_compared_is_none(vector: bytes) -> None:
    learned = learned_of(_read(), Embedded(vector), None)
    assert learned == Learned(
        b"", "", 0.0, "global", "bad_embedding", "the embedding is no finite vector of length 1"
    )


def test_p12_an_error_of_the_model_and_one_of_the_read_are_told() -> None:
    failed = Embedded(b"", "out_of_memory", "no room for one picture")
    assert learned_of(_read(), failed, None) == Learned(
        b"", "", 0.0, "global", "out_of_memory", "no room for one picture"
    )
    assert learned_of(_read("truncated"), Embedded(b""), None) == Learned(
        b"", "", 0.0, "decode", "truncated", "why"
    )


def test_a_picture_gets_the_label_that_is_nearest() -> None:
    labels = Labels(("cat", "dog"), np.eye(3, dtype=np.float32)[:2].tobytes(), 100.0)
    for axis, name in enumerate(labels.names):
        vector = np.array([0.6, 0.6, 0.0], np.float32)
        vector[axis] = 0.8
        vector /= np.linalg.norm(vector)
        learned = learned_of(_read(), Embedded(vector.tobytes()), labels)
        assert (learned.label, learned.label_score) == (name, 1.0)
    failed = learned_of(_read("truncated"), Embedded(b""), labels)
    assert (failed.label, failed.label_score) == ("", 0.0)


def test_a_learned_model_gets_what_it_would_get_of_stage_3(tmp_path: Path, seen: list[int]) -> None:
    data = saved(photo(5))
    content = _content(tmp_path, "a.jpg", data)
    member = read_member(content, data, b"", LEARNED_SETTINGS, LIMITS)
    expected = np.frombuffer(_Means()(member).vectors, np.float32).astype(np.float16).tobytes()
    seen.clear()
    with TestPipeline("FnApiRunner") as pipeline:
        found = _embed(pipeline, [content], model=MODEL, settings=LEARNED_SETTINGS)
        vectors = found.contents | beam.Map(lambda one: one.learned.embedding)
        assert_that(vectors, equal_to([expected]))
    assert seen == [1]


class _BadMeans(_Means):
    """A model whose vectors are too long."""

    def __call__(self, image: ImageInput) -> Embedded:
        return Embedded(bytes(12) if not image.inputs else np.full(3, 2.0, np.float32).tobytes())


class _BadHandler(_MeansHandler):
    def load_model(self) -> _Means:
        return _BadMeans()


def test_m7_what_the_model_fails_for_is_counted_and_progress_knows_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: list[tuple[str, int, int]] = []
    monkeypatch.setattr(embeddings, "global_handler", lambda *_: _BadHandler())
    monkeypatch.setattr(embeddings, "report_progress", lambda *told: expected.append(told))
    contents = [_content(tmp_path, f"{seed}.jpg", saved(photo(seed))) for seed in range(3)]

    def check(parts: list[StageStats]) -> None:
        counts = [
            (one.items_in, one.items_out, one.failed) for one in parts if one.stage == "embed"
        ]
        assert tuple(map(sum, zip(*counts, strict=True))) == (3, 0, 3)

    with TestPipeline("FnApiRunner") as pipeline:
        found = _embed(pipeline, contents, model=MODEL, settings=LEARNED_SETTINGS)
        assert_that(found.stats, check, label="stats")
        errors = found.contents | beam.Map(lambda one: one.learned.error_type)
        assert_that(errors, equal_to(["bad_embedding"] * 3))
    assert sorted(expected) == [("embed", 0, 1)] * 3 + [("embeddings", 0, 1)] * 3


def _pair(first: Content, second: Content, orientation: int) -> PairUnit:
    edge = blank_edge(measure(star_candidate(first, second), first, second))
    edge = edge._replace(wavelet_distance=8, orientation=orientation)
    return PairUnit("u", b"c", [first, second], [edge])


@pytest.mark.parametrize(("orientation", "calls"), [(1, [0, 0, 1, 1]), (6, [0, 1, 1, 1])])
def test_stage_3_takes_the_embedding_and_asks_for_no_more_than_a_turn(
    tmp_path: Path, seen: list[int], orientation: int, calls: list[int]
) -> None:
    one = photo(6)
    contents = [
        _content(tmp_path, "a.jpg", saved(one)),
        _content(tmp_path, "b.jpg", saved(pictures.turned(one))),
    ]
    first = min(contents, key=lambda each: each.content).uri

    def check(records: list[Any]) -> None:
        assert all(record.error_type == "" for record in records)
        turns = {record.uri: record.turns for record in records}
        turned = bytes([1]) if orientation == 1 else bytes([1, orientation])
        assert turns == {each.uri: b"\x01" for each in contents} | {first: turned}
        assert {len(record.embedding) for record in records} == {12, 12 * len(turned)}

    with TestPipeline("FnApiRunner") as pipeline:
        embedded = _embed(pipeline, contents, model=MODEL, settings=LEARNED_SETTINGS)
        units = (
            embedded.contents
            | beam.combiners.ToList()
            | beam.MapTuple(lambda *both: _pair(*both, orientation)).with_output_types(PairUnit)
        )
        read = units | ReadMembers(LEARNED_SETTINGS, LIMITS)
        members = read.fresh | EmbedMembers(_MeansHandler())
        assert_that(members.records, check)
    assert sorted(seen) == calls


def test_settings_of_another_model_are_refused() -> None:
    with pytest.raises(ValueError, match="settings must have the preparation of model"):
        EmbedContents(EMBEDDED_DESCRIPTOR, LEARNED_SETTINGS)
    with pytest.raises(ValueError, match="'fake:means'"):
        EmbedContents(MODEL)
