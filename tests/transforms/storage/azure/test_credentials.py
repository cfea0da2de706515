"""Where access comes from, for which account it is, and that nothing of it is shown."""

import base64
import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.identity import ClientSecretCredential, DefaultAzureCredential

from transforms.storage.azure import credentials
from transforms.storage.azure.credentials import Grant, grant_of, read_secret_file
from transforms.storage.errors import InputError

# In pieces, so that a search of the sources for secrets finds nothing.
SECRET = base64.b64encode(b"the key that nobody may see").decode()
SAS = "sv=2024-08-04&sr=c&si" + f"g={SECRET.rstrip('=')}%3D"
_KEY = "Account" + f"Key={SECRET}"
_SIGNED = "SharedAccess" + f"Signature={SAS}"
_PUBLIC = "https://pics.blob.core.windows.net"

Env = Callable[..., None]


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Env:
    """Set just these variables of Azure, by what follows AZURE_STORAGE_ or AZURE_."""
    for name in credentials._NAMES:
        monkeypatch.delenv(name, raising=False)

    def set_them(**values: str) -> None:
        for name, value in values.items():
            known = name.partition("__")[0]
            prefix = (
                "AZURE_STORAGE_" if f"AZURE_STORAGE_{known}" in credentials._NAMES else "AZURE_"
            )
            monkeypatch.setenv(prefix + name, value)

    return set_them


def _told(grant: Grant) -> tuple[str, str, str]:
    """Return endpoint, source and the secret itself."""
    secret = grant.credential
    if isinstance(secret, dict):
        assert set(secret) == {"account_name", "account_key"}
        return grant.endpoint, grant.source, secret["account_key"]
    return grant.endpoint, grant.source, getattr(secret, "signature", type(secret).__name__)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {"CONNECTION_STRING": f"DefaultEndpointsProtocol=https;AccountName=pics;{_KEY}"},
            (_PUBLIC, "connection string", SECRET),
        ),
        (
            {
                "CONNECTION_STRING": f" accountname=pics; {_KEY};"
                "EndpointSuffix=core.usgovcloudapi.net; "
            },
            ("https://pics.blob.core.usgovcloudapi.net", "connection string", SECRET),
        ),
        (
            {"CONNECTION_STRING": f"BlobEndpoint={_PUBLIC}/;{_SIGNED}"},
            (_PUBLIC, "connection string", SAS),
        ),
        (
            {
                "CONNECTION_STRING": f"AccountName=pics;BlobEndpoint=http://10.0.0.5:10000/pics;{_KEY}"
            },
            ("http://10.0.0.5:10000/pics", "connection string", SECRET),
        ),
        (
            {
                "CONNECTION_STRING": f"BlobEndpoint=https://host.example;{_SIGNED}",
                "ACCOUNT": "pics",
            },
            ("https://host.example", "connection string", SAS),
        ),
        ({"ACCOUNT": "pics", "KEY": f" {SECRET}\n"}, (_PUBLIC, "account key", SECRET)),
        (
            {"ACCOUNT": "pics", "SAS_TOKEN": f"?{SAS}"},
            (_PUBLIC, "shared access signature", SAS),
        ),
        (
            {"ACCOUNT": "pics", "SAS_TOKEN": f"{_PUBLIC}/ccc?{SAS}", "KEY": SECRET},
            (_PUBLIC, "shared access signature", SAS),
        ),
        (
            {"ACCOUNT": "pics", "KEY": SECRET, "SERVICE_ENDPOINT": "https://host.example/"},
            ("https://host.example", "account key", SECRET),
        ),
        (
            {"SERVICE_ENDPOINT": "https://pics.blob.core.chinacloudapi.cn"},
            (
                "https://pics.blob.core.chinacloudapi.cn",
                "Azure identity",
                "DefaultAzureCredential",
            ),
        ),
        ({}, (_PUBLIC, "Azure identity", "DefaultAzureCredential")),
        ({"ACCOUNT": "pics"}, (_PUBLIC, "Azure identity", "DefaultAzureCredential")),
        (
            {"TENANT_ID": "t-1", "CLIENT_ID": "c-1", "CLIENT_SECRET": SECRET},
            (_PUBLIC, "Azure identity", "ClientSecretCredential"),
        ),
        (
            {
                "ACCOUNT": "other",
                "KEY": "b3RoZXI=",
                "SAS_TOKEN__PICS": SAS,
                "SAS_TOKEN__PICS2": "sig=no",
            },
            (_PUBLIC, "shared access signature", SAS),
        ),
        (
            {
                "CONNECTION_STRING": "UseDevelopmentStorage=true",
                "KEY__PICS": SECRET,
                "SERVICE_ENDPOINT__PICS": "http://127.0.0.1:1/pics",
            },
            ("http://127.0.0.1:1/pics", "account key", SECRET),
        ),
        # What is said of another account, and what is none of ours, changes nothing.
        (
            {"KEY__PICS2": SECRET, "PATH__PICS": "x"},
            (_PUBLIC, "Azure identity", "DefaultAzureCredential"),
        ),
    ],
)
def test_each_way_of_access_is_found_in_the_environment_and_in_a_file(
    env: Env, tmp_path: Path, values: dict[str, str], told: tuple[str, str, str]
) -> None:
    env(**values)
    assert _told(grant_of("pics")) == told
    known = {name: value for name, value in values.items() if not name.startswith("PATH")}
    file = tmp_path / "secret"
    lines = [
        f"AZURE_STORAGE_{name}={value.strip()}"
        if f"AZURE_STORAGE_{name.partition('__')[0]}" in credentials._NAMES
        else f"AZURE_{name}={value}"
        for name, value in known.items()
    ]
    file.write_text("\n".join(lines))
    # Nothing of the environment counts beside a file.
    env(CONNECTION_STRING="AccountName=other", KEY="b3RoZXI=", ACCOUNT="other")
    assert _told(grant_of("pics", str(file))) == told


