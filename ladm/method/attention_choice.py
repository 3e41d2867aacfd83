"""A device and `--attention` -> the name of the fused attention kernel that is used, as it is recorded with a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladm.errors import LadmError, one_line, raise_if_out_of_memory
from ladm.method.attention import causal_attention
from ladm.method.attention_packages import PACKAGES, fa3_needs_no_fetching

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


_FASTEST_FIRST = {
    # Hopper, as measured with heads of 64 and 32,768 tokens, the fastest of five runs: a document takes 0.88 times as
    # long with FlashAttention 4 as with cuDNN, and 0.90 times with FlashAttention 3.
    9: ("fa4", "fa3", "cudnn", "flash-attn", "flash", "efficient"),
    # Blackwell: FlashAttention 4 is made for it, and published as up to 1.3 times as fast as cuDNN.
    10: ("fa4", "cudnn", "flash-attn", "flash", "efficient"),
}
"""By the major number of the compute capability."""
_ON_OTHER_DEVICES = ("flash-attn", "flash", "efficient")
_PROBE_TOKENS = 160
"""More than a tile of each kernel, and no multiple of one."""
_PROBE_TOLERANCE = 5e-2
"""For half precision. A wrong base, scaling, mask or grouping of heads causes ten times this error."""


@dataclass(frozen=True, kw_only=True)
class AttentionChoice:
    """A kernel, and why others that should be faster are not used."""

    kernel: str
    passed_over: tuple[str, ...] = ()
    """A line to print for each kernel that is installed and does not work."""


def attention_kernel(
    device: str,
    dtype: torch.dtype,
    *,
    requested: str = "auto",
    head_size: int | None = None,
    group_size: int | None = None,
) -> str:
    """The name of the kernel that `choose_attention` chooses."""
    return choose_attention(device, dtype, requested=requested, head_size=head_size, group_size=group_size).kernel


def choose_attention(
    device: str,
    dtype: torch.dtype,
    *,
    requested: str = "auto",
    head_size: int | None = None,
    group_size: int | None = None,
    recorded: str | None = None,
    elsewhere: bool = False,
    check: bool = True,
) -> AttentionChoice:
    """The fused kernel for a device such as `cuda:0`, as it is recorded with a run.

    `auto` on CUDA in half precision is the fastest installed kernel that computes a short attention correctly with the
    heads of the model, of which `group_size` query heads share a key head. One that does not is passed over, and none
    is fetched. A run that was started with the kernel `recorded` keeps it where it is installed. `elsewhere`: other
    machines will use the choice. Without `check` nothing is computed.

    Raises LadmError for a device that has none that returns its log-sum-exp, or not the requested one.
    """
    kind = device.split(":")[0]
    if kind not in _OF_DEVICE:
        raise LadmError(f"device {kind!r} is not supported: no fused attention there returns its log-sum-exp")
    there = _OF_CUDA_IN_FLOAT32 if kind == "cuda" and dtype == torch.float32 else _OF_DEVICE[kind]
    if requested != "auto":
        if requested not in there:
            spelt = str(dtype).removeprefix("torch.")
            raise LadmError(
                f"--attention {requested} does not work on {kind} in {spelt}; choose from {', '.join(there)}"
            )
        package = PACKAGES.get(requested)
        if package is not None and not package.is_there():
            raise LadmError(
                f"--attention {requested}: {package.name} is not installed, or not for this torch; {package.remedy}"
            )
        return AttentionChoice(kernel=there[requested])
    if len(there) == 1:
        # Without an alternative there is nothing to choose, and the model is compared with the stock one when it loads.
        return AttentionChoice(kernel=next(iter(there.values())))
    candidates = _candidates(device, head_size, elsewhere=elsewhere)
    kept = [name for name in candidates if there[name] == recorded]
    if kept:
        # Not tried again: it has passed before, and the model is compared with the stock one whenever it loads.
        return AttentionChoice(kernel=there[kept[0]])
    passed_over: list[str] = []
    for name in candidates:
        problem = None
        if check:
            problem = kernel_problem(
                there[name], device=device, dtype=dtype, head_size=head_size, group_size=group_size
            )
        if problem is None:
            return AttentionChoice(kernel=there[name], passed_over=tuple(passed_over))
        passed_over.append(f"attention {name} does not work here and is skipped: {problem}")
    raise LadmError(f"no attention kernel works on {device} in {str(dtype).removeprefix('torch.')}: {passed_over[-1]}")


def kernel_problem(
    kernel: str, *, device: str, dtype: torch.dtype, head_size: int | None, group_size: int | None = None
) -> str | None:
    """What is wrong with a kernel, by a short random attention that is also computed plainly; None: nothing.

    Raises LackOfMemoryError where memory is at fault, not the kernel.
    """
    q, k, v = _probe(device, dtype, head_size or 64, group_size or 2)
    scaling = q.shape[-1] ** -0.5
    try:
        out, lse = causal_attention(q, k, v, scaling=scaling, kernel=kernel)
        expected_out, expected_lse = _plain_attention(q, k, v, scaling)
        found = {
            "output": (out.float() - expected_out).abs().max().item(),
            "log-sum-exp": (lse - expected_lse).abs().max().item(),
        }
    # A kernel's compiler and whatever it loads raise exceptions of their own.
    except Exception as error:
        raise_if_out_of_memory(error, action=f"try the attention kernel {kernel}")
        return one_line(error)
    # Not `>`, which is also false for NaN.
    wrong = [f"its {name} is off by {off:.2g}" for name, off in found.items() if not off <= _PROBE_TOLERANCE]
    return " and ".join(wrong) or None


def _candidates(device: str, head_size: int | None, *, elsewhere: bool) -> list[str]:
    """The kernels that can be used on a CUDA device in half precision, the fastest first."""
    major = torch.cuda.get_device_capability(device)[0] if torch.cuda.is_available() else 0
    return [
        name
        for name in _FASTEST_FIRST.get(major, _ON_OTHER_DEVICES)
        if _is_available(name, device, head_size, elsewhere=elsewhere)
    ]


def _is_available(name: str, device: str, head_size: int | None, *, elsewhere: bool) -> bool:
    if name == "cudnn":
        return _prefers_cudnn(device) and head_size is not None and head_size % 8 == 0 and head_size <= 128
    if name == "fa3":
        # Only what the user asks for is fetched, and another machine may not have it in its cache.
        return not elsewhere and fa3_needs_no_fetching()
    return name not in PACKAGES or PACKAGES[name].is_there()


def _probe(device: str, dtype: torch.dtype, head_size: int, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of a short input, with heads behind tokens in memory, as a model has them.

    FlashAttention 4 is compiled for each `group_size`, so that of the model saves compiling it twice.
    """
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(1, _PROBE_TOKENS, 2 * n, head_size, generator=generator, dtype=torch.float32)
        for n in (group_size, 1, 1)
    )
    return tuple(x.to(device, dtype).transpose(1, 2) for x in (q, k, v))  # type: ignore[return-value]


def _plain_attention(q: Tensor, k: Tensor, v: Tensor, scaling: float) -> tuple[Tensor, Tensor]:
    """Causal attention in float32 by plain operators, and its log-sum-exp."""
    repeats = q.shape[1] // k.shape[1]
    keys, values = (x.float().repeat_interleave(repeats, dim=1) for x in (k, v))
    later = torch.ones(q.shape[-2], q.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    logits = (scaling * q.float() @ keys.mT).masked_fill(later, -torch.inf)
    return logits.softmax(dim=-1) @ values, logits.logsumexp(dim=-1)


def _prefers_cudnn(device: str) -> bool:
    """Would torch's own scaled_dot_product_attention choose cuDNN first on this device?"""
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if not torch.cuda.is_available() or (cudnn or 0) <= NEWEST_CUDNN_PASSED_OVER:
        return False
    return torch.cuda.get_device_capability(device) in ((9, 0), (10, 0))
