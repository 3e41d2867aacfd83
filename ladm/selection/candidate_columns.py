"""Runs and the columns that a selection needs -> those of all their documents, in files. Imports no torch.

Shape suffix: N documents of all runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError, StorageError
from ladm.runs.columns.by_name import fill_columns, longattn
from ladm.runs.columns.derived import LONGATTN_PARTS
from ladm.runs.columns.joined_files import require_matches
from ladm.runs.results import count_scored
from ladm.selection.sources import SelectionSource
from ladm.selection.value_columns import naming_values, read_values
from ladm.settings.guards import AnyGuard
from ladm.storage.disk_arrays import array_on_disk

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def read_columns(
    sources: Sequence[SelectionSource],
    names: Iterable[str],
    guards: Sequence[AnyGuard],
    *,
    seed: int,
    work: Path,
) -> tuple[dict[str, Floats], Ints]:
    """Columns of all documents with a score, (N,) each, and the numbers of their rows, run after run.

    `longattn` is replaced by the columns that `with_relative` makes it of. For each guard of values there is a column
    named by its text, as `read_values` makes it. All are files in `work`.
    Raises LadmError where no document has a score; UsageError for a column that a run does not have; StorageError for
    scores that are not finite or out of order.
    """
    with naming_values(guards):
        stored, rows_N = _read(sources, names, seed=seed, work=work)
    if not len(rows_N):
        raise LadmError(f"{_folders(sources)}: no document has a score")
    if "score" in stored:
        _require_sound(sources, stored["score"], rows_N)
    return {**stored, **read_values(sources, guards, rows_N, parts_of(sources), work=work)}, rows_N


def _read(
    sources: Sequence[SelectionSource], names: Iterable[str], *, seed: int, work: Path
) -> tuple[Mapping[str, Floats], Ints]:
    """The columns that are numbers, and the numbers of the rows."""
    parts = parts_of(sources)
    count = parts[-1].stop
    wanted = list(names)
    relative = "longattn" in wanted
    stored = [name for name in wanted if name != "longattn"]
    stored += [name for name in LONGATTN_PARTS if relative and name not in wanted]
    columns: dict[str, Floats] = {
        name: array_on_disk(work / f"column-{k}", "f8", count) for k, name in enumerate(stored)
    }
    rows_N: Ints = array_on_disk(work / "rows", "i8", count)
    for source, part in zip(sources, parts, strict=True):
        parts_of_columns = {name: column[part] for name, column in columns.items()}
        source.columns.fill(parts_of_columns, rows_N[part], seed=seed, first_row=source.first)
        rows_N[part] += source.first
    # All sources have the same files.
    require_matches(sources[0].columns.files)
    return columns, rows_N


def with_relative(columns: Mapping[str, Floats], names: Iterable[str]) -> Mapping[str, Floats]:
    """The columns with `longattn`, if it is wanted: relative to all documents that are ranked together, in all runs."""
    if "longattn" not in names:
        return columns
    return {**columns, "longattn": longattn(*(columns[name] for name in LONGATTN_PARTS))}


def read_sampling(sources: Sequence[SelectionSource], *, seed: int, work: Path) -> Floats:
    """A random number of each document for the draw; they differ from the column `random` with the same seed."""
    parts = parts_of(sources)
    count = parts[-1].stop
    uniform_N: Floats = array_on_disk(work / "uniform", "f8", count)
    positions_N: Ints = array_on_disk(work / "sampled", "i8", count)
    for source, part in zip(sources, parts, strict=True):
        found = {"random": uniform_N[part]}
        fill_columns(source.run, found, positions_N[part], seed=-1 - seed, first_row=source.first)
    return uniform_N


def parts_of(sources: Sequence[SelectionSource]) -> list[slice]:
    """Where the documents of each run stand among those of all."""
    counts = [count_scored(source.run.folder) for source in sources]
    stops = np.cumsum(counts).tolist()
    return [slice(stop - count, stop) for count, stop in zip(counts, stops, strict=True)]


def _require_sound(sources: Sequence[SelectionSource], scores_N: Floats, rows_N: Ints) -> None:
    """Raise StorageError for a score that is not finite, or not in the order of the file."""
    for source, part in zip(sources, parts_of(sources), strict=True):
        scores, folder = scores_N[part], source.run.folder
        not_finite = np.flatnonzero(~np.isfinite(scores))
        if len(not_finite):
            position = int(rows_N[part][not_finite[0]]) - source.first
            raise StorageError(f"{folder} is damaged: row {position} has the score {scores[not_finite[0]]}")
        if (scores[1:] > scores[:-1]).any():
            raise StorageError(f"{folder} is damaged: its scores are not in order")


def _folders(sources: Sequence[SelectionSource]) -> str:
    return ", ".join(str(source.run.folder) for source in sources)
