"""A learned model while it runs: loaded when the first item comes, in batches that memory holds.

A ``Session`` is what ``ModelHandler.load_model`` returns. It is cheap: RunInference makes one for
each of its steps and processes before there is anything to embed, and all that are equal have one
model in a process. It may also live in another process, behind a proxy of Beam's
``MultiProcessShared``; so what it takes and gives is arrays, tuples and numbers.
"""

import gc
import logging
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, NamedTuple, Optional, TypeVar

from transforms.imaging.errors import one_line
from transforms.models.devices import choose_device, threads, use_threads
from transforms.models.spec import Execution, ModelError

log = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
Forward = Callable[[Sequence[_Item]], Sequence[_Result]]

# What libraries say, in lower case, where memory for a batch is missing: PyTorch's allocators of
# the CPU and of CUDA (c10/core/impl/alloc_cpu.cpp, c10/cuda/CUDACachingAllocator.cpp), cuBLAS,
# cuDNN, and ONNX Runtime's arenas (core/framework/bfc_arena.cc).
_NO_MEMORY: Final = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "failed to allocate memory",
    "available memory of",
    "bad allocation",
    "bad_alloc",
    "alloc_failed",
)
# A process whose GPU says so gets no more results from it, whatever the item.
_BROKEN_DEVICE: Final = ("cuda error", "cudnn_status_execution_failed", "cuda failure")


class Failed(NamedTuple):
    """An item for which the model gave nothing."""

    error_type: str  # out_of_memory | other
    message: str  # one line


class Told(NamedTuple):
    """What happened in a session since it was last asked."""

    loads: int = 0  # 0 or 1, but for several sessions in one answer
    load_ms: int = 0
    size_bytes: int = 0  # of the parameters that were loaded
    halvings: int = 0  # of the limit, for want of memory
    limit: int = 0  # items of one call since the last halving; 0 without one
    cpu_us: int = 0  # of the thread, or of the process where a call uses several threads


