"""A run folder -> how far the run is, read without a lock. Imports no torch."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ladm.errors import IncompleteError
from ladm.runs.claims import units_held
from ladm.runs.folder import Run
from ladm.runs.results import ERRORS_FILE, is_finished

RATE_OVER_UNITS = 64
_ERROR_LINE = re.compile(rb'^\{"position": \d+, "status": "error", .*$', re.MULTILINE)


@dataclass
class Status:
    """How far a run is. `rows_a_second` is over the units sealed last, None before the second of them."""

    finished: bool
    units: int
    sealed: int
    rows: int
    done: int
    errors: Counter[str] = field(default_factory=Counter)
    rows_a_second: float | None = None
    held: dict[int, str] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """At the rate of late, None where there is none."""
        return None if not self.rows_a_second else (self.rows - self.done) / self.rows_a_second


def status(run: Run) -> Status:
    """Read how far a run is, without a lock; a run that is being worked on may be further by the time it is told."""
    require_whole_if_rescored(run)
    waiting = {unit.number for unit in run.unsealed()}
    found = Status(
        finished=is_finished(run),
        units=len(run.units),
        sealed=len(run.units) - len(waiting),
        rows=run.num_rows,
        done=0,
        held=units_held(run),
    )
    if run.identity.is_rescored:
        found.sealed, found.done = found.units, run.num_rows
        with (run.folder / ERRORS_FILE).open("rb") as lines:
            found.errors.update(json.loads(line)["error_type"] for line in lines)
        return found
    sealed_at: list[tuple[float, int]] = []
    holders = run.holders()
    for unit in run.units:
        path = run.sealed_path(unit)
        if unit.number in waiting:
            found.done += _count_open(holders.get(unit.number, []), found.errors)
        else:
            with contextlib.suppress(FileNotFoundError):
                found.done += unit.stop - unit.start
                sealed_at.append((path.stat().st_mtime, unit.stop - unit.start))
                found.errors.update(_error_types(path.read_bytes()))
    found.rows_a_second = _rate(sorted(sealed_at)[-RATE_OVER_UNITS:])
    return found


def _count_open(paths: list[Path], errors: Counter[str]) -> int:
    """Whole lines of an unfinished unit: those of the holder who is furthest."""
    best = b""
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            best = max(best, content[: content.rfind(b"\n") + 1], key=len)
    errors.update(_error_types(best))
    return best.count(b"\n")


def _error_types(content: bytes) -> Iterator[str]:
    """The kinds of the rows without a score among the lines of a unit."""
    for line in _ERROR_LINE.findall(content):
        with contextlib.suppress(ValueError, KeyError):
            yield json.loads(line)["error_type"]


def _rate(sealed_at: list[tuple[float, int]]) -> float | None:
    """Rows a second of these units, from the times between their seals; a pause of the run is not counted."""
    gaps = [(later - earlier, rows) for (earlier, _), (later, rows) in itertools.pairwise(sealed_at)]
    if not gaps:
        return None
    usual = sorted(gap for gap, _ in gaps)[len(gaps) // 2]
    counted = [(gap, rows) for gap, rows in gaps if gap <= max(20 * usual, 1.0)]
    seconds = sum(gap for gap, _ in counted)
    return sum(rows for _, rows in counted) / seconds if seconds > 0 else None


def require_whole_if_rescored(run: Run) -> None:
    """Raise IncompleteError for what a rescoring left that was stopped."""
    if run.identity.is_rescored and not is_finished(run):
        raise IncompleteError(f"{run.folder} is not finished: run its ladm rescore again")


def describe(found: Status) -> dict[str, Any]:
    """The status as JSON."""
    return {
        "finished": found.finished, "units": found.units, "sealed": found.sealed, "rows": found.rows,
        "done": found.done, "errors": dict(found.errors), "rows_a_second": found.rows_a_second,
        "seconds_left": found.seconds_left, "held": found.held,
    }  # fmt: skip
