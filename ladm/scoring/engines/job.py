"""What an engine is given: the run, its rows, where units come from, and what every worker needs. Imports no torch."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from ladm.corpus.rows.fingerprint import RowsFingerprint, sample_digest
from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError
from ladm.modeling.model_files import ModelFingerprint
from ladm.progress import Echo, silent
from ladm.runs.folder import Run
from ladm.scoring.engines.assignments import UnitSource
from ladm.scoring.engines.batch_sizes import BatchRule
from ladm.scoring.engines.events import Report
from ladm.scoring.engines.input_guard import InputGuard
from ladm.signals.scorer import SignalScorer
from ladm.storage.file_states import file_states

TICK_SECONDS = 0.5
"""How long an engine waits for news, and for a signal such as that of Ctrl-C, before it looks at everything again."""
MakeScorer = Callable[[str], SignalScorer]
"""The name of a device -> a scorer with its model loaded there."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What every worker needs; it travels to other processes by pickle."""

    folder: Path
    """The run folder."""
    rows: str
    limit: int | None
    make_scorer: MakeScorer
    batch_rows: BatchRule
    rows_sample: str | None = None
    """`sample_digest` of the rows that the run was started with; None: not compared."""
    model: ModelFingerprint | None = None
    """What the model's files have to hold; None: no model scores."""
    data: RowsFingerprint | None = None
    """What the files of the rows have to hold; None: not compared."""
    elsewhere: bool = False
    """Workers run on other machines, where the same files may have other inodes and times."""
    threads: int | None = None
    """CPU threads of one worker; None: as the libraries choose."""
    hang_seconds: float = 300.0
    """A silent worker counts as hung after this, or after ten times its slowest batch where that is longer."""
    first_batch_seconds: float = 1800.0
    """The same before its first batch is finished."""

    def open_rows(self) -> Rows:
        """Open the rows on whatever machine this is. Raises LadmError where they are not those of the run."""
        rows = open_rows(self.rows, limit=self.limit)
        if self.rows_sample is not None and sample_digest(rows) != self.rows_sample:
            raise LadmError(f"{self.rows} has other rows on {socket.gethostname()} than the run was started with")
        return rows

    def input_guard(self, rows: Rows) -> InputGuard:
        """Notices changes of the files as this machine sees them; to be made before the model is loaded."""
        model, data = self.model, self.data
        if self.elsewhere:
            # `make_scorer` compares the model's digests there, later than this: the state is older than what it reads.
            model = None if model is None else replace(model, files=file_states(model.files))
            data = None if data is None else replace(data, files=rows.files)
        return InputGuard(*(each for each in (data, model) if each is not None))


WorkerProcess = tuple[SpawnProcess, Connection]
TakeEarly = Callable[[WorkerConfig, str], WorkerProcess | None]
"""Turns a process that was started early into the worker of a device; None where there is none."""


def nothing_early(_config: WorkerConfig, _device: str) -> None:
    """For an engine without processes that were started early."""


@dataclass(frozen=True, kw_only=True)
class ScoreJob:
    """The units of a run to be scored on some devices. `report` is called in this process, for each durable batch."""

    run: Run
    rows: Rows
    source: UnitSource
    worker: WorkerConfig
    devices: tuple[str, ...]
    """Their names; several workers of a CPU have the same one."""
    report: Report
    warn: Echo = silent
    """Called with a line to print, such as that a device is no longer used."""
    supervised: bool = False
    """Start a process even for a single device, so that its loss does not end the run."""
    take_early: TakeEarly = nothing_early
    """Hands a process that has already imported the libraries to the first worker that is started."""
