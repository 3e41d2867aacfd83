"""Value weights and the attention to far keys, in Triton kernels that write nothing else.

Tested against `focus.value_weights` and `sinks.far_key_mass`; runs on a GPU, or anywhere under TRITON_INTERPRET=1.
Plain operations took 1.4 to 3 times as long on an H200: they go through a key head once for every two bits of its
median, and through all keys of each sampled query row six times.

Kernels are launched on the device that holds the tensors, which may not be the current one.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size, Q sampled query rows.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ladm.method.pfs_kernels import _logits, _tile
from ladm.method.pfs_triton import LOG2_E, largest_tile, shared_bytes_of, widened
from ladm.method.sinks import FAR_TOKENS, sampled_queries

TILE_ELEMENTS = 4096
"""Value vectors of a program, in numbers."""
MEDIAN_BLOCK = 4096
HEADS_OF_A_PROGRAM = 8


def value_weights(v_BGTD: Tensor) -> Tensor:
    """w_s = |v_s| / median over s of |v_s|: (B, G, T) float32; 0 where the median is 0."""
    B, G, T, D = v_BGTD.shape
    v = v_BGTD if v_BGTD.stride(-1) == 1 else v_BGTD.contiguous()
    norms_BGT = torch.empty(B, G, T, dtype=torch.float32, device=v.device)
    width = triton.next_power_of_2(D)
    tokens = max(1, TILE_ELEMENTS // width)
    with torch.cuda.device_of(v):
        tiles = triton.cdiv(T, tokens)
        _norms_kernel[(tiles * B * G,)](
            *(v, norms_BGT, v.stride(0), v.stride(1), v.stride(2), G, T, tiles), D=D, BLOCK_D=width, BLOCK_T=tokens
        )
        _divide_by_median_kernel[(B * G,)](
            norms_BGT, norms_BGT.view(torch.int32), T, (T + 1) // 2, BLOCK=MEDIAN_BLOCK, num_warps=16
        )
    return norms_BGT


def far_key_mass(q_BHTD: Tensor, k_BGTD: Tensor, lse_BHT: Tensor, *, scaling: float, skipped_tokens: int) -> Tensor:
    """Attention that sampled query rows pay to each key at least 64 tokens back: (B, H, T) float32, a sum over rows.

    The last dimension of q and k must be contiguous, or they are copied.
    """
    B, H, T, D = q_BHTD.shape
    G = k_BGTD.shape[1]
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_BHTD, k_BGTD))
    rows_Q = sampled_queries(T, q.device)
    mass_BHT = torch.empty(B, H, T, dtype=torch.float32, device=q.device)
    tile = largest_tile(D, q.dtype, shared_bytes_of(q.device))
    # A product has at least 16 rows.
    count = triton.next_power_of_2(len(rows_Q))
    heads = max(16 // count, min(triton.next_power_of_2(H // G), HEADS_OF_A_PROGRAM, tile // count))
    tiles, parts = triton.cdiv(T, tile), triton.cdiv(H // G, heads)
    with torch.cuda.device_of(q):
        _far_key_mass_kernel[(tiles * B * G, parts)](
            *(q, k, lse_BHT.contiguous(), rows_Q, mass_BHT),
            *(q.stride(0), q.stride(1), q.stride(2), k.stride(0), k.stride(1), k.stride(2)),
            *(H, G, H // G, T, scaling * LOG2_E, skipped_tokens, len(rows_Q), tiles),
            FAR=FAR_TOKENS, COUNT=count, HEADS=heads, WIDEN=widened(q.dtype),
            D=D, BLOCK_D=max(16, triton.next_power_of_2(D)), BLOCK_K=tile,
        )  # fmt: skip
    return mass_BHT


# Tiles and heads of a batch in one dimension: the others of a CUDA grid end at 65,535.
@triton.jit(do_not_specialize=["T", "tiles"])
def _norms_kernel(  # type: ignore[no-untyped-def]
    v, norms, v_b, v_g, v_t, G, T, tiles, D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_T: tl.constexpr
):
    """The length of the value vectors of BLOCK_T tokens of one head."""
    t = tl.program_id(0) % tiles * BLOCK_T + tl.arange(0, BLOCK_T)
    bg = (tl.program_id(0) // tiles).to(tl.int64)
    v_TD = _tile(v + bg // G * v_b + bg % G * v_g, t, v_t, t < T, D, BLOCK_D).to(tl.float32)
    tl.store(norms + bg * T + t, tl.sqrt(tl.sum(v_TD * v_TD, 1)), mask=t < T)


@triton.jit(do_not_specialize=["T", "wanted"])
def _divide_by_median_kernel(norms, bits, T, wanted, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Divide a row of numbers that are not negative by their median, the smaller of the two in the middle, in place.

    `bits` are the same numbers read as integers, which have the same order. The median is found bit by bit from the
    highest on: a bit is 1 where fewer than `wanted` numbers are at most the largest one that has 0 there.
    """
    row = tl.program_id(0).to(tl.int64) * T
    at = tl.arange(0, BLOCK)
    median = tl.full([], 0, tl.int32)
    for step in range(31):
        bit = tl.full([], 1, tl.int32) << (30 - step)
        counts = tl.zeros([BLOCK], tl.int32)
        for start in range(0, T, BLOCK):
            x = tl.load(bits + row + start + at, mask=start + at < T, other=0x7FFFFFFF)
            counts += (x <= median + (bit - 1)).to(tl.int32)
        median += tl.where(tl.sum(counts, 0) < wanted, bit, 0)
    found = median.to(tl.float32, bitcast=True)
    divisor = tl.where(found == 0, 1.0, found)
    for start in range(0, T, BLOCK):
        x = tl.load(norms + row + start + at, mask=start + at < T, other=0.0)
        tl.store(norms + row + start + at, tl.where(found == 0, 0.0, x / divisor), mask=start + at < T)


