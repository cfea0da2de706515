"""The report writer: anyone's rows in, a folder of Parquet files with a manifest out.

In: ``ImageRow``, ``GroupRow`` and ``EdgeRow`` elements with the statistics of the stages. Out: the
files written. Guarantee: each row stands once in a file that the manifest names, also where
bundles run twice. Failures: rows that do not add up to the listing, and two rows with one key,
raise, and no manifest is written.
"""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import platform
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.utils.windowed_value import WindowedValue

from transforms.access import LOCAL, Access
from transforms.outputs import in_global_window, several_outputs
from transforms.records import (
    Cap,
    EdgeRow,
    GroupRow,
    ImageRow,
    ReportFile,
    RequestCount,
    StageStats,
)
from transforms.reporting.manifest import publish_report
from transforms.reporting.schema import (
    EMBEDDING,
    TABLES,
    Table,
    embedding_size,
    images_table,
    pack_rows,
    parquet_options,
    unpack_rows,
)
from transforms.reporting.store import Drafts, Store
from transforms.reporting.stores import open_store
from transforms.reporting.summary import (
    EMPTY,
    Gathered,
    Tally,
    check_counts,
    summarise,
    tally,
)
from transforms.storage import traffic

# A shard's rows are sorted in memory, so shards are small; from a million inputs on they grow, so
# that their number stays in the hundreds.
_SHARD_ROWS = 5_000
_MAX_SHARD_ROWS = 50_000
_SHARDS = 200
_ROW_GROUP_ROWS = 2_500
_PACKED_ROWS = 4_000  # rows held before they are packed
# Of a row but for its embedding, in memory; with embeddings there are as many bytes in a shard and
# in what is held before it is packed, in fewer rows.
_ROW_BYTES = 2_000
# It begins file names, which may not be hidden and are limited to 255 bytes with all additions.
_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,99}")
_VERSION = re.compile(r"^Version: *(\S+)$", re.MULTILINE)
_PACKAGES = (
    "beam-dedup",
    "apache-beam",
    "isal",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "pi-heif",
    "pyarrow",
    "scipy",
    "simplejpeg",
)
#: Libraries of which learned models are made.
MODEL_PACKAGES = ("kornia", "onnxruntime", "open_clip_torch", "timm", "torch", "torchvision")


class ReportInput(NamedTuple):
    """What a report is written of."""

    images: beam.PCollection[ImageRow]
    groups: beam.PCollection[GroupRow]
    edges: beam.PCollection[EdgeRow]
    stats: beam.PCollection[StageStats]
    caps: beam.PCollection[Cap]
    listed: beam.PCollection[int]  # adds up to how many rows of images there must be


class _Shard(NamedTuple):
    """A file that was written and what its rows add up to."""

    file: ReportFile
    counts: list[tuple[str, int]]
    quality: list[int]
    requests: list[RequestCount]  # of its process, that nobody has told of yet


beam.coders.registry.register_coder(_Shard, beam.coders.FastPrimitivesCoder)


