"""A run folder -> what is wrong with it: damaged lines, missing or repeated rows, other results. Imports no torch."""

from __future__ import annotations

import itertools
import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError, StorageError, count_of
from ladm.runs.folder import Run
from ladm.runs.identity import RunIdentity
from ladm.runs.layout import ERRORS_FILE, IDENTITY_FILE, PARQUET_FILE, SIGNALS, SORTED_FILE
from ladm.runs.results import column_types, columns_of, count_scored, require_digest, score_batches
from ladm.runs.rows_of_run import place_of_rows
from ladm.runs.status import require_whole_if_rescored
from ladm.runs.unigrams import counts_of_run
from ladm.runs.unit_digests import UnitDigests
from ladm.runs.unsealed import holder_files, read_if_there
from ladm.settings.common import NAME_COLUMNS
from ladm.storage.digests import file_xxh3
from ladm.storage.files import io_errors

ROWS_AT_A_TIME = 1_000
"""Rows that are Python objects at once: with every head a row has thousands of numbers."""


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


def verify(run: Run, *, deep: bool, rows: str | None = None, model: str | None = None) -> Iterator[Problem]:
    """What is wrong with a run; nothing when all is well.

    Checks the checksum of every line of every unit, that every row is present once, and that the result
    files hold exactly what the units hold; `deep`: also that model and rows are still those of the
    identity; `rows` and `model` say where they are if not where the run found them. The same for every signal that was
    added to the run. Of an unfinished run, what exists so far is checked.
    Memory: 17 bytes a row.
    """
    require_whole_if_rescored(run)
    # A rescored run has no units: its results are compared with each other only.
    held = None if run.identity.is_rescored else (yield from _verify_units(run))
    if run.is_finished:
        yield from _verify_results(run, held if held is not None and held.is_complete else None)
        if held is not None and held.is_unfinished:
            yield Problem(
                f"{run.folder} has results, but units of it are missing; remove {SORTED_FILE}, and rerun the command "
                "that made the run to score their rows again"
            )
    try:
        counts_of_run(run)
    except LadmError as error:
        yield Problem.of(error)
    if deep:
        yield from _verify_identity(run, rows=rows, model=model)
    # A signal that was added later is a run of its own; its messages name its folder.
    for path in sorted((run.folder / SIGNALS).glob(f"*/{IDENTITY_FILE}")):
        try:
            added = Run.read(path.parent)
            # Not deep: rows and model are read once, for the run, and those of its signals compared with the run's.
            yield from verify(added, deep=False)
            yield from _verify_added(added.folder, added.identity, run.identity)
        except LadmError as error:
            yield Problem.of(error)


def _verify_units(run: Run) -> Generator[Problem, None, UnitDigests]:
    """What is wrong with the units of a run; returns what they hold."""
    held, holders = UnitDigests(run.num_rows), holder_files(run)
    for unit in run.units:
        try:
            if run.sealed_path(unit).exists():
                held.add(run.read_sealed_lines(unit))
            else:
                held.is_unfinished = True
                for path in holders.get(unit.number, ()):
                    read_if_there(path, unit)
        except LadmError as error:
            held.is_damaged = True
            yield Problem.of(error)
    return held


def _verify_added(folder: Path, added: RunIdentity, run: RunIdentity) -> Iterator[Problem]:
    """Is an added signal one of the run's rows, and of its model? It may have fewer rows than a run that has grown."""
    if added.num_rows >= run.num_rows and added.data != run.data:
        yield Problem(f"{folder} was made from other rows than {folder.parent.parent}; remove it", is_damage=False)
    if not added.has_model_of(run):
        yield Problem(f"{folder} was made with another model than {folder.parent.parent}; remove it", is_damage=False)


def _verify_results(run: Run, held: UnitDigests | None) -> Iterator[Problem]:
    """Do the result files hold the rows of the units, and the same ones, in order? `held` None: do not compare them."""
    try:
        names = columns_of(run.folder)
        ranking = _read_ranking(run.folder) if {"position", "score"} <= set(names) else None
        num_errors = _count_lines(run.folder / ERRORS_FILE)
        errors_digest = file_xxh3(run.folder / ERRORS_FILE)
        require_digest(run.folder, SORTED_FILE, file_xxh3(run.folder / SORTED_FILE))
        require_digest(run.folder, ERRORS_FILE, errors_digest)
    except LadmError as error:
        yield Problem.of(error)
        return
    if ranking is None:
        yield Problem(f"{run.folder / PARQUET_FILE} is damaged: it has columns {', '.join(names)}")
        return
    # These three checks name the problem; the comparison line by line below only says where the first one is.
    if not ranking.is_in_order:
        yield Problem(f"{run.folder / PARQUET_FILE} is not in order")
    if ranking.has_duplicates:
        yield Problem(f"{run.folder / PARQUET_FILE} has a row twice")
    if ranking.num_rows + num_errors != run.num_results:
        found = f"{count_of(ranking.num_rows, 'score')} and {count_of(num_errors, 'error')}"
        yield Problem(f"{run.folder}: {found} are not {count_of(run.num_results, 'row')}")
    try:
        problem = _first_difference(run.folder, names, held)
    except LadmError as error:
        problem = Problem.of(error)
    if problem is not None:
        yield problem
    elif held is not None and errors_digest != held.errors_digest:
        yield Problem(f"{run.folder / ERRORS_FILE} is not what the units hold")


