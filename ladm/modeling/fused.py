"""A loaded decoder of Llama's kind -> the same decoder with the elementwise work of its layers in fused kernels.

Between two matrix products a stock layer reads and writes its activations many times: RMSNorm in seven kernels, the
rotary embedding in ten, SiLU times gate in two, two residual additions. Here each takes one kernel, of `fused_triton`
or of liger-kernel, and the residual is added by the matrix product itself. Unfused they take 80 of the 370 ms of a
forward pass over 32,768 tokens of a model of TinyLlama's shape on an H200.

Only the layers of the one model are given another `forward`; its class stays as it is, and `restore` undoes it.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size, E width, I inner width of the MLP.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ladm.errors import LadmError, UsageError, install_hint

FUSED_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose layers are: norm, attention with rotary embedding, residual, norm, SwiGLU, residual."""
_ACTIVATIONS = ("silu", "swish")
"""Names of the activation in SwiGLU. A model of one of the families may have another."""

AttentionFunction = Callable[..., tuple[Tensor, Any]]


@dataclass(frozen=True, kw_only=True)
class _Kernels:
    """The three operations, as functions of tensors alone: no backward pass is recorded."""

    rms_norm: Callable[..., Any]
    rotary: Callable[..., Any]
    silu_mul: Callable[..., Any]


def resolve_fused(
    requested: str, *, device: str, dtype: torch.dtype, model_type: str, activation: str | None = "silu"
) -> str:
    """`--fused` -> `triton`, `liger` or `none`, as it is recorded with a run.

    `auto` is `triton` on CUDA in half precision, for a family that is known here. In float32 the stock layers run, so
    that float32 stays the reference.

    Raises UsageError for fused kernels in float32, and LadmError where they cannot be used.
    """
    if requested == "none" or (requested == "auto" and (dtype == torch.float32 or not device.startswith("cuda"))):
        return "none"
    if dtype == torch.float32:
        raise UsageError(f"--fused {requested} is for bfloat16 and float16; float32 always runs the stock layers")
    kernels = "triton" if requested == "auto" else requested
    problem = _why_not(kernels, device, model_type, activation)
    if problem is None:
        return kernels
    if requested == "auto":
        return "none"
    raise LadmError(f"--fused {requested}: {problem}")


def _why_not(kernels: str, device: str, model_type: str, activation: str | None) -> str | None:
    """Why these kernels cannot be used; None: they can."""
    if not device.startswith("cuda") and os.environ.get("TRITON_INTERPRET") != "1":
        return f"its kernels need a CUDA device, not {device}"
    if model_type not in FUSED_MODEL_TYPES:
        return f"there are no fused layers for {model_type} models, only for {', '.join(FUSED_MODEL_TYPES)}"
    if activation not in _ACTIVATIONS:
        return f"there are no fused layers for models with {activation}, only for those with silu"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if kernels == "liger" and importlib.util.find_spec("liger_kernel") is None:
        return f"liger-kernel is not installed; {install_hint('fast')}"
    return None


class FusedLayers:
    """The layers of one model, with a forward of their own until `restore`. Inference only: they work in place."""

    def __init__(self, model: Any, *, kernels: str, attention: AttentionFunction) -> None:
        """`model` is of a family that `resolve_fused` accepts."""
        self._layers = list(model.layers)
        self._forward = partial(_layer_forward, kernels=_KERNELS[kernels](), attention=attention)
        self.apply()

    def apply(self) -> None:
        """Use the fused forward in every layer."""
        for layer in self._layers:
            # An attribute of the instance hides the method of the class, which other models keep.
            layer.forward = partial(self._forward, layer)

    def restore(self) -> None:
        """Use the stock forward again."""
        for layer in self._layers:
            del layer.forward


def _triton_kernels() -> _Kernels:
    # Imported only when they are used: triton is missing on some platforms.
    from ladm.modeling import fused_triton

    return _Kernels(rms_norm=fused_triton.rms_norm, rotary=fused_triton.rotary, silu_mul=fused_triton.silu_mul)


