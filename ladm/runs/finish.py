"""Sealed units -> the finished run: `scores.parquet`, `errors.jsonl` and `sorted_by_score.jsonl`.

The sorted file is put in place last; a run is finished when all three are present. DuckDB sorts a throw-away Parquet
file, spilling to disk, so that memory stays flat whatever the number of rows. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from ladm.errors import StorageError, one_line
from ladm.runs.folder import Run
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, SORTED_FILE
from ladm.runs.lines import StoredLine
from ladm.runs.records import Column, ScoredRow
from ladm.runs.results import digests_in_metadata
from ladm.settings.common import NAME_COLUMNS
from ladm.storage.checked_parquet import add_checksum
from ladm.storage.digests import file_xxh3
from ladm.storage.files import SORTING_PREFIX, arrow_path, io_errors, replacing, write_whole

ROWS_AT_A_TIME = 10_000
SORT_MEMORY = "1GB"

# An index is a number in one data set and text in another. Each has a sort key for either, one of them NULL, so that
# numbers sort as numbers: 9 before 10.
_KEYS = [
    ("index_number", pa.int64()),
    ("index_text", pa.string()),
    ("chunk_number", pa.int64()),
    ("chunk_text", pa.string()),
    ("position", pa.int64()),
]
LABELS = (("index", "index_number", "index_text"), ("chunked_index", "chunk_number", "chunk_text"))
"""A label of a result and the two sort keys that hold it, as a number or as text."""
_SHOWN = [("score", pa.float64()), ("meta", pa.string()), ("num_tokens", pa.int64())]
_LINE = ("line", pa.string())
"""A row of the sorted file without its rank: what follows `{"rank": 1, `."""
RESULT_FIELDS = frozenset(("rank", "index", "chunked_index", "position", *(name for name, _ in _SHOWN)))
"""Columns that every `scores.parquet` has; the others are the scorer's."""
_SORT = """
    SELECT * FROM read_parquet($staged)
    ORDER BY score DESC, index_number NULLS FIRST, index_text NULLS FIRST,
             chunk_number NULLS FIRST, chunk_text NULLS FIRST, position
"""


def finish(run: Run) -> None:
    """Write the three result files from the sealed units. Does nothing to a finished run.

    Raises IncompleteError when a unit is not sealed, StorageError for a damaged one.
    """
    if run.is_finished:
        return
    with sorting(run.folder) as staged:
        # One pass over the units serves two files: scored rows go to `staged` while the errors are yielded.
        write_whole(run.folder / ERRORS_FILE, _stage(run, staged))
        write_sorted(run.folder, staged)


@contextlib.contextmanager
def sorting(folder: Path) -> Iterator[Path]:
    """A throw-away file for the rows to be sorted. Raises StorageError for what the disk or the sort refuses."""
    with io_errors(folder, "sort in"):
        temporary = Path(tempfile.mkdtemp(prefix=SORTING_PREFIX, dir=folder))
        try:
            yield temporary / "staged.parquet"
        except (duckdb.Error, pa.ArrowException) as error:
            raise StorageError(f"cannot sort in {temporary}: {one_line(error)}") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _stage(run: Run, staged: Path) -> Iterator[bytes]:
    """Write the scored rows to `staged`, and yield the lines of the rows without a score."""
    writer: pq.ParquetWriter | None = None
    try:
        for unit in run.units:
            lines = run.read_sealed_lines(unit)
            scored = [line for line in lines if isinstance(line.record, ScoredRow)]
            # The first scored row decides the columns; a run without any still gets a file with the fixed ones.
            if writer is None and (scored or unit.stop == run.num_rows):
                writer = staging(staged, staged_schema(_columns_of(scored)))
            if writer is not None:
                writer.write_table(_staged_table(scored, writer.schema))
            yield from (line.text.encode() + b"\n" for line in lines if not isinstance(line.record, ScoredRow))
    finally:
        if writer is not None:
            writer.close()


def _columns_of(scored: Sequence[StoredLine]) -> list[tuple[str, pa.DataType]]:
    """Name and type of the columns that name a document, and of the scorer's: a number, or one a layer or head."""
    columns: dict[str, Column] = {}
    names: list[str] = []
    if scored and isinstance(scored[0].record, ScoredRow):
        columns = dict(scored[0].record.columns)
        names = [name for name in NAME_COLUMNS if name in scored[0].record.names]
    return [(name, pa.string()) for name in names] + [
        (name, pa.list_(pa.float32()) if isinstance(value, list) else pa.float32()) for name, value in columns.items()
    ]


