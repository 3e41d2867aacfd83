"""A run folder -> what is wrong with it: damaged lines, missing or repeated rows, other results. Imports no torch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from ladm.corpus.rows import open_rows
from ladm.errors import LadmError, StorageError, count_of
from ladm.runs.folder import Run, read_if_there
from ladm.runs.identity import RunIdentity
from ladm.runs.layout import ERRORS_FILE, IDENTITY_FILE, PARQUET_FILE, SIGNALS, SORTED_FILE
from ladm.runs.records import ScoredRow
from ladm.runs.results import columns_of, read_scores, require_digest
from ladm.runs.status import require_whole_if_rescored
from ladm.runs.unigrams import counts_of_run
from ladm.settings.common import NAME_COLUMNS
from ladm.storage.digests import file_xxh3

ROWS_AT_A_TIME = 10_000


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a run."""

    text: str
    is_damage: bool = True
    """False where every file is as it was written, but rows, model or version are other ones than the run's."""

    @classmethod
    def of(cls, error: LadmError) -> Problem:
        """The problem that an error reports."""
        return cls(str(error), is_damage=isinstance(error, StorageError))


def verify(run: Run, *, deep: bool) -> Iterator[Problem]:
    """What is wrong with a run; nothing when all is well.

    Checks the checksum of every line of every unit, that every row is present once, and that the result
    files hold exactly what the units hold; `deep`: also that model and rows are still those of the
    identity. The same for every signal that was added to the run. Of an unfinished run, what exists so far is checked.
    """
    require_whole_if_rescored(run)
    # A rescored run has no units: its results are compared with each other only.
    lines: dict[int, int] = {}
    errors: list[bytes] = []
    unfinished, is_comparable = False, not run.identity.is_rescored
    holders = run.holder_files() if not run.identity.is_rescored else {}
    for unit in run.units if not run.identity.is_rescored else ():
        try:
            if run.sealed_path(unit).exists():
                for line in run.read_sealed_lines(unit):
                    if isinstance(line.record, ScoredRow):
                        # A digest in place of the line: 8 bytes a row instead of hundreds.
                        lines[line.record.position] = xxhash.xxh3_64_intdigest(line.result.encode())
                    else:
                        errors.append(line.text.encode() + b"\n")
            else:
                unfinished = True
                for path in holders.get(unit.number, ()):
                    read_if_there(path, unit)
        except LadmError as error:
            # The results would seem damaged too if they were compared with the lines that are left.
            is_comparable = False
            yield Problem.of(error)
    if run.is_finished:
        yield from _verify_results(run, (lines, errors) if is_comparable and not unfinished else None)
        if unfinished:
            yield Problem(
                f"{run.folder} has results, and units of it are missing; remove {SORTED_FILE}, and the command that "
                "made the run scores their rows again"
            )
    try:
        counts_of_run(run)
    except LadmError as error:
        yield Problem.of(error)
    if deep:
        yield from _verify_identity(run)
    # A signal that was added later is a run of its own; its messages name its folder.
    for path in sorted((run.folder / SIGNALS).glob(f"*/{IDENTITY_FILE}")):
        try:
            added = Run.read(path.parent)
            # Not deep: rows and model are read once, for the run, and those of its signals compared with the run's.
            yield from verify(added, deep=False)
            yield from _verify_added(added.folder, added.identity, run.identity)
        except LadmError as error:
            yield Problem.of(error)


def _verify_added(folder: Path, added: RunIdentity, run: RunIdentity) -> Iterator[Problem]:
    """Is an added signal one of the run's rows, and of its model? It may have fewer rows than a run that has grown."""
    if added.num_rows >= run.num_rows and added.data != run.data:
        yield Problem(f"{folder} was made from other rows than {folder.parent.parent}; remove it", is_damage=False)
    if not added.has_model_of(run):
        yield Problem(f"{folder} was made with another model than {folder.parent.parent}; remove it", is_damage=False)


