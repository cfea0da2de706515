"""Globs: what they match, and that they take bounded time."""

import pickle
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.storage import InputError
from transforms.storage.patterns import ANY, MAX_PATTERN, Bounds, Glob, Selection, filter_glob


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.jpg", "a.jpg", True),
        ("*.jpg", "x/y/a.jpg", True),
        ("*.jpg", "a.JPG", False),
        ("*.jpg", ".hidden.jpg", True),
        ("*.jpg", "x.jpg/readme", True),
        ("/*.jpg", "a.jpg", True),
        ("/*.jpg", "x/a.jpg", False),
        ("x/*", "x/a.jpg", True),
        ("x/*", "x/y/a.jpg", True),
        ("x/*", "z/x/a.jpg", False),
        ("x/*.jpg", "x/y/a.jpg", False),
        ("**/x/*.jpg", "x/a.jpg", True),
        ("**/x/*.jpg", "a/b/x/a.jpg", True),
        ("x/**/a.jpg", "x/a.jpg", True),
        ("x/**/a.jpg", "x/1/2/a.jpg", True),
        ("x/**/a.jpg", "y/1/a.jpg", False),
        ("thumbs", "a/thumbs/b/c", True),
        ("thumbs/", "a/thumbs/b/c", True),
        ("thumbs/", "a/thumbs", False),
        ("[ab]?.png", "a1.png", True),
        ("[!ab]?.png", "a1.png", False),
        ("a[[]1].jpg", "a[1].jpg", True),
        ("a[", "a[", True),
        ("?.jpg", "é.jpg", True),
        ("a\nb*", "a\nb.jpg", True),
        ("**", "x/y", True),
    ],
)
def test_filter_globs(pattern, path, matches):
    assert filter_glob(pattern).matches(path.split("/")) is matches


def test_p11_a_glob_matches_names_that_are_no_utf8():
    selection = Selection(include=("caf?.jpg",))
    assert selection.keeps("x/caf%E9.jpg")
    assert selection.keeps("x/caf%C3%A9.jpg")
    assert Selection(include=("caf\udce9*",)).keeps("caf%E9.jpg")


def test_exclude_wins_over_include():
    selection = Selection(include=("*.jpg",), exclude=("thumbs/",))
    assert [selection.keeps(name) for name in ("a.jpg", "thumbs/a.jpg", "a.txt")] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("pattern", ["", "/", "x" * (MAX_PATTERN + 1)])
def test_x9_empty_and_huge_globs_are_refused(pattern):
    with pytest.raises(InputError, match="1 to 1024"):
        filter_glob(pattern)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 500 + "b", "a" * 255),
        ("**/" * 300 + "x", "/".join("a" * 300)),
        ("*/**/" * 100 + "x", "/".join("a" * 400)),
        ("[a-z]*" * 150 + "1", "z" * 255),
    ],
)
def test_x9_no_glob_backtracks_for_long(pattern, path):
    started = time.process_time()
    assert not filter_glob(pattern).matches(path.split("/"))
    assert time.process_time() - started < 2


@given(
    st.text(alphabet="ab*?[]!-^&|~\\/.", min_size=1, max_size=20), st.text("ab/[]-\\", max_size=9)
)
def test_x9_any_text_is_a_glob_or_refused(pattern, path):
    try:
        assert filter_glob(pattern).matches(path.split("/")) in (True, False)
    except InputError:
        assert not pattern.strip("/")


@given(st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=6),
       st.lists(st.sampled_from("abc"), max_size=6))  # fmt: skip
def test_globs_match_what_the_definition_says(segments, names):
    def define(segments, names):
        if not segments:
            return not names
        if segments[0] == "**":
            return any(define(segments[1:], names[cut:]) for cut in range(len(names) + 1))
        return bool(names) and segments[0] in ("*", names[0]) and define(segments[1:], names[1:])

    assert Glob(segments).matches(names) is define(segments, names)


def test_a_selection_survives_pickling():
    selection = pickle.loads(pickle.dumps(Selection(include=("*.jpg", "plain"))))  # noqa: S301
    assert [selection.keeps(name) for name in ("a.jpg", "plain", "other")] == [True, True, False]


@pytest.mark.parametrize(
    ("bounds", "size", "modified", "keeps"),
    [
        (ANY, 0, None, True),
        (Bounds(min_bytes=5), 4, 0, False),
        (Bounds(min_bytes=5), 5, 0, True),
        (Bounds(max_bytes=5), 5, 0, True),
        (Bounds(max_bytes=5), 6, 0, False),
        (Bounds(after_us=100), 1, 99, False),
        (Bounds(after_us=100), 1, 100, True),
        (Bounds(before_us=100), 1, 99, True),
        (Bounds(before_us=100), 1, 100, False),
        (Bounds(after_us=100, before_us=100), 1, None, True),
        (Bounds(1, 2, 3, 4), 2, 3, True),
        (Bounds(0, 0, 0, 1), 0, 0, True),
    ],
)
def test_bounds_take_their_own_value_but_for_the_latest_date(
    bounds: Bounds, size: int, modified: int | None, *, keeps: bool
) -> None:
    assert bounds.keep(size, modified) is keeps
