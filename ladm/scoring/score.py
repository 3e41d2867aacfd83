"""Rows and a model -> a finished run: identity, units scored on devices, sorted results, a summary."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ladm.corpus.rows import Rows, open_rows
from ladm.corpus.tokenization import disagreement
from ladm.errors import LadmError
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.progress import Echo, NoProgress, Progress, silent
from ladm.runs.finish import finish
from ladm.runs.folder import Run, require_own_or_empty
from ladm.runs.growth import resume_or_grow
from ladm.runs.heartbeat import Heartbeat
from ladm.runs.layout import IDENTITY_FILE
from ladm.runs.records import ErrorRow, Record
from ladm.runs.reset import delete_run, forget_errors
from ladm.runs.results import summarise
from ladm.scoring.engines.assignments import OwnUnits, Source
from ladm.scoring.engines.events import Report
from ladm.scoring.engines.job import ScoreJob, WorkerConfig
from ladm.scoring.engines.local import run_units
from ladm.scoring.engines.shared_units import SharedUnits
from ladm.scoring.identity import absolute_name, checked_scorer, identity_of
from ladm.scoring.plan import Plan
from ladm.scoring.result import ScoreResult
from ladm.scoring.row_checks import plan_for_rows, require_rows
from ladm.scoring.sink_warning import sink_warning
from ladm.settings.layers import spell_layers
from ladm.settings.score import ScoreSettings
from ladm.storage.interrupts import StopSignal, stop_on_signals
from ladm.storage.locks import locked


def score(
    settings: ScoreSettings,
    *,
    rows: Rows | None = None,
    facts: ModelFacts | None = None,
    echo: Echo = silent,
    progress: Progress | None = None,
) -> ScoreResult:
    """Score every row of `settings.rows` into the run folder `settings.output`, or resume it.

    `rows` and `facts` are those of the settings, where the caller has opened them already. `echo` is called
    with the settings as resolved, a line at a time. May be called in any thread.
    Raises LadmError and its kinds; rows that are durable by then stay.
    """
    folder = Path(settings.output)
    with stop_on_signals(folder) as signals:
        if rows is None:
            require_rows(settings.rows)
        require_own_or_empty(folder)
        rows = rows or open_rows(settings.rows, limit=settings.limit)
        facts = facts or model_facts(settings.model)
        plan, lines = plan_for_rows(settings, rows, facts)
        for line in [*_resolved(plan, rows), *lines, f"output    {settings.output}"]:
            echo(line)
        with locked(folder, shared=plan.placement is not None):
            run = _open_run(plan, rows, echo)
            already_finished = run.is_finished
            if not already_finished:
                _Scoring(
                    plan=plan, run=run, rows=rows, echo=echo, progress=progress or NoProgress(), signals=signals
                ).finish_run()
            summary = summarise(run)
            warning = sink_warning(run, scored=summary.scored)
            if warning is not None:
                echo(f"warning   {warning}")
            return ScoreResult(run=run, summary=summary, already_finished=already_finished)


def _open_run(plan: Plan, rows: Rows, echo: Echo) -> Run:
    """Create or resume the run folder, whose lock is held, as far as the flags ask for a fresh start."""
    folder = Path(plan.settings.output)
    echo("reading the data and the model once for their identity")
    # Before anything is removed: a command that cannot work must not cost the run that is there.
    identity = identity_of(plan, rows)
    if plan.settings.overwrite and (folder / IDENTITY_FILE).exists():
        delete_run(folder)
    is_shared = plan.placement is not None
    run = resume_or_grow(folder, identity, first_rows=rows.identity_of_first, is_shared=is_shared, echo=echo)
    if not is_shared:
        run.adopt_shared()
    if plan.settings.retry_errors:
        echo(f"removing {forget_errors(run):,} rows without a score, to score them again")
    return run


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """What is at hand while the rows of a run are scored."""

    plan: Plan
    run: Run
    rows: Rows
    echo: Echo
    progress: Progress
    signals: list[int]

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
        # Without this every worker would start as many threads as there are cores.
        threads = None if settings.workers is None else max(1, (os.cpu_count() or 1) // settings.workers)
        worker = WorkerConfig(
            folder=self.run.folder.absolute(),
            rows=absolute_name(settings.rows),
            limit=settings.limit,
            rows_sample=self.rows.sample(),
            make_scorer=make_scorer,
            batch_rows=plan.batch_rows(),
            threads=threads,
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


def _resolved(plan: Plan, rows: Rows) -> Iterator[str]:
    """The settings as they will be used, for people."""
    s = plan.settings
    method = s.method
    n0 = "where the released code starts" if method.n0 is None else method.n0
    yield f"rows      {rows.name}: {len(rows):,} documents"
    yield f"model     {plan.facts.name}: {plan.facts.model_type}, {plan.facts.num_layers} layers"
    yield (
        f"method    {method.variant}, spans of {method.span_tokens} tokens, m {method.m}, n {method.n}, n0 {n0}, "
        f"d_afs {method.d_afs}, d_cds {method.d_cds}, ablation {method.ablation}, "
        f"{s.reduce} over layers {spell_layers(plan.layers)}"
    )
    if s.score is not None:
        made_of = "value-weighted, without sigma" if s.focus == "value" else "as published"
        yield f"score     {s.score}: {made_of}"
    if plan.profile is not None:
        length = plan.profile.length_tokens
        yield f"profile   {s.profile}: calibrated at {length:,} tokens"
        (first,) = rows.read(0, 1)
        if first.num_tokens != length:
            yield (
                f"warning   the first row has {first.num_tokens or 0:,} tokens; the profile was not evaluated at that "
                "length"
            )
    used = plan.hardware
    devices = ", ".join(used.devices) if plan.cluster is None else f"{plan.cluster.actors} actors of Ray"
    yield f"device    {devices} in {used.dtype}, attention {used.attention}, focus {used.backend}, fused {used.fused}"
    if plan.placement is not None and plan.cluster is None:
        yield f"shard     {plan.placement.shard.index} of {plan.placement.shard.count} that share the run"
    problem = disagreement(rows, plan.facts.folder)
    if problem is not None:
        yield f"warning   {problem}"
