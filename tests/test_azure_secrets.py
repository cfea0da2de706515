"""A secret, given in each of the ways, is nowhere to be read (fault X2)."""

import contextlib
import datetime
import logging
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import apache_beam as beam
import pyarrow.parquet as pq
import pytest
import requests
from apache_beam.internal.cloudpickle import cloudpickle
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.transforms.display import DisplayData
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

import beam_dedup
from beam_dedup import cli, options
from beam_dedup.pipeline import build
from tests.azurite import ACCOUNT, Azurite
from tests.faulty import Fault, Proxy, always, failing, reset
from tests.pictures import photo, saved
from transforms.storage import limits
from transforms.storage.azure import account
from transforms.storage.azure.credentials import Grant

_WAYS = ["connection string", "signature", "client secret", "secret file"]
_TOKEN = "eyJ0eXAi.a-token-that-nobody-may-see.x"
_CLIENT_SECRET = "a~client+secret/nobody=may&see"
_LOGGERS = (
    "apache_beam",
    "azure.core.pipeline.policies",
    "azure.core.pipeline.transport",
    "azure.identity",
    "azure.storage",
    "requests",
    "urllib3",
)


class _Tokens:
    """A service principal that gets its token without a network."""

    def __init__(self, *given: str, **_: Any) -> None:
        assert _CLIENT_SECRET in given

    def get_token(self, *_: str, **__: Any) -> AccessToken:
        return AccessToken(_TOKEN, 2**40)


class _ByToken(requests.adapters.HTTPAdapter):
    """Takes requests that come over https with the token, and passes them on to a proxy."""

    def __init__(self, endpoint: str, signature: str) -> None:
        super().__init__()
        self._endpoint, self._signature = endpoint, signature

    def send(self, request: requests.PreparedRequest, *args: Any, **names: Any) -> Any:
        assert request.headers.pop("Authorization") == f"Bearer {_TOKEN}"
        parts = urlsplit(str(request.url))
        assert parts.netloc == f"{ACCOUNT}.blob.core.windows.net"
        query = "&".join(filter(None, [parts.query, self._signature]))
        request.url = f"{self._endpoint}{parts.path}?{query}"
        return super().send(request, *args, **names)


