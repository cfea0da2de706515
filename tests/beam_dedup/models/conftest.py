"""A server of weights for each test."""

from collections.abc import Iterator

import pytest

from tests.beam_dedup.models.server import Host, serve


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Run a server, and let no proxy stand before it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as one:
        yield one
