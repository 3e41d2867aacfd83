"""What was requested of `ladm select`, what it took and from which runs -> the contents of its manifest. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ladm.runs.columns.added_signals import how_computed
from ladm.runs.columns.joined_files import joined_files
from ladm.runs.results import summarise
from ladm.selection.budget import Domains
from ladm.selection.candidates import Candidates
from ladm.selection.guarding import profile_of_guards
from ladm.selection.manifest import DomainManifest
from ladm.selection.quota_weights import Quota
from ladm.selection.sources import SelectionSource
from ladm.settings.selection import SelectSettings
from ladm.settings.spelling import spell_command
from ladm.settings.subset import resolve_format
from ladm.storage.digests import file_xxh3


def requested_of(settings: SelectSettings, quota: Quota) -> dict[str, Any]:
    """The settings that a manifest repeats, with the weights that were read."""
    return {
        "rule": settings.rule,
        "quota": quota.text if settings.rule == "exact" and settings.min_score is None else None,
        "domain_key": settings.domain_key,
        "domain": settings.domain,
        "min_score": settings.min_score,
        "quota_weights": quota.in_file,
    }


def counts_of(domains: Domains) -> dict[str, Any]:
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


def provenance_of(
    settings: SelectSettings, sources: Sequence[SelectionSource], candidates: Candidates
) -> dict[str, Any]:
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
    profile = profile_of_guards(settings, sources[0].run)
    sample = {"temperature": settings.draw_temperature, "seed": settings.draw_seed} if settings.sample else None
    return {
        "by": settings.ranking.text,
        "guards": candidates.guards,
        "profile": None if profile is None else {"file": profile, "xxh3_128": file_xxh3(Path(profile))},
        "sample": sample,
        "without_score": dict(sorted(errors.items())),
        "without_value": candidates.without_value,
        "copies": candidates.copies,
        "excluded_domains": candidates.inclusion.domains,
        "id_lists": candidates.inclusion.id_lists,
        "outside_only_ids": candidates.inclusion.outside_only_ids,
        "unscored_rows": sum(source.rows.total - source.run.num_results for source in sources),
        "run": first,
        "other_runs": others,
        "joined_runs": sources[0].columns.for_manifest(used),
        "joined_columns": _digests(sources),
        "joined_files": joined_files(sources[0].columns.files),
        "format": resolve_format(settings.format, push=settings.push),
        # Without --overwrite: the subset is the same, whatever was there before.
        "command": spell_command("select", replace(settings, overwrite=False)),
    }


def _digests(sources: Sequence[SelectionSource]) -> dict[str, list[str]]:
    """Of each column that is not of the runs the digests of its numbers, run by run."""
    names = sources[0].columns.digests
    return {name: [source.columns.digests[name] for source in sources] for name in names}
