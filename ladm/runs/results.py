"""Sealed units -> the finished run: `scores.parquet`, `errors.jsonl` and `sorted_by_score.jsonl`.

The sorted file is put in place last; a run is complete when all three are there. Sorting is DuckDB's, over a
throw-away file, so that memory stays flat whatever the number of rows. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ladm.errors import IncompleteError, StorageError, one_line
from ladm.runs.folder import Run
from ladm.storage.files import SORTING_PREFIX, io_errors, replacing, write_whole

SORTED_FILE = "sorted_by_score.jsonl"
PARQUET_FILE = "scores.parquet"
ERRORS_FILE = "errors.jsonl"
ROWS_AT_A_TIME = 10_000
BATCH_ROWS = 65_536
SORT_MEMORY = "1GB"

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
_OWN_KEYS = frozenset(("position", "status", "index", "chunked_index", "score", "meta", "num_tokens"))
_SORT = """
    SELECT * FROM read_parquet($staged)
    ORDER BY score DESC, index_number NULLS FIRST, index_text NULLS FIRST,
             chunk_number NULLS FIRST, chunk_text NULLS FIRST, position
"""


@dataclass
class Summary:
    """What became of the rows of a run."""

    scored: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    scores: tuple[float, float, float] | None = None
    """Best, middle and worst score; None when there is none."""

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def is_finished(run: Run) -> bool:
    """Is every row accounted for and every result file in place?"""
    return all((run.folder / name).exists() for name in (SORTED_FILE, PARQUET_FILE, ERRORS_FILE))


def require_finished(run: Run) -> None:
    """Raise IncompleteError for a run that is not finished."""
    if not is_finished(run):
        rescored = run.identity.is_rescored
        command = "ladm rescore" if rescored else "ladm score"
        missing = 0 if rescored else len(run.unsealed())
        absent = [name for name in (ERRORS_FILE, PARQUET_FILE, SORTED_FILE) if not (run.folder / name).exists()]
        what = f"{missing} of {len(run.units)} units are missing" if missing else f"{' and '.join(absent)} missing"
        raise IncompleteError(f"{run.folder} is not finished: {what}; run its {command} again")


def finish(run: Run) -> None:
    """Write the three result files from the sealed units. Does nothing to a finished run.

    Raises IncompleteError when a unit is not sealed, StorageError for a damaged one.
    """
    if is_finished(run):
        return
    with sorting(run.folder) as staged:
        write_whole(run.folder / ERRORS_FILE, _stage(run, staged))
        write_sorted(run.folder, staged)


@contextlib.contextmanager
def sorting(folder: Path) -> Iterator[Path]:
    """A throw-away folder for the rows to be sorted. Raises StorageError for what the disk or the sort refuses."""
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
            lines = run.read_sealed_texts(unit)
            scored = [(record, text) for record, text in lines if record["status"] == "ok"]
            if writer is None and (scored or unit.stop == run.num_rows):
                writer = staging(staged, staged_schema(_extras_of(scored[0][0] if scored else {})))
            if writer is not None:
                writer.write_table(_staged_table(scored, writer.schema))
            yield from (json_line(record) for record, _ in lines if record["status"] != "ok")
    finally:
        if writer is not None:
            writer.close()


def _extras_of(record: dict[str, Any]) -> list[tuple[str, pa.DataType]]:
    """Columns for whatever the scorer keeps beside the score: a number, or a number for each layer or head."""
    kinds = {list: pa.list_(pa.float64()), float: pa.float64()}
    return [(name, kinds[type(value)]) for name, value in record.items() if name not in _OWN_KEYS]


def staged_schema(extras: list[tuple[str, pa.DataType]]) -> pa.Schema:
    """Columns of the rows to be sorted."""
    return pa.schema([*_KEYS, *_SHOWN, *extras, _LINE])


def staging(staged: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of rows to be sorted; plain, because they are read once."""
    return pq.ParquetWriter(staged, schema, compression="none", use_dictionary=False, write_statistics=False)


def _staged_table(scored: list[tuple[dict[str, Any], str]], schema: pa.Schema) -> pa.Table:
    made: dict[str, list[Any]] = {
        "meta": [json.dumps(record["meta"], ensure_ascii=False) for record, _ in scored],
        # What is stored begins with position and status; the rest is the result.
        "line": [text[text.index('"index"') :] for _, text in scored],
    }
    for column, number, text in LABELS:
        labels = [record[column] for record, _ in scored]
        made[number] = [label if isinstance(label, int) else None for label in labels]
        made[text] = [label if isinstance(label, str) else None for label in labels]
    columns = {name: made[name] if name in made else [record[name] for record, _ in scored] for name in schema.names}
    return pa.table(columns, schema=schema)


def result_line(record: dict[str, Any]) -> str:
    """A scored row of the sorted file, but for the rank in front and the newline."""
    shown = {key: value for key, value in record.items() if key not in ("position", "status")}
    return json.dumps(shown, ensure_ascii=False, allow_nan=False)[1:]


