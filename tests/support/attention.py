"""Random queries, keys and values, and plain attention with its log-sum-exp."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(B: int, H: int, G: int, T: int, D: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, heads, T, D, generator=generator) for heads in (H, G, G))
    return q, k, v


def plain_attention(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    R, T = q.shape[1] // k.shape[1], q.shape[2]
    logits = scaling * q.float() @ k.float().repeat_interleave(R, 1).mT
    logits = logits.masked_fill(torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    return logits.softmax(-1) @ v.float().repeat_interleave(R, 1), logits.logsumexp(-1)
