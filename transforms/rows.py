"""The rows of ``images``: one for every input.

In: fingerprints, decisions, failed images, and contents with what was learned of them. Out:
``ImageRow``. Guarantee: every fingerprint and every failed image gives exactly one row.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from transforms.grouping.rank import deciding_rule
from transforms.joins import JoinByKey
from transforms.records import Content, Decision, FailedImage, Fingerprint, ImageRow, Learned

# What a row says of an image's group and of its failures, where there are none.
_ALONE: dict[str, Any] = {
    "status": "unique",
    "group_id": None,
    "group_size": 1,
    "best_uri": None,
    "relation": None,
    "decided_by": None,
    "wavelet_distance": None,
    "color_similarity": None,
    "global_similarity": None,
    "local_inliers": None,
    "local_overlap": None,
    "keep_reason": None,
    "error_stage": None,
    "error_type": None,
    "error_message": None,
}


def row_of(
    image: Fingerprint, decision: Decision | None, learned: Learned | None = None
) -> ImageRow:
    """Return the row of a readable image.

    Args:
        image: what stage 1 measured.
        decision: where its content ended; None if it is alone.
        learned: what a global model made of its content; None where contents are not embedded.

    Returns:
        The row.
    """
    ref = image.ref
    row = ImageRow(
        uri=ref.uri,
        path=ref.path,
        quality_score=image.quality_score,
        width=image.width,
        height=image.height,
        format=image.format,
        size_bytes=ref.size_bytes,
        sharpness=image.sharpness,
        contrast=image.contrast,
        brightness=image.brightness,
        noise=image.noise,
        sha256=image.sha256.hex(),
        pixel_hash=image.pixel_hash.hex(),
        wavelet_key=image.wavelet_keys[:32].hex(),
        metadata_hash=None,
        etag=ref.etag,
        modified=ref.modified_us,
        **(_ALONE if decision is None else _decided(image, decision)),
    )
    return row if learned is None else _with_learned(row, learned)


def _with_learned(row: ImageRow, learned: Learned) -> ImageRow:
    """Return a row with its label and embedding, or with the error where it tells of no other."""
    if learned.error_type and row.error_type is None:
        row = row._replace(
            error_stage=learned.error_stage,
            error_type=learned.error_type,
            error_message=learned.error_message,
        )
    return row._replace(
        label=learned.label or None,
        label_score=learned.label_score if learned.label else None,
        embedding=learned.embedding or None,
    )


def _decided(image: Fingerprint, decision: Decision) -> dict[str, Any]:
    """Return the columns of ``_ALONE`` for an image whose content ended somewhere."""
    columns = _ALONE | {
        "error_stage": decision.error_stage,
        "error_type": decision.error_type,
        "error_message": decision.error_message,
    }
    if not decision.group_id:
        return columns
    columns["group_id"] = decision.group_id
    columns["group_size"] = decision.group_size
    columns["best_uri"] = decision.best_uri
    columns["keep_reason"] = decision.keep_reason
    if image.ref.uri == decision.best_uri:
        columns["status"] = "best"
        return columns
    columns["status"] = "duplicate"
    if image.pixel_hash == decision.kept:
        size = image.ref.size_bytes
        same = image.sha256 == decision.best_sha256 and size == decision.best_size_bytes
        columns["relation"] = "exact" if same else "pixels"
        columns["decided_by"] = "exact"
        columns["keep_reason"] = deciding_rule(decision.best_rank, image.rank)
        return columns
    columns["relation"] = decision.relation
    columns["decided_by"] = decision.decided_by
    columns["wavelet_distance"] = decision.wavelet_distance
    columns["color_similarity"] = decision.color_similarity
    columns["global_similarity"] = decision.global_similarity
    columns["local_inliers"] = decision.local_inliers
    columns["local_overlap"] = decision.local_overlap
    return columns


def failed_row(image: FailedImage) -> ImageRow:
    """Return the row of an input that gave no bytes or no pixels."""
    ref, failure = image.ref, image.failure
    values: dict[str, Any] = dict.fromkeys(ImageRow._fields)
    values |= {
        "uri": ref.uri,
        "path": ref.path,
        "status": "failed",
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "size_bytes": ref.size_bytes,
        "sha256": image.sha256.hex() if image.sha256 else None,
        "etag": ref.etag,
        "modified": ref.modified_us,
        "error_stage": failure.stage,
        "error_type": failure.error_type,
        "error_message": failure.message,
    }
    return ImageRow(**values)


def _by_hash(image: Fingerprint) -> tuple[bytes, Fingerprint]:
    # A row shows the key as it stands; the turned ones and the descriptors have done their work.
    kept = image.wavelet_keys[:32]
    return image.pixel_hash, image._replace(wavelet_keys=kept, color=b"", layout=b"", words=b"")


def _by_content(decision: Decision) -> tuple[bytes, Decision]:
    return decision.content, decision


def _learned_by_content(content: Content) -> Iterator[tuple[bytes, Learned]]:
    if content.learned is not None:
        yield content.content, content.learned


def _by_uri(image: FailedImage) -> tuple[bytes, FailedImage]:
    # Longer than any pixel hash is, or of other bytes. One way for all rows is a step less.
    return b"failed " + image.ref.uri.encode("utf-8", "surrogateescape"), image


def _join(joined: tuple[bytes, dict[str, list[Any]]]) -> Iterator[ImageRow]:
    decision = next(iter(joined[1]["decisions"]), None)
    learned = next(iter(joined[1].get("learned", ())), None)
    for image in joined[1]["images"]:
        yield row_of(image, decision, learned)
    for failed in joined[1]["failed"]:
        yield failed_row(failed)


@dataclasses.dataclass(eq=False)
class AssembleRows(beam.PTransform):
    """Make the row of every input.

    Attributes:
        decisions: where contents ended.
        failed: what gave no bytes or no pixels.
        contents: with what was learned of each; None where none are embedded.
    """

    decisions: beam.PCollection[Decision]
    failed: beam.PCollection[FailedImage]
    contents: beam.PCollection[Content] | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, images: beam.PCollection[Fingerprint]) -> beam.PCollection[ImageRow]:
        """Turn fingerprints, decisions and failures into rows."""
        keyed = images | "Key images" >> beam.Map(_by_hash).with_output_types(
            tuple[bytes, Fingerprint]
        )
        decisions = self.decisions | "Key decisions" >> beam.Map(_by_content).with_output_types(
            tuple[bytes, Decision]
        )
        failed = self.failed | "Key failures" >> beam.Map(_by_uri).with_output_types(
            tuple[bytes, FailedImage]
        )
        tagged = {"images": keyed, "decisions": decisions, "failed": failed}
        types = {"images": Fingerprint, "decisions": Decision, "failed": FailedImage}
        if self.contents is not None:
            tagged["learned"] = self.contents | "Key what was learned" >> beam.FlatMap(
                _learned_by_content
            ).with_output_types(tuple[bytes, Learned])
            types["learned"] = Learned
        return (
            tagged
            | "Join decisions" >> JoinByKey(bytes, types)
            | "Make rows" >> beam.FlatMap(_join).with_output_types(ImageRow)
        )
