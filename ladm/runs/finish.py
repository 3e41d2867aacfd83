"""Sealed units -> the finished run: `scores.parquet`, `errors.jsonl` and `sorted_by_score.jsonl`.

The sorted file is put in place last; a run is finished when all three are present. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ladm.runs.folder import Run, Unit
from ladm.runs.layout import ERRORS_FILE
from ladm.runs.records import Column, ScoredRow
from ladm.runs.sorting import LABELS, Staging, sorting, staged_schema, write_sorted
from ladm.settings.common import NAME_COLUMNS
from ladm.storage.files import write_whole

_Scored = tuple[ScoredRow, str]
"""A row with its score, and `StoredLine.result` of it."""


def finish(run: Run) -> None:
    """Write the three result files from the sealed units. Does nothing to a finished run.

    Raises IncompleteError when a unit is not sealed, StorageError for a damaged one.
    """
    if not run.is_finished:
        write_results(run, run.units, run.folder)


def write_results(run: Run, units: Sequence[Unit], folder: Path) -> None:
    """Write the three result files of some sealed units of a run into a folder. Raises as `finish`."""
    names: set[str] = set()
    with sorting(folder) as staged:
        # One pass over the units serves two files: scored rows go to `staged` while the errors are yielded.
        write_whole(folder / ERRORS_FILE, _stage(run, units, staged, names))
        write_sorted(folder, staged, without=[name for name in NAME_COLUMNS if name not in names])


def _stage(run: Run, units: Sequence[Unit], staged: Path, names: set[str]) -> Iterator[bytes]:
    """Write the scored rows of `units` to `staged`, and yield the lines of the rows without a score.

    Adds to `names` those of NAME_COLUMNS that any scored row has: rows that a run is given later may have one more.
    """
    writer: Staging | None = None
    with contextlib.ExitStack() as opened:
        for unit in units:
            lines = run.read_sealed_lines(unit)
            scored = [(line.record, line.result) for line in lines if isinstance(line.record, ScoredRow)]
            # The first scored row decides the columns; a run without any still gets a file with the fixed ones.
            if writer is None and (scored or unit is units[-1]):
                writer = opened.enter_context(Staging(staged, staged_schema(_columns_of(scored))))
            names.update(*(row.names for row, _ in scored))
            if writer is not None:
                writer.write_table(_staged_table(scored, writer.schema))
            yield from (line.text.encode() + b"\n" for line in lines if not isinstance(line.record, ScoredRow))


def _columns_of(scored: Sequence[_Scored]) -> list[tuple[str, pa.DataType]]:
    """Name and type of the columns that name a document, and of the scorer's: a number, or one a layer or head."""
    columns: Mapping[str, Column] = scored[0][0].columns if scored else {}
    return [(name, pa.string()) for name in NAME_COLUMNS] + [
        (name, pa.list_(pa.float32()) if isinstance(value, list) else pa.float32()) for name, value in columns.items()
    ]


def _staged_table(scored: Sequence[_Scored], schema: pa.Schema) -> pa.Table:
    rows = [row for row, _ in scored]
    made: dict[str, list[Any]] = {
        "position": [row.position for row in rows],
        "score": [row.score for row in rows],
        "num_tokens": [row.num_tokens for row in rows],
        "meta": [json.dumps(row.meta, ensure_ascii=False) for row in rows],
        # The text as it stands in the unit: encoding the row again would cost as much as everything else here.
        "line": [result for _, result in scored],
    }
    for column, number, text in LABELS:
        labels = [getattr(row, column) for row in rows]
        made[number] = [label if isinstance(label, int) else None for label in labels]
        made[text] = [label if isinstance(label, str) else None for label in labels]
    made |= {name: [row.names.get(name) for row in rows] for name in NAME_COLUMNS}
    columns = {name: made[name] if name in made else [row.columns[name] for row in rows] for name in schema.names}
    return pa.table(columns, schema=schema)
