"""How fast a process asks, for how long it waits, and how often it asks again."""

import datetime
import email.utils
import math
import threading
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.storage.clock import Clock
from transforms.storage import limits
from transforms.storage.limits import ATTEMPTS, MAX_PAUSE_S, Limiter, retry_after_s, with_retries


def _limiter(clock: Clock, per_second: int | None = None) -> Limiter:
    return Limiter(per_second, clock, clock.sleep)


_STEPS = st.lists(
    st.one_of(st.just("ask"), st.integers(0, 20), st.floats(0.0, 1.5, allow_nan=False)),
    min_size=1,
    max_size=60,
)


@given(st.integers(1, 4), _STEPS)
def test_no_second_has_more_requests_than_allowed_wherever_in_flight_they_arrive(
    per_second: int, steps: list[str | int | float]
) -> None:
    clock = Clock()
    limiter = _limiter(clock, per_second)
    under_way: list[float] = []
    sent: list[tuple[float, float]] = []

    def answer(place: int) -> None:
        sent.append((under_way.pop(place % len(under_way)), clock.now))
        limiter.release(succeeded=True)

    for step in steps:
        if isinstance(step, float):
            clock.now += step
        elif isinstance(step, int):
            if under_way:
                answer(step)
        else:
            if len(under_way) == per_second:  # one more would wait for an answer
                answer(0)
            limiter.acquire()
            under_way.append(clock.now)
    while under_way:
        answer(0)
    # A request may reach the store at any moment between its sending and its answer.
    for second in (at for times in sent for at in times):
        assert sum(begun < second + 1 and ended >= second for begun, ended in sent) <= per_second


def test_requests_without_a_bound_never_wait() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    assert [limiter.acquire() for _ in range(1000)] == [0.0] * 1000
    assert clock.slept == []


def test_a_request_waits_a_second_after_the_answer_to_the_one_before() -> None:
    clock = Clock()
    limiter = _limiter(clock, 1)
    assert limiter.acquire() == 0.0
    clock.now += 7.0
    limiter.release(succeeded=True)
    assert limiter.acquire() == 1.0
    assert clock.now == 1008.0


def test_a_request_in_another_thread_waits_for_the_answer_of_the_one_that_holds_the_slot() -> None:
    clock = Clock()
    limiter = _limiter(clock, 1)
    limiter.acquire()
    sent: list[float] = []

    def other() -> None:
        limiter.acquire()
        sent.append(clock.now)

    thread = threading.Thread(target=other)
    thread.start()
    clock.now += 5.0
    assert sent == []
    limiter.release(succeeded=True)
    thread.join(60)
    assert sent == [1006.0]


def test_r1_a_pause_holds_every_request_and_a_longer_one_goes_before() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    limiter.pause(10)
    limiter.pause(3)
    assert limiter.acquire() == 10.0
    assert limiter.acquire() == 0.0


def test_r8_a_huge_pause_is_capped() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    limiter.pause(math.inf)
    assert limiter.acquire() == MAX_PAUSE_S


def test_a_store_that_answers_every_request_or_all_but_a_fifth_is_never_held_back() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    for number in range(1, 1001):
        limiter.acquire()
        limiter.release(succeeded=number % 5 > 0)
        clock.now += 0.01
    assert clock.slept == []


def test_r2_a_store_that_answers_nothing_is_asked_less_and_a_request_waits_once() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    waits = []
    for _ in range(200):
        waits.append(limiter.acquire())
        limiter.release(succeeded=False)
    assert set(waits) == {0.0, limits.HELD_BACK_S}
    assert waits.count(limits.HELD_BACK_S) > 100


def test_r2_a_store_that_answers_again_is_soon_asked_at_full_speed() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    for _ in range(100):
        limiter.acquire()
        limiter.release(succeeded=False)
    began = clock.now
    for _ in range(1000):
        limiter.acquire()
        limiter.release(succeeded=True)
        clock.now += 0.01
    assert clock.now - began < 60 + 10  # a minute of history, and the requests' own time
    slept = len(clock.slept)
    for _ in range(100):
        limiter.acquire()
        limiter.release(succeeded=True)
    assert len(clock.slept) == slept


