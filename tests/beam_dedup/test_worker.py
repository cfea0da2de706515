"""What the embedded runner is taught gives the same as Beam's own code, and loses nothing."""

import threading
from collections.abc import Iterable
from types import SimpleNamespace

import apache_beam as beam
import pytest
from apache_beam import coders
from apache_beam.coders.coder_impl import CallbackCoderImpl
from apache_beam.runners.portability.fn_api_runner import worker_handlers
from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer
from apache_beam.runners.portability.fn_api_runner.fn_runner import BundleManager
from apache_beam.runners.worker.data_plane import ClosableOutputStream, InMemoryDataChannel
from apache_beam.transforms import core
from apache_beam.transforms.core import Windowing
from apache_beam.transforms.window import GlobalWindows
from apache_beam.typehints.decorators import IOTypeHints

from beam_dedup import worker
from beam_dedup.worker import code_text_at_once, release_buffers, remember_signatures

CHUNKS = [b"one", b"", b"two", b"three"]


@pytest.fixture(autouse=True)
def _taught():
    release_buffers()


def _send(channel):
    manager = SimpleNamespace(_worker_handler=SimpleNamespace(data_conn=channel))
    BundleManager._send_input_to_worker(manager, "bundle", "read", CHUNKS)


def test_a_stage_gets_its_whole_input_although_the_queue_is_full():
    free, closed, sent = threading.Event(), threading.Event(), []

    def put(data):
        free.wait()
        sent.append(data)

    def close(data):
        sent.append(data)
        closed.set()

    stream = ClosableOutputStream.create(close, put, worker_handlers.DATA_BUFFER_TIME_LIMIT_MS)
    empty = SimpleNamespace(qsize=int)
    # It returns while the queue is full.
    _send(SimpleNamespace(output_stream=lambda *_: stream, _to_send=empty, _pending_send=empty))
    assert sent == []
    free.set()
    assert closed.wait(10)
    assert sent == [b"one", b"two", b"three", b""]


def test_what_cannot_be_sent_is_raised_where_the_bundle_is_waited_for():
    error, told = ValueError("too large"), threading.Event()

    class Channel:
        _to_send = _pending_send = SimpleNamespace(qsize=int)

        def output_stream(self, *_):
            def put(_):
                raise error

            return ClosableOutputStream.create(put, put, 0)

        def __setattr__(self, name, value):
            object.__setattr__(self, name, value)
            told.set()

    channel = Channel()
    _send(channel)
    assert told.wait(10)
    assert channel._exception is error


def test_one_worker_reads_its_whole_input_each_bundle_its_own():
    channel = InMemoryDataChannel()
    _send(channel)
    stream = channel.output_stream("other", "read")
    stream.write(b"four")
    stream.close()
    read = channel.inverse()
    assert [e.data for e in read.input_elements("bundle", ["read"])] == [b"one", b"two", b"three"]
    assert [e.data for e in read.input_elements("other", ["read"])] == [b"four"]


@pytest.mark.parametrize("least", [1, 100, 1 << 20])
@pytest.mark.parametrize("keys", [0, 1, 5, 1000, 2000])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_groups_encoded_in_slices_are_the_groups(monkeypatch, keys, parts, least):
    monkeypatch.setattr(worker, "_SLICE_BYTES", least)
    window = coders.coders.GlobalWindowCoder()
    pair = coders.TupleCoder([coders.BytesCoder(), coders.BytesCoder()])
    groups = coders.TupleCoder([coders.BytesCoder(), coders.IterableCoder(coders.BytesCoder())])
    before = coders.WindowedValueCoder(pair, window)
    after = coders.WindowedValueCoder(groups, window)
    grouping = GroupingBuffer(before, after, Windowing(GlobalWindows()))
    expected = {b"%d" % key: [b"a", b"b"] for key in range(keys)}
    for value in (b"a", b"b"):
        for key in expected:
            grouping.append(before.encode_nested(GlobalWindows.windowed_value((key, value))))
    encoded = grouping.partition(parts)
    assert len(encoded) == parts
    assert grouping.partition(parts) is encoded
    assert len(grouping._table) == keys
    found = {}
    for part in encoded:
        # Each slice is made when it is read, and its groups are let go of.
        for make in part:
            for one in after.get_impl().decode_all(make()):
                found[one.value[0]] = list(one.value[1])
            assert len(grouping._table) == keys - len(found)
    assert found == expected
    assert max(map(len, encoded)) <= 65
    if least == 1 << 20:
        assert [len(part) for part in encoded] == [int(keys > part) for part in range(parts)]
    with pytest.raises(RuntimeError, match="append after read"):
        grouping.append(b"")


@pytest.mark.parametrize(
    ("weights", "parts", "expected"),
    [
        ((9, 1, 8, 2, 7, 3), 2, [[8, 7, 1], [9, 3, 2]]),
        ((1, 2, 3, 40, 50, 60), 3, [[40, 3], [50, 2], [60, 1]]),
        ((1, 5), 3, [[1], [5], []]),
        ((5,), 2, [[5], []]),
        ((1, 9, 2), 1, [[1, 9, 2]]),
    ],
)
def test_heavy_groups_are_dealt_to_all_workers(weights, parts, expected):
    of_key = {b"%d" % place: weight for place, weight in enumerate(weights)}
    dealt = worker._dealt(of_key, parts)
    assert [[of_key[key] for some in part for key in some] for part in dealt] == expected


class _Named(beam.DoFn):
    def process(self, element: int) -> Iterable[str]:
        return (str(element),)


class _Doubled(_Named):
    def process(self, element: str) -> Iterable[int]:
        yield 2 * int(element)


def test_signatures_and_hints_that_beam_remembers_are_those_of_the_function():
    remember_signatures()

    def hints(function):
        found = IOTypeHints.from_callable(function)
        return found.input_types, found.output_types

    for _ in range(2):
        assert core.get_function_args_defaults(_Named().process) == (["element"], [])
        assert core.get_function_args_defaults(_Named.process) == (["self", "element"], [])
        assert hints(_Named().process) != hints(_Doubled().process)
        assert hints(_Doubled().process)[0] == ((str,), {})
    with pytest.raises(TypeError):
        core.get_signature(3)


@pytest.mark.parametrize("text", ["", "plain", "e\u0301\U0001f600", "a" * 300])
def test_text_is_coded_as_beam_does(text):
    of_beam = CallbackCoderImpl(coders.StrUtf8Coder().encode, coders.StrUtf8Coder().decode)
    code_text_at_once()
    taught = coders.StrUtf8Coder().get_impl()
    assert taught.encode(text) == of_beam.encode(text)
    assert taught.encode_nested(text) == of_beam.encode_nested(text)
    assert taught.decode_nested(taught.encode_nested(text)) == text
    assert taught.estimate_size(text, True) == len(taught.encode_nested(text))


def test_text_that_is_none_of_utf8_is_refused():
    code_text_at_once()
    with pytest.raises(UnicodeEncodeError):
        coders.StrUtf8Coder().get_impl().encode("\udc80")
    with pytest.raises(UnicodeDecodeError):
        coders.StrUtf8Coder().get_impl().decode(b"\xff")
