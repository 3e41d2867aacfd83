"""A process that scores units for a supervisor which watches it. Imports no torch."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ladm.corpus.rows import Rows, open_rows
from ladm.errors import LadmError, one_line
from ladm.runs.folder import Run
from ladm.scoring.engines.work import BatchRule, BatchSizes, work_unit
from ladm.signals.scorer import Scorer
from ladm.storage.locks import hold_as_worker

MakeScorer = Callable[[str], Scorer]


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
    sample: str | None = None
    """`Rows.sample` of the rows that the run began with."""
    threads: int | None = None
    hang_seconds: float = 300.0
    first_seconds: float = 1800.0

    def open_rows(self) -> Rows:
        """The rows, wherever this is. Raises LadmError where they are not those that the run began with."""
        rows = open_rows(self.rows, limit=self.limit)
        if self.sample is not None and rows.sample() != self.sample:
            raise LadmError(f"{self.rows} has other rows on {socket.gethostname()} now than the run began with")
        return rows


def worker_main(work: Work, device: str, pipe: Connection, parent: int) -> None:
    """The whole life of a worker process: it tells `ready`, then of every unit it is sent `begin`, `rows` and `sealed`.

    What ends it is told as `failed`, which ends the run, or as `broke`, after which another takes over.
    """
    _die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    tell = partial(_tell, pipe)
    scoring = False
    try:
        if work.threads is not None:
            os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(work.threads)
        hold_as_worker(work.folder)
        run, rows = Run.read(work.folder), work.open_rows()
        scorer = work.make_scorer(device)
        sizes = BatchSizes(work.batch_rows)
        tell("ready", None)
        scoring = True
        while (assignment := pipe.recv()) is not None:
            for kind, content in work_unit(run, assignment, rows, scorer, batch_rows=sizes):
                tell(kind, content)
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