def shard_count(rows: int, embedding_size: int = 0) -> int:
    """Return into how many files the rows of that many inputs go; at least one.

    Args:
        rows: one for each input.
        embedding_size: values of the embedding in each row.
    """
    most = _fewer(_MAX_SHARD_ROWS, embedding_size)
    size = min(max(_SHARD_ROWS, rows // _SHARDS), most)
    return max(1, -(-rows // size))


def _fewer(rows: int, embedding_size: int) -> int:
    """Return how many rows with an embedding are as many bytes as so many without."""
    return max(1, rows * _ROW_BYTES // (_ROW_BYTES + 2 * embedding_size))


def shard_path(table: str, run_id: str, number: int) -> str:
    """Return a shard's path, relative to the output folder."""
    return f"{table}/{run_id}-{number:05d}.parquet"


class _PackDoFn(beam.DoFn):
    """Packs a bundle's rows by shard, as Arrow batches; a row's shard follows from its key.

    Rows one by one would cost more in the shuffle than everything else about them.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.width = embedding_size(table.schema)
        self.most = _fewer(_PACKED_ROWS, self.width)

    def start_bundle(self) -> None:
        self._empty()
        self.shards = 0

    def process(self, row: Any, listed: Iterable[int]) -> Iterable[tuple[int, bytes]]:
        self.shards = self.shards or shard_count(sum(listed), self.width)
        key = "\0".join(row[: len(self.table.keys)])
        self.rows.setdefault(zlib.crc32(key.encode()) % self.shards, []).append(row)
        self.held += 1
        return self._packed() if self.held >= self.most else ()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for packed in self._packed():
            yield in_global_window(packed)

    def _packed(self) -> list[tuple[int, bytes]]:
        packed = [(shard, pack_rows(self.table, rows)) for shard, rows in self.rows.items()]
        self._empty()
        return packed

    def _empty(self) -> None:
        self.rows: dict[int, list[Any]] = {}
        self.held = 0


def _write_shard(store: Store, run_id: str, number: int, table: Table, rows: pa.Table) -> _Shard:
    """Write sorted rows as a shard."""
    path = shard_path(table.name, run_id, number)
    total = EMPTY
    with store.drafts() as drafts:
        with (
            drafts.write(path) as file,
            pq.ParquetWriter(file, table.schema, **parquet_options(table.schema)) as writer,
        ):
            for start in range(0, len(rows), _ROW_GROUP_ROWS):
                part = rows.slice(start, _ROW_GROUP_ROWS)
                writer.write_table(part)
                total = total.plus(tally(table.name, part))
        described = drafts.describe(path, len(rows))
        drafts.publish()
    return _Shard(described, sorted(total.counts.items()), total.quality, traffic.take())


class _WriteShardDoFn(beam.DoFn):
    def __init__(self, table: Table, store: Store, run_id: str) -> None:
        self.table = table
        self.store = store
        self.run_id = run_id

    def process(self, packed: tuple[int, Iterable[bytes]]) -> Iterator[_Shard]:
        rows = unpack_rows(self.table, packed[1])
        rows = rows.sort_by([(key, "ascending") for key in self.table.keys]).combine_chunks()
        first, second = rows.slice(0, len(rows) - 1), rows.slice(1)
        same = [pc.equal(first[key], second[key]) for key in self.table.keys]
        doubled = first.filter(functools.reduce(pc.and_, same))
        if len(doubled):
            # A row's shard follows from its key, so two of a kind always meet here.
            key = tuple(doubled[key][0].as_py() for key in self.table.keys)
            raise ValueError(f"{self.table.name} has two rows {key!r}: no report is written")
        yield _write_shard(self.store, self.run_id, packed[0], self.table, rows)


@dataclasses.dataclass(eq=False)
class _WriteTable(beam.PTransform):
    table: Table
    store: Store
    run_id: str
    listed: beam.PCollection[int]

    def __post_init__(self) -> None:
        super().__init__()

    def expand(self, rows: beam.PCollection) -> beam.PCollection[_Shard]:
        # All tables are cut by the number of inputs, which is known before any row is.
        return (
            rows
            | "Pack by shard"
            >> beam.ParDo(_PackDoFn(self.table), beam.pvalue.AsList(self.listed)).with_output_types(
                tuple[int, bytes]
            )
            | "Gather" >> beam.GroupByKey()
            | "Write"
            >> beam.ParDo(_WriteShardDoFn(self.table, self.store, self.run_id)).with_output_types(
                _Shard
            )
        )


# A spreadsheet takes cells that start so for formulas (CWE-1236), some also after blanks; the last
# four are the full-width forms of the first four.
_FORMULA_STARTS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_HIDING_STARTS = ("\t", "\r", "\n", "\0")
# One of these is in every column of which a text is not its own cell, and in few others.
_UNUSUAL = r'^[^A-Za-z0-9/]|[,"\r\n]'
_QUOTED = frozenset(',"\r\n')


def csv_cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    if text.startswith(_HIDING_STARTS) or text.lstrip().startswith(_FORMULA_STARTS):
        return "'" + text
    return text


def _quoted(cell: str) -> str:
    """Return a cell as it stands in the file, see RFC 4180."""
    return cell if _QUOTED.isdisjoint(cell) else '"' + cell.replace('"', '""') + '"'


def _csv_column(column: pa.ChunkedArray) -> list[str]:
    """Return a column's cells as they stand in the file; nothing stands for null."""
    if pa.types.is_timestamp(column.type):
        # Arrow has a text for every time; Python's datetime refuses years beyond 9999.
        utc = pc.cast(pc.cast(column, pa.timestamp("us")), pa.string())
        column = pc.binary_join_element_wise(utc, "Z", "")
    elif not pa.types.is_string(column.type):
        values = column.to_pylist()
        if column.null_count:
            return ["" if value is None else repr(value) for value in values]
        return list(map(repr, values))
    cells: list[str] = pc.fill_null(column, "").to_pylist()
    if pc.any(pc.match_substring_regex(column, _UNUSUAL)).as_py():
        return [_quoted(csv_cell(cell)) for cell in cells]
    return cells


def _write_csv(
    store: Store, drafts: Drafts, path: str, columns: list[str], shards: list[ReportFile]
) -> ReportFile:
    rows = 0
    with drafts.write(path) as file:
        file.write(f"{','.join(columns)}\r\n".encode())
        for shard in shards:
            with store.open(shard.path) as source:
                for batch in pq.ParquetFile(source).iter_batches(_ROW_GROUP_ROWS, columns=columns):
                    table = pa.Table.from_batches([batch])
                    lines = zip(*(_csv_column(table[name]) for name in columns), strict=True)
                    file.write("".join([f"{','.join(line)}\r\n" for line in lines]).encode())
                    rows += len(table)
    return drafts.describe(path, rows)


@dataclasses.dataclass(eq=False)
class _FinishDoFn(beam.DoFn):
    """Writes what stands for the whole run, the manifest last."""

    store: Store
    run_id: str
    options: dict[str, Any]
    versions: dict[str, str]
    tables: dict[str, Table]

    def __post_init__(self) -> None:
        super().__init__()

    def process(
        self,
        _: object,
        shards: list[_Shard],
        stats: list[StageStats],
        caps: list[Cap],
        listed: list[int],
    ) -> Iterator[ReportFile]:
        shards = [*shards, *self._empty_tables(shards)]
        total = EMPTY
        for shard in shards:
            total = total.plus(Tally(dict(shard.counts), shard.quality))
        stages: dict[str, list[StageStats]] = {}
        for part in stats:
            stages.setdefault(part.stage, []).append(part)
        gathered = Gathered(sum(listed), total, stages, caps)
        check_counts(gathered)
        files = sorted(shard.file for shard in shards)
        images = [file for file in files if file.path.startswith("images/")]
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with self.store.drafts() as drafts:
            # A table for people has no room for a vector in a cell.
            columns = [n for n in self.tables["images"].schema.names if n != EMBEDDING]
            files.append(_write_csv(self.store, drafts, "report.csv", columns, images))
            # As late as can be: what is asked of the store for the summary itself is not in it.
            requests = [*(one for shard in shards for one in shard.requests), *traffic.take()]
            gathered = gathered._replace(requests=requests)
            summary = summarise(self.run_id, gathered, self.options, self.versions)
            with drafts.write("summary.json") as out:
                out.write(json.dumps(summary, indent=1, default=str).encode())
            files.append(drafts.describe("summary.json", None))
            publish_report(self.store, drafts, self.run_id, created, summary["counts"], files)
        yield from files

    def _empty_tables(self, shards: list[_Shard]) -> Iterator[_Shard]:
        """Write a file for each table that has no rows, so that readers find its schema."""
        written = {shard.file.path.partition("/")[0] for shard in shards}
        for name in self.tables.keys() - written:
            table = self.tables[name]
            yield _write_shard(self.store, self.run_id, 0, table, table.schema.empty_table())


def library_versions(*, learned: bool = False) -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide rows; imports none of them.

    Args:
        learned: whether learned models decide too.
    """
    versions = {"python": platform.python_version()}
    for name in (*_PACKAGES, *(MODEL_PACKAGES if learned else ())):
        try:
            package = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
            continue
        # To have all of a package's description parsed for it takes five times as long.
        found = _VERSION.search(package.read_text("METADATA") or "")
        versions[name] = found[1] if found else package.version
    return versions


@dataclasses.dataclass(eq=False)
class WriteReport(beam.PTransform):
    """Write a report of anyone's rows.

    Attributes:
        output: a folder, as a path, a ``file://`` URI, or ``azfs://account/container/prefix``.
        run_id: names the run's files; ASCII letters, digits and hyphens, new for every run.
        options: what the summary records; must hold no secret.
        access: how a store is reached that is not local.
        label_columns: whether images have ``label`` and ``label_score``.
        embedding_size: values of the vectors in the column ``embedding``; None for no such column.
        learned: whether the rows are of learned models, whose libraries the summary then names.

    Example::

        ReportInput(images, groups, edges, stats, caps, listed) | WriteReport("/tmp/out", "run-1")
    """

    output: str
    run_id: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    access: Access = LOCAL
    label_columns: bool = False
    embedding_size: int | None = None
    learned: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        images = images_table(labels=self.label_columns, embedding_size=self.embedding_size)
        self.tables = {**TABLES, images.name: images}
        # Workers may have another working folder, so they get the absolute one.
        self.store = open_store(self.output, self.access)
        if not _RUN_ID.fullmatch(self.run_id):
            raise ValueError(
                "run_id must be of 1 to 100 ASCII letters, digits and hyphens, a hyphen not first, "
                f"not {self.run_id!r}"
            )

    @several_outputs
    def expand(self, rows: ReportInput) -> beam.PCollection[ReportFile]:
        """Turn rows into files."""
        shards = [
            getattr(rows, name)
            | f"Write {name}" >> _WriteTable(table, self.store, self.run_id, rows.listed)
            for name, table in self.tables.items()
        ]
        return (
            rows.images.pipeline
            | "Start the end" >> beam.Impulse()
            | "Write summary and manifest"
            >> beam.ParDo(
                _FinishDoFn(
                    self.store,
                    self.run_id,
                    self.options,
                    library_versions(learned=self.learned),
                    self.tables,
                ),
                beam.pvalue.AsList(shards | "All shards" >> beam.Flatten()),
                beam.pvalue.AsList(rows.stats),
                beam.pvalue.AsList(rows.caps),
                beam.pvalue.AsList(rows.listed),
            ).with_output_types(ReportFile)
        )
