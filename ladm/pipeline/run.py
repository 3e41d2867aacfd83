"""Documents, a model and a budget -> rows, scores, a subset and a page about them. Each part resumes by itself."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ladm.corpus.ids.files import IdFile
from ladm.corpus.preparation.prepare import PreparedRows, PrepareProgress, prepare
from ladm.corpus.preparation.report import preparation_lines, too_short_hint
from ladm.corpus.rows.reading import open_rows
from ladm.errors import count_of
from ladm.pipeline.budget import require_budget
from ladm.pipeline.domain_keys import domain_flags, domains_as_before, key_in_rows, require_domains
from ladm.pipeline.job import JobFolder, with_absolute_places
from ladm.pipeline.ranked_columns import require_row_columns, require_signals
from ladm.pipeline.resolve import facts_of, is_rows, resolve
from ladm.progress import Echo, Progress
from ladm.report.page import write_report
from ladm.runs.folder import Run
from ladm.runs.results import Summary, require_scored
from ladm.scoring.score import score
from ladm.selection.formats.destination import LocalFolder
from ladm.selection.formats.hub_push import push_subset
from ladm.selection.id_lists import IdList, read_id_lists
from ladm.selection.manifest import MANIFEST_FILE, Manifest
from ladm.selection.manifest_file import read_manifest
from ladm.selection.quota_weights import spelled_weights
from ladm.selection.subset import select
from ladm.settings.pipeline import SCORES, SUBSET, prepare_settings, score_settings, select_settings
from ladm.settings.runs import ReportSettings, page_ranking
from ladm.storage.locks import locked


class JobProgress(Protocol):
    """Where progress is shown."""

    def preparing(self) -> PrepareProgress: ...
    def scoring(self) -> Progress: ...


@dataclass(frozen=True, kw_only=True)
class JobResult:
    """What a job wrote."""

    folder: Path
    rows: str
    """The rows that were scored: those that it made, or the source."""
    prepared: PreparedRows | None
    summary: Summary
    manifest: Manifest
    page: str
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each part, in this call."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """The same of this process's CPU time."""

    @property
    def scores(self) -> str:
        """The folder of the run."""
        return str(self.folder / SCORES)

    @property
    def subset(self) -> str:
        """The folder of the subset."""
        return str(self.folder / SUBSET)


def run(settings: Any, *, echo: Echo, bars: JobProgress, ids_in_memory: Sequence[IdFile] = ()) -> JobResult:
    """Do the job, or what is left of it. `ids_in_memory`: lists of ids that the settings have by their names.

    Raises LadmError for documents, a model or settings that cannot be used, before anything is written where that is
    possible; for a folder that holds something else; and for a budget beyond the rows, before they are scored.
    """
    settings = with_absolute_places(replace(settings, quota=spelled_weights(settings.quota)))
    echo = _without_repeats(echo)
    folder = JobFolder(Path(settings.output), in_memory=ids_in_memory)
    lists: list[IdList] | None = None
    was_started = folder.is_started
    if not folder.bound_fields():
        # What scoring would refuse, before any document is read: no value of an earlier start can change it.
        _require_signals(settings, folder)
        lists = read_id_lists(settings, in_memory=ids_in_memory)
    if not was_started:
        folder.require_free()
        job = resolve(settings, facts_of(settings), echo)
        # Written before any row: a resume must use the length that was found, whatever the documents are by then.
        # To look at the documents takes a while, in which another launch may have started, and even finished, the job.
        was_started = not folder.start(job)
    # A second launch of the same job would otherwise prepare and select beside this one.
    with locked(folder.path):
        if was_started:
            job = _resume(folder, settings, echo)
        if lists is None:
            lists = read_id_lists(job, in_memory=ids_in_memory)
        return _JobParts(job=job, folder=folder, lists=lists, echo=echo, bars=bars).run()


def _without_repeats(echo: Echo) -> Echo:
    """Pass each line on once: two parts of a job look for the same sources, and report the same files as left out."""
    seen: set[str] = set()

    def pass_on(line: str) -> None:
        if line not in seen:
            seen.add(line)
            echo(line)

    return pass_on


def _resume(folder: JobFolder, settings: Any, echo: Echo) -> Any:
    """The settings to go on with; those of a first try that stored nothing do not count."""
    if folder.bound_fields():
        job = folder.resume(settings)
        # Until there are scores, a resume may select by something else.
        _require_signals(job, folder)
        echo(f"{folder.path} was started before; resuming it")
        if settings.domain_key is None and job.domain_key is not None and not is_rows(job):
            echo(f"domains   {domains_as_before(job.domain_key)}")
        if job.limit is not None and settings.limit is None:
            rows = count_of(job.limit, "row")
            echo(f"limit     {rows}, as before; a greater --limit adds more")
        return job
    echo(f"{folder.path} was started before and has no rows yet; starting again")
    job = resolve(settings, facts_of(settings), echo)
    folder.replace(job)
    return job


