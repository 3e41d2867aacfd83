"""`--exclude-domain` and the domains that there are -> which rows stay, or the refusal of a misspelt name. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from ladm.corpus.rows.domains import all_domains
from ladm.corpus.rows.reading import Rows
from ladm.errors import UsageError
from ladm.settings.common import NO_DOMAINS, ONE_DOMAIN
from ladm.settings.fields import nearest

MOST_NAMED = 20


def require_domains_exist(excluded: Iterable[str], domains: Collection[str | None], *, where: str) -> None:
    """Raise UsageError for an excluded domain that is not one of `domains`, with the nearest name or those there are.

    `where`: what the domains are of, for the message.
    """
    known = sorted(domain for domain in domains if domain is not None)
    for domain in excluded:
        if domain not in known:
            more = ", .." if len(known) > MOST_NAMED else ""
            there = f"; the domains are {', '.join(known[:MOST_NAMED])}{more}" if known else ""
            hint = nearest(domain, known) or there
            raise UsageError(f"--exclude-domain {domain}: {where} has no row of that domain{hint}")


def domains_of(rows: Rows, domain_key: str, *, domain: str | None = None) -> list[str | None]:
    """The domain of every row; that of rows without one is `domain`. Raises LadmError where there is no such column."""
    if domain_key == NO_DOMAINS:
        return [ONE_DOMAIN] * len(rows)
    every = all_domains(rows, domain_key, is_optional=domain is not None)
    return [domain if found is None else found for found in every]


def included_rows(
    rows: Rows, domain_key: str, excluded: Sequence[str], *, domain: str | None = None
) -> npt.NDArray[np.bool_]:
    """For each row, whether it is outside of the excluded domains. Raises UsageError for one that no row has.

    `domain`: that of rows without one.
    """
    domains = domains_of(rows, domain_key, domain=domain)
    require_domains_exist(excluded, set(domains), where=rows.name)
    return np.array([domain not in excluded for domain in domains], dtype=np.bool_)
