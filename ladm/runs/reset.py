"""A run folder -> its failed rows removed to be scored again, or all of the run removed, and nothing else. No torch."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ladm.errors import LadmError, StorageError
from ladm.runs.folder import Run
from ladm.runs.heartbeat import PROGRESS
from ladm.runs.identity import RunIdentity
from ladm.runs.layout import (
    IDENTITY_FILE,
    INSPECTED,
    LEFTOVERS,
    PAGE_MARK,
    REPORT_FILE,
    RESULT_FILES,
    SIGNALS,
    UNIGRAMS_FILE,
    UNIT_FILES,
    UNITS,
)
from ladm.runs.lines import encode_line, read_records
from ladm.runs.records import ScoredRow
from ladm.storage.files import MARKED_BYTES, io_errors, sync_folder, write_whole
from ladm.storage.json_object import json_with_checksum
from ladm.storage.locks import SORTING

_OWN = re.compile(rf"run\.json|{LEFTOVERS.pattern}|report\.html\.[0-9a-f]+\.partial")
_OF_INSPECT = re.compile(r"\d+\.json(\.[0-9a-f]+\.partial)?")


def forget_errors(run: Run) -> int:
    """Remove every row without a score, so that it is scored again; returns how many there were.

    Only for the holder of the exclusive lock. Killed at any moment it leaves the run resumable. Raises LadmError for a
    run that was made from another.
    """
    if run.identity.is_rescored:
        raise LadmError(
            f"{run.folder} was made by ladm rescore, which scores no rows; retry the errors of the run that it was "
            "made from, and rescore that"
        )
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
        forget_results(run.folder)
        write_whole(run.open_path(unit), [encode_line(record) for record in scored])
        if unit.number not in unsealed:
            with io_errors(path, "remove"):
                path.unlink()
                sync_folder(path.parent)
    return removed


def forget_results(folder: Path) -> None:
    """Remove the result files of a run: without them it is not finished."""
    _remove(folder, *RESULT_FILES)


def forget_earlier_rows(output: Path, identity: RunIdentity) -> None:
    """Let a run that the same `ladm rescore` made before take the rows that RUN has by now: `identity`, no results.

    Leaves alone any other run, which is then refused as one that was started with something else.
    """
    if not (output / IDENTITY_FILE).is_file():
        return
    had = Run.read(output).identity
    if not had.is_rescored or had.content == identity.content or (had.part is None and identity.part is not None):
        return
    # Rows are added to RUN in its folder; those of another one are somebody's mistake in --output.
    has_same_source = _source(had) == _source(identity)
    of_rows = ("part", "about", "data") if has_same_source else ("part", "about")
    if _without(had, of_rows) == _without(identity, of_rows):
        # The results first: stopped in between it is not finished, and the same command makes it again.
        forget_results(output)
        write_whole(output / IDENTITY_FILE, [json_with_checksum(identity.content)])


def _source(identity: RunIdentity) -> Path:
    """The folder of the run that it was made from."""
    return Path(identity.about["rescored_from"]).resolve()


def _without(identity: RunIdentity, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in identity.content.items() if name not in names}


@contextlib.contextmanager
def undone_on_error(run: Run) -> Iterator[None]:
    """Writes the results of a run that has no units: after an error nothing is left of one that was not finished."""
    was_finished = run.is_finished
    try:
        yield
    except Exception:
        # Without results the identity would only stand in the way of the next attempt. The results go first: of a
        # folder that has some and no identity, nobody would know whose they are.
        if not was_finished:
            with contextlib.suppress(StorageError):
                forget_results(run.folder)
                run.forget_if_empty()
        raise


def delete_run(folder: Path) -> None:
    """Remove a run with the signals that were added to it: the files that a run is made of, and nothing else.

    Raises LadmError where there is no run, or where its folder holds something else besides.
    """
    Run.read(folder)
    # Added signals are run folders themselves; one whose removal was interrupted has lost its identity already.
    added = sorted(path for path in (folder / SIGNALS).glob("*") if path.is_dir())
    others = [name for each in (folder, *added) for name in _not_of_a_run(each)]
    others += [f"{SIGNALS}/{path.name}" for path in (folder / SIGNALS).glob("*") if path not in added]
    # Nothing is removed unless everything may be: half a folder of somebody's files would be worse than a refusal.
    if others:
        raise LadmError(
            f"{folder} holds more than a run ({sorted(others)[0]}); move that away, or give another --output"
        )
    # The results first: without them nobody takes it for a finished run that lacks a signal.
    _remove(folder, *_results(folder))
    for each in added:
        _delete_files(each)
    with io_errors(folder, "remove from"):
        if (folder / SIGNALS).exists():
            shutil.rmtree(folder / SIGNALS)
    _delete_files(folder)


def _not_of_a_run(folder: Path) -> list[str]:
    """What a folder holds besides a run."""
    own = {*_results(folder), INSPECTED, SIGNALS}
    others = [p.name for p in folder.iterdir() if p.name not in own and not _OWN.fullmatch(p.name)]
    others += [f"{UNITS}/{p.name}" for p in (folder / UNITS).glob("*") if not UNIT_FILES.fullmatch(p.name)]
    return others + [
        f"{INSPECTED}/{p.name}" for p in (folder / INSPECTED).glob("*") if not _OF_INSPECT.fullmatch(p.name)
    ]


def _delete_files(folder: Path) -> None:
    # The results first and the identity last: stopped anywhere in between it is still a run.
    _remove(folder, *_results(folder), UNIGRAMS_FILE, *(path.name for path in folder.glob(f"{PROGRESS}*")))
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


def _results(folder: Path) -> set[str]:
    return {*RESULT_FILES, REPORT_FILE} if _is_page(folder / REPORT_FILE) else set(RESULT_FILES)


def _is_page(path: Path) -> bool:
    """Did `ladm report` write it, or is it somebody's own file of that name?"""
    return path.is_file() and PAGE_MARK.encode() in path.read_bytes()[:MARKED_BYTES]


def _remove(folder: Path, *names: str) -> None:
    with io_errors(folder, "remove from"):
        for name in names:
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)
