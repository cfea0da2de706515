"""``beam-dedup check``: try what a run needs of its inputs and its output, and say what is wrong.

The tests come in the order in which they depend on each other, a line each; where one fails, those
that need it are left out.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import importlib.metadata
import io
import os
import socket
import tempfile
import time
import uuid
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from beam_dedup.access import access_of, add_access_options
from beam_dedup.messages import count, duration, one_line, safe_line, size
from beam_dedup.options import OptionParser, PipelineConfig, UsageError
from transforms.access import Access
from transforms.storage import InputError, StorageError, read_bytes, to_local_path
from transforms.storage.azure.names import SCHEME, BlobName, parse_uri
from transforms.storage.errors import AccessError
from transforms.storage.inputs import expand, pin_inputs
from transforms.storage.sightings import Kind, Scope, Sighting
from transforms.storage.stores import store_of
from transforms.storage.uris import readable, scheme_of

if TYPE_CHECKING:
    from transforms.storage.azure.credentials import Grant

_DONE, _FAILED = 0, 1
_PAGE = 5000  # names, as many as Azure gives at once
_REACH_S = 10
_LIBRARIES = ("beam-dedup", "apache-beam", "pillow", "pyarrow")
_AZURE = {"azure-storage-blob": "azure.storage.blob", "azure-identity": "azure.identity"}
_CONTENT = b"written by beam-dedup check, which removes it again\n"
_MAY_NOT = (
    "the credential is known there, but may not do this; reading takes the role Storage Blob Data "
    "Reader, or r and l of a signature, and writing Storage Blob Data Contributor, or r, l, c, w "
    "and d"
)
# https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
_ADVICE = {
    "AuthenticationFailed": "the key or signature is not this account's, was rotated or has "
    "expired, or the clock of this machine is wrong by minutes",
    "AuthorizationFailure": "the key is not this account's, or the account's network rules keep "
    "this machine out",
    "AuthorizationPermissionMismatch": _MAY_NOT,
    "InsufficientAccountPermissions": _MAY_NOT,
    "AuthorizationResourceTypeMismatch": "the signature is for other kinds of resources: make one "
    "for containers and objects",
    "AuthorizationServiceMismatch": "the signature is for other services: make one for blobs",
    "AuthorizationProtocolMismatch": "the signature is for https alone",
    "AuthorizationSourceIPMismatch": "the signature is for other addresses than this machine's",
    "KeyBasedAuthenticationNotPermitted": "the account takes no keys: use an identity",
    "AccountIsDisabled": "the account is disabled",
    "ContainerNotFound": "correct the container in the URI, or make it",
    "ContainerBeingDeleted": "the container is being deleted",
    "InvalidAuthenticationInfo": "the account does not take such a credential",
    "NoAuthenticationInformation": "the account takes no request without a credential",
}
_NO_IDENTITY = (
    "no identity could be had: set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with "
    "AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID, AZURE_TENANT_ID and "
    "AZURE_CLIENT_SECRET, or log in with az login, or give this machine a managed identity"
)


class _Failed(Exception):
    """A test that failed; the message says what is wrong and what to do."""


def main(argv: list[str]) -> int:
    """Run ``beam-dedup check``.

    Args:
        argv: the arguments after ``check``.

    Returns:
        0 if everything is fine, 1 if not.

    Raises:
        UsageError: the arguments are refused.
    """
    values = _parser().parse_or_help(argv)
    if values is None:
        return _DONE
    access = access_of(values)
    try:
        pinned = pin_inputs(values.input)
        for text in (*values.input, *([values.output] if values.output else ())):
            if scheme_of(text):
                store_of(text, "argument").check(text, "argument")
    except InputError as error:
        raise UsageError(str(error)) from None
    tests = [
        (f"input {text}", _input(one, access))
        for text, one in zip(values.input, pinned, strict=True)
    ]
    if values.output:
        tests.append((f"output {values.output}", _output(values.output, access)))
    sound = [_check(what, some) for what, some in tests]
    return _DONE if all(sound) else _FAILED


def _parser() -> OptionParser:
    parser = OptionParser(
        prog="beam-dedup check",
        usage="%(prog)s --input URI [--input URI ...] [--output URI] [options]",
        description="Try what a run needs: libraries, credential, account, one page of names, one "
        "read and, for an output, one small file that is written and removed. No image is "
        "changed.",
        epilog="Exit codes: 0 everything is fine; 1 something is not; 2 bad usage.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--input",
        action="append",
        required=True,
        metavar="URI",
        help="a folder, glob, image or list file; repeatable",
    )
    add("--output", metavar="URI", help="the folder that a report is to be written to")
    add_access_options(parser)
    add("-v", "--verbose", action="store_true", help="show log lines and tracebacks")
    return parser


def _check(what: str, tests: Iterator[tuple[str, str]]) -> bool:
    """Print the lines of some tests as they come; tell whether all was well."""
    print(safe_line(what))
    name = "start"
    try:
        for name, text in tests:
            if text:
                print(f"  ok    {name:<11} {safe_line(text)}", flush=True)
    except _Failed as error:
        problem = str(error)
    except AccessError as error:
        advice = _ADVICE.get(error.code, _NO_IDENTITY if "Error" in error.code else "")
        problem = f"{error}: {advice}" if advice else str(error)
    except (InputError, StorageError) as error:
        problem = str(error)
    except Exception as error:
        # Whatever a library raises is an answer to what was asked, too.
        problem = f"{type(error).__name__}: {error}"
    else:
        return True
    print(f"  FAIL  {name:<11} {safe_line(problem)}", flush=True)
    return False


def _input(pinned: bytes, access: Access) -> Iterator[tuple[str, str]]:
    """Yield the name of each test before it and, with what it found, after it."""
    text = os.fsdecode(pinned)
    blob = parse_uri(text) if scheme_of(text) == SCHEME else None
    yield from _libraries(is_azure=blob is not None)
    if blob is not None:
        yield from _reach(blob, access)
    yield "listing", ""
    names = expand(pinned, Scope(access=access))
    page = list(islice(names, _PAGE))
    more = next(names, None) is not None
    found = [one for one in page if one.kind == Kind.FOUND]
    yield "listing", f"{_counted(page)}, {'and more' if more else 'no more'}"
    if not page:
        raise _Failed("there is nothing below it; correct the URI")
    yield "read", ""
    yield "read", _read(found, access)


def _output(output: str, access: Access) -> Iterator[tuple[str, str]]:
    blob = parse_uri(output) if scheme_of(output) == SCHEME else None
    yield from _libraries(is_azure=blob is not None)
    if blob is None:
        yield "write", ""
        yield "write", _write_file(output)
    else:
        yield from _reach(blob, access)
        yield from _write_blob(blob, access)


def _libraries(*, is_azure: bool) -> Iterator[tuple[str, str]]:
    yield "libraries", ""
    names = [*_LIBRARIES, *(_AZURE if is_azure else ())]
    try:
        for module in _AZURE.values() if is_azure else ():
            importlib.import_module(module)
        found = [f"{name} {importlib.metadata.version(name)}" for name in names]
    except ImportError as error:  # that of a missing distribution, too
        missing = f"{error.name or error} is missing"
        raise _Failed(f"{missing}; pip install -c requirements.txt '.[azure]'") from None
    yield "libraries", ", ".join(found)


def _reach(blob: BlobName, access: Access) -> Iterator[tuple[str, str]]:
    from transforms.storage.azure.credentials import grant_of

    yield "credential", ""
    grant = grant_of(blob.account, access.secret_file)
    yield "credential", _describe(grant)
    yield "account", ""
    _connect(grant.endpoint)
    yield "account", f"{blob.account}: {grant.endpoint} answers"


def _describe(grant: Grant) -> str:
    """Say what kind of credential there is, and of a signature what anyone may know."""
    token = getattr(grant.credential, "signature", None)
    if not isinstance(token, str):
        return grant.source
    fields = parse_qs(token)
    until, may = fields.get("se", [""])[0], fields.get("sp", [""])[0]
    with contextlib.suppress(ValueError):
        end = datetime.datetime.fromisoformat(until)
        if end.replace(tzinfo=end.tzinfo or datetime.UTC) < datetime.datetime.now(datetime.UTC):
            raise _Failed(f"the shared access signature expired at {until}; make a new one")
    known = [f"permissions {may}" if may else "", f"valid until {until}" if until else ""]
    return ", ".join([grant.source, *filter(None, known)])


def _connect(endpoint: str) -> None:
    """Ask for anything, without a credential: an answer of any kind shows that there is a way."""
    import requests

    host = urlsplit(endpoint).hostname
    try:
        requests.head(endpoint + "/", timeout=_REACH_S, allow_redirects=False)
    except requests.exceptions.SSLError:
        raise _Failed(f"{host} shows a certificate that is not trusted here") from None
    except requests.exceptions.RequestException as error:
        causes = list(_causes(error))
        if any(isinstance(cause, socket.gaierror) for cause in causes):
            raise _Failed(
                f"there is no host {host}: correct the account in the URI, the endpoint, or the "
                "names that this machine can resolve"
            ) from None
        reason = next((one.strerror for one in causes if isinstance(one, OSError)), None)
        raise _Failed(
            f"{host} cannot be reached ({reason or type(error).__name__}): look at the endpoint, "
            "a proxy (HTTPS_PROXY) and firewalls"
        ) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield what lies behind an error, the innermost first."""
    if error is not None:
        yield from _causes(error.__cause__ or error.__context__)
        yield error


