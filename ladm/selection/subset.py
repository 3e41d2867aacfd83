"""Finished runs and the rows they scored -> a subset of those rows and its manifest. Imports no torch."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ladm.progress import Echo, silent
from ladm.selection.applying import apply_budget
from ladm.selection.budget import Domains, SmallPoolError
from ladm.selection.candidates import Candidates, find_candidates
from ladm.selection.domain_codes import read_domains
from ladm.selection.formats.content import AllRows
from ladm.selection.formats.destination import Destination, LocalFolder, destination
from ladm.selection.id_lists import IdList, match_checked, read_id_lists
from ladm.selection.limits import limit_rows
from ladm.selection.manifest import Manifest
from ladm.selection.manifest_content import counts_of, provenance_of, requested_of
from ladm.selection.profile_band import length_warnings
from ladm.selection.quota_weights import Quota, read_quota, spelled_weights
from ladm.selection.quotas import (
    domain_shares,
    domains_of_weight_0,
    emptied_domains_warning,
    requested_quota,
    unknown_domains_warning,
    unmet_weights_warning,
    unused_weights_warning,
)
from ladm.selection.ranking import rank_by_domain
from ladm.selection.ranking_warnings import (
    sink_ranking_warning,
    text_ranking_warning,
    unguarded_warning,
    unigrams_warning,
)
from ladm.selection.small_pool import with_causes
from ladm.selection.sources import SelectionSource, open_sources
from ladm.selection.windows import max_per_document
from ladm.selection.writing import require_same_subset, write_subset
from ladm.settings.selection import SelectSettings
from ladm.settings.spelling import spell_command
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
    # Before the work: ranking millions of documents takes minutes, and an occupied folder is known now.
    is_there = False
    if place is not None:
        place.require_free()
    elif not settings.dry_run:
        place, is_there = _place(settings)
    quota = read_quota(requested_quota(settings))
    lists = read_id_lists(settings) if lists is None else lists
    sources = open_sources(settings)
    most = max_per_document(settings.max_per_document, [source.rows for source in sources], ranking=settings.ranking)
    _echo_warnings(echo, unigrams_warning(settings, [source.run for source in sources]))
    with _work_folder(place) as work:
        chosen = _choose(sources, settings, lists, quota=quota, most=most, work=work, echo=echo)
        if place is not None and is_there:
            require_same_subset(place, sources, chosen.domains, chosen.manifest, push=settings.push, work=work)
        elif place is not None:
            write_subset(
                place, sources, chosen.domains, chosen.manifest, every=chosen.every if settings.keep_all else None,
                weights=chosen.weights if quota.has_weights else None, push=settings.push,
            )  # fmt: skip
    return chosen.manifest


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What is taken of each domain; its arrays are files in the work folder."""

    domains: Domains
    weights: dict[str, float]
    """Each domain's share of the budget, also of those without one."""
    manifest: Manifest
    every: AllRows
    """All documents with their values, taken or not."""


def _choose(
    sources: Sequence[SelectionSource],
    settings: SelectSettings,
    lists: list[IdList],
    *,
    quota: Quota,
    most: int | None,
    work: Path,
    echo: Echo,
) -> _Choice:
    """Rank the documents of the runs and fill the budget; nothing is written but files of the work folder.

    `most`: the rows of one document that may be chosen; None: all.
    """
    data = [source.rows for source in sources]
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
        unused_weights_warning(ranked, quota, codes.names, excluded=settings.exclude_domains),
        emptied_domains_warning(ranked, quota, [guard.dropped for guard in candidates.guards]),
    )
    # A domain without a share (a weight of 0) is named in the manifest, and not part of the pool.
    domains = {name: domain for name, domain in ranked.items() if shares[name]}
    shares_of_pool = {name: shares[name] for name in domains}
    try:
        budget = apply_budget(domains, shares_of_pool, settings, are_float32=candidates.are_float32)
    except SmallPoolError as error:
        without_share = {name: domain for name, domain in ranked.items() if name not in domains}
        raise with_causes(error, settings.by, sources, limited, without_share=without_share) from None
    _echo_warnings(echo, unmet_weights_warning(domains, shares_of_pool, settings))
    manifest = Manifest(
        percent=budget.percent,
        budget_tokens=budget.tokens,
        budget_documents=budget.documents,
        domains_left_out=[name for name in ranked if name not in domains],
        max_per_document=most,
        beyond_max_per_document=limited.beyond,
        repeating_windows=limited.repeating,
        max_per=limited.caps,
        **counts_of(domains),
        **requested_of(settings, quota),
        **provenance_of(settings, sources, candidates),
    )
    return _Choice(
        domains=domains,
        weights={name: float(share) for name, share in shares.items()},
        manifest=manifest,
        every=AllRows(rows_N=candidates.rows_N, values_N=candidates.values_N, domains=codes),
    )


def _warn_about_ranking(
    settings: SelectSettings, sources: Sequence[SelectionSource], candidates: Candidates, echo: Echo
) -> None:
    """Warn where what documents are ranked by, or a profile, does not fit them."""
    first, runs = sources[0].run, [source.run for source in sources]
    _echo_warnings(echo, *(warn(settings, first) for warn in (
        unguarded_warning, sink_ranking_warning, text_ranking_warning,
    )))  # fmt: skip
    _echo_warnings(echo, *length_warnings(settings, runs, candidates.tokens_N))


def _echo_warnings(echo: Echo, *lines: str | None) -> None:
    for line in lines:
        if line is not None:
            echo(f"warning   {line}")


def _place(settings: SelectSettings) -> tuple[Destination, bool]:
    """Where to write, and whether a subset of the same command is there. Raises LadmError for anything else there."""
    if settings.overwrite:
        folder = LocalFolder(Path(settings.output), replaces=True)
        return folder, folder.require_free()
    place = destination(settings.output)
    # Stopped between the commit and its last line, a command finds its own subset when it is given again. From an
    # address nothing can be uploaded to the Hub.
    is_repeatable = settings.push is None or "://" not in settings.output
    return place, place.require_free(unless=spell_command("select", settings) if is_repeatable else None)


def _work_folder(place: Destination | None) -> contextlib.AbstractContextManager[Path]:
    """A folder for the ranking, removed at the end; `place` is None for a dry run."""
    return temporary_folder() if place is None else place.work_folder()
