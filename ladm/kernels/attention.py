"""q, k, v -> causal attention and its log-sum-exp, from the fused kernel of the device.

Shape suffixes: B rows, H query heads, G key/value heads, R = H / G, T tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ladm.errors import LadmError

AttentionKernel = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def attention_kernel(device_type: str, dtype: torch.dtype) -> str:
    """The name of the fused kernel for a device and dtype, as it is recorded with a run.

    Raises LadmError for a device that has none that returns its log-sum-exp.
    """
    if device_type == "cpu":
        return "aten-flash-cpu"
    if device_type == "cuda":
        return "aten-efficient-cuda" if dtype == torch.float32 else "aten-flash-cuda"
    raise LadmError(f"device {device_type!r} is not supported: no fused attention there returns its log-sum-exp")


def causal_attention(
    q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, *, scaling: float, kernel: str
) -> tuple[Tensor, Tensor]:
    """softmax(scaling * q k^T + causal mask) v, and the log-sum-exp of its logits.

    Query head h reads key head h // R. The groups of heads are passed as rows and the keys of a
    group are shared by a stride of 0, so that grouped keys are never copied.

    Returns:
        (B, H, T, D) in the dtype of q, and (B, H, T) float32, natural logarithm.
    """
    B, H, T, D = q_BHTD.shape
    G = k_BGTD.shape[1]
    R = H // G
    q = q_BHTD.reshape(B * G, R, T, D)
    k, v = (x.reshape(B * G, 1, T, x.shape[-1]).expand(-1, R, -1, -1) for x in (k_BGTD, v_BGTD))
    out, lse = _KERNELS[kernel](q, k, v, scaling)
    return out.reshape(B, H, T, D), lse[..., :T].reshape(B, H, T)


def _flash_cpu(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scaling)
    return out, lse


def _flash_cuda(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    D = q.shape[-1]
    if D % 8:
        q, k, v = (torch.nn.functional.pad(x, (0, 8 - D % 8)) for x in (q, k, v))
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True, False, scale=scaling)
    return out[..., :D], lse


def _efficient_cuda(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, True, scale=scaling)
    return out, lse


_KERNELS: dict[str, AttentionKernel] = {
    "aten-flash-cpu": _flash_cpu,
    "aten-flash-cuda": _flash_cuda,
    "aten-efficient-cuda": _efficient_cuda,
}
