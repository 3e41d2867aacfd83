"""Documents, a model and a budget -> what the job would take, from a sample of the documents; nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ladm.corpus.ids.files import IdFile
from ladm.corpus.ids.readers import ID
from ladm.corpus.preparation.prepare import PreparedRows
from ladm.corpus.rows.excluded_domains import domains_of, require_domains_exist
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError, StorageError
from ladm.pipeline.budget import ALL_EXCLUDED, most_within_caps, rows_to_select_from
from ladm.pipeline.corpus_size import CorpusSize, corpus_size
from ladm.pipeline.domain_keys import key_in_rows, require_domains
from ladm.pipeline.forecast_result import Documents, Forecast, fills_budget
from ladm.pipeline.job import JobFolder, with_absolute_places
from ladm.pipeline.ranked_columns import require_row_columns, require_signals, selection_of
from ladm.pipeline.resolve import Survey, facts_of, survey
from ladm.pipeline.sample_rows import rows_of_sample
from ladm.progress import Echo, silent
from ladm.scoring.dry_run import DryRun, dry_run
from ladm.selection.id_lists import IdList, match_checked, match_ids, read_id_lists
from ladm.selection.quota_weights import has_weights, read_quota, spelled_weights
from ladm.selection.quotas import listed, weights_of
from ladm.settings.pipeline import SCORES, score_settings
from ladm.storage.temporary import temporary_folder


def forecast(settings: Any, *, echo: Echo, ids_in_memory: Sequence[IdFile] = ()) -> Forecast:
    """Look at some documents, make rows of them in a temporary folder, and time how up to three of them are scored.

    `ids_in_memory`: lists of ids that the settings have by their names.
    Raises LadmError for whatever `ladm run` would refuse before it writes anything, and where none of the documents
    that were looked at makes a row.
    """
    settings = with_absolute_places(settings)
    if settings.output:
        folder = JobFolder(Path(settings.output), in_memory=ids_in_memory)
        if folder.is_started:
            if folder.bound_fields():
                settings = replace(folder.as_started(replace(settings, dry_run=False)), dry_run=True)
            echo(f"{folder.path} was started before; the estimate is for the whole job from its beginning")
        else:
            folder.require_free()
    with temporary_folder() as work:
        # Before any document is read, as `ladm run` does.
        scoring = score_settings(settings, rows="rows", output=str(work / SCORES), resolve_profile=False)
        require_signals(settings, scoring)
        lists = read_id_lists(settings, in_memory=ids_in_memory)
        # Without a place every source in this folder would count as a part of the output.
        job = replace(settings, output=settings.output or str(work / "job"), quota=spelled_weights(settings.quota))
        found = survey(job, facts_of(job), echo, always_sample=True)
        if found.sample is None:
            made = _of_rows(found.settings, work, lists, echo)
        else:
            made = _of_documents(found, work, lists, echo)
        return replace(made, fills_budget=fills_budget(made, settings))


def _of_rows(job: Any, work: Path, lists: list[IdList], echo: Echo) -> Forecast:
    """What a job takes whose source is a data set of token ids."""
    (source,) = job.sources
    key = key_in_rows(job.domain_key, are_made_here=False)
    require_domains(source, key, domain=job.domain)
    opened = open_rows(source, limit=job.limit)
    # Before three rows are timed: a misspelt domain or list of ids is known now.
    included = rows_to_select_from(opened, job, domain_key=key, lists=lists, echo=echo)
    lengths = opened.lengths()
    if has_weights(job.quota):
        of_rows = zip(domains_of(opened, key, domain=job.domain), (included & (lengths > 0)).tolist(), strict=True)
        _compare_weights({name for name, is_in in of_rows if is_in and name is not None}, job, echo, sees_all=True)
    require_row_columns(opened, job)
    scoring = dry_run(score_settings(job, rows=source, output=str(work / SCORES), limit=job.limit), echo=echo)
    selectable_rows, selectable_tokens = most_within_caps(opened, lengths * included, selection_of(job).caps)
    return Forecast(
        is_exact=True, documents=None, length=None, rows=int((lengths > 0).sum()), tokens=int(lengths.sum()),
        selectable_rows=selectable_rows, selectable_tokens=selectable_tokens,
        rows_bytes=0, rows_hours=0.0, scoring=scoring,
    )  # fmt: skip


def _of_documents(found: Survey, work: Path, lists: list[IdList], echo: Echo) -> Forecast:
    job, sample = found.settings, found.sample
    assert sample is not None
    if len(sample.bad_files) > job.max_bad_files:
        # As `ladm run` stops at the first one too many.
        raise StorageError(list(sample.bad_files.values())[job.max_bad_files])
    made = rows_of_sample(job, sample, work=work, lists=lists)
    size = corpus_size(found.sources, sample.looked_at, sample.bad_files)
    rows_folder = str(made.prepared.folder)
    try:
        scoring = dry_run(score_settings(job, rows=rows_folder, output=str(work / SCORES)), echo=echo)
    except LadmError as error:
        # The folder is gone when the message is read.
        error.args = (str(error).replace(rows_folder, "the documents looked at"),)
        raise
    looked_at = sum(made.documents.values())
    sees_all = made.is_whole and isinstance(size, CorpusSize) and looked_at == size.documents
    _compare_domains(made.prepared, job, echo, lists=lists, sees_all=sees_all)
    _look_for_columns(made.prepared, job, echo, lists=lists, sees_all=sees_all)
    documents = Documents(
        number=size.documents if isinstance(size, CorpusSize) else None,
        uncounted=size if isinstance(size, str) else None,
        looked_at=looked_at,
        sources=len(found.sources),
        sources_looked_at=len(sample.looked_at),
        prepared=made.prepared,
        without_domain=made.without_domain,
    )
    if not isinstance(size, CorpusSize):
        return Forecast(
            is_exact=False, documents=documents, length=job.length, rows=None, tokens=None, selectable_rows=None,
            selectable_tokens=None, rows_bytes=None, rows_hours=None, scoring=scoring,
        )  # fmt: skip
    every_row = max(1, round(_of_all(made.rows, made.documents, size)))
    # One at least, unless none of the sample can be selected: a few of very many round to 0.
    least = int(any(made.selectable.values()))
    rows, selectable = every_row, max(least, round(_of_all(made.selectable, made.documents, size)))
    if job.limit is not None:
        rows, selectable = min(rows, job.limit), min(selectable, job.limit)
    is_exact = size.is_exact and sees_all and job.limit is None
    if is_exact and job.max_per:
        selectable = min(selectable, _rows_within_caps(made.prepared, job, lists))
    return Forecast(
        is_exact=is_exact,
        documents=documents,
        length=job.length,
        rows=rows,
        tokens=rows * job.length,
        selectable_rows=selectable,
        selectable_tokens=selectable * job.length,
        most_per_document=made.most_per_document,
        rows_bytes=round(rows * made.bytes_per_row),
        rows_hours=_of_all(made.seconds, made.documents, size) * rows / every_row / 3600,
        scoring=_of_more_rows(scoring, rows / made.prepared.rows),
    )


def _rows_within_caps(prepared: PreparedRows, job: Any, lists: list[IdList]) -> int:
    """The rows that --max-per leaves of all rows of a job, which are those of the sample."""
    rows = open_rows(str(prepared.folder))
    key = key_in_rows(job.domain_key, are_made_here=True)
    included = rows_to_select_from(rows, job, domain_key=key, lists=lists)
    return most_within_caps(rows, rows.lengths() * included, selection_of(job).caps)[0]


def _compare_domains(prepared: PreparedRows, job: Any, echo: Echo, *, lists: list[IdList], sees_all: bool) -> None:
    """Look for the domains that flags name among the rows of the sample: UsageError or a note for one that has none."""
    if not job.exclude_domains and not has_weights(job.quota):
        return
    rows = open_rows(str(prepared.folder))
    every = domains_of(rows, key_in_rows(job.domain_key, are_made_here=True))
    found = set(every)
    if sees_all:
        require_domains_exist(job.exclude_domains, found, where="the source")
        if found <= {*job.exclude_domains}:
            raise LadmError(ALL_EXCLUDED)
    for domain in (each for each in job.exclude_domains if each not in found):
        echo(f"note      no document looked at is of the domain {domain}, which --exclude-domain names")
    if has_weights(job.quota):
        ids = match_ids(lists, [rows]) if ID in rows.column_names else None
        left = every if ids is None else [name for name, is_left in zip(every, ids.included_T, strict=True) if is_left]
        included = {name for name in left if name is not None} - {*job.exclude_domains}
        # With --limit rows are made of the first documents alone, and which of these were looked at is not known.
        is_cut = job.limit is not None and not (sees_all and prepared.rows <= job.limit)
        _compare_weights(included, job, echo, sees_all=sees_all and not is_cut, is_cut=is_cut)


def _look_for_columns(prepared: PreparedRows, job: Any, echo: Echo, *, lists: list[IdList], sees_all: bool) -> None:
    """Look for the columns and ids that documents are selected by: an error or a note where no row has them.

    Documents behind those that were looked at may have the column, the value that a guard names, or ids of a list.
    """
    rows = open_rows(str(prepared.folder))
    try:
        require_row_columns(rows, job)
        match_checked(lists, [rows], echo=echo if sees_all else silent)
    except LadmError as error:
        # The folder is gone when the message is read.
        message = str(error).replace(rows.name, "the sample of documents")
        if sees_all:
            error.args = (message,)
            raise
        echo(f"note      {message}")


def _compare_weights(found: Collection[str], job: Any, echo: Echo, *, sees_all: bool, is_cut: bool = False) -> None:
    """Compare the weights of --quota with the domains that were found.

    Raises UsageError for what `ladm run` would refuse, such as a domain without a weight. A weight without a document
    is a note, and so is a domain without a weight where --limit may leave its documents out (`is_cut`).
    """
    quota = read_quota(job.quota)
    weighted = quota.own_weights(excluded=job.exclude_domains)
    if is_cut and quota.default is None:
        for name in sorted(set(found) - {*weighted}):
            echo(f"note      --quota has no weight for {name}, which it needs if --limit leaves documents of it")
        found = set(found) & {*weighted}
    weights_of(sorted(found if sees_all else {*found, *weighted}), quota, excluded=job.exclude_domains)
    if unseen := [name for name in weighted if name not in found]:
        domain = "domain" if len(unseen) == 1 else "domains"
        echo(f"note      no document looked at is of the {domain} {listed(unseen)}, which --quota names")


def _of_all(rows: Mapping[int, float], documents: Mapping[int, int], size: CorpusSize) -> float:
    """Rows of the whole corpus, from those of the documents that were looked at, by source."""
    represented = sum(number for k, number in size.by_source.items() if documents.get(k))
    found = sum(size.by_source[k] * rows.get(k, 0.0) / count for k, count in documents.items())
    # A source without a document in the sample is taken to be as the others.
    return found * sum(size.by_source.values()) / represented if represented else 0.0


def _of_more_rows(scoring: DryRun, factor: float) -> DryRun:
    """What that many times the rows of the sample take; the seconds of a row and the memory are the same."""
    return replace(
        scoring,
        rows_by_length={length: round(count * factor) for length, count in scoring.rows_by_length.items()},
        refused={kind: round(count * factor) for kind, count in scoring.refused.items()},
        seconds=scoring.seconds * factor,
        result_bytes=round(scoring.result_bytes * factor),
    )
