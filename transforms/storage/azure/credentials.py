"""Where access to an account comes from: the environment, or a file in its place.

The names are those of Azure's own command line:

- ``AZURE_STORAGE_CONNECTION_STRING``: account, endpoint, and a key or a shared access signature;
- ``AZURE_STORAGE_ACCOUNT`` with ``AZURE_STORAGE_SAS_TOKEN`` or ``AZURE_STORAGE_KEY``;
- neither: azure-identity, which takes a service principal (``AZURE_TENANT_ID``,
  ``AZURE_CLIENT_ID``, ``AZURE_CLIENT_SECRET``), else what ``DefaultAzureCredential`` finds: a
  workload or managed identity (``AZURE_CLIENT_ID`` says which, where there are several), or
  whoever is logged in with Azure's command line.

``AZURE_STORAGE_SERVICE_ENDPOINT`` gives another endpoint than ``https://ACCOUNT.blob.core.windows.
net``: of a sovereign cloud, a private one or an emulator. Where several accounts are in use, each
name may end in two underscores and an account in capitals (``AZURE_STORAGE_SAS_TOKEN__PICTURES``),
which goes before the one without. No message here holds a value.
"""

import base64
import binascii
import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import parse_qs, urlsplit

from transforms.storage.errors import InputError

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
ACCOUNT = "AZURE_STORAGE_ACCOUNT"
KEY = "AZURE_STORAGE_KEY"
SAS_TOKEN = "AZURE_STORAGE_SAS_TOKEN"  # noqa: S105 - a name
ENDPOINT = "AZURE_STORAGE_SERVICE_ENDPOINT"
CLIENT_SECRET = "AZURE_CLIENT_SECRET"  # noqa: S105 - a name
_TENANT, _CLIENT, _AUTHORITY = "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_AUTHORITY_HOST"
_IDENTITY = frozenset({CLIENT_SECRET, _TENANT, _CLIENT, _AUTHORITY})
_NAMES = frozenset({CONNECTION_STRING, ACCOUNT, KEY, SAS_TOKEN, ENDPOINT, *_IDENTITY})
_CONNECTION_PARTS = frozenset(
    {
        "accountkey",
        "accountname",
        "blobendpoint",
        "defaultendpointsprotocol",
        "endpointsuffix",
        "sharedaccesssignature",
        "usedevelopmentstorage",
    }
)
_EMULATOR = "devstoreaccount1"  # of UseDevelopmentStorage=true
_EMULATOR_ENDPOINT = f"http://127.0.0.1:10000/{_EMULATOR}"
_HOST = "blob.core.windows.net"


class Grant(NamedTuple):
    """How an account is reached; ``credential`` is a secret, so this is never shown or pickled."""

    endpoint: str  # without a slash at its end, without a query
    credential: Any  # what the SDK takes
    source: str  # what a person would call it

    def __repr__(self) -> str:
        return f"Grant({self.endpoint!r}, by {self.source})"

    def __reduce__(self) -> Any:
        raise TypeError("a grant holds a secret and stays in its process")


def grant_of(account: str, secret_file: Optional[str] = None) -> Grant:
    """Find the access to an account.

    Args:
        account: as a URI names it.
        secret_file: of ``Access``.

    Raises:
        InputError: what there is is for another account (fault P4), cannot be understood, or the
            libraries of Azure are missing.
    """
    values = _for_account(account, read_secret_file(secret_file) if secret_file else os.environ)
    values = {name: value.strip() for name, value in values.items() if value.strip()}
    named = values.get(ACCOUNT, "")
    if text := values.get(CONNECTION_STRING):
        return _of_connection_string(account, named, text)
    if named and named != account:
        raise _other_account(account, f"{ACCOUNT} names another account")
    endpoint = _endpoint(account, named, values.get(ENDPOINT, ""))
    if text := values.get(SAS_TOKEN):
        _need_account(named, account, SAS_TOKEN)
        return Grant(endpoint, _sas(text, SAS_TOKEN), "shared access signature")
    if text := values.get(KEY):
        _need_account(named, account, KEY)
        return Grant(endpoint, _key(account, text, KEY), "account key")
    if urlsplit(endpoint).scheme != "https":
        raise InputError(
            f"account {account!r} is reached by an Azure identity, whose token goes over https "
            f"only: give {ENDPOINT} as https://HOST, or another credential"
        )
    return Grant(endpoint, _identity(values), "Azure identity")


