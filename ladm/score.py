"""Rows and a model -> a finished run: identity, units on devices, sorted results, a summary."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from ladm import __version__
from ladm.engines.local import Work, run_units
from ladm.engines.shard import Place, SharedUnits, parse_shard, place_of
from ladm.engines.units import OwnUnits
from ladm.engines.work import BatchRule, Record
from ladm.errors import LadmError, UsageError
from ladm.models import ModelFacts, model_facts, model_identity
from ladm.profiles import Profile, Reduction, read_profile
from ladm.results import Summary, finish, is_finished, summarise
from ladm.rows import Rows, open_rows
from ladm.runs import FORMAT, IDENTITY_FILE, Run, locked, refuse_foreign, unit_rows_for
from ladm.scorers import Scorer
from ladm.settings import ScoreSettings, parse_layers, spell_layers
from ladm.signals import Stopped, stopping
from ladm.upkeep import delete_run, forget_errors

CUDA_BATCH_TOKENS = 32_768


class Progress(Protocol):
    """Where the advance of a run is shown."""

    def start(self, *, total: int, done: int) -> None: ...
    def advance(self, *, rows: int, tokens: int) -> None: ...
    def close(self) -> None: ...


Echo = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is known before the first forward pass."""

    settings: ScoreSettings
    facts: ModelFacts
    layers: tuple[int, ...]
    reduction: Reduction
    profile: Profile | None
    dtype: str
    devices: tuple[str, ...]
    attention: str
    backend: str
    place: Place | None

    def make_scorer(self) -> Callable[[str], Scorer]:
        """A function of the device that loads the model there; it can be pickled."""
        return partial(_load_scorer, self)

    def batch_rows(self) -> BatchRule:
        """How many rows of a length go into one step."""
        size = self.settings.batch_size
        tokens = CUDA_BATCH_TOKENS if self.devices[0].startswith("cuda") else 1
        return partial(_batch_rows, None if size == "auto" else size, tokens)


def score(settings: ScoreSettings, *, echo: Echo, progress: Progress) -> tuple[Summary, bool]:
    """Score every row of `settings.rows` into the run folder `settings.output`.

    Returns what became of the rows, and whether the run had been finished before.
    Raises LadmError and its kinds; rows that are safe by then stay safe.
    """
    folder = Path(settings.output)
    with stopping(folder) as signals:
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
                _finish_rows(plan, run, rows, progress, signals)
            return summarise(run), finished


def _finish_rows(plan: Plan, run: Run, rows: Rows, progress: Progress, signals: list[int]) -> None:
    """Score what is left and write the results; of several launches that share the run one writes them."""
    if plan.place is not None:
        with SharedUnits(run, plan.place.shard) as source:
            _score_rows(plan, run, rows, source, progress, signals)
            source.finish(partial(finish, run), partial(is_finished, run))
        return
    try:
        _score_rows(plan, run, rows, OwnUnits(run), progress, signals)
    except Exception:
        run.forget_if_empty()
        raise
    finish(run)


def make_plan(settings: ScoreSettings) -> Plan:
    """Settle device, dtype and layers. Raises LadmError for a model or device that cannot be used."""
    facts = model_facts(settings.model)
    profile = None if settings.profile is None else read_profile(settings.profile)
    if profile is not None and max(profile.reduction.layers) >= facts.num_layers:
        raise LadmError(
            f"{settings.profile} was calibrated for another model: it names layer {max(profile.reduction.layers)}, and "
            f"{facts.name} has layers 0-{facts.num_layers - 1}"
        )
    layers = facts.choose_layers(parse_layers(settings.layers))
    from ladm.devices import resolve_backend, resolve_devices, resolve_dtype
    from ladm.kernels.attention import attention_kernel

    place = place_of(os.environ) if settings.shard is None else Place(shard=parse_shard(settings.shard))
    if place is not None and (settings.overwrite or settings.retry_errors):
        raise UsageError(
            "--overwrite and --retry-errors are for a run that nobody shares; run them once without --shard"
        )
    devices = resolve_devices(settings.device, workers=settings.workers, rank=place.rank if place else None)
    dtype = resolve_dtype(settings.dtype, devices[0])
    attention = attention_kernel(devices[0].split(":")[0], dtype)
    return Plan(
        settings=settings,
        facts=facts,
        layers=layers,
        reduction=Reduction(how=settings.reduce, layers=layers) if profile is None else profile.reduction,
        profile=profile,
        dtype=str(dtype).removeprefix("torch."),
        devices=devices,
        attention=attention,
        backend=resolve_backend(settings.backend, devices[0]),
        place=place,
    )


def _load_scorer(plan: Plan, device: str) -> Scorer:
    import torch
    from transformers.utils import logging

    from ladm.observer import load_observer
    from ladm.scorers.ladm import LadmScorer

    logging.disable_progress_bar()
    dtype = getattr(torch, plan.dtype)
    observer = load_observer(plan.facts, layers=plan.layers, dtype=dtype, device=torch.device(device))
    return LadmScorer(observer, plan.settings, reduction=plan.reduction, backend=plan.backend)


