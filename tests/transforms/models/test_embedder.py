"""Tests of the embedder: every element out once, in order, with vectors of length 1 or a reason."""

import dataclasses
import gc
import pickle
import sys
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pytest
from apache_beam.ml.inference.base import PredictionResult, RunInference
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from tests.transforms.models.fakes import DIMENSIONS, LEARNED, SIDE, FakeFamily
from transforms.models.embedder import EmbedderHandler, LoadNetwork, unit_rows
from transforms.models.spec import Execution, GlobalModel, ModelError, Weights
from transforms.records import Embedded, MemberRead, MemberRecord

CPU = Execution("cpu")


@pytest.fixture
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFamily]:
    """Put a family in place of a module, and forget models of other tests."""
    gc.collect()
    fake = FakeFamily()
    monkeypatch.setitem(sys.modules, "transforms.models.fake", fake)  # type: ignore[arg-type]
    yield fake
    gc.collect()


def picture(*value: int) -> bytes:
    """Return an even picture of one colour."""
    return bytes(value) * SIDE**2


def member(name: str, *pictures: bytes) -> MemberRead:
    record = MemberRecord(name.encode(), f"file:///{name}", b"", b"", b"", "", "", "", 0)
    return MemberRead(record, ["unit"], b"".join(pictures), bytes(range(1, len(pictures) + 1)))


def embed(family: FakeFamily, batch: list[MemberRead]) -> list[Embedded]:
    handler = EmbedderHandler(LEARNED, CPU, 8)
    results = list(handler.run_inference(batch, handler.load_model()))
    assert [result.example for result in results] == batch
    return [result.inference.value for result in results]


def rows(embedded: Embedded) -> npt.NDArray[np.float32]:
    assert embedded.error_type == ""
    return np.frombuffer(embedded.vectors, np.float32).reshape(-1, DIMENSIONS)


def test_all_pictures_of_a_batch_go_through_the_model_at_once(family: FakeFamily) -> None:
    batch = [member("a", picture(3, 0, 4), picture(0, 0, 9)), member("b"),
             member("c", picture(8, 6, 0))]  # fmt: skip
    found = embed(family, batch)
    np.testing.assert_array_equal(rows(found[0]), np.array([[0.6, 0, 0.8], [0, 0, 1]], np.float32))
    assert found[1] == Embedded(b"")
    np.testing.assert_array_equal(rows(found[2]), np.array([[0.8, 0.6, 0]], np.float32))
    assert [network.calls for network in family.loaded] == [[3]]


def test_r11_turns_make_no_call_larger_than_a_batch_may_be(family: FakeFamily) -> None:
    colours = [picture(number + 1, 0, 0) for number in range(7)]
    batch = [member("a", *colours[:5]), member("b"), member("c", *colours[5:])]
    handler = EmbedderHandler(LEARNED, CPU, 3)
    results = list(handler.run_inference(batch, handler.load_model()))
    assert [len(rows(one.inference.value)) for one in results[::2]] == [5, 2]
    assert [network.calls for network in family.loaded] == [[3, 3, 1]]


def test_a_batch_without_pictures_loads_no_model(family: FakeFamily) -> None:
    assert embed(family, [member("a"), member("b")]) == [Embedded(b"")] * 2
    assert family.loaded == []


def test_m7_what_is_zero_or_not_finite_is_a_bad_embedding(family: FakeFamily) -> None:
    good, zero, nan = picture(1, 2, 2), picture(0, 0, 0), picture(252, 1, 1)
    found = embed(
        family, [member("a", good), member("b", good, zero), member("c", nan), member("d", good)]
    )
    assert [one.error_type for one in found] == ["", "bad_embedding", "bad_embedding", ""]
    assert found[1].vectors == found[2].vectors == b""
    assert found[0] == found[3]


def test_p12_r10_a_bad_picture_fails_its_own_element_alone(family: FakeFamily) -> None:
    good, bad = picture(1, 2, 2), picture(251, 0, 0)
    found = embed(family, [member("a", good, bad), member("b", good), member("c", good)])
    assert found[0] == Embedded(b"", "other", "ValueError: a bad picture")
    np.testing.assert_allclose(rows(found[2]), [[1 / 3, 2 / 3, 2 / 3]], rtol=1e-6)
    assert found[1] == found[2]


def test_r11_a_batch_too_large_for_memory_is_halved_and_told(family: FakeFamily) -> None:
    handler = EmbedderHandler(LEARNED, CPU, 8)
    batch = [member(str(number), picture(250, number, 0)) for number in range(5)]
    results = list(handler.run_inference(batch, handler.load_model()))
    assert [result.inference.value.error_type for result in results] == [""] * 5
    assert family.loaded[0].calls == [5, 2, 2, 1]
    told = [(result.inference.halvings, result.inference.batch_limit) for result in results]
    assert told == [(1, 2)] + [(0, 0)] * 4


def test_r12_a_load_failure_names_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        @staticmethod
        def load(model: GlobalModel, device: str) -> None:
            raise RuntimeError("size mismatch for conv1\nmore")

    monkeypatch.setitem(sys.modules, "transforms.models.broken", Broken)  # type: ignore[arg-type]
    weights = Weights("/w/x.pt", "0" * 64, 1)
    model = dataclasses.replace(LEARNED, name="broken:x", family="broken", weights=weights)
    handler = EmbedderHandler(model, CPU, 8)
    with pytest.raises(ModelError) as refused:
        list(handler.run_inference([member("a", picture(1, 1, 1))], handler.load_model()))
    assert str(refused.value) == (
        "model 'broken:x' of '/w/x.pt' cannot be loaded: RuntimeError: size mismatch for conv1"
    )


