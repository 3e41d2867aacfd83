"""The released algorithm, an independent and equally plain implementation: the baseline of `score.py`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, AutoModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ladm.method.grid import Grid


class Released:
    """The released algorithm around the stock attention: direct softmaxes, one scored span at a time."""

    def __init__(self, folder: str, dtype: torch.dtype, device: str) -> None:
        AttentionInterface.register("released_baseline", self._attention)
        AttentionMaskInterface.register("released_baseline", sdpa_mask)
        self.model = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="released_baseline")
        self.model.to(device).eval()

    @torch.inference_mode()
    def cds(self, ids_BT: Tensor, grid: Grid) -> Tensor:
        found: list[Tensor] = []
        self.model(input_ids=ids_BT, use_cache=False, bench=(found, grid))
        return torch.stack(found).cpu()

    @staticmethod
    def _attention(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Any, *, bench: Any, **kw: Any) -> Any:
        found, grid = bench
        keys = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        per_span = []
        for row, j in enumerate(grid.J):
            at = grid.tokens(j)
            logits = torch.matmul(q[:, :, at], keys[:, :, : at.start].transpose(2, 3)) * kw["scaling"]
            weights = logits.softmax(dim=-1, dtype=torch.float32).sum(dim=2).mean(dim=1)[0]
            earlier = torch.stack([weights[grid.tokens(i)].sum() for i in grid.I[row]])
            distance = torch.tensor([(j - i) * grid.l / grid.T for i in grid.I[row]], device=q.device)
            per_span.append(earlier.std() * (earlier * distance).sum() * at.start / grid.T)
        found.append(torch.stack(per_span).mean())
        return sdpa_attention_forward(module, q, k, v, mask, **kw)
