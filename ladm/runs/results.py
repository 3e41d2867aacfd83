"""The result files of a finished run -> its scores, its columns, a summary. Imports no torch."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.errors import IncompleteError, StorageError, one_line
from ladm.runs.folder import Run
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, RESULT_FILES

BATCH_ROWS = 65_536


@dataclass
class Summary:
    """What became of the rows of a run: the number scored, and of those without a score by the type of the error."""

    scored: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    scores: tuple[float, float, float] | None = None
    """Best, middle and worst score; None when there is none."""

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def require_finished(run: Run) -> None:
    """Raise IncompleteError for a run that is not finished."""
    if not run.is_finished:
        rescored = run.identity.is_rescored
        command = "ladm rescore" if rescored else "ladm score"
        missing = 0 if rescored else len(run.unsealed())
        absent = [name for name in sorted(RESULT_FILES) if not (run.folder / name).exists()]
        what = f"{missing} of {len(run.units)} units are missing" if missing else f"{' and '.join(absent)} missing"
        raise IncompleteError(f"{run.folder} is not finished: {what}; run its {command} again")


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what Arrow finds wrong with `scores.parquet` into a StorageError that names it."""
    try:
        yield
    # A flipped byte of the footer may ask for anything: an unknown type, a name that is no UTF-8, an absurd size.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise StorageError(f"{path} is damaged: {one_line(error)}; remove it, and ladm score writes it again") from None


def columns_of(folder: Path) -> list[str]:
    """Names of the columns of `scores.parquet`. Raises StorageError for a damaged file."""
    path = folder / PARQUET_FILE
    with _reading(path):
        names: list[str] = pq.read_schema(path).names
    return names


def column_types(folder: Path) -> dict[str, pa.DataType]:
    """The columns of `scores.parquet` with their types. Raises StorageError for a damaged file."""
    path = folder / PARQUET_FILE
    with _reading(path):
        return {field.name: field.type for field in pq.read_schema(path)}


def count_scored(folder: Path) -> int:
    """The number of rows with a score. Raises StorageError for a damaged file."""
    path = folder / PARQUET_FILE
    with _reading(path):
        return int(pq.read_metadata(path).num_rows)


def read_scores(folder: Path, columns: list[str]) -> pa.Table:
    """Some columns of `scores.parquet`, checksums verified. Raises StorageError for a damaged file."""
    path = folder / PARQUET_FILE
    with _reading(path):
        return pq.read_table(path, columns=columns, page_checksum_verification=True)


def score_batches(folder: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The same in batches, in the order of the file: best first."""
    path = folder / PARQUET_FILE
    with _reading(path):
        file = pq.ParquetFile(path, page_checksum_verification=True)
        batches = file.iter_batches(BATCH_ROWS, columns=columns)
    while True:
        # Not around the yield: an error of whoever uses the batch is no damage of the file.
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
        raise StorageError(f"{path} is damaged; remove it, and ladm score writes it again from the units") from None
    return summary
