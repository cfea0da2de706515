"""How fast a process may ask a store, and when it asks again.

One ``Limiter`` stands before every request of a process to an account. A slot that a request took
comes back one second after its answer began, not after it was sent: however long requests are under
way, no second at the store ever has more of them than there are slots.
"""

import contextlib
import dataclasses
import datetime
import email.utils
import heapq
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Optional, TypeVar

from apache_beam.io.components.adaptive_throttler import AdaptiveThrottler

if TYPE_CHECKING:
    import tenacity

# Where a store asks for a longer pause it is asked again all the same: a clock may be wrong.
MAX_PAUSE_S = 60.0
# Waits double from half a second, at random below that ("full jitter", M. Brooker, "Exponential
# Backoff And Jitter", AWS Architecture Blog, 2015); ten attempts take a minute on average.
_FIRST_WAIT_S, _MAX_WAIT_S = 0.5, 30.0
ATTEMPTS = 10
# Of Beam's throttler: a minute of history, by the second; requests are held back while fewer than
# one in two succeed (B. Beyer et al., "Site Reliability Engineering", 2016, chapter 21). It is
# asked when an answer is there, and what it says holds for one request to come, once. Asked before
# a request, it takes those under way for failed, and holds back all but the first of those that a
# job begins at once; asked again after each wait, as Beam does, it takes waits for requests, and
# after a minute without an answer lets one pass a minute.
_HISTORY_MS, _BUCKET_MS, _OVERLOAD_RATIO = 60_000, 1_000, 2.0
HELD_BACK_S = 1.0

_DIGITS = re.compile("[0-9]+")

_Result = TypeVar("_Result")


@dataclasses.dataclass
class Waited:
    """How long a wait was that has ended."""

    seconds: float = 0.0


class Limiter:
    """Lets requests pass, so many in any second, and none while the store asked for a pause.

    Args:
        per_second: the most requests in any one second; None for no bound.
        clock: seconds, monotonic.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        per_second: Optional[int] = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._slot_back = threading.Condition(self._lock)
        # Of each slot that is not taken, the time from which it can be; None without a bound.
        self._free: Optional[list[float]] = None if per_second is None else [0.0] * per_second
        self._paused_until = 0.0
        self._waiting, self._waiting_since = 0, 0.0
        self._throttler = AdaptiveThrottler(_HISTORY_MS, _BUCKET_MS, _OVERLOAD_RATIO)
        self._to_hold_back = 0

    def acquire(self) -> float:
        """Wait until a request may be sent.

        Returns:
            Seconds of waiting that no other request's waiting has counted.
        """
        with self.waiting() as waited:
            if self._is_held_back():
                self._sleep(HELD_BACK_S)
            with self._lock:
                while self._free is not None and not self._free:
                    self._slot_back.wait()
                slot = heapq.heappop(self._free) if self._free is not None else 0.0
            while (wait := max(slot, self._paused_until) - self._clock()) > 0:
                self._sleep(wait)
        return waited.seconds

    @contextlib.contextmanager
    def waiting(self) -> Iterator["Waited"]:
        """Time a wait; of waits at the same time, the last to end counts for them all.

        Yields:
            What tells the seconds, once the wait is over.
        """
        waited = Waited()
        with self._lock:
            if self._waiting == 0:
                self._waiting_since = self._clock()
            self._waiting += 1
        try:
            yield waited
        finally:
            with self._lock:
                self._waiting -= 1
                if self._waiting == 0:
                    waited.seconds = self._clock() - self._waiting_since

    def release(self, *, succeeded: bool) -> None:
        """Give the slot of a request back, when its answer has begun or failed.

        Args:
            succeeded: whether the store was able to answer, whatever the answer is.
        """
        with self._lock:
            now_ms = int(self._clock() * 1000)
            self._to_hold_back += bool(self._throttler.throttle_request(now_ms))
            if succeeded:
                self._throttler.successful_request(now_ms)
            if self._free is not None:
                heapq.heappush(self._free, self._clock() + 1.0)
                self._slot_back.notify()

    def pause(self, seconds: float) -> None:
        """Send nothing for a while, as the store asks."""
        with self._lock:
            until = self._clock() + min(seconds, MAX_PAUSE_S)
            self._paused_until = max(self._paused_until, until)

    def _is_held_back(self) -> bool:
        with self._lock:
            self._to_hold_back -= 1
            if self._to_hold_back < 0:
                self._to_hold_back = 0
                return False
            return True


def retry_after_s(headers: Mapping[str, str]) -> Optional[float]:
    """Return for how long an answer asks to wait, in seconds, capped; None where it does not.

    RFC 9110, section 10.2.3: seconds, or a date; Azure also sends milliseconds.
    """
    named = {name.lower(): value.strip() for name, value in headers.items()}
    for name, unit_s in (("x-ms-retry-after-ms", 1e-3), ("retry-after-ms", 1e-3)):
        if _DIGITS.fullmatch(named.get(name, "")):
            return min(float(named[name]) * unit_s, MAX_PAUSE_S)
    text = named.get("retry-after", "")
    if _DIGITS.fullmatch(text):
        return min(float(text), MAX_PAUSE_S)
    then = _moment(text)
    if then is None:
        return None
    # By the clock of whoever wrote the date, where it tells that clock.
    now = _moment(named.get("date", "")) or datetime.datetime.now(datetime.UTC)
    return min(max((then - now).total_seconds(), 0.0), MAX_PAUSE_S)


def _moment(date: str) -> Optional[datetime.datetime]:
    try:
        then = email.utils.parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    return then if then.tzinfo else then.replace(tzinfo=datetime.UTC)


def with_retries(
    operation: Callable[[], _Result],
    is_transient: Callable[[BaseException], bool],
    asked_s: Callable[[BaseException], Optional[float]],
    before_wait: Callable[[BaseException], None],
    sleep: Callable[[float], None] = time.sleep,
) -> _Result:
    """Do something until it is done, fails for good, or has failed too often.

    Args:
        operation: does it from the beginning.
        is_transient: whether trying again may help.
        asked_s: for how long the store asked to wait, seconds; None where it did not.
        before_wait: told of each failure that is tried again.
        sleep: waits so many seconds.

    Raises:
        BaseException: what the last attempt raised.
    """
    # Not at the top: it comes with the extra of Azure, without which no request is made.
    import tenacity

    backoff = tenacity.wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_MAX_WAIT_S)

    def wait_s(state: "tenacity.RetryCallState") -> float:
        return max(backoff(state), asked_s(_error(state)) or 0.0)

    def note(state: "tenacity.RetryCallState") -> None:
        before_wait(_error(state))

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(is_transient),
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=wait_s,
        before_sleep=note,
        sleep=sleep,
        reraise=True,
    )
    return retrying(operation)


def _error(state: "tenacity.RetryCallState") -> BaseException:
    error = state.outcome.exception() if state.outcome else None
    return error or RuntimeError("nothing failed")
