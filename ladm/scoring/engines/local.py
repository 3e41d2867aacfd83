"""Units -> sealed units on this machine: in this process on one CPU worker, one watched process a device otherwise.

Processes share nothing but the run folder, so that losing one loses at most its unfinished batch. A lost worker is
replaced; a row that takes workers with it is found by scoring its batch row by row, and recorded. Imports no torch.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from ladm.corpus.rows import Rows
from ladm.errors import LadmError, one_line
from ladm.runs.folder import Run
from ladm.scoring.engines.units import Assignment, Losses, Patience, Queue, Source
from ladm.scoring.engines.work import BatchSizes, Event, Report, work_unit
from ladm.scoring.engines.worker import Work, worker_main
from ladm.signals.scorer import Scorer

TICK_SECONDS = 0.5
MOST_FAILED_STARTS = 2
SLOWEST_END_SECONDS = 10.0


def run_units(
    work: Work,
    run: Run,
    rows: Rows,
    source: Source,
    *,
    devices: tuple[str, ...],
    report: Report,
    watched: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Work on the units of `source` until it is finished. `report` hears of each durable batch, in this process.

    With one device and not `watched` no process is started. Raises LadmError when a scorer cannot be
    made, or when workers keep dying; what is sealed or appended by then stays. `say` tells of a device
    that the others go on without.
    """
    if len(devices) > 1 or watched:
        _Pool(work, source, devices=devices, report=report, say=say).run()
        return
    scorer: Scorer | None = None
    sizes = BatchSizes(work.batch_rows)
    while True:
        assignment = source.take()
        if assignment is not None:
            scorer = scorer or work.make_scorer(devices[0])
            with contextlib.closing(work_unit(run, assignment, rows, scorer, batch_rows=sizes)) as events:
                for kind, content in _explained(events):
                    if kind == "rows":
                        report(content)
            source.sealed(assignment)
        elif source.finished():
            return
        else:
            time.sleep(TICK_SECONDS)


def _explained(events: Iterator[Event]) -> Iterator[Event]:
    """The same events; what a scorer raises without a word for people, with what to do."""
    try:
        yield from events
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise LadmError(
            f"scoring failed ({type(error).__name__}: {one_line(error)}); with --workers 1 the row that it fails in is "
            "found, recorded as an error, and left behind"
        ) from error


@dataclass
class _Worker:
    place: int
    device: str
    process: SpawnProcess
    pipe: Connection
    since: float
    """When it was last heard of or given something to do, on the monotonic clock."""
    ready: bool = False
    warm: bool = False
    """Has it finished a batch? The first may compile kernels."""
    assignment: Assignment | None = None
    batch: list[int] = field(default_factory=list)
    reason: str = ""

    @property
    def idle(self) -> bool:
        return self.ready and self.assignment is None

    def send(self, message: Any) -> None:
        """Tell it something. A worker that is gone does not hear it, and the next look finds that out."""
        with contextlib.suppress(OSError):
            self.pipe.send(message)


