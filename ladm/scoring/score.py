"""Rows and a model -> a finished run: identity, units on devices, sorted results, a summary."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ladm.corpus.rows import Rows, open_rows
from ladm.corpus.tokenization import disagreement
from ladm.errors import LadmError
from ladm.modeling.facts import ModelFacts, model_identity, tokenizer_identity
from ladm.progress import Echo, Progress
from ladm.runs.folder import IDENTITY_FILE, Run, refuse_foreign, unit_rows_for
from ladm.runs.identity import RunIdentity
from ladm.runs.reset import delete_run, forget_errors
from ladm.runs.results import Summary, finish, is_finished, summarise
from ladm.scoring.engines.local import run_units
from ladm.scoring.engines.shard import SharedUnits
from ladm.scoring.engines.units import OwnUnits
from ladm.scoring.engines.work import Record, Report
from ladm.scoring.engines.worker import MakeScorer, Work
from ladm.scoring.plan import Plan, make_plan
from ladm.settings.layers import spell_layers
from ladm.settings.score import ScoreSettings
from ladm.signals.scorer import Scorer
from ladm.storage.identity import differences
from ladm.storage.interrupts import StopSignal, stop_on_signals
from ladm.storage.locks import locked
from ladm.version import __version__


def score(settings: ScoreSettings, *, echo: Echo, progress: Progress) -> tuple[Summary, bool]:
    """Score every row of `settings.rows` into the run folder `settings.output`.

    Returns what became of the rows, and whether the run had been finished before.
    Raises LadmError and its kinds; rows that are safe by then stay safe.
    """
    folder = Path(settings.output)
    with stop_on_signals(folder) as signals:
        refuse_foreign(folder)
        rows = open_rows(settings.rows, limit=settings.limit)
        plan = make_plan(settings)
        for line in _resolved(plan, rows):
            echo(line)
        with locked(folder, shared=plan.place is not None):
            echo("reading the data and the model once for their identity")
            identity = _identity(plan, rows)
            if settings.overwrite and (folder / IDENTITY_FILE).exists():
                delete_run(folder)
            run = Run.create_or_resume(folder, identity)
            if plan.place is None:
                run.adopt_shared()
            if settings.retry_errors:
                echo(f"taking back {forget_errors(run):,} rows without a score")
            finished = is_finished(run)
            if not finished:
                _finish_rows(plan, run, rows, echo, progress, signals)
            return summarise(run), finished


def _finish_rows(plan: Plan, run: Run, rows: Rows, echo: Echo, progress: Progress, signals: list[int]) -> None:
    """Score what is left and write the results; of several launches that share the run one writes them."""
    if plan.place is not None:
        with SharedUnits(run, plan.place.shard) as source:
            _score_rows(plan, run, rows, source, echo, progress, signals)
            source.finish(partial(finish, run), partial(is_finished, run))
        return
    try:
        _score_rows(plan, run, rows, OwnUnits(run), echo, progress, signals)
    except BaseException:
        run.forget_if_empty()
        raise
    finish(run)


def _identity(plan: Plan, rows: Rows) -> RunIdentity:
    """What the run is made with; all but `about` must be the same when it is resumed.

    Raises LadmError when the profile was made for another model.
    """
    hardware = plan.hardware
    here = _of_this_machine(plan.facts)
    if plan.profile is not None and plan.profile.model["sha256"] != here["model"]["sha256"]:
        raise LadmError(
            f"{plan.settings.profile} was calibrated for another model: the files of {plan.facts.name} have other "
            "SHA-256; calibrate this one: ladm calibrate"
        )
    return RunIdentity.create(
        method=plan.settings.method,
        record=plan.settings.record,
        layers=plan.layers,
        reduction=plan.reduction,
        machine=here,
        data=rows.identity(),
        dtype=hardware.dtype,
        device_kind=hardware.devices[0].split(":")[0],
        attention=hardware.attention,
        focus_backend=hardware.backend,
        unit_rows=unit_rows_for(len(rows)),
        about={
            "rows": _absolute(rows.name),
            "model": _absolute(plan.facts.name),
            "batch_size": plan.settings.batch_size,
        },
    )


def _of_this_machine(facts: ModelFacts) -> dict[str, Any]:
    """What of the identity the packages and files of a machine decide."""
    return {
        "model": {"type": facts.model_type, "sha256": model_identity(facts.folder)},
        "tokenizer": tokenizer_identity(facts.folder),
        "versions": {"ladm": __version__} | {name: version(name) for name in ("torch", "transformers")},
    }


def _checked_scorer(make_scorer: MakeScorer, facts: ModelFacts, started_with: RunIdentity, device: str) -> Scorer:
    """Load the model on a machine that may have other files and packages than the one that began the run.

    Raises LadmError with what differs.
    """
    here = _of_this_machine(facts)
    differing = "".join(f"\n  {line}" for line in differences({key: started_with.content[key] for key in here}, here))
    if differing:
        raise LadmError(f"the node {socket.gethostname()} has something else than the run was begun with:{differing}")
    return make_scorer(device)


def _absolute(name: str) -> str:
    """A folder by its whole path, a Hub id as it is."""
    return str(Path(name).absolute()) if Path(name).exists() else name


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
    if plan.profile is not None:
        length = plan.profile.length_tokens
        yield f"profile   {s.profile}: calibrated at {length:,} tokens"
        (first,) = rows.read(0, 1)
        if first.num_tokens != length:
            yield f"warning   the first row has {first.num_tokens or 0:,}; how the profile does there was not judged"
    used = plan.hardware
    devices = ", ".join(used.devices) if plan.cluster is None else f"{plan.cluster.actors} actors of Ray"
    yield f"device    {devices} in {used.dtype}, attention {used.attention}, focus {used.backend}"
    if plan.place is not None and plan.cluster is None:
        yield f"shard     {plan.place.shard.index} of {plan.place.shard.count} that share the run"
    problem = disagreement(rows, plan.facts.folder)
    if problem is not None:
        yield f"warning   {problem}"
    yield f"output    {s.output}"


def _score_rows(
    plan: Plan,
    run: Run,
    rows: Rows,
    source: OwnUnits | SharedUnits,
    echo: Echo,
    progress: Progress,
    signals: list[int],
) -> None:
    """Work on what is left, with an eye on the number of rows without a score."""
    done, failed = _already(run)
    most = 0 if plan.settings.fail_fast else plan.settings.max_errors
    tally = _Tally(failed=failed, most=math.inf if most is None else most)
    tally.check(None)
    progress.start(total=len(rows), done=done)

    def report(records: list[Record]) -> None:
        if signals:
            raise StopSignal(signals[0])
        progress.advance(rows=len(records), tokens=sum(record["num_tokens"] or 0 for record in records))
        errors = [record for record in records if record["status"] == "error"]
        tally.failed += len(errors)
        tally.check(errors[0] if errors else None)

    make_scorer = plan.make_scorer()
    if plan.cluster is not None:
        make_scorer = partial(_checked_scorer, make_scorer, plan.facts, run.identity)
    work = Work(
        folder=run.folder.absolute(),
        rows=_absolute(plan.settings.rows),
        limit=plan.settings.limit,
        sample=rows.sample(),
        make_scorer=make_scorer,
        batch_rows=plan.batch_rows(),
        threads=None if plan.settings.workers is None else max(1, (os.cpu_count() or 1) // plan.settings.workers),
    )
    try:
        _run_units(plan, work, run, rows, source, report, echo)
    finally:
        progress.close()


def _run_units(
    plan: Plan, work: Work, run: Run, rows: Rows, source: OwnUnits | SharedUnits, report: Report, say: Echo
) -> None:
    """Let the engine that was asked for work on the units."""
    devices = plan.hardware.devices
    if plan.cluster is not None:
        from ladm.scoring.engines import ray_cluster

        assert isinstance(source, SharedUnits)
        ray_cluster.run_units(work, source, cluster=plan.cluster, device=devices[0], report=report, say=say)
        return
    alone_on_cpu = plan.place is None and plan.settings.workers is None and devices == ("cpu",)
    run_units(work, run, rows, source, devices=devices, report=report, watched=not alone_on_cpu, say=say)


@dataclass
class _Tally:
    failed: int
    most: float

    def check(self, example: Record | None) -> None:
        """Raise LadmError when more rows than allowed have no score."""
        if self.failed > self.most:
            rows = "row has" if self.failed == 1 else "rows have"
            shown = "" if example is None else f", such as row {example['position']}: {example['message']}"
            raise LadmError(
                f"{self.failed} {rows} no score{shown}; stopped by --max-errors or --fail-fast. "
                "Finished rows are safe, and the same command without it goes on"
            )


def _already(run: Run) -> tuple[int, int]:
    """Rows that are safe from an earlier start, and how many of them have no score."""
    unsealed, holders = {unit.number for unit in run.unsealed()}, run.holders()
    done = failed = 0
    for unit in run.units:
        if unit.number not in unsealed:
            records = run.read_sealed(unit)
            done += len(records)
            failed += sum(record["status"] != "ok" for record in records)
        else:
            records = run.rows_of_holders(unit, holders.get(unit.number, ()))
            done += len(records)
            failed += sum(record["status"] != "ok" for record in records)
    return done, failed
