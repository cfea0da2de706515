"""What a job lets go of when it has run learned models."""

import dataclasses

import pytest

from beam_dedup import job
from beam_dedup.options import parse
from transforms.models import session
from transforms.models.spec import Execution


@pytest.mark.parametrize(
    ("execution", "freed"),
    [
        (Execution(), []),
        (Execution(job="one"), ["models"]),
        (Execution(job="one", shared=True), ["models", "one"]),
    ],
)
def test_models_and_what_was_shared_are_let_go(
    execution: Execution, freed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(session, "free_models", lambda: told.append("models"))
    monkeypatch.setattr(session, "forget_shared", lambda given: told.append(given.job))
    config, _, _ = parse(["--input=in", "--output=out"])
    models = dataclasses.replace(config.models, execution=execution)
    job._free_models(dataclasses.replace(config, models=models))
    assert told == freed