def test_lengths_are_1_in_float32_whatever_the_scale() -> None:
    for scale in (1e-38, 1.0, 3e38):
        found = rows(unit_rows(np.array([[0.6 * scale, 0, 0.8 * scale]], np.float32), DIMENSIONS))
        np.testing.assert_allclose(found, [[0.6, 0, 0.8]], rtol=1e-5)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_m7_no_value_may_be_infinite(value: float) -> None:
    assert unit_rows(np.array([[1, value, 0]], np.float32), 0).error_type == "bad_embedding"


def test_vectors_of_another_length_than_the_models_are_refused() -> None:
    found = unit_rows(np.ones((1, 4), np.float32), 3)
    assert found == Embedded(b"", "bad_embedding", "the model gave 4 values of a picture, not 3")


def test_the_time_of_a_batch_is_shared_out(family: FakeFamily) -> None:
    handler = EmbedderHandler(LEARNED, CPU, 8)
    batch = [member(str(number), picture(1, number, 0)) for number in range(4)]
    timed = [result.inference for result in handler.run_inference(batch, handler.load_model())]
    assert len({(one.started_us, one.ended_us, one.cpu_us) for one in timed}) == 1
    assert timed[0].started_us <= timed[0].ended_us


def test_the_bytes_of_a_batch_are_those_of_its_pictures(family: FakeFamily) -> None:
    handler = EmbedderHandler(LEARNED, CPU, 8)
    assert handler.get_num_bytes([member("a", picture(1, 2, 3)), member("b")]) == 3 * SIDE**2


def test_a_handler_travels_and_its_sessions_share_one_model(family: FakeFamily) -> None:
    handler = EmbedderHandler(LEARNED, CPU, 8)
    other = pickle.loads(pickle.dumps(handler))  # noqa: S301 - made here
    sessions = [handler.load_model(), other.load_model()]
    for session in sessions:
        list(handler.run_inference([member("a", picture(1, 1, 1))], session))
    assert len(family.loaded) == 1
    assert LoadNetwork(LEARNED) == other.loader


def test_a_shared_model_is_named_after_its_job() -> None:
    def handler(job: str) -> EmbedderHandler:
        return EmbedderHandler(LEARNED, Execution("cpu", shared=True, job=job), 8)

    assert handler("run-1").identifier == handler("run-1").identifier == "beam_dedup_global-run-1"
    assert handler("run-2").identifier != handler("run-1").identifier
    assert handler("run-1").share_model_across_processes()
    assert not EmbedderHandler(LEARNED, CPU, 8).share_model_across_processes()


def test_batches_are_between_one_element_and_the_bound() -> None:
    handler = EmbedderHandler(LEARNED, CPU, 8)
    assert handler.batch_elements_kwargs() == {"min_batch_size": 1, "max_batch_size": 8}
    with pytest.raises(ValueError, match="batch_size"):
        EmbedderHandler(LEARNED, CPU, 0)
    with pytest.raises(ValueError, match="no preparation"):
        EmbedderHandler(GlobalModel("x", "x"), CPU, 8)


def _flat(result: PredictionResult) -> tuple[str, list[float]]:
    vectors = rows(result.inference.value)
    return result.example.record.uri, [round(float(value), 4) for value in vectors.ravel()]


def test_two_steps_of_a_job_load_one_model_and_its_metrics_are_its_own(family: FakeFamily) -> None:
    reads = [member(str(number), picture(0, 0, number + 1)) for number in range(5)]
    wanted = [(f"file:///{number}", [0.0, 0.0, 1.0]) for number in range(5)]
    with TestPipeline() as pipeline:
        for step in ("First", "Second"):
            handler = EmbedderHandler(LEARNED, CPU, 2)
            found = (
                pipeline
                | f"{step}: make" >> beam.Create(reads)
                | f"{step}: run" >> RunInference(handler, model_identifier=handler.identifier)
                | f"{step}: flat" >> beam.Map(_flat)
            )
            assert_that(found, equal_to(wanted), label=step)
    assert len(family.loaded) == 1
    metrics = pipeline.result.metrics().query()
    values: dict[str, list[Any]] = {}
    for metric in [*metrics["counters"], *metrics["distributions"]]:
        if metric.key.metric.namespace == "beam_dedup_global":
            values.setdefault(metric.key.metric.name, []).append(metric.committed)
    assert sum(values["num_inferences"]) == 10
    assert sum(values["models_loaded"]) == 1
    assert [one.sum for one in values["model_byte_size"]] == [1234]
    assert [one.count for one in values["load_model_latency_milli_secs"]] == [1]
    assert sum(one.sum for one in values["inference_request_batch_size"]) == 10
    assert max(one.max for one in values["inference_request_batch_size"]) <= 2
    assert sum(one.sum for one in values["inference_request_batch_byte_size"]) == 10 * 3 * SIDE**2
    assert all(one.count for one in values["inference_batch_latency_micro_secs"])
    assert "out_of_memory_halvings" not in values


def test_elements_without_pictures_are_not_counted_as_inferences(family: FakeFamily) -> None:
    batch = [member("a", picture(3, 0, 4)), member("b"), member("c")]
    with TestPipeline("FnApiRunner") as pipeline:
        handler = EmbedderHandler(LEARNED, CPU, 1)
        _ = pipeline | beam.Create(batch) | RunInference(handler)
        pipeline_result = pipeline.run()
        pipeline_result.wait_until_finish()
    found = pipeline_result.metrics().query()
    counters = {one.key.metric.name: one.committed for one in found["counters"]}
    sizes = [
        one.committed
        for one in found["distributions"]
        if one.key.metric.name == "inference_request_batch_size"
    ]
    assert counters["num_inferences"] == 1
    assert [(size.count, size.sum) for size in sizes] == [(1, 1)]
