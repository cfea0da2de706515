"""One worker process of the embedded runner: Beam's SDK worker on a lifeline.

Beam starts workers as plain child processes: nothing ends them when the client is killed, and a
Ctrl-C reaches each of them on its own. So a worker holds the reading end of a FIFO whose only
writing end is the client's. When that closes, by the client's will or by its death, the worker
ends at once. Signals of the terminal are left to the client.
"""

import contextlib
import ctypes
import faulthandler
import functools
import itertools
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

from beam_dedup import spill
from beam_dedup.garbage import few_collections
from beam_dedup.imports import import_beam
from beam_dedup.shuffles import join_directly

_M_ARENA_MAX, _M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -8, -3, -1  # of glibc's malloc.h
_KEPT_BYTES = 128 << 20  # free at the end of the heap; given back beyond
_MAPPED_BYTES = 128 << 20  # from which on an array or buffer is a mapping of its own
_QUEUED_BYTES = 16 << 20  # waiting to be sent to, or read by, one worker
_POLL_S = 0.002
_SLICES = 64  # of the groups of a shuffle, for each worker and about
_SLICE_BYTES = 1 << 20  # of a slice at least, since each waits for a poll
_WEIGHED = 1024  # groups of a shuffle; chance spreads more of them evenly
LIFELINE = "BEAM_DEDUP_LIFELINE"  # environment variable: path of the FIFO
MARK = "worker-"  # beside the FIFO: an empty file for each worker, named by its process id
LAST_WORDS = "stderr-"  # beside the FIFO: what each worker wrote to standard error


def hold_lifeline(path: Path) -> None:
    """End this process as soon as the writing end of a FIFO is closed.

    Leaves a file ``MARK`` + PID beside the FIFO, by which the client can end a process that holds
    the interpreter's lock and so cannot end itself.

    Args:
        path: the FIFO, as the client made it.
    """
    try:
        (path.parent / f"{MARK}{os.getpid()}").touch()
        lifeline = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        # A FIFO without a writer reads as ended; one with a writer has nothing to read yet.
        if os.read(lifeline, 1) == b"":
            os._exit(1)
    except FileNotFoundError:
        os._exit(1)
    except BlockingIOError:
        os.set_blocking(lifeline, True)
    threading.Thread(target=_wait, args=(lifeline,), name="lifeline", daemon=True).start()


def _wait(lifeline: int) -> None:
    os.read(lifeline, 1)
    os._exit(1)


