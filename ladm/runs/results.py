"""The result files of a finished run -> its scores, its columns, a summary. Imports no torch."""

from __future__ import annotations

import functools
import json
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ladm.errors import IncompleteError, LadmError, StorageError
from ladm.runs.folder import Run
from ladm.runs.layout import ERRORS_FILE, PARQUET_FILE, RESULT_FILES
from ladm.storage.checked_parquet import open_parquet, reading_parquet
from ladm.storage.digests import file_xxh3
from ladm.storage.files import io_errors

BATCH_ROWS = 65_536
REMEDY = "remove it, and rerun the command that made the run to write it again"
_METADATA_KEY = b"ladm"
Floats = npt.NDArray[np.float64]


@dataclass
class Summary:
    """What became of the rows of a run: the number scored, and of those without a score by the type of the error."""

    scored: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    scores: tuple[float, float, float] | None = None
    """Best, median and worst score; None when there is none."""

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def require_finished(run: Run) -> None:
    """Raise IncompleteError for a run that is not finished."""
    if not run.is_finished:
        rescored = run.identity.is_rescored
        command = "ladm rescore" if rescored else "ladm run" if run.is_of_job else "ladm score"
        missing = 0 if rescored else len(run.unsealed())
        absent = [name for name in sorted(RESULT_FILES) if not (run.folder / name).exists()]
        what = f"{missing} of {len(run.units)} units are missing" if missing else f"{' and '.join(absent)} missing"
        look = shlex.join(["ladm", "rescore", str(run.folder), "--so-far", "-o", "RUN2"])
        so_far = f"; to look at the rows so far: {look}" if 0 < missing < len(run.units) else ""
        raise IncompleteError(f"{run.folder} is not finished: {what}; run the same {command} command again{so_far}")


def require_scored(summary: Summary, folder: Path | str) -> None:
    """Raise LadmError for a run in which no row has a score: whatever works on scores would have nothing to work on."""
    if summary.scores is None:
        raise LadmError(f"no document has a score; {folder}/errors.jsonl says why")


def require_any_score(run: Run) -> None:
    """Raise LadmError for a finished run in which no row has a score, and whose results so lack most columns."""
    if not count_scored(run.folder):
        raise LadmError(f"{run.folder}: no document has a score; its errors.jsonl has the reasons")


def open_scores(folder: Path) -> pq.ParquetFile:
    """`scores.parquet`, its checksums verified whenever it is read. Raises StorageError for a damaged file."""
    return open_parquet(folder / PARQUET_FILE, remedy=REMEDY)


def columns_of(folder: Path) -> list[str]:
    """Names of the columns of `scores.parquet`. Raises StorageError for a damaged file."""
    return list(column_types(folder))


def column_types(folder: Path) -> dict[str, pa.DataType]:
    """The columns of `scores.parquet` with their types. Raises StorageError for a damaged file."""
    path = folder / PARQUET_FILE
    with io_errors(path, "read"):
        state = path.stat()
    return dict(_types_of_file(folder, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))


# A command needs them dozens of times, and a small file is read whole for its checksum whenever it is opened.
@functools.lru_cache(maxsize=256)
def _types_of_file(folder: Path, *_state: int) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in open_scores(folder).schema_arrow}


def count_scored(folder: Path) -> int:
    """The number of rows with a score. Raises StorageError for a damaged file."""
    return int(open_scores(folder).metadata.num_rows)


def read_scores(folder: Path, columns: list[str]) -> pa.Table:
    """Some columns of `scores.parquet`, checksums verified. Raises StorageError for a damaged file."""
    file = open_scores(folder)
    with reading_parquet(folder / PARQUET_FILE, remedy=REMEDY):
        return file.read(columns=columns)


def score_batches(folder: Path, columns: list[str], *, rows: int = BATCH_ROWS) -> Iterator[pa.RecordBatch]:
    """`read_scores` a batch at a time, in the order of the file: best first."""
    path = folder / PARQUET_FILE
    file = open_scores(folder)
    with reading_parquet(path, remedy=REMEDY):
        for batch in file.iter_batches(rows, columns=columns):
            if len(batch):
                yield batch.select(columns)


def digests_in_metadata(digests: dict[str, str]) -> dict[str, str]:
    """The metadata of `scores.parquet`: the XXH3 of each of the other two result files by its name."""
    return {_METADATA_KEY.decode(): json.dumps({"xxh3_128": digests})}


def stored_digest(folder: Path, name: str) -> str | None:
    """The XXH3 that `scores.parquet` has of another result file; None in runs from before it had any."""
    metadata = open_scores(folder).metadata.metadata or {}
    try:
        return str(json.loads(metadata[_METADATA_KEY])["xxh3_128"][name])
    except (KeyError, ValueError, TypeError):
        return None


def require_digest(folder: Path, name: str, found: str) -> None:
    """Raise StorageError where a result file with the digest `found` is not the one that was written."""
    if stored_digest(folder, name) not in (None, found):
        raise StorageError(
            f"{folder / name} is damaged: its content does not match the digest in {PARQUET_FILE}; remove both, and "
            "rerun the command that made the run to write them again"
        )


def error_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows without a score as `errors.jsonl` has them. Raises StorageError for a damaged file."""
    path = folder / ERRORS_FILE
    # Read twice rather than held: a run may have millions of rows without a score.
    require_digest(folder, ERRORS_FILE, file_xxh3(path))
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                found = json.loads(line)
                # What each reader uses, checked here once.
                yield found | {"error_type": str(found["error_type"]), "message": str(found["message"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise StorageError(f"{path} is damaged; {REMEDY}") from None


def lists_as_matrix(column: pa.ListArray, folder: Path) -> Floats:
    """A column of equally long lists of numbers as float64: (B, L); `folder`: that of the run.

    Raises StorageError where their lengths differ.
    """
    lengths_B = np.diff(column.offsets.to_numpy())
    if column.null_count or (lengths_B != lengths_B[:1]).any():
        raise StorageError(f"{folder / PARQUET_FILE} is damaged: rows with different numbers of layers")
    values = column.flatten().to_numpy(zero_copy_only=False)
    matrix_BL: Floats = values.astype(np.float64).reshape(len(column), -1)
    return matrix_BL


def summarise(run: Run) -> Summary:
    """Counts and the range of the scores of a finished run. Raises IncompleteError for an unfinished one."""
    require_finished(run)
    file = open_scores(run.folder)
    with reading_parquet(run.folder / PARQUET_FILE, remedy=REMEDY):
        summary = Summary(scored=file.metadata.num_rows)
        if summary.scored:
            last = summary.scored - 1
            # The median, as `ladm compare` has it: of an even number of rows the mean of the two in the middle.
            best, above, below, worst = (_score_at(file, rank) for rank in (0, last // 2, (last + 1) // 2, last))
            summary.scores = (best, (above + below) / 2, worst)
    summary.errors.update(line["error_type"] for line in error_lines(run.folder))
    return summary


def _score_at(file: pq.ParquetFile, rank: int) -> float:
    """The score of the row with that rank, from 0; only its part of the file is read."""
    group = 0
    while rank >= file.metadata.row_group(group).num_rows:
        rank -= file.metadata.row_group(group).num_rows
        group += 1
    return float(file.read_row_group(group, columns=["score"])["score"][rank].as_py())
