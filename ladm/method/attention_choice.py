"""A device and `--attention` -> the name of the fused attention kernel that is used, as it is recorded with a run."""

from __future__ import annotations

import torch

from ladm.errors import LadmError
from ladm.method.attention_packages import PACKAGES

NEWEST_CUDNN_PASSED_OVER = 91500
"""Up to this version of cuDNN torch itself prefers flash attention."""
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
        package = PACKAGES.get(requested)
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
    return "flash-attn" if PACKAGES["flash-attn"].is_there() else "aten-flash-cuda"


def _prefers_cudnn(device: str) -> bool:
    """Would torch's own scaled_dot_product_attention choose cuDNN first on this device?"""
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if not torch.cuda.is_available() or (cudnn or 0) <= NEWEST_CUDNN_PASSED_OVER:
        return False
    return torch.cuda.get_device_capability(device) in ((9, 0), (10, 0))
