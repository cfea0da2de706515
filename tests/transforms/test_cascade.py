"""Stages 2 to 4 as a transform: what leaves them of contents that no pair names."""

import apache_beam as beam
import numpy as np
import pytest
from apache_beam.testing.test_pipeline import TestPipeline
from apache_beam.testing.util import assert_that, equal_to

from beam_dedup.options import cascade_settings, parse
from tests.transforms.samples import make_content
from transforms.cascade import ComparePairs
from transforms.packing import PackedCandidates
from transforms.records import Content, Learned

_VECTOR = np.full(16, 0.25, np.float16).tobytes()


@pytest.mark.parametrize("profile", ["fast", "balanced"])
@pytest.mark.parametrize("embedded", [False, True])
def test_embeddings_stay_behind_and_labels_go_on(profile, embedded):
    words = ["--input=in", "--dry_run", f"--profile={profile}"]
    config, _, _ = parse([*words, *["--write_embeddings"] * embedded])
    learned = Learned(_VECTOR, "cat", 0.5, "", "", "") if embedded else None
    contents = [make_content(name)._replace(learned=learned) for name in "ab"]
    with TestPipeline() as pipeline:
        keyed = tuple(
            pipeline
            | f"Contents {number}"
            >> beam.Create([(one.content, one)]).with_output_types(tuple[bytes, Content])
            for number, one in enumerate(contents)
        )
        none = pipeline | "No pairs" >> beam.Create([]).with_output_types(
            tuple[bytes, PackedCandidates]
        )
        found = keyed | ComparePairs(cascade_settings(config), none)
        left = found.components | beam.FlatMap(lambda joined: joined[1]["contents"])
        slim = learned and learned._replace(embedding=b"")
        assert_that(left, equal_to([one._replace(learned=slim) for one in contents]))