def test_the_emulator_is_reached_by_its_own_connection_string(env: Env) -> None:
    env(CONNECTION_STRING="UseDevelopmentStorage=true")
    grant = grant_of("devstoreaccount1")
    assert (grant.endpoint, grant.source) == (
        "http://127.0.0.1:10000/devstoreaccount1",
        "emulator",
    )
    assert grant.credential.account_name == "devstoreaccount1"


def test_an_identity_is_made_of_what_is_given(
    env: Env, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def fake(name: str) -> Callable[..., str]:
        return lambda *args, **names: made.append((name, args, names)) or name  # type: ignore[func-returns-value]

    for kind in (ClientSecretCredential, DefaultAzureCredential):
        monkeypatch.setattr(f"azure.identity.{kind.__name__}", fake(kind.__name__))
    env(CLIENT_ID="of-the-environment")
    file = tmp_path / "secret"
    file.write_text("AZURE_CLIENT_ID=c-1\n")
    grant_of("pics", str(file))
    file.write_text(
        "AZURE_TENANT_ID=t-1\nAZURE_CLIENT_ID=c-1\nAZURE_CLIENT_SECRET=s-1\n"
        "AZURE_AUTHORITY_HOST=login.example\n"
    )
    grant_of("pics", str(file))
    env(CLIENT_ID__PICS="c-2")
    grant_of("pics")
    assert made == [
        (
            "DefaultAzureCredential",
            (),
            {"managed_identity_client_id": "c-1", "workload_identity_client_id": "c-1"},
        ),
        ("ClientSecretCredential", ("t-1", "c-1", "s-1"), {"authority": "login.example"}),
        (
            "DefaultAzureCredential",
            (),
            {"managed_identity_client_id": "c-2", "workload_identity_client_id": "c-2"},
        ),
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"CONNECTION_STRING": f"AccountName=other;{_KEY}"},
        {"CONNECTION_STRING": f"BlobEndpoint=https://other.blob.core.windows.net;{_SIGNED}"},
        {"CONNECTION_STRING": f"BlobEndpoint=http://127.0.0.1:10000/other;{_SIGNED}"},
        {"CONNECTION_STRING": f"AccountName=pics;BlobEndpoint={_PUBLIC[:-3]}org/other;{_KEY}"},
        {"CONNECTION_STRING": f"BlobEndpoint=https://h.example;{_SIGNED}", "ACCOUNT": "other"},
        {"CONNECTION_STRING": "UseDevelopmentStorage=true"},
        {"ACCOUNT": "other", "KEY": SECRET},
        {"ACCOUNT": "other"},
        {
            "ACCOUNT": "pics",
            "KEY": SECRET,
            "SERVICE_ENDPOINT": "https://other.blob.core.windows.net",
        },
        {"ACCOUNT": "other", "SERVICE_ENDPOINT": "https://host.example"},
    ],
)
def test_p4_n5_access_to_another_account_is_refused(env: Env, values: dict[str, str]) -> None:
    env(**values)
    with pytest.raises(InputError, match=r"account 'pics' .* __PICS$") as raised:
        grant_of("pics")
    _shows_nothing(raised.value)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"CONNECTION_STRING": SECRET}, "is not a connection string"),
        ({"CONNECTION_STRING": _KEY}, "is not a connection string"),
        ({"CONNECTION_STRING": f"AccountName=pics;{SECRET.rstrip('=')}"}, "is not a connection"),
        ({"CONNECTION_STRING": "AccountName=pics"}, "holds neither a key nor"),
        ({"CONNECTION_STRING": f"AccountName=pics;{_KEY}!"}, "holds no account key"),
        (
            {"CONNECTION_STRING": f"AccountName=pics;SharedAccessSignature={SECRET}"},
            "holds no shared",
        ),
        ({"CONNECTION_STRING": f"AccountName=pics;BlobEndpoint=ftp://h;{_KEY}"}, "endpoint"),
        (
            {"CONNECTION_STRING": f"BlobEndpoint=https://h.example;{_SIGNED}"},
            "AZURE_STORAGE_ACCOUNT",
        ),
        ({"KEY": SECRET}, "AZURE_STORAGE_KEY is given without AZURE_STORAGE_ACCOUNT"),
        ({"SAS_TOKEN": SAS}, "AZURE_STORAGE_SAS_TOKEN is given without AZURE_STORAGE_ACCOUNT"),
        ({"ACCOUNT": "pics", "SAS_TOKEN": SECRET}, "holds no shared access signature"),
        ({"ACCOUNT": "pics", "KEY": f"{SECRET}!"}, "holds no account key"),
        ({"SERVICE_ENDPOINT": "https://host.example"}, "does not tell its account"),
        ({"SERVICE_ENDPOINT": f"{_PUBLIC}?{SAS}"}, "without a query or a user"),
        ({"SERVICE_ENDPOINT": f"https://user:{SECRET}@host"}, "without a query or a user"),
        ({"SERVICE_ENDPOINT": f"https://host:{SECRET}/"}, "without a query or a user"),
        ({"SERVICE_ENDPOINT": f"https://[{SECRET}"}, "without a query or a user"),
        ({"SERVICE_ENDPOINT": f"https://host/pics/{SECRET}"}, "without a query or a user"),
        ({"SERVICE_ENDPOINT": SECRET}, "without a query or a user"),
        ({"SERVICE_ENDPOINT": "http://127.0.0.1/pics"}, "over https only"),
        ({"CLIENT_SECRET": SECRET}, "AZURE_CLIENT_SECRET is given without"),
    ],
)
def test_x2_what_cannot_be_understood_is_refused_and_not_repeated(
    env: Env, values: dict[str, str], match: str
) -> None:
    env(**values)
    with pytest.raises(InputError, match=match) as raised:
        grant_of("pics")
    _shows_nothing(raised.value)