def _require_signals(job: Any, folder: JobFolder) -> None:
    require_signals(job, score_settings(job, rows=folder.rows, output=folder.scores, resolve_profile=False))


@dataclass(kw_only=True)
class _JobParts:
    """The parts of a job, one after the other."""

    job: Any
    folder: JobFolder
    lists: list[IdList]
    """Read once: a list may have a hundred million ids, and one that changes meanwhile must not be used in part."""
    echo: Echo
    bars: JobProgress
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)

    def run(self) -> JobResult:
        """Everything that is left to do."""
        with self._timed("prepare"):
            prepared = self._prepare()
        rows = self.job.sources[0] if prepared is None else self.folder.rows
        # Rows that the job made are limited already.
        limit = self.job.limit if prepared is None else None
        # They also have their domain, under the default key, whatever its key was in the corpus.
        key = key_in_rows(self.job.domain_key, are_made_here=prepared is not None)
        if prepared is None:
            require_domains(rows, key, domain=self.job.domain)
        found = open_rows(rows, limit=limit)
        require_budget(
            found, self.job, domain_key=key, lists=self.lists, echo=self.echo,
            hint="" if prepared is None else too_short_hint(prepared, length=self.job.length, stored=True),
        )  # fmt: skip
        require_row_columns(found, self.job)
        scoring = score_settings(self.job, rows=rows, output=self.folder.scores, limit=limit)
        with self._timed("score"):
            # Of a plain mean the selection warns too, and says what helps without another run.
            is_weighted = scoring.focus == "value"
            scored = score(scoring, echo=self.echo, progress=self.bars.scoring(), warn_of_sinks=is_weighted)
        require_scored(scored.summary, self.folder.scores)
        with self._timed("select"):
            manifest = self._select(rows, key, scored.run, domain=self.job.domain if prepared is None else None)
        with self._timed("report"):
            page = self._report(scored.run, key)
        return JobResult(
            folder=self.folder.path, rows=rows, prepared=prepared, summary=scored.summary, manifest=manifest,
            page=page, seconds=self.seconds, cpu_seconds=self.cpu_seconds,
        )  # fmt: skip

    def _prepare(self) -> PreparedRows | None:
        job = self.job
        if is_rows(job):
            return None
        key, domain = domain_flags(job.domain_key)
        wanted = prepare_settings(job, rows=self.folder.rows, length=job.length, domain_key=key, domain=domain)
        prepared = prepare(
            wanted, echo=self.echo, progress=self.bars.preparing(), job=self.folder.path,
            use_rows=self.folder.use_rows(job, domain_key=job.domain_key),
        )  # fmt: skip
        for line in preparation_lines(prepared, length=job.length, windows=job.windows):
            self.echo(line)
        return prepared

    def _select(self, rows: str, key: str, run: Run, *, domain: str | None) -> Manifest:
        """Select from the run, unless there is a subset of the same rows. `domain`: that of rows without one."""
        subset = Path(self.folder.subset)
        place = LocalFolder(subset, replaces=True)
        place.tidy()
        # A subset is in place whole or not at all, and this job's settings are fixed: of the same rows it is the same.
        is_there = (subset / MANIFEST_FILE).is_file()
        is_old = is_there and read_manifest(subset).run["data"] != run.identity.for_manifest()["data"]
        if is_old:
            self.echo(f"{subset} was selected from fewer rows; selecting again")
        if is_old or not is_there:
            job = replace(self.job, domain=domain)
            chosen = select_settings(job, run=self.folder.scores, rows=rows, output=str(subset), domain_key=key)
            select(chosen, place=place, lists=self.lists, echo=self.echo)
        elif self.job.push is not None:
            # An upload that failed left the subset here; the Hub takes equal files a second time without a copy.
            push_subset(subset, self.job.push, remedy="run the same command again")
        return read_manifest(subset)

    def _report(self, run: Run, key: str) -> str:
        """The page of the run."""
        place, by = self.folder.page, page_ranking(self.job.by, run.identity.signals)
        page = ReportSettings(run=self.folder.scores, output=place, subset=self.folder.subset, domain_key=key, by=by)
        write_report(page, echo=self.echo)
        return place

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started, cpu_started = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[part] = time.perf_counter() - started
            self.cpu_seconds[part] = time.process_time() - cpu_started


def summary_lines(result: JobResult) -> Iterator[str]:
    """Where everything is."""
    yield f"rows: {result.rows}"
    yield f"scores: {result.scores}"
    yield f"subset: {result.subset}"
    yield f"page: {result.page}"
