"""What a supervisor knows of its workers, the same for processes and for Ray actors. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ladm.runs.records import ScoredRow
from ladm.scoring.engines.assignments import Assignment, UnitSource
from ladm.scoring.engines.events import BatchStarted, InputRecheckStarted, ProgressEvent, RowsStored, UnitSealed
from ladm.scoring.engines.failures import FailureTracker, HangTimeout
from ladm.scoring.engines.job import ScoreJob

Clock = Callable[[], float]


class UnitQueue:
    """The units of a source and, before them, those whose worker was lost, preferably for another place."""

    PAUSE_SECONDS = 0.5
    """Pause between two looks at a source that had no unit: each of them lists a folder."""

    def __init__(self, source: UnitSource, clock: Clock = time.monotonic) -> None:
        self._source, self._clock = source, clock
        self._returned: list[tuple[Assignment, int]] = []
        self._next_look = 0.0

    def put_back(self, assignment: Assignment, place: int) -> None:
        """The unit's worker was lost at this place."""
        self._returned.append((assignment, place))

    def take(self, place: int, *, others: bool) -> Assignment | None:
        """A unit for a place, None for now.

        `others`: is there another place for what was lost at this one? It must be one that will ask for a unit, or
        nobody would ever score what was lost.
        """
        for k, (assignment, lost_at) in enumerate(self._returned):
            if lost_at != place or not others:
                del self._returned[k]
                return assignment
        if self._clock() < self._next_look:
            return None
        new = self._source.take()
        if new is None:
            self._next_look = self._clock() + self.PAUSE_SECONDS
        return new

    def finished(self) -> bool:
        """Will there never be another unit?"""
        return not self._returned and self._source.finished()


@dataclass(kw_only=True)
class TrackedWorker:
    """One worker as its supervisor sees it. An engine adds its process or actor."""

    place: int
    """The number of its device or actor, which outlives it."""
    last_heard: float
    """When it last reported anything or was given a unit, on the tracker's clock."""
    assignment: Assignment | None = None
    batch: list[int] = field(default_factory=list)
    """Positions that it has started and not stored."""
    warm: bool = False
    """Has it finished a batch? The first one may include the compilation of kernels."""
    reason: str = ""
    """Why it is about to be lost, where that is known before its end."""


class WorkerTracker:
    """Follows workers by their events: what each has in hand, which losses add up, who has been silent too long."""

    def __init__(self, job: ScoreJob, *, clock: Clock = time.monotonic) -> None:
        self.failures = FailureTracker()
        self.clock = clock
        self._source, self._report, self._warn = job.source, job.report, job.warn
        self._warned: set[str] = set()
        self._queue = UnitQueue(job.source, clock)
        self._timeout = HangTimeout(
            hang_seconds=job.worker.hang_seconds, first_batch_seconds=job.worker.first_batch_seconds
        )

    def take(self, place: int, *, others: bool) -> Assignment | None:
        """The next unit for a place; see `UnitQueue.take`."""
        return self._queue.take(place, others=others)

    def all_done(self, workers: Iterable[TrackedWorker]) -> bool:
        """Is no unit in hand, and will there be no other?"""
        return not any(worker.assignment for worker in workers) and self._queue.finished()

    def assign(self, worker: TrackedWorker, assignment: Assignment) -> None:
        """The worker is given a unit."""
        # The clock starts again: that an idle worker was silent means nothing.
        worker.assignment, worker.batch, worker.last_heard = assignment, [], self.clock()

    def handle(self, worker: TrackedWorker, event: ProgressEvent) -> None:
        """Take note of an event."""
        now = self.clock()
        if isinstance(event, BatchStarted):
            # Added, not replaced: on a GPU the next batch starts before this one is stored.
            worker.batch = worker.batch + event.positions
        elif isinstance(event, RowsStored):
            stored = {record.position for record in event.records}
            # Rows that failed their check were never started: they say nothing about how long a batch takes.
            if not stored.isdisjoint(worker.batch):
                self._timeout.record_batch(now - worker.last_heard)
                worker.warm = True
            worker.batch = [position for position in worker.batch if position not in stored]
            if any(isinstance(record, ScoredRow) for record in event.records):
                self.failures.record_success(worker.place)
            self._report(event.records)
        elif isinstance(event, InputRecheckStarted):
            # Every worker reads them; one line is enough for people.
            if event.line not in self._warned:
                self._warned.add(event.line)
                self._warn(event.line)
            # Reading a large model or corpus takes longer than the slowest batch: allow for it as for a start.
            worker.warm = False
        elif isinstance(event, UnitSealed):
            assert worker.assignment is not None
            self._source.sealed(worker.assignment)
            worker.assignment, worker.batch = None, []
        worker.last_heard = now

    def return_unit(self, worker: TrackedWorker, assignment: Assignment | None, cause: str, *, others: bool) -> None:
        """Queue the unit of a lost worker again, the rows it had started each alone.

        `assignment` is the worker's, or its next generation; None where another launch has the unit now.
        """
        if assignment is not None:
            again = self.failures.after_loss(assignment, worker.batch, cause, others=others)
            self._queue.put_back(again, worker.place)

    def hung_for(self, worker: TrackedWorker) -> float | None:
        """The limit in seconds that a silent worker has exceeded; None while it may still be working."""
        limit = self._timeout.limit(warm=worker.warm, losses=self.failures.losses_with(worker.batch))
        return limit if self.clock() - worker.last_heard > limit else None