def _liger_kernels() -> _Kernels:
    from liger_kernel.ops.rms_norm import rms_norm_forward
    from liger_kernel.ops.rope import rope_forward
    from liger_kernel.ops.swiglu import swiglu_forward

    def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
        # "llama": the mean square in float32, the product with the weight in the dtype of the model, as transformers.
        normed: Tensor = rms_norm_forward(x, weight, eps, 0.0, "llama", None)[0]
        return normed

    def rotary(q_BHTD: Tensor, k_BGTD: Tensor, cos_BTD: Tensor, sin_BTD: Tensor) -> tuple[Tensor, Tensor]:
        # Unlike the other two it launches on the current device, which may not be the one that holds the tensors.
        with torch.cuda.device_of(q_BHTD):
            q_BHTD, k_BGTD, *_ = rope_forward(q_BHTD, k_BGTD, cos_BTD, sin_BTD)
        return q_BHTD, k_BGTD

    def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
        product: Tensor = swiglu_forward(gate, up)[2]
        return product

    return _Kernels(rms_norm=rms_norm, rotary=rotary, silu_mul=silu_mul)


_KERNELS = {"triton": _triton_kernels, "liger": _liger_kernels}


def _layer_forward(
    layer: Any,
    hidden_BTE: Tensor,
    attention_mask: Tensor | None = None,
    position_embeddings: tuple[Tensor, Tensor] | None = None,
    *,
    kernels: _Kernels,
    attention: AttentionFunction,
    **more: Any,
) -> Tensor:
    """The forward of a decoder layer; `hidden_BTE` is overwritten with the result."""
    assert position_embeddings is not None
    norm = layer.input_layernorm
    mixed = _attend(
        layer.self_attn, kernels.rms_norm(hidden_BTE, norm.weight, norm.variance_epsilon), position_embeddings,
        attention_mask, kernels=kernels, attention=attention, **more,
    )  # fmt: skip
    _add_linear(hidden_BTE, mixed, layer.self_attn.o_proj)
    norm, mlp = layer.post_attention_layernorm, layer.mlp
    normed = kernels.rms_norm(hidden_BTE, norm.weight, norm.variance_epsilon)
    return _add_linear(hidden_BTE, kernels.silu_mul(mlp.gate_proj(normed), mlp.up_proj(normed)), mlp.down_proj)


def _attend(
    module: Any,
    x_BTE: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None,
    *,
    kernels: _Kernels,
    attention: AttentionFunction,
    **more: Any,
) -> Tensor:
    """What the heads of a layer read, side by side, before the output projection: (B, T, H D)."""
    by_head = (*x_BTE.shape[:-1], -1, module.head_dim)
    q_BTHD, k_BTGD, v_BTGD = (p(x_BTE).view(by_head) for p in (module.q_proj, module.k_proj, module.v_proj))
    if hasattr(module, "q_norm"):
        q_BTHD = kernels.rms_norm(q_BTHD, module.q_norm.weight, module.q_norm.variance_epsilon)
        k_BTGD = kernels.rms_norm(k_BTGD, module.k_norm.weight, module.k_norm.variance_epsilon)
    q_BHTD, k_BGTD = kernels.rotary(q_BTHD.transpose(1, 2), k_BTGD.transpose(1, 2), *position_embeddings)
    # Qwen's layers have a window each, Mistral's share the one of the configuration, and Llama has none.
    window = getattr(module, "sliding_window", getattr(module.config, "sliding_window", None))
    out_BTHD, _ = attention(
        module, q_BHTD, k_BGTD, v_BTGD.transpose(1, 2), attention_mask, scaling=module.scaling, sliding_window=window,
        **more,
    )  # fmt: skip
    return out_BTHD.reshape(x_BTE.shape[0], x_BTE.shape[1], -1)


def _add_linear(residual_BTE: Tensor, x_BTI: Tensor, linear: torch.nn.Linear) -> Tensor:
    """residual += linear(x), by the matrix product itself: it adds to what its output held before."""
    rows = residual_BTE.view(-1, residual_BTE.shape[-1])
    rows.addmm_(x_BTI.reshape(-1, x_BTI.shape[-1]), linear.weight.mT)
    if linear.bias is not None:
        rows.add_(linear.bias)
    return residual_BTE
