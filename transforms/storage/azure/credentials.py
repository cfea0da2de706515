"""Where access to an account comes from: the environment, or a file in its place.

The names are those of Azure's own command line:

- ``AZURE_STORAGE_CONNECTION_STRING``: account, endpoint, and a key or a shared access signature;
- ``AZURE_STORAGE_ACCOUNT`` with ``AZURE_STORAGE_SAS_TOKEN`` or ``AZURE_STORAGE_KEY``;
- neither: ``DefaultAzureCredential`` of azure-identity, which finds a managed or workload
  identity, a service principal (``AZURE_CLIENT_ID``, ``AZURE_TENANT_ID``,
  ``AZURE_CLIENT_SECRET``), or whoever is logged in with Azure's command line.

``AZURE_STORAGE_SERVICE_ENDPOINT`` gives another endpoint than ``https://ACCOUNT.blob.core.windows.
net``: of a sovereign cloud, a private one or an emulator. Where several accounts are in use, each
name may end in two underscores and an account in capitals (``AZURE_STORAGE_SAS_TOKEN__PICTURES``),
which goes before the one without. No message here holds a value.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional
from urllib.parse import urlsplit

from transforms.storage.errors import InputError

CONNECTION_STRING = "AZURE_STORAGE_CONNECTION_STRING"
ACCOUNT = "AZURE_STORAGE_ACCOUNT"
KEY = "AZURE_STORAGE_KEY"
SAS_TOKEN = "AZURE_STORAGE_SAS_TOKEN"  # noqa: S105 - a name
ENDPOINT = "AZURE_STORAGE_SERVICE_ENDPOINT"
_IDENTITY = frozenset({"AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID"})
_NAMES = frozenset({CONNECTION_STRING, ACCOUNT, KEY, SAS_TOKEN, ENDPOINT, *_IDENTITY})
_CONNECTION_PARTS = frozenset({"accountname", "blobendpoint", "defaultendpointsprotocol"})
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
    if text := values.get(CONNECTION_STRING, "").strip():
        return _of_connection_string(account, text)
    named = values.get(ACCOUNT, "").strip()
    if named and named != account:
        raise _other_account(account, f"{ACCOUNT} names another account")
    endpoint = _endpoint(account, values.get(ENDPOINT, "").strip())
    if text := values.get(SAS_TOKEN, "").strip():
        _need_account(named, account, SAS_TOKEN)
        return Grant(endpoint, _sas(text), "shared access signature")
    if text := values.get(KEY, "").strip():
        _need_account(named, account, KEY)
        return Grant(endpoint, {"account_name": account, "account_key": text}, "account key")
    return Grant(endpoint, _identity(values if secret_file else {}), "Azure identity")


def _for_account(account: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return the values that count for an account; what is said for it alone goes first, as one."""
    ending = f"__{account.upper()}"
    own = {name.removesuffix(ending): values[name] for name in values if name.endswith(ending)}
    general = {name: values[name] for name in _NAMES & values.keys()}
    if own:
        # A token of this account must not be mixed with another's connection string.
        own[ACCOUNT] = account
        general = {name: general[name] for name in _IDENTITY & general.keys()}
    return {**general, **own}


def read_secret_file(path: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` lines; blank ones and those that begin with ``#`` are left out.

    A file that holds nothing but a connection string is taken for one.

    Raises:
        InputError: it cannot be read, or has a line or a name that means nothing here; the message
            never holds a line.
    """
    try:
        with open(path, encoding="utf-8") as file:
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
        if ";" in line and name.lower() in _CONNECTION_PARTS:
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


def _of_connection_string(account: str, text: str) -> Grant:
    pairs = [part.partition("=") for part in text.strip().strip(";").split(";")]
    parts = {name.strip().lower(): value.strip() for name, _, value in pairs}
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        if account != _EMULATOR:
            raise _other_account(account, f"{CONNECTION_STRING} is the emulator's")
        from azure.storage.blob import BlobServiceClient

        client = BlobServiceClient.from_connection_string(text)
        return Grant(_EMULATOR_ENDPOINT, client.credential, "emulator")
    named, endpoint = parts.get("accountname", ""), parts.get("blobendpoint", "")
    if not endpoint and named:
        protocol = parts.get("defaultendpointsprotocol", "https")
        endpoint = f"{protocol}://{named}.blob.{parts.get('endpointsuffix', 'core.windows.net')}"
    if not all(equals for _, equals, _ in pairs) or not endpoint:
        raise InputError(f"{CONNECTION_STRING} is not a connection string of a storage account")
    owner = named or _account_of(endpoint)
    if owner and owner != account:
        raise _other_account(account, f"{CONNECTION_STRING} is for another account")
    endpoint = _endpoint(account, endpoint)
    if key := parts.get("accountkey"):
        credential: Any = {"account_name": account, "account_key": key}
    elif token := parts.get("sharedaccesssignature"):
        credential = _sas(token)
    else:
        raise InputError(f"{CONNECTION_STRING} holds neither a key nor a shared access signature")
    return Grant(endpoint, credential, "connection string")


def _endpoint(account: str, endpoint: str) -> str:
    """Check an endpoint, or return the public one."""
    if not endpoint:
        return f"https://{account}.{_HOST}"
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise InputError(
            f"the storage endpoint of account {account!r} must be https://HOST or https://HOST/"
            f"{account}, without a query or a user; it is set by {ENDPOINT} or {CONNECTION_STRING}"
        )
    owner = _account_of(endpoint)
    if owner and owner != account:
        raise _other_account(account, "the storage endpoint is of another account")
    return endpoint.rstrip("/")


def _account_of(endpoint: str) -> str:
    """Return the account that an endpoint is of; empty where it does not say."""
    parts = urlsplit(endpoint)
    path = parts.path.strip("/")
    if path:
        return path.partition("/")[0]
    name, _, rest = (parts.hostname or "").partition(".")
    # Of a host without "blob" in it, such as a private one, the name says nothing.
    return name.removesuffix("-secondary") if "blob" in rest.split(".") else ""


def _sas(token: str) -> Any:
    from azure.core.credentials import AzureSasCredential

    return AzureSasCredential(token.lstrip("?"))


def _identity(values: Mapping[str, str]) -> Any:
    try:
        from azure.identity import ClientSecretCredential, DefaultAzureCredential
    except ImportError:
        raise InputError(
            "azfs needs the libraries of Azure: pip install 'beam-dedup[azure]'"
        ) from None
    if values.keys() >= _IDENTITY:
        return ClientSecretCredential(
            values["AZURE_TENANT_ID"], values["AZURE_CLIENT_ID"], values["AZURE_CLIENT_SECRET"]
        )
    return DefaultAzureCredential(exclude_interactive_browser_credential=True)