class _Held(Generic[_Item, _Result]):
    """The one model of a process for all equal sessions."""

    def __init__(
        self, loader: Callable[[str], Forward[_Item, _Result]], execution: Execution, name: str
    ) -> None:
        self._loader, self._execution, self._name = loader, execution, name
        self._lock = threading.Lock()
        self._forward: Optional[Forward[_Item, _Result]] = None
        self._limit = sys.maxsize
        self._told = Told()

    def run(self, items: Sequence[_Item]) -> list[_Result | Failed]:
        """Run the model on items, by one thread at a time: memory is that of one batch."""
        if not len(items):  # an array has no truth value
            return []
        several = threads(self._execution) > 1
        clock = time.process_time_ns if several else time.thread_time_ns
        with self._lock:
            started = clock()
            if self._forward is None:
                self._forward = self._load()
            results: list[_Result | Failed] = []
            while len(results) < len(items):
                end = len(results) + self._limit
                results += self._some(self._forward, items[len(results) : end])
            spent = self._told.cpu_us + (clock() - started) // 1000
            self._told = self._told._replace(cpu_us=spent)
            return results

    def take(self) -> Told:
        """Return what happened since the last call."""
        with self._lock:
            told, self._told = self._told, Told()
        return told

    def free(self) -> None:
        """Let go of the model; another call would load it again."""
        with self._lock:
            self._forward = None

    def _load(self) -> Forward[_Item, _Result]:
        started = time.monotonic()
        use_threads(self._execution)
        try:
            forward = self._loader(choose_device(self._execution.device))
        except ModelError:
            raise
        except Exception as error:  # whatever the library makes of a file or a device
            raise ModelError(
                f"model {self._name} cannot be loaded: {type(error).__name__}: {_line(error)}"
            ) from error
        self._told = self._told._replace(
            loads=self._told.loads + 1,
            load_ms=self._told.load_ms + int((time.monotonic() - started) * 1000),
            size_bytes=self._told.size_bytes + int(getattr(forward, "size_bytes", 0)),
        )
        return forward

    def _some(
        self, forward: Forward[_Item, _Result], items: Sequence[_Item]
    ) -> list[_Result | Failed]:
        """Return the results of some items: of all, or of none after a halving."""
        found = _call(forward, items)
        if not isinstance(found, Failed):
            return found
        if found.error_type == "out_of_memory":
            _free_caches()
            if len(items) == 1:
                return [found]
            self._halve(len(items))
            return []
        if len(items) == 1:
            return [found]
        # One of them is to blame; each for itself, the others come through.
        singles = (items[index : index + 1] for index in range(len(items)))
        return [one for single in singles for one in self._some(forward, single)]

    def _halve(self, size: int) -> None:
        self._limit = max(1, size // 2)
        self._told = self._told._replace(halvings=self._told.halvings + 1, limit=self._limit)
        log.warning(
            "model %s: no memory for %d items at once, now %d", self._name, size, self._limit
        )


_lock = threading.Lock()
# As long as any session of it lives.
_held: weakref.WeakValueDictionary[tuple[Any, ...], _Held[Any, Any]] = weakref.WeakValueDictionary()


class Session(Generic[_Item, _Result]):
    """A model that is loaded when it is first called.

    Sessions that are equal in loader, execution and name share one model in a process. A batch for
    which memory is missing is cut in halves, and so is every one after it. An item on which the
    model raises is tried by itself, so that it takes no other with it.
    """

    def __init__(
        self, loader: Callable[[str], Forward[_Item, _Result]], execution: Execution, name: str
    ) -> None:
        """Take the model without loading it.

        Args:
            loader: called with the device (cpu or cuda:N), returns the model: a callable that takes
                a sequence of items (an array counts as one of its rows) and gives as many results;
                its ``size_bytes``, if it has that, is what its parameters take. It is hashable,
                and equal where the model is.
            execution: where it runs.
            name: for messages, with the path of its weights.
        """
        key = (loader, execution, name)
        with _lock:
            held = _held.get(key)
            if held is None:
                held = _held[key] = _Held(loader, execution, name)
        self._held: _Held[_Item, _Result] = held

    def __call__(self, items: Sequence[_Item]) -> list[_Result | Failed]:
        """Return the result of each item, or why there is none.

        Raises:
            ModelError: the model cannot be loaded.
            RuntimeError: the device no longer works.
        """
        return self._held.run(items)

    def take(self) -> Told:
        """Return what happened since anyone last asked, so that it is counted once."""
        return self._held.take()


def free_models() -> None:
    """Let go of every model of this process, at the end of a job that ran in it.

    Beam keeps the last model of a process for ever (``apache_beam.utils.shared``).
    """
    with _lock:
        held = list(_held.values())
    for one in held:
        one.free()
    if held:
        _free_caches()


def forget_shared(execution: Execution) -> None:
    """Remove the lock and address files by which a job's processes found its shared models.

    Beam leaves them in the folder for temporary files (``apache_beam.utils.multi_process_shared``).

    Args:
        execution: of a job that has ended.
    """
    for path in Path(tempfile.gettempdir()).glob(f"beam_dedup_*-{execution.job}*"):
        path.unlink(missing_ok=True)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether an exception of any library means that memory was missing for a batch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(part in text for part in _NO_MEMORY)


def _call(
    forward: Forward[_Item, _Result], items: Sequence[_Item]
) -> list[_Result | Failed] | Failed:
    """Call a model; an exception's frames, and the tensors that they hold, end with this one."""
    try:
        results = forward(items)
        if len(results) != len(items):
            raise ValueError(f"the model gave {len(results)} results for {len(items)} items")
        return list(results)
    except Exception as error:  # whatever the library raises
        if is_out_of_memory(error):
            return Failed("out_of_memory", _line(error) or "no memory for it alone")
        if any(text in str(error).lower() for text in _BROKEN_DEVICE):
            raise
        return Failed("other", f"{type(error).__name__}: {_line(error)}")


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return one_line(lines[0]) if lines else ""


def _free_caches() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
