"""Reading one object."""

import errno
import os
import pickle
import socket

import pytest

from transforms.storage import InputError, StorageError, local, read_bytes, to_uri


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a b.jpg"
    path.write_bytes(b"0123456789")
    return path


def fault_of(uri, *arguments):
    with pytest.raises(StorageError) as caught:
        read_bytes(uri, *arguments)
    return caught.value.error_type


def test_reads_the_whole_file(image):
    assert read_bytes(to_uri(bytes(image)), 10) == b"0123456789"
    assert read_bytes(to_uri(bytes(image)), 10, 10) == b"0123456789"
    image.write_bytes(b"")
    assert read_bytes(to_uri(bytes(image)), 10) == b""


def test_b5_a_file_over_the_limit_is_not_read(image, monkeypatch):
    monkeypatch.setattr(local.os, "read", None)
    assert fault_of(to_uri(bytes(image)), 9) == "too_large"
    assert fault_of(to_uri(bytes(image)), 9, 10) == "too_large"


def test_r4_a_listed_file_that_is_gone_has_vanished(image):
    uri = to_uri(bytes(image))
    image.unlink()
    assert fault_of(uri, 99) == "not_found"
    assert fault_of(uri, 99, 10) == "vanished"
    assert fault_of(uri + "/below", 99, 0) == "vanished"
    assert fault_of(uri + "%00", 99, 0) == "vanished"
    assert fault_of("file:///" + "x" * 300, 99) == "not_found"


def test_r5_a_file_that_changed_size_since_listing_has_vanished(image):
    assert fault_of(to_uri(bytes(image)), 99, 9) == "vanished"
    assert fault_of(to_uri(bytes(image)), 99, 0) == "vanished"


def test_r5_a_short_read_is_continued_and_a_cut_file_never_hashed(image, monkeypatch):
    real = os.read
    monkeypatch.setattr(local.os, "read", lambda fd, size: real(fd, min(size, 3)))
    assert read_bytes(to_uri(bytes(image)), 99) == b"0123456789"
    parts = iter([b"0123", b""])
    monkeypatch.setattr(local.os, "read", lambda fd, size: next(parts))
    assert fault_of(to_uri(bytes(image)), 99, 10) == "vanished"
    monkeypatch.setattr(local.os, "read", lambda fd, size: b"0123456789+")
    assert fault_of(to_uri(bytes(image)), 99, 10) == "vanished"


def test_n4_what_is_no_regular_file_is_not_opened(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "fifo")
    listening = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(tmp_path)  # a socket's whole path must be short
    listening.bind("socket")
    listening.close()
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    monkeypatch.setattr(local.os, "open", None)
    for name in ("fifo", "socket", "link", ""):
        assert fault_of(to_uri(bytes(tmp_path / name)), 99) == "other"
        assert fault_of(to_uri(bytes(tmp_path / name)), 99, 5) == "vanished"
    assert fault_of("file:///dev/null", 99) == "other"


def test_n4_a_fifo_swapped_in_after_the_look_never_blocks(image, monkeypatch):
    listed = os.lstat(image)
    uri = to_uri(bytes(image))
    image.unlink()
    os.mkfifo(image)
    monkeypatch.setattr(local.os, "lstat", lambda path: listed)
    assert fault_of(uri, 99, 10) == "vanished"
    image.unlink()
    image.symlink_to("/etc/hostname")
    assert fault_of(uri, 99, 10) == "vanished"


@pytest.mark.parametrize(
    ("number", "error_type"),
    [(errno.EACCES, "forbidden"), (errno.EPERM, "forbidden"), (errno.ENOTDIR, "not_found")],
)
def test_r3_permanent_faults_are_failures(image, monkeypatch, number, error_type):
    def refuse(path, flags):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(local.os, "open", refuse)
    assert fault_of(to_uri(bytes(image)), 99) == error_type


@pytest.mark.parametrize("number", [errno.EIO, errno.ENFILE, errno.EMFILE, errno.ESTALE])
def test_r1_faults_that_may_pass_are_raised_as_they_are(image, monkeypatch, number):
    def fail(path, flags):
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(local.os, "open", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        read_bytes(to_uri(bytes(image)), 99)
    assert caught.value.errno == number


@pytest.mark.parametrize("uri", ["http://169.254.169.254/x?sig=hidden", "wasb://a/c/b?sig=hidden"])
def test_x10_x2_other_schemes_are_refused_without_showing_the_uri(uri):
    with pytest.raises(InputError, match="is not supported") as caught:
        read_bytes(uri, 99)
    assert "hidden" not in str(caught.value)


def test_a_storage_error_survives_pickling():
    error = pickle.loads(pickle.dumps(StorageError("vanished", "gone")))  # noqa: S301
    assert (error.error_type, error.message, str(error)) == ("vanished", "gone", "vanished: gone")
