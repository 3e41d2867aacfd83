"""Units -> sealed units in this process, without workers. Imports no torch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from ladm.errors import DEVICE_REMEDY, LadmError, one_line, raise_if_out_of_memory
from ladm.scoring.engines.batch_sizes import BatchSizes
from ladm.scoring.engines.events import InputRecheckStarted, RowsStored, UnitEvent
from ladm.scoring.engines.job import TICK_SECONDS, ScoreJob
from ladm.scoring.engines.score_unit import score_unit
from ladm.signals.scorer import SignalScorer


def run_in_process(job: ScoreJob) -> None:
    """Score the units of `job.source` until it is finished. The model is loaded once there is a unit to score.

    Raises LadmError for an error of the scorer's libraries; rows that are durable by then stay.
    """
    scorer: SignalScorer | None = None
    guard = job.worker.input_guard(job.rows)
    sizes = BatchSizes(job.worker.batch_rows)
    while True:
        assignment = job.source.take()
        if assignment is not None:
            scorer = scorer or job.worker.make_scorer(job.devices[0])
            unit = score_unit(job.run, assignment, job.rows, scorer, sizes=sizes, guard=guard)
            # Closed also when `report` raises: the writer's thread must have ended before the file is closed.
            with contextlib.closing(unit) as events:
                for event in _explained(events):
                    if isinstance(event, RowsStored):
                        job.report(event.records)
                    elif isinstance(event, InputRecheckStarted):
                        job.warn(event.line)
            job.source.sealed(assignment)
        elif job.source.finished():
            return
        else:
            time.sleep(TICK_SECONDS)


def _explained(events: Iterator[UnitEvent]) -> Iterator[UnitEvent]:
    """The same events; an error of the scorer's libraries becomes a LadmError that says what to do."""
    try:
        yield from events
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise_if_out_of_memory(error, action="score", device_remedy=f"give a smaller --batch-size, or {DEVICE_REMEDY}")
        raise LadmError(
            f"scoring failed ({type(error).__name__}: {one_line(error)}); with --workers 1 the failing row is found, "
            "recorded as an error, and skipped"
        ) from error
