"""Rows and a model -> a finished run: identity, units scored on devices, sorted results, a summary."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ladm.corpus.rows.fingerprint import absolute_name, rows_fingerprint, sample_digest
from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError, count_of
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.modeling.model_files import ModelFingerprint, deciding_files
from ladm.progress import Echo, NoProgress, Progress, silent
from ladm.runs.columns.added_signals import lines_of_lacking_rows
from ladm.runs.derived_identity import identity_of_text
from ladm.runs.folder import Run, require_own_or_empty
from ladm.runs.growth import resume_or_grow
from ladm.runs.identity import RunIdentity
from ladm.runs.layout import IDENTITY_FILE, RESULT_FILES
from ladm.runs.reset import delete_run, forget_errors
from ladm.runs.results import summarise
from ladm.runs.unsealed import adopt_shared
from ladm.scoring.background import in_background
from ladm.scoring.engines.job import WorkerConfig, nothing_early
from ladm.scoring.engines.processes import EarlyWorker, early_worker, threads_of_worker
from ladm.scoring.identity import checked_scorer, identity_of, machine_identity
from ladm.scoring.plan import Plan
from ladm.scoring.plan_report import describe_plan
from ladm.scoring.result import ScoreResult, added_signal
from ladm.scoring.row_checks import plan_for_rows, require_rows
from ladm.scoring.scoring_pass import ScoringPass, processes_for_texts
from ladm.scoring.signal_choice import SignalChoice, choose_signals
from ladm.scoring.sink_warning import sink_warning
from ladm.settings.common import TEXT_COLUMN
from ladm.settings.score import ScoreSettings
from ladm.signals.text_columns import TextColumns, count_unigrams, store_unigrams, unigrams_of_folder
from ladm.storage.file_states import FileStates, file_states
from ladm.storage.identity import differences
from ladm.storage.interrupts import stop_on_signals
from ladm.storage.locks import locked


def score(
    settings: ScoreSettings,
    *,
    rows: Rows | None = None,
    facts: ModelFacts | None = None,
    echo: Echo = silent,
    progress: Progress | None = None,
    warn_of_sinks: bool = True,
) -> ScoreResult:
    """Score every row of `settings.rows` into the run folder `settings.output`, or resume it.

    `rows` and `facts` are those of the settings, where the caller has opened them already. `echo` is called
    with the settings as resolved, a line at a time, with the warning of `sink_warning` unless `warn_of_sinks` is
    False, and with a warning for each added signal that lacks rows of the run. May be called in any thread.
    Raises LadmError or a subclass of it; rows that are durable by then stay.
    """
    folder = Path(settings.output)
    with stop_on_signals(folder) as signals, _early_worker(settings) as early:
        if rows is None:
            require_rows(settings.rows, model=settings.model)
        require_own_or_empty(folder)
        rows = rows or open_rows(settings.rows, limit=settings.limit)
        choice = choose_signals(settings)
        read_facts = partial(model_facts, settings.model, weights=choice.runs_model)
        facts = facts or (early.call(read_facts) if early else read_facts())
        command = _ScoreCommand(
            settings=settings, choice=choice, rows=rows, facts=facts, echo=echo, progress=progress or NoProgress(),
            signals=signals, early=early,
            model_files=file_states(deciding_files(facts.folder, weights=choice.runs_model)),
            machine=in_background(partial(machine_identity, facts, weights=choice.runs_model)),
        )  # fmt: skip
        result = command.add_to_finished() if choice.only_adds else command.score()
        warning = sink_warning(result.run) if warn_of_sinks else None
        for line in [*([] if warning is None else [warning]), *lines_of_lacking_rows(result.run)]:
            echo(f"warning   {line}")
        return result


def _early_worker(settings: ScoreSettings) -> AbstractContextManager[EarlyWorker | None]:
    """A process that imports torch while the rows and the model are read, where one will be needed."""
    finished = all((Path(settings.output) / name).exists() for name in RESULT_FILES) and not settings.overwrite
    if finished or settings.engine != "local" or not settings.runs_model:
        return nullcontext()
    return early_worker(device=settings.device, threads=threads_of_worker(settings.workers))


@dataclass(frozen=True, kw_only=True)
class _ScoreCommand:
    """One call of `ladm score`, with what was read before it opens the run folder."""

    settings: ScoreSettings
    choice: SignalChoice
    rows: Rows
    facts: ModelFacts
    echo: Echo
    progress: Progress
    signals: list[int]
    early: EarlyWorker | None
    model_files: FileStates
    """Their state before they were read for the identity of the model."""
    machine: Callable[[], dict[str, Any]]
    """Waits for the SHA-256 of the model's files."""

    def score(self) -> ScoreResult:
        """Score the run itself, or resume it, and then every signal that is added to it."""
        plan = self._plan(self.choice.of_run(self.settings))
        with locked(Path(self.settings.output), shared=plan.placement is not None):
            run = self._open(plan)
            already_finished = run.is_finished
            self._finish(plan, run)
            return self._added_to(run, already_finished=already_finished)

    def add_to_finished(self) -> ScoreResult:
        """Score the signals that are added to a finished run, whose own settings the command does not repeat."""
        folder = Path(self.settings.output)
        with locked(folder, shared=True):
            run = Run.read(folder)
            return self._added_to(run, already_finished=True)

    def _added_to(self, run: Run, *, already_finished: bool) -> ScoreResult:
        """Score the added signals one after the other; `already_finished` is that of the run itself."""
        added = []
        for name in self.choice.added:
            self.echo(f"signal    {name}, added to {run.folder}")
            plan = self._plan(self.choice.of_added(self.settings, name))
            folder = Path(plan.settings.output)
            with locked(folder, shared=plan.placement is not None):
                signal = self._open(plan, beside=run.identity)
                already_finished = signal.is_finished and already_finished
                self._finish(plan, signal)
                added.append(added_signal(name, signal))
        return ScoreResult(
            run=run, summary=summarise(run), already_finished=already_finished, added=tuple(added)
        )  # fmt: skip

    def _plan(self, settings: ScoreSettings) -> Plan:
        ask = self.early.call if self.early else None
        plan, lines = plan_for_rows(settings, self.rows, self.facts, ask=ask, echo=self.echo)
        for line in [*describe_plan(plan, self.rows), *lines, f"output    {settings.output}"]:
            self.echo(line)
        return plan if plan.text is None else replace(plan, text=self._text_columns(plan, plan.text))

    def _text_columns(self, plan: Plan, planned: TextColumns) -> TextColumns:
        """The statistics as planned, with what the rows add: their text, and unless it was given the unigrams."""
        folder, vocab_size, unigrams = Path(plan.settings.output), plan.facts.vocab_size, planned.unigrams
        if unigrams is None and not plan.settings.overwrite:
            # The table made when the run was started: adding rows must not change the numbers of those that are there.
            unigrams = unigrams_of_folder(folder)
        return TextColumns(
            unigrams=unigrams or count_unigrams(self.rows, vocab_size=vocab_size),
            has_text=TEXT_COLUMN in self.rows.column_names,
        )

    def _open(self, plan: Plan, *, beside: RunIdentity | None = None) -> Run:
        """Create or resume a run folder, whose lock is held, once `--overwrite` or `--retry-errors` is applied.

        `beside`: the run that a signal is added to. Raises LadmError where that has other rows or another model.
        """
        folder = Path(plan.settings.output)
        both = plan.settings.runs_model
        self.echo(f"reading the data {'and the model once to identify them' if both else 'once to identify it'}")
        # Before anything is removed: a command that cannot work must not cost the run that is there.
        identity = identity_of(plan, self.rows, machine=self.machine())
        if beside is not None:
            if beside.has_rows(self.rows):
                identity = RunIdentity(identity.content | {"data": beside.data})
            _require_same_rows_and_model(folder, beside, identity)
            if plan.text is not None:
                # As `ladm annotate` would add them, so that either command goes on with what the other started.
                identity = identity_of_text(beside, plan.text.how())
        if plan.settings.overwrite and (folder / IDENTITY_FILE).exists():
            delete_run(folder)
        is_shared = plan.placement is not None
        run = resume_or_grow(folder, identity, rows=self.rows, is_shared=is_shared, echo=self.echo)
        if plan.text is not None:
            store_unigrams(folder, plan.text)
        if not is_shared:
            adopt_shared(run)
        if plan.settings.retry_errors:
            self.echo(f"removing {count_of(forget_errors(run), 'row')} without a score, to score again")
        return run

    def _finish(self, plan: Plan, run: Run) -> None:
        if run.is_finished:
            return
        settings, devices = plan.settings, plan.hardware.devices
        if not settings.runs_model:
            devices = devices[: processes_for_texts(run)]
        limit = 0 if settings.fail_fast else settings.max_errors
        # On one CPU a process of its own costs a start and a copy of the model, and a crash there is rare.
        alone_on_cpu = plan.placement is None and settings.workers is None and devices == ("cpu",)
        ScoringPass(
            run=run, rows=self.rows, worker=self._worker(plan, run), devices=devices, echo=self.echo,
            progress=self.progress, signals=self.signals, supervised=not alone_on_cpu,
            most_errors=math.inf if limit is None else limit,
            shard=None if plan.placement is None else plan.placement.shard, cluster=plan.cluster,
            take_early=self.early.take if self.early else nothing_early,
        ).finish_run()  # fmt: skip

    def _worker(self, plan: Plan, run: Run) -> WorkerConfig:
        make_scorer = plan.make_scorer()
        if plan.cluster is not None:
            make_scorer = partial(checked_scorer, make_scorer, plan.facts, run.identity)
        model = None
        if plan.settings.runs_model:
            model = ModelFingerprint(name=self.facts.name, sha256=run.identity.model_sha256, files=self.model_files)
        return WorkerConfig(
            folder=run.folder.absolute(),
            rows=absolute_name(plan.settings.rows),
            # Not --limit: rows may be added to the data set before a worker that was lost is replaced.
            limit=len(self.rows),
            rows_sample=sample_digest(self.rows),
            model=model,
            data=rows_fingerprint(self.rows, name=absolute_name(plan.settings.rows)),
            elsewhere=plan.cluster is not None,
            make_scorer=make_scorer,
            batch_rows=plan.batch_rows(),
            threads=threads_of_worker(plan.settings.workers),
        )


def _require_same_rows_and_model(folder: Path, run: RunIdentity, signal: RunIdentity) -> None:
    """Raise LadmError where a signal would be added to a run of other rows or of another model."""
    had, now = ({"the rows": of.data, "the model": of.model_sha256} for of in (run, signal))
    if signal.has_model_of(run):
        # Of statistics of texts the weights were not read.
        had["the model"] = now["the model"]
    differing = "".join(f"\n  {line}" for line in differences(had, now))
    if differing:
        raise LadmError(f"{folder.parent.parent} was scored with other rows or another model:{differing}")
