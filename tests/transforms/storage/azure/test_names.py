"""Names of blobs and their URIs: every name comes back as it was."""

import string
import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.storage.azure.names import BlobName, parse_uri

_PLAIN = set(string.ascii_letters + string.digits + "-._~/%:")

# Of the list N1, and what else a store takes for a name.
N1 = [
    "a b.jpg",
    " lead",
    "trail ",
    'it\'s "quoted" `x`.jpg',
    "a;b|c&&d$(e).jpg",
    "a?x=1.jpg",
    "a#1.jpg",
    "a%20b.jpg",
    "100%.jpg",
    "a*[b]?.jpg",
    "back\\slash.jpg",
    "caf\u00e9.jpg",
    "cafe\u0301.jpg",
    "\U0001f600.jpg",
    "\u202egnp.jpg",
    "a//b.jpg",
    "/leading.jpg",
    "folder/",
    "dot.",
    "a+b&c=d.jpg",
    "../up.jpg",
    "a/./b/../c.jpg",
    "x" * 1024,
    "\u6f22" * 1024,
    "new\nline\ttab.jpg",
]


@pytest.mark.parametrize("name", N1)
def test_n1_a_name_comes_back_from_its_uri(name: str) -> None:
    blob = BlobName("pics", "c-1", name)
    assert parse_uri(blob.uri) == blob
    assert set(blob.uri) <= _PLAIN


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=1024))
def test_n1_every_name_comes_back_from_its_uri(name: str) -> None:
    blob = BlobName("pics", "c-1", name)
    assert parse_uri(blob.uri) == blob
    assert set(blob.uri) <= _PLAIN


@given(st.text(max_size=20), st.text(max_size=20))
def test_n1_different_names_have_different_uris(one: str, other: str) -> None:
    names = {text.encode("utf-8", "replace").decode() for text in (one, other)}
    assert len({BlobName("pics", "ccc", name).uri for name in names}) == len(names)


def test_n1_both_spellings_of_an_accent_are_names_of_their_own() -> None:
    composed, apart = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert BlobName("pics", "ccc", composed).uri == "azfs://pics/ccc/caf%C3%A9"
    assert BlobName("pics", "ccc", apart).uri == "azfs://pics/ccc/cafe%CC%81"


def test_a_uri_that_a_person_writes_is_taken_as_it_is_meant() -> None:
    assert parse_uri("AZFS://pics/ccc/a b?x=1#2 100%.jpg").name == "a b?x=1#2 100%.jpg"
    assert parse_uri("azfs://pics/ccc/caf\u00e9.jpg").name == "caf\u00e9.jpg"
    assert parse_uri("azfs://pics/ccc") == parse_uri("azfs://pics/ccc/") == ("pics", "ccc", "")


@pytest.mark.parametrize("container", ["abc", "a-b-c", "0-9", "x" * 63, "$web", "$root", "$logs"])
def test_p7_containers_of_the_store_are_taken(container: str) -> None:
    blob = BlobName("pics", container, "a.jpg")
    assert parse_uri(blob.uri) == blob
    assert parse_uri(f"azfs://pics/{container}/a.jpg") == blob


@pytest.mark.parametrize(
    "uri",
    [
        "azfs://pics",
        "azfs://pics/",
        "azfs:///ccc/a",
        "azfs:/pics/ccc/a",
        "azfs://pics/ab/a",
        "azfs://pics/-abc/a",
        "azfs://pics/abc-/a",
        "azfs://pics/a--b/a",
        "azfs://pics/A-B/a",
        "azfs://pics/a_b/a",
        "azfs://pics/$other/a",
        "azfs://pics/a%2Fb/a",
        f"azfs://pics/{'x' * 64}/a",
        "azfs://Pics/ccc/a",
        "azfs://pi/ccc/a",
        "azfs://pics.blob.core.windows.net/ccc/a",
        "azfs://user:word@pics/ccc/a",
        f"azfs://{'x' * 25}/ccc/a",
        "azfs://pics/ccc/%FF",
        "azfs://pics/ccc/\udcff",
        "https://pics.blob.core.windows.net/ccc/a",
        "",
    ],
)
def test_what_is_no_uri_of_a_blob_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ValueError, match="azfs") as raised:
        parse_uri(uri)
    assert "word" not in str(raised.value)


@pytest.mark.parametrize(
    "query", ["?sv=2024-08-04&sig=hidden%3D", "?sig=hidden", "?SV=1&SIG=hidden&se=2"]
)
def test_x2_a_signature_in_a_uri_is_refused_and_not_repeated(query: str) -> None:
    with pytest.raises(ValueError, match="shared access signature") as raised:
        parse_uri(f"azfs://pics/ccc/a.jpg{query}")
    assert "hidden" not in str(raised.value)


def test_a_name_that_only_looks_like_a_signature_can_be_written_encoded() -> None:
    blob = BlobName("pics", "ccc", "a.jpg?sig=1")
    assert parse_uri(blob.uri) == blob


@pytest.mark.parametrize(
    ("name", "can"),
    [
        ("a.jpg", True),
        ("a..b/...", True),
        (".hidden", True),
        ("dot.", True),
        ("a//b", True),
        ("x" * 1024, True),
        ("x" * 1025, False),
        ("", False),
        (".", False),
        ("../a", False),
        ("a/./b", False),
        ("a/..", False),
    ],
)
def test_n3_names_that_no_request_can_name_are_known(name: str, *, can: bool) -> None:
    assert BlobName("pics", "ccc", name).can_be_requested is can


@given(st.text("ab./%", max_size=12))
def test_a_uri_is_its_names_percent_encoded(name: str) -> None:
    root = "azfs://pics/ccc"
    uri = BlobName("pics", "ccc", name).uri
    assert unquote(uri) == (f"{root}/{name}" if name else root)
