"""Scores of intact documents and of bad rows -> AUC with a 95 % interval, by bootstrap over clusters. Imports no torch.

A cluster is what is drawn together: a package with all its rows, or a document where packages are too few. Rows of one
package resemble each other, so intervals that treat them as independent are too narrow.

Shape suffixes: A intact documents, B bad rows of one kind, C clusters, K kinds, R bootstrap draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.method.reduction import Floats
from ladm.selection.ranks import spearman

Clusters = npt.NDArray[np.int64]
"""The number of the cluster of each row."""
BOOTSTRAP_DRAWS = 2000
COUNTS_AT_A_TIME = 1 << 22
"""Numbers of a block of draws: one for each cluster, row and draw."""


@dataclass(frozen=True)
class Estimate:
    """A number with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    def rounded(self) -> list[float]:
        """Value, lower and upper bound with four decimals, as a profile stores them."""
        return [round(number, 4) for number in (self.value, self.low, self.high)]


def auc(intact_A: Floats, bad_B: Floats) -> float:
    """The share of pairs in which the intact document scores higher; a tie counts half."""
    return float(wins(intact_A, bad_B).mean())


def wins(intact_A: Floats, bad_B: Floats) -> Floats:
    """1 where an intact document scores higher than a bad row, 1/2 for a tie, 0 where it scores lower: (A, B)."""
    above: Floats = (intact_A[:, None] > bad_B).astype(np.float64)
    ties: Floats = (intact_A[:, None] == bad_B) / 2
    return above + ties


@dataclass(frozen=True, kw_only=True)
class PairwiseWins:
    """Every intact document against every row of one kind, and the clusters that both come from.

    `wins_AB` is a result of `wins`, or the difference of two such matrices; its mean is an AUC, or a gain in AUC.
    """

    wins_AB: Floats
    intact_A: Clusters
    rows_B: Clusters

    def __sub__(self, other: PairwiseWins) -> PairwiseWins:
        """The difference of two scores on the same rows."""
        return PairwiseWins(wins_AB=self.wins_AB - other.wins_AB, intact_A=self.intact_A, rows_B=self.rows_B)


@dataclass(frozen=True, kw_only=True)
class BootstrapDraws:
    """The mean win of each kind: (K,) on the rows themselves, and (R, K) in every draw of the bootstrap."""

    value_K: Floats
    draws_RK: Floats
    num_clusters: int
    """Clusters of the intact documents or of the rows of a kind, whichever have the fewest; see `widen_zero_width`."""


def bootstrap(kinds: list[PairwiseWins], *, seed: int) -> BootstrapDraws:
    """Draw clusters with replacement; each draw takes a cluster with all its rows, intact and bad.

    A pasted row belongs to the cluster of its first piece. The bootstrap does not know that its later pieces occur in
    other rows too, so where a single strong piece decides a row, an interval may be some tenths too narrow.
    """
    draw = np.random.default_rng(seed)
    # Numbered from 0 to C - 1, because one half has only some of the clusters.
    names, places = np.unique(np.concatenate([kinds[0].intact_A, *(k.rows_B for k in kinds)]), return_inverse=True)
    C = len(names)
    # How often each cluster is in each draw. Weighting by these counts gives the same mean as repeating rows would,
    # and turns all draws of a kind into one matrix product.
    counts_RC = draw.multinomial(C, [1 / C] * C, size=BOOTSTRAP_DRAWS).astype(np.float64)
    ends = np.cumsum([len(kinds[0].intact_A), *(len(k.rows_B) for k in kinds)])
    intact_A, *rows = np.split(places, ends[:-1])
    counts_RA = counts_RC[:, intact_A]
    value_K = np.array([kind.wins_AB.mean() for kind in kinds])
    draws_RK = np.empty((BOOTSTRAP_DRAWS, len(kinds)))
    for k, (kind, rows_B) in enumerate(zip(kinds, rows, strict=True)):
        counts_RB = counts_RC[:, rows_B]
        pairs_R = counts_RA.sum(axis=1) * counts_RB.sum(axis=1)
        means_R = ((counts_RA @ kind.wins_AB) * counts_RB).sum(axis=1) / np.maximum(pairs_R, 1)
        # A draw may miss every row of a kind where there are few. It says nothing of the kind, so it counts as the
        # value itself; counted as 0 it would widen the interval for a reason that has nothing to do with the score.
        draws_RK[:, k] = np.where(pairs_R > 0, means_R, value_K[k])
    fewest = min(len(np.unique(each)) for each in (intact_A, *rows))
    return BootstrapDraws(value_K=value_K, draws_RK=draws_RK, num_clusters=fewest)


def interval(value: float, draws_R: Floats) -> Estimate:
    """A value with the percentile interval of its draws."""
    low, high = np.quantile(draws_R, (0.025, 0.975))
    return Estimate(value, float(low), float(high))


def estimate(kinds: list[PairwiseWins], *, seed: int) -> Estimate:
    """The mean over kinds of the mean win, with its interval.

    Given the differences of two scores' wins, the result is the paired interval of the difference of their AUC.
    """
    found = bootstrap(kinds, seed=seed)
    return interval(float(found.value_K.mean()), found.draws_RK.mean(axis=1))


def estimate_auc(kinds: list[PairwiseWins], *, seed: int) -> Estimate:
    """The AUC averaged over kinds, with its interval; see `widen_zero_width`."""
    found = bootstrap(kinds, seed=seed)
    return widen_zero_width(interval(float(found.value_K.mean()), found.draws_RK.mean(axis=1)), found.num_clusters)


