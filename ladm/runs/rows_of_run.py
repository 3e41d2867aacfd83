"""A run -> the rows that it scored, where they are now, and how many more there are. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from ladm.corpus.files.data_set import is_saved
from ladm.corpus.rows.identity import PREPARED
from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LackOfMemoryError, LadmError, StorageError
from ladm.runs.folder import Run
from ladm.storage.json_object import read_json_object

ONLY_FIRST = "only the first "
"""How the lines of `partial_coverage` begin."""


def place_of_rows(run: Run) -> str:
    """Where the rows of a run are: where the run found them, or, once they are gone from there, beside the run.

    The content is not compared.
    """
    name = run.identity.rows_name
    found = Path(name)
    # A job, or a folder with rows and runs, is moved as a whole. The rows then still lie beside the run, under their
    # name.
    beside = run.folder.absolute().parent / found.name
    has_moved = found.is_absolute() and not found.exists() and beside != run.folder.absolute()
    return str(beside) if has_moved and is_saved(beside) else name


def rows_of_run(run: Run, name: str | None) -> Rows:
    """The rows called `name`, or with None those of `place_of_rows`; their content is not compared.

    Raises LadmError where there are none, StorageError for damaged ones.
    """
    try:
        return open_rows(name or place_of_rows(run), limit=run.num_rows)
    except (StorageError, LackOfMemoryError):
        # Neither is cured by another place.
        raise
    except LadmError as error:
        raise LadmError(str(error) if name else f"{error}; give their new path with --rows") from None


def open_rows_of(run: Run, name: str | None) -> Rows:
    """The rows of a run: those called `name`, or with None those of `place_of_rows`.

    All of them are read once. Raises LadmError where there are none, or others, and StorageError for damaged ones.
    """
    rows = rows_of_run(run, name)
    require_rows_of(run, rows)
    return rows


def require_rows_of(run: Run, rows: Rows) -> None:
    """Raise LadmError for other rows than those that a run scored. Reads all of them."""
    # By content: positions of other rows would select other documents without any error.
    if not run.identity.has_rows(rows):
        raise LadmError(f"{rows.name} are not the rows that {run.folder} scored: their content differs")


def partial_coverage(run: Run, name: str | None = None) -> str | None:
    """A line to print where a run has only the first of its rows, as `--limit` makes it, or only those so far.

    `name` as for `rows_of_run`. None: it scored all that are there, or there is no such folder on this machine.
    """
    place, scored = name or (place_of_rows(run) if run.identity.about.get("rows") else ""), run.num_results
    total = max(_rows_in(place) or 0, run.num_rows)
    if scored < run.num_rows:
        line = partial_coverage_line(scored, total, are_first=False)
        return f"{line} so far; once there are more, rescore {run.identity.about['rescored_from']} again"
    if total == run.num_rows:
        return None
    if run.identity.is_rescored:
        remedy = "score the others in the run that it was made from, and rescore that"
    elif run.is_of_job:
        remedy = "to add others, run ladm run with a greater --limit"
    else:
        remedy = "to add the others, run ladm score without --limit"
    return f"{partial_coverage_line(scored, total, are_first=True)}; {remedy}"


def partial_coverage_line(scored: int, total: int, *, are_first: bool) -> str:
    """Says that only `scored` of `total` rows went through `ladm score`; `are_first`: those that come first."""
    return f"{ONLY_FIRST if are_first else 'only '}{scored:,} of {total:,} rows were scored"


def _rows_in(place: str) -> int | None:
    """The number of rows in a folder; None where it holds none that can be read."""
    # Nothing is looked up on the Hub: status must work without the network.
    if not place or not Path(place).is_dir():
        return None
    try:
        record = Path(place) / PREPARED
        # Half a second faster than opening the rows, which imports `datasets`.
        found = read_json_object(record).get("rows") if record.is_file() else None
        return found if isinstance(found, int) else open_rows(place).total
    except LackOfMemoryError:
        raise
    except LadmError:
        return None
