"""Set-up shared by all tests."""

import os
from collections.abc import Iterator

import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from hypothesis import settings

from tests.azurite import Azurite, missing, started

TestPipeline.__test__ = False  # its name is not meant for pytest

# How long an example takes says more of what else the machine does than of the code.
settings.register_profile("beam_dedup", deadline=None)
settings.load_profile("beam_dedup")


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Run Azurite for the session; where it is missing skip, but in CI fail."""
    reason = missing()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with started(tmp_path_factory.mktemp("azurite")) as server:
        yield server
