"""The whole dataflow on one page: list, fingerprint, candidates, verify, group, report."""

import apache_beam as beam

from beam_dedup.options import PipelineConfig, cascade_settings, decode_limits
from transforms.candidates import ProposeByWavelet
from transforms.cascade import ComparePairs
from transforms.components import KeyByComponent, PartitionCandidates
from transforms.contents import CollapseExact
from transforms.fingerprints import ComputeFingerprints
from transforms.groups import ElectBest
from transforms.listing import ListImages
from transforms.report import ReportInput, WriteReport
from transforms.rounds import ComponentInputs
from transforms.rows import AssembleRows


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
    )
    images = listing.found | "1 Fingerprint" >> ComputeFingerprints(decode_limits(config))
    contents = images.fingerprints | "Collapse exact copies" >> CollapseExact()

    settings = cascade_settings(config)
    candidates, search_stats = contents | "Wavelet candidates" >> ProposeByWavelet(
        config.settings.wavelet_bits
    )
    components = candidates | "Partition" >> PartitionCandidates()
    keyed = contents | "Key by component" >> KeyByComponent(components.members)
    compared = keyed.paired | "2-4 Compare" >> ComparePairs(settings, components.candidates)

    joined = ComponentInputs(keyed.all, None, compared.edges).join("5 ")
    elected = joined | "5 Elect best" >> ElectBest()

    failed = (listing.failed, images.failed) | "All failures" >> beam.Flatten()
    rows = images.fingerprints | "Assemble rows" >> AssembleRows(elected.decisions, failed)
    stats = (
        listing.stats,
        images.stats,
        search_stats,
        *compared.stats,
        elected.stats,
    ) | "All statistics" >> beam.Flatten()
    ReportInput(rows, elected.groups, elected.edges, stats, listing.caps, listing.listed) | (
        "Write report" >> WriteReport(config.output, config.run_id, config.options)
    )
