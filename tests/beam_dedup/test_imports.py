"""Beam without what an embedded run never uses, and with it for everybody else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = """
import json, logging, sys
from beam_dedup.imports import import_beam

class Listener(logging.Handler):
    said = []
    def emit(self, record):
        self.said.append(record.name)

logging.getLogger().addHandler(Listener())
{body}
unused = ("apache_beam.io.azure.blobstoragefilesystem", "azure.identity", "pymongo", "bson",
    "beartype.door", "httplib2", "yaml", "asyncio", "grpc.aio", "proto", "urllib.request")
said = [name for name in Listener.said if "mongo" in name]
print(json.dumps([[name for name in unused if name in sys.modules], said]))
"""


def _run(body: str) -> list[list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(body=body)],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_beam_comes_without_the_clients_of_stores_and_says_nothing() -> None:
    body = "import_beam()\nimport apache_beam\nassert apache_beam.Pipeline"
    assert _run(body) == [[], []]


def test_what_was_left_out_can_be_imported_afterwards() -> None:
    pytest.importorskip("pymongo")
    assert _run("import_beam()\nimport bson") == [["bson"], []]


def test_a_beam_that_is_there_stays_as_it_is() -> None:
    body = "import apache_beam\nbefore = set(sys.modules)\nimport_beam()"
    assert _run(f"{body}\nassert set(sys.modules) == before")[1] == []


def test_a_function_that_beam_has_for_later_is_the_real_one_when_it_is_called() -> None:
    body = (
        "import_beam()\nassert 'yaml' not in sys.modules\n"
        "from apache_beam.transforms import external\n"
        "text = external.yaml.dump({'a': [1]}, default_flow_style=True)\n"
        "import yaml\nassert yaml.safe_load(text) == {'a': [1]} and external.yaml is not yaml\n"
        "from apache_beam.typehints import typehints\n"
        "assert typehints.is_subhint(bool, int) and not typehints.is_subhint(str, int)"
    )
    assert _run(body) == [["beartype.door", "yaml"], []]


def test_arrow_computes_without_the_documentation_of_its_functions() -> None:
    body = (
        "import_beam()\nimport pyarrow as pa, pyarrow.compute as pc\n"
        "assert 'pyarrow.vendored.docscrape' not in sys.modules\n"
        "assert pc.sum(pa.array([1, 2])).as_py() == 3\n"
        "assert pc.match_substring_regex(pa.array(['ab']), pattern='b$').to_pylist() == [True]\n"
        "from pyarrow.vendored import docscrape\n"
        "assert docscrape.NumpyDocString('Of.')['Summary'] == ['Of.']"
    )
    assert _run(body) == [[], []]


def test_beam_reads_no_source_of_its_own_and_traces_are_as_they_were() -> None:
    body = (
        "import linecache, traceback\nbefore = traceback.format_stack\nimport_beam()\n"
        "assert not [name for name in linecache.cache if 'apache_beam' in name]\n"
        "assert traceback.format_stack is before and traceback.format_stack()"
    )
    assert _run(body) == [[], []]


def test_blas_has_one_thread_unless_the_user_says_otherwise() -> None:
    body = "import os\nimport_beam()\nassert os.environ['OMP_NUM_THREADS'] == {threads!r}"
    assert _run(body.format(threads="1")) == [[], []]
    given = "import os\nos.environ['OMP_NUM_THREADS'] = '3'\n"
    assert _run(given + body.format(threads="3")) == [[], []]


def test_arrow_takes_memory_from_the_heap_unless_the_user_says_otherwise() -> None:
    body = "import_beam()\nimport pyarrow\nname = pyarrow.default_memory_pool().backend_name\n"
    assert _run(body + "assert name == 'system'") == [[], []]
    given = "import os\nos.environ['ARROW_DEFAULT_MEMORY_POOL'] = 'mimalloc'\n"
    assert _run(given + body + "assert name == 'mimalloc'") == [[], []]


def test_numpy_is_loaded_after_the_number_of_its_threads_is_set() -> None:
    assert _run("import beam_dedup.cli, beam_dedup.worker\nassert 'numpy' not in sys.modules") == [
        [],
        [],
    ]


def test_libraries_of_google_get_the_classes_that_they_take(tmp_path: Path) -> None:
    # As oauth2client does, which Beam's extra gcp brings: it makes an object when it is imported.
    package = tmp_path / "apitools" / "base" / "py"
    package.mkdir(parents=True)
    for folder in (package, *list(package.parents)[:2]):
        (folder / "__init__.py").write_text("")
    (package / "exceptions.py").write_text(
        "import httplib2\nHTTP = httplib2.Http()\n"
        "class HttpError(httplib2.HttpLib2Error):\n    pass\n"
    )
    body = (
        f"sys.path.insert(0, {str(tmp_path)!r})\nimport_beam()\n"
        "from apitools.base.py.exceptions import HttpError\n"
        "assert issubclass(HttpError, Exception)"
    )
    assert "httplib2" in _run(body)[0]
