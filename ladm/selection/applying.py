"""Ranked domains and the settings of a selection -> the documents taken, by whichever budget was given. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from ladm.errors import LadmError
from ladm.runs.columns.by_name import stored_limit
from ladm.selection.budget import (
    Domains,
    Shares,
    documents_of_top,
    select_documents,
    select_exact,
    select_percent,
    take_above,
    take_everything,
)
from ladm.settings.selection import SelectSettings


@dataclass(frozen=True, kw_only=True)
class AppliedBudget:
    """The budget that was applied, and how."""

    tokens: int | None = None
    documents: int | None = None
    percent: int | None = None
    """Of every domain, under the percent rule."""


def apply_budget(domains: Domains, shares: Shares, settings: SelectSettings, *, are_float32: bool) -> AppliedBudget:
    """Take documents of `domains`; `are_float32` as in `Candidates`.

    Raises LadmError for a pool that is too small, and where nothing would be taken.
    """
    if settings.min_score is not None:
        take_above(domains, least=stored_limit(settings.min_score) if are_float32 else settings.min_score)
        if not _has_taken(domains):
            raise LadmError(f"no document has at least --min-score {settings.min_score:g} of {settings.by}")
        return AppliedBudget()
    if settings.tokens is not None:
        return _apply_tokens(domains, shares, settings, tokens=settings.tokens)
    if settings.documents is not None:
        budget = settings.documents
    else:
        assert settings.top is not None, "one budget is always given"
        budget = documents_of_top(settings.top, sum(map(len, domains.values())))
    select_documents(domains, budget_documents=budget, shares=shares, allow_small_pool=settings.allow_small_pool)
    return AppliedBudget(documents=budget)


def _apply_tokens(domains: Domains, shares: Shares, settings: SelectSettings, *, tokens: int | str) -> AppliedBudget:
    pool = sum(domain.pool_tokens for domain in domains.values())
    # A share of what can be selected, after the guards: a share of unwanted documents would mean nothing.
    share = settings.token_share
    budget = int(tokens) if share is None else int(share * pool)
    percent = None
    if settings.rule == "percent":
        percent = select_percent(domains, budget_tokens=budget, allow_small_pool=settings.allow_small_pool)
    else:
        rule = take_everything if settings.allow_small_pool and pool < budget else select_exact
        rule(domains, budget_tokens=budget, shares=shares)
    if not _has_taken(domains):
        shortest = min(int(domain.num_tokens.min()) for domain in domains.values())
        given = f"{budget:,}" if share is None else tokens
        raise LadmError(f"no document fits --tokens {given}: the shortest has {shortest:,} tokens")
    return AppliedBudget(tokens=budget, percent=percent)


def _has_taken(domains: Domains) -> bool:
    return any(domain.taken_documents for domain in domains.values())
