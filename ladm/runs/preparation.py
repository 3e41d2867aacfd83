"""A folder of rows, or of a job that has no scores yet -> how far its preparation is, read without a lock. No torch."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladm.corpus.files.other_stages import WORK_FOLDER
from ladm.corpus.preparation.blocks import Counts, size_of_block
from ladm.corpus.rows.identity import PREPARED
from ladm.runs.heartbeat import is_locked, launch_at_work
from ladm.runs.layout import IDENTITY_FILE
from ladm.settings.pipeline import JOB_FILE, ROWS, SCORES
from ladm.storage.gone import unless_gone
from ladm.storage.json_object import damaged_file, read_json_object


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The progress of `ladm prepare`, or of the first part of a job of `ladm run`."""

    folder: Path
    """That of the rows."""
    is_of_job: bool
    """Will the rows be scored by the same command?"""
    prepared: bool
    """Are the rows finished?"""
    rows: int
    """Stored so far; until they are finished, duplicates among them."""
    counts: Counts
    """Documents so far by what became of them: `kept`, or the reason for the drop."""
    running: bool | None
    """None where a launch on another machine may be at work."""
    who: str | None
    """The launch at work."""
    seconds_since_rows: float | None
    """Since the last block was stored; None where there is none."""

    @property
    def documents(self) -> int:
        """Read so far, also those that make no row."""
        return sum(self.counts.values())

    @property
    def finished(self) -> bool:
        """Is nothing left to do for the command? A job goes on with its scores."""
        return self.prepared and not self.is_of_job


def find_preparation(name: str) -> Preparation | None:
    """The preparation in a folder of rows or of a job; None where it holds a run, or nothing of either.

    Raises StorageError for a damaged file.
    """
    folder = Path(name)
    if (folder / IDENTITY_FILE).is_file() or (folder / SCORES / IDENTITY_FILE).is_file():
        return None
    is_of_job = (folder / JOB_FILE).is_file()
    rows = folder / ROWS if is_of_job else folder
    if not ((rows / PREPARED).is_file() or (rows / WORK_FOLDER).is_dir()):
        return None
    blocks, num_rows, counts, age = _read_blocks(rows / WORK_FOLDER)
    # Of finished rows the blocks are kept where a greater --limit may add to them.
    prepared = (rows / PREPARED).is_file() and not (blocks and is_locked(rows))
    if prepared:
        num_rows, counts = _read_record(rows / PREPARED)
    running, who = launch_at_work(folder)
    return Preparation(
        folder=rows, is_of_job=is_of_job, prepared=prepared, rows=num_rows, counts=counts, running=running,
        who=who if running else None, seconds_since_rows=age,
    )  # fmt: skip


def _read_blocks(work: Path) -> tuple[int, int, Counts, float | None]:
    """The number of sealed blocks, their rows and documents, and the age of the latest in seconds."""
    blocks, rows, counts, newest = 0, 0, Counter[str](), None
    for path in sorted(work.glob("*.parquet")):
        # Blocks are removed when the rows are finished, or when a file proves to be damaged.
        with unless_gone():
            changed = path.stat().st_mtime
            of_block, documents = size_of_block(path)
            blocks, rows, newest = blocks + 1, rows + of_block, max(newest or changed, changed)
            counts.update(documents)
    return blocks, rows, counts, None if newest is None else max(0.0, time.time() - newest)


def _read_record(path: Path) -> tuple[int, Counts]:
    """Rows and documents of a finished preparation."""
    record = read_json_object(path)
    try:
        return int(record["rows"]), {reason: int(count) for reason, count in record["counts"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise damaged_file(path, "it does not describe prepared rows") from None


def describe(found: Preparation) -> dict[str, Any]:
    """The preparation as JSON."""
    return {
        "stage": "prepare", "finished": found.finished, "prepared": found.prepared, "documents": found.documents,
        "counts": dict(found.counts), "rows": found.rows, "running": found.running, "who": found.who,
        "seconds_since_rows": found.seconds_since_rows, "folder": str(found.folder),
    }  # fmt: skip
