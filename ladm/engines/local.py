"""Units -> sealed units on this machine: in this process on one CPU worker, one watched process a device otherwise.

Processes share nothing but the run folder, so that losing one loses at most its unfinished batch. A lost worker is
replaced; a row that takes workers with it is found by scoring its batch row by row, and recorded. Imports no torch.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from ladm.engines.units import Assignment, Source
from ladm.engines.work import BatchRule, BatchSizes, Record, Report, work_unit
from ladm.errors import LadmError, one_line
from ladm.rows import Rows, open_rows
from ladm.runs import Run
from ladm.scorers import Scorer

MakeScorer = Callable[[str], Scorer]

TICK_SECONDS = 0.5
MOST_LOSSES_IN_A_ROW = 20
"""Workers lost without a single row scored in between, before the run is given up."""
MOST_FAILED_STARTS = 2
LOSSES_OF_A_POISONOUS_ROW = 3
SLOWEST_END_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every worker needs to know; it travels to other processes by pickle.

    A worker that is silent for `hang_seconds` and ten times the slowest batch so far counts as hung;
    one that has not finished a batch yet, only after `first_seconds`.
    """

    folder: Path
    rows: str
    limit: int | None
    make_scorer: MakeScorer
    batch_rows: BatchRule
    threads: int | None = None
    hang_seconds: float = 300.0
    first_seconds: float = 1800.0


def run_units(
    work: Work, run: Run, rows: Rows, source: Source, *, devices: tuple[str, ...], report: Report, watched: bool = False
) -> None:
    """Work on the units of `source` until it is finished. `report` hears of each durable batch, in this process.

    With one device and not `watched` no process is started. Raises LadmError when a scorer cannot be
    made, or when workers keep dying; what is sealed or appended by then stays.
    """
    if len(devices) > 1 or watched:
        _Pool(work, source, devices=devices, report=report).run()
        return
    scorer: Scorer | None = None
    sizes = BatchSizes(work.batch_rows)
    while True:
        assignment = source.take()
        if assignment is not None:
            scorer = scorer or work.make_scorer(devices[0])
            work_unit(run, assignment, rows, scorer, batch_rows=sizes, report=report)
            source.sealed(assignment)
        elif source.finished():
            return
        else:
            time.sleep(TICK_SECONDS)


