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
import pyarrow.parquet as pq

from ladm.errors import IncompleteError, StorageError, one_line
from ladm.runs import Run
from ladm.storage import naming, replacing, write_whole

SORTED_FILE = "sorted_by_score.jsonl"
PARQUET_FILE = "scores.parquet"
ERRORS_FILE = "errors.jsonl"
SORTING_FOLDER_PREFIX = ".sorting"
ROWS_AT_A_TIME = 10_000
SORT_MEMORY = "1GB"

_STAGED = pa.schema(
    [
        ("score", pa.float64()),
        ("index_number", pa.int64()),
        ("index_text", pa.string()),
        ("chunk_number", pa.int64()),
        ("chunk_text", pa.string()),
        ("position", pa.int64()),
        ("record", pa.string()),
    ]
)
_IN_ORDER = """
    SELECT record FROM read_parquet(?)
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
        raise IncompleteError(
            f"{run.folder} is not finished: {len(run.unsealed())} of {len(run.units)} units are missing; "
            "run its ladm score again"
        )


def finish(run: Run) -> None:
    """Write the three result files from the sealed units. Does nothing to a finished run.

    Raises IncompleteError when a unit is not sealed, StorageError for a damaged one.
    """
    for left in run.folder.glob(f"{SORTING_FOLDER_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)
    if is_finished(run):
        return
    with naming(run.folder, "sort in"):
        sorting = Path(tempfile.mkdtemp(prefix=SORTING_FOLDER_PREFIX, dir=run.folder))
        try:
            staged = sorting / "staged.parquet"
            write_whole(run.folder / ERRORS_FILE, _stage(run, staged))
            _write_sorted(run.folder, staged, sorting)
        except duckdb.Error as error:
            raise StorageError(f"cannot sort in {sorting}: {one_line(error)}") from None
        finally:
            shutil.rmtree(sorting, ignore_errors=True)


def _stage(run: Run, staged: Path) -> Iterator[bytes]:
    """Write the scored rows to `staged`, and yield the lines of the rows without a score."""
    with pq.ParquetWriter(staged, _STAGED) as writer:
        for unit in run.units:
            records = run.read_sealed(unit)
            scored = [record for record in records if record["status"] == "ok"]
            writer.write_table(pa.Table.from_pylist([_staged_row(record) for record in scored], schema=_STAGED))
            yield from (_json_line(record) for record in records if record["status"] != "ok")


def _staged_row(record: dict[str, Any]) -> dict[str, Any]:
    index, chunk = record["index"], record["chunked_index"]
    result = {key: value for key, value in record.items() if key not in ("position", "status")}
    return {
        "score": record["score"],
        "index_number": index if isinstance(index, int) else None,
        "index_text": index if isinstance(index, str) else None,
        "chunk_number": chunk if isinstance(chunk, int) else None,
        "chunk_text": chunk if isinstance(chunk, str) else None,
        "position": record["position"],
        "record": json.dumps(result, ensure_ascii=False, allow_nan=False),
    }


def _write_sorted(folder: Path, staged: Path, sorting: Path) -> None:
    """One pass over the sorted rows into both files; the Parquet one is in place first."""
    settings = {"threads": 2, "memory_limit": SORT_MEMORY, "temp_directory": str(sorting / "spill")}
    with contextlib.closing(duckdb.connect(":memory:", config=settings)) as engine:
        schema = _result_schema(engine, staged)
        with (
            replacing(folder / SORTED_FILE) as lines_path,
            replacing(folder / PARQUET_FILE) as parquet_path,
            lines_path.open("wb") as lines,
            pq.ParquetWriter(parquet_path, schema) as parquet,
        ):
            rank = 0
            cursor = engine.execute(_IN_ORDER, [str(staged)])
            while rows := cursor.fetchmany(ROWS_AT_A_TIME):
                records = [{"rank": rank + k} | json.loads(text) for k, (text,) in enumerate(rows, 1)]
                rank += len(records)
                lines.write(b"".join(_json_line(record) for record in records))
                flat = [record | {"meta": json.dumps(record["meta"], ensure_ascii=False)} for record in records]
                parquet.write_table(pa.Table.from_pylist(flat, schema=schema))


def _result_schema(engine: duckdb.DuckDBPyConnection, staged: Path) -> pa.Schema:
    """The columns of the sorted file; `meta` is JSON text, because its shape is the user's."""
    counts = engine.execute(
        "SELECT count(index_text), count(chunk_text) FROM read_parquet(?)", [str(staged)]
    ).fetchone()
    texts = counts or (0, 0)
    return pa.schema(
        [
            ("rank", pa.int64()),
            ("index", pa.string() if texts[0] else pa.int64()),
            ("chunked_index", pa.string() if texts[1] else pa.int64()),
            ("score", pa.float64()),
            ("meta", pa.string()),
            ("num_tokens", pa.int64()),
            ("cds_per_layer", pa.list_(pa.float64())),
        ]
    )


def _json_line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def summarise(run: Run) -> Summary:
    """Counts and the range of the scores of a finished run. Raises IncompleteError for an unfinished one."""
    require_finished(run)
    try:
        scores = pq.read_table(run.folder / PARQUET_FILE, columns=["score"])["score"]
    except (pa.ArrowInvalid, OSError):
        raise StorageError(
            f"{run.folder / PARQUET_FILE} is damaged; remove it, and ladm score makes it again from the units"
        ) from None
    summary = Summary(scored=len(scores))
    if len(scores):
        summary.scores = (scores[0].as_py(), scores[len(scores) // 2].as_py(), scores[-1].as_py())
    with (run.folder / ERRORS_FILE).open(encoding="utf-8") as lines:
        summary.errors.update(json.loads(line)["error_type"] for line in lines)
    return summary
