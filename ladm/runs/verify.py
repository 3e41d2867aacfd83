"""A run folder -> what is wrong with it: damaged lines, missing or repeated rows, other results. Imports no torch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from ladm.corpus.rows import open_rows
from ladm.errors import LadmError
from ladm.runs.folder import Run, Unit, read_if_there
from ladm.runs.results import (
    ERRORS_FILE,
    PARQUET_FILE,
    SORTED_FILE,
    columns_of,
    is_finished,
    json_line,
    read_scores,
    result_line,
)
from ladm.runs.status import require_whole_if_rescored

ROWS_AT_A_TIME = 10_000


def verify(run: Run, *, deep: bool) -> Iterator[str]:
    """What is wrong with a run, a line each; nothing when all is well.

    Checksums of every line of every unit, that every row is there once, that the result files hold
    exactly what the units hold; `deep`: that model and rows are still those of the identity. An
    unfinished run is looked at as far as it is.
    """
    require_whole_if_rescored(run)
    lines: dict[int, int] = {}
    errors: list[bytes] = []
    unfinished = False
    holders = run.holders() if not run.identity.is_rescored else {}
    for unit in run.units if not run.identity.is_rescored else ():
        try:
            if run.sealed_path(unit).exists():
                for record in run.read_sealed(unit):
                    if record["status"] == "ok":
                        lines[record["position"]] = xxhash.xxh3_64_intdigest(result_line(record).encode())
                    else:
                        errors.append(json_line(record))
            else:
                unfinished = True
                for path in holders.get(unit.number, ()):
                    _read_open(path, unit)
        except LadmError as error:
            yield str(error)
    if is_finished(run):
        yield from _verify_results(run, None if run.identity.is_rescored or unfinished else (lines, errors))
        if unfinished:
            yield f"{run.folder} has results, and units of it are missing"
    if deep:
        yield from _verify_identity(run)


def _read_open(path: Path, unit: Unit) -> None:
    try:
        read_if_there(path, unit)
    except LadmError as error:
        raise LadmError(f"{error}; without that file its rows are scored again") from None


def _verify_results(run: Run, expected: tuple[dict[int, int], list[bytes]] | None) -> Iterator[str]:
    """Do the result files hold the rows of the units, and the same ones, in order?"""
    sorted_path = run.folder / SORTED_FILE
    try:
        table = read_scores(run.folder, columns_of(run.folder))
        error_lines = (run.folder / ERRORS_FILE).read_bytes().splitlines(keepends=True)
    except LadmError as error:
        yield str(error)
        return
    if not {"position", "score"} <= set(table.column_names):
        yield f"{run.folder / PARQUET_FILE} is damaged: it has columns {', '.join(table.column_names)}"
        return
    scores, positions = table["score"].to_pylist(), table["position"].to_pylist()
    if scores != sorted(scores, reverse=True):
        yield f"{run.folder / PARQUET_FILE} is not in order"
    if len(set(positions)) != len(positions):
        yield f"{run.folder / PARQUET_FILE} has a row twice"
    if len(positions) + len(error_lines) != run.num_rows:
        yield f"{run.folder}: {len(positions)} scores and {len(error_lines)} errors are not {run.num_rows} rows"
    rows = (row for batch in table.to_batches(ROWS_AT_A_TIME) for row in batch.to_pylist())
    with sorted_path.open("rb") as lines:
        for count, (line, row) in enumerate(itertools.zip_longest(lines, rows), 1):
            if line is None or row is None or not _is_line(line, row):
                yield f"{sorted_path}, line {count}, and row {count} of {PARQUET_FILE} do not say the same"
                return
            if expected is not None and not _is_of_unit(line, count, expected[0].get(row["position"])):
                yield f"{sorted_path} is damaged at line {count}: it is not what the unit holds"
                return
    if expected is not None and error_lines != expected[1]:
        yield f"{run.folder / ERRORS_FILE} is not what the units hold"


def _is_line(line: bytes, row: dict[str, Any]) -> bool:
    """Do a line of the sorted file and a row of the Parquet file say the same?"""
    try:
        shown = {key: value for key, value in row.items() if key != "position"}
        return bool(json.loads(line) == shown | {"meta": json.loads(row["meta"])})
    except (ValueError, KeyError, TypeError):
        return False


def _is_of_unit(line: bytes, rank: int, expected: int | None) -> bool:
    front = f'{{"rank": {rank}, '.encode()
    return line.startswith(front) and xxhash.xxh3_64_intdigest(line[len(front) : -1]) == expected


def _verify_identity(run: Run) -> Iterator[str]:
    from ladm.modeling.facts import model_facts, model_identity

    try:
        if model_identity(model_facts(run.identity.model_name).folder) != run.identity.model_sha256:
            yield f"the model {run.identity.model_name} is no longer the one that scored"
    except LadmError as error:
        yield f"the model cannot be compared: {error}"
    try:
        if open_rows(run.identity.rows_name, limit=run.num_rows).identity() != run.identity.data:
            yield f"the rows {run.identity.rows_name} are no longer those that were scored"
    except LadmError as error:
        yield f"the rows cannot be compared: {error}"
