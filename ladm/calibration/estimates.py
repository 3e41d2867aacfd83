"""Scores of intact and of pasted documents -> AUC with a 95 % interval, by bootstrap over documents. Imports no torch.

Shape suffixes: A intact documents, B pasted rows of one kind, D documents, R bootstrap draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.method.reduction import Floats

Documents = npt.NDArray[np.int64]
"""Numbers of documents."""
BOOTSTRAP_DRAWS = 2000


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


def auc(intact_A: Floats, pasted_B: Floats) -> float:
    """The share of pairs in which the intact document scores higher; a tie counts half."""
    return float(wins(intact_A, pasted_B).mean())


def wins(intact_A: Floats, pasted_B: Floats) -> Floats:
    """1 where an intact document scores higher than a pasted row, 1/2 for a tie, 0 where it scores lower: (A, B)."""
    above: Floats = (intact_A[:, None] > pasted_B).astype(np.float64)
    ties: Floats = (intact_A[:, None] == pasted_B) / 2
    return above + ties


@dataclass(frozen=True, kw_only=True)
class Wins:
    """Every intact document against every row of one kind, and the documents that both come from.

    `wins_AB` is a result of `wins`, or the difference of two such matrices; its mean is an AUC, or a gain in AUC.
    """

    wins_AB: Floats
    intact_A: Documents
    rows_B: Documents

    def __sub__(self, other: Wins) -> Wins:
        """The difference of two scores on the same rows."""
        return Wins(wins_AB=self.wins_AB - other.wins_AB, intact_A=self.intact_A, rows_B=self.rows_B)


def estimate(kinds: list[Wins], *, seed: int) -> Estimate:
    """The mean over kinds of the mean win, with a percentile bootstrap over documents.

    Each draw takes a document with all its rows: the intact one, and of every kind the row that begins with it.
    Given the differences of two scores' wins, the result is the paired interval of the difference of their AUC.

    The bootstrap does not know that the later pieces of a row also occur in other rows, so where a single strong
    piece decides a row, an interval may be some tenths too narrow.
    """
    draw = np.random.default_rng(seed)
    # Numbered from 0 to D - 1, because one half has only some of the documents.
    documents, places = np.unique(np.concatenate([kinds[0].intact_A, *(k.rows_B for k in kinds)]), return_inverse=True)
    D = len(documents)
    # How often each document is in each draw. Weighting by these counts gives the same mean as repeating rows would,
    # and turns all draws of a kind into one matrix product.
    counts_RD = draw.multinomial(D, [1 / D] * D, size=BOOTSTRAP_DRAWS).astype(np.float64)
    ends = np.cumsum([len(kinds[0].intact_A), *(len(k.rows_B) for k in kinds)])
    intact_A, *rows = np.split(places, ends[:-1])
    counts_RA = counts_RD[:, intact_A]
    means_R = np.zeros(BOOTSTRAP_DRAWS)
    for kind, rows_B in zip(kinds, rows, strict=True):
        counts_RB = counts_RD[:, rows_B]
        pairs_R = counts_RA.sum(axis=1) * counts_RB.sum(axis=1)
        # A draw may miss every row of a kind where there are few; it then counts as 0 rather than as 0 / 0.
        means_R += ((counts_RA @ kind.wins_AB) * counts_RB).sum(axis=1) / np.maximum(pairs_R, 1) / len(kinds)
    low, high = np.quantile(means_R, (0.025, 0.975))
    value = float(np.mean([kind.wins_AB.mean() for kind in kinds]))
    return Estimate(value, float(low), float(high))


def estimate_auc(kinds: list[Wins], *, seed: int) -> Estimate:
    """The AUC averaged over kinds, with its interval.

    Where every pair is won, all draws are equal and the bootstrap interval has no width; the bound is then that of
    the rule of three, 1 - 3 / n for n documents. Likewise where every pair is lost.
    """
    found = estimate(kinds, seed=seed)
    margin = min(1.0, 3 / min(min(kind.wins_AB.shape) for kind in kinds))
    # Not == 1: the products of counts and wins are rounded.
    if found.low > 1.0 - 1e-9:
        return Estimate(1.0, 1.0 - margin, 1.0)
    return Estimate(0.0, 0.0, margin) if found.high < 1e-9 else found
