"""Units -> sealed units on this machine: in this process for one device, one spawned process a device for more.

Processes share nothing but the run folder, so that losing one loses at most its unfinished batch.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from ladm.engines.work import BatchRule, Report, work_unit
from ladm.errors import LadmError
from ladm.rows import Rows, open_rows
from ladm.runs import Run, Unit
from ladm.scorers import Scorer

MakeScorer = Callable[[str], Scorer]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What every worker needs to know; it travels to other processes by pickle."""

    folder: Path
    rows: str
    limit: int | None
    make_scorer: MakeScorer
    batch_rows: BatchRule


def run_units(work: Work, run: Run, rows: Rows, *, devices: tuple[str, ...], report: Report) -> None:
    """Work on every unsealed unit. `report` hears of each durable batch, in this process.

    Raises LadmError when a worker fails or dies; what is sealed or appended by then stays.
    """
    units = run.unsealed()
    if not units:
        return
    if len(devices) == 1 or len(units) == 1:
        scorer = work.make_scorer(devices[0])
        for unit in units:
            work_unit(run, unit, rows, scorer, batch_rows=work.batch_rows, report=report)
    else:
        _run_processes(work, units, devices=devices[: len(units)], report=report)


@dataclass(frozen=True)
class _Worker:
    device: str
    process: SpawnProcess
    pipe: Connection


def _run_processes(work: Work, units: list[Unit], *, devices: tuple[str, ...], report: Report) -> None:
    context = multiprocessing.get_context("spawn")
    workers: dict[Any, _Worker] = {}
    waiting = iter(units)
    try:
        for device in devices:
            ours, theirs = context.Pipe()
            process = context.Process(target=_worker_main, args=(work, device, theirs, os.getpid()), daemon=True)
            process.start()
            theirs.close()
            workers[ours] = _Worker(device, process, ours)
        while workers:
            for pipe in wait(list(workers)):
                _hear(workers, pipe, waiting, report)
    finally:
        for worker in workers.values():
            worker.process.terminate()
        for worker in workers.values():
            worker.process.join()


def _hear(workers: dict[Any, _Worker], pipe: Any, waiting: Iterator[Unit], report: Report) -> None:
    """Take one message of a worker: a batch made safe, a wish for the next unit, or how it failed."""
    worker = workers[pipe]
    try:
        kind, content = worker.pipe.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        raise LadmError(
            f"the worker on {worker.device} died (exit code {worker.process.exitcode}); "
            "the rows it finished are safe, and the same command goes on from there"
        ) from None
    if kind == "failed":
        raise content
    if kind == "rows":
        report(content)
        return
    unit = next(waiting, None)
    worker.pipe.send(unit)
    if unit is None:
        worker.process.join()
        del workers[pipe]


def _worker_main(work: Work, device: str, pipe: Connection, parent: int) -> None:
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run, rows = Run.read(work.folder), open_rows(work.rows, limit=work.limit)
        scorer = work.make_scorer(device)
        while True:
            pipe.send(("next", None))
            unit = pipe.recv()
            if unit is None:
                return
            work_unit(
                run,
                unit,
                rows,
                scorer,
                batch_rows=work.batch_rows,
                report=lambda records: pipe.send(("rows", records)),
            )
    except LadmError as error:
        pipe.send(("failed", error))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        pipe.send(("failed", LadmError(f"the worker on {device} failed: {type(error).__name__}: {error}")))


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this process when its supervisor is gone, however that came about."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
