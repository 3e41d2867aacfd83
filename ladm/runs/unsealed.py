"""A run -> the rows of its unsealed units, several of whose files may be those of launches that share the run.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ladm.errors import StorageError
from ladm.runs.folder import Run, Unit
from ladm.runs.layout import FINISHING, SHARED_UNIT_FILES, UNIT_FILES, UNITS
from ladm.runs.lines import encode_line, read_records
from ladm.runs.records import Record
from ladm.storage.files import PARTIAL_SUFFIX, io_errors, write_whole
from ladm.storage.gone import is_gone


def holder_files(run: Run) -> dict[int, list[Path]]:
    """The files of unsealed units by the unit's number; several where launches share the unit."""
    found: dict[int, list[Path]] = {}
    for name in run.unit_names():
        if ".open" in name and not name.endswith(PARTIAL_SUFFIX) and UNIT_FILES.fullmatch(name):
            found.setdefault(int(name.partition(".")[0]), []).append(run.folder / UNITS / name)
    return found


def rows_of_holders(unit: Unit, paths: Iterable[Path]) -> list[Record]:
    """Every row of an unsealed unit that any of its holders made durable, from their files.

    Raises StorageError for a damaged one.
    """
    rows: dict[int, Record] = {}
    for path in paths:
        # Of a row in several files the first counts. Equal on a CPU; on GPUs they may differ in a last bit.
        rows = {record.position: record for record in read_if_there(path, unit)} | rows
    return list(rows.values())


def read_if_there(path: Path, unit: Unit) -> list[Record]:
    """The records of a file of an unsealed unit; none where another holder has sealed or removed it meanwhile.

    Raises StorageError for a damaged one.
    """
    try:
        return read_records(path, start=unit.start, stop=unit.stop)
    except StorageError as error:
        if is_gone(error):
            return []
        raise


def adopt_shared(run: Run) -> None:
    """Merge what launches that shared the run left behind; only for the holder of the exclusive lock.

    The rows of all holders of a unit go into a new file, so that a holder that turns out to be alive
    after all appends to a file that nobody reads any more.
    """
    units = run.folder / UNITS
    with io_errors(units, "tidy"):
        own = [path for path in units.iterdir() if UNIT_FILES.fullmatch(path.name)]
        left = [path for path in own if SHARED_UNIT_FILES.search(path.name)]
        numbers = {int(path.name.partition(".")[0]) for path in left}
        holders = holder_files(run) if numbers else {}
        for unit in run.units if numbers else ():
            if unit.number in numbers and not run.sealed_path(unit).exists():
                rows = rows_of_holders(unit, holders.get(unit.number, ()))
                write_whole(run.open_path(unit), map(encode_line, rows))
        # Only now: a crash before this line leaves the holders' files, and the merge is done again.
        for path in (*left, *run.folder.glob(f"{FINISHING}-*")):
            path.unlink(missing_ok=True)
