"""Units -> sealed units on this machine: in this process on one CPU worker, one watched process a device otherwise.

Processes share nothing but the run folder, so that losing one loses at most its unfinished batch. A lost worker is
replaced; a row that takes workers with it is found by scoring its batch row by row, and recorded. Imports no torch.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from ladm.engines.units import Assignment, Source
from ladm.engines.work import BatchRule, BatchSizes, Record, Report, is_device_failure, work_unit
from ladm.errors import LadmError, one_line
from ladm.rows import Rows, open_rows
from ladm.runs import Run
from ladm.scorers import Scorer

MakeScorer = Callable[[str], Scorer]

TICK_SECONDS = 0.5
MOST_LOSSES_IN_A_ROW = 20
"""Workers lost without a single row scored in between, before the run is given up."""
SLOWEST_START_SECONDS = 1800.0


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every worker needs to know; it travels to other processes by pickle.

    A worker that is silent for `hang_seconds` and ten times its slowest batch so far counts as hung.
    """

    folder: Path
    rows: str
    limit: int | None
    make_scorer: MakeScorer
    batch_rows: BatchRule
    threads: int | None = None
    hang_seconds: float = 300.0


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
    assignment: Assignment | None = None
    batch: list[int] = field(default_factory=list)
    hung: str = ""

    @property
    def idle(self) -> bool:
        return self.ready and self.assignment is None


class _Pool:
    """The supervisor of one process a device."""

    def __init__(self, work: Work, source: Source, *, devices: tuple[str, ...], report: Report) -> None:
        self._work, self._source, self._devices, self._report = work, source, devices, report
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._again: list[Assignment] = []
        self._suspects: set[int] = set()
        self._losses = 0
        self._slowest_seconds = 0.0

    def run(self) -> None:
        """Give out units until none is left. Workers are started only as long as there is a unit for them."""
        try:
            for device in self._devices:
                assignment = self._take()
                if assignment is None:
                    break
                self._workers.append(self._start(device, assignment))
            while not self._done():
                for pipe in wait([worker.pipe for worker in self._workers], TICK_SECONDS):
                    self._hear(next(worker for worker in self._workers if worker.pipe is pipe))
                self._look_for_hung()
                for worker in self._workers:
                    if worker.idle:
                        self._give(worker, self._take())
            for worker in self._workers:
                worker.pipe.send(None)
                worker.process.join()
        finally:
            for worker in self._workers:
                worker.process.kill()
            for worker in self._workers:
                worker.process.join()

    def _done(self) -> bool:
        busy = any(worker.assignment is not None for worker in self._workers)
        if not self._workers and not self._source.finished():
            # Everything is claimed by others for now; one worker stands by.
            self._workers.append(self._start(self._devices[0], None))
        return not busy and not self._again and self._source.finished()

    def _take(self) -> Assignment | None:
        return self._again.pop() if self._again else self._source.take()

    def _start(self, device: str, assignment: Assignment | None) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_worker_main, args=(self._work, device, theirs, os.getpid()), daemon=True, name=f"ladm {device}"
        )
        process.start()
        theirs.close()
        return _Worker(device, process, ours, time.monotonic(), assignment=assignment)

    def _give(self, worker: _Worker, assignment: Assignment | None) -> None:
        if assignment is not None:
            worker.assignment, worker.since = assignment, time.monotonic()
            worker.pipe.send(assignment)

    def _hear(self, worker: _Worker) -> None:
        try:
            kind, content = worker.pipe.recv()
        except (EOFError, OSError):
            self._lost(worker)
            return
        now = time.monotonic()
        if kind == "failed":
            raise content
        if kind == "ready":
            worker.ready = True
            if worker.assignment is not None:
                worker.pipe.send(worker.assignment)
        elif kind == "begin":
            worker.batch = content
        elif kind == "rows":
            self._slowest_seconds = max(self._slowest_seconds, now - worker.since)
            safe = {record["position"] for record in content}
            worker.batch = [position for position in worker.batch if position not in safe]
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
        worker.process.join()
        reason = worker.hung or f"died (exit code {worker.process.exitcode})"
        self._losses += 1
        if self._losses > MOST_LOSSES_IN_A_ROW or (not worker.ready and self._losses > 2):
            when = "while it started" if not worker.ready else f"{self._losses} times without a row in between"
            raise LadmError(
                f"the worker on {worker.device} {reason} {when}; the rows it finished are safe, and the same command "
                "goes on from there"
            )
        assignment = worker.assignment
        if assignment is not None and worker.batch:
            alone, poisoned = set(assignment.alone) | set(worker.batch), dict(assignment.poisoned)
            if len(worker.batch) == 1 and worker.batch[0] in self._suspects:
                poisoned[worker.batch[0]] = f"the worker on {worker.device} {reason} each time it scored this row"
            elif len(worker.batch) == 1:
                self._suspects.add(worker.batch[0])
            assignment = replace(assignment, alone=frozenset(alone), poisoned=poisoned)
        self._workers[self._workers.index(worker)] = self._start(worker.device, assignment)

    def _look_for_hung(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            limit = max(self._work.hang_seconds, 10 * self._slowest_seconds) if worker.ready else SLOWEST_START_SECONDS
            if worker.assignment is not None and now - worker.since > limit:
                worker.hung = f"hung for {limit:.0f} s"
                worker.since = now
                worker.process.kill()


def _worker_main(work: Work, device: str, pipe: Connection, parent: int) -> None:
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tell = partial(_tell, pipe)
    try:
        if work.threads is not None:
            os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(work.threads)
        run, rows = Run.read(work.folder), open_rows(work.rows, limit=work.limit)
        scorer = work.make_scorer(device)
        sizes = BatchSizes(work.batch_rows)
        tell("ready", None)
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
        if is_device_failure(error):
            # The device's context is spoilt; whoever comes next finds out which row it is.
            print(f"ladm: the worker on {device} stops: {one_line(error)}", file=sys.stderr)
            os._exit(1)
        tell("failed", LadmError(f"the worker on {device} failed: {type(error).__name__}: {error}"))


def _tell(pipe: Connection, kind: str, content: Any) -> None:
    pipe.send((kind, content))


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its supervisor is gone, however that came about."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
