"""Finished runs and the rows they scored -> a subset of those rows and its manifest. Imports no torch."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ladm.errors import count_of
from ladm.progress import Echo, silent
from ladm.runs.added_signals import how_computed
from ladm.runs.joined_files import joined_files
from ladm.runs.results import summarise
from ladm.selection.applying import apply_budget
from ladm.selection.budget import Domains, SmallPoolError
from ladm.selection.candidates import Candidates, find_candidates
from ladm.selection.domain_codes import read_domains
from ladm.selection.formats.content import AllRows
from ladm.selection.formats.destination import Destination, destination
from ladm.selection.id_lists import IdList, match_checked, read_id_lists
from ladm.selection.limits import limit_rows
from ladm.selection.manifest import DomainManifest, Manifest
from ladm.selection.profile_band import length_warnings
from ladm.selection.quotas import (
    domain_shares,
    domains_of_weight_0,
    has_weights,
    spelled_weights,
    unknown_domains_warning,
    unmet_weights_warning,
    unused_weights_warning,
)
from ladm.selection.ranking import rank_by_domain
from ladm.selection.ranking_warnings import sink_ranking_warning, unguarded_warning, unigrams_warning
from ladm.selection.sources import SelectionSource, open_sources
from ladm.selection.windows import max_per_document
from ladm.selection.writing import require_same_subset, write_subset
from ladm.settings.selection import SelectSettings
from ladm.settings.spelling import spell_command
from ladm.settings.subset import resolve_format
from ladm.storage.temporary import temporary_folder


def select(
    settings: SelectSettings,
    *,
    place: Destination | None = None,
    lists: list[IdList] | None = None,
    echo: Echo = silent,
) -> Manifest:
    """Choose documents and, unless it is a dry run, write them with their manifest; returns the manifest.

    `place`: where to write, in place of what `settings.output` names. `lists`: the lists of ids of the settings, where
    they are read already. `echo` is called with warnings. A subset that the same command has made of the same data is
    left as it is.
    Raises LadmError for an unfinished run, for rows that are not the run's, and for a pool smaller
    than the budget or without a document that fits it; StorageError for a damaged run.
    """
    settings = replace(settings, quota=spelled_weights(settings.quota))
    quota = _quota(settings)
    # Before the work: ranking millions of documents takes minutes, and an occupied folder is known now.
    is_there = False
    if place is not None:
        place.require_free()
    elif not settings.dry_run:
        place, is_there = _place(settings)
    lists = read_id_lists(settings) if lists is None else lists
    sources = open_sources(settings)
    data = [source.rows for source in sources]
    most = max_per_document(settings.max_per_document, data, ranking=settings.ranking)
    _echo_warnings(echo, unigrams_warning(settings, [source.run for source in sources]))
    with _work_folder(place) as work:
        codes = read_domains(data, domain_key=settings.domain_key, domain=settings.domain, work=work)
        if settings.domain is not None and not codes.has_own:
            echo(f"warning   no row has {settings.domain_key}, so all are of the domain {settings.domain}")
        candidates = find_candidates(sources, settings, codes, ids=match_checked(lists, data, echo=echo), work=work)
        _warn_about_ranking(settings, sources, candidates, echo)
        no_share = domains_of_weight_0(codes.names, quota)
        limited = limit_rows(candidates, sources, codes, most=most, caps=settings.caps, no_share=no_share)
        ranked = rank_by_domain(limited.candidates, codes, work=work)
        shares = domain_shares(ranked, quota, excluded=settings.exclude_domains)
        _echo_warnings(
            echo,
            unknown_domains_warning(quota, codes.names, excluded=settings.exclude_domains),
            unused_weights_warning(ranked, shares, of_rows=codes.names),
        )
        # A domain without a share (a weight of 0) is named in the manifest, and not part of the pool.
        domains = {name: domain for name, domain in ranked.items() if shares[name]}
        weights = {name: float(share) for name, share in shares.items()} if has_weights(settings.quota) else None
        shares = {name: shares[name] for name in domains}
        try:
            budget = apply_budget(domains, shares, settings, are_float32=candidates.are_float32)
        except SmallPoolError as error:
            raise SmallPoolError(f"{error}{_copies_text(candidates.copies)}{limited.text}") from None
        _echo_warnings(echo, unmet_weights_warning(domains, shares, settings))
        manifest = Manifest(
            rule=settings.rule,
            quota=quota if settings.rule == "exact" and settings.min_score is None else None,
            percent=budget.percent,
            domain_key=settings.domain_key,
            domain=settings.domain,
            budget_tokens=budget.tokens,
            budget_documents=budget.documents,
            min_score=settings.min_score,
            domains_left_out=[name for name in ranked if name not in domains],
            max_per_document=most,
            beyond_max_per_document=limited.beyond,
            repeating_windows=limited.repeating,
            max_per=limited.caps,
            **_counts(domains),
            **_provenance(settings, sources, candidates),
        )
        if place is not None and is_there:
            require_same_subset(place, sources, domains, manifest, push=settings.push, work=work)
        elif place is not None:
            every = AllRows(rows_N=candidates.rows_N, values_N=candidates.values_N, domains=codes)
            write_subset(
                place, sources, domains, manifest, every=every if settings.keep_all else None, weights=weights,
                push=settings.push,
            )  # fmt: skip
    return manifest


def _warn_about_ranking(
    settings: SelectSettings, sources: Sequence[SelectionSource], candidates: Candidates, echo: Echo
) -> None:
    """Warn where what documents are ranked by, or a profile, does not fit them."""
    first, runs = sources[0].run, [source.run for source in sources]
    _echo_warnings(echo, unguarded_warning(settings, first), sink_ranking_warning(settings, first))
    _echo_warnings(echo, *length_warnings(settings, runs, candidates.tokens_N))


def _echo_warnings(echo: Echo, *lines: str | None) -> None:
    for line in lines:
        if line is not None:
            echo(f"warning   {line}")


def _copies_text(copies: int | None) -> str:
    """Why the pool has fewer rows than the runs, behind another text; nothing without copies."""
    return f"; {count_of(copies, 'row')} left out as copies of another row" if copies else ""


def _digests(sources: Sequence[SelectionSource]) -> dict[str, list[str]]:
    """Of each column that is not of the runs the digests of its numbers, run by run."""
    names = sources[0].columns.digests
    return {name: [source.columns.digests[name] for source in sources] for name in names}


def _place(settings: SelectSettings) -> tuple[Destination, bool]:
    """Where to write, and whether a subset of the same command is there. Raises LadmError for anything else there."""
    place = destination(settings.output)
    # Stopped between the commit and its last line, a command finds its own subset when it is given again. From an
    # address nothing can be uploaded to the Hub.
    is_repeatable = settings.push is None or "://" not in settings.output
    return place, place.require_free(unless=spell_command("select", settings) if is_repeatable else None)


def _quota(settings: SelectSettings) -> str:
    """How the budget is shared: as it is counted, unless --quota says otherwise."""
    return settings.quota or ("tokens" if settings.tokens is not None else "documents")


def _work_folder(place: Destination | None) -> contextlib.AbstractContextManager[Path]:
    """A folder for the ranking, removed at the end; `place` is None for a dry run."""
    return temporary_folder() if place is None else place.work_folder()


def _counts(domains: Domains) -> dict[str, Any]:
    """The numbers of a manifest, in all and by domain."""
    return {
        "taken_tokens": sum(domain.taken_tokens for domain in domains.values()),
        "taken_documents": sum(domain.taken_documents for domain in domains.values()),
        "pool_tokens": sum(domain.pool_tokens for domain in domains.values()),
        "pool_documents": sum(len(domain) for domain in domains.values()),
        "domains": {
            name: DomainManifest(
                pool_documents=len(domain),
                pool_tokens=domain.pool_tokens,
                quota_tokens=domain.quota_tokens,
                quota_documents=domain.quota_documents,
                taken_documents=domain.taken_documents,
                taken_tokens=domain.taken_tokens,
                lowest_score_taken=domain.lowest_score_taken,
            )
            for name, domain in domains.items()
        },
    }


def _provenance(settings: SelectSettings, sources: Sequence[SelectionSource], candidates: Candidates) -> dict[str, Any]:
    """What a manifest repeats of the command, the runs, and why documents could not be selected."""
    errors: Counter[str] = Counter()
    for source in sources:
        errors += summarise(source.run).errors
    used = settings.column_names
    first, *others = (
        # With the signals that were added and used here, beside the run's own.
        source.run.identity.for_manifest() | {"signals": source.run.identity.signals | how_computed(source.run, used)}
        for source in sources
    )
    sample = {"temperature": settings.draw_temperature, "seed": settings.draw_seed} if settings.sample else None
    return {
        "by": settings.ranking.text,
        "guards": candidates.guards,
        "sample": sample,
        "without_score": dict(sorted(errors.items())),
        "without_value": candidates.without_value,
        "copies": candidates.copies,
        "excluded_domains": candidates.inclusion.domains,
        "id_lists": candidates.inclusion.id_lists,
        "outside_only_ids": candidates.inclusion.outside_only_ids,
        "unscored_rows": sum(source.rows.total - len(source.rows) for source in sources),
        "run": first,
        "other_runs": others,
        "joined_runs": sources[0].columns.for_manifest(used),
        "joined_columns": _digests(sources),
        "joined_files": joined_files(sources[0].columns.files),
        "format": resolve_format(settings.format, push=settings.push),
        "command": spell_command("select", settings),
    }
