"""Scores and guards -> which share of each kind a guarded selection takes from a pool with a few bad rows of each kind.

The pool is made by weights: every bad kind present is 5 % of it, the intact documents are the rest. The best quarter is
taken, or all that pass the guards where that is less. Bands are quantiles of the intact documents of half 0; the rows
are those of half 1, from other packages.

Shape suffixes: B rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from judged import Part

from ladm.calibration.contrast import INTACT, KINDS
from ladm.calibration.contrast_scores import CHOSEN_ON, JUDGED_ON
from ladm.calibration.estimates import Estimate, interval
from ladm.method.reduction import Floats

SHARE_OF_KIND, TAKEN = 0.05, 0.25
CEILING = 0.95
"""Of the score and of the copy share; text statistics are kept between 1 - CEILING and CEILING."""
GUARDING_STATISTICS = ("gzip_ratio", "unigram_entropy", "repeated_4grams", "repeated_13grams", "digits")
"""Those that the band of a profile has, so that `ladm select --within COLUMN:profile` guards by the same."""
DRAWS = 400


@dataclass(frozen=True, kw_only=True)
class Guards:
    """Which guards apply."""

    name: str
    ceiling: bool = False
    copy_share: bool = False
    text: bool = False
    signed_heads: bool = False
    """Their score has to be above 1 - CEILING of the intact documents."""


LEVELS = (
    Guards(name="none"),
    Guards(name="ceiling", ceiling=True),
    Guards(name="ceiling, copy share", ceiling=True, copy_share=True),
    Guards(name="text statistics", text=True),
    Guards(name="ceiling, copy share, text statistics", ceiling=True, copy_share=True, text=True),
    Guards(
        name="ceiling, copy share, text statistics, signed heads",
        ceiling=True,
        copy_share=True,
        text=True,
        signed_heads=True,
    ),
)


def passing(part: Part, values_B: Floats, guards: Guards, signed_B: Floats | None) -> np.ndarray:
    """The rows that pass the guards: (B,). `signed_B`: the score of the signed heads."""
    known = part.scores.mask(INTACT, CHOSEN_ON)
    passes_B = np.ones(len(values_B), dtype=bool)
    if guards.ceiling:
        passes_B &= values_B <= np.quantile(values_B[known], CEILING)
    if guards.copy_share:
        passes_B &= part.copy_share <= np.quantile(part.copy_share[known], CEILING)
    for name in GUARDING_STATISTICS if guards.text else ():
        of_row = part.statistic(name)
        low, high = np.quantile(of_row[known], (1 - CEILING, CEILING))
        passes_B &= (of_row >= low) & (of_row <= high)
    if guards.signed_heads and signed_B is not None:
        passes_B &= signed_B >= np.quantile(signed_B[known], 1 - CEILING)
    return passes_B


def taken_shares(
    part: Part, values_B: Floats, guards: Guards, *, signed_B: Floats | None = None, seed: int
) -> dict[str, Estimate]:
    """For each kind the share of its rows that is taken, with the interval by bootstrap over packages."""
    judged = part.scores.halves == JUDGED_ON
    kinds = part.scores.kinds[judged]
    passes, values = passing(part, values_B, guards, signed_B)[judged], values_B[judged]
    names, clusters = np.unique(part.scores.clusters[judged], return_inverse=True)
    draw = np.random.default_rng(seed)
    counts = draw.multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS).astype(float)
    whole = _shares(kinds, values, passes, np.ones(len(values)))
    draws = [_shares(kinds, values, passes, each[clusters]) for each in counts]
    return {kind: interval(share, np.array([each.get(kind, share) for each in draws])) for kind, share in whole.items()}


def _shares(kinds: np.ndarray, values: Floats, passes: np.ndarray, counts: Floats) -> dict[str, float]:
    """Taken share by kind where every row is there `counts` times."""
    present = [kind for kind in (INTACT, *KINDS) if counts[kinds == kind].sum() > 0]
    bad = [kind for kind in present if kind != INTACT]
    weight = np.zeros(len(values))
    for kind in present:
        mine = kinds == kind
        of_kind = 1 - SHARE_OF_KIND * len(bad) if kind == INTACT else SHARE_OF_KIND
        weight[mine] = of_kind * counts[mine] / counts[mine].sum()
    order = np.argsort(-values, kind="stable")
    order = order[passes[order]]
    # The row at the limit is taken in part, so that exactly a quarter is.
    before = np.cumsum(weight[order]) - weight[order]
    taken = np.zeros(len(values))
    taken[order] = np.clip(TAKEN - before, 0, weight[order])
    return {kind: float(taken[kinds == kind].sum() / weight[kinds == kind].sum()) for kind in present}
