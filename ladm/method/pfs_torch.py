"""q, k and the log-sum-exp that attention already knows -> PFS, in a fraction of one Q K^T.

Tested against `focus.pairwise_focus`. With the row's log-sum-exp the softmax needs no second look at all
keys, so only wanted (query span, key span) pairs are ever multiplied: 1 / (d_afs d_cds) of Q K^T.

Shape suffixes: B rows, H query heads, G key/value heads, R = H / G, T tokens, D head size,
J scored spans, N spans, I wanted earlier spans, C scored spans of one block, l tokens of a span.
K is H by head, or 1. `Z` stands for the B G pairs of row and key head taken together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ladm.method.grid import Grid

BLOCK_ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}
LOW_MEMORY_ELEMENTS = 1 << 18
"""The most logits at a time, by device and where memory is short. A scored span is never split."""
SMALLEST_PREFIX_SHARE = {torch.float32: 0.1, torch.bfloat16: 1e-3, torch.float16: 1e-3}
"""Below this share a row is summed directly: its error would be that of the log-sum-exp divided by the share.

In float32 the log-sum-exp is off by 1e-6. In half precision torch's kernel on a CPU is off by up to 7e-5, which matters
little, because few query rows of real text have so small a share.
"""


@dataclass(frozen=True, kw_only=True)
class Focus:
    """Equation 2 of one layer, by head where K is H, as a mean over heads where K is 1."""

    pfs_BKJN: Tensor
    weighted_BKJN: Tensor | None = None
    """PFS with each key's attention multiplied by its weight; None: not requested."""
    copied_BK: Tensor | None = None
    """The part of the sum of all used PFS that falls on copy keys; None: not requested."""


class CopyKeys:
    """Which keys are copy keys of which query rows (`focus.copy_keys`), among the pairs that a grid uses.

    They are the same in every layer, so they are found once for a batch of rows and looked up by block after that.
    In real text that is about 1 % of the pairs, so a list of places is cheaper than a mask.
    """

    def __init__(self, ids_BT: Tensor, grid: Grid) -> None:
        # A GPU compares int32 in half the instructions that int64 takes, and no vocabulary needs more.
        self.ids_BT = ids_BT.to(torch.int32)
        self._grid = grid
        self._places: dict[tuple[int, ...], list[Tensor]] = {}

    def places(self, block: list[int], spans: range) -> list[Tensor]:
        """For each row of the batch the flat places of its copy keys in a (C, l, I, l) block of attention weights."""
        key = (len(spans), *block)
        if key not in self._places:
            self._places[key] = [self._find(ids_T, block, spans) for ids_T in self.ids_BT]
        return self._places[key]

    def _find(self, ids_T: Tensor, block: list[int], spans: range) -> Tensor:
        grid = self._grid
        # No token is -1, which stands before the first token of the row.
        before_T = torch.cat([ids_T.new_full((1,), -1), ids_T[:-1]])
        query_C1l11 = _spans(ids_T.unsqueeze(-1), grid, [grid.J[row] for row in block]).view(len(block), -1, 1, 1)
        key_Il, before_Il = (_spans(x.unsqueeze(-1), grid, spans).squeeze(-1) for x in (ids_T, before_T))
        # The earlier spans of each row are the first of those of the block, see `_rows_by_stride`.
        count_C1 = torch.tensor([[len(grid.I[row])] for row in block], device=ids_T.device)
        used_CI = torch.arange(len(spans), device=ids_T.device) < count_C1
        copies_ClIl = ((key_Il == query_C1l11) | (before_Il == query_C1l11)) & used_CI[:, None, :, None]
        return copies_ClIl.flatten().nonzero().squeeze(1)


