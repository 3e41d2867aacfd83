"""RMSNorm, the rotary embedding and SiLU times gate, each as one Triton kernel that reads and writes its data once.

Arithmetic is float32, results are rounded once to the dtype of the inputs, so they are at least as exact as the stock
operations, which round in between. Runs on a GPU, or anywhere under TRITON_INTERPRET=1. Addresses are 64 bits wide.
Kernels are launched on the device that holds the tensors, which may not be the current one.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE_ELEMENTS = 2048
"""Of the norms of short vectors, such as those of heads, several share a program of this many numbers."""
BLOCK_ELEMENTS = 2048
"""Consecutive numbers of a program of SiLU times gate."""


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension of a contiguous `x`."""
    width = x.shape[-1]
    x = x.contiguous()
    out = torch.empty_like(x)
    rows = x.numel() // width
    block = triton.next_power_of_2(width)
    tile_rows = max(1, TILE_ELEMENTS // block)
    with torch.cuda.device_of(x):
        _rms_norm_kernel[(triton.cdiv(rows, tile_rows),)](
            *(x, weight, out, rows, eps),
            WIDTH=width, BLOCK=block, ROWS=tile_rows, num_warps=min(16, max(4, tile_rows * block // 512)),
        )  # fmt: skip
    return out


def rotary(q_BHTD: Tensor, k_BGTD: Tensor, cos_BTD: Tensor, sin_BTD: Tensor) -> tuple[Tensor, Tensor]:
    """The rotary embedding of Llama, in place: dimension d is turned against d + D / 2.

    The last dimension of q and k must be contiguous. cos and sin have a row of their own for each row, or one for all.
    """
    B, H, T, D = q_BHTD.shape
    G = k_BGTD.shape[1]
    cos_BTD, sin_BTD = cos_BTD.contiguous(), sin_BTD.contiguous()
    cos_b = cos_BTD.stride(0) if cos_BTD.shape[0] > 1 else 0
    with torch.cuda.device_of(q_BHTD):
        _rotary_kernel[(T, B)](
            *(q_BHTD, k_BGTD, cos_BTD, sin_BTD, cos_b, cos_BTD.stride(1)),
            *(q_BHTD.stride(0), q_BHTD.stride(1), q_BHTD.stride(2)),
            *(k_BGTD.stride(0), k_BGTD.stride(1), k_BGTD.stride(2)),
            H=H, G=G, HALF=D // 2, BLOCK_H=triton.next_power_of_2(H), BLOCK_G=triton.next_power_of_2(G),
            BLOCK_D=triton.next_power_of_2(D // 2), num_warps=4,
        )  # fmt: skip
    return q_BHTD, k_BGTD


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up of two contiguous tensors of one shape; `gate` is overwritten with it."""
    elements = gate.numel()
    with torch.cuda.device_of(gate):
        _silu_mul_kernel[(triton.cdiv(elements, BLOCK_ELEMENTS),)](
            gate, up, elements, BLOCK=BLOCK_ELEMENTS, num_warps=4
        )
    return gate


@triton.jit
def _rms_norm_kernel(  # type: ignore[no-untyped-def]
    x, weight, out, rows, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr
):
    """The norm of ROWS vectors."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    mask = (row < rows)[:, None] & (column < WIDTH)[None, :]
    offsets = row[:, None] * WIDTH + column[None, :]
    values = tl.load(x + offsets, mask=mask, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(values * values, 1) / WIDTH + eps)
    factor = tl.load(weight + column, mask=column < WIDTH, other=0.0).to(tl.float32)
    result = values * scale[:, None] * factor[None, :]
    tl.store(out + offsets, result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _rotary_kernel(  # type: ignore[no-untyped-def]
    q, k, cos, sin, cos_b, cos_t, q_b, q_h, q_t, k_b, k_g, k_t,
    H: tl.constexpr, G: tl.constexpr, HALF: tl.constexpr,
    BLOCK_H: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """All heads of one token: they share its angles."""
    t = tl.program_id(0).to(tl.int64)
    b = tl.program_id(1).to(tl.int64)
    d = tl.arange(0, BLOCK_D)
    # The second half of the angles repeats the first.
    at = b * cos_b + t * cos_t + d
    c = tl.load(cos + at, mask=d < HALF, other=0.0).to(tl.float32)
    s = tl.load(sin + at, mask=d < HALF, other=0.0).to(tl.float32)
    _turn(q + b * q_b + t * q_t, q_h, c, s, H, HALF, BLOCK_H, BLOCK_D)
    _turn(k + b * k_b + t * k_t, k_g, c, s, G, HALF, BLOCK_G, BLOCK_D)


@triton.jit
def _turn(  # type: ignore[no-untyped-def]
    x, stride, c, s, HEADS: tl.constexpr, HALF: tl.constexpr, BLOCK_H: tl.constexpr, BLOCK_D: tl.constexpr
):
    """(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin) of every head of a token, in place."""
    h = tl.arange(0, BLOCK_H)
    d = tl.arange(0, BLOCK_D)
    mask = (h < HEADS)[:, None] & (d < HALF)[None, :]
    first = x + h.to(tl.int64)[:, None] * stride + d[None, :]
    x1 = tl.load(first, mask=mask, other=0.0).to(tl.float32)
    x2 = tl.load(first + HALF, mask=mask, other=0.0).to(tl.float32)
    tl.store(first, (x1 * c[None, :] - x2 * s[None, :]).to(x.dtype.element_ty), mask=mask)
    tl.store(first + HALF, (x2 * c[None, :] + x1 * s[None, :]).to(x.dtype.element_ty), mask=mask)


@triton.jit
def _silu_mul_kernel(gate, up, elements, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """BLOCK consecutive numbers."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = at < elements
    g = tl.load(gate + at, mask=mask, other=0.0).to(tl.float32)
    u = tl.load(up + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(gate + at, (g / (1.0 + tl.exp(-g)) * u).to(gate.dtype.element_ty), mask=mask)
