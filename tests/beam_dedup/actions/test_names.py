"""Names of copies: distinct, below the destination, readable."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_dedup.actions.names import target_of
from transforms.storage.azure.names import BlobName
from transforms.storage.uris import to_uri

GROUP = "g0123456789abcdef"
_NASTY = ["..", ".", "../../etc/x.jpg", "/abs.jpg", "C:\\x.jpg", "a%2fb", "IMG_1.jpg", "CON", ""]
_paths = st.lists(
    st.one_of(
        st.sampled_from(_NASTY), st.text(st.characters(exclude_characters="\0"), max_size=40)
    ),
    min_size=1,
    max_size=4,
).map("/".join)


def _uri(path: str) -> str:
    return to_uri(b"/" + path.encode("utf-8", "surrogatepass"))


@given(st.sets(_paths, min_size=2, max_size=8))
def test_s1_s2_n2_distinct_uris_have_distinct_targets(paths: set[str]) -> None:
    uris = {_uri(path) for path in paths}
    targets = {target_of(uri, GROUP, is_best=False).lower() for uri in uris}
    assert len(targets) == len(uris)


@given(_paths, st.booleans())
def test_n1_n3_every_target_is_one_plain_name_below_the_destination(path: str, best: bool) -> None:
    target = target_of(_uri(path), GROUP, is_best=best)
    folder, group, name = target.split("/")
    assert (folder, group) == ("best" if best else "duplicates", GROUP)
    root = Path("/destination")
    assert (root / target).resolve().is_relative_to(root / folder / GROUP)
    assert len(name.encode()) <= 140
    assert re.fullmatch(r"[0-9a-f]{16}_[\w.-]*", name)
    assert not name.endswith(".")
    assert BlobName("acc", "pics", target).can_be_requested


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a/IMG 1.jpg", "IMG_1.jpg"),
        ("..\\..\\etc", ".._.._etc"),
        ("x/e\u0301t\u00e9.PNG", "\u00e9t\u00e9.PNG"),
        ("\u5199\u771f.jpg", "\u5199\u771f.jpg"),
        ("a;rm -rf $(x).jpg", "a_rm_-rf_x_.jpg"),
        ("trailing...", "trailing"),
        ("\u202egpj.exe", "_gpj.exe"),
        ("x" * 300 + ".jpeg", "x" * 115 + ".jpeg"),
        ("\u00e9" * 300, "\u00e9" * 60),
    ],
)
def test_names_stay_readable(path: str, name: str) -> None:
    assert target_of(_uri(path), GROUP, is_best=True).partition("_")[2] == name


def test_bytes_that_are_no_utf8_are_told_apart() -> None:
    names = {target_of(to_uri(raw), GROUP, is_best=True) for raw in (b"/a\xff.jpg", b"/a\xfe.jpg")}
    assert len(names) == 2
