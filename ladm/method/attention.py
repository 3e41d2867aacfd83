"""q, k, v -> causal attention and its log-sum-exp, from the fused kernel of the device.

Shape suffixes: B rows, H query heads, G key/value heads, R = H / G, T tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ladm.method.attention_packages import fa3_kernel, fa4_function

AttentionKernel = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]


def causal_attention(
    q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, *, scaling: float, kernel: str
) -> tuple[Tensor, Tensor]:
    """softmax(scaling * q k^T + causal mask) v, and the log-sum-exp of its logits.

    Query head h reads key head h // R; keys are never copied for it. The heads of v may be smaller than those of q.

    Returns:
        (B, H, T, head size of v) in the dtype of q, heads behind tokens in memory where the kernel allows, and
        (B, H, T) float32, natural logarithm.
    """
    smaller = max(0, q_BHTD.shape[-1] - v_BGTD.shape[-1])
    if smaller:
        # Multi-head latent attention (DeepSeek) has smaller values, and most kernels take one size only. Zeros behind
        # the values put zeros behind the output.
        v_BGTD = torch.nn.functional.pad(v_BGTD, (0, smaller))
    # FlashAttention 4 launches on the current device, which may not be the one that holds the tensors.
    with torch.cuda.device_of(q_BHTD):
        out_BHTD, lse_BHT = _KERNELS[kernel](q_BHTD, k_BGTD, v_BGTD, scaling)
    return out_BHTD[..., : out_BHTD.shape[-1] - smaller], lse_BHT


def _as_groups(kernel: AttentionKernel) -> AttentionKernel:
    """For a kernel that wants as many key heads as query heads.

    The groups of heads are passed as rows, and the keys of a group are shared by a stride of 0.
    """

    def grouped(q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
        B, H, T, D = q_BHTD.shape
        G = k_BGTD.shape[1]
        R = H // G
        q = q_BHTD.reshape(B * G, R, T, D)
        k, v = (x.reshape(B * G, 1, T, x.shape[-1]).expand(-1, R, -1, -1) for x in (k_BGTD, v_BGTD))
        out, lse = kernel(q, k, v, scaling)
        by_token = out.view(B, G, *out.shape[1:]).permute(0, 3, 1, 2, 4).reshape(B, T, H, -1)
        return by_token.transpose(1, 2), lse[..., :T].reshape(B, H, T)

    return grouped


def _flash_cpu(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True, scale=scaling)
    return out, lse


def _efficient_cuda(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, True, 0.0, True, scale=scaling)
    return out, lse


def _fa3(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    by_token = (x.transpose(1, 2) for x in (q, k, v))
    out, lse, *_ = fa3_kernel().flash_attn_func(*by_token, softmax_scale=scaling, causal=True, return_attn_probs=True)
    return out.transpose(1, 2), lse[..., : q.shape[-2]]


def _fa4(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    D = q.shape[-1]
    by_token = (x.transpose(1, 2) for x in _pad_heads_to_eights(q, k, v))
    out, lse = fa4_function()(*by_token, softmax_scale=scaling, causal=True, return_lse=True)
    return out[..., :D].transpose(1, 2), lse


def _pad_heads_to_eights(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Heads whose size is a multiple of 8: zeros behind them change neither a logit nor the output."""
    more = -tensors[0].shape[-1] % 8
    return tuple(torch.nn.functional.pad(x, (0, more)) for x in tensors) if more else tensors


def _flash_cuda(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    T, D = q.shape[-2:]
    q, k, v = _pad_heads_to_eights(q, k, v)
    out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, True, False, scale=scaling)
    return out[..., :D], lse[..., :T]


def _cudnn_cuda(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    out, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q, k, v, None, True, 0.0, True, False, scale=scaling
    )
    return out, lse.reshape(q.shape[:-1])


def _flash_attn(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    from flash_attn import flash_attn_func

    by_token = (x.transpose(1, 2) for x in (q, k, v))
    out, lse, _ = flash_attn_func(*by_token, softmax_scale=scaling, causal=True, return_attn_probs=True)
    return out.transpose(1, 2), lse[..., : q.shape[-2]]


_KERNELS: dict[str, AttentionKernel] = {
    "aten-flash-cpu": _as_groups(_flash_cpu),
    "aten-flash-cuda": _flash_cuda,
    "aten-cudnn-cuda": _cudnn_cuda,
    "aten-efficient-cuda": _as_groups(_efficient_cuda),
    "flash-attn": _flash_attn,
    "fa3": _fa3,
    "fa4": _fa4,
}