def estimate_aucs(
    scores: list[tuple[Floats, Floats]], intact_A: Clusters, rows_B: Clusters, *, seed: int
) -> list[Estimate]:
    """As `estimate_auc` of one kind, to the last bit, for several scores (A,) and (B,) of the same rows.

    For any number of rows: memory grows with the rows, not with their pairs, and time with the rows times the draws.
    """
    draw = np.random.default_rng(seed)
    names, places = np.unique(np.concatenate([intact_A, rows_B]), return_inverse=True)
    A, B, C = len(intact_A), len(rows_B), len(names)
    ranked = [_RankedScore.of(intact, bad) for intact, bad in scores]
    one_each = np.ones((1, A), dtype=np.int64), np.ones((1, B), dtype=np.int64)
    values = [float(each.doubled_wins(*one_each)[0] / 2 / (A * B)) for each in ranked]
    draws = np.empty((len(scores), BOOTSTRAP_DRAWS))
    # Drawn one after the other whatever the block, so that its size changes no number.
    block = max(1, COUNTS_AT_A_TIME // (A + B))
    for start in range(0, BOOTSTRAP_DRAWS, block):
        size = min(block, BOOTSTRAP_DRAWS - start)
        counts_RC = draw.multinomial(C, np.full(C, 1 / C), size=size)
        counts_RA, counts_RB = counts_RC[:, places[:A]], counts_RC[:, places[A:]]
        pairs_R = counts_RA.sum(axis=1) * counts_RB.sum(axis=1)
        for k, each in enumerate(ranked):
            means_R = each.doubled_wins(counts_RA, counts_RB) / 2 / np.maximum(pairs_R, 1)
            # As in `bootstrap`: a draw without a row of the kind, or an intact one, says nothing.
            draws[k, start : start + size] = np.where(pairs_R > 0, means_R, values[k])
    fewest = min(len(np.unique(intact_A)), len(np.unique(rows_B)))
    return [widen_zero_width(interval(value, draws_R), fewest) for value, draws_R in zip(values, draws, strict=True)]


@dataclass(frozen=True, kw_only=True)
class _RankedScore:
    """The ranks of a score: for each intact document how many rows of the kind are lower, and how many not higher."""

    order_B: npt.NDArray[np.int64]
    lower_A: npt.NDArray[np.int64]
    not_higher_A: npt.NDArray[np.int64]

    @classmethod
    def of(cls, intact_A: Floats, bad_B: Floats) -> _RankedScore:
        order_B = np.argsort(bad_B, kind="stable")
        lower_A, not_higher_A = (np.searchsorted(bad_B[order_B], intact_A, side) for side in ("left", "right"))
        return cls(order_B=order_B, lower_A=lower_A, not_higher_A=not_higher_A)

    def doubled_wins(self, counts_RA: npt.NDArray[np.int64], counts_RB: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Twice the sum of `wins` over all pairs, each row weighted by its count: (R,)."""
        below_RB = np.zeros((len(counts_RB), len(self.order_B) + 1), dtype=np.int64)
        np.cumsum(counts_RB[:, self.order_B], axis=1, out=below_RB[:, 1:])
        # A lower row is in both sums and an equal one in the second alone: a win is 2, a tie 1.
        doubled_RA = below_RB[:, self.lower_A] + below_RB[:, self.not_higher_A]
        found: npt.NDArray[np.int64] = (doubled_RA * counts_RA).sum(axis=1)
        return found


def estimate_worst(kinds: list[PairwiseWins], *, seed: int) -> Estimate:
    """The AUC of the kind with the lowest one, with the interval of the lowest in each draw."""
    found = bootstrap(kinds, seed=seed)
    return widen_zero_width(interval(float(found.value_K.min()), found.draws_RK.min(axis=1)), found.num_clusters)


def estimate_worst_gain(ours: list[PairwiseWins], theirs: list[PairwiseWins], *, seed: int) -> Estimate:
    """How much higher the AUC of our worst kind is than that of theirs, paired: both from the same draws."""
    a, b = bootstrap(ours, seed=seed), bootstrap(theirs, seed=seed)
    return interval(float(a.value_K.min() - b.value_K.min()), a.draws_RK.min(axis=1) - b.draws_RK.min(axis=1))


def widen_zero_width(found: Estimate, num_clusters: int) -> Estimate:
    """Give an interval a width where it has none because every pair is won, or every pair lost; leave any other.

    The bound is that of the rule of three, 1 - 3 / n for n clusters: those of the side that has fewer. Rows of two
    packages say no more than two packages can, with however many documents they are compared.
    """
    margin = min(1.0, 3 / num_clusters)
    # Not == 1: the products of counts and wins are rounded.
    if found.low > 1.0 - 1e-9:
        return Estimate(1.0, 1.0 - margin, 1.0)
    return Estimate(0.0, 0.0, margin) if found.high < 1e-9 else found


def estimate_spearman(a_B: Floats, b_B: Floats, clusters_B: Clusters, *, seed: int) -> Estimate:
    """The rank correlation with its interval, by bootstrap over clusters; 0 where a score is constant."""
    draw = np.random.default_rng(seed)
    names, places = np.unique(clusters_B, return_inverse=True)
    members = [np.flatnonzero(places == c) for c in range(len(names))]
    draws = []
    for _ in range(BOOTSTRAP_DRAWS // 4):
        taken = np.concatenate([members[c] for c in draw.integers(0, len(names), len(names))])
        draws.append(spearman(a_B[taken], b_B[taken]))
    # A constant score ranks nothing, and one draw of it must not make the whole interval NaN.
    value, *draws = np.nan_to_num([spearman(a_B, b_B), *draws]).tolist()
    return interval(value, np.array(draws))
