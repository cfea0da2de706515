"""The whole dataflow on one page: list, fingerprint, candidates, verify, group, report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apache_beam as beam

from beam_dedup.options import PipelineConfig, cascade_settings, decode_limits
from transforms.candidates import ProposeByWavelet
from transforms.cascade import CascadeSettings, ComparePairs, member_settings
from transforms.components import KeyByComponent, PartitionCandidates
from transforms.contents import CollapseExact
from transforms.fingerprints import ComputeFingerprints
from transforms.groups import ElectBest
from transforms.listing import ListImages
from transforms.report import ReportInput, WriteReport
from transforms.rows import AssembleRows
from transforms.words import ProposeByWords

if TYPE_CHECKING:
    from transforms.embeddings import EmbedContents


def build(pipeline: beam.Pipeline, config: PipelineConfig) -> None:
    """Apply the whole job to a pipeline.

    Args:
        pipeline: to apply the transforms to.
        config: inputs, output and settings, checked by ``beam_dedup.options``.
    """
    listing = pipeline | "List images" >> ListImages(
        list(config.inputs),
        include=config.include,
        exclude=config.exclude,
        output=config.output,
        limit=config.limit,
        bounds=config.bounds(),
        access=config.access,
        cache=config.cache(),
    )
    images = listing.found | "1 Fingerprint" >> ComputeFingerprints(
        decode_limits(config), words=config.settings.word_votes > 0, access=config.access
    )
    contents = images.fingerprints | "Collapse exact copies" >> CollapseExact()
    settings = cascade_settings(config)
    stats, caps = [listing.stats, images.stats], [listing.caps]
    if config.embeds_all:
        embedded = contents | "Embed contents" >> _embedding(config, settings)
        contents = embedded.contents
        stats.append(embedded.stats)

    proposed = [contents | "Wavelet candidates" >> ProposeByWavelet(config.settings.wavelet_bits)]
    if config.settings.word_votes:
        proposed.append(
            images.fingerprints
            | "Word candidates" >> ProposeByWords(contents, config.settings.word_votes)
        )
    if config.candidates == "embedding":
        from transforms.similar import ProposeByEmbedding

        similarity = config.models.global_model.propose_similarity
        proposed.append(contents | "Embedding candidates" >> ProposeByEmbedding(similarity))
    stats += [one.stats for one in proposed]
    caps += [one.caps for one in proposed]
    candidates = tuple(one.candidates for one in proposed)
    components = candidates | "Partition" >> PartitionCandidates()
    caps.append(components.caps)
    keyed = contents | "Key by component" >> KeyByComponent(components.members)
    compared = keyed | "2-4 Compare" >> ComparePairs(settings, components.candidates)
    elected = compared.components | "5 Elect best" >> ElectBest()

    failed = (listing.failed, images.failed) | "All failures" >> beam.Flatten()
    rows = images.fingerprints | "Assemble rows" >> AssembleRows(
        elected.decisions, failed, contents if config.embeds_all else None
    )
    stats += [*compared.stats, elected.stats]
    all_stats = stats | "All statistics" >> beam.Flatten()
    all_caps = caps | "All caps" >> beam.Flatten()
    ReportInput(rows, elected.groups, elected.edges, all_stats, all_caps, listing.listed) | (
        "Write report"
        >> WriteReport(
            config.output,
            config.run_id,
            config.options,
            config.access,
            label_columns=config.models.labels is not None,
            embedding_size=config.embedding_size,
            learned=config.is_learned,
        )
    )


def _embedding(config: PipelineConfig, settings: CascadeSettings) -> EmbedContents:
    """Return the transform that embeds every content as stage 3 would."""
    # Only here: Beam's inference package imports torch where it is installed.
    from transforms.embeddings import EmbedContents

    models = config.models
    return EmbedContents(
        models.global_model,
        member_settings(models),
        models.execution,
        models.labels,
        config.batch_size_global,
        settings.limits,
        config.access,
    )
