"""Attention with its log-sum-exp: against plain softmaxes where it runs, by its interface where it does not."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor

from ladm.errors import LadmError
from ladm.method import attention
from ladm.method.attention import causal_attention
from ladm.method.attention_choice import attention_kernel, choose_attention, kernel_problem
from support.attention import draw, plain_attention

ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_attention_equals_plain_softmax_and_shares_grouped_keys() -> None:
    q, k, v = draw(2, 6, 2, 77, 24)
    out, lse = causal_attention(q, k, v, scaling=0.3, kernel="aten-flash-cpu")
    expected_out, expected_lse = plain_attention(q, k, v, 0.3)
    assert torch.allclose(out, expected_out, atol=1e-6)
    assert torch.allclose(lse, expected_lse, atol=1e-5)


@pytest.mark.parametrize(
    ("kernel", "dtype", "D"),
    [
        ("aten-flash-cuda", torch.bfloat16, 64),
        ("aten-flash-cuda", torch.float16, 36),
        ("aten-cudnn-cuda", torch.bfloat16, 128),
        ("aten-efficient-cuda", torch.float32, 64),
    ],
)
def test_calls_of_the_cuda_kernels_have_the_shapes_that_torch_says(kernel: str, dtype: torch.dtype, D: int) -> None:
    """By torch's own shape functions, which need no GPU; heads lie behind tokens, so that the model copies nothing."""
    q, k = (torch.empty(2, 100, heads, D, dtype=dtype, device="meta").transpose(1, 2) for heads in (6, 2))
    out, lse = causal_attention(q, k, k, scaling=0.1, kernel=kernel)
    assert (out.shape, lse.shape, lse.dtype) == (q.shape, q.shape[:-1], torch.float32)
    assert D % 8 or out.transpose(1, 2).is_contiguous()


def test_a_kernel_runs_while_the_device_of_its_tensors_is_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlashAttention 4 launches on the current device: with `--device cuda:1` that was another GPU."""
    events: list[Any] = []

    class Recorder:
        def __init__(self, x: Tensor) -> None:
            events.append(x)

        def __enter__(self) -> None:
            events.append("enter")

        def __exit__(self, *_: object) -> None:
            events.append("exit")

    def kernel(q: Tensor, _k: Tensor, _v: Tensor, _scaling: float) -> tuple[Tensor, Tensor]:
        events.append("launch")
        return q, q

    monkeypatch.setattr(torch.cuda, "device_of", Recorder)
    monkeypatch.setitem(attention._KERNELS, "fa4", kernel)
    q, k, v = draw(1, 2, 1, 8, 8)
    causal_attention(q, k, v, scaling=1.0, kernel="fa4")
    assert events[0] is q
    assert events[1:] == ["enter", "launch", "exit"]


def test_flash_attn_is_used_as_its_interface_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in of the package's signature, which takes and gives heads behind tokens."""

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor, *, softmax_scale: float, causal: bool, **more: Any) -> Any:
        assert causal
        assert more == {"return_attn_probs": True}
        out, lse = plain_attention(*(x.transpose(1, 2) for x in (q, k, v)), softmax_scale)
        return out.transpose(1, 2), torch.nn.functional.pad(lse, (0, 3)), None

    package = types.ModuleType("flash_attn")
    package.flash_attn_func = flash_attn_func
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    q, k, v = draw(2, 6, 2, 77, 24)
    out, lse = causal_attention(q, k, v, scaling=0.3, kernel="flash-attn")
    expected_out, expected_lse = plain_attention(q, k, v, 0.3)
    assert torch.allclose(out, expected_out, atol=1e-6)
    assert torch.allclose(lse, expected_lse, atol=1e-5)


def test_a_wrong_log_sum_exp_is_found_before_the_first_row(
    golden_observer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one to the base 2."""

    def in_base_2(*inputs: Any) -> tuple[Tensor, Tensor]:
        out, lse = kernel(*inputs)
        return out, lse / 0.6931

    kernel = attention._KERNELS["aten-flash-cpu"]
    golden_observer.check()
    monkeypatch.setitem(attention._KERNELS, "aten-flash-cpu", in_base_2)
    with pytest.raises(LadmError, match="^aten-flash-cpu gives a wrong log-sum-exp here .* choose another --attention"):
        golden_observer.check()


@ON_CUDA
@pytest.mark.parametrize("D", [32, 64, 80, 128, 256])
@pytest.mark.parametrize("requested", ["flash", "cudnn", "flash-attn", "fa3", "fa4", "efficient"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_kernels_of_a_gpu(requested: str, dtype: torch.dtype, D: int) -> None:
    try:
        kernel = attention_kernel("cuda", dtype, requested=requested)
    except LadmError as error:
        pytest.skip(str(error))
    if requested == "cudnn" and D > 128:
        pytest.skip("cuDNN is not chosen for such heads")
    q, k, v = (x.to("cuda", dtype) for x in draw(2, 6, 2, 333, D))
    out, lse = causal_attention(q, k, v, scaling=D**-0.5, kernel=kernel)
    expected_out, expected_lse = plain_attention(q, k, v, D**-0.5)
    tolerance = 1e-4 if dtype == torch.float32 else 2e-2
    assert torch.allclose(out.float(), expected_out, atol=tolerance)
    assert torch.allclose(lse, expected_lse, atol=tolerance)


@ON_CUDA
@pytest.mark.parametrize("D", [64, 100, 128, 256])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_auto_finds_a_kernel_that_works_on_this_gpu(dtype: torch.dtype, D: int) -> None:
    choice = choose_attention("cuda:0", dtype, head_size=D)
    assert kernel_problem(choice.kernel, device="cuda:0", dtype=dtype, head_size=D) is None, choice.passed_over
