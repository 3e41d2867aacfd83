"""q, k and the log-sum-exp that attention already knows -> PFS, in a fraction of one Q K^T.

Held to `focus.pairwise_focus`. With the row's log-sum-exp the softmax needs no second look at all
keys, so only wanted (query span, key span) pairs are ever multiplied: 1 / (d_afs d_cds) of Q K^T.

Shape suffixes: B rows, H query heads, G key/value heads, R = H / G, T tokens, D head size,
J scored spans, N spans, I wanted earlier spans, C scored spans of one block, l tokens of a span.
K is H by head, or 1. `Z` stands for the B G pairs of row and key head taken together.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ladm.method.grid import Grid

BLOCK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}
LOW_MEMORY_ELEMENTS = 1 << 18
"""Logits at a time: usually, by device, and where memory is short; a scored span is never cut."""
SMALLEST_PREFIX_SHARE = {torch.float32: 0.1, torch.bfloat16: 1e-3, torch.float16: 1e-3}
"""Below it a row is summed directly: its error would be that of the log-sum-exp (1e-6) over its share."""


def pairwise_focus(
    q_BHTD: Tensor,
    k_BGTD: Tensor,
    lse_BHT: Tensor | None,
    *,
    scaling: float,
    grid: Grid,
    by_head: bool = False,
    low_memory: bool = False,
) -> Tensor:
    """Equation 2 in plain torch operations, arguments and result as of `pfs.pairwise_focus`."""
    B, H, T, D = q_BHTD.shape
    G = k_BGTD.shape[1]
    q_ZRTD = q_BHTD.reshape(B * G, H // G, T, D)
    k_ZTD = k_BGTD.reshape(B * G, T, D)
    lse_ZRT = None if lse_BHT is None else lse_BHT.reshape(B * G, H // G, T)
    pfs_BKJN = q_BHTD.new_zeros(B, H if by_head else 1, len(grid.J), grid.N, dtype=torch.float32)
    for rows in _rows_by_stride(grid):
        spans = grid.I[rows[-1]]
        k_ZIlD = _spans(k_ZTD, grid, spans).float()
        budget = LOW_MEMORY_ELEMENTS if low_memory else BLOCK_ELEMENTS[q_BHTD.device.type]
        for block in _blocks(rows, grid, heads=B * H, budget=budget):
            scored = [grid.J[row] for row in block]
            q_ZRClD = _spans(q_ZRTD, grid, scored).float() * scaling
            lse_ZRCl = None if lse_ZRT is None else _spans(lse_ZRT.unsqueeze(-1), grid, scored).squeeze(-1)
            lse_ZRCl = _denominators(q_ZRClD, k_ZTD, lse_ZRCl, scored, grid)
            wanted = spans[: len(grid.I[block[-1]])]
            focus_BHCI = _focus(q_ZRClD, k_ZIlD[:, : len(wanted)], lse_ZRCl).reshape(B, H, len(block), len(wanted))
            focus_BKCI = focus_BHCI if by_head else focus_BHCI.mean(dim=1, keepdim=True)
            for c, row in enumerate(block):
                earlier = grid.I[row]
                pfs_BKJN[:, :, row, list(earlier)] = focus_BKCI[:, :, c, : len(earlier)]
    return pfs_BKJN if by_head else pfs_BKJN.squeeze(1)


def _rows_by_stride(grid: Grid) -> list[list[int]]:
    """Rows of J grouped so that the earlier spans of every row of a group are among those of its last row.

    I_j runs in steps of d_afs, so two rows whose first spans leave the same remainder share their keys, and one dense
    product serves both. With d_afs 4 and d_cds 4 there is one group; with d_cds 3 there are four.
    """
    by_remainder: dict[int, list[int]] = {}
    for row, spans in enumerate(grid.I):
        by_remainder.setdefault(spans[0] % grid.d_afs, []).append(row)
    return list(by_remainder.values())


def _focus(q_ZRClD: Tensor, k_ZIlD: Tensor, lse_ZRCl: Tensor) -> Tensor:
    """Sum over query rows and keys of exp(q . k - lse): (Z, R, C, I)."""
    Z, R, C, l, D = q_ZRClD.shape
    I = k_ZIlD.shape[1]
    minus_lse = -lse_ZRCl.reshape(Z, R * C * l, 1)
    logits = torch.baddbmm(minus_lse, q_ZRClD.reshape(Z, R * C * l, D), k_ZIlD.reshape(Z, I * l, D).mT)
    return logits.exp_().view(Z, R, C, l, I, l).sum(dim=-1).sum(dim=3)


def _denominators(q_ZRClD: Tensor, k_ZTD: Tensor, lse_ZRCl: Tensor | None, scored: list[int], grid: Grid) -> Tensor:
    """log of the softmax denominators of the query rows of the scored spans: (Z, R, C, l).

    released: over the tokens before the span; paper: up to the row itself. The released one is the
    whole minus the own span, lse + log(1 - exp(lse_own - lse)); where the own span holds nearly
    all the mass that cancels, and the row is summed directly.
    """
    if lse_ZRCl is None:
        every = torch.ones(q_ZRClD.shape[:-1], dtype=torch.bool, device=q_ZRClD.device)
        return _direct(q_ZRClD, k_ZTD, scored, grid, every, torch.empty_like(q_ZRClD[..., 0]))
    if grid.variant == "paper":
        return lse_ZRCl
    own_ZRCl = _own_logits(q_ZRClD, k_ZTD, scored, grid).logsumexp(dim=-1)
    prefix_share = -torch.expm1(own_ZRCl - lse_ZRCl)
    denominators = lse_ZRCl + prefix_share.log()
    doubtful = ~(prefix_share > SMALLEST_PREFIX_SHARE[k_ZTD.dtype])
    return _direct(q_ZRClD, k_ZTD, scored, grid, doubtful, denominators) if doubtful.any() else denominators


def _own_logits(q_ZRClD: Tensor, k_ZTD: Tensor, scored: list[int], grid: Grid) -> Tensor:
    """Causal logits of the scored spans among their own tokens: (Z, R, C, l, l)."""
    Z, R, C, l, D = q_ZRClD.shape
    k_ZClD = _spans(k_ZTD, grid, scored).float()
    logits = q_ZRClD.transpose(1, 2).reshape(Z, C, R * l, D) @ k_ZClD.mT
    later = torch.ones(l, l, dtype=torch.bool, device=logits.device).triu(1)
    return logits.view(Z, C, R, l, l).transpose(1, 2).masked_fill(later, -torch.inf)


def _direct(
    q_ZRClD: Tensor, k_ZTD: Tensor, scored: list[int], grid: Grid, which_ZRCl: Tensor, out_ZRCl: Tensor
) -> Tensor:
    """The denominators of the rows marked in `which_ZRCl`, summed over all their keys, put into `out_ZRCl`."""
    later = torch.ones(grid.l, grid.l, dtype=torch.bool, device=q_ZRClD.device).triu(1)
    for z, c in which_ZRCl.any(dim=3).any(dim=1).nonzero().tolist():
        tokens = grid.tokens(scored[c])
        last = tokens.stop if grid.variant == "paper" else tokens.start
        r, row = which_ZRCl[z, :, c].nonzero(as_tuple=True)
        logits = q_ZRClD[z, r, c, row] @ k_ZTD[z, :last].float().mT
        if grid.variant == "paper":
            logits[:, tokens].masked_fill_(later[row], -torch.inf)
        out_ZRCl[z, r, c, row] = logits.logsumexp(dim=-1)
    return out_ZRCl


def _spans(x_TD: Tensor, grid: Grid, spans: list[int] | tuple[int, ...]) -> Tensor:
    """The tokens of `spans`: (..., T, D) -> (..., spans, l, D)."""
    *lead, _, D = x_TD.shape
    whole = x_TD[..., grid.start(0) :, :].reshape(*lead, grid.N, grid.l, D)
    return whole.index_select(-3, torch.tensor(spans, device=x_TD.device))


def _blocks(rows: list[int], grid: Grid, *, heads: int, budget: int) -> Iterator[list[int]]:
    """Cut `rows` of J so that a block has no more logits than the budget, or is a single row."""
    block: list[int] = []
    for row in rows:
        if block and heads * (len(block) + 1) * grid.l * len(grid.I[row]) * grid.l > budget:
            yield block
            block = []
        block.append(row)
    if block:
        yield block