@dataclass
class _Worker:
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

    def __init__(self, work: Work, source: Source, *, devices: tuple[str, ...], report: Report) -> None:
        self._work, self._source, self._devices, self._report = work, source, devices, report
        self._context = multiprocessing.get_context("spawn")
        self._slots: list[_Worker | None] = [None] * len(devices)
        self._row_losses: Counter[int] = Counter()
        self._failed_starts: Counter[str] = Counter()
        self._losses = 0
        self._slowest_seconds = 0.0
        self._last_look = time.monotonic()
        self._ask_again = 0.0

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
                worker.process.join()

    def _workers(self) -> list[_Worker]:
        return [worker for worker in self._slots if worker is not None]

    def _done(self) -> bool:
        return not any(worker.assignment for worker in self._workers()) and self._source.finished()

    def _hand_out(self) -> None:
        """Units for idle workers and for devices without one; a source that had none is left in peace for a while."""
        for slot, worker in enumerate(self._slots):
            if (worker is None or worker.idle) and time.monotonic() >= self._ask_again:
                assignment = self._source.take()
                if assignment is None:
                    self._ask_again = time.monotonic() + TICK_SECONDS
                elif worker is None:
                    self._slots[slot] = self._start(self._devices[slot], assignment)
                else:
                    worker.assignment, worker.since = assignment, time.monotonic()
                    worker.send(assignment)

    def _start(self, device: str, assignment: Assignment | None) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_worker_main, args=(self._work, device, theirs, os.getpid()), daemon=True, name=f"ladm {device}"
        )
        # A Ctrl-C of the terminal is for the supervisor; the child inherits that it is blocked.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        return _Worker(device, process, ours, time.monotonic(), assignment=assignment)

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
            self._failed_starts[worker.device] = 0
            if worker.assignment is not None:
                worker.send(worker.assignment)
        elif kind == "begin":
            worker.batch = content
        elif kind == "rows":
            self._slowest_seconds = max(self._slowest_seconds, now - worker.since)
            safe = {record["position"] for record in content}
            worker.batch = [position for position in worker.batch if position not in safe]
            worker.warm = True
            self._heard_rows(content)
        elif kind == "sealed":
            assert worker.assignment is not None
            self._source.sealed(worker.assignment)
            worker.assignment = None
        worker.since = now

    def _heard_rows(self, records: list[Record]) -> None:
        if any(record["status"] == "ok" for record in records):
            self._losses = 0
        self._report(records)

    def _lost(self, worker: _Worker) -> None:
        """Replace a worker that is gone, and see to it that its rows are scored one by one, or left out."""
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        reason = worker.reason or f"died (exit code {worker.process.exitcode})"
        self._losses += 1
        self._failed_starts[worker.device] += not worker.ready
        if self._losses > MOST_LOSSES_IN_A_ROW or self._failed_starts[worker.device] > MOST_FAILED_STARTS:
            when = f"{self._losses} times without a row in between" if worker.ready else "while it started"
            raise LadmError(
                f"the worker on {worker.device} {reason} {when}; the rows it finished are safe, and the same command "
                "goes on from there"
            )
        assignment = worker.assignment
        if assignment is not None and worker.batch:
            alone, poisoned = set(assignment.alone) | set(worker.batch), dict(assignment.poisoned)
            self._row_losses.update(worker.batch)
            if len(worker.batch) == 1 and self._row_losses[worker.batch[0]] >= LOSSES_OF_A_POISONOUS_ROW:
                poisoned[worker.batch[0]] = f"the worker on {worker.device} {reason} each time it scored this row"
            assignment = replace(assignment, alone=frozenset(alone), poisoned=poisoned)
        self._slots[self._slots.index(worker)] = self._start(worker.device, assignment)

    def _look_for_hung(self) -> None:
        now = time.monotonic()
        # A supervisor that was itself stopped for a while knows nothing of that time.
        asleep = now - self._last_look
        self._last_look = now
        for worker in self._workers():
            if asleep > 10 * TICK_SECONDS:
                worker.since += asleep
            limit = self._patience(worker)
            if not worker.idle and not worker.reason and now - worker.since > limit:
                worker.reason = f"hung for {limit:.0f} s"
                worker.process.kill()

    def _patience(self, worker: _Worker) -> float:
        """Seconds of silence after which a worker counts as hung."""
        usual = max(self._work.hang_seconds, 10 * self._slowest_seconds)
        if not (worker.ready and worker.warm):
            return max(usual, self._work.first_seconds)
        tries = max((self._row_losses[position] for position in worker.batch), default=0)
        return usual * 4.0**tries


def _worker_main(work: Work, device: str, pipe: Connection, parent: int) -> None:
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    tell = partial(_tell, pipe)
    scoring = False
    try:
        if work.threads is not None:
            os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(work.threads)
        run, rows = Run.read(work.folder), open_rows(work.rows, limit=work.limit)
        scorer = work.make_scorer(device)
        sizes = BatchSizes(work.batch_rows)
        tell("ready", None)
        scoring = True
        while (assignment := pipe.recv()) is not None:
            work_unit(
                run, assignment, rows, scorer,
                batch_rows=sizes, report=partial(tell, "rows"), begin=partial(tell, "begin"),
            )  # fmt: skip
            tell("sealed", None)
    except LadmError as error:
        tell("failed", error)
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        what = f"{type(error).__name__}: {one_line(error)}"
        if not scoring:
            tell("failed", LadmError(f"the worker on {device} failed: {what}"))
            return
        # The device's state may be spoilt. Another process goes on, and finds out which row it is.
        tell("broke", f"failed ({what})")
        pipe.close()
        os._exit(1)


def _tell(pipe: Connection, kind: str, content: Any) -> None:
    pipe.send((kind, content))


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its supervisor is gone, however that came about."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