def _shows_nothing(error: BaseException | None) -> None:
    while error is not None:
        assert SECRET[:20] not in f"{error!r} {error}"
        error = error.__context__ if not error.__suppress_context__ else None


@pytest.mark.parametrize("values", [{"KEY": SECRET}, {"SAS_TOKEN": SAS}])
def test_x2_a_grant_shows_no_secret_and_does_not_travel(env: Env, values: dict[str, str]) -> None:
    env(ACCOUNT="pics", **values)
    grant = grant_of("pics")
    assert SECRET[:20] not in f"{grant!r} {grant} {[grant]}"
    for travel in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="stays in its process"):
            travel(grant)


def test_a_secret_file_is_read_in_each_of_its_forms(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(
        b"\xef\xbb\xbf# of the pictures\r\n\r\nexport AZURE_STORAGE_ACCOUNT = pics\r\n"
        b"AZURE_STORAGE_KEY='a=b=='\r\nAZURE_STORAGE_SAS_TOKEN__OTHER=\"?sig=x\"\r\n"
    )
    assert read_secret_file(str(file)) == {
        "AZURE_STORAGE_ACCOUNT": "pics",
        "AZURE_STORAGE_KEY": "a=b==",
        "AZURE_STORAGE_SAS_TOKEN__OTHER": "?sig=x",
    }
    for text in (
        f"AccountName=pics;{_KEY}",
        f"{_KEY};AccountName=pics",
        "UseDevelopmentStorage=true",
    ):
        file.write_text(f"{text}\n")
        assert read_secret_file(str(file)) == {"AZURE_STORAGE_CONNECTION_STRING": text}


@pytest.mark.parametrize("line", [SECRET, f"KEY={SECRET}", f"{SECRET}=x", f"AZURE_{SECRET}", "=x"])
def test_x2_a_line_that_means_nothing_is_refused_and_not_repeated(
    tmp_path: Path, line: str
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"# first\n{line}\n")
    with pytest.raises(InputError, match="line 2 of the secret file") as raised:
        read_secret_file(str(file))
    _shows_nothing(raised.value)


def test_x2_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_secret_file(str(tmp_path / "none"))
    file = tmp_path / "secret"
    file.write_bytes(SECRET.encode() + b"\xff")
    with pytest.raises(InputError, match="it is no text") as raised:
        grant_of("pics", str(file))
    _shows_nothing(raised.value)
