"""A run folder -> its failed rows removed to be scored again, or all of the run removed, and nothing else. No torch."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ladm.errors import LadmError
from ladm.runs.folder import Run
from ladm.runs.heartbeat import PROGRESS
from ladm.runs.layout import (
    IDENTITY_FILE,
    INSPECTED,
    LEFTOVERS,
    PAGE_MARK,
    REPORT_FILE,
    RESULT_FILES,
    UNIT_FILES,
    UNITS,
)
from ladm.runs.lines import encode_line, read_records
from ladm.runs.records import ScoredRow
from ladm.storage.files import MARKED_BYTES, SORTING, io_errors, sync_folder, write_whole

_OWN = re.compile(rf"run\.json|{LEFTOVERS.pattern}|report\.html\.[0-9a-f]+\.partial")
_OF_INSPECT = re.compile(r"\d+\.json(\.[0-9a-f]+\.partial)?")


def forget_errors(run: Run) -> int:
    """Remove every row without a score, so that it is scored again; returns how many there were.

    Only for the holder of the exclusive lock. Killed at any moment it leaves the run resumable.
    """
    run.require_writable_format()
    removed = 0
    unsealed = {unit.number for unit in run.unsealed()}
    for unit in run.units:
        path = run.open_path(unit) if unit.number in unsealed else run.sealed_path(unit)
        if not path.exists():
            continue
        records = read_records(path, start=unit.start, stop=unit.stop)
        scored = [record for record in records if isinstance(record, ScoredRow)]
        if len(scored) == len(records):
            continue
        removed += len(records) - len(scored)
        # Results first, then the open unit, the sealed one last. After a crash in between, either nothing of the unit
        # has changed, or both files exist and the sealed one counts: it still has its errors, to be removed next time.
        _remove(run.folder, *RESULT_FILES)
        write_whole(run.open_path(unit), [encode_line(record) for record in scored])
        if unit.number not in unsealed:
            with io_errors(path, "remove"):
                path.unlink()
                sync_folder(path.parent)
    return removed


def delete_run(folder: Path) -> None:
    """Remove a run: the files that a run is made of, and nothing else.

    Raises LadmError where there is no run, or where its folder holds something else besides.
    """
    Run.read(folder)
    results = set(RESULT_FILES)
    if _is_page(folder / REPORT_FILE):
        results.add(REPORT_FILE)
    own = {*results, INSPECTED}
    others = [p.name for p in folder.iterdir() if p.name not in own and not _OWN.fullmatch(p.name)]
    others += [f"{UNITS}/{p.name}" for p in (folder / UNITS).glob("*") if not UNIT_FILES.fullmatch(p.name)]
    others += [f"{INSPECTED}/{p.name}" for p in (folder / INSPECTED).glob("*") if not _OF_INSPECT.fullmatch(p.name)]
    # Nothing is removed unless everything may be: half a folder of somebody's files would be worse than a refusal.
    if others:
        raise LadmError(
            f"{folder} holds more than a run ({sorted(others)[0]}); move that away, or give another --output"
        )
    # The results first and the identity last: stopped anywhere in between it is still a run.
    _remove(folder, *results, *(path.name for path in folder.glob(f"{PROGRESS}*")))
    with io_errors(folder, "remove from"):
        for path in [*(folder / UNITS).glob("*"), *folder.glob("*.partial")]:
            path.unlink(missing_ok=True)
        if (folder / UNITS).exists():
            sync_folder(folder / UNITS)
        if (folder / INSPECTED).exists():
            shutil.rmtree(folder / INSPECTED)
        for left in folder.iterdir():
            if SORTING.fullmatch(left.name):
                shutil.rmtree(left)
    _remove(folder, IDENTITY_FILE)


def _is_page(path: Path) -> bool:
    """Did `ladm report` write it, or is it somebody's own file of that name?"""
    return path.is_file() and PAGE_MARK.encode() in path.read_bytes()[:MARKED_BYTES]


def _remove(folder: Path, *names: str) -> None:
    with io_errors(folder, "remove from"):
        for name in names:
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