def _batch_rows(size: int | None, tokens: int, num_tokens: int) -> int:
    return max(1, tokens // num_tokens) if size is None else size


def _identity(plan: Plan, rows: Rows) -> dict[str, Any]:
    """What `run.json` holds; all but `about` must be the same when a run is resumed.

    Raises LadmError when the profile was made for another model.
    """
    model = {"type": plan.facts.model_type, "sha256": model_identity(plan.facts.folder)}
    if plan.profile is not None and plan.profile.model["sha256"] != model["sha256"]:
        raise LadmError(
            f"{plan.settings.profile} was calibrated for another model: the files of {plan.facts.name} have other "
            "SHA-256; calibrate this one: ladm calibrate"
        )
    return {
        "format": FORMAT,
        "settings": {"method": "ladm", **plan.settings.identity()},
        "layers": list(plan.layers),
        "score": plan.reduction.identity(),
        "model": model,
        "data": rows.identity(),
        "dtype": plan.dtype,
        "backend": {"device": plan.devices[0].split(":")[0], "attention": plan.attention, "focus": plan.backend},
        "versions": {"ladm": __version__} | {name: version(name) for name in ("torch", "transformers")},
        "unit_rows": unit_rows_for(len(rows)),
        "about": {
            "rows": _absolute(rows.name),
            "model": _absolute(plan.facts.name),
            "batch_size": plan.settings.batch_size,
        },
    }


def _absolute(name: str) -> str:
    """A folder by its whole path, a Hub id as it is."""
    return str(Path(name).absolute()) if Path(name).exists() else name


def _resolved(plan: Plan, rows: Rows) -> Iterator[str]:
    """The settings as they will be used, for people."""
    s = plan.settings
    n0 = "where the released code starts" if s.resolved_n0 is None else s.resolved_n0
    yield f"rows      {rows.name}: {len(rows):,} documents"
    yield f"model     {plan.facts.name}: {plan.facts.model_type}, {plan.facts.num_layers} layers"
    yield (
        f"method    {s.variant}, spans of {s.span_tokens} tokens, m {s.m}, n {s.resolved_n}, n0 {n0}, "
        f"d_afs {s.d_afs}, d_cds {s.d_cds}, ablation {s.ablation}, {s.reduce} over layers {spell_layers(plan.layers)}"
    )
    if plan.profile is not None:
        length = plan.profile.length_tokens
        yield f"profile   {s.profile}: calibrated at {length:,} tokens"
        (first,) = rows.read(0, 1)
        if first.num_tokens != length:
            yield f"warning   the first row has {first.num_tokens or 0:,}; how the profile does there was not judged"
    yield f"device    {', '.join(plan.devices)} in {plan.dtype}, attention {plan.attention}, focus {plan.backend}"
    if plan.place is not None:
        yield f"shard     {plan.place.shard.index} of {plan.place.shard.count} that share the run"
    yield f"output    {s.output}"


def _score_rows(
    plan: Plan, run: Run, rows: Rows, source: OwnUnits | SharedUnits, progress: Progress, signals: list[int]
) -> None:
    """Work on what is left, with an eye on the number of rows without a score."""
    done, failed = _already(run)
    most = 0 if plan.settings.fail_fast else plan.settings.max_errors
    tally = _Tally(failed=failed, most=math.inf if most is None else most)
    tally.check(None)
    progress.start(total=len(rows), done=done)

    def report(records: list[Record]) -> None:
        if signals:
            raise Stopped(signals[0])
        progress.advance(rows=len(records), tokens=sum(record["num_tokens"] or 0 for record in records))
        errors = [record for record in records if record["status"] == "error"]
        tally.failed += len(errors)
        tally.check(errors[0] if errors else None)

    work = Work(
        folder=run.folder,
        rows=plan.settings.rows,
        limit=plan.settings.limit,
        make_scorer=plan.make_scorer(),
        batch_rows=plan.batch_rows(),
        threads=None if plan.settings.workers is None else max(1, (os.cpu_count() or 1) // plan.settings.workers),
    )
    alone_on_cpu = plan.place is None and plan.settings.workers is None and plan.devices == ("cpu",)
    try:
        run_units(work, run, rows, source, devices=plan.devices, report=report, watched=not alone_on_cpu)
    finally:
        progress.close()


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
    unsealed = {unit.number for unit in run.unsealed()}
    done = failed = 0
    for unit in run.units:
        if unit.number not in unsealed:
            records = run.read_sealed(unit)
            done += len(records)
            failed += sum(record["status"] != "ok" for record in records)
        else:
            records = run.rows_of_holders(unit)
            done += len(records)
            failed += sum(record["status"] != "ok" for record in records)
    return done, failed
