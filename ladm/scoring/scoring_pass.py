"""A run folder, its rows and a scorer -> every row of the run scored, and its results written. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError
from ladm.progress import Echo, Progress
from ladm.runs.finish import finish
from ladm.runs.folder import Run
from ladm.runs.heartbeat import Heartbeat
from ladm.runs.records import ErrorRow, Record
from ladm.runs.stored_rows import count_stored_rows
from ladm.scoring.engines.assignments import OwnUnits, UnitSource
from ladm.scoring.engines.job import ScoreJob, TakeEarly, WorkerConfig, nothing_early
from ladm.scoring.engines.local import run_units
from ladm.scoring.engines.placement import Shard
from ladm.scoring.engines.shared_units import SharedUnits
from ladm.storage.interrupts import StopSignal

if TYPE_CHECKING:
    from ladm.scoring.engines.ray_connection import Cluster


ROWS_OF_A_PROCESS = 256
"""Fewer rows have their statistics of texts before a process has started that would share the work."""


def processes_for_texts(run: Run) -> int:
    """The most processes that are worth their start, for statistics of texts of what is left of a run."""
    left = run.unsealed()
    rows = sum(unit.stop - unit.start for unit in left)
    return max(1, min(len(left), rows // ROWS_OF_A_PROCESS))


@dataclass(frozen=True, kw_only=True)
class ScoringPass:
    """One pass over the rows of a run: what it scores, with what, and where it reports."""

    run: Run
    rows: Rows
    worker: WorkerConfig
    devices: tuple[str, ...]
    echo: Echo
    progress: Progress
    signals: list[int]
    """Filled when the command is to stop."""
    supervised: bool = False
    """As in `ScoreJob`."""
    most_errors: float = math.inf
    """A greater number of rows without a score ends the pass."""
    shard: Shard | None = None
    """Where this launch stands among those that share the run."""
    cluster: Cluster | None = None
    """The Ray cluster that scores; None: this machine."""
    take_early: TakeEarly = nothing_early

    def finish_run(self) -> None:
        """Score what is left and write the results; of several launches that share the run one writes them."""
        run = self.run
        if self.shard is not None:
            with SharedUnits(run, self.shard) as units:
                self._score_units(units)
                units.finish(lambda: finish(run), lambda: run.is_finished)
            return
        try:
            self._score_units(OwnUnits(run))
        except BaseException:
            run.forget_if_empty()
            raise
        finish(run)

    def _score_units(self, source: UnitSource) -> None:
        limit = _ErrorLimit(self.most_errors)
        # Those that are durable from an earlier start.
        stored = count_stored_rows(self.run)
        limit.add(stored.errors.total(), example=None)
        launches = 1 if self.shard is None else self.shard.count
        self.progress.start(total=len(self.rows), done=stored.done, launches=launches)
        heartbeat = Heartbeat(self.run.folder, shard=0 if self.shard is None else self.shard.index)

        def report(records: list[Record]) -> None:
            if self.signals:
                raise StopSignal(self.signals[0])
            heartbeat.advance(len(records))
            self.progress.advance(rows=len(records), tokens=sum(record.num_tokens or 0 for record in records))
            errors = [record for record in records if isinstance(record, ErrorRow)]
            limit.add(len(errors), example=errors[0] if errors else None)

        job = ScoreJob(
            run=self.run, rows=self.rows, source=source, worker=self.worker, devices=self.devices, report=report,
            warn=self.echo, supervised=self.supervised, take_early=self.take_early,
        )  # fmt: skip
        try:
            self._run_engine(job)
        finally:
            heartbeat.close()
            self.progress.close()

    def _run_engine(self, job: ScoreJob) -> None:
        if self.cluster is None:
            run_units(job)
            return
        # Ray is an optional dependency, and takes a second to import.
        from ladm.scoring.engines import ray_cluster

        ray_cluster.run_units(job, cluster=self.cluster)


class _ErrorLimit:
    """Counts the rows without a score against `--max-errors` and `--fail-fast`."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._failed = 0

    def add(self, failed: int, *, example: ErrorRow | None) -> None:
        """Add failed rows. Raises LadmError when more than allowed have no score."""
        self._failed += failed
        if self._failed > self._limit:
            rows = "row has" if self._failed == 1 else "rows have"
            shown = "" if example is None else f", such as row {example.position}: {example.message}"
            raise LadmError(
                f"{self._failed} {rows} no score{shown}; stopped by --max-errors or --fail-fast. Finished rows are "
                "safe; to continue, run the same command without that flag"
            )
