"""Units -> sealed units on this machine: in this process on one CPU worker, one watched process a device otherwise.

Processes share nothing but the run folder, so that losing one loses at most its unfinished batch. A lost worker is
replaced; a row that takes workers with it is found by scoring its batch row by row, and recorded. Imports no torch.
"""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from ladm.errors import LadmError
from ladm.scoring.engines.assignments import Assignment
from ladm.scoring.engines.events import (
    BatchStarted,
    InputRecheckStarted,
    RowsStored,
    UnitSealed,
    WorkerBroken,
    WorkerEvent,
    WorkerFailed,
    WorkerReady,
)
from ladm.scoring.engines.in_process import run_in_process
from ladm.scoring.engines.job import TICK_SECONDS, ScoreJob
from ladm.scoring.engines.processes import END_SECONDS, end_process, require_guarded, start_worker
from ladm.scoring.engines.tracker import TrackedWorker, WorkerTracker


def run_units(job: ScoreJob) -> None:
    """Score the units of `job.source` until it is finished.

    With one device, and unless the job is supervised, no process is started. Raises LadmError when a
    scorer cannot be made, or when workers keep dying; rows that are durable by then stay.
    """
    if len(job.devices) > 1 or job.supervised:
        _Supervisor(job).run()
    else:
        run_in_process(job)


@dataclass(kw_only=True)
class _Worker(TrackedWorker):
    """A worker process and the pipe to it."""

    device: str
    process: SpawnProcess
    pipe: Connection
    ready: bool = False

    @property
    def idle(self) -> bool:
        return self.ready and self.assignment is None

    def send(self, message: Assignment | None) -> None:
        """Send a unit, or None for the end. A process that is gone is found by the next look at its sentinel."""
        with contextlib.suppress(OSError):
            self.pipe.send(message)


class _Supervisor:
    """Starts, watches and replaces one process a device."""

    def __init__(self, job: ScoreJob) -> None:
        self._job = job
        self._tracker = WorkerTracker(job)
        # By the number of the device, because several workers of a CPU have the same name; one that is given up goes.
        self._slots: dict[int, _Worker | None] = dict.fromkeys(range(len(job.devices)))
        self._last_look = self._tracker.clock()

    def run(self) -> None:
        """Hand out units until none is left. A device's worker is started once there is a unit for it."""
        try:
            while not self._tracker.all_done(self._workers()):
                self._hand_out()
                self._listen()
                self._look_for_hung()
            for worker in self._workers():
                worker.send(None)
        finally:
            self._end_all()

    def _end_all(self) -> None:
        """End every process: an idle one may finish by itself, unless an error ends the run."""
        deadline = time.monotonic() + END_SECONDS
        # Killed first and waited for afterwards, so that all of them together take no longer than the slowest.
        for worker in self._workers():
            if worker.idle and not sys.exc_info()[0]:
                worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
        for worker in self._workers():
            end_process(worker.process)

    def _workers(self) -> list[_Worker]:
        return [worker for worker in self._slots.values() if worker is not None]

    def _hand_out(self) -> None:
        """Give units to idle workers, and start workers for devices without one."""
        for place, worker in self._slots.items():
            if worker is None or worker.idle:
                assignment = self._tracker.take(place, others=len(self._slots) > 1)
                if assignment is None:
                    continue
                if worker is None:
                    worker = self._slots[place] = self._start(place)
                self._tracker.assign(worker, assignment)
                # A new worker is sent it once it is ready: until then its assignment shows that the unit is taken.
                if worker.ready:
                    worker.send(assignment)

    def _start(self, place: int) -> _Worker:
        device, config = self._job.devices[place], self._job.worker
        process, pipe = self._job.take_early(config, device) or start_worker(config, device)
        return _Worker(place=place, last_heard=self._tracker.clock(), device=device, process=process, pipe=pipe)

    def _listen(self) -> None:
        """Receive events, and notice which processes are gone; returns after a tick without either."""
        workers = self._workers()
        # The sentinel becomes ready when the process ends: a death is noticed at once, not at a timeout.
        ready = wait(
            [*(worker.pipe for worker in workers), *(worker.process.sentinel for worker in workers)], TICK_SECONDS
        )
        for worker in workers:
            if worker.pipe in ready or worker.process.sentinel in ready:
                self._receive(worker)
        if not workers:
            time.sleep(TICK_SECONDS)

    def _receive(self, worker: _Worker) -> None:
        """Handle one event of a worker, or its loss. What it sent before its end is read first."""
        try:
            event: WorkerEvent | None = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):
            event = None
        if event is None:
            self._lost(worker)
        else:
            self._handle(worker, event)

    def _handle(self, worker: _Worker, event: WorkerEvent) -> None:
        if isinstance(event, WorkerFailed):
            raise event.error
        if isinstance(event, WorkerBroken):
            worker.reason = event.reason
        elif isinstance(event, WorkerReady):
            worker.ready = True
            self._tracker.failures.record_start(worker.place)
            if worker.assignment is not None:
                worker.send(worker.assignment)
        elif isinstance(event, (BatchStarted, RowsStored, InputRecheckStarted, UnitSealed)):
            self._tracker.handle(worker, event)
        worker.last_heard = self._tracker.clock()

    def _lost(self, worker: _Worker) -> None:
        """Have the rows of a lost worker scored one by one, on another device if possible.

        Another worker is started in its place once there is a unit for it; a place that loses one after
        the other is given up while there are others.
        """
        failures, place = self._tracker.failures, worker.place
        reason = self._reason_of(worker)
        cause = f"the worker on {worker.device} {reason}"
        failures.record_loss(place, worker.batch)
        if not worker.ready:
            failures.record_failed_start(place)
        others = len(self._slots) > 1
        bad = failures.cannot_start(place) or failures.is_bad(place)
        if failures.too_many or (bad and not others and not worker.ready):
            when = f"{failures.in_a_row} times in a row without finishing a row" if worker.ready else "while it started"
            raise LadmError(f"{cause} {when}; finished rows are safe; run the same command again to continue")
        self._tracker.return_unit(worker, worker.assignment, cause, others=others)
        self._slots[place] = None
        if bad and others:
            self._job.warn(
                f"warning   {worker.device} is no longer used: its worker {reason} repeatedly; the others continue"
            )
            del self._slots[place]

    def _reason_of(self, worker: _Worker) -> str:
        """What became of a worker, whose process is ended if it is not yet.

        Raises LadmError for a process that cannot be ended: two processes must never write one file; and where the
        program's call is not under `if __name__ == "__main__":`.
        """
        if not end_process(worker.process):
            raise LadmError(
                f"the worker on {worker.device} {worker.reason or 'is lost'} and does not end even when killed: its "
                "driver or file system hangs; finished rows are safe; once it has ended, run the same command again "
                "to continue"
            )
        worker.pipe.close()
        require_guarded(worker.process)
        return worker.reason or f"died (exit code {worker.process.exitcode})"

    def _look_for_hung(self) -> None:
        now = self._tracker.clock()
        # A supervisor that was stopped itself (SIGSTOP, a suspended laptop) has heard nothing in that time, which does
        # not mean that its workers were silent.
        asleep = now - self._last_look
        self._last_look = now
        for worker in self._workers():
            if asleep > 10 * TICK_SECONDS:
                worker.last_heard += asleep
            if worker.idle or worker.reason:
                continue
            limit = self._tracker.hung_for(worker)
            if limit is not None:
                worker.reason = f"hung for {limit:.0f} s"
                self._lost(worker)
