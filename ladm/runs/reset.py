"""A run folder -> its failed rows taken back, or all of the run removed, and nothing else. Imports no torch."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from ladm.errors import LadmError
from ladm.runs.folder import (
    IDENTITY_FILE,
    INSPECTED,
    OWN_LEFTOVERS,
    OWN_UNIT_FILES,
    PAGE_MARK,
    REPORT_FILE,
    Run,
)
from ladm.runs.lines import encode_line, read_lines
from ladm.runs.results import ERRORS_FILE, PARQUET_FILE, SORTED_FILE
from ladm.storage.files import MARKED_BYTES, SORTING, io_errors, sync_folder, write_whole

_OWN = re.compile(rf"run\.json|{OWN_LEFTOVERS.pattern}|report\.html\.[0-9a-f]+\.partial")
_OF_INSPECT = re.compile(r"\d+\.json(\.[0-9a-f]+\.partial)?")


def forget_errors(run: Run) -> int:
    """Take back every row without a score, so that it is tried again; returns how many there were.

    Only for who holds the folder. Killed at any moment it leaves the run resumable.
    """
    taken = 0
    unsealed = {unit.number for unit in run.unsealed()}
    for unit in run.units:
        path = run.open_path(unit) if unit.number in unsealed else run.sealed_path(unit)
        if not path.exists():
            continue
        records, _ = read_lines(path, start=unit.start, stop=unit.stop)
        kept = [record for record in records if record["status"] == "ok"]
        if len(kept) == len(records):
            continue
        taken += len(records) - len(kept)
        _remove(run.folder, SORTED_FILE, PARQUET_FILE, ERRORS_FILE)
        write_whole(run.open_path(unit), [encode_line(record) for record in kept])
        if unit.number not in unsealed:
            with io_errors(path, "remove"):
                path.unlink()
                sync_folder(path.parent)
    return taken


def delete_run(folder: Path) -> None:
    """Remove a run: the files that a run is made of, and nothing else.

    Raises LadmError where there is no run, or where its folder holds something else besides.
    """
    Run.read(folder)
    results = {SORTED_FILE, PARQUET_FILE, ERRORS_FILE}
    if _is_page(folder / REPORT_FILE):
        results.add(REPORT_FILE)
    ours = {*results, INSPECTED}
    others = [p.name for p in folder.iterdir() if p.name not in ours and not _OWN.fullmatch(p.name)]
    others += [f"units/{p.name}" for p in (folder / "units").glob("*") if not OWN_UNIT_FILES.fullmatch(p.name)]
    others += [f"{INSPECTED}/{p.name}" for p in (folder / INSPECTED).glob("*") if not _OF_INSPECT.fullmatch(p.name)]
    if others:
        raise LadmError(
            f"{folder} holds more than a run ({sorted(others)[0]}); move that away, or give another --output"
        )
    # The results first and the identity last: stopped anywhere in between it is still a run.
    _remove(folder, *results)
    with io_errors(folder, "remove from"):
        for path in [*(folder / "units").glob("*"), *folder.glob("*.partial")]:
            path.unlink(missing_ok=True)
        if (folder / "units").exists():
            sync_folder(folder / "units")
        if (folder / INSPECTED).exists():
            shutil.rmtree(folder / INSPECTED)
        for left in folder.iterdir():
            if SORTING.fullmatch(left.name):
                shutil.rmtree(left)
    _remove(folder, IDENTITY_FILE)


def _is_page(path: Path) -> bool:
    """Is it a page of ours, and not a file of somebody's with that name?"""
    return path.is_file() and PAGE_MARK.encode() in path.read_bytes()[:MARKED_BYTES]


def _remove(folder: Path, *names: str) -> None:
    with io_errors(folder, "remove from"):
        for name in names:
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
