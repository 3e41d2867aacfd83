"""q, k, v -> causal attention and its log-sum-exp, from the fused kernel of the device.

Shape suffixes: B rows, H query heads, G key/value heads, R = H / G, T tokens, D head size.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ladm.errors import LadmError, install_hint

AttentionKernel = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
NEWEST_CUDNN_PASSED_OVER = 91500
"""Up to this version of cuDNN torch itself prefers flash attention."""


def attention_kernel(device: str, dtype: torch.dtype, *, requested: str = "auto", head_size: int | None = None) -> str:
    """The name of the fused kernel for a device such as `cuda:0`, as it is recorded with a run.

    `auto` on CUDA in half precision: cuDNN's where torch would choose it too and it can do the head
    size, else the package flash-attn where it is installed, else torch's flash attention.

    Raises LadmError for a device that has none that returns its log-sum-exp, or not the requested one.
    """
    kind = device.split(":")[0]
    if kind not in _OF_DEVICE:
        raise LadmError(f"device {kind!r} is not supported: no fused attention there returns its log-sum-exp")
    if requested != "auto":
        there = _OF_DEVICE[kind] if kind == "cpu" or dtype != torch.float32 else _OF_CUDA_IN_FLOAT32
        if requested not in there:
            spelt = str(dtype).removeprefix("torch.")
            raise LadmError(f"--attention {requested} does not go with {kind} in {spelt}; there is {', '.join(there)}")
        package = _PACKAGES.get(requested)
        if package is not None and not package.is_there():
            raise LadmError(
                f"--attention {requested}: {package.name} is not installed, or not for this torch; {package.remedy}"
            )
        return there[requested]
    if kind == "cpu":
        return "aten-flash-cpu"
    if dtype == torch.float32:
        return "aten-efficient-cuda"
    if _prefers_cudnn(device) and head_size is not None and head_size % 8 == 0 and head_size <= 128:
        return "aten-cudnn-cuda"
    return "flash-attn" if _has_flash_attn() else "aten-flash-cuda"


def causal_attention(
    q_BHTD: Tensor, k_BGTD: Tensor, v_BGTD: Tensor, *, scaling: float, kernel: str
) -> tuple[Tensor, Tensor]:
    """softmax(scaling * q k^T + causal mask) v, and the log-sum-exp of its logits.

    Query head h reads key head h // R; keys are never copied for it.

    Returns:
        (B, H, T, D) in the dtype of q, heads behind tokens in memory where the kernel allows, and
        (B, H, T) float32, natural logarithm.
    """
    return _KERNELS[kernel](q_BHTD, k_BGTD, v_BGTD, scaling)


def _has_flash_attn() -> bool:
    """Is the package there, and does it fit this torch?"""
    try:
        from flash_attn import flash_attn_func  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def _has_fa3() -> bool:
    """Is there the package through which the kernel comes? The kernel itself is fetched when it is first used."""
    return importlib.util.find_spec("kernels") is not None


def _has_fa4() -> bool:
    """Does torch know FlashAttention 4, and is its package there?"""
    from torch.nn import attention

    if not hasattr(attention, "activate_flash_attention_impl"):
        return False
    try:
        import flash_attn.cute.interface  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class _Package:
    """A package that a kernel comes from."""

    name: str
    remedy: str
    is_there: Callable[[], bool]


_PACKAGES = {
    # A function each, so that the one of the module at the time of the call is used.
    "flash-attn": _Package(name="the package", remedy=install_hint("flash"), is_there=lambda: _has_flash_attn()),
    "fa3": _Package(name="the package kernels", remedy="run pip install kernels", is_there=lambda: _has_fa3()),
    "fa4": _Package(name="FlashAttention 4", remedy="run pip install --pre flash-attn-4", is_there=lambda: _has_fa4()),
}


def _prefers_cudnn(device: str) -> bool:
    """Would torch's own scaled_dot_product_attention choose cuDNN first on this device?"""
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if not torch.cuda.is_available() or (cudnn or 0) <= NEWEST_CUDNN_PASSED_OVER:
        return False
    return torch.cuda.get_device_capability(device) in ((9, 0), (10, 0))


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


def _flash_cuda(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    _use_implementation(None)
    return _aten_flash(q, k, v, scaling)


def _fa4(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    _use_implementation("FA4")
    return _aten_flash(q, k, v, scaling)


def _use_implementation(name: str | None) -> None:
    """Have torch's flash operator run FlashAttention 4, or its own kernel: one for the whole process at a time."""
    global _active_implementation
    if name == _active_implementation:
        return
    from torch.nn import attention

    if name is None:
        attention.restore_flash_attention_impl()
    else:
        attention.activate_flash_attention_impl(name)
    _active_implementation = name


_active_implementation: str | None = None


def _fa3(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    by_token = (x.transpose(1, 2) for x in (q, k, v))
    out, lse, *_ = _fa3_kernel().flash_attn_func(*by_token, softmax_scale=scaling, causal=True, return_attn_probs=True)
    return out.transpose(1, 2), lse[..., : q.shape[-2]]


@lru_cache(maxsize=1)
def _fa3_kernel() -> Any:
    from kernels import get_kernel

    return get_kernel("kernels-community/flash-attn3", version=1)


def _aten_flash(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    T, D = q.shape[-2:]
    if D % 8:
        q, k, v = (torch.nn.functional.pad(x, (0, 8 - D % 8)) for x in (q, k, v))
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


_OF_CUDA_IN_FLOAT32 = {"efficient": "aten-efficient-cuda"}
_OF_DEVICE = {
    "cpu": {"flash": "aten-flash-cpu"},
    "cuda": {
        "flash": "aten-flash-cuda",
        "cudnn": "aten-cudnn-cuda",
        "flash-attn": "flash-attn",
        "fa3": "fa3",
        "fa4": "fa4",
        **_OF_CUDA_IN_FLOAT32,
    },
}
_KERNELS: dict[str, AttentionKernel] = {
    "aten-flash-cpu": _as_groups(_flash_cpu),
    "aten-flash-cuda": _flash_cuda,
    "aten-cudnn-cuda": _cudnn_cuda,
    "aten-efficient-cuda": _as_groups(_efficient_cuda),
    "flash-attn": _flash_attn,
    "fa3": _fa3,
    "fa4": _fa4,
}
