"""The first layer's q, k and log-sum-exp -> LongAttn's two numbers of a row (Wu et al. 2025).

With the causal attention A_h of the first layer and k = T / 4, rounded down:

    DS = mean over heads of (1 / T) x the attention that falls on tokens at least k back
    V  = mean over heads of the variance of the weights at least k apart

The score is z(DS) - 0.5 z(V) over the rows that are ranked together, so it is formed at selection, not here.

Shape suffixes: B rows, H query heads, G key/value heads, R = H / G, T tokens, D head size, C query rows of a block.
"""

from __future__ import annotations

import torch
from torch import Tensor

FAR_SHARE = 4
"""Attention is long-range when it looks back at least T / 4 tokens."""
BLOCK_ELEMENTS = {"cpu": 1 << 23, "cuda": 1 << 28}
"""Logits at a time, by device."""
LOW_MEMORY_ELEMENTS = 1 << 22
"""Logits at a time where memory is short."""


def distant_attention(
    q_BHTD: Tensor, k_BGTD: Tensor, lse_BHT: Tensor, *, scaling: float, low_memory: bool = False
) -> dict[str, Tensor]:
    """DS and V of each row, (B,) float64. `lse_BHT` is the float32 log-sum-exp of all causal logits of a query row.

    The weights exist a block of query rows at a time; rows that see no token as far back as T / 4 are skipped.
    `low_memory`: hold few of them at a time.
    """
    B, H, T, D = q_BHTD.shape
    G = k_BGTD.shape[1]
    far = max(1, T // FAR_SHARE)
    elements = LOW_MEMORY_ELEMENTS if low_memory else BLOCK_ELEMENTS[q_BHTD.device.type]
    block = max(1, elements // (B * H * max(1, T - far)))
    total_BH = q_BHTD.new_zeros(B, H, dtype=torch.float64)
    squares_BH = torch.zeros_like(total_BH)
    for start in range(far, T, block):
        stop = min(start + block, T)
        # Query row t sees the keys 0 .. t - far, so the block needs those up to its own last row's.
        keys = stop - far
        q_BGRCD = q_BHTD[:, :, start:stop].float().reshape(B, G, H // G, stop - start, D) * scaling
        logits_BGRCK = q_BGRCD @ k_BGTD[:, :, None, :keys].float().mT
        weights_BHCK = (logits_BGRCK.reshape(B, H, stop - start, keys) - lse_BHT[:, :, start:stop, None]).exp_()
        row = torch.arange(start, stop, device=q_BHTD.device).unsqueeze(1)
        weights_BHCK.masked_fill_(torch.arange(keys, device=q_BHTD.device) > row - far, 0.0)
        total_BH += weights_BHCK.sum(dim=(2, 3), dtype=torch.float64)
        squares_BH += weights_BHCK.square_().sum(dim=(2, 3), dtype=torch.float64)
    pairs = (T - far) * (T - far + 1) / 2
    variance_BH = squares_BH / pairs - (total_BH / pairs).square()
    return {"longattn_ds": (total_BH / T).mean(dim=1), "longattn_v": variance_BH.mean(dim=1)}