@triton.jit(do_not_specialize=["T", "skipped", "tiles"])
def _far_key_mass_kernel(  # type: ignore[no-untyped-def]
    q, k, lse, rows, mass,
    q_b, q_h, q_t, k_b, k_g, k_t, H, G, R, T, scale, skipped, Q, tiles,
    FAR: tl.constexpr, COUNT: tl.constexpr, HEADS: tl.constexpr, WIDEN: tl.constexpr,
    D: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The weights of a tile of keys, added up over the sampled rows of each of HEADS heads that share the keys."""
    n = tl.program_id(0) % tiles * BLOCK_K + tl.arange(0, BLOCK_K)
    bg = (tl.program_id(0) // tiles).to(tl.int64)
    b, g = bg // G, bg % G
    first = tl.program_id(1) * HEADS
    x = tl.arange(0, HEADS * COUNT)
    r = first + x // COUNT
    there = (r < R) & (x % COUNT < Q)
    token = tl.load(rows + x % COUNT, mask=there, other=0)
    h = g * R + r
    k_KD = _tile(k + b * k_b + g * k_g, n, k_t, n < T, D, BLOCK_D)
    column = tl.arange(0, BLOCK_D)
    q_at = h[:, None] * q_h + token[:, None] * q_t + column[None, :]
    q_XD = tl.load(q + b * q_b + q_at, mask=there[:, None] & (column < D)[None, :], other=0.0)
    lse_X = tl.load(lse + (b * H + h) * T + token, mask=there, other=float("inf")) * 1.4426950408889634
    logits = _logits(q_XD, k_KD, WIDEN) * scale - lse_X[:, None]
    counted = (token[:, None] - n[None, :] >= FAR) & (n >= skipped)[None, :]
    weights = tl.where(counted, tl.exp2(logits), 0.0)
    mass_HK = tl.sum(tl.reshape(weights, [HEADS, COUNT, BLOCK_K]), 1)
    head = first + tl.arange(0, HEADS)
    out = mass + (b * H + g * R + head)[:, None] * T + n[None, :]
    tl.store(out, mass_HK, mask=(head < R)[:, None] & (n < T)[None, :])
