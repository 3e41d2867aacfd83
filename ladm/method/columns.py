"""What is stored of a layer beside PFS, by the chosen backend: value weights, and the attention to far keys.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size.
"""

from __future__ import annotations

from torch import Tensor

from ladm.method import focus, sinks


def value_weights(v_BGTD: Tensor, *, backend: str) -> Tensor:
    """`focus.value_weights`: (B, G, T) float32."""
    if backend != "triton":
        return focus.value_weights(v_BGTD)
    # Imported only when it is used: triton is missing on some platforms.
    from ladm.method import columns_triton

    return columns_triton.value_weights(v_BGTD)


def far_key_mass(
    q_BHTD: Tensor, k_BGTD: Tensor, lse_BHT: Tensor | None, *, scaling: float, skipped_tokens: int, backend: str
) -> Tensor:
    """`sinks.far_key_mass`: (B, H, T) float32. `lse_BHT`: float32 log-sum-exp of the causal logits, if known."""
    if backend != "triton" or lse_BHT is None:
        return sinks.far_key_mass(q_BHTD, k_BGTD, scaling=scaling, skipped_tokens=skipped_tokens)
    from ladm.method import columns_triton

    return columns_triton.far_key_mass(q_BHTD, k_BGTD, lse_BHT, scaling=scaling, skipped_tokens=skipped_tokens)
