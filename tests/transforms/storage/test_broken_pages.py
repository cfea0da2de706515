"""A page of names that breaks on its way is asked for again: a part never passes for the whole."""

from collections.abc import Iterator

import pytest

from tests.azurite import ACCOUNT, Azurite
from tests.faulty import Fault, Proxy, failing, first, reset
from transforms.access import Access
from transforms.storage.azure import account


@pytest.fixture(autouse=True)
def _no_accounts() -> Iterator[None]:
    account.forget_accounts()
    yield
    account.forget_accounts()


@pytest.mark.parametrize(
    "fault",
    [
        Fault(reset=0.5),
        Fault(cut=0.5),
        Fault(change=lambda page: page[: len(page) // 2]),
        reset(),
        failing(503, retry_after=0),
        failing(429),
    ],
    ids=["reset within", "cut", "spoilt", "reset before", "503", "429"],
)
def test_r5_r7_a_page_that_breaks_is_asked_for_again(
    azurite: Azurite, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    container = azurite.container()
    names = [f"{number:02d}.jpg" for number in range(10)]
    azurite.upload(container, dict.fromkeys(names, b"x"))
    with Proxy(azurite.endpoint, first(1, fault, kind="list")) as proxy:
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(proxy.endpoint)
        )
        pages = account.account_of(ACCOUNT, Access()).pages(container)
        assert [blob.name for page in pages for blob in page] == names
        assert len(proxy.exchanges) == 2
