"""A plan, rows and a run folder -> every row of the run scored, and its results written. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from ladm.corpus.rows import Rows
from ladm.errors import LadmError
from ladm.progress import Echo, Progress
from ladm.runs.finish import finish
from ladm.runs.folder import Run
from ladm.runs.heartbeat import Heartbeat
from ladm.runs.records import ErrorRow, Record
from ladm.scoring.engines.assignments import OwnUnits, Source
from ladm.scoring.engines.events import Report
from ladm.scoring.engines.job import ScoreJob, TakeEarly, WorkerConfig
from ladm.scoring.engines.local import run_units
from ladm.scoring.engines.processes import threads_of_worker
from ladm.scoring.engines.shared_units import SharedUnits
from ladm.scoring.identity import absolute_name, checked_scorer
from ladm.scoring.plan import Plan
from ladm.settings.score import ScoreSettings
from ladm.storage.interrupts import StopSignal


@dataclass(frozen=True, kw_only=True)
class ScoringPass:
    """What is at hand while the rows of a run are scored."""

    plan: Plan
    run: Run
    rows: Rows
    echo: Echo
    progress: Progress
    signals: list[int]
    take_early: TakeEarly

    def finish_run(self) -> None:
        """Score what is left and write the results; of several launches that share the run one writes them."""
        run, placement = self.run, self.plan.placement
        if placement is not None:
            with SharedUnits(run, placement.shard) as units:
                self._score_units(units)
                units.finish(partial(finish, run), lambda: run.is_finished)
            return
        try:
            self._score_units(OwnUnits(run))
        except BaseException:
            run.forget_if_empty()
            raise
        finish(run)

    def _score_units(self, source: Source) -> None:
        limit = _ErrorLimit(self.plan.settings)
        done, failed = _already_done(self.run)
        limit.add(failed, example=None)
        self.progress.start(total=len(self.rows), done=done)
        shard = 0 if self.plan.placement is None else self.plan.placement.shard.index
        heartbeat = Heartbeat(self.run.folder, shard=shard)

        def report(records: list[Record]) -> None:
            if self.signals:
                raise StopSignal(self.signals[0])
            heartbeat.advance(len(records))
            self.progress.advance(rows=len(records), tokens=sum(record.num_tokens or 0 for record in records))
            errors = [record for record in records if isinstance(record, ErrorRow)]
            limit.add(len(errors), example=errors[0] if errors else None)

        try:
            self._run_engine(self._job(source, report))
        finally:
            heartbeat.close()
            self.progress.close()

    def _job(self, source: Source, report: Report) -> ScoreJob:
        plan, settings = self.plan, self.plan.settings
        make_scorer = plan.make_scorer()
        if plan.cluster is not None:
            make_scorer = partial(checked_scorer, make_scorer, plan.facts, self.run.identity)
        worker = WorkerConfig(
            folder=self.run.folder.absolute(),
            rows=absolute_name(settings.rows),
            limit=settings.limit,
            rows_sample=self.rows.sample(),
            make_scorer=make_scorer,
            batch_rows=plan.batch_rows(),
            threads=threads_of_worker(settings.workers),
        )
        devices = plan.hardware.devices
        # On one CPU a process of its own costs a start and a copy of the model, and a crash there is rare.
        alone_on_cpu = plan.placement is None and settings.workers is None and devices == ("cpu",)
        return ScoreJob(
            run=self.run,
            rows=self.rows,
            source=source,
            worker=worker,
            devices=devices,
            report=report,
            warn=self.echo,
            supervised=not alone_on_cpu,
            take_early=self.take_early,
        )

    def _run_engine(self, job: ScoreJob) -> None:
        if self.plan.cluster is None:
            run_units(job)
            return
        # Ray is an optional dependency, and takes a second to import.
        from ladm.scoring.engines import ray_cluster

        ray_cluster.run_units(job, cluster=self.plan.cluster)


class _ErrorLimit:
    """Counts the rows without a score against `--max-errors` and `--fail-fast`."""

    def __init__(self, settings: ScoreSettings) -> None:
        limit = 0 if settings.fail_fast else settings.max_errors
        self._limit = math.inf if limit is None else limit
        self._failed = 0

    def add(self, failed: int, *, example: ErrorRow | None) -> None:
        """Add failed rows. Raises LadmError when more than allowed have no score."""
        self._failed += failed
        if self._failed > self._limit:
            rows = "row has" if self._failed == 1 else "rows have"
            shown = "" if example is None else f", such as row {example.position}: {example.message}"
            raise LadmError(
                f"{self._failed} {rows} no score{shown}; stopped by --max-errors or --fail-fast. "
                "Finished rows are safe, and the same command without it goes on"
            )


def _already_done(run: Run) -> tuple[int, int]:
    """Rows that are durable from an earlier start, and how many of them have no score."""
    unsealed, holders = {unit.number for unit in run.unsealed()}, run.holder_files()
    done = failed = 0
    for unit in run.units:
        if unit.number in unsealed:
            records = run.rows_of_holders(unit, holders.get(unit.number, ()))
        else:
            records = run.read_sealed(unit)
        done += len(records)
        failed += sum(isinstance(record, ErrorRow) for record in records)
    return done, failed
