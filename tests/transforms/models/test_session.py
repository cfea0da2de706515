"""Tests of sessions: loaded once and late, batches halved, one bad item at a time."""

import gc
import pickle
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apache_beam.utils.multi_process_shared import MultiProcessShared

from tests.transforms.models.fakes import CALLS, LOADS, Loader
from transforms.models.session import (
    Failed,
    Session,
    Told,
    forget_shared,
    free_models,
    is_out_of_memory,
)
from transforms.models.spec import Execution, ModelError

CPU = Execution("cpu")


@pytest.fixture(autouse=True)
def _nothing_before() -> None:
    gc.collect()
    LOADS.clear()
    CALLS.clear()


def session(**changes: object) -> Session[int, int]:
    return Session(Loader(**changes), CPU, "'fake' of '/a/b.bin'")  # type: ignore[arg-type]


def test_a_model_is_loaded_at_the_first_call_and_tells_it_once() -> None:
    one = session()
    assert (LOADS, one.take()) == ([], Told())
    assert one([1, 2, 3]) == [2, 4, 6]
    assert one([4]) == [8]
    assert LOADS == [("one", "cpu")]
    told = one.take()
    assert (told.loads, told.size_bytes, told.halvings, told.limit) == (1, 99, 0, 0)
    assert one.take() == Told()


def test_no_items_load_no_model() -> None:
    one = session()
    assert one([]) == []
    assert LOADS == []


def test_equal_sessions_have_one_model_and_others_have_their_own() -> None:
    one, same, other = session(), session(), session(name="two")
    job = Session(Loader(), Execution("cpu", job="another"), "'fake' of '/a/b.bin'")
    assert [each([1]) for each in (one, same, other, job)] == [[2]] * 4
    assert LOADS == [("one", "cpu"), ("two", "cpu"), ("one", "cpu")]
    # Whoever asks first is told.
    assert (same.take().loads, one.take().loads) == (1, 0)


def test_the_model_goes_with_the_last_session() -> None:
    one, same = session(), session()
    one([1])
    del one
    gc.collect()
    assert same([1]) == [2]
    assert len(LOADS) == 1
    del same
    gc.collect()
    assert session()([1]) == [2]
    assert len(LOADS) == 2


def test_freed_models_are_loaded_again_if_anyone_asks() -> None:
    one = session()
    one([1])
    free_models()
    assert one([1]) == [2]
    assert len(LOADS) == 2


def test_files_of_a_shared_model_go_with_its_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = ["beam_dedup_global-one0.lock", "beam_dedup_local-one_model_status.address",
             "beam_dedup_global-two0.lock", "one"]  # fmt: skip
    for name in names:
        (tmp_path / name).touch()
    forget_shared(Execution(shared=True, job="one"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[2:])


def test_threads_wait_for_one_load() -> None:
    one = session()
    threads = [threading.Thread(target=one, args=([number],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(LOADS) == 1
    assert sorted(CALLS) == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    "fault",
    [
        MemoryError(),
        RuntimeError("[enforce fail] err == 0. DefaultCPUAllocator: can't allocate memory: you "
                     "tried to allocate 8 bytes. Error code 12 (Cannot allocate memory)"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"),
        RuntimeError("cuBLAS: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 2"),
        type("RuntimeException", (Exception,), {})(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc:376 Failed to allocate "
            "memory for requested buffer of size 1024"),
    ],
)  # fmt: skip
def test_r11_a_batch_without_memory_is_halved_for_good_and_told(fault: Exception) -> None:
    one = session(most=3, fault=fault)
    assert one(list(range(10))) == list(range(0, 20, 2))
    # 10 and 5 are too many.
    assert [len(call) for call in CALLS] == [10, 5, 2, 2, 2, 2, 2]
    told = one.take()
    assert (told.halvings, told.limit) == (2, 2)
    assert one([1, 2, 3]) == [2, 4, 6]
    assert [len(call) for call in CALLS[-2:]] == [2, 1]
    assert one.take().halvings == 0


def test_r11_an_item_that_memory_never_holds_fails_alone() -> None:
    one = session()
    assert one([1, 13, 2]) == [2, Failed("out_of_memory", "no memory for it alone"), 4]
    assert one.take().limit == 1


def test_p12_r10_a_bad_item_takes_no_other_with_it() -> None:
    one = session()
    found = one([1, -1, 2, -2])
    assert found == [2, Failed("other", "ValueError: -1"), 4,
                     Failed("other", "ValueError: -2")]  # fmt: skip
    assert CALLS == [[1, -1, 2, -2], [1], [-1], [2], [-2]]
    assert one.take().halvings == 0


def test_too_few_results_are_an_error() -> None:
    assert session()([404]) == [Failed("other", "ValueError: the model gave 0 results for 1 items")]


def test_a_broken_device_fails_the_job_not_its_items() -> None:
    with pytest.raises(RuntimeError, match="illegal memory access"):
        session()([1, 666])


def test_r12_a_load_that_fails_raises_with_the_path() -> None:
    one = session(name="missing")
    for _ in range(2):
        with pytest.raises(ModelError) as refused:
            one([1])
        assert str(refused.value) == (
            "model 'fake' of '/a/b.bin' cannot be loaded: OSError: no such file"
        )
    assert LOADS == [("missing", "cpu")] * 2


def test_an_array_counts_as_its_rows() -> None:
    one = Session(Loader(most=2, fault=MemoryError()), CPU, "")
    assert one(np.arange(5)) == [0, 2, 4, 6, 8]  # type: ignore[arg-type, comparison-overlap]


def test_results_travel_between_processes() -> None:
    one = session()
    results = [*one([1, -1]), one.take()]
    assert pickle.loads(pickle.dumps(results)) == results  # noqa: S301 - made here


def test_a_session_works_behind_a_proxy(tmp_path: Path) -> None:
    shared = MultiProcessShared(session, "beam_dedup_test-session", path=str(tmp_path),
                                always_proxy=True)  # fmt: skip
    proxy: Any = shared.acquire()
    assert proxy([1, -1]) == [2, Failed("other", "ValueError: -1")]
    assert proxy(np.arange(3)) == [0, 2, 4]
    assert (proxy.take().loads, proxy.take().loads) == (1, 0)
    assert LOADS == [("one", "cpu")]


def test_other_errors_are_not_taken_for_missing_memory() -> None:
    assert not is_out_of_memory(ValueError("expected 3 channels, not 4"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_the_real_allocator_is_understood() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError) as refused:
        torch.empty(2**62, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