def _for_account(account: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the values that count for an account; what is said for it alone goes first, as one."""
    ending = f"__{account.upper()}"
    own = {name: values[name + ending] for name in _NAMES if name + ending in values}
    general = {name: values[name] for name in _NAMES & values.keys()}
    if own:
        # A token of this account must not be mixed with another's connection string.
        own[ACCOUNT] = account
        general = {name: general[name] for name in _IDENTITY & general.keys()}
    return {**general, **own}


def read_secret_file(path: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` lines; blank ones and those that begin with ``#`` are left out.

    A line that is a connection string is taken for one without its name.

    Raises:
        InputError: it cannot be read, or has a line or a name that means nothing here; the message
            never holds a line.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InputError(f"the secret file {path!r} cannot be read: {reason}") from None
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        name = name.strip().removeprefix("export ").strip()
        if name.lower() in _CONNECTION_PARTS:
            name, equals, value = CONNECTION_STRING, "=", line
        if not equals or name.partition("__")[0] not in _NAMES:
            known = ", ".join(sorted(_NAMES))
            raise InputError(
                f"line {number} of the secret file {path!r} is not NAME=VALUE with a name out of "
                f"{known}"
            )
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name] = value
    return values


def _need_account(named: str, account: str, secret: str) -> None:
    if not named:
        raise InputError(
            f"{secret} is given without {ACCOUNT}: set it to {account!r} if that is the account "
            "that it belongs to"
        )


def _other_account(account: str, reason: str) -> InputError:
    return InputError(
        f"account {account!r} of an azfs URI cannot be reached: {reason}; give access to this one "
        f"by names that end in __{account.upper()}"
    )


def _of_connection_string(account: str, named: str, text: str) -> Grant:
    pairs = [part.partition("=") for part in text.strip(";").split(";")]
    parts = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        if account != _EMULATOR:
            raise _other_account(account, f"{CONNECTION_STRING} is the emulator's")
        from azure.storage.blob import BlobServiceClient

        client = BlobServiceClient.from_connection_string("UseDevelopmentStorage=true")
        return Grant(_EMULATOR_ENDPOINT, client.credential, "emulator")
    owner, endpoint = parts.get("accountname", ""), parts.get("blobendpoint", "")
    if not endpoint and owner:
        protocol = parts.get("defaultendpointsprotocol", "https")
        endpoint = f"{protocol}://{owner}.blob.{parts.get('endpointsuffix', 'core.windows.net')}"
    if not all(equals for _, equals, _ in pairs) or not endpoint:
        raise InputError(f"{CONNECTION_STRING} is not a connection string of a storage account")
    if owner and owner != account:
        raise _other_account(account, f"{CONNECTION_STRING} is for another account")
    endpoint = _endpoint(account, owner or named, endpoint)
    if key := parts.get("accountkey"):
        credential: Any = _key(account, key, CONNECTION_STRING)
    elif token := parts.get("sharedaccesssignature"):
        credential = _sas(token, CONNECTION_STRING)
    else:
        raise InputError(f"{CONNECTION_STRING} holds neither a key nor a shared access signature")
    return Grant(endpoint, credential, "connection string")


def _endpoint(account: str, named: str, endpoint: str) -> str:
    """Check an endpoint, or return the public one.

    Args:
        account: as a URI names it.
        named: the account that the credential says it is for, if it does.
        endpoint: empty for the public one.
    """
    if not endpoint:
        return f"https://{account}.{_HOST}"
    try:
        parts = urlsplit(endpoint)
        bare = not (parts.query or parts.fragment or parts.username or parts.password)
        known = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # of a port that is none; it would hold the endpoint
        known = False
    if not known or not bare or parts.scheme not in ("http", "https") or _depth(parts.path) > 1:
        raise InputError(
            f"the storage endpoint of account {account!r} must be https://HOST or https://HOST/"
            f"{account}, without a query or a user; it is set by {ENDPOINT} or {CONNECTION_STRING}"
        )
    owner = _account_of(endpoint) or named
    if not owner:
        raise InputError(
            f"the storage endpoint does not tell its account: set {ACCOUNT} to {account!r} if that "
            "is the one"
        )
    if owner != account:
        raise _other_account(account, "the storage endpoint is of another account")
    return endpoint.rstrip("/")


def _depth(path: str) -> int:
    return len(list(filter(None, path.split("/"))))


def _account_of(endpoint: str) -> str:
    """Return the account that an endpoint is of; empty where it does not say."""
    parts = urlsplit(endpoint)
    path = parts.path.strip("/")
    if path:
        return path.partition("/")[0]
    name, _, rest = (parts.hostname or "").partition(".")
    # Of a host without "blob" in it, such as a private one, the name says nothing.
    return name.removesuffix("-secondary") if "blob" in rest.split(".") else ""


def _sas(token: str, name: str) -> Any:
    from azure.core.credentials import AzureSasCredential

    # A whole URL is taken for its query, which is what a portal offers to copy.
    query = token.rpartition("?")[2]
    if "sig" not in parse_qs(query):
        raise InputError(f"{name} holds no shared access signature (sv=...&sig=...)")
    return AzureSasCredential(query)


def _key(account: str, key: str, name: str) -> dict[str, str]:
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise InputError(f"{name} holds no account key, which is base64") from None
    return {"account_name": account, "account_key": key}


def _identity(values: Mapping[str, str]) -> Any:
    try:
        from azure.identity import ClientSecretCredential, DefaultAzureCredential
    except ImportError:
        raise InputError(
            "azfs needs the libraries of Azure: pip install -c requirements.txt '.[azure]'"
        ) from None
    client = values.get(_CLIENT)
    other = {"authority": values[_AUTHORITY]} if _AUTHORITY in values else {}
    if secret := values.get(CLIENT_SECRET):
        if not client or _TENANT not in values:
            raise InputError(f"{CLIENT_SECRET} is given without {_CLIENT} or {_TENANT}")
        return ClientSecretCredential(values[_TENANT], client, secret, **other)
    if client:
        other |= {"managed_identity_client_id": client, "workload_identity_client_id": client}
    return DefaultAzureCredential(**other)
