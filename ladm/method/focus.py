"""A layer's q and k -> PFS, AFS and CDS: equations 2-5 of LADM (arXiv 2503.02502) in plain float32 torch.

This file is the oracle: written to be read beside the paper, and what every faster version is
tested against: `pfs.py` for equation 2, `cds.py` for the others.

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

import torch
from torch import Tensor

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
    afs_J = pfs_JN.new_zeros(pfs_JN.shape[:-1])
    for row, j in enumerate(grid.J):
        I_j = list(grid.I[row])
        pfs_I = pfs_JN[..., row, I_j]
        if ablation == "no-length":
            length_I = [1.0 for _ in I_j]
        elif grid.variant == "paper":
            length_I = [j - i for i in I_j]
        else:
            length_I = [(j - i) * grid.l / grid.T for i in I_j]
        sigma = 1.0 if ablation == "no-std" else pfs_I.std(dim=-1)
        afs_J[..., row] = sigma * (pfs_I * pfs_I.new_tensor(length_I)).sum(dim=-1)
    return afs_J


def contextual_dependency(afs_J: Tensor, grid: Grid, *, ablation: Ablation = "none") -> Tensor:
    """Equation 5, the Contextual Dependency Score: (..., J) -> (...).

    paper:    CDS = sum over j in J of (j / N) AFS(j)
    released: CDS = mean over j in J of (first token of j / T) AFS(j)

    `no-length` drops the weight of j. `grid.J` must not be empty: a document without a scored span has no score.
    """
    cds = afs_J.new_zeros(afs_J.shape[:-1])
    for row, j in enumerate(grid.J):
        if ablation == "no-length":
            length = 1.0
        elif grid.variant == "paper":
            length = j / grid.N
        else:
            length = grid.start(j) / grid.T
        cds = cds + length * afs_J[..., row]
    return cds if grid.variant == "paper" else cds / len(grid.J)


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

    0 where no attention falls on any used pair.
    """
    copied = total = pfs_JN.new_zeros(pfs_JN.shape[:-2])
    for row, I_j in enumerate(grid.I):
        copied = copied + copied_JN[..., row, list(I_j)].sum(dim=-1)
        total = total + pfs_JN[..., row, list(I_j)].sum(dim=-1)
    return torch.where(total == 0, 0.0, copied / total)


def near_share(pfs_JN: Tensor, grid: Grid) -> Tensor:
    """nu: the share of the used PFS that falls on the nearest quarter of the earlier spans, (..., J, N) -> (...).

    Those are the spans i with 4 (j - i) <= j. In a text with an order, attention falls with distance. It hardly does in
    shuffled text, lists and repetition, so their share is lower; pasted pieces end it early, so theirs is higher.
    0 where no attention falls on any used pair.
    """
    near = total = pfs_JN.new_zeros(pfs_JN.shape[:-2])
    for row, j in enumerate(grid.J):
        I_j = list(grid.I[row])
        near = near + pfs_JN[..., row, [i for i in I_j if 4 * (j - i) <= j]].sum(dim=-1)
        total = total + pfs_JN[..., row, I_j].sum(dim=-1)
    return torch.where(total == 0, 0.0, near / total)