@dataclass(frozen=True, kw_only=True)
class _Ranking:
    """The order of the rows in `scores.parquet`."""

    num_rows: int
    is_in_order: bool
    has_duplicates: bool


def _read_ranking(folder: Path) -> _Ranking:
    """Read the two columns that decide it. Raises StorageError for a damaged file, and for columns of other types."""
    types = column_types(folder)
    for name, is_right in (("position", pa.types.is_integer), ("score", pa.types.is_floating)):
        if not is_right(types[name]):
            raise StorageError(f"{folder / PARQUET_FILE} is damaged: its column {name} holds {types[name]}")
    positions_N = np.empty(count_scored(folder), dtype=np.int64)
    start, last, is_in_order = 0, np.inf, True
    for batch in score_batches(folder, ["position", "score"]):
        scores_B = batch["score"].to_numpy(zero_copy_only=False)
        is_in_order &= bool(scores_B[0] <= last and (scores_B[1:] <= scores_B[:-1]).all())
        last = scores_B[-1]
        # Another file than ours may have none; no row has the position -1.
        positions_N[start : start + len(batch)] = batch["position"].fill_null(-1).to_numpy(zero_copy_only=False)
        start += len(batch)
    positions_N.sort()
    has_duplicates = bool((positions_N[1:] == positions_N[:-1]).any())
    return _Ranking(num_rows=start, is_in_order=is_in_order, has_duplicates=has_duplicates)


def _count_lines(path: Path) -> int:
    with io_errors(path, "read"), path.open("rb") as lines:
        return sum(1 for _ in lines)


def _first_difference(folder: Path, names: list[str], held: UnitDigests | None) -> Problem | None:
    """Where the sorted file is first not what `scores.parquet` and the units hold."""
    narrow = _float32_columns(column_types(folder))
    rows = (row for batch in score_batches(folder, names, rows=ROWS_AT_A_TIME) for row in batch.to_pylist())
    path = folder / SORTED_FILE
    with io_errors(path, "read"), path.open("rb") as lines:
        for count, (line, row) in enumerate(itertools.zip_longest(lines, rows), 1):
            if line is None or row is None or not _is_line(line, row, narrow):
                return Problem(f"{path}, line {count}, and row {count} of {PARQUET_FILE} differ")
            if held is not None and not held.holds(line, rank=count, position=row["position"]):
                return Problem(f"{path} is damaged at line {count}: it is not what the unit holds")
    return None


def _float32_columns(types: dict[str, pa.DataType]) -> set[str]:
    """Names of the columns of float32, or of lists of it. A run of format 3 has none."""
    return {name for name, kind in types.items() if pa.float32() in (kind, getattr(kind, "value_type", None))}


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


def _verify_identity(run: Run, *, rows: str | None, model: str | None) -> Iterator[Problem]:
    from ladm.modeling.facts import model_facts
    from ladm.modeling.model_files import model_identity

    name = model or run.identity.model_name
    try:
        # Read in full: a disk that returns other bytes than were written changes no date.
        weights = run.identity.names_weights
        folder = model_facts(name, weights=weights).folder
        found = model_identity(folder, weights=weights, remember=False)
        if found != run.identity.model_sha256:
            yield Problem(f"the model {name} is {_not_the_same(model)} that scored", is_damage=False)
    except LadmError as error:
        yield _not_compared("model", error, hint="" if model else "; give its new path with --model")
    name = rows or place_of_rows(run)
    try:
        if not run.identity.has_rows(open_rows(name, limit=run.num_rows, remember=False)):
            yield Problem(f"the rows {name} are {_not_the_same(rows, 'those')} that were scored", is_damage=False)
    except LadmError as error:
        yield _not_compared("rows", error, hint="" if rows else "; give their new path with --rows")


def _not_the_same(given: str | None, same: str = "the one") -> str:
    """Of what was given nobody knows whether it ever was the same."""
    return f"no longer {same}" if given is None else f"not {same}"


def _not_compared(what: str, error: LadmError, *, hint: str) -> Problem:
    # Damage is not cured by another place.
    is_damage = isinstance(error, StorageError)
    return Problem(f"the {what} cannot be compared: {error}{'' if is_damage else hint}", is_damage=is_damage)
