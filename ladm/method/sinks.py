"""A layer's q and k -> how much of its long-range attention falls on a handful of keys: attention sinks.

Sinks are tokens, often function words, that receive most of the attention of distant tokens while their value vectors
are small: a way to attend to nothing. Where their spans fall on the grid decides a layer's CDS, so a layer with a
large sink mass measures little of the text.

Shape suffixes: B rows, H query heads, G key/value heads, R = H / G, T tokens, D head size, Q sampled query rows.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

SAMPLED_QUERIES = 8
"""Query rows that are looked at, evenly spaced over the second half of the document: enough to find keys that receive
most of the attention. Each costs a pass over all keys."""
FAR_TOKENS = 64
"""Attention to a key at least this far back counts."""
STRONGEST_PER_1024 = 6
"""Of every 1,024 keys, the share of this many strongest ones is the sink mass."""


# Made once for each length and device. Eight numbers each, so that a bound on their number will do.
@lru_cache(maxsize=256)
def sampled_queries(T: int, device: torch.device) -> Tensor:
    """The query rows that are looked at, the last one first: (Q,) int64."""
    count = min(SAMPLED_QUERIES, T)
    # From the last token back over half of the document: later rows have more to look back at.
    return T - 1 - torch.arange(count, device=device) * max(1, T // 2) // count


def far_key_mass(q_BHTD: Tensor, k_BGTD: Tensor, *, scaling: float, skipped_tokens: int) -> Tensor:
    """Attention that sampled query rows pay to each key, a sum over these rows: (B, H, T) float32.

    Keys closer than 64 tokens to the query, and the first `skipped_tokens` (span 0 and what stands before it), count 0.
    """
    B, H, T, D = q_BHTD.shape
    G = k_BGTD.shape[1]
    rows_Q = sampled_queries(T, q_BHTD.device)
    count = len(rows_Q)
    q_BGXD = q_BHTD[:, :, rows_Q].float().reshape(B, G, H // G * count, D) * scaling
    logits_BHQT = (q_BGXD @ k_BGTD.float().mT).view(B, H, count, T)
    back_QT = rows_Q.unsqueeze(1) - torch.arange(T, device=q_BHTD.device)
    weights_BHQT = logits_BHQT.masked_fill_(back_QT < 0, -torch.inf).softmax(dim=-1)
    mass_BHT = weights_BHQT.masked_fill_(back_QT < FAR_TOKENS, 0.0).sum(dim=2)
    mass_BHT[..., :skipped_tokens] = 0.0
    return mass_BHT


def strongest_keys(T: int) -> int:
    """How many keys of a row of T tokens count as its strongest: 6 of every 1,024, and at least one."""
    return min(T, max(1, round(T * STRONGEST_PER_1024 / 1024)))


def sink_mass(mass_XT: Tensor) -> Tensor:
    """Share of the mass on its strongest keys, 6 of every 1,024: (..., T) -> (...); 0 where no key is far enough back.

    For a head, pass its own `far_key_mass`; for a layer, the mean over its heads.
    """
    total_X = mass_XT.sum(dim=-1)
    top_X = mass_XT.topk(strongest_keys(mass_XT.shape[-1]), dim=-1).values.sum(dim=-1)
    return torch.where(total_X == 0, 0.0, top_X / total_X.clamp(min=1e-30))