def _counted(page: list[Sighting]) -> str:
    failed = [one for one in page if one.kind == Kind.FAILED]
    names = f"{count(len(page))} names"
    if not failed:
        return names
    return f"{names}, of which {count(len(failed))} cannot be inputs ({failed[0].message})"


def _read(found: list[Sighting], access: Access) -> str:
    most = PipelineConfig.max_image_bytes
    one = next((one for one in found if 0 < one.ref.size_bytes <= most), None)
    if one is None:
        raise _Failed(f"none of these names has from 1 to {count(most)} bytes")
    started = time.monotonic()
    data = read_bytes(one.ref.uri, most, one.ref.size_bytes, one.ref.etag, access)
    seconds = time.monotonic() - started
    verified = "length and MD5" if one.content_md5 else "length"
    return f"{one.ref.path}: {size(len(data))} in {duration(seconds)}, {verified} verified"


def _write_file(output: str) -> str:
    path = to_local_path(output) if scheme_of(output) else os.fsencode(output)
    folder = there = Path(os.fsdecode(path)).absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise _Failed(f"{str(there)!r} is no folder; choose another output")
    try:
        with tempfile.NamedTemporaryFile(prefix=".beam-dedup-check-", dir=there) as file:
            file.write(_CONTENT)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _Failed(f"nothing can be written to {str(there)!r}: {error.strerror}") from None
    made = "" if there == folder else "; the folder itself is not there yet and will be made"
    return f"a file was written to {one_line(str(there))} and removed{made}"


def _write_blob(blob: BlobName, access: Access) -> Iterator[tuple[str, str]]:
    from transforms.storage.azure.account import account_of

    account = account_of(blob.account, access)
    folder = f"{blob.name.rstrip('/')}/" if blob.name.rstrip("/") else ""
    target = blob._replace(name=f"{folder}.beam-dedup-check-{uuid.uuid4().hex}")
    yield "write", ""
    etag = account.put(target, io.BytesIO(_CONTENT), overwrite=False)
    yield "write", f"{readable(target.uri)} was written"
    yield "delete", ""
    account.delete(target, etag)
    yield "delete", "it was removed again"
