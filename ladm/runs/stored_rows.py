"""A run folder -> how many of its rows are stored and how many of them have no score, without decoding them. No torch.

Decoding every line of every unit would take minutes for a large run; the checksums are verified all the same.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ladm.runs.folder import Run
from ladm.runs.lines import damaged_unit, whole_lines
from ladm.runs.unsealed import holder_files
from ladm.storage.files import io_errors
from ladm.storage.gone import unless_gone

_ERROR_LINE = re.compile(rb'\{"position": \d+, "status": "error", ')


@dataclass
class StoredRows:
    """What the units of a run hold."""

    done: int = 0
    """Rows that are stored, also those without a score."""
    errors: Counter[str] = field(default_factory=Counter)
    """Rows without a score, by the type of the error."""
    sealed_at: list[tuple[float, int]] = field(default_factory=list)
    """Of each sealed unit the time of its file, and its rows."""


def count_stored_rows(run: Run) -> StoredRows:
    """Count without a lock, while other launches may be at work. Raises StorageError for a damaged unit."""
    found = StoredRows()
    waiting, holders = {unit.number for unit in run.unsealed()}, holder_files(run)
    for unit in run.units:
        path = run.sealed_path(unit)
        if unit.number in waiting:
            lines = _most_lines(holders.get(unit.number, []))
            found.done += len(lines)
            found.errors.update(_error_types(lines))
        else:
            with unless_gone(), io_errors(path, "read"):
                found.done += unit.stop - unit.start
                found.sealed_at.append((path.stat().st_mtime, unit.stop - unit.start))
                lines = list(whole_lines(path.read_bytes(), path))
                if len(lines) != unit.stop - unit.start:
                    raise damaged_unit(path, f"{len(lines)} rows of {unit.stop - unit.start}")
                found.errors.update(_error_types(lines))
    return found


def _most_lines(paths: Iterable[Path]) -> list[bytes]:
    """Whole lines of an unfinished unit: those of the holder that has most."""
    best: list[bytes] = []
    for path in paths:
        with unless_gone(), io_errors(path, "read"):
            # Every holder starts with the rows of the ones before, so their rows must not be added up.
            best = max(best, list(whole_lines(path.read_bytes(), path)), key=len)
    return best


def _error_types(lines: Iterable[bytes]) -> Iterator[str]:
    """The error types of the rows without a score among the lines of a unit."""
    for line in lines:
        if _ERROR_LINE.match(line):
            with contextlib.suppress(ValueError, KeyError):
                yield json.loads(line)["error_type"]
