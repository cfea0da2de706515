"""The dataflow: what its transforms get of a config, and that no transform is there for nothing."""

import dataclasses
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor

from beam_dedup.options import PipelineConfig, parse
from beam_dedup.pipeline import build
from tests.beam_dedup.pictures import write_folder
from transforms.models.spec import Execution, GlobalModel, Labels


class _Gather(PipelineVisitor):
    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def enter_composite_transform(self, transform_node: AppliedPTransform) -> None:
        self.found[type(transform_node.transform).__name__] = transform_node.transform


def _config(folder: Path, *words: str) -> PipelineConfig:
    inputs = write_folder(folder / "in")
    base = [f"--input={inputs}", f"--output={folder / 'out'}", "--profile=fast"]
    return parse([*base, *words])[0]


def _transforms(config: PipelineConfig) -> dict[str, Any]:
    pipeline, visitor = beam.Pipeline(), _Gather()
    build(pipeline, config)
    pipeline.visit(visitor)
    return visitor.found


def _with_model(config: PipelineConfig, **fields: Any) -> PipelineConfig:
    model = dataclasses.replace(config.models.global_model, **fields)
    return dataclasses.replace(
        config, models=dataclasses.replace(config.models, global_model=model)
    )


def test_nothing_embeds_where_nobody_asks(tmp_path: Path) -> None:
    found = _transforms(_config(tmp_path))
    assert found.keys().isdisjoint({"EmbedContents", "ProposeByEmbedding"})
    assert found["AssembleRows"].contents is None
    assert (found["WriteReport"].embedding_size, found["WriteReport"].label_columns) == (
        None,
        False,
    )


def test_candidates_are_those_of_the_models_own_cosine(tmp_path: Path) -> None:
    config = _config(tmp_path, "--candidates=embedding")
    found = _transforms(_with_model(config, propose_similarity=0.63))
    assert found["ProposeByEmbedding"].similarity == 0.63
    # Nobody asked for the vectors themselves.
    assert found["WriteReport"].embedding_size is None


def test_pictures_are_embedded_as_the_options_say(tmp_path: Path) -> None:
    words = ["--write_embeddings", "--batch_size_global=5", "--max_pixels=12345"]
    config = _config(tmp_path, *words, "--read_concurrency=3")
    labels, cpu = Labels(("cat",), bytes(4 * 231), 1.0), Execution("cpu")
    models = dataclasses.replace(config.models, labels=labels, execution=cpu)
    config = dataclasses.replace(config, models=models)
    found = _transforms(config)
    embeds = found["EmbedContents"]
    assert embeds.model == config.models.global_model
    assert (embeds.labels, embeds.execution) == (labels, cpu)
    assert (embeds.batch_size, embeds.limits.max_pixels) == (5, 12345)
    assert embeds.access.concurrency == 3
    assert "ProposeByEmbedding" not in found
    assert (found["WriteReport"].embedding_size, found["WriteReport"].label_columns) == (231, True)
    assert found["AssembleRows"].contents is not None


@pytest.mark.parametrize(
    ("words", "learned"),
    [
        (["--profile=fast", "--write_embeddings"], (False, True, False)),
        (["--profile=balanced"], (False, True, True)),
        (["--profile=fast"], (False, False, False)),
    ],
)
def test_the_summary_names_libraries_of_models_that_decide(
    tmp_path: Path, words: list[str], learned: tuple[bool, bool, bool]
) -> None:
    config = _config(tmp_path, *words)
    models = config.models
    matcher = dataclasses.replace(models.local_model, kind="loftr")
    matched = dataclasses.replace(models, local_model=matcher)
    network = GlobalModel("onnx:a", "onnx")
    embedded = dataclasses.replace(models, global_model=network)
    of_both = [
        dataclasses.replace(config, models=some).is_learned for some in (models, embedded, matched)
    ]
    assert tuple(of_both) == learned


def test_a_report_is_told_of_learned_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _config(tmp_path)
    assert not _transforms(config)["WriteReport"].learned
    monkeypatch.setattr(PipelineConfig, "is_learned", True)
    assert _transforms(config)["WriteReport"].learned