def _bound_arenas() -> None:
    """Keep glibc from giving each of Beam's threads a heap of its own, which it never gives back.

    Measured on 20,000 images with two workers: 329 MiB in the client instead of 484. Each mapping
    is filled with zeroed pages again when it is made: with glibc's thresholds, and with low ones,
    that was 6 of 52 CPU seconds of a job over 5,420 images.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such call
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


class _ReadOnce(list[Any]):
    """A queue of messages, or of functions that make one, that lets go of each when it is read.

    Beam 2.77 reads a queue once, keeps what is for another bundle, and holds the rest to the end:
    a gigabyte of a million keys, beside the copy that it takes.
    """

    def __iter__(self) -> Iterator[Any]:
        for place, item in enumerate(super().__iter__()):
            self[place] = None
            yield item() if callable(item) else item


def _make(message: Callable[..., Any], part: Any) -> Any:
    return message(data=spill.read(part))


def _send_whole_inputs() -> None:
    """Make Beam's embedded runner send a stage's whole input, and buffer by buffer.

    Beam 2.77 writes all of it into one stream, which a timer empties each second into the queue of
    what is to be sent. While that queue is full the timer waits, and then clears the stream: what
    was written meanwhile is lost. Seen with 1.2 GB of input and two workers.
    """
    from apache_beam.portability.api import beam_fn_api_pb2
    from apache_beam.runners.portability.fn_api_runner import worker_handlers
    from apache_beam.runners.portability.fn_api_runner.fn_runner import BundleManager
    from apache_beam.runners.worker import data_plane

    worker_handlers.DATA_BUFFER_TIME_LIMIT_MS = 0  # no timer
    data_plane._DEFAULT_SEND_QUEUE_MAX_BYTES = _QUEUED_BYTES  # by default 100 MB

    def send(
        manager: BundleManager, bundle: str, transform: str, buffers: Iterable[bytes] | None
    ) -> None:
        channel = manager._worker_handler.data_conn
        stream = channel.output_stream(bundle, transform)

        def send_all() -> None:
            try:
                for part in filter(None, spill.parts(buffers or ())):
                    while channel._pending_send.qsize() + channel._to_send.qsize():
                        time.sleep(_POLL_S)  # a part may be 100 MB: one waits, not four
                    # What it calls with a copy of its buffers.
                    stream._flush_callback(spill.read(part))
                stream.close()
            except Exception as error:
                channel._exception = error  # raised by whoever waits for what the bundle gives

        if isinstance(channel, data_plane.InMemoryDataChannel):
            for side in (channel, channel._inverse):
                if not isinstance(side._inputs, _ReadOnce):
                    side._inputs = _ReadOnce(side._inputs)
            queue = channel._inverse._inputs
            make = functools.partial(
                beam_fn_api_pb2.Elements.Data, instruction_id=bundle, transform_id=transform
            )
            queue.extend(
                functools.partial(_make, make, part) for part in spill.parts(buffers or ())
            )
        else:
            # The queue is bounded, and a worker reads on only when the bundle has begun.
            threading.Thread(target=send_all, name="send_input", daemon=True).start()

    BundleManager._send_input_to_worker = send


def _group_in_slices() -> None:
    """Make Beam's embedded runner encode groups slice by slice, each when it is sent.

    Beam 2.77 encodes all groups of a shuffle into one buffer, beside the groups themselves, and a
    buffer is sent as one message, of which there are several copies.
    """
    from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer

    whole = GroupingBuffer.partition

    def encode(grouping: GroupingBuffer, keys: list[bytes]) -> bytes:
        """Return some groups encoded, and let go of them: they are read once."""
        some = GroupingBuffer(
            grouping._pre_grouped_coder, grouping._post_grouped_coder, grouping._windowing
        )
        some._table = {key: grouping._table.pop(key) for key in keys}
        return b"".join(whole(some, 1)[0])

    def partition(grouping: GroupingBuffer, parts: int) -> list[list[Callable[[], bytes]]]:
        if grouping._grouped_output is None:
            grouping._grouped_output = [
                [functools.partial(encode, grouping, some) for some in slices]
                for slices in _dealt(_weights(grouping._table), parts)
            ]
        return grouping._grouped_output  # type: ignore[no-any-return]  # Beam is untyped

    GroupingBuffer.partition = partition


def _weights(table: dict[bytes, list[Any]]) -> dict[bytes, int]:
    """Return the bytes of each group; of many groups, those of the first for all."""
    first = {
        key: sum(len(value) if isinstance(value, bytes) else 1 for value in values)
        for key, values in itertools.islice(table.items(), _WEIGHED)
    }
    usual = sum(first.values()) // max(1, len(first))
    return first if len(first) == len(table) else dict.fromkeys(table, usual)


def _dealt(weights: dict[bytes, int], parts: int) -> list[list[list[bytes]]]:
    """Deal the keys of groups to parts that have as much to do, each cut into slices.

    The heaviest first, one to each part from the last to the first, and then back: whatever is
    alone in its shuffle goes to the first. A slice is large enough that it is worth the wait for a
    poll, and about a 64th of what is sent if that is more.
    """
    keys = sorted(weights, key=weights.__getitem__, reverse=True) if parts > 1 else list(weights)
    for start in range(0, len(keys), 2 * parts):
        keys[start : start + parts] = keys[start : start + parts][::-1]
    least = max(_SLICE_BYTES, -(-sum(weights.values()) // (parts * _SLICES)))
    return [_cut(keys[part::parts], weights, least) for part in range(parts)]


def _cut(keys: list[bytes], weights: dict[bytes, int], least: int) -> list[list[bytes]]:
    slices: list[list[bytes]] = []
    held = least
    for key in keys:
        if held >= least:
            slices.append([])
            held = 0
        slices[-1].append(key)
        held += weights[key]
    return slices


def release_buffers() -> None:
    """Make Beam's worker, or its embedded runner, hold little memory that it no longer needs.

    Beam 2.77 keeps each output's last buffer, of up to 16 MB, for as long as it keeps the stage
    for reuse: with dozens of outputs that was 200 MB of a job over 20,000 images.
    """
    from apache_beam.runners.worker.bundle_processor import DataOutputOperation

    _bound_arenas()
    finish = DataOutputOperation.finish
    if getattr(finish, "releases_buffer", False):
        return
    _send_whole_inputs()
    _group_in_slices()
    spill.spill_outputs()
    join_directly()

    def finish_and_release(operation: DataOutputOperation) -> None:
        finish(operation)
        operation.output_stream = None  # set anew at the start of every bundle

    finish_and_release.releases_buffer = True  # type: ignore[attr-defined]
    DataOutputOperation.finish = finish_and_release


def remember_states() -> None:
    """Make Beam look for state and timers once in each class of DoFn.

    Beam 2.77 reads the signature of every method of a DoFn whenever it asks, eight times for each
    step of a job: 0.3 s of a job's start. None of this program's DoFns has either.
    """
    from apache_beam.transforms import userstate

    ask = userstate.get_dofn_specs
    if getattr(ask, "remembers", False):
        return
    known: dict[type, Any] = {}

    def answer(dofn: Any) -> Any:
        # A method that the instance alone has says nothing of its class.
        if any(isinstance(value, MethodType) for value in vars(dofn).values()):
            return ask(dofn)
        kind = type(dofn)
        if kind not in known:
            known[kind] = ask(dofn)
        # The caller may change its sets.
        return tuple(map(set, known[kind]))

    answer.remembers = True  # type: ignore[attr-defined]
    userstate.get_dofn_specs = answer


def remember_signatures() -> None:
    """Make Beam read the signature, the hints and the source of each function once.

    Beam 2.77 does so for every step, and more than once: a tenth of a job's start. Its answers
    follow from the function alone, and whether it is bound. Nor need it look for mixed ``yield``
    and ``return``, or note the lines that each hint comes from, for a message that none gets.
    """
    from apache_beam.transforms import core
    from apache_beam.typehints.decorators import IOTypeHints

    if hasattr(core.get_signature, "remembers"):
        return
    core.get_signature = _remembered(core.get_signature)
    core.get_function_args_defaults = _remembered(core.get_function_args_defaults)
    core._check_fn_use_yield_and_return = lambda function: False
    IOTypeHints._make_origin = classmethod(lambda *_, **__: [])
    IOTypeHints.from_callable = staticmethod(_remembered(IOTypeHints.from_callable))


def _remembered(ask: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what answers as ``ask`` did the first time for the same function."""
    known: dict[Any, Any] = {}

    def answer(function: Any) -> Any:
        # Each instance has bound methods of its own, all of one function.
        key = getattr(function, "__func__", function), hasattr(function, "__self__")
        try:
            if key not in known:
                known[key] = ask(function)
        except TypeError:  # no hash, or no signature
            return ask(function)
        return known[key]

    answer.remembers = True  # type: ignore[attr-defined]
    return answer