def _verify_results(run: Run, expected: tuple[dict[int, int], list[bytes]] | None) -> Iterator[Problem]:
    """Do the result files hold the rows of the units, and the same ones, in order?"""
    sorted_path = run.folder / SORTED_FILE
    try:
        table = read_scores(run.folder, columns_of(run.folder))
        error_lines = (run.folder / ERRORS_FILE).read_bytes().splitlines(keepends=True)
        for name in (SORTED_FILE, ERRORS_FILE):
            require_digest(run.folder, name, file_xxh3(run.folder / name))
    except LadmError as error:
        yield Problem.of(error)
        return
    if not {"position", "score"} <= set(table.column_names):
        yield Problem(f"{run.folder / PARQUET_FILE} is damaged: it has columns {', '.join(table.column_names)}")
        return
    # These three checks name the problem; the comparison line by line below only says where the first one is.
    scores, positions = table["score"].to_pylist(), table["position"].to_pylist()
    if scores != sorted(scores, reverse=True):
        yield Problem(f"{run.folder / PARQUET_FILE} is not in order")
    if len(set(positions)) != len(positions):
        yield Problem(f"{run.folder / PARQUET_FILE} has a row twice")
    if len(positions) + len(error_lines) != run.num_rows:
        found = f"{count_of(len(positions), 'score')} and {count_of(len(error_lines), 'error')}"
        yield Problem(f"{run.folder}: {found} are not {count_of(run.num_rows, 'row')}")
    narrow = _float32_columns(table.schema)
    rows = (row for batch in table.to_batches(ROWS_AT_A_TIME) for row in batch.to_pylist())
    with sorted_path.open("rb") as lines:
        for count, (line, row) in enumerate(itertools.zip_longest(lines, rows), 1):
            if line is None or row is None or not _is_line(line, row, narrow):
                yield Problem(f"{sorted_path}, line {count}, and row {count} of {PARQUET_FILE} differ")
                return
            if expected is not None and not _is_of_unit(line, count, expected[0].get(row["position"])):
                yield Problem(f"{sorted_path} is damaged at line {count}: it is not what the unit holds")
                return
    if expected is not None and error_lines != expected[1]:
        yield Problem(f"{run.folder / ERRORS_FILE} is not what the units hold")


def _float32_columns(schema: pa.Schema) -> set[str]:
    """Names of the columns of float32, or of lists of it. A run of format 3 has none."""
    return {field.name for field in schema if pa.float32() in (field.type, getattr(field.type, "value_type", None))}


def _is_line(line: bytes, row: dict[str, Any], narrow: set[str]) -> bool:
    """Do a line of the sorted file and a row of the Parquet file hold the same? `narrow` are columns of float32."""
    try:
        found = json.loads(line)
        # The file has the shortest decimal of a float32; Arrow gives the float32 widened, with more digits.
        with np.errstate(over="ignore"):
            found |= {name: np.asarray(found[name], dtype=np.float32).tolist() for name in narrow}
        shown = {key: value for key, value in row.items() if key != "position"}
        # A run that was given more rows may have a name of those that the lines of its first rows lack.
        found = {name: None for name in NAME_COLUMNS if name in shown} | found
        return bool(found == shown | {"meta": json.loads(row["meta"])})
    except (ValueError, KeyError, TypeError):
        return False


def _is_of_unit(line: bytes, rank: int, expected: int | None) -> bool:
    front = f'{{"rank": {rank}, '.encode()
    return line.startswith(front) and xxhash.xxh3_64_intdigest(line[len(front) : -1]) == expected


def _verify_identity(run: Run) -> Iterator[Problem]:
    from ladm.modeling.facts import model_facts
    from ladm.modeling.model_files import model_identity

    try:
        # Read in full: a disk that returns other bytes than were written changes no date.
        found = model_identity(model_facts(run.identity.model_name).folder, remember=False)
        if found != run.identity.model_sha256:
            yield Problem(f"the model {run.identity.model_name} is no longer the one that scored", is_damage=False)
    except LadmError as error:
        yield Problem(f"the model cannot be compared: {error}", is_damage=isinstance(error, StorageError))
    try:
        if not run.identity.has_rows(open_rows(run.identity.rows_name, limit=run.num_rows)):
            yield Problem(f"the rows {run.identity.rows_name} are no longer those that were scored", is_damage=False)
    except LadmError as error:
        yield Problem(f"the rows cannot be compared: {error}", is_damage=isinstance(error, StorageError))
