"""From a run to copies, by the command line alone, with everything in Azure."""

from pathlib import Path

import pytest

from beam_dedup import cli
from tests.azurite import Azurite
from tests.beam_dedup.actions.made import blobs
from tests.beam_dedup.pictures import write_folder

Capture = pytest.CaptureFixture[str]


def test_a_run_and_its_copies_in_azure(
    tmp_path: Path,
    accounts: tuple[Azurite, Azurite],
    capsys: Capture,
) -> None:
    one, two = accounts
    folder = write_folder(tmp_path / "in")
    pictures = {path.name: path.read_bytes() for path in folder.iterdir()}
    container, other = one.container(), two.container()
    one.upload(container, {f"p/{name}": data for name, data in pictures.items()})
    uri = f"azfs://{one.account}/{container}"
    words = [f"--input={uri}/p", f"--output={uri}/report", "--profile=fast", "--workers=1"]
    assert cli.main(["run", *words]) == 0
    assert "4 (2 unique, 1 best, 1 duplicate, 0 failed)" in capsys.readouterr().out
    before = blobs(one, container)
    apply = ["apply", f"--report={uri}/report", "--action=copy", "--execute"]
    for owner, to in ((one, container), (two, other)):
        assert cli.main([*apply, f"--destination=azfs://{owner.account}/{to}/to"]) == 0
        assert "copied         2 (best 1, duplicates 1;" in capsys.readouterr().out
        made = {
            tuple(name.split("/")[::2]): data
            for name, data in blobs(owner, to, "to/").items()
            if name.startswith(("best/", "duplicates/"))
        }
        assert {(kind, name.partition("_")[2]): data for (kind, name), data in made.items()} == {
            ("best", "0.png"): pictures["0.png"],
            ("duplicates", "copy_of_0.png"): pictures["copy of 0.png"],
        }
    after = blobs(one, container)
    assert {name: data for name, data in after.items() if not name.startswith("to/")} == before