def test_waits_at_the_same_time_count_once() -> None:
    clock = Clock()
    limiter = _limiter(clock)
    with limiter.waiting() as outer:
        clock.now += 2.0
        with limiter.waiting() as inner:
            clock.now += 3.0
    assert (outer.seconds, inner.seconds) == (5.0, 0.0)


_NOW = datetime.datetime.now(datetime.UTC)


def _date(seconds: float) -> str:
    return email.utils.format_datetime(_NOW + datetime.timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": ""}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": " 7 "}, 7.0),
        ({"Retry-After": "0"}, 0.0),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "1.5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "\u0667"}, None),  # a digit, but not one of HTTP
        ({"x-ms-retry-after-ms": "2500"}, 2.5),
        ({"retry-after-ms": "10", "Retry-After": "9"}, 0.01),
        ({"x-ms-retry-after-ms": "soon", "Retry-After": "9"}, 9.0),
        ({"Retry-After": _date(20), "Date": _date(0)}, 20.0),
    ],
)
def test_r1_the_pause_that_is_asked_for_is_read(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers) == seconds


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "61"}, MAX_PAUSE_S),
        ({"Retry-After": "9" * 5000}, MAX_PAUSE_S),
        ({"x-ms-retry-after-ms": "9" * 5000}, MAX_PAUSE_S),
        ({"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"}, MAX_PAUSE_S),
        ({"Retry-After": "Fri, 01 Jan 99999 00:00:00 GMT"}, None),
        ({"Retry-After": "Sun, 06 Nov 1994 08:49:37 GMT"}, 0.0),
        ({"Retry-After": "Fri, 01 Jan 2021 00:00:00 +9999999999999"}, None),
        # The store's clock is a day ahead of ours, or years behind.
        ({"Retry-After": _date(86400 + 5), "Date": _date(86400)}, 5.0),
        ({"Retry-After": _date(5 - 1e8), "Date": _date(-1e8)}, 5.0),
        ({"Retry-After": _date(86400), "Date": "today"}, MAX_PAUSE_S),
    ],
)
def test_r8_huge_and_skewed_pauses_are_capped(
    headers: Mapping[str, str], seconds: float | None
) -> None:
    assert retry_after_s(headers) == seconds


@given(st.dictionaries(st.sampled_from(["Retry-After", "Date", "retry-after-ms"]), st.text()))
def test_r8_no_header_breaks_the_wait(headers: dict[str, str]) -> None:
    assert 0.0 <= (retry_after_s(headers) or 0.0) <= MAX_PAUSE_S


class _Store:
    """Fails so often, with an error that asks for a wait."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left, self.error = failures, error
        self.asked = 0
        self.noted: list[BaseException] = []
        self.clock = Clock()

    def ask(self) -> str:
        self.asked += 1
        if self.asked <= self.left:
            raise self.error
        return "answer"

    def retried(self, asked_s: float | None = None) -> str:
        return with_retries(
            self.ask,
            lambda error: isinstance(error, TimeoutError),
            lambda _: asked_s,
            self.noted.append,
            self.clock.sleep,
        )


def test_r1_an_answer_after_two_failures_is_taken_and_waits_are_as_long_as_asked() -> None:
    store = _Store(2, TimeoutError())
    assert store.retried(asked_s=17.0) == "answer"
    assert store.asked == 3
    assert store.noted == [store.error] * 2
    assert store.clock.slept == [17.0, 17.0]


def test_r1_attempts_and_waits_are_bounded_and_the_last_error_is_raised() -> None:
    store = _Store(10**6, TimeoutError())
    with pytest.raises(TimeoutError) as raised:
        store.retried()
    assert raised.value is store.error
    assert store.asked == ATTEMPTS
    assert len(store.clock.slept) == len(store.noted) == ATTEMPTS - 1
    assert max(store.clock.slept) <= 30.0
    assert all(wait <= 0.5 * 2**number for number, wait in enumerate(store.clock.slept))


def test_r3_what_is_permanent_is_not_tried_again() -> None:
    store = _Store(10**6, PermissionError())
    with pytest.raises(PermissionError):
        store.retried()
    assert (store.asked, store.noted, store.clock.slept) == (1, [], [])
