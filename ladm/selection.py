"""Scores by domain and a token budget -> the documents to keep: equation 1 of LADM. Imports no torch.

Documents are ranked inside their domain, best first, ties by id, and every domain keeps its share.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from ladm.errors import LadmError, UsageError

SortKey = tuple[float, tuple[int, int, str], tuple[int, int, str], int]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A document with a score. `position` is its row in the data set that was scored."""

    position: int
    index: int | str
    chunked_index: int | str | None
    score: float
    num_tokens: int
    domain: str

    def rank_key(self) -> SortKey:
        """Best first; ties by index, chunked index, position."""
        return (-self.score, _id_key(self.index), _id_key(self.chunked_index), self.position)


def _id_key(label: int | str | None) -> tuple[int, int, str]:
    if label is None:
        return (0, 0, "")
    return (1, label, "") if isinstance(label, int) else (2, 0, label)


@dataclass(kw_only=True)
class DomainChoice:
    """What a domain has and what was taken of it, best first.

    `quota` is in tokens, and None under the percent rule, which has none.
    """

    ranked: list[Candidate]
    quota: int | None = None
    taken: list[Candidate] = field(default_factory=list)
    prefix: int = 0
    """How many of `taken` came from the quota, and so are the first of `ranked`."""

    @property
    def pool_tokens(self) -> int:
        return sum(candidate.num_tokens for candidate in self.ranked)

    @property
    def taken_tokens(self) -> int:
        return sum(candidate.num_tokens for candidate in self.taken)


Choice = dict[str, DomainChoice]


def rank_domains(candidates: list[Candidate]) -> Choice:
    """Group by domain, in the order of their names, each best first."""
    domains: Choice = {}
    for candidate in sorted(candidates, key=Candidate.rank_key):
        domains.setdefault(candidate.domain, DomainChoice(ranked=[])).ranked.append(candidate)
    return dict(sorted(domains.items()))


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
        domains[name].taken = list(domains[name].ranked)


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
    tokens = 0
    for candidate in domain.ranked:
        tokens += candidate.num_tokens
        if tokens > quota:
            break
        domain.taken.append(candidate)
    domain.prefix = len(domain.taken)


def _fill(domains: Choice, left: int) -> None:
    """Phase 2 of `select_exact`. A document that does not fit now never will: `left` only falls."""
    heads = {name: domain.prefix for name, domain in domains.items()}
    heap = [((domain.taken_tokens - (domain.quota or 0)), name) for name, domain in domains.items()]
    heapq.heapify(heap)
    while heap:
        behind, name = heapq.heappop(heap)
        ranked = domains[name].ranked
        while heads[name] < len(ranked) and ranked[heads[name]].num_tokens > left:
            heads[name] += 1
        if heads[name] == len(ranked):
            continue
        candidate = ranked[heads[name]]
        heads[name] += 1
        domains[name].taken.append(candidate)
        left -= candidate.num_tokens
        heapq.heappush(heap, (behind + candidate.num_tokens, name))


def select_percent(domains: Choice, *, budget_tokens: int, allow_small_pool: bool) -> int:
    """The released rule: the smallest whole percentage that exceeds the budget; returns it.

    Every domain gives its best floor(p n / 100) documents. The result overshoots, by up to one
    percent of the pool. Raises LadmError when even 100 % falls short, unless that is allowed.
    """
    for percent in range(1, 101):
        for domain in domains.values():
            domain.prefix = percent * len(domain.ranked) // 100
            domain.taken = domain.ranked[: domain.prefix]
        tokens = sum(domain.taken_tokens for domain in domains.values())
        if tokens > budget_tokens:
            return percent
    if tokens < budget_tokens and not allow_small_pool:
        raise LadmError(
            f"the pool has {tokens:,} tokens, fewer than the {budget_tokens:,} asked for; ask for fewer, or take all "
            "of it with --allow-small-pool"
        )
    return 100


_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def parse_tokens(text: str) -> int:
    """`1B` -> 1,000,000,000; also 500M, 250k, 1.5T and plain numbers with _ or , between digits.

    Raises UsageError for anything else, for zero, and for a part of a token.
    """
    bare = text.strip().lower().replace("_", "").replace(",", "")
    suffix = bare[-1:] if bare[-1:].isalpha() else ""
    try:
        tokens = Fraction(bare.removesuffix(suffix)) * _SUFFIXES[suffix]
    except (ValueError, KeyError, ZeroDivisionError):
        raise UsageError(f"--tokens {text!r} is not a number of tokens such as 1B, 500M, 250k or 1073741824") from None
    if tokens <= 0 or tokens.denominator != 1:
        raise UsageError(f"--tokens {text!r} must be a whole number of tokens, at least 1")
    return int(tokens)
