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

from ladm.errors import LadmError, count_of

BATCH_DOCUMENTS = 65_536
"""Documents looked at in one step, because the columns may be larger than memory."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Shares = Mapping[str, int | float | Fraction]
"""For each domain its part of the budget, in any unit: only the proportions count."""


class SmallPoolError(LadmError):
    """The pool is smaller than the budget."""


@dataclass(kw_only=True)
class DomainSelection:
    """The documents of a domain, best first, as columns (n,), and which of them are taken.

    Taken are the first `prefix`, then those at the places `extra`. `positions` are row numbers of the data set that
    was scored. At most one of the quotas is set: that of the unit in which the budget is counted.
    """

    positions: Ints
    num_tokens: Ints
    scores: Floats
    quota_tokens: int | None = None
    quota_documents: int | None = None
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
    def taken_places(self) -> Ints:
        """The places of the taken documents, in the order in which they were taken."""
        return np.concatenate([np.arange(self.prefix), np.array(self.extra, dtype=np.int64)])

    @property
    def taken_positions(self) -> Ints:
        """Row numbers in the data set, in the order in which they were taken."""
        return self.positions[self.taken_places]

    @property
    def lowest_score_taken(self) -> float | None:
        # Not that of the last one, because a sample is not in the order of the scores.
        lowest = [float(self.scores[: self.prefix].min())] if self.prefix else []
        return min([*lowest, *(float(self.scores[place]) for place in self.extra)], default=None)

    def take_first(self, count: int) -> None:
        """Change `prefix` to `count`, up or down."""
        first, last = sorted((self.prefix, count))
        # Only the difference is summed: the percent rule calls this up to 100 times on columns larger than memory.
        between = int(self.num_tokens[first:last].sum(dtype=np.int64))
        self.taken_tokens += between if count > self.prefix else -between
        self.prefix = count

    def next_fitting(self, start: int, most_tokens: int) -> int:
        """The place of the best document from `start` on with at most `most_tokens`; n when there is none."""
        # The next one usually fits. The window doubles so that a long search costs few steps and a short one little.
        width = 16
        while start < len(self):
            fit = np.flatnonzero(self.num_tokens[start : start + width] <= most_tokens)
            if len(fit):
                return start + int(fit[0])
            start, width = start + width, min(2 * width, BATCH_DOCUMENTS)
        return len(self)


Domains = dict[str, DomainSelection]


def taken_rows(domains: Domains) -> Ints:
    """The numbers of the taken rows over all runs, ascending."""
    return np.sort(np.concatenate([domain.taken_positions for domain in domains.values()]))


def select_exact(domains: Domains, *, budget_tokens: int, shares: Shares) -> None:
    """Fill the budget without exceeding it: first each domain's quota, then what still fits.

    1. quota = budget x share, rounded by largest remainder; a domain takes its best documents in
       order and stops at the first that does not fit its quota.
    2. While any remaining document fits the remaining budget: of the domains that have such a document, the one with
       the largest quota minus taken gets its best; ties by domain name.

    Raises LadmError when the pool has fewer tokens than the budget; see `take_everything`.
    """
    pool = sum(domain.pool_tokens for domain in domains.values())
    if pool < budget_tokens:
        raise _small_pool(pool, budget_tokens)
    for name, quota in round_quotas(budget_tokens, shares).items():
        domains[name].quota_tokens = quota
        _take_quota(domains[name], quota)
    _fill(domains, budget_tokens - sum(domain.taken_tokens for domain in domains.values()))


def take_everything(domains: Domains, *, budget_tokens: int, shares: Shares) -> None:
    """Take the whole pool, for one smaller than the budget. Quotas are set as in `select_exact`, for the manifest."""
    for name, quota in round_quotas(budget_tokens, shares).items():
        domains[name].quota_tokens = quota
        domains[name].take_first(len(domains[name]))


def round_quotas(total: int, shares: Shares) -> dict[str, int]:
    """Whole numbers in proportion to `shares` that sum to `total`: largest remainder, ties by name.

    Of 10 tokens in equal shares, a, b and c get 3 each; the last one goes to the largest remainder, 1/3 in all three,
    so by name to a: 4, 3, 3.
    """
    # Fractions, because total x share easily has more digits than a float, and then quotas would not sum to total.
    whole = sum(Fraction(share) for share in shares.values())
    exact = {name: total * Fraction(share) / whole for name, share in shares.items()}
    quotas = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    for name in by_remainder[: total - sum(quotas.values())]:
        quotas[name] += 1
    return quotas


def documents_of_top(percent: float, documents: int) -> int:
    """The number of documents in the best `percent` of `documents`, rounded down, but never to nothing."""
    # Through the text, because 0.3 as a float is a little less than 3/10. Of 50 documents the best 1 % is one.
    return max(1, int(Fraction(str(percent)) / 100 * documents))


def _take_quota(domain: DomainSelection, quota: int) -> None:
    """Step 1 of `select_exact`."""
    tokens, count = 0, len(domain)
    for start in range(0, len(domain), BATCH_DOCUMENTS):
        # Tokens up to and including each document of the batch; they rise, so a binary search finds the first too many.
        upto = tokens + np.cumsum(domain.num_tokens[start : start + BATCH_DOCUMENTS], dtype=np.int64)
        fitting = int(np.searchsorted(upto, quota, side="right"))
        if fitting < len(upto):
            count = start + fitting
            break
        tokens = int(upto[-1])
    domain.take_first(count)


def _fill(domains: Domains, left: int) -> None:
    """Step 2 of `select_exact`, with `left` tokens of the budget."""
    # `left` only falls, so a document that does not fit now never will. Each domain is therefore read once from front
    # to back, and one without a fitting document leaves the heap for good.
    next_places = {name: domain.prefix for name, domain in domains.items()}
    # Taken minus quota, because heapq pops the smallest and the domain furthest behind comes first.
    heap = [((domain.taken_tokens - (domain.quota_tokens or 0)), name) for name, domain in domains.items()]
    heapq.heapify(heap)
    while heap:
        surplus, name = heapq.heappop(heap)
        domain = domains[name]
        place = domain.next_fitting(next_places[name], left)
        next_places[name] = place + 1
        if place == len(domain):
            continue
        tokens = int(domain.num_tokens[place])
        domain.extra.append(place)
        domain.taken_tokens += tokens
        left -= tokens
        heapq.heappush(heap, (surplus + tokens, name))


def select_percent(domains: Domains, *, budget_tokens: int, allow_small_pool: bool) -> int:
    """The rule of the published code: the smallest whole percentage that exceeds the budget; returns it.

    Every domain gives its best floor(p n / 100) documents. The result exceeds the budget by up to about one percent
    of the pool, and by more where domains are small: of two documents, 99 % is one and 100 % both.
    Raises LadmError when even 100 % falls short, unless `allow_small_pool`.
    """
    for percent in range(1, 101):
        for domain in domains.values():
            domain.take_first(percent * len(domain) // 100)
        tokens = sum(domain.taken_tokens for domain in domains.values())
        if tokens > budget_tokens:
            return percent
    if tokens < budget_tokens and not allow_small_pool:
        raise _small_pool(tokens, budget_tokens)
    return 100


def select_documents(domains: Domains, *, budget_documents: int, shares: Shares, allow_small_pool: bool) -> None:
    """`select_exact` with a budget in documents: each domain's quota, then what is left to those that have more.

    Raises LadmError when there are fewer documents than the budget, unless `allow_small_pool`.
    """
    pool = sum(map(len, domains.values()))
    if pool < budget_documents and not allow_small_pool:
        raise SmallPoolError(
            f"the pool has {count_of(pool, 'document')}, fewer than the budget of {budget_documents:,}; give a smaller "
            "--documents, or take all of it with --allow-small-pool"
        )
    for name, quota in round_quotas(budget_documents, shares).items():
        domains[name].quota_documents = quota
        domains[name].take_first(min(quota, len(domains[name])))
    left = min(budget_documents, pool) - sum(domain.prefix for domain in domains.values())
    # As in `_fill`: the domain furthest below its quota comes first, ties by name. Those with documents left have
    # taken their quota, so that they take turns.
    heap = [(0, name) for name, domain in domains.items() if domain.prefix < len(domain)]
    heapq.heapify(heap)
    while left:
        surplus, name = heapq.heappop(heap)
        domains[name].take_first(domains[name].prefix + 1)
        left -= 1
        if domains[name].prefix < len(domains[name]):
            heapq.heappush(heap, (surplus + 1, name))


def take_above(domains: Domains, *, least: float) -> None:
    """Take every document whose value is at least `least`. The domains are ranked by value."""
    for domain in domains.values():
        # Ascending for the binary search; a view, because the column may be larger than memory.
        ascending = domain.scores[::-1]
        domain.take_first(len(domain) - int(np.searchsorted(ascending, least, side="left")))


def _small_pool(pool_tokens: int, budget_tokens: int) -> SmallPoolError:
    return SmallPoolError(
        f"the pool has {pool_tokens:,} tokens, fewer than the budget of {budget_tokens:,}; give a smaller --tokens, or "
        "take all of it with --allow-small-pool"
    )
