"""A finished run and the rows it scored -> a subset of those rows and its manifest. Imports no torch."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ladm.corpus.rows import Rows, open_rows
from ladm.errors import LadmError
from ladm.runs.folder import Run
from ladm.runs.results import require_finished, summarise
from ladm.selection.budget import Domains, Shares, select_exact, select_percent, take_everything
from ladm.selection.manifest import DomainManifest, Manifest, write_manifest
from ladm.selection.quotas import domain_shares
from ladm.selection.ranking import DOCUMENT_COLUMN, rank_by_domain
from ladm.settings.data import SelectSettings
from ladm.storage.files import io_errors, sync_folder, sync_tree

WINDOWS_PER_DOCUMENT = 2
"""Rows of one document at most, where it was cut into windows and --max-per-document is not given."""


def select(settings: SelectSettings) -> Manifest:
    """Choose documents and, unless it is a dry run, write them with their manifest; returns the manifest.

    Raises LadmError for an unfinished run, for rows that are not the run's, and for a pool smaller
    than the budget or without a document that fits it; StorageError for a damaged run.
    """
    run = Run.read(Path(settings.run))
    require_finished(run)
    output = Path(settings.output)
    if not settings.dry_run and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise LadmError(f"{output} exists already; give --output another folder")
    name = settings.rows or run.identity.rows_name
    try:
        rows = open_rows(name, limit=run.num_rows)
    except LadmError as error:
        raise LadmError(str(error) if settings.rows else f"{error}; give --rows where they are now") from None
    # By content: positions of other rows would select other documents without any error.
    if rows.identity() != run.identity.data:
        raise LadmError(f"{name} are not the rows that {settings.run} scored: their content differs")
    most = _max_per_document(settings, rows)
    with _work_folder(output, dry_run=settings.dry_run) as work:
        ranked = rank_by_domain(run, rows, domain_key=settings.domain_key, work=work, max_per_document=most)
        shares = domain_shares(ranked, settings.quota)
        domains = {name: domain for name, domain in ranked.items() if shares[name]}
        percent = _apply_rule(domains, {name: shares[name] for name in domains}, settings)
        if not any(domain.taken_documents for domain in domains.values()):
            shortest = min(int(domain.num_tokens.min()) for domain in domains.values())
            raise LadmError(f"no document fits --tokens {settings.tokens:,}: the shortest has {shortest:,} tokens")
        left_out = [name for name in ranked if not shares[name]]
        is_copy_T = rows.copies()
        manifest = replace(
            _manifest(settings, run, domains, left_out=left_out, percent=percent, max_per_document=most),
            copies=None if is_copy_T is None else int(is_copy_T.sum()),
        )
        if not settings.dry_run:
            _write(output, rows, domains, manifest)
    return manifest


def _max_per_document(settings: SelectSettings, rows: Rows) -> int | None:
    """How many rows of a document may be chosen; None where rows do not say which document they are of."""
    has_windows = {DOCUMENT_COLUMN, "chunked_index"} <= set(rows.column_names)
    if settings.max_per_document is None:
        return WINDOWS_PER_DOCUMENT if has_windows else None
    if DOCUMENT_COLUMN not in rows.column_names:
        raise LadmError(f"{rows.name} has no column {DOCUMENT_COLUMN}, so --max-per-document has nothing to count")
    return settings.max_per_document


@contextlib.contextmanager
def _work_folder(output: Path, *, dry_run: bool) -> Iterator[Path]:
    """A folder for the ranking, removed at the end."""
    if dry_run:
        with tempfile.TemporaryDirectory(prefix="ladm-select-") as work:
            yield Path(work)
        return
    # Beside the subset rather than in /tmp, which is often small and in memory: a disk with room for the subset has
    # room for its ranking.
    with io_errors(output.parent, "write in"):
        output.parent.mkdir(parents=True, exist_ok=True)
        work = tempfile.mkdtemp(prefix=f".{output.name}.ranking-", dir=output.parent)
    try:
        yield Path(work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _apply_rule(domains: Domains, shares: Shares, settings: SelectSettings) -> int | None:
    """Take documents of `domains` by the rule of `settings`; returns the percentage of the percent rule."""
    if settings.rule == "percent":
        return select_percent(domains, budget_tokens=settings.tokens, allow_small_pool=settings.allow_small_pool)
    pool = sum(domain.pool_tokens for domain in domains.values())
    rule = take_everything if settings.allow_small_pool and pool < settings.tokens else select_exact
    rule(domains, budget_tokens=settings.tokens, shares=shares)
    return None


def _manifest(
    settings: SelectSettings,
    run: Run,
    domains: Domains,
    *,
    left_out: list[str],
    percent: int | None,
    max_per_document: int | None,
) -> Manifest:
    return Manifest(
        rule=settings.rule,
        quota=settings.quota if settings.rule == "exact" else None,
        percent=percent,
        domain_key=settings.domain_key,
        budget_tokens=settings.tokens,
        taken_tokens=sum(domain.taken_tokens for domain in domains.values()),
        taken_documents=sum(domain.taken_documents for domain in domains.values()),
        pool_tokens=sum(domain.pool_tokens for domain in domains.values()),
        pool_documents=sum(len(domain) for domain in domains.values()),
        without_score=dict(sorted(summarise(run).errors.items())),
        domains_left_out=left_out,
        domains={
            name: DomainManifest(
                pool_documents=len(domain),
                pool_tokens=domain.pool_tokens,
                quota_tokens=domain.quota_tokens,
                taken_documents=domain.taken_documents,
                taken_tokens=domain.taken_tokens,
                lowest_score_taken=domain.lowest_score_taken,
            )
            for name, domain in domains.items()
        },
        run=run.identity.for_manifest(),
        max_per_document=max_per_document,
    )


def _write(output: Path, rows: Rows, domains: Domains, manifest: Manifest) -> None:
    """The chosen rows in the order of the data, all columns kept; whole or not at all."""
    positions = np.sort(np.concatenate([domain.taken_positions for domain in domains.values()]))
    partial = output.with_name(output.name + ".partial")
    with io_errors(output, "write"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        rows.save_subset(positions, partial)
        # The rename is the commit, so everything under the name has to be durable before it.
        sync_tree(partial)
        write_manifest(partial, manifest)
        # `select` has made sure that it is an empty folder.
        if output.exists():
            output.rmdir()
        partial.rename(output)
        sync_folder(output.parent)
