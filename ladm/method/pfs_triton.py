"""q, k and the log-sum-exp of attention -> PFS by head, in two Triton kernels that write nothing else.

The first gives each scored query row its softmax denominator, the second multiplies the wanted pairs of spans and sums
them while they are still in registers. Held to `focus.pairwise_focus`; runs on a GPU, or anywhere under
TRITON_INTERPRET=1. Addresses are 64 bits wide; logits, exponentials and sums are float32.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size, J scored spans, N spans, P pairs that
are wanted, l tokens of a span; M and K are tiles of query rows and of keys.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from ladm.method.grid import Grid
from ladm.method.pfs_torch import SMALLEST_PREFIX_SHARE, Focus

LOG2_E = 1.4426950408889634
PAIRS_OF_A_PROGRAM = 16


def measure_focus(
    q_BHTD: Tensor,
    k_BGTD: Tensor,
    lse_BHT: Tensor | None,
    *,
    scaling: float,
    grid: Grid,
    key_weight_BGT: Tensor | None = None,
    ids_BT: Tensor | None = None,
) -> Focus:
    """Equation 2 by head for the pairs that `grid` wants, and with `ids_BT` the part of it that falls on copy keys.

    The last dimension of q and k must be contiguous; any other strides will do.
    """
    B, H, T, D = q_BHTD.shape
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_BHTD, k_BGTD))
    device = q.device
    if not grid.J:
        nothing = q.new_zeros(B, H, 0, grid.N, dtype=torch.float32)
        return Focus(
            pfs_BKJN=nothing,
            weighted_BKJN=None if key_weight_BGT is None else nothing,
            copied_BK=None if ids_BT is None else nothing.new_zeros(B, H),
        )
    where = _where(grid, device)
    tile = max(16, min(triton.next_power_of_2(grid.l), largest_tile(D, q.dtype)))
    parts = triton.cdiv(grid.l, tile)
    common = (
        *(q.stride(0), q.stride(1), q.stride(2), k.stride(0), k.stride(1), k.stride(2)),
        *(H, H // k.shape[1], grid.start(0), grid.l, scaling * LOG2_E),
    )
    # The interpreter multiplies bfloat16 as if it were integers; products of widened operands are the same.
    widen = triton.knobs.runtime.interpret and q.dtype == torch.bfloat16
    shapes = {"WIDEN": widen, "D": D, "BLOCK_D": max(16, triton.next_power_of_2(D)), "BLOCK_M": tile, "BLOCK_K": tile}
    denominators = torch.empty(B * H, len(grid.J), grid.l, dtype=torch.float32, device=device)
    lse = denominators if lse_BHT is None else lse_BHT.contiguous()
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        _denominators_kernel[(B * H, len(grid.J), parts)](
            *(q, k, lse, denominators, where.scored, *common, len(grid.J), T, SMALLEST_PREFIX_SHARE[q.dtype]),
            HAS_LSE=lse_BHT is not None,
            PAPER=grid.variant == "paper",
            **shapes,
        )
        # What is not requested is neither computed nor stored; its pointers are never followed.
        focus, weighted, copied = (
            torch.empty(B * H, parts, len(where.pairs), dtype=torch.float32, device=device)
            if requested
            else denominators
            for requested in (True, key_weight_BGT is not None, ids_BT is not None)
        )
        weight = denominators if key_weight_BGT is None else key_weight_BGT.float().contiguous()
        ids = where.scored if ids_BT is None else ids_BT.to(device).contiguous()
        _focus_kernel[(len(where.items), B * H, parts)](
            *(q, k, denominators, weight, ids, focus, weighted, copied, where.scored, where.items),
            *(*common, len(grid.J), len(where.pairs), grid.d_afs, T, k.shape[1]),
            ONE_TILE=grid.l <= tile,
            WEIGHTED=key_weight_BGT is not None,
            COPIED=ids_BT is not None,
            **shapes,
        )
    row_P, span_P = where.pairs.unbind(dim=1)

    def by_span(sums_ZP: Tensor) -> Tensor:
        """The sums of all tiles of query rows, each pair in its place: (B, H, J, N)."""
        out_BHJN = q.new_zeros(B, H, len(grid.J), grid.N, dtype=torch.float32)
        out_BHJN[:, :, row_P, span_P] = sums_ZP.sum(dim=1).view(B, H, -1)
        return out_BHJN

    return Focus(
        pfs_BKJN=by_span(focus),
        weighted_BKJN=None if key_weight_BGT is None else by_span(weighted),
        copied_BK=None if ids_BT is None else copied.sum(dim=(1, 2)).view(B, H),
    )


def largest_tile(D: int, dtype: torch.dtype) -> int:
    """Rows of a tile such that the kernels take less than the 99 KiB of shared memory that small GPUs have."""
    if dtype != torch.float32:
        return 128 if D <= 128 else 64
    return 64 if D <= 128 else 32


class _Where:
    """A grid as the kernels read it: scored spans, pairs (row of J, i), and items of at most 16 pairs each."""

    def __init__(self, grid: Grid, device: torch.device) -> None:
        pairs: list[tuple[int, int]] = []
        items: list[tuple[int, int, int, int]] = []
        for row, spans in enumerate(grid.I):
            for first in range(0, len(spans), PAIRS_OF_A_PROGRAM):
                some = spans[first : first + PAIRS_OF_A_PROGRAM]
                items.append((row, some[0], len(pairs) + first, len(some)))
            pairs += [(row, i) for i in spans]
        self.scored = torch.tensor(grid.J, dtype=torch.int64, device=device)
        self.pairs = torch.tensor(pairs, dtype=torch.int64, device=device)
        self.items = torch.tensor(items, dtype=torch.int64, device=device)


@lru_cache(maxsize=64)
def _where(grid: Grid, device: torch.device) -> _Where:
    return _Where(grid, device)


@triton.jit
def _tile(pointer, rows, row_stride, valid, D: tl.constexpr, BLOCK_D: tl.constexpr):  # type: ignore[no-untyped-def]
    """Rows of a matrix as a (rows, BLOCK_D) tile; 0 where there is none."""
    columns = tl.arange(0, BLOCK_D)
    mask = valid[:, None] & (columns < D)[None, :]
    return tl.load(pointer + rows.to(tl.int64)[:, None] * row_stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _logits(q_MD, k_KD, WIDEN: tl.constexpr):  # type: ignore[no-untyped-def]
    """q k^T of two tiles, accumulated in float32; float32 operands are not rounded to tf32."""
    if WIDEN:
        q_MD = q_MD.to(tl.float32)
        k_KD = k_KD.to(tl.float32)
    return tl.dot(q_MD, tl.trans(k_KD), input_precision="ieee")


@triton.jit
def _add(largest, total, logits):  # type: ignore[no-untyped-def]
    """One more tile of base-2 logits into a running log-sum-exp by row; rows may be -inf throughout."""
    new = tl.maximum(largest, tl.max(logits, 1))
    safe = tl.where(new == float("-inf"), 0.0, new)
    total = total * tl.exp2(largest - safe) + tl.sum(tl.exp2(logits - safe[:, None]), 1)
    return new, total


@triton.jit
def _over_all_keys(  # type: ignore[no-untyped-def]
    q_MD, k_head, k_t, first, m, l, scale, PAPER: tl.constexpr, WIDEN: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """log2 of the sum over every key that the rows see: those before token `first`, or (paper) up to the row itself."""
    largest = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    stop = first + l if PAPER else first
    for start in range(0, stop, BLOCK_K):
        n = start + tl.arange(0, BLOCK_K)
        k_KD = _tile(k_head, n, k_t, n < stop, D, BLOCK_D)
        logits = _logits(q_MD, k_KD, WIDEN) * scale
        last = first + m if PAPER else first + m * 0 - 1
        largest, total = _add(largest, total, tl.where(n[None, :] <= last[:, None], logits, float("-inf")))
    return largest + tl.log2(total)


@triton.jit(do_not_specialize=["front", "J", "T"])
def _denominators_kernel(  # type: ignore[no-untyped-def]
    q, k, lse, out, scored,
    q_b, q_h, q_t, k_b, k_g, k_t, H, R, front, l, scale, J, T, smallest_share,
    HAS_LSE: tl.constexpr, PAPER: tl.constexpr, WIDEN: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """log2 of the softmax denominator of the rows of one scored span and head, for one tile of rows.

    released: over the tokens before the span, from lse minus the own span; paper: lse itself. Without
    lse, and for rows that the subtraction would spoil, summed over all keys.
    """
    bh = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1)
    b, h = bh // H, bh % H
    first = front + tl.load(scored + row) * l
    m = tl.program_id(2) * BLOCK_M + tl.arange(0, BLOCK_M)
    valid = m < l
    q_MD = _tile(q + b * q_b + h * q_h, first + m, q_t, valid, D, BLOCK_D)
    k_head = k + b * k_b + (h // R) * k_g
    known = tl.zeros([BLOCK_M], tl.float32)
    doubtful = valid
    if HAS_LSE:
        whole = tl.load(lse + bh * T + first + m, mask=valid, other=0.0) * 1.4426950408889634
        if PAPER:
            known = whole
            doubtful = m < 0
        else:
            largest = tl.full([BLOCK_M], float("-inf"), tl.float32)
            total = tl.zeros([BLOCK_M], tl.float32)
            for start in range(0, l, BLOCK_K):
                n = start + tl.arange(0, BLOCK_K)
                k_KD = _tile(k_head, first + n, k_t, n < l, D, BLOCK_D)
                logits = _logits(q_MD, k_KD, WIDEN) * scale
                own = (n[None, :] <= m[:, None]) & (n < l)[None, :]
                largest, total = _add(largest, total, tl.where(own, logits, float("-inf")))
            share = 1.0 - tl.exp2(largest + tl.log2(total) - whole)
            fine = share > smallest_share
            known = whole + tl.log2(tl.where(fine, share, 1.0))
            doubtful = valid & (fine == 0)
    if tl.max(doubtful.to(tl.int32), 0) > 0:
        exact = _over_all_keys(q_MD, k_head, k_t, first, m, l, scale, PAPER, WIDEN, D, BLOCK_D, BLOCK_M, BLOCK_K)
        known = tl.where(doubtful, exact, known)
    tl.store(out + (bh * J + row) * l + m, known, mask=valid)


@triton.jit(do_not_specialize=["front", "J", "P", "T", "G"])
def _focus_kernel(  # type: ignore[no-untyped-def]
    q, k, denominators, weight, ids, out, out_weighted, out_copied, scored, items,
    q_b, q_h, q_t, k_b, k_g, k_t, H, R, front, l, scale, J, P, d_afs, T, G,
    ONE_TILE: tl.constexpr, WEIGHTED: tl.constexpr, COPIED: tl.constexpr, WIDEN: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Sum over a tile of query rows and all keys of a span of exp(scaling q . k - denominator), pair after pair.

    WEIGHTED: the same with each key's factor; COPIED: the same over copy keys alone. Both of the same exponentials.
    """
    item = items + tl.program_id(0) * 4
    row, span, pair, count = tl.load(item), tl.load(item + 1), tl.load(item + 2), tl.load(item + 3)
    bh = tl.program_id(1).to(tl.int64)
    part = tl.program_id(2)
    b, h = bh // H, bh % H
    m = part * BLOCK_M + tl.arange(0, BLOCK_M)
    valid = m < l
    first_row = front + tl.load(scored + row) * l
    q_MD = _tile(q + b * q_b + h * q_h, first_row + m, q_t, valid, D, BLOCK_D)
    minus = -tl.load(denominators + (bh * J + row) * l + m, mask=valid, other=float("inf"))
    x_M = tl.load(ids + b * T + first_row + m, mask=valid, other=-2) if COPIED else m
    k_head = k + b * k_b + (h // R) * k_g
    w_head = weight + (b * G + h // R) * T
    target = (bh * tl.num_programs(2) + part) * P + pair
    if ONE_TILE:
        for step in tl.range(count, num_stages=3):
            first = front + (span + step * d_afs) * l
            focus_M, weighted_M, copied_M = _focus_of_tile(
                q_MD, minus, x_M, k_head, k_t, w_head, ids + b * T, first, 0, l, scale,
                WEIGHTED, COPIED, WIDEN, D, BLOCK_D, BLOCK_K,
            )  # fmt: skip
            _store(out, out_weighted, out_copied, target + step, focus_M, weighted_M, copied_M, WEIGHTED, COPIED)
    else:
        for step in range(count):
            first = front + (span + step * d_afs) * l
            focus_M = tl.zeros([BLOCK_M], tl.float32)
            weighted_M = tl.zeros([BLOCK_M], tl.float32)
            copied_M = tl.zeros([BLOCK_M], tl.float32)
            for start in range(0, l, BLOCK_K):
                more_M, more_weighted_M, more_copied_M = _focus_of_tile(
                    q_MD, minus, x_M, k_head, k_t, w_head, ids + b * T, first, start, l, scale,
                    WEIGHTED, COPIED, WIDEN, D, BLOCK_D, BLOCK_K,
                )  # fmt: skip
                focus_M += more_M
                weighted_M += more_weighted_M
                copied_M += more_copied_M
            _store(out, out_weighted, out_copied, target + step, focus_M, weighted_M, copied_M, WEIGHTED, COPIED)


@triton.jit
def _store(  # type: ignore[no-untyped-def]
    out, out_weighted, out_copied, at, focus_M, weighted_M, copied_M, WEIGHTED: tl.constexpr, COPIED: tl.constexpr
):  # fmt: skip
    """The sums over a tile of query rows, where they were requested."""
    tl.store(out + at, tl.sum(focus_M, 0))
    if WEIGHTED:
        tl.store(out_weighted + at, tl.sum(weighted_M, 0))
    if COPIED:
        tl.store(out_copied + at, tl.sum(copied_M, 0))


@triton.jit
def _focus_of_tile(  # type: ignore[no-untyped-def]
    q_MD, minus, x_M, k_head, k_t, w_head, ids, first, start, l, scale,
    WEIGHTED: tl.constexpr, COPIED: tl.constexpr, WIDEN: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """By query row, the sums over some keys of the span that begins at token `first`."""
    n = start + tl.arange(0, BLOCK_K)
    k_KD = _tile(k_head, first + n, k_t, n < l, D, BLOCK_D)
    logits = _logits(q_MD, k_KD, WIDEN) * scale + minus[:, None]
    attention = tl.where((n < l)[None, :], tl.exp2(logits), 0.0)
    focus_M = tl.sum(attention, 1)
    weighted_M = focus_M
    copied_M = focus_M
    if WEIGHTED:
        w_K = tl.load(w_head + first + n, mask=n < l, other=0.0)
        weighted_M = tl.sum(attention * w_K[None, :], 1)
    if COPIED:
        # Of a key whose token or whose token before is the query's own; token -1 does not exist.
        x_K = tl.load(ids + first + n, mask=n < l, other=-1)
        before_K = tl.load(ids + first + n - 1, mask=(n < l) & (first + n > 0), other=-1)
        copies = (x_K[None, :] == x_M[:, None]) | (before_K[None, :] == x_M[:, None])
        copied_M = tl.sum(tl.where(copies, attention, 0.0), 1)
    return focus_M, weighted_M, copied_M
