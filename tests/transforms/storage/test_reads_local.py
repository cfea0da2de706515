"""Local files in the queue that reads ahead; remote objects are in the tests of Azure."""

import pytest

from transforms.access import LOCAL
from transforms.storage import reads as reads_module
from transforms.storage import to_uri
from transforms.storage.reads import ReadAhead, Wanted


@pytest.fixture
def put(tmp_path, monkeypatch):
    """Return a queue, and a function that puts a file of so many bytes into it."""
    monkeypatch.setattr(reads_module, "_TOGETHER_BYTES", 100)
    queue = ReadAhead(LOCAL, 1000)

    def add(name, size):
        path = tmp_path / name
        path.write_bytes(name.encode() * size)
        queue.add(name, Wanted(to_uri(str(path)), size, None))
        return path

    return queue, add


def test_files_come_out_in_order_and_as_they_were_when_the_first_of_them_was_taken(put):
    queue, add = put
    paths = [add(name, 40) for name in "abc"]
    assert queue.take() == ("a", (b"a" * 40, None, 0))
    for path in paths:
        path.unlink()
    # The second was read with the first; the third would have made more than 100 bytes.
    assert queue.take() == ("b", (b"b" * 40, None, 0))
    ticket, read = queue.take()
    assert (ticket, read.data, read.error.error_type) == ("c", b"", "vanished")
    assert len(queue) == 0


def test_a_fault_of_one_file_is_its_own_alone(put):
    queue, add = put
    paths = [add(name, 10) for name in "abc"]
    paths[1].unlink()
    taken = [queue.take() for _ in "abc"]
    assert [(ticket, read.data) for ticket, read in taken] == [
        ("a", b"a" * 10),
        ("b", b""),
        ("c", b"c" * 10),
    ]
    assert [read.error and read.error.error_type for _, read in taken] == [None, "vanished", None]


def test_a_file_larger_than_what_is_read_together_is_read_alone(put):
    queue, add = put
    add("a", 300)
    add("b", 1).unlink()
    assert queue.take() == ("a", (b"a" * 300, None, 0))
    assert queue.take()[1].error.error_type == "vanished"


def test_files_that_are_too_large_are_not_weighed(put):
    queue, add = put
    add("a", 10)
    add("b", 2000)
    paths = [add("c", 10)]
    assert queue.take()[1].data == b"a" * 10
    paths[0].unlink()
    assert queue.take()[1].error.error_type == "too_large"
    assert queue.take()[1].data == b"c" * 10
