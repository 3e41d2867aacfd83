"""Numbers -> their ranks, and how far two rankings agree. Imports no torch.

Shape suffix: N documents.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
LEAST_DOCUMENTS = 3
"""A correlation of two documents is always 1 or -1."""


def average_ranks(values_N: Floats) -> Floats:
    """The rank of each value, 1 for the lowest; equal values share the mean of their ranks, and NaN has NaN.

    For 5, 7, NaN, 5 it is 1.5, 3, NaN, 1.5.
    """
    ranks_N = np.full(len(values_N), np.nan)
    places = np.flatnonzero(~np.isnan(values_N))
    order = places[np.argsort(values_N[places], kind="stable")]
    if not len(order):
        return ranks_N
    ordered = values_N[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    stops = np.r_[starts[1:], len(ordered)]
    # Of the places 3, 4 and 5 of three equal values the mean is 4: half of the first plus the last.
    ranks_N[order] = np.repeat((starts + 1 + stops) / 2, stops - starts)
    return ranks_N


def spearman(a_N: Floats, b_N: Floats) -> float:
    """Spearman's rank correlation over the documents that have both values; NaN where there is none to compute."""
    both_N = ~(np.isnan(a_N) | np.isnan(b_N))
    return _correlation(average_ranks(a_N[both_N]), average_ranks(b_N[both_N]))


def _correlation(a_N: Floats, b_N: Floats) -> float:
    """Pearson's correlation; NaN for fewer than three documents, or where one of the two is constant."""
    if len(a_N) < LEAST_DOCUMENTS:
        return float("nan")
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    scale = float(np.sqrt((a_N @ a_N) * (b_N @ b_N)))
    return float(a_N @ b_N) / scale if scale > 0 else float("nan")


def rank_shares(values_N: Floats) -> Floats:
    """The ranks over the number of values: 1 for the highest. NaN has NaN and does not count."""
    count = int(np.count_nonzero(~np.isnan(values_N)))
    return average_ranks(values_N) / max(count, 1)
