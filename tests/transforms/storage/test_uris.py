"""Paths, URIs and readable forms."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.storage import below, is_supported, readable, to_local_path, to_uri
from transforms.storage.stores import _STORES
from transforms.storage.uris import SCHEMES, one_line, scheme_of, written_below

PATHS = st.binary(max_size=60).map(lambda tail: b"/" + tail.replace(b"\0", b""))


@given(PATHS)
def test_n1_p11_every_path_comes_back_from_its_uri(path):
    uri = to_uri(path)
    assert to_local_path(uri) == path
    assert uri.isascii()
    assert uri.startswith("file:///")


@given(PATHS)
def test_n1_x6_readable_is_one_line_of_valid_utf8(path):
    text = readable(to_uri(path))
    assert text.encode("utf-8")
    assert len(text.splitlines()) == 1
    assert not any(ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0 for char in text)
    assert next(csv.reader(io.StringIO(f"{text.replace(chr(34), '')}\r\n"))) is not None


@given(PATHS, PATHS)
def test_n2_distinct_paths_have_distinct_uris(one, other):
    assert (one == other) == (to_uri(one) == to_uri(other))


@pytest.mark.parametrize(
    ("path", "uri", "shown"),
    [
        (b"/a/b-c_d.e~f.JPG", "file:///a/b-c_d.e~f.JPG", "/a/b-c_d.e~f.JPG"),
        (b"/ a '\"`;|&$()", "file:///%20a%20%27%22%60%3B%7C%26%24%28%29", "/ a '\"`;|&$()"),
        (b"/a%20b?x=1#1+", "file:///a%2520b%3Fx%3D1%231%2B", "/a%20b?x=1#1+"),
        (b"/back\\slash*[1]", "file:///back%5Cslash%2A%5B1%5D", "/back\\slash*[1]"),
        (b"/new\nl\tt\x1b[2J", "file:///new%0Al%09t%1B%5B2J", r"/new\x0al\x09t\x1b[2J"),
        (b"/\xff\xc3", "file:///%FF%C3", r"/\xff\xc3"),
        ("/é".encode(), "file:///%C3%A9", "/é"),
        ("/e\u0301".encode(), "file:///e%CC%81", "/e\u0301"),
        ("/\u202egpj.exe".encode(), "file:///%E2%80%AEgpj.exe", r"/\u202egpj.exe"),
        ("/\u2028x\x85".encode(), "file:///%E2%80%A8x%C2%85", r"/\u2028x\x85"),
        ("/👩\u200d👧".encode(), "file:///%F0%9F%91%A9%E2%80%8D%F0%9F%91%A7", "/👩\u200d👧"),
    ],
)  # fmt: skip
def test_n1_table_of_names(path, uri, shown):
    assert to_uri(path) == uri
    assert readable(uri) == shown
    assert to_local_path(uri) == path


def test_p11_text_with_surrogates_is_the_bytes():
    assert to_uri("/caf\udce9.jpg") == to_uri(b"/caf\xe9.jpg") == "file:///caf%E9.jpg"


def test_relative_paths_have_no_uri():
    with pytest.raises(ValueError, match="absolute"):
        to_uri("a/b.jpg")


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a%2fb", b"/a/b"),
        ("file://localhost/a", b"/a"),
        ("FILE:///a", b"/a"),
        ("file:/a", b"/a"),
        ("file:///a?x=1#2%zz", b"/a?x=1#2%zz"),
        ("file:///\u00e9", "/é".encode()),
        ("file:////a", b"//a"),
    ],
)
def test_uris_that_people_write_are_understood(uri, path):
    assert to_local_path(uri) == path


@pytest.mark.parametrize(
    "uri", ["http://a/b", "azfs://a/c/b", "file://host/a", "file://", "/a", "file:a", ""]
)
def test_x10_other_uris_are_no_local_paths(uri):
    with pytest.raises(ValueError, match="not a file URI"):
        to_local_path(uri)


@pytest.mark.parametrize(
    ("text", "scheme"),
    [
        ("HTTP://x", "http"),
        ("azfs://a/c", "azfs"),
        ("file:/a", "file"),
        ("git+ssh://x", "git+ssh"),
        ("C:/x", None),
        ("C://x", None),
        ("http:x", None),
        ("a b://c", None),
        ("/a://b", None),
    ],
)
def test_x10_schemes(text, scheme):
    assert scheme_of(text) == scheme


def test_every_allowed_scheme_has_a_store():
    assert set(_STORES) == SCHEMES
    assert is_supported("file:///a")
    assert not is_supported("https://a/b")


def test_below():
    assert below("file:///in", "file:///in/a/b%20c.jpg") == "a/b%20c.jpg"
    assert below("file:///in/", "file:///in/a") == "a"
    assert below("file:///", "file:///a") == "a"
    assert below("file:///in/a.jpg", "file:///in/a.jpg") == "a.jpg"
    with pytest.raises(ValueError, match="does not lie below"):
        below("file:///in", "file:///inside/a")


@given(PATHS)
def test_n3_below_of_a_line_never_leads_out(path):
    part = written_below(path)
    assert not part.startswith("/")
    assert not {"", ".", ".."} & set(part.split("/")) or part == ""


def test_n3_below_of_a_line():
    assert written_below(b"../../etc/./x y.jpg") == "etc/x%20y.jpg"


def test_x6_messages_are_one_line():
    assert one_line("a\nb\x1b[0m\u202e\ud800 é") == r"a\x0ab\x1b[0m\u202e\ud800 é"
