"""What `--quota` says -> the proportion in which the domains share the budget. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction

from ladm.errors import UsageError
from ladm.selection.budget import Domains, Shares
from ladm.selection.quota_weights import DEFAULT, DOCUMENTS, TOKENS, Quota, has_weights
from ladm.settings.selection import SelectSettings

MOST_NAMES = 3
"""How many domains a warning names."""
MOST_LISTED = 10
"""How many domains without a weight, or with a useless one, a message names."""


def requested_quota(settings: SelectSettings) -> str:
    """The text of `--quota`, which without the flag is the unit that the budget is counted in."""
    return settings.quota or (TOKENS if settings.tokens is not None else DOCUMENTS)


def domain_shares(domains: Domains, quota: Quota, *, excluded: Collection[str]) -> Shares:
    """A share for every domain, in any unit; only their proportion counts.

    That of the pool, in tokens or documents, or the weights. A weight of an `excluded` domain counts for nothing;
    there may be weights of domains that have no document in the pool.
    Raises UsageError for weights that lack a domain of the pool.
    """
    if quota.text == TOKENS:
        return {name: domain.pool_tokens for name, domain in domains.items()}
    if quota.text == DOCUMENTS:
        return {name: len(domain) for name, domain in domains.items()}
    return weights_of(domains, quota, excluded=excluded)


def weights_of(domains: Collection[str], quota: Quota, *, excluded: Collection[str]) -> Mapping[str, Fraction]:
    """The weights of these domains, and of others that `quota` names. Raises UsageError for a domain without one."""
    weights = quota.own_weights(excluded=excluded)
    if (default := quota.default) is not None:
        weights |= {name: default for name in domains if name not in weights}
    _require_domains(quota.text, weights, domains)
    return weights


def domains_of_weight_0(domains: Collection[str], quota: Quota) -> set[str]:
    """Which of the domains have the weight 0, of their own or by default."""
    return {name for name in domains if quota.weights.get(name, quota.default) == 0}


def _require_domains(quota: str, weights: Mapping[str, Fraction], domains: Collection[str]) -> None:
    if missing := [name for name in domains if name not in weights]:
        raise UsageError(
            f"--quota {quota} has no weight for {listed(missing)}; 0 leaves a domain out, and the name "
            f'"{DEFAULT}" sets the weight of all others'
        )
    if not any(weights.values()):
        raise UsageError(f"--quota {quota}: every weight is 0")
    if not any(weights[name] for name in domains):
        raise UsageError(f"--quota {quota}: the pool has documents of domains of weight 0 only: {listed(domains)}")


def listed(names: Collection[str], *, most: int = MOST_LISTED) -> str:
    """The names, of many the first `most` and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return f"{', '.join(list(names)[:most])}{more}"


def unknown_domains_warning(quota: Quota, of_rows: Collection[str], *, excluded: Collection[str]) -> str | None:
    """Which domains have a weight that no row is of, as where one file of weights serves several corpora; or None."""
    unknown = [name for name in quota.own_weights(excluded=excluded) if name not in of_rows]
    return f"--quota has weights of domains that no row has: {listed(unknown)}" if unknown else None


def unused_weights_warning(
    domains: Domains, quota: Quota, of_rows: Collection[str], *, excluded: Collection[str]
) -> str | None:
    """Which domains `of_rows` have a weight and no document among `domains`, those of the pool; None where all have.

    `quota` and `excluded` are as for `domain_shares`.
    """
    if not quota.has_weights:
        return None
    weights, default = quota.own_weights(excluded=excluded), quota.default
    empty = (name for name in of_rows if name not in domains and name not in excluded)
    unused = [name for name in empty if weights.get(name, default)]
    if not unused:
        return None
    return (
        f"the weights of --quota are not met: no document can be selected of {listed(unused, most=MOST_NAMES)}, "
        "because none has a score, or all are left out, as by --within, a list of ids, --max-per or as copies; the "
        "budget goes to other domains"
    )


def emptied_domains_warning(domains: Domains, quota: Quota, dropped: Iterable[Collection[str]]) -> str | None:
    """Which domains had documents until the guards dropped all of them; None where every domain has some left.

    `domains` are those of the pool; `dropped`: for each guard, the domains of which it dropped documents. With weights
    `unused_weights_warning` names the domains.
    """
    emptied = sorted({name for names in dropped for name in names} - set(domains))
    if not emptied or quota.has_weights:
        return None
    return (
        f"--within drops every document of {listed(emptied, most=MOST_NAMES)}; the budget goes to other domains "
        "(docs/selection.md)"
    )


def unmet_weights_warning(domains: Domains, shares: Shares, settings: SelectSettings) -> str | None:
    """Which domains have less than their weight asks for, so that others take more, and the budget that fits them all.

    `domains` are those after the budget was applied, none of weight 0. None where the weights were met or not given.
    """
    if not has_weights(settings.quota):
        return None
    by_tokens = settings.documents is None
    pools = {name: domain.pool_tokens if by_tokens else len(domain) for name, domain in domains.items()}
    quotas = {name: domain.quota_tokens if by_tokens else domain.quota_documents for name, domain in domains.items()}
    missed = {name: quota for name, quota in quotas.items() if quota is not None and pools[name] < quota}
    short = [f"{name} ({pools[name]:,} of {quota:,})" for name, quota in missed.items()]
    if not short:
        return None
    whole = sum(Fraction(share) for share in shares.values())
    most = min(int(pools[name] * whole / Fraction(shares[name])) for name in domains)
    unit = "tokens" if by_tokens else "documents"
    return (
        f"the weights of --quota are not met, because domains have fewer {unit} than their quota: "
        f"{listed(short, most=MOST_NAMES)}; the rest of the budget went to other domains. "
        f"Up to --{unit} {most:,} no domain is short"
    )
