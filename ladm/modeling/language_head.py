"""The last hidden states of a causal language model -> losses of its tokens, the logits a chunk of tokens at a time.

Shape suffixes: B rows, T tokens, C tokens of a chunk, W tokens with a loss, E width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ladm.errors import LadmError

FINITE_REMEDY = "its weights are damaged, or it needs another --dtype, such as float32"
CHECKED_TOKENS = 48
CHUNK_LOGITS = {"cpu": 1 << 25, "cuda": 1 << 27}
"""Logits at a time, by device: 128 MiB and 512 MiB of float32. B x T x V of them would be 4 GiB and more a row."""


@dataclass(frozen=True, kw_only=True)
class LanguageHead:
    """The output projection of a model, and the cap that some families put on the logits."""

    module: Any
    softcap: float | None

    def logits(self, hidden_BCE: Tensor) -> Tensor:
        """The logits that the model itself computes from hidden states, in float32: (B, C, V)."""
        logits: Tensor = self.module(hidden_BCE).float()
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    @torch.inference_mode()
    def losses(self, hidden_BWE: Tensor, targets_BW: Tensor, *, low_memory: bool = False) -> Tensor:
        """-ln p of each target, from the hidden state of the token before it: (B, W) float32, on the device."""
        rows, count = targets_BW.shape
        vocabulary = self.module.weight.shape[0]
        chunk = max(1, CHUNK_LOGITS[hidden_BWE.device.type] // (rows * vocabulary * (8 if low_memory else 1)))
        losses = []
        for start in range(0, count, chunk):
            logits_BCV = self.logits(hidden_BWE[:, start : start + chunk])
            targets_BC = targets_BW[:, start : start + chunk]
            # The vocabulary is the last dimension: along another one torch adds number by number, and the sum of
            # 50,000 in float32 is off by 1e-4.
            of_each = torch.nn.functional.cross_entropy(
                logits_BCV.flatten(0, 1), targets_BC.flatten(), reduction="none"
            )
            losses.append(of_each.view_as(targets_BC))
        return torch.cat(losses, dim=1) if losses else hidden_BWE.new_zeros(rows, 0, dtype=torch.float32)

    def check(
        self, name: str, *, model_type: str, vocab_size: int, both_logits: Callable[[Tensor], tuple[Tensor, Tensor]]
    ) -> None:
        """Raise LadmError unless logits made piece by piece are finite and equal the model's own.

        Some families do more in their head than this class.

        `both_logits`: ids (1, T) -> the model's own logits, and those of `logits`.
        """
        ids_BT = torch.arange(CHECKED_TOKENS).unsqueeze(0) % vocab_size
        own, ours = both_logits(ids_BT)
        if not torch.isfinite(own).all():
            raise LadmError(f"{name}: its logits are not finite; {FINITE_REMEDY}")
        if not torch.allclose(ours, own, rtol=1e-2, atol=1e-2 * float(own.abs().max())):
            raise LadmError(f"{name}: the head of this {model_type} is not a linear one")


def head_of(model: Any) -> LanguageHead:
    """The head of a loaded causal language model."""
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return LanguageHead(module=model.get_output_embeddings(), softcap=cap)
