"""The rows of an arm -> the loss of a table of their bigrams: what learning nothing but adjacent pairs would give.

A check of the composition of every arm: an arm whose students are no better than this table says has taught them no
more than which tokens stand side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from files import OUTCOMES, Pack

Array = np.ndarray[Any, Any]

BIGRAM_PRIOR = 10.0
"""Weight of the pool's unigrams in a bigram table, in occurrences of the first token."""


def pool_unigram(pack: Pack) -> Array:
    """Share of every token in pool A, with one count added: (V,)."""
    V = int(max(pack.ids.max(), pack.held_out.max())) + 1
    ids = pack.ids[pack.candidates("A")].ravel()
    return (np.bincount(ids, minlength=V) + 1) / (ids.size + V)


def bigram_losses(pack: Pack, rows: list[int], unigram: Array) -> dict[str, float]:
    """Mean loss of the held-out tokens of each class."""
    if not rows:
        return {}
    V = len(unigram)
    ids = pack.ids[rows].astype(np.int64)
    pairs, counts = np.unique((ids[:, :-1] * V + ids[:, 1:]).ravel(), return_counts=True)
    firsts = np.bincount(ids[:, :-1].ravel(), minlength=V)
    found = {}
    for name, code in OUTCOMES.items():
        row, t = np.nonzero(pack.classes == code)
        before, after = (pack.held_out[row, t - back].astype(np.int64) for back in (1, 0))
        at = np.searchsorted(pairs, before * V + after).clip(max=len(pairs) - 1)
        seen = np.where(pairs[at] == before * V + after, counts[at], 0)
        probability = (seen + BIGRAM_PRIOR * unigram[after]) / (firsts[before] + BIGRAM_PRIOR)
        found[name] = round(float(-np.log(probability).mean()), 5) if len(row) else float("nan")
    return found
