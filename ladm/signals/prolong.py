"""Segments of a row and a causal language model -> ProLong's long-dependency score (Chen et al. 2024).

A row, without BOS, is cut into N segments of 128 tokens, a short last one dropped, at most 256. For pairs j < i, with
PPL_i the perplexity of segment i alone and PPL_i|j with segment j in front:

    strength     DST_ij = (PPL_i - PPL_i|j) / PPL_i
    distance     DDI_ij = clip((i - j) / 255, 0, 1)
    specificity  DSP_i  = clip(1 - entropy(p_i) / ln(number of j), 0, 1),  p_i = softmax over j of PPL_i - PPL_i|j
    LDS = sum over pairs with DST > 0.1 of (DST + DDI) DSP_i

Imports no torch: the perplexities come from a function that is handed in.

Shape suffixes: N segments, l tokens of a segment, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SEGMENT_TOKENS = 128
MOST_SEGMENTS = 256
LEAST_STRENGTH = 0.1

Perplexities = Callable[[Ints], Floats]
"""(inputs, tokens) ids of equal length -> the perplexity of each input's last 127 tokens, those of its last segment."""


@dataclass(frozen=True, kw_only=True)
class LongDependency:
    """The score of one row, and what it was made from."""

    score: float
    """LDS, which grows with the number of pairs."""
    per_pair: float
    """LDS over the number of pairs: comparable between lengths."""
    pairs: int

    def columns(self) -> dict[str, float]:
        """As a run stores it."""
        return {"prolong": self.score, "prolong_per_pair": self.per_pair, "prolong_pairs": float(self.pairs)}


def segments(ids_T: Ints) -> Ints:
    """The segments of a row: (N, l). With fewer than two there is no pair, and the caller calls the row too short."""
    N = number_of_segments(len(ids_T))
    return ids_T[: N * SEGMENT_TOKENS].reshape(N, SEGMENT_TOKENS)


def choose_pairs(N: int, *, most: int | None, seed: int) -> Ints:
    """Pairs (j, i) with j < i, (P, 2) in order of i: all, or a seeded sample of `most` without replacement."""
    i_P, j_P = np.tril_indices(N, k=-1)
    pairs_P2 = np.stack([j_P, i_P], axis=1).astype(np.int64)
    if most is None or len(pairs_P2) <= most:
        return pairs_P2
    # Sorted, so that inputs of one segment i stand together, and the sums are added in one order whatever was drawn.
    chosen = np.random.default_rng(seed).choice(len(pairs_P2), size=most, replace=False)
    return pairs_P2[np.sort(chosen)]


def number_of_segments(T: int) -> int:
    """Segments of a row of T tokens."""
    return min(T // SEGMENT_TOKENS, MOST_SEGMENTS)


def number_of_pairs(T: int, *, most: int | None) -> int:
    """Pairs of segments that are scored of a row of T tokens: all, or at most `most`."""
    N = number_of_segments(T)
    pairs = N * (N - 1) // 2
    return pairs if most is None else min(pairs, most)


def forward_tokens(T: int, *, most: int | None) -> int:
    """Tokens that go through the model for a row of T tokens: what the score costs, a row's own pass is T.

    0 for fewer than two segments, which have no score.
    """
    pairs = number_of_pairs(T, most=most)
    return (number_of_segments(T) * SEGMENT_TOKENS + pairs * 2 * SEGMENT_TOKENS) if pairs else 0


def score_row(ids_T: Ints, perplexities: Perplexities, *, most_pairs: int | None, seed: int) -> LongDependency:
    """The long-dependency score of a row of at least two segments.

    The perplexity of a segment alone is computed once and shared by all its pairs.
    """
    ids_Nl = segments(ids_T)
    pairs_P2 = choose_pairs(len(ids_Nl), most=most_pairs, seed=seed)
    alone_N = perplexities(ids_Nl)
    given_P = perplexities(np.concatenate([ids_Nl[pairs_P2[:, 0]], ids_Nl[pairs_P2[:, 1]]], axis=1))
    return long_dependency(alone_N, pairs_P2, given_P)


def long_dependency(alone_N: Floats, pairs_P2: Ints, given_P: Floats) -> LongDependency:
    """LDS from perplexities: of segments alone (N,), and of segment i with j in front for pairs (j, i), (P,)."""
    j_P, i_P = pairs_P2.T
    gained_P = alone_N[i_P] - given_P
    strength_P = gained_P / alone_N[i_P]
    distance_P = np.clip((i_P - j_P) / (MOST_SEGMENTS - 1), 0.0, 1.0)
    specificity_N = np.zeros(len(alone_N))
    for i in np.unique(i_P):
        specificity_N[i] = _specificity(gained_P[i_P == i])
    # Weak pairs are dropped only here: the softmax of the specificity runs over all earlier segments.
    kept_P = strength_P > LEAST_STRENGTH
    total = float(((strength_P + distance_P) * specificity_N[i_P])[kept_P].sum())
    return LongDependency(score=total, per_pair=total / len(pairs_P2), pairs=len(pairs_P2))


def _specificity(gained: Floats) -> float:
    """How concentrated on few earlier segments the gain of one segment is: 0 evenly spread, 1 on a single one."""
    if len(gained) == 1:
        return 1.0
    # Perplexities differ by thousands; without the maximum subtracted the exponentials would overflow.
    p = np.exp(gained - gained.max())
    p /= p.sum()
    entropy = -(p[p > 0] * np.log(p[p > 0])).sum()
    return float(np.clip(1.0 - entropy / np.log(len(p)), 0.0, 1.0))
