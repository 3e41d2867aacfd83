"""Numbers -> their ranks. Imports no torch.

Shape suffix: N documents.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


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


def rank_shares(values_N: Floats) -> Floats:
    """The ranks over the number of values: 1 for the highest. NaN has NaN and does not count."""
    count = int(np.count_nonzero(~np.isnan(values_N)))
    return average_ranks(values_N) / max(count, 1)
