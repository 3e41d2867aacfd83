"""The fast PFS against the oracle: settings, shapes, dtypes, and rows where the subtraction cancels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ladm.errors import LadmError, UsageError
from ladm.focus import Grid, aggregated_focus, contextual_dependency, span_grid
from ladm.focus import pairwise_focus as oracle
from ladm.kernels import pfs as fast_module
from ladm.kernels.attention import attention_kernel, causal_attention
from ladm.kernels.pfs import pairwise_focus


def draw(B: int, H: int, G: int, T: int, D: int, *, sharp: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return sharp * torch.randn(B, H, T, D, generator=generator), torch.randn(B, G, T, D, generator=generator)


def worst(fast_BJN: Tensor, q: Tensor, k: Tensor, grid: Grid, scaling: float) -> float:
    """Largest error relative to the largest focus of the same scored span."""
    errors = []
    for row in range(len(q)):
        exact = oracle(q[row], k[row], scaling=scaling, grid=grid).where(grid.wanted_JN(), 0.0)
        scale = exact.amax(dim=1, keepdim=True)
        errors.append(((fast_BJN[row] - exact).abs() / scale).max().item())
    return max(errors)


SETTINGS = [
    {},
    {"n": 2, "d_afs": 3, "d_cds": 2},
    {"n": 1, "d_afs": 1, "d_cds": 1, "m": 0},
    {"n": 5, "d_afs": 4, "d_cds": 5, "m": 3},
    {"l": 16, "d_cds": 1, "n0": 2},
]


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("changed", SETTINGS)
@pytest.mark.parametrize(("H", "G", "D"), [(4, 4, 16), (6, 2, 32), (3, 1, 80)])
@pytest.mark.parametrize("T", [512, 501])
def test_equals_the_oracle(variant: str, changed: dict[str, Any], H: int, G: int, D: int, T: int) -> None:
    settings = {"l": 7, "m": 1, "n": 4, "n0": 3 if variant == "paper" else None, "d_afs": 4, "d_cds": 4} | changed
    grid = span_grid(T, variant=variant, **settings)
    q, k = draw(2, H, G, T, D)
    _, lse = causal_attention(q, k, k, scaling=0.4, kernel="aten-flash-cpu")
    for known in (lse, None):
        fast = pairwise_focus(q, k, known, scaling=0.4, grid=grid, backend="torch")
        assert worst(fast, q, k, grid, 0.4) < 1e-5


def test_small_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = span_grid(600, variant="released", l=8, m=1, n=4, n0=None, d_afs=4, d_cds=3)
    q, k = draw(1, 4, 2, 600, 16)
    _, lse = causal_attention(q, k, k, scaling=0.4, kernel="aten-flash-cpu")
    whole = pairwise_focus(q, k, lse, scaling=0.4, grid=grid, backend="torch")
    monkeypatch.setitem(fast_module.BLOCK_ELEMENTS, "cpu", 1)
    assert torch.allclose(pairwise_focus(q, k, lse, scaling=0.4, grid=grid, backend="torch"), whole, rtol=1e-5)


@pytest.mark.parametrize("own_weight", [5.0, 20.0, 80.0])
def test_rows_whose_own_span_holds_nearly_all_the_mass(own_weight: float) -> None:
    """Keys that answer only to their own span: the prefix share falls to e^-80 and less."""
    T, l, D = 256, 8, 40
    q, k = draw(1, 4, 2, T, D, seed=2)
    spans = torch.arange(T) // l
    mark = torch.nn.functional.one_hot(spans, T // l).float()
    q[..., : T // l] = own_weight * mark
    k[..., : T // l] = mark
    grid = span_grid(T, variant="released", l=l, m=1, n=4, n0=6, d_afs=2, d_cds=1)
    _, lse = causal_attention(q, k, k, scaling=1.0, kernel="aten-flash-cpu")
    fast = pairwise_focus(q, k, lse, scaling=1.0, grid=grid, backend="torch")
    assert fast.isfinite().all()
    assert worst(fast, q, k, grid, 1.0) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_half_precision_error_is_that_of_the_log_sum_exp_alone(dtype: torch.dtype, variant: str) -> None:
    """Same half-precision q and k: logits are accumulated in float32, so only the kernel's own lse is inexact."""
    grid = span_grid(700, variant=variant, l=8, m=1, n=4, n0=16, d_afs=4, d_cds=4)
    q, k = (x.to(dtype) for x in draw(1, 4, 2, 700, 64))
    _, lse = causal_attention(q, k, k, scaling=0.125, kernel="aten-flash-cpu")
    fast = pairwise_focus(q, k, lse, scaling=0.125, grid=grid, backend="torch")
    assert fast.dtype == torch.float32
    assert worst(fast, q, k, grid, 0.125) < 1e-3


def test_attention_equals_plain_softmax_and_shares_grouped_keys() -> None:
    q, k = draw(2, 6, 2, 77, 24)
    v = torch.randn(2, 2, 77, 24)
    out, lse = causal_attention(q, k, v, scaling=0.3, kernel="aten-flash-cpu")
    logits = 0.3 * q @ k.repeat_interleave(3, 1).mT
    logits = logits.masked_fill(torch.ones(77, 77, dtype=torch.bool).triu(1), -torch.inf)
    assert torch.allclose(out, logits.softmax(-1) @ v.repeat_interleave(3, 1), atol=1e-6)
    assert torch.allclose(lse, logits.logsumexp(-1), atol=1e-5)


def test_golden_numbers_through_the_fast_path(golden: dict[str, Any], golden_observer: Any) -> None:
    for case in golden["cases"]:
        T, ablation = case["length"], case["ablation"]
        stride = case["d_afs"]
        grid = span_grid(
            T, variant="released", l=case["span_tokens"], m=1, n=stride, n0=None, d_afs=stride, d_cds=case["d_cds"]
        )
        ours: list[Tensor] = []

        def visit(view: Any, grid: Grid = grid, ablation: Any = ablation, into: list[Tensor] = ours) -> None:
            pfs = pairwise_focus(
                view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend="torch"
            )
            into.append(contextual_dependency(aggregated_focus(pfs, grid, ablation=ablation), grid, ablation=ablation))

        golden_observer.observe(torch.tensor([ids[:T] for ids in golden["input_ids"]]), visit)
        for document, expected in enumerate(case["cds_per_layer"]):
            assert [layer[document].item() for layer in ours] == pytest.approx(expected, rel=1e-5)


def test_unknown_backends_and_devices_are_named() -> None:
    q, k = draw(1, 2, 2, 64, 16)
    grid = span_grid(64, variant="paper", l=4, m=1, n=1, n0=4, d_afs=1, d_cds=1)
    with pytest.raises(UsageError, match="^no backend 'fpga'; there is torch$"):
        pairwise_focus(q, k, None, scaling=1.0, grid=grid, backend="fpga")
    with pytest.raises(LadmError, match="device 'mps' is not supported"):
        attention_kernel("mps", torch.float32)
    assert attention_kernel("cuda", torch.float32) == "aten-efficient-cuda"
    assert attention_kernel("cuda", torch.bfloat16) == "aten-flash-cuda"