class Given:
    """A secret that was given in one way, and what of it must be nowhere."""

    def __init__(self, azurite: Azurite, proxy: Proxy, folder: Path) -> None:
        self.azurite, self.proxy, self.folder = azurite, proxy, folder
        self.container = azurite.container()
        pictures = [saved(photo(number, 96, 72)) for number in (0, 1, 1)]
        azurite.upload(self.container, {f"p/{n}.jpg": data for n, data in enumerate(pictures)})
        self.signature = generate_account_sas(
            ACCOUNT,
            azurite.key,
            ResourceTypes(service=True, container=True, object=True),
            AccountSasPermissions(read=True, list=True),
            datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1),
        )
        self.hidden = {azurite.key, parse_qs(self.signature)["sig"][0], _TOKEN, _CLIENT_SECRET}
        self.options: dict[str, Any] = {"profile": "fast", "workers": 1}

    def give(self, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the secret where a user would."""
        string = self.azurite.connection_string(self.proxy.endpoint)
        if way == "connection string":
            monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", string)
        elif way == "signature":
            monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
            monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", self.signature)
            monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", self.proxy.endpoint)
        elif way == "secret file":
            file = self.folder / "mounted"
            file.write_text(f"AZURE_STORAGE_CONNECTION_STRING={string}\n")
            self.options["azure_secret_file"] = str(file)
        else:
            monkeypatch.setenv("AZURE_TENANT_ID", "a-tenant")
            monkeypatch.setenv("AZURE_CLIENT_ID", "a-client")
            monkeypatch.setenv("AZURE_CLIENT_SECRET", _CLIENT_SECRET)
            monkeypatch.setattr("azure.identity.ClientSecretCredential", _Tokens)
            session = requests.Session()
            session.mount("https://", _ByToken(self.proxy.endpoint, self.signature))
            # The transport of the tests' own sends what the account's would.
            monkeypatch.setattr(
                account, "_transport", lambda *_: _logged(RequestsTransport(session=session))
            )

    @property
    def input(self) -> str:
        return f"azfs://{ACCOUNT}/{self.container}/p"

    def shows_nothing(self, what: str, text: str) -> None:
        """Assert that a text has nothing of the secret in it."""
        for secret in self.hidden:
            for form in (secret, quote(secret, safe=""), quote(secret)):
                assert form not in text, f"{what} holds a secret"
        for name in ("AccountKey" + "=", "Signature="):
            assert name not in text, what
        # Where a signature stood, this stands now.
        assert "sig=" not in text.replace("sig=[redacted]", "").replace("sig=REDACTED", ""), what


def _logged(transport: RequestsTransport) -> RequestsTransport:
    """Do to the logs what ``account._transport`` does."""
    logging.getLogger("urllib3.connectionpool").addFilter(account._without_signature)
    return transport


class _Lines(logging.Handler):
    """Keeps every line of every logger, with its traceback, as Beam's handlers would send it."""

    def __init__(self) -> None:
        super().__init__(0)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{self.format(record)} {record.args!r} {record.msg!r}")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Keep all that is logged while all loggers say all that they can."""
    handler = _Lines()
    before = {name: logging.getLogger(name).level for name in _LOGGERS}
    logging.getLogger().addHandler(handler)
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        logging.getLogger().removeHandler(handler)
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@pytest.fixture(params=_WAYS)
def given_(
    azurite: Azurite,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Iterator[Given]:
    """Give a secret in each of the ways."""
    for name, seconds in (("_FIRST_WAIT_S", 0.001), ("_MAX_WAIT_S", 0.002), ("HELD_BACK_S", 0.0)):
        monkeypatch.setattr(limits, name, seconds)
    account.forget_accounts()
    with Proxy(azurite.endpoint) as proxy:
        given = Given(azurite, proxy, tmp_path)
        given.give(request.param, monkeypatch)
        yield given
    account.forget_accounts()


_FAULTS = [
    always(failing(403), kind="read"),
    always(reset(), kind="read"),
    always(failing(503), kind="read"),
    always(Fault(cut=0.5), kind="read"),
    always(reset(), kind="list"),
    always(failing(401)),
]


def test_x2_a_job_that_ends_well_and_jobs_that_fail_show_no_secret(
    given_: Given, lines: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    output = given_.folder / "report"
    words = ["run", "--input", given_.input, "--output", str(output), "--verbose"]
    for name, value in given_.options.items():
        words += [f"--{name}", str(value)]
    assert cli.main(words) == 0
    assert [each.status for each in given_.proxy.exchanges if each.request.kind == "read"]
    for fault in _FAULTS:
        given_.proxy.plan = fault
        assert cli.main([*words[:4], str(given_.folder / "failed"), *words[5:]]) in (1, 2, 3)
    told = capfd.readouterr()
    given_.shows_nothing("stdout", told.out)
    given_.shows_nothing("stderr", told.err)
    assert "Traceback" in told.err
    # urllib3 tells the URL of every request at this level.
    assert sum("HTTP/1.1" in line for line in lines) > 20
    for line in lines:
        given_.shows_nothing("a log line", line)
    files = [path for path in output.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"summary.json", "manifest.json", "report.csv"}
    for path in files:
        given_.shows_nothing(path.name, path.read_bytes().decode("latin-1"))
        if path.suffix == ".parquet":
            given_.shows_nothing(path.name, repr(pq.read_table(path).to_pylist()))


def _whole_story(error: BaseException | None) -> Iterator[str]:
    """Yield all that an exception and what it hangs on can tell, suppressed or not."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield "".join(traceback.format_exception(one))
        yield f"{one!r} {one.args!r} {getattr(one, '__notes__', '')}"
        waiting += [one.__cause__, one.__context__]


@pytest.mark.parametrize("number", [0, 1, 4])
def test_x2_no_exception_of_a_job_holds_a_secret(given_: Given, number: int) -> None:
    given_.proxy.plan = _FAULTS[number]
    story: list[str] = []
    with contextlib.suppress(beam_dedup.JobError, beam_dedup.UsageError):
        try:
            beam_dedup.deduplicate(given_.input, given_.folder / "report", **given_.options)
        except Exception as error:
            story = list(_whole_story(error))
            raise
    assert story
    for text in story:
        given_.shows_nothing("an exception", text)


class _Shown(PipelineVisitor):
    """Collects what a pipeline sends to workers and shows to people."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def visit_transform(self, node: AppliedPTransform) -> None:
        transform = node.transform
        if transform is None:
            return
        items = DisplayData.create_from(transform).items
        self.texts.append(repr([item.get_dict() for item in items]))
        if isinstance(transform, beam.ParDo):
            self.texts.append(cloudpickle.dumps(transform.fn).decode("latin-1"))
            self.texts.append(repr(vars(transform.fn)))


def test_x2_what_is_sent_to_workers_and_shown_by_a_runner_holds_no_secret(given_: Given) -> None:
    # The account is in use in this process, as where one job follows another.
    beam_dedup.deduplicate(given_.input, given_.folder / "first", **given_.options)
    words = options.to_argv(given_.input, given_.folder / "report", given_.options)
    config, _, beam_args = options.parse(words)
    pipeline = beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions(beam_args))
    build(pipeline, config)
    shown = _Shown()
    pipeline.visit(shown)
    assert len(shown.texts) > 50
    shown.texts.append(repr(pipeline.options.get_all_options()))
    shown.texts.append(repr(DisplayData.create_from(pipeline.options).items))
    shown.texts.append(pipeline.to_runner_api().SerializeToString().decode("latin-1"))
    shown.texts += [repr(config), cloudpickle.dumps(config).decode("latin-1")]
    for text in shown.texts:
        given_.shows_nothing("the pipeline", text)


def test_x2_the_search_finds_a_secret_where_there_is_one(given_: Given) -> None:
    for text in (
        f"x{given_.azurite.key}x",
        f"https://x/?sv=1&{given_.signature}",
        quote(given_.azurite.key, safe=""),
        cloudpickle.dumps({"key": _CLIENT_SECRET}).decode("latin-1"),
        repr([f"Bearer {_TOKEN}"]),
    ):
        with pytest.raises(AssertionError):
            given_.shows_nothing("this", text)


def test_x2_where_nobody_answers_no_error_holds_the_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(limits, "_MAX_WAIT_S", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}/{ACCOUNT}"
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "sv=1&" + "sig=hidden")
    monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", endpoint)
    account.forget_accounts()
    with pytest.raises(beam_dedup.UsageError) as raised:
        beam_dedup.deduplicate(f"azfs://{ACCOUNT}/ccc/p", tmp_path / "report", workers=1)
    account.forget_accounts()
    assert str(raised.value) == (
        f"account '{ACCOUNT}' did not answer at {endpoint} (head: NewConnectionError) in 10 "
        "attempts"
    )
    # Where the SDK's error is left hanging on ours, this finds it.
    assert not [text for text in _whole_story(raised.value) if "hidden" in text]


def test_x2_a_grant_in_a_traceback_shows_no_secret() -> None:
    grant = Grant("https://pics.blob.core.windows.net", "hidden", "account key")
    assert "hidden" not in "".join(traceback.format_exception(ValueError(grant)))
