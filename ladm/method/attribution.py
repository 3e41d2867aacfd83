"""PFS of the layers or heads that make a score -> what each pair of spans adds to it: where a score comes from.

A score is a weighted sum of CDS, a CDS a weighted sum over the scored spans j, an AFS one over the earlier
spans i. So a score is a sum over pairs, of which each has its part:

    score = sum over p, j, i of  w_p c_j sigma_pj PFS_p(i, j) d(i, j)

Shape suffixes: P layers or heads that make the score, H query heads, G key/value heads, J scored spans,
N spans, T tokens, D head size, l tokens of a span.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ladm.errors import LadmError
from ladm.method.cds import aggregated_focus, contextual_dependency, distance_JN, used_pairs_JN
from ladm.method.grid import Ablation, Grid
from ladm.method.reduction import Floats, Reduction, reduce_cds


def require_parts(reduction: Reduction) -> None:
    """Raise LadmError for a signed sum of logarithms, which is no weighted sum of CDS."""
    if reduction.how == "signed":
        raise LadmError(
            "the score is a signed sum of logarithms, which cannot be divided among pairs of spans; make a run that "
            "can be inspected: ladm rescore RUN --score robust -o RUN2"
        )


def column_weights(cds_P: Floats, reduction: Reduction) -> Floats:
    """The w_P for which sum of w_p CDS_p is the score of `reduce_cds`: (P,) -> (P,).

    For a median that is the middle column, or half of each of the two in the middle; in a geometric mean
    every column has the share of its weight.

    Raises LadmError as `require_parts` does.
    """
    require_parts(reduction)
    P = len(cds_P)
    if reduction.how == "median":
        w_P = np.zeros(P)
        middle = np.argsort(cds_P, kind="stable")[(P - 1) // 2 : P // 2 + 1]
        w_P[middle] = 1 / len(middle)
        return w_P
    w_P = np.array(reduction.weights or (1.0,) * P)
    w_P /= w_P.sum()
    if reduction.how == "geometric":
        counted_P = w_P != 0
        if not cds_P[counted_P].all():
            return np.zeros(P)
        score = reduce_cds(cds_P[None], "geometric", reduction.weights)[0]
        w_P[counted_P] *= score / cds_P[counted_P]
    return w_P


def pair_parts(pfs_PJN: Tensor, grid: Grid, *, ablation: Ablation) -> Tensor:
    """What each pair adds to each CDS, equations 3-5: (P, J, N) -> (P, J, N); the sum over J and N is CDS_p."""
    c_J = contextual_dependency(torch.eye(len(grid.J), dtype=pfs_PJN.dtype), grid, ablation=ablation)
    used_PJN = pfs_PJN.where(used_pairs_JN(grid), 0.0) * distance_JN(grid, pfs_PJN, ablation=ablation)
    whole_PJ1 = used_PJN.sum(dim=-1, keepdim=True)
    afs_PJ1 = aggregated_focus(pfs_PJN, grid, ablation=ablation).unsqueeze(-1)
    return torch.where(whole_PJ1 > 0, used_PJN / whole_PJ1 * afs_PJ1, 0.0) * c_J.unsqueeze(-1)


def strongest_pairs(part_JN: Tensor, most: int) -> Iterator[tuple[int, int]]:
    """The pair with the largest part, as row of J and span i; then the next that shares neither with those before."""
    left_JN = part_JN.clone()
    for _ in range(most):
        row, i = divmod(int(left_JN.argmax()), left_JN.shape[1])
        if not left_JN[row, i] > 0:
            return
        yield row, i
        left_JN[row], left_JN[:, i] = 0.0, 0.0


def token_focus(q_HTD: Tensor, k_GTD: Tensor, *, scaling: float, grid: Grid, j: int, i: int) -> Tensor:
    """What each token of span j pays to each of span i: (H, l, l), whose sum over tokens is PFS(i, j) of a head."""
    R = q_HTD.shape[0] // k_GTD.shape[0]
    rows = grid.tokens(j)
    last = rows.start if grid.variant == "released" else rows.stop
    key = torch.arange(last, device=q_HTD.device)
    later_lT = key > torch.arange(rows.start, rows.stop, device=q_HTD.device).unsqueeze(1)
    found = []
    # One key head at a time: the logits of all of them together would be gigabytes.
    for g, k_TD in enumerate(k_GTD[:, :last]):
        q_RlD = q_HTD[g * R : (g + 1) * R, rows].float() * scaling
        logits_RlT = (q_RlD @ k_TD.float().mT).masked_fill_(later_lT, -torch.inf)
        denominators_Rl1 = logits_RlT.logsumexp(dim=-1, keepdim=True)
        found.append((logits_RlT[:, :, grid.tokens(i)] - denominators_Rl1).exp())
    return torch.cat(found)
