"""The two Triton kernels of `pfs_triton.py`: the softmax denominators of the scored rows, and PFS of the wanted pairs.

Addresses are 64 bits wide; logits, exponentials and sums are float32. `WIDEN` is for the interpreter alone.

Shape suffixes: D head size, l tokens of a span; M and K are tiles of query rows and of keys. Sizes without a suffix
are those of `pfs_triton.py`: H query heads, R of them to a key head, G key heads, J scored spans, P pairs, T tokens.
"""

from __future__ import annotations

import triton
import triton.language as tl


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
        # `m * 0` gives the constant the shape of the rows, which both branches need to have.
        last = first + m if PAPER else first + m * 0 - 1
        largest, total = _add(largest, total, tl.where(n[None, :] <= last[:, None], logits, float("-inf")))
    return largest + tl.log2(total)


@triton.jit(do_not_specialize=["front", "J", "T"])
def denominators_kernel(  # type: ignore[no-untyped-def]
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


@triton.jit(do_not_specialize=["front", "J", "P", "T", "G", "num_items"])
def focus_kernel(  # type: ignore[no-untyped-def]
    q, k, denominators, weight, ids, out, out_weighted, out_copied, scored, items,
    q_b, q_h, q_t, k_b, k_g, k_t, H, R, front, l, scale, J, P, d_afs, T, G, parts, num_items,
    FULL: tl.constexpr, STAGES: tl.constexpr, WEIGHTED: tl.constexpr, COPIED: tl.constexpr, WIDEN: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Sum over a tile of query rows and one of keys of exp(scaling q . k - denominator), pair of spans after pair.

    A span has `parts` tiles, so a pair has their square. WEIGHTED: the same with each key's factor; COPIED: the same
    over copy keys alone. Both of the same exponentials. FULL: the tiles of a span are all whole.
    """
    # Items and heads in one dimension: the others of a CUDA grid end at 65,535, and a batch may have more heads.
    item = items + tl.program_id(0) % num_items * 4
    head_tile = tl.program_id(0) // num_items
    row, span, pair, count = tl.load(item), tl.load(item + 1), tl.load(item + 2), tl.load(item + 3)
    # 64 bits: B H T D of a batch of long rows is beyond what 32 can address.
    bh = (head_tile // parts).to(tl.int64)
    b, h = bh // H, bh % H
    m = head_tile % parts * BLOCK_M + tl.arange(0, BLOCK_M)
    # The remainder is the number itself; by it the compiler knows that of a single tile, which is 0.
    start = tl.program_id(1) % parts * BLOCK_K
    valid = m < l
    first_row = front + tl.load(scored + row) * l
    q_MD = _tile(q + b * q_b + h * q_h, first_row + m, q_t, valid, D, BLOCK_D)
    # A query row that the tile has too many of gets a denominator of infinity, and with it weights of 0.
    minus = -tl.load(denominators + (bh * J + row) * l + m, mask=valid, other=float("inf"))
    # -2 for rows that do not exist, -1 for keys: the two must never look like a copy of each other.
    x_M = tl.load(ids + b * T + first_row + m, mask=valid, other=-2) if COPIED else m
    k_head = k + b * k_b + (h // R) * k_g
    w_head = weight + (b * G + h // R) * T
    target = (head_tile.to(tl.int64) * parts + tl.program_id(1) % parts) * P + pair
    # One loop over spans with one tile of each: the compiler overlaps the loads of a span with the product of the one
    # before. A loop over the tiles of a span inside it would prevent that.
    for step in tl.range(count, num_stages=STAGES):
        first = front + (span + step * d_afs) * l
        focus_M, weighted_M, copied_M = _focus_of_tile(
            q_MD, minus, x_M, k_head, k_t, w_head, ids + b * T, first, start, l, scale,
            FULL, WEIGHTED, COPIED, WIDEN, D, BLOCK_D, BLOCK_K,
        )  # fmt: skip
        tl.store(out + target + step, tl.sum(focus_M, 0))
        if WEIGHTED:
            tl.store(out_weighted + target + step, tl.sum(weighted_M, 0))
        if COPIED:
            tl.store(out_copied + target + step, tl.sum(copied_M, 0))


@triton.jit
def _focus_of_tile(  # type: ignore[no-untyped-def]
    q_MD, minus, x_M, k_head, k_t, w_head, ids, first, start, l, scale,
    FULL: tl.constexpr, WEIGHTED: tl.constexpr, COPIED: tl.constexpr, WIDEN: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """By query row, the sums over some keys of the span that begins at token `first`."""
    n = start + tl.arange(0, BLOCK_K)
    inside = (n < l) | FULL
    k_KD = _tile(k_head, first + n, k_t, inside, D, BLOCK_D)
    logits = _logits(q_MD, k_KD, WIDEN) * scale + minus[:, None]
    attention = tl.where(inside[None, :], tl.exp2(logits), 0.0)
    focus_M = tl.sum(attention, 1)
    weighted_M = focus_M
    copied_M = focus_M
    if WEIGHTED:
        w_K = tl.load(w_head + first + n, mask=inside, other=0.0)
        weighted_M = tl.sum(attention * w_K[None, :], 1)
    if COPIED:
        # Of a key whose token or whose token before is the query's own; token -1 does not exist.
        x_K = tl.load(ids + first + n, mask=inside, other=-1)
        before_K = tl.load(ids + first + n - 1, mask=inside & (first + n > 0), other=-1)
        copies = (x_K[None, :] == x_M[:, None]) | (before_K[None, :] == x_M[:, None])
        copied_M = tl.sum(tl.where(copies, attention, 0.0), 1)
    return focus_M, weighted_M, copied_M
