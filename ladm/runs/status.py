"""A run folder -> how far the run is, read without a lock. Imports no torch."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from ladm.errors import IncompleteError
from ladm.runs.claims import units_held
from ladm.runs.folder import Run
from ladm.runs.heartbeat import launch_at_work, read_heartbeats
from ladm.runs.layout import CLAIM, UNITS
from ladm.runs.results import error_lines
from ladm.runs.rows_of_run import partial_coverage
from ladm.runs.stored_rows import count_stored_rows

RATE_OVER_UNITS = 64


@dataclass(frozen=True, kw_only=True)
class Status:
    """The progress of a run."""

    finished: bool
    units: int
    sealed: int
    """Units of which every row is stored."""
    rows: int
    done: int
    """Rows that are stored, also those without a score."""
    errors: Counter[str] = field(default_factory=Counter)
    """Rows without a score, by the type of the error."""
    rows_a_second: float | None = None
    """Over the units sealed last, and before two are sealed what the launches at work report; None: not known."""
    held: dict[int, str] = field(default_factory=dict)
    """Units that a launch works on, and which one."""
    running: bool | None = False
    """None where a launch on another machine may be at work."""
    who: str | None = None
    """The launch at work, or one of several."""
    seconds_since_rows: float | None = None
    partial: str | None = None
    """Says that the run has only the first of its rows, see `partial_coverage`."""

    @property
    def seconds_left(self) -> float | None:
        """At the rate of the units sealed last, None where there is no rate."""
        return None if not self.rows_a_second else (self.rows - self.done) / self.rows_a_second


def status(run: Run) -> Status:
    """Read how far a run is, without a lock: a run in progress may be further by the time this returns."""
    require_whole_if_rescored(run)
    units, partial = len(run.units), partial_coverage(run)
    if run.identity.is_rescored:
        # Without a look at its units: it has none, and a copy of it may lack even their folder.
        of_lines = Counter(line["error_type"] for line in error_lines(run.folder))
        part = run.identity.part
        return Status(
            finished=True, units=units, sealed=units if part is None else part["units"], rows=run.num_rows,
            done=run.num_results, errors=of_lines, partial=partial,
        )  # fmt: skip
    waiting = len(run.unsealed())
    # The times at which units were sealed are those of their files: nothing else has to be written for the rate.
    stored = count_stored_rows(run)
    found = Status(
        finished=run.is_finished,
        units=units,
        sealed=units - waiting,
        rows=run.num_rows,
        done=stored.done,
        errors=stored.errors,
        rows_a_second=_rate(sorted(stored.sealed_at)[-RATE_OVER_UNITS:]),
        held=units_held(run),
        partial=partial,
    )
    return found if found.finished else _with_launch_activity(found, run)


def _with_launch_activity(found: Status, run: Run) -> Status:
    """Add whether a launch is at work, its rate where no units give one, and how old the newest rows are."""
    heartbeats = read_heartbeats(run.folder)
    running, who = launch_at_work(run.folder, is_shared=bool(found.held))
    rate, age = found.rows_a_second, None
    if rate is None and running is not False:
        rates = [each for each in (launch.rows_a_second for launch in heartbeats) if each]
        rate = sum(rates) if rates else None
    with contextlib.suppress(OSError, ValueError):
        # Not of claims: a launch renews the times of its own also while its workers hang.
        files = [path for path in (run.folder / UNITS).iterdir() if not CLAIM.match(path.name)]
        newest = max(path.stat().st_mtime for path in files if path.stat().st_size)
        age = max(0.0, time.time() - newest)
    return replace(found, running=running, who=who, rows_a_second=rate, seconds_since_rows=age)


def _rate(sealed_at: list[tuple[float, int]]) -> float | None:
    """Rows a second of these units, from the times between their seals; a pause of the run does not count."""
    gaps = [(later - earlier, rows) for (earlier, _), (later, rows) in itertools.pairwise(sealed_at)]
    if not gaps:
        return None
    # A run that was stopped for the night has one gap of hours among gaps of seconds.
    usual = sorted(gap for gap, _ in gaps)[len(gaps) // 2]
    counted = [(gap, rows) for gap, rows in gaps if gap <= max(20 * usual, 1.0)]
    seconds = sum(gap for gap, _ in counted)
    return sum(rows for _, rows in counted) / seconds if seconds > 0 else None


def require_whole_if_rescored(run: Run) -> None:
    """Raise IncompleteError for what a rescoring that was stopped has left."""
    if run.identity.is_rescored and not run.is_finished:
        raise IncompleteError(f"{run.folder} is not finished: run the same ladm rescore command again")


def describe(found: Status) -> dict[str, Any]:
    """The status as JSON."""
    return {
        "finished": found.finished, "units": found.units, "sealed": found.sealed, "rows": found.rows,
        "done": found.done, "errors": dict(found.errors), "rows_a_second": found.rows_a_second,
        "seconds_left": found.seconds_left, "held": found.held, "running": found.running, "who": found.who,
        "seconds_since_rows": found.seconds_since_rows, "partial": found.partial,
    }  # fmt: skip
