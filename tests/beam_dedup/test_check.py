"""What ``check`` says, and that it says no secret."""

import os
import re
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.storage.blob import (
    ContainerSasPermissions,
    generate_container_sas,
)

from beam_dedup import cli
from tests.azurite import ACCOUNT, KEY, Azurite
from tests.beam_dedup.pictures import write_folder
from tests.faulty import Proxy, always, failing
from tests.transforms.reporting.made import tree
from transforms.storage.azure.account import forget_accounts

Capture = pytest.CaptureFixture[str]
_WRONG_KEY = "d3Jvbmcga2V5"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take away what the environment says of Azure, and forget accounts before and after."""
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    forget_accounts()
    yield
    forget_accounts()


@pytest.fixture
def container(azurite: Azurite, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a container with three blobs below p/, with access to it."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string())
    name = azurite.container()
    azurite.upload(name, {f"p/{number}.jpg": bytes(1500) for number in range(3)})
    return name


def _check(capsys: Capture, *words: str) -> tuple[int, list[str]]:
    """Run the command; return the exit code and the lines, blanks made one."""
    code = cli.main(["check", *words])
    printed = capsys.readouterr()
    assert printed.err == "" or code == 2
    for secret in (KEY, _WRONG_KEY, "sig="):
        assert secret not in printed.out + printed.err
    return code, [re.sub(r"\s+", " ", line).strip() for line in printed.out.splitlines()]


def test_a_folder_is_listed_and_read(tmp_path: Path, capsys: Capture) -> None:
    folder = write_folder(tmp_path / "in")
    before = tree(tmp_path)
    code, lines = _check(capsys, f"--input={folder}", f"--output={tmp_path}/out/report")
    assert code == 0
    assert lines[0] == f"input {folder}"
    assert re.fullmatch(r"ok libraries beam-dedup \S+, apache-beam \S+, pillow .*", lines[1])
    assert lines[2] == "ok listing 4 names, no more"
    assert re.fullmatch(rf"ok read {folder}/0.png: \S+ k?B in 0.0 s, length verified", lines[3])
    assert lines[4] == f"output {tmp_path}/out/report"
    assert lines[6] == (
        f"ok write a file was written to {tmp_path} and removed; the folder itself is not there "
        "yet and will be made"
    )
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "FAIL listing input '{}/none': no such file or folder"),
        ("empty", "FAIL listing there is nothing below it; correct the URI"),
        ("blank", "FAIL read none of these names has from 1 to 268,435,456 bytes"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(
    tmp_path: Path, capsys: Capture, name: str, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank").mkdir()
    (tmp_path / "blank/x.jpg").touch()
    code, lines = _check(capsys, f"--input={tmp_path}/{name}")
    assert (code, lines[-1]) == (1, message.format(tmp_path))


def test_an_output_that_cannot_be_written_is_said(tmp_path: Path, capsys: Capture) -> None:
    folder = write_folder(tmp_path / "in")
    (tmp_path / "file").write_text("x")
    code, lines = _check(capsys, f"--input={folder}", f"--output={tmp_path}/file/report")
    assert code == 1
    assert lines[-1] == f"FAIL write '{tmp_path}/file' is no folder; choose another output"
    code, lines = _check(capsys, f"--input={folder}", "--output=/proc/report")
    assert code == 1
    assert lines[-1].startswith("FAIL write nothing can be written to '/proc'")


def test_more_names_than_a_page(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beam_dedup.check._PAGE", 3)
    folder = write_folder(tmp_path / "in")
    assert "ok listing 3 names, and more" in _check(capsys, f"--input={folder}")[1]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--input="],
        ["--input=s3://bucket/x"],
        ["--input=azfs://A/b"],
        ["--input=x", "--output=gs://bucket/x"],
        ["--input=x", "--read_concurrency=0"],
        ["--input=azfs://account/pics?sig=c2VjcmV0"],
        ["--input=x", "more"],
    ],
)
def test_bad_usage_is_exit_2(capsys: Capture, words: list[str]) -> None:
    assert _check(capsys, *words) == (2, [])


def test_azure_is_listed_read_and_written(
    azurite: Azurite, container: str, capsys: Capture
) -> None:
    uri = f"azfs://{ACCOUNT}/{container}"
    code, lines = _check(capsys, f"--input={uri}/p", f"--output={uri}/report")
    assert code == 0
    assert lines[0] == f"input {uri}/p"
    assert re.search(r"azure-storage-blob \S+, azure-identity \S+$", lines[1])
    assert lines[2:5] == [
        "ok credential connection string",
        f"ok account {ACCOUNT}: {azurite.endpoint} answers",
        "ok listing 3 names, no more",
    ]
    assert re.fullmatch(
        rf"ok read {uri}/p/0.jpg: 1.5 kB in 0.\d s, length and MD5 verified", lines[5]
    )
    assert lines[6] == f"output {uri}/report"
    assert re.fullmatch(rf"ok write {uri}/report/.beam-dedup-check-\w+ was written", lines[10])
    assert lines[11] == "ok delete it was removed again"
    assert azurite.names(container) == ["p/0.jpg", "p/1.jpg", "p/2.jpg"]


def test_a_signature_is_described_without_itself(
    azurite: Azurite, container: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"azfs://{ACCOUNT}/{container}"
    end = datetime.now(UTC) + timedelta(hours=1)
    _sign(azurite, container, end, "rl", monkeypatch)
    code, lines = _check(capsys, f"--input={uri}/p", f"--output={uri}/report")
    assert code == 1
    said = f"shared access signature, permissions rl, valid until {end:%Y-%m-%dT%H:%M:%SZ}"
    assert lines[2] == f"ok credential {said}"
    assert lines[5].startswith("ok read ")
    assert lines[-1].startswith("FAIL write ")
    assert "Storage Blob Data Contributor, or r, l, c, w and d" in lines[-1]


def test_an_expired_signature_is_said(
    azurite: Azurite, container: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = datetime.now(UTC) - timedelta(hours=1)
    _sign(azurite, container, end, "rl", monkeypatch)
    code, lines = _check(capsys, f"--input=azfs://{ACCOUNT}/{container}/p")
    said = f"the shared access signature expired at {end:%Y-%m-%dT%H:%M:%SZ}; make a new one"
    assert (code, lines[2:]) == (1, [f"FAIL credential {said}"])


def _sign(
    azurite: Azurite, container: str, end: datetime, may: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = generate_container_sas(
        ACCOUNT,
        container,
        account_key=KEY,
        permission=ContainerSasPermissions.from_string(may),
        expiry=end,
    )
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", ACCOUNT)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", token)
    monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", azurite.endpoint)


def test_r3_a_wrong_key_is_said(
    azurite: Azurite, container: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = azurite.connection_string().replace(KEY, _WRONG_KEY)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", wrong)
    code, lines = _check(capsys, f"--input=azfs://{ACCOUNT}/{container}/p")
    assert code == 1
    assert lines[3].startswith("ok account ")
    assert re.match(r"FAIL listing account '\w+' refuses access .*: the key is not", lines[4])


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "AuthenticationFailed", "the key or signature is not this account's"),
        (403, "AuthorizationFailure", "network rules keep this machine out"),
        (403, "AuthorizationPermissionMismatch", "the role Storage Blob Data Reader"),
        (403, "AuthorizationResourceTypeMismatch", "for containers and objects"),
        (403, "KeyBasedAuthenticationNotPermitted", "use an identity"),
        (401, "NoAuthenticationInformation", "without a credential"),
        (403, "SomethingNew", "refuses access (SomethingNew) with the connection string; see"),
    ],
)
def test_r3_what_the_account_answers_is_explained(
    azurite: Azurite,
    container: str,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    advice: str,
) -> None:
    with Proxy(azurite.endpoint, always(failing(status, code=code), path="/p")) as proxy:
        there = azurite.connection_string(proxy.endpoint)
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", there)
        exit_code, lines = _check(capsys, f"--input=azfs://{ACCOUNT}/{container}/p")
    assert exit_code == 1
    assert lines[-1].startswith("FAIL listing ")
    assert code in lines[-1]
    assert advice in lines[-1]


def test_r9_a_missing_container_is_told_from_an_empty_prefix(
    container: str, capsys: Capture
) -> None:
    code, lines = _check(capsys, f"--input=azfs://{ACCOUNT}/no-such-container/p")
    assert code == 1
    assert "has no such container (ContainerNotFound): correct the container" in lines[-1]
    code, lines = _check(capsys, f"--input=azfs://{ACCOUNT}/{container}/none")
    assert code == 1
    assert lines[-1].startswith("FAIL listing input ")
    assert lines[-1].endswith("no such blob, and none below it")
    code, lines = _check(
        capsys, f"--input=azfs://{ACCOUNT}/{container}/p", f"--output=azfs://{ACCOUNT}/none-such/r"
    )
    assert code == 1
    assert lines[-1].startswith("FAIL write account ")
    assert "ContainerNotFound" in lines[-1]


def test_n5_another_account_is_said(container: str, capsys: Capture) -> None:
    code, lines = _check(capsys, f"--input=azfs://otheraccount/{container}/p")
    assert code == 1
    assert lines[-1].startswith("FAIL credential account 'otheraccount' of an azfs URI cannot be")


def test_a_host_that_does_not_answer_is_said(
    azurite: Azurite, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/{ACCOUNT}"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(nobody))
        code, lines = _check(capsys, f"--input=azfs://{ACCOUNT}/pics/p")
    assert code == 1
    assert lines[-1].startswith("FAIL account 127.0.0.1 cannot be reached (Connection refused)")


def test_a_host_that_there_is_not_is_said(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT", "acc")
    monkeypatch.setenv("AZURE_STORAGE_KEY", _WRONG_KEY)
    # A name that no server knows: RFC 6761, section 6.4.
    monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", "http://acc.blob.invalid")
    code, lines = _check(capsys, "--input=azfs://acc/pics/p")
    assert code == 1
    assert lines[-1].startswith("FAIL account there is no host acc.blob.invalid: correct the")


@pytest.mark.parametrize("module", ["azure.storage.blob", "azure.identity"])
def test_a_missing_library_is_said(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, lines = _check(capsys, f"--input=azfs://{ACCOUNT}/pics/p")
    assert code == 1
    assert lines[1:] == [
        f"FAIL libraries {module} is missing; pip install -c requirements.txt '.[azure]'"
    ]


def test_no_identity_is_said(
    azurite: Azurite, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    class Nobody:
        def get_token(self, *_: object, **__: object) -> None:
            raise ClientAuthenticationError("with tokens in it")

    monkeypatch.setattr("azure.identity.DefaultAzureCredential", lambda **_: Nobody())
    secure = azurite.endpoint.replace("http://", "https://")
    monkeypatch.setenv("AZURE_STORAGE_SERVICE_ENDPOINT", secure)
    monkeypatch.setattr("beam_dedup.check._connect", lambda _: None)  # Azurite has no certificate
    code, lines = _check(capsys, f"--input=azfs://{ACCOUNT}/pics/p")
    assert code == 1
    assert lines[2] == "ok credential Azure identity"
    assert "(ClientAuthenticationError) with the Azure identity" in lines[-1]
    assert "no identity could be had: set AZURE_STORAGE_CONNECTION_STRING" in lines[-1]
    assert "tokens" not in lines[-1]


def test_the_secret_file_is_used(
    tmp_path: Path, azurite: Azurite, container: str, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    (tmp_path / "secret").write_text(azurite.connection_string())
    words = [f"--input=azfs://{ACCOUNT}/{container}/p", f"--azure_secret_file={tmp_path}/secret"]
    assert _check(capsys, *words)[0] == 0
    words[1] += "x"
    code, lines = _check(capsys, *words)
    assert code == 1
    assert lines[-1].startswith("FAIL credential the secret file ")
