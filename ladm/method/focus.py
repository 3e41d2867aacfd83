"""A layer's q and k -> PFS, AFS and CDS: equations 2-5 of LADM (arXiv 2503.02502) in plain float32 torch.

This file is the oracle: written to be read beside the paper, and what every faster version is
tested against.

    equation 2        PFS(i, j)   `pairwise_focus`
    equations 3, 4    AFS(j)      `aggregated_focus`
    equation 5        CDS         `contextual_dependency`, one number for a layer
    not in the paper              `value_weights`, `copy_keys`, `copy_share` and `near_share`

Equation 1, which documents are kept, is in `selection/budget.py`; the mean over layers in `reduction.py`.

A document of T tokens is cut into N = T // l spans of l tokens. `j` is a scored span, `i` an earlier one; `grid.py`
says which. Where the code that the authors released computes something else than the paper prints, both variants are
here: `released` and `paper`.

Shape suffixes: H query heads, G key/value heads, R = H / G, T tokens, D head size, J scored spans, N spans,
l query rows of one span, K keys. `...` is any number of leading dimensions. T is `grid.T`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ladm.method.constants import constant
from ladm.method.grid import Ablation, Grid


def pairwise_focus(
    q_HTD: Tensor,
    k_GTD: Tensor,
    *,
    scaling: float,
    grid: Grid,
    key_weight_GT: Tensor | None = None,
    counted_TT: Tensor | None = None,
) -> Tensor:
    """Equation 2, the Pairwise Focus Score, as a (J, N) float32 matrix.

    PFS(i, j) = mean over heads, sum over the l query rows of span j, sum over the l keys of span i,
    of softmax(scaling * q_row . K). K are all tokens up to the query row itself (paper), or all
    tokens before span j (released); a front fragment is among them in both. Query head h reads
    key head h // (H / G). Every i < j is filled in, the rest is 0; `Grid.I` says which are used.

    Args:
        q_HTD: query states after the position embedding, any float dtype.
        k_GTD: key states after the position embedding.
        scaling: the layer's own factor on the logits.
        key_weight_GT: a factor on the attention to each key, such as `value_weights`; not in the paper.
        counted_TT: which (query, key) pairs are added up, such as `copy_keys`; None: all.
    """
    q_HTD = q_HTD.float()
    R = q_HTD.shape[0] // k_GTD.shape[0]
    k_HTD = k_GTD.float().repeat_interleave(R, dim=0)
    front = grid.T - grid.N * grid.l
    pfs_JN = q_HTD.new_zeros(len(grid.J), grid.N)
    for row, j in enumerate(grid.J):
        rows = grid.tokens(j)
        last = rows.start if grid.variant == "released" else rows.stop
        logits_HlK = scaling * (q_HTD[:, rows] @ k_HTD[:, :last].mT)
        if grid.variant == "paper":
            key = torch.arange(last, device=q_HTD.device)
            query = key[rows].unsqueeze(1)
            logits_HlK = logits_HlK.masked_fill(key > query, -torch.inf)
        weights_HlK = logits_HlK.softmax(dim=-1)
        if key_weight_GT is not None:
            weights_HlK = weights_HlK * key_weight_GT.repeat_interleave(R, dim=0)[:, None, :last]
        if counted_TT is not None:
            weights_HlK = weights_HlK * counted_TT[rows, :last]
        by_span = weights_HlK[:, :, front : rows.start].reshape(-1, grid.l, j, grid.l)
        pfs_JN[row, :j] = by_span.sum(dim=(1, 3)).mean(dim=0)
    return pfs_JN


def aggregated_focus(pfs_JN: Tensor, grid: Grid, *, ablation: Ablation = "none") -> Tensor:
    """Equations 3 and 4, the Aggregated Focus Score: (..., J, N) -> (..., J).

    sigma_j = unbiased std of { PFS(i, j) : i in I_j }
    AFS(j)  = sigma_j * sum over i in I_j of PFS(i, j) * (j - i)

    Released: the length weight is (j - i) l / T. `no-std` drops sigma, `no-length` the weight. A
    span with a single earlier span has no sigma: NaN, unless `grid` leaves it out, as it does by default.
    """
    used = used_pairs_JN(grid, pfs_JN.device)
    used_JN = pfs_JN.where(used, 0.0)
    afs_J = (used_JN * distance_JN(grid, used_JN, ablation=ablation)).sum(dim=-1)
    if ablation == "no-std":
        return afs_J
    pairs_J1 = used.sum(dim=-1, keepdim=True)
    mean_J1 = used_JN.sum(dim=-1, keepdim=True) / pairs_J1
    squares_J = (used_JN - mean_J1).where(used, 0.0).square().sum(dim=-1)
    sigma_J = (squares_J / (pairs_J1.squeeze(-1) - 1)).sqrt()
    return sigma_J * afs_J


def contextual_dependency(afs_J: Tensor, grid: Grid, *, ablation: Ablation = "none") -> Tensor:
    """Equation 5, the Contextual Dependency Score: (..., J) -> (...).

    paper:    CDS = sum over j in J of (j / N) AFS(j)
    released: CDS = mean over j in J of (first token of j / T) AFS(j)

    `no-length` drops the weight of j. `grid.J` must not be empty: a document without a scored span has no score.
    """
    weighted_J = afs_J * _position_J(grid, afs_J.dtype, afs_J.device, ablation)
    return weighted_J.sum(dim=-1) if grid.variant == "paper" else weighted_J.mean(dim=-1)


@lru_cache(maxsize=256)
def used_pairs_JN(grid: Grid, device: torch.device | str = "cpu") -> Tensor:
    """Boolean (J, N): is PFS(i, j) used?"""
    used = np.zeros((len(grid.J), grid.N), dtype=bool)
    for row, spans in enumerate(grid.I):
        used[row, list(spans)] = True
    return constant(used, dtype=torch.bool, device=device)


def distance_JN(grid: Grid, like: Tensor, *, ablation: Ablation) -> Tensor:
    """The length weight of every pair, (J, N) of the type of `like`: j - i (paper), (j - i) l / T (released), or 1."""
    return _distance_JN(grid, like.dtype, like.device, ablation)


@lru_cache(maxsize=256)
def _distance_JN(grid: Grid, dtype: torch.dtype, device: torch.device, ablation: Ablation) -> Tensor:
    j_J1 = constant(grid.J, dtype=dtype, device=device).unsqueeze(1)
    spans_JN = j_J1 - torch.arange(grid.N, device=device, dtype=dtype)
    if ablation == "no-length":
        return torch.ones_like(spans_JN)
    return spans_JN * (grid.l / grid.T) if grid.variant == "released" else spans_JN


@lru_cache(maxsize=256)
def _position_J(grid: Grid, dtype: torch.dtype, device: torch.device, ablation: Ablation) -> Tensor:
    """The weight of every scored span: how late in the document it is."""
    if ablation == "no-length":
        position_J = [1.0] * len(grid.J)
    elif grid.variant == "paper":
        position_J = [j / grid.N for j in grid.J]
    else:
        position_J = [grid.start(j) / grid.T for j in grid.J]
    return constant(position_J, dtype=dtype, device=device)


def value_weights(v_GTD: Tensor) -> Tensor:
    """w_s = |v_s| / median over s of |v_s|: (..., G, T, D) -> (..., G, T) float32.

    Of an even number of tokens the median is the lower of the two in the middle.

    Attention to a sink hardly changes the output, because its value vector is small. Weighted by w, attention counts by
    how much it changes.
    """
    norm_GT: Tensor = v_GTD.float().norm(dim=-1)
    median_G1: Tensor = norm_GT.median(dim=-1, keepdim=True).values
    # A head with a median of 0 hardly changes the output: its attention counts as 0, and does not make the row NaN.
    # Not `> 0`, which is false for NaN too: a NaN must stay one, so that the row becomes an error.
    return torch.where(median_G1 == 0, 0.0, norm_GT / median_G1)


def copy_keys(ids_T: Tensor) -> Tensor:
    """Is key s a copy key of query t: the same token, or the one that followed it? (T, T) bool, [t, s].

    x_s = x_t, or x_(s-1) = x_t: the keys that an induction head attends to when a row repeats itself.
    """
    same_TT = ids_T.unsqueeze(1) == ids_T.unsqueeze(0)
    followed_TT = torch.zeros_like(same_TT)
    followed_TT[:, 1:] = same_TT[:, :-1]
    return same_TT | followed_TT


def copy_share(pfs_JN: Tensor, copied_JN: Tensor, grid: Grid) -> Tensor:
    """kappa: the share of the used PFS that falls on copy keys, from both as (..., J, N) -> (...).

    NaN where no attention falls on any used pair.
    """
    used = used_pairs_JN(grid, pfs_JN.device)
    return copied_JN.where(used, 0.0).sum(dim=(-2, -1)) / pfs_JN.where(used, 0.0).sum(dim=(-2, -1))


def near_share(pfs_JN: Tensor, grid: Grid) -> Tensor:
    """nu: the share of the used PFS that falls on the nearest quarter of the earlier spans, (..., J, N) -> (...).

    Those are the spans i with 4 (j - i) <= j. In a text with an order, attention falls with distance. It hardly does in
    shuffled text, lists and repetition, so their share is lower; pasted pieces end it early, so theirs is higher.
    0 where no attention falls on any used pair.
    """
    used_JN = pfs_JN.where(used_pairs_JN(grid, pfs_JN.device), 0.0)
    near = used_JN.where(_near_pairs_JN(grid, pfs_JN.device), 0.0).sum(dim=(-2, -1))
    total = used_JN.sum(dim=(-2, -1))
    # Not NaN, which would cost the row its score.
    return torch.where(total == 0, 0.0, near / total)


@lru_cache(maxsize=256)
def _near_pairs_JN(grid: Grid, device: torch.device | str) -> Tensor:
    """Boolean (J, N): is i among the nearest quarter of the spans before j?"""
    j_J1 = np.array(grid.J).reshape(-1, 1)
    return constant(4 * (j_J1 - np.arange(grid.N)) <= j_J1, dtype=torch.bool, device=device)
