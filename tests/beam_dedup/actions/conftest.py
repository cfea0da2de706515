"""An Azurite with two accounts, and the environment that reaches them."""

import os
from collections.abc import Iterator
from unittest import mock

import pytest

from tests.azurite import ACCOUNT, KEY, Azurite, missing, started
from transforms.storage.azure.account import forget_accounts

SECOND = "secondaccount"


@pytest.fixture(scope="session")
def two_accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Azurite, Azurite]]:
    """Run an Azurite with two accounts; where it is missing skip, but in CI fail."""
    reason = missing()
    if reason:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    accounts = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY};{SECOND}:{KEY}"}
    with mock.patch.dict(os.environ, accounts), started(tmp_path_factory.mktemp("two")) as first:
        second = Azurite.__new__(Azurite)
        vars(second).update(vars(first))
        second.account = SECOND
        second.endpoint = first.endpoint.replace(ACCOUNT, SECOND)
        second.client = type(first.client).from_connection_string(second.connection_string())
        with second.client:
            yield first, second


@pytest.fixture
def accounts(
    two_accounts: tuple[Azurite, Azurite], monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Azurite, Azurite]]:
    """Give access to both accounts, and forget them afterwards."""
    for one in two_accounts:
        name = f"AZURE_STORAGE_CONNECTION_STRING__{one.account.upper()}"
        monkeypatch.setenv(name, one.connection_string())
    forget_accounts()
    yield two_accounts
    forget_accounts()
