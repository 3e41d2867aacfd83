"""A run, and rows that begin with those that it scored -> the same run with more rows to score. Imports no torch.

    ladm score rows --limit 1000 -o run      then      ladm score rows --limit 2000 -o run

The first 1,000 rows of the second command must be, by their digest, those of the first.
"""

from __future__ import annotations

from pathlib import Path

from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError, count_of
from ladm.progress import Echo
from ladm.runs.folder import Run
from ladm.runs.identity import RunIdentity
from ladm.runs.layout import IDENTITY_FILE
from ladm.runs.reset import forget_results
from ladm.runs.unsealed import adopt_shared
from ladm.storage.files import io_errors, sync_folder, write_whole
from ladm.storage.json_object import json_with_checksum


def resume_or_grow(folder: Path, wanted: RunIdentity, *, rows: Rows, is_shared: bool, echo: Echo) -> Run:
    """Create the run in `folder`, resume it, or give it the rows that it lacks.

    Raises LadmError as `Run.create_or_resume`, and where launches that share the run would have to add rows.
    """
    if not (folder / IDENTITY_FILE).is_file():
        return Run.create_or_resume(folder, wanted)
    had = Run.read(folder).identity
    if had.data != wanted.data and not rows.begin_with(had.data, content=had.rows_content):
        return Run.create_or_resume(folder, wanted)
    is_grown = had.num_rows < wanted.num_rows
    # The size of a unit follows from the number of rows when a run is created, and stays when rows are added. Compared
    # with the old number of rows, so that anything else that differs is refused before the run is changed.
    run = Run.create_or_resume(folder, RunIdentity(wanted.content | {"unit_rows": had.unit_rows, "data": had.data}))
    if not is_grown:
        return run
    if had.is_rescored:
        raise LadmError(f"{folder} was made by ladm rescore; add the rows to the run that it was made from")
    if is_shared:
        raise LadmError(
            f"{folder} has {had.num_rows:,} of these {wanted.num_rows:,} rows, and launches that share a run cannot "
            "add the others; first start one launch alone, which may be stopped as soon as it scores rows"
        )
    adopt_shared(run)
    echo(f"adding {count_of(wanted.num_rows - had.num_rows, 'row')} to the {had.num_rows:,} of the run")
    return _grow(run, wanted)


def _grow(run: Run, wanted: RunIdentity) -> Run:
    """Give a run the rows of `wanted`, which begin with its own; only for the holder of the exclusive lock.

    The results go first and the identity changes last, so that a run stopped in between is an unfinished run of its
    old rows, from which the same command goes on.
    """
    run.require_writable_format()
    with io_errors(run.folder, "write in"):
        forget_results(run.folder)
        last = run.units[-1]
        # A last unit that is not full becomes an open one, to which the next rows are appended.
        if last.stop - last.start < run.unit_rows and run.sealed_path(last).exists():
            run.sealed_path(last).replace(run.open_path(last))
            sync_folder(run.open_path(last).parent)
        # The rows may be another data set than the one that the run was started with, which lacks those behind its own.
        now = {name: wanted.about[name] for name in ("rows", "rows_content") if name in wanted.about}
        about = run.identity.about | now
        grown = run.identity.content | {"data": wanted.data, "about": about}
        write_whole(run.folder / IDENTITY_FILE, [json_with_checksum(grown)])
    return Run.read(run.folder)