def staged_schema(columns: Sequence[tuple[str, pa.DataType]]) -> pa.Schema:
    """The columns of the rows to be sorted; `columns`: those of the scorer."""
    return pa.schema([*_KEYS, *_SHOWN, *columns, _LINE])


def staging(staged: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of rows to be sorted; uncompressed, because they are read once."""
    return pq.ParquetWriter(
        arrow_path(staged), schema, compression="none", use_dictionary=False, write_statistics=False
    )


def _staged_table(scored: Sequence[StoredLine], schema: pa.Schema) -> pa.Table:
    rows = [line.record for line in scored if isinstance(line.record, ScoredRow)]
    made: dict[str, list[Any]] = {
        "position": [row.position for row in rows],
        "score": [row.score for row in rows],
        "num_tokens": [row.num_tokens for row in rows],
        "meta": [json.dumps(row.meta, ensure_ascii=False) for row in rows],
        # The text as it stands in the unit: encoding the row again would cost as much as everything else here.
        "line": [line.result for line in scored],
    }
    for column, number, text in LABELS:
        labels = [getattr(row, column) for row in rows]
        made[number] = [label if isinstance(label, int) else None for label in labels]
        made[text] = [label if isinstance(label, str) else None for label in labels]
    made |= {name: [row.names.get(name) for row in rows] for name in NAME_COLUMNS}
    columns = {name: made[name] if name in made else [row.columns[name] for row in rows] for name in schema.names}
    return pa.table(columns, schema=schema)


def write_sorted(folder: Path, staged: Path) -> None:
    """Write the rows of `staged` in order into both result files."""
    # Few threads and little memory: the model may still be loaded, and DuckDB would take 80 % of what there is.
    settings = {"threads": 2, "memory_limit": SORT_MEMORY, "temp_directory": arrow_path(staged.parent / "spill")}
    with contextlib.closing(duckdb.connect(":memory:", config=settings)) as engine:
        schema = _result_schema(engine, staged)
        with (
            # Contexts close in the reverse order: the Parquet file is in place before the sorted one, whose presence
            # completes the run.
            replacing(folder / SORTED_FILE) as lines_path,
            replacing(folder / PARQUET_FILE) as parquet_path,
            lines_path.open("wb") as lines,
            pq.ParquetWriter(arrow_path(parquet_path), schema, write_page_checksum=True) as parquet,
        ):
            rank, digest = 0, xxhash.xxh3_128()
            for batch in engine.sql(_SORT, params={"staged": arrow_path(staged)}).to_arrow_reader(ROWS_AT_A_TIME):
                texts = batch["line"].to_pylist()
                block = "".join(f'{{"rank": {rank + k}, {text}\n' for k, text in enumerate(texts, 1)).encode()
                lines.write(block)
                digest.update(block)
                parquet.write_batch(_result_batch(batch, rank, schema))
                rank += len(texts)
            # Of the files without checksums of their own, so that none of the three is damaged in silence.
            errors_digest = file_xxh3(folder / ERRORS_FILE)
            digests = {SORTED_FILE: digest.hexdigest(), ERRORS_FILE: errors_digest}
            parquet.add_key_value_metadata(digests_in_metadata(digests))
            parquet.close()
            add_checksum(parquet_path)


def _result_batch(batch: pa.RecordBatch, rank: int, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `scores.parquet` for some sorted rows, the first of rank `rank` + 1."""
    made = {"rank": pa.array(range(rank + 1, rank + 1 + len(batch)), pa.int64())}
    for column, number, text in LABELS:
        kind = schema.field(column).type
        made[column] = pc.coalesce(batch[number].cast(kind), batch[text].cast(kind))
    arrays = [made[name] if name in made else batch[name].cast(schema.field(name).type) for name in schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _result_schema(engine: duckdb.DuckDBPyConnection, staged: Path) -> pa.Schema:
    """The columns of `scores.parquet`; `meta` is JSON text, because its shape is the user's."""
    texts = engine.execute(
        "SELECT count(index_text), count(chunk_text) FROM read_parquet(?)", [arrow_path(staged)]
    ).fetchall()[0]
    hidden = {name for name, _ in [*_KEYS, *_SHOWN, _LINE]}
    columns = [field for field in pq.read_schema(arrow_path(staged)) if field.name not in hidden]
    return pa.schema(
        [
            ("rank", pa.int64()),
            # One type for a whole column: as soon as one index is text, all are.
            ("index", pa.string() if texts[0] else pa.int64()),
            ("chunked_index", pa.string() if texts[1] else pa.int64()),
            *_SHOWN,
            *columns,
            ("position", pa.int64()),
        ]
    )
