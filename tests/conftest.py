"""Set-up shared by all tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from hypothesis import settings

from tests.azurite import Azurite, missing, started
from tests.places import Blobs, Folder, Place, connected
from tests.transforms.storage.systems import Bucket, Objects, Tree, served

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


@pytest.fixture
def blobs(azurite: Azurite) -> Iterator[Blobs]:
    """Give an empty output in Azurite, which the environment gives access to."""
    with connected(azurite):
        yield Blobs(azurite)


@pytest.fixture(params=["folder", "blobs"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Give an empty output of each kind in turn."""
    if request.param == "folder":
        return Folder(tmp_path / "out")
    blobs: Blobs = request.getfixturevalue("blobs")
    return blobs


@pytest.fixture
def bucket() -> Iterator[Objects]:
    """Give an output in a bucket that Beam reaches."""
    with served(Bucket, "gs"):
        yield Objects(Bucket)


@pytest.fixture
def tree() -> Iterator[Objects]:
    """Give an output on a file system of Beam's with folders."""
    with served(Tree, "hdfs"):
        yield Objects(Tree)


@pytest.fixture(params=["folder", "blobs", "bucket", "tree"])
def every_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Give an empty output of each kind in turn, those without a lock too."""
    if request.param == "folder":
        return Folder(tmp_path / "out")
    found: Place = request.getfixturevalue(request.param)
    return found
