"""What a process asked of stores is counted once, whoever takes the counts."""

import threading
from collections.abc import Iterator

import pytest

from transforms.records import RequestCount
from transforms.storage import traffic


@pytest.fixture(autouse=True)
def _nothing_counted() -> Iterator[None]:
    traffic.take()
    yield
    traffic.take()


def test_counts_add_up_by_kind_and_status_and_are_taken_once() -> None:
    assert not traffic.is_any()
    traffic.count("read", "206", requests=1, bytes_received=100)
    traffic.count("read", "206", requests=1, bytes_received=50, waited_s=0.25)
    traffic.count("read", "503", requests=1, retries=1)
    traffic.count("list", "200", requests=1, bytes_sent=7)
    assert traffic.is_any()
    taken = traffic.take()
    assert taken == [
        RequestCount("list", "200", 1, 0, 0, 0, 7),
        RequestCount("read", "206", 2, 0, 250_000, 150, 0),
        RequestCount("read", "503", 1, 1, 0, 0, 0),
    ]
    assert traffic.total(taken) == 4
    assert traffic.total(taken, "read") == 3
    assert (traffic.take(), traffic.is_any()) == ([], False)


def test_counts_of_threads_add_up_over_all_takes() -> None:
    taken: list[RequestCount] = []

    def work() -> None:
        for _ in range(1000):
            traffic.count("read", "200", requests=1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        taken += traffic.take()
    taken += traffic.take()
    assert traffic.total(taken, "read") == 4000