class _Pool:
    """The supervisor of one process a device."""

    def __init__(
        self, work: Work, source: Source, *, devices: tuple[str, ...], report: Report, say: Callable[[str], None]
    ) -> None:
        self._work, self._source, self._report, self._say = work, source, report, say
        self._context = multiprocessing.get_context("spawn")
        # Places by number, because several workers of a CPU have the same name; one that is given up goes.
        self._devices = dict(enumerate(devices))
        self._slots: dict[int, _Worker | None] = dict.fromkeys(self._devices)
        self._queue = Queue(source)
        self._failed_starts: Counter[int] = Counter()
        self._losses = Losses()
        self._patience = Patience(work.hang_seconds, work.first_seconds)
        self._last_look = time.monotonic()

    def run(self) -> None:
        """Give out units until none is left. A worker is started for a device once there is a unit for it."""
        try:
            while not self._done():
                self._hand_out()
                self._listen()
                self._look_for_hung()
            for worker in self._workers():
                worker.send(None)
        finally:
            patience = time.monotonic() + SLOWEST_END_SECONDS
            for worker in self._workers():
                if worker.idle and not sys.exc_info()[0]:
                    worker.process.join(max(0.0, patience - time.monotonic()))
                worker.process.kill()
            for worker in self._workers():
                _end(worker.process)

    def _workers(self) -> list[_Worker]:
        return [worker for worker in self._slots.values() if worker is not None]

    def _done(self) -> bool:
        return not any(worker.assignment for worker in self._workers()) and self._queue.finished()

    def _hand_out(self) -> None:
        """Units for idle workers and for devices without one."""
        for place, worker in self._slots.items():
            if worker is None or worker.idle:
                assignment = self._queue.take(place, elsewhere=len(self._slots) > 1)
                if assignment is None:
                    continue
                if worker is None:
                    self._slots[place] = self._start(place, assignment)
                else:
                    worker.assignment, worker.since = assignment, time.monotonic()
                    worker.send(assignment)

    def _start(self, place: int, assignment: Assignment) -> _Worker:
        device = self._devices[place]
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=worker_main, args=(self._work, device, theirs, os.getpid()), daemon=True, name=f"ladm {device}"
        )
        # A Ctrl-C of the terminal is for the supervisor; the child inherits that it is blocked.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        return _Worker(place, device, process, ours, time.monotonic(), assignment=assignment)

    def _listen(self) -> None:
        """Hear what workers say, and see which are gone; at once, or after a tick without either."""
        workers = self._workers()
        signs = wait(
            [*(worker.pipe for worker in workers), *(worker.process.sentinel for worker in workers)], TICK_SECONDS
        )
        for worker in workers:
            if worker.pipe in signs or worker.process.sentinel in signs:
                self._hear(worker)
        if not workers:
            time.sleep(TICK_SECONDS)

    def _hear(self, worker: _Worker) -> None:
        """One message of a worker, or the news that there will be none."""
        content: Any = None
        try:
            kind, content = worker.pipe.recv() if worker.pipe.poll() else ("gone", None)
        except (EOFError, OSError):
            kind = "gone"
        if kind == "gone":
            self._lost(worker)
            return
        now = time.monotonic()
        if kind == "failed":
            raise content
        if kind == "broke":
            worker.reason = content
        elif kind == "ready":
            worker.ready = True
            self._failed_starts[worker.place] = 0
            if worker.assignment is not None:
                worker.send(worker.assignment)
        elif kind == "begin":
            worker.batch = worker.batch + content
        elif kind == "rows":
            safe = {record["position"] for record in content}
            if not safe.isdisjoint(worker.batch):
                self._patience.saw(now - worker.since)
                worker.warm = True
            worker.batch = [position for position in worker.batch if position not in safe]
            if any(record["status"] == "ok" for record in content):
                self._losses.scored(worker.place)
            self._report(content)
        elif kind == "sealed":
            assert worker.assignment is not None
            self._source.sealed(worker.assignment)
            worker.assignment, worker.batch = None, []
        worker.since = now

    def _lost(self, worker: _Worker) -> None:
        """See to it that the rows of a worker that is gone are scored one by one, elsewhere if can be, or left out.

        Another is started in its place once there is a unit for it; a place that loses one after the
        other is given up while there are others.
        """
        if not _end(worker.process):
            raise LadmError(
                f"the worker on {worker.device} {worker.reason or 'is lost'} and does not end even when it is killed: "
                "its driver or file system hangs; the rows that were finished are safe, and once it is gone the same "
                "command goes on from there"
            )
        worker.pipe.close()
        reason = worker.reason or f"died (exit code {worker.process.exitcode})"
        place = worker.place
        self._losses.lost(place, worker.batch)
        self._failed_starts[place] += not worker.ready
        elsewhere = len(self._slots) > 1
        bad = self._failed_starts[place] > MOST_FAILED_STARTS or self._losses.is_bad(place)
        if self._losses.too_many or (bad and not elsewhere and not worker.ready):
            when = f"{self._losses.in_a_row} times without a row in between" if worker.ready else "while it started"
            raise LadmError(
                f"the worker on {worker.device} {reason} {when}; the rows it finished are safe, and the same command "
                "goes on from there"
            )
        assignment = worker.assignment
        if assignment is not None and worker.batch:
            what = f"the worker on {worker.device} {reason}"
            assignment = self._losses.after(assignment, worker.batch, what, elsewhere=elsewhere)
        if assignment is not None:
            self._queue.put_back(assignment, place)
        self._slots[place] = None
        if bad and elsewhere:
            self._say(f"warning   {worker.device} is given up: its worker {reason}, again and again; the others go on")
            del self._slots[place]

    def _look_for_hung(self) -> None:
        now = time.monotonic()
        # A supervisor that was itself stopped for a while knows nothing of that time.
        asleep = now - self._last_look
        self._last_look = now
        for worker in self._workers():
            if asleep > 10 * TICK_SECONDS:
                worker.since += asleep
            limit = self._patience.limit(warm=worker.ready and worker.warm, tries=self._losses.tries(worker.batch))
            if not worker.idle and not worker.reason and now - worker.since > limit:
                worker.reason = f"hung for {limit:.0f} s"
                self._lost(worker)


def _end(process: SpawnProcess) -> bool:
    """Kill a process and wait for its end. False for one in a call of the kernel that does not return."""
    process.kill()
    process.join(SLOWEST_END_SECONDS)
    if process.is_alive():
        # Or the interpreter would wait for it at its own end.
        multiprocessing.process._children.discard(process)  # type: ignore[attr-defined]
        return False
    return True