def write_sorted(folder: Path, staged: Path) -> None:
    """One pass over the rows in `staged`, sorted, into both result files; the Parquet one is in place first."""
    settings = {"threads": 2, "memory_limit": SORT_MEMORY, "temp_directory": str(staged.parent / "spill")}
    with contextlib.closing(duckdb.connect(":memory:", config=settings)) as engine:
        schema = _result_schema(engine, staged)
        with (
            replacing(folder / SORTED_FILE) as lines_path,
            replacing(folder / PARQUET_FILE) as parquet_path,
            lines_path.open("wb") as lines,
            pq.ParquetWriter(parquet_path, schema, write_page_checksum=True) as parquet,
        ):
            rank = 0
            for batch in engine.sql(_SORT, params={"staged": str(staged)}).to_arrow_reader(ROWS_AT_A_TIME):
                texts = batch["line"].to_pylist()
                lines.write("".join(f'{{"rank": {rank + k}, {text}\n' for k, text in enumerate(texts, 1)).encode())
                parquet.write_batch(_result_batch(batch, rank, schema))
                rank += len(texts)


def _result_batch(batch: pa.RecordBatch, rank: int, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of `scores.parquet` of some sorted rows."""
    made = {"rank": pa.array(range(rank + 1, rank + 1 + len(batch)), pa.int64())}
    for column, number, text in LABELS:
        kind = schema.field(column).type
        made[column] = pc.coalesce(batch[number].cast(kind), batch[text].cast(kind))
    arrays = [made[name] if name in made else batch[name].cast(schema.field(name).type) for name in schema.names]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _result_schema(engine: duckdb.DuckDBPyConnection, staged: Path) -> pa.Schema:
    """The columns of the sorted file; `meta` is JSON text, because its shape is the user's."""
    texts = engine.execute(
        "SELECT count(index_text), count(chunk_text) FROM read_parquet(?)", [str(staged)]
    ).fetchall()[0]
    hidden = {name for name, _ in [*_KEYS, *_SHOWN, _LINE]}
    extras = [field for field in pq.read_schema(staged) if field.name not in hidden]
    return pa.schema(
        [
            ("rank", pa.int64()),
            ("index", pa.string() if texts[0] else pa.int64()),
            ("chunked_index", pa.string() if texts[1] else pa.int64()),
            *_SHOWN,
            *extras,
            ("position", pa.int64()),
        ]
    )


def json_line(record: dict[str, Any]) -> bytes:
    """A record as a line of a result file."""
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """What Arrow finds wrong with `scores.parquet`, as a StorageError that names it."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise StorageError(f"{path} is damaged: {one_line(error)}; remove it, and ladm score makes it again") from None


def columns_of(folder: Path) -> list[str]:
    """Names of the columns of `scores.parquet`. Raises StorageError for a damaged file."""
    path = folder / PARQUET_FILE
    with _reading(path):
        names: list[str] = pq.read_schema(path).names
    return names


def read_scores(folder: Path, columns: list[str]) -> pa.Table:
    """Some columns of `scores.parquet`, checksums verified. Raises StorageError for a damaged file."""
    path = folder / PARQUET_FILE
    with _reading(path):
        return pq.read_table(path, columns=columns, page_checksum_verification=True)


def score_batches(folder: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The same bit by bit, in the order of the file: best first."""
    path = folder / PARQUET_FILE
    with _reading(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        batches = file.iter_batches(BATCH_ROWS, columns=columns)
    while True:
        with _reading(path):
            batch = next(batches, None)
        if batch is None:
            return
        if len(batch):
            yield batch.select(columns)


def _score_at(file: pq.ParquetFile, rank: int) -> float:
    """The score of the row with that rank, from 0; only its part of the file is read."""
    group = 0
    while rank >= file.metadata.row_group(group).num_rows:
        rank -= file.metadata.row_group(group).num_rows
        group += 1
    return float(file.read_row_group(group, columns=["score"])["score"][rank].as_py())


def summarise(run: Run) -> Summary:
    """Counts and the range of the scores of a finished run. Raises IncompleteError for an unfinished one."""
    require_finished(run)
    parquet = run.folder / PARQUET_FILE
    with _reading(parquet):
        file = pq.ParquetFile(parquet, page_checksum_verification=True)
        summary = Summary(scored=file.metadata.num_rows)
        if summary.scored:
            best, middle, worst = (_score_at(file, rank) for rank in (0, summary.scored // 2, summary.scored - 1))
            summary.scores = (best, middle, worst)
    path = run.folder / ERRORS_FILE
    try:
        with path.open(encoding="utf-8") as lines:
            summary.errors.update(json.loads(line)["error_type"] for line in lines)
    except (ValueError, KeyError, TypeError):
        raise StorageError(f"{path} is damaged; remove it, and ladm score makes it again from the units") from None
    return summary