def code_text_at_once() -> None:
    """Make Beam encode and decode text without a call of Python for each field of each row.

    Its coder calls methods of its own that do no more than those of ``str`` and ``bytes``.
    """
    from apache_beam.coders import StrUtf8Coder
    from apache_beam.coders.coder_impl import CallbackCoderImpl

    StrUtf8Coder._create_impl = lambda coder: CallbackCoderImpl(
        str.encode, bytes.decode, coder.estimate_size
    )


class Uncompressed:
    """Stands for ``bz2`` where Beam packs functions: of 1 KB each, most of which takes 0.1 ms."""

    @staticmethod
    def compress(data: bytes, compresslevel: int) -> bytes:
        """Return the bytes as they are."""
        return data

    @staticmethod
    def decompress(data: bytes) -> bytes:
        """Return the bytes as they are."""
        return data


def teach_beam() -> None:
    """Make Beam's worker, or its embedded runner, do all of the above that lasts."""
    release_buffers()
    remember_states()
    remember_signatures()
    code_text_at_once()


def keep_last_words(folder: Path) -> None:
    """Send standard output and error into a file, with a trace if this process crashes.

    Beam prints every failure there, which the client reports anyway, in one line.

    Args:
        folder: of the lifeline.
    """
    with (folder / f"{LAST_WORDS}{os.getpid()}").open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()


def main() -> None:
    """Run Beam's SDK worker until the client closes its control connection."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Log lines go to the client, which decides what is shown; without a handler here, Beam would
    # set up one of its own that writes to the terminal past the client.
    logging.getLogger().addHandler(logging.NullHandler())
    if path := os.environ.get(LIFELINE):
        hold_lifeline(Path(path))
        keep_last_words(Path(path).parent)
    import_beam()
    with few_collections():
        from apache_beam.internal import cloudpickle_pickler
        from apache_beam.runners.worker import sdk_worker_main

        cloudpickle_pickler.bz2 = Uncompressed  # as the client has it
        teach_beam()
        sdk_worker_main.main(sys.argv)


if __name__ == "__main__":
    main()
