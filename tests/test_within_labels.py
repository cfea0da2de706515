"""Groups within labels: the stages from contents to groups, on pictures with given labels."""

import dataclasses
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that

from beam_dedup.options import cascade_settings, parse
from tests import pictures
from tests.pictures import photo, saved, write
from tests.transforms.samples import make_ref
from transforms.candidates import ProposeByWavelet
from transforms.cascade import CascadeSettings, ComparePairs
from transforms.components import KeyByComponent, PartitionCandidates
from transforms.contents import content_of
from transforms.fingerprints import fingerprint
from transforms.groups import ElectBest
from transforms.imaging.decode import DecodeLimits
from transforms.records import Content, Learned

BITS = 60


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> list[Content]:
    """Return the contents of two pictures with five copies each, which have no labels yet."""
    folder = tmp_path_factory.mktemp("pictures")
    found = []
    for number in (0, 2):
        whole = photo(number)
        copies = {
            "whole": saved(whole),
            "small": saved(pictures.resized(whole, 0.5), quality=80),
            "coarse": saved(whole, quality=40),
            "caption": saved(pictures.captioned(whole)),
            "turned": saved(pictures.turned(whole), quality=85),
            "border": saved(pictures.bordered(whole, 0.05, (255, 255, 255))),
        }
        for name, data in copies.items():
            path = write(folder / f"{name}-{number}.jpg", data)
            ref = make_ref(path.name, uri=path.as_uri(), path=str(path), size_bytes=len(data))
            ref = ref._replace(etag="")
            found.append(content_of(fingerprint(ref, data, DecodeLimits())))
    return found


def _labelled(content: Content, labels: dict[str, str]) -> Content:
    label = labels[Path(content.uri).stem.partition("-")[0]]
    error = ("", "", "") if label else ("global", "bad_embedding", "not finite")
    return content._replace(learned=Learned(b"", label, 0.5 if label else 0.0, *error))


LABELS = {"whole": "cat", "small": "dog", "coarse": "cat", "caption": "dog", "turned": "dog",
          "border": "cat"}  # fmt: skip


def _compare(
    contents: beam.PCollection[Content], settings: CascadeSettings, name: str
) -> beam.PCollection[tuple[str, str, Any]]:
    """Run the stages; give every row with the branch and what it is."""
    proposed = contents | f"{name}: propose" >> ProposeByWavelet(BITS)
    parted = (proposed.candidates,) | f"{name}: partition" >> PartitionCandidates()
    keyed = contents | f"{name}: key" >> KeyByComponent(parted.members)
    compared = keyed | f"{name}: compare" >> ComparePairs(settings, parted.candidates)
    elected = compared.components | f"{name}: elect" >> ElectBest()
    rows = {"decision": elected.decisions, "group": elected.groups, "edge": elected.edges}
    return [
        some | f"{name}: {kind}" >> beam.Map(lambda row, kind=kind: (name, kind, row))
        for kind, some in rows.items()
    ] | f"{name}: rows" >> beam.Flatten()


def _of(found: list[tuple[str, str, Any]], branch: str, kind: str) -> list[Any]:
    return sorted(row for one, what, row in found if (one, what) == (branch, kind))


@pytest.mark.parametrize("profile", ["fast", "balanced"])
def test_no_group_spans_two_labels(contents: list[Content], profile: str) -> None:
    config, _, _ = parse(["--input=x", "--dry_run", f"--profile={profile}"])
    free = dataclasses.replace(cascade_settings(config), rounds=1)
    bound = dataclasses.replace(free, color=dataclasses.replace(free.color, within_label=True))
    labelled = [_labelled(content, LABELS) for content in contents]
    partly = [_labelled(content, LABELS | {"coarse": ""}) for content in contents]
    label = {content.content: content.learned.label for content in labelled if content.learned}
    number = {one.content: one.uri.rpartition("-")[2] for one in contents}
    name = {one.content: Path(one.uri).stem.partition("-")[0] for one in contents}
    stem = {one.uri: Path(one.uri).stem.partition("-")[0] for one in contents}

    def check(found: list[tuple[str, str, Any]]) -> None:
        for kind in ("decision", "group", "edge"):
            assert _of(found, "plain", kind) == _of(found, "labelled", kind)
        free_ones = _of(found, "labelled", "decision")
        assert {label[one.content] != label[one.kept] for one in free_ones} == {True, False}
        for one in _of(found, "within", "decision"):
            assert label[one.content] == label[one.kept]
            assert number[one.content] == number[one.kept]
        # Within its label each copy is found as without labels.
        grouped = [name[one.content] for one in _of(found, "within", "decision")]
        assert set(grouped) >= {"whole", "coarse", "small", "turned"}
        # An edge between labels says that they parted it, and that nothing else was asked.
        parted = [
            edge
            for edge in _of(found, "within", "edge")
            if LABELS[stem[edge.uri_a]] != LABELS[stem[edge.uri_b]]
        ]
        assert {(edge.verdict, edge.decided_by) for edge in parted} == {("reject", "global")}
        assert {edge.color_similarity for edge in parted} == {None}
        # A copy that could not be embedded is in no group, and its row says why.
        failed = [one for one in _of(found, "partly", "decision") if name[one.content] == "coarse"]
        assert len(failed) == (2 if profile == "fast" else 0)
        for one in failed:
            assert (one.group_id, one.relation) == ("", None)
            assert (one.error_stage, one.error_type) == ("global", "bad_embedding")

    with TestPipeline() as pipeline:
        branches = [
            ("plain", contents, free),
            ("labelled", labelled, free),
            ("within", labelled, bound),
            ("partly", partly, bound),
        ][: 4 if profile == "fast" else 3]  # a branch of all stages takes its time
        rows = [
            _compare(pipeline | branch >> beam.Create(some), settings, branch)
            for branch, some, settings in branches
        ]
        assert_that(rows | beam.Flatten(), check)