def measure_focus(
    q_BHTD: Tensor,
    k_BGTD: Tensor,
    lse_BHT: Tensor | None,
    *,
    scaling: float,
    grid: Grid,
    by_head: bool = False,
    key_weight_BGT: Tensor | None = None,
    copy_keys: CopyKeys | None = None,
    low_memory: bool = False,
) -> Focus:
    """Equation 2 in plain torch operations, arguments and result as in `pfs.measure_focus`."""
    B, H, T, D = q_BHTD.shape
    G = k_BGTD.shape[1]
    q_ZRTD = q_BHTD.reshape(B * G, H // G, T, D)
    k_ZTD = k_BGTD.reshape(B * G, T, D)
    lse_ZRT = None if lse_BHT is None else lse_BHT.reshape(B * G, H // G, T)
    weight_ZT1 = None if key_weight_BGT is None else key_weight_BGT.reshape(B * G, T, 1)
    K = H if by_head else 1
    pfs_BKJN = q_BHTD.new_zeros(B, K, len(grid.J), grid.N, dtype=torch.float32)
    weighted_BKJN = None if weight_ZT1 is None else torch.zeros_like(pfs_BKJN)
    copied_BH = None if copy_keys is None else pfs_BKJN.new_zeros(B, H)
    # The last row of a group reaches farthest back: its earlier spans are those of every row of the group, so the keys
    # are gathered once for all of them.
    for rows in _rows_by_stride(grid):
        spans = grid.I[rows[-1]]
        k_ZIlD = _spans(k_ZTD, grid, spans).float()
        weight_ZIl = None if weight_ZT1 is None else _spans(weight_ZT1, grid, spans).squeeze(-1)
        budget = LOW_MEMORY_ELEMENTS if low_memory else BLOCK_ELEMENTS[q_BHTD.device.type]
        for block in _blocks(rows, grid, heads=B * H, budget=budget):
            scored = [grid.J[row] for row in block]
            q_ZRClD = _spans(q_ZRTD, grid, scored).float() * scaling
            lse_ZRCl = None if lse_ZRT is None else _spans(lse_ZRT.unsqueeze(-1), grid, scored).squeeze(-1)
            lse_ZRCl = _denominators(q_ZRClD, k_ZTD, lse_ZRCl, scored, grid)
            # No row of this block looks beyond the spans of its last row: the product is lower-triangular by blocks.
            wanted = spans[: len(grid.I[block[-1]])]
            weights_ZRClIl = _attention_weights(q_ZRClD, k_ZIlD[:, : len(wanted)], lse_ZRCl)
            _put(pfs_BKJN, weights_ZRClIl.sum(dim=-1).sum(dim=3), block, grid)
            if weighted_BKJN is not None and weight_ZIl is not None:
                # Query rows first: what is left to multiply is l times smaller.
                by_key_ZRCIl = weights_ZRClIl.sum(dim=3) * weight_ZIl[:, None, None, : len(wanted)]
                _put(weighted_BKJN, by_key_ZRCIl.sum(dim=-1), block, grid)
            if copied_BH is not None and copy_keys is not None:
                flat_BHX = weights_ZRClIl.view(B, H, -1)
                for b, places in enumerate(copy_keys.places(block, wanted)):
                    copied_BH[b] += flat_BHX[b].index_select(1, places).sum(dim=1)
    copied_BK = copied_BH if by_head or copied_BH is None else copied_BH.mean(dim=1, keepdim=True)
    return Focus(pfs_BKJN=pfs_BKJN, weighted_BKJN=weighted_BKJN, copied_BK=copied_BK)


def _put(out_BKJN: Tensor, focus_ZRCI: Tensor, block: list[int], grid: Grid) -> None:
    """Store the sums of a block of scored spans in their places: for each span j only the pairs with spans of I_j."""
    B, K = out_BKJN.shape[:2]
    C, I = focus_ZRCI.shape[2:]
    focus_BHCI = focus_ZRCI.reshape(B, -1, C, I)
    focus_BKCI = focus_BHCI.mean(dim=1, keepdim=True) if K == 1 else focus_BHCI
    for c, row in enumerate(block):
        earlier = grid.I[row]
        out_BKJN[:, :, row, list(earlier)] = focus_BKCI[:, :, c, : len(earlier)]


def _rows_by_stride(grid: Grid) -> list[list[int]]:
    """Rows of J grouped so that the earlier spans of every row of a group are the first ones of its last row.

    I_j runs in steps of d_afs from one of the spans m to m + d_afs - 1, so two rows whose first spans leave the same
    remainder share their keys, and one dense product serves both. With d_afs 4 and d_cds 4 there is one group; with
    d_cds 3 there are four.
    """
    by_remainder: dict[int, list[int]] = {}
    for row, spans in enumerate(grid.I):
        by_remainder.setdefault(spans[0] % grid.d_afs, []).append(row)
    return list(by_remainder.values())


def _attention_weights(q_ZRClD: Tensor, k_ZIlD: Tensor, lse_ZRCl: Tensor) -> Tensor:
    """exp(q . k - lse) of every query row with every key: (Z, R, C, l, I, l)."""
    Z, R, C, l, D = q_ZRClD.shape
    I = k_ZIlD.shape[1]
    # The product adds -lse itself: a separate subtraction would read and write every logit once more.
    minus_lse = -lse_ZRCl.reshape(Z, R * C * l, 1)
    logits = torch.baddbmm(minus_lse, q_ZRClD.reshape(Z, R * C * l, D), k_ZIlD.reshape(Z, I * l, D).mT)
    return logits.exp_().view(Z, R, C, l, I, l)


def _denominators(q_ZRClD: Tensor, k_ZTD: Tensor, lse_ZRCl: Tensor | None, scored: list[int], grid: Grid) -> Tensor:
    """log of the softmax denominators of the query rows of the scored spans: (Z, R, C, l).

    released: over the tokens before the span; paper: up to the row itself. The released one is the
    whole minus the own span, lse + log(1 - exp(lse_own - lse)). Where the own span holds nearly all
    the mass, that difference is mostly rounding error, and the row is summed directly.
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
    # A loop, which needs no padding: without a log-sum-exp all query rows of a head's span come at once, and with one
    # about 50 in a million of real text.
    for z, c in which_ZRCl.any(dim=3).any(dim=1).nonzero().tolist():
        tokens = grid.tokens(scored[c])
        last = tokens.stop if grid.variant == "paper" else tokens.start
        r, row = which_ZRCl[z, :, c].nonzero(as_tuple=True)
        # Rows of zeros up to a multiple of eight: of 5, 6 or 7 rows MKL rounds products otherwise with other threads.
        rows = torch.nn.functional.pad(q_ZRClD[z, r, c, row], (0, 0, 0, -len(row) % 8))
        logits = (rows @ k_ZTD[z, :last].float().mT)[: len(row)]
        if grid.variant == "paper":
            logits[:, tokens].masked_fill_(later[row], -torch.inf)
        out_ZRCl[z, r, c, row] = logits.logsumexp(dim=-1)
    return out_ZRCl


def _spans(x_TD: Tensor, grid: Grid, spans: Sequence[int]) -> Tensor:
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
