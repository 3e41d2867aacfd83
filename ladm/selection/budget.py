"""Scores by domain and a token budget -> the documents to keep: equation 1 of LADM. Imports no torch.

Documents come ranked inside their domain, best first, and every domain keeps its share.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError

CHUNK = 65_536
"""Documents looked at in one step, so that the columns may be longer than memory."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(kw_only=True)
class DomainChoice:
    """The documents of a domain, best first, as columns (n,), and what was taken of them.

    The first `prefix` are taken, and those at the places `extra`, in that order. `positions` are rows
    of the data set that was scored. `quota` is in tokens, and None under the percent rule.
    """

    positions: Ints
    num_tokens: Ints
    scores: Floats
    quota: int | None = None
    prefix: int = 0
    extra: list[int] = field(default_factory=list)
    taken_tokens: int = 0
    pool_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.pool_tokens = int(self.num_tokens.sum(dtype=np.int64))

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def taken_documents(self) -> int:
        return self.prefix + len(self.extra)

    @property
    def taken_positions(self) -> Ints:
        """Rows of the data set, in the order in which they were taken."""
        return np.concatenate([self.positions[: self.prefix], self.positions[np.array(self.extra, dtype=np.int64)]])

    @property
    def lowest_score_taken(self) -> float | None:
        last = max([self.prefix - 1, *self.extra[-1:]])
        return float(self.scores[last]) if last >= 0 else None

    def take_first(self, count: int) -> None:
        """Have the best `count` taken, be they more or fewer than now."""
        first, last = sorted((self.prefix, count))
        between = int(self.num_tokens[first:last].sum(dtype=np.int64))
        self.taken_tokens += between if count > self.prefix else -between
        self.prefix = count

    def next_fitting(self, start: int, most_tokens: int) -> int:
        """The place of the best document from `start` on that has at most so many tokens; n when there is none."""
        width = 16
        while start < len(self):
            fit = np.flatnonzero(self.num_tokens[start : start + width] <= most_tokens)
            if len(fit):
                return start + int(fit[0])
            start, width = start + width, min(2 * width, CHUNK)
        return len(self)


Choice = dict[str, DomainChoice]


def select_exact(domains: Choice, *, budget_tokens: int, shares: Mapping[str, int | float | Fraction]) -> None:
    """Fill the budget: first each domain's quota, then what still fits, never over.

    1. quota = budget x share, rounded by largest remainder; a domain takes its best documents in
       order and stops at the first that does not fit its quota.
    2. While any document left fits the budget, the domain with the largest quota minus taken among
       those that have one gets its best one that fits; ties by domain name.

    Raises LadmError when the pool has fewer tokens than the budget; see `take_everything`.
    """
    pool = sum(domain.pool_tokens for domain in domains.values())
    if pool < budget_tokens:
        raise LadmError(
            f"the pool has {pool:,} tokens, fewer than the {budget_tokens:,} asked for; ask for fewer, or take all "
            "of it with --allow-small-pool"
        )
    for name, quota in round_quotas(budget_tokens, shares).items():
        domains[name].quota = quota
        _take_quota(domains[name], quota)
    _fill(domains, budget_tokens - sum(domain.taken_tokens for domain in domains.values()))


def take_everything(domains: Choice, *, budget_tokens: int, shares: Mapping[str, int | float | Fraction]) -> None:
    """The whole pool, for one that is smaller than the budget; quotas are recorded all the same."""
    for name, quota in round_quotas(budget_tokens, shares).items():
        domains[name].quota = quota
        domains[name].take_first(len(domains[name]))


def round_quotas(total: int, shares: Mapping[str, int | float | Fraction]) -> dict[str, int]:
    """Whole numbers in proportion to `shares` that sum to `total`: largest remainder, ties by name."""
    whole = sum(Fraction(share) for share in shares.values())
    exact = {name: total * Fraction(share) / whole for name, share in shares.items()}
    quotas = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    for name in by_remainder[: total - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def _take_quota(domain: DomainChoice, quota: int) -> None:
    """Phase 1 of `select_exact`."""
    tokens, count = 0, len(domain)
    for start in range(0, len(domain), CHUNK):
        upto = tokens + np.cumsum(domain.num_tokens[start : start + CHUNK], dtype=np.int64)
        fitting = int(np.searchsorted(upto, quota, side="right"))
        if fitting < len(upto):
            count = start + fitting
            break
        tokens = int(upto[-1])
    domain.take_first(count)


def _fill(domains: Choice, left: int) -> None:
    """Phase 2 of `select_exact`. A document that does not fit now never will: `left` only falls."""
    heads = {name: domain.prefix for name, domain in domains.items()}
    heap = [((domain.taken_tokens - (domain.quota or 0)), name) for name, domain in domains.items()]
    heapq.heapify(heap)
    while heap:
        behind, name = heapq.heappop(heap)
        domain = domains[name]
        place = domain.next_fitting(heads[name], left)
        heads[name] = place + 1
        if place == len(domain):
            continue
        tokens = int(domain.num_tokens[place])
        domain.extra.append(place)
        domain.taken_tokens += tokens
        left -= tokens
        heapq.heappush(heap, (behind + tokens, name))


def select_percent(domains: Choice, *, budget_tokens: int, allow_small_pool: bool) -> int:
    """The released rule: the smallest whole percentage that exceeds the budget; returns it.

    Every domain gives its best floor(p n / 100) documents. The result overshoots, by up to one
    percent of the pool. Raises LadmError when even 100 % falls short, unless that is allowed.
    """
    for percent in range(1, 101):
        for domain in domains.values():
            domain.take_first(percent * len(domain) // 100)
        tokens = sum(domain.taken_tokens for domain in domains.values())
        if tokens > budget_tokens:
            return percent
    if tokens < budget_tokens and not allow_small_pool:
        raise LadmError(
            f"the pool has {tokens:,} tokens, fewer than the {budget_tokens:,} asked for; ask for fewer, or take all "
            "of it with --allow-small-pool"
        )
    return 100
