"""The stages of ``transforms`` in a pipeline of your own, and a report of rows made elsewhere.

    python docs/examples/own_pipeline.py pairs FOLDER
    python docs/examples/own_pipeline.py report OUTPUT

The first prints a line for each pair of different contents with near wavelet keys: both URIs, the
distance in bits, and the EXIF orientation that turns the first into the second. The second writes a
report of two hand-made rows, one of them a byte-identical copy of the other.
"""

import hashlib
import sys

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner

from transforms import (
    CollapseExact,
    ComputeFingerprints,
    ListImages,
    ProposeByWavelet,
    ReportInput,
    WriteReport,
)
from transforms.packing import unpack
from transforms.records import Candidate, Cap, Content, EdgeRow, GroupRow, ImageRow, StageStats

_RADIUS_BITS = 60


def uri_of(content: Content) -> tuple[bytes, str]:
    """Return the id of a content with the URI of its representative."""
    return content.content, content.uri


def line_of(pair: Candidate, uris: dict[bytes, str]) -> str:
    """Return what is printed of a pair."""
    a, b = uris[pair.a], uris[pair.b]
    return f"{a} {b} {pair.wavelet_distance} bits, orientation {pair.orientation}"


def print_pairs(folder: str) -> None:
    """Print the candidate pairs of a folder."""
    # FnApiRunner is named because DirectRunner may try to download another engine.
    with beam.Pipeline(FnApiRunner()) as pipeline:
        listing = pipeline | "List" >> ListImages([folder])
        measured = listing.found | "Fingerprint" >> ComputeFingerprints()
        contents = measured.fingerprints | "Collapse" >> CollapseExact()
        proposed = contents | "Propose" >> ProposeByWavelet(_RADIUS_BITS)
        uris = contents | "URI by id" >> beam.Map(uri_of)
        pairs = proposed.candidates | "Pairs" >> beam.FlatMap(unpack)
        lines = pairs | "As lines" >> beam.Map(line_of, beam.pvalue.AsDict(uris))
        lines | "Print" >> beam.Map(print)


def hand_made_rows() -> tuple[list[ImageRow], list[GroupRow]]:
    """Return two rows, the second a copy of the first, and the row of their group."""
    content = b"bytes of two files that some other program compared"
    sha256 = hashlib.sha256(content).hexdigest()
    group = "g" + hashlib.sha256(sha256.encode()).hexdigest()[:16]
    best_uri = "file:///photos/a.jpg"
    # Every column must be there; what is not known is None.
    common = dict.fromkeys(ImageRow._fields) | {
        "group_id": group,
        "group_size": 2,
        "best_uri": best_uri,
        "size_bytes": len(content),
        "sha256": sha256,
        "pixel_hash": sha256,
        "keep_reason": "path",
    }
    best = common | {"uri": best_uri, "path": "/photos/a.jpg", "status": "best"}
    copy = common | {
        "uri": "file:///photos/b.jpg",
        "path": "/photos/b.jpg",
        "status": "duplicate",
        "relation": "exact",
        "decided_by": "exact",
    }
    groups = [GroupRow(group, 2, best_uri, "path", 1.0, len(content), 0)]
    return [ImageRow(**best), ImageRow(**copy)], groups


def write_hand_made(output: str) -> None:
    """Write a report of the hand-made rows."""
    images, groups = hand_made_rows()
    with beam.Pipeline(FnApiRunner()) as pipeline:
        rows = ReportInput(
            images=pipeline | "Images" >> beam.Create(images).with_output_types(ImageRow),
            groups=pipeline | "Groups" >> beam.Create(groups).with_output_types(GroupRow),
            edges=pipeline | "Edges" >> beam.Create([]).with_output_types(EdgeRow),
            stats=pipeline | "Statistics" >> beam.Create([]).with_output_types(StageStats),
            caps=pipeline | "Caps" >> beam.Create([]).with_output_types(Cap),
            listed=pipeline | "Listed" >> beam.Create([len(images)]),
        )
        # A run id may not be used twice in one folder.
        rows | "Report" >> WriteReport(output, run_id="hand-made-1")


if __name__ == "__main__":
    command = {"pairs": print_pairs, "report": write_hand_made}
    if len(sys.argv) != 3 or sys.argv[1] not in command:
        sys.exit(__doc__)
    command[sys.argv[1]](sys.argv[2])
