"""The fast PFS against the oracle: settings, shapes, dtypes, and rows where the subtraction cancels."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ladm.errors import UsageError
from ladm.method import columns_triton, pfs_triton
from ladm.method import pfs_torch as fast_module
from ladm.method.attention import causal_attention
from ladm.method.cds import aggregated_focus, contextual_dependency, used_pairs_JN
from ladm.method.focus import pairwise_focus as oracle
from ladm.method.grid import Grid, span_grid
from ladm.method.pfs import measure_focus

DEVICE = "cuda" if torch.cuda.is_available() and os.environ["TRITON_INTERPRET"] != "1" else "cpu"
"""Where the Triton kernels run: in the interpreter, or with TRITON_INTERPRET=0 for real."""


def pairwise_focus(q: Tensor, k: Tensor, lse: Tensor | None, *, by_head: bool = False, **options: Any) -> Tensor:
    """Equation 2 alone: (B, J, N), or (B, H, J, N) by head."""
    pfs_BKJN = measure_focus(q, k, lse, by_head=by_head, **options).pfs_BKJN
    return pfs_BKJN if by_head else pfs_BKJN.squeeze(1)


def draw(B: int, H: int, G: int, T: int, D: int, *, sharp: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return sharp * torch.randn(B, H, T, D, generator=generator), torch.randn(B, G, T, D, generator=generator)


def worst(fast_BJN: Tensor, q: Tensor, k: Tensor, grid: Grid, scaling: float) -> float:
    """Largest error relative to the largest focus of the same scored span."""
    errors = []
    for row in range(len(q)):
        exact = oracle(q[row], k[row], scaling=scaling, grid=grid).where(used_pairs_JN(grid), 0.0)
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
@pytest.mark.parametrize(("H", "G", "D"), [(4, 4, 16), (6, 2, 32), (3, 1, 80), (2, 1, 256)])
@pytest.mark.parametrize("T", [512, 501])
def test_equals_the_oracle(variant: str, changed: dict[str, Any], H: int, G: int, D: int, T: int) -> None:
    settings = {"l": 7, "m": 1, "n": 4, "n0": 3 if variant == "paper" else None, "d_afs": 4, "d_cds": 4} | changed
    grid = span_grid(T, variant=variant, **settings)
    q, k = draw(2, H, G, T, D)
    # Logits as wide for every head size: wider ones have larger errors, in the oracle too.
    scaling = 1.6 * D**-0.5
    _, lse = causal_attention(q, k, k, scaling=scaling, kernel="aten-flash-cpu")
    for known in (lse, None):
        fast = pairwise_focus(q, k, known, scaling=scaling, grid=grid, backend="torch")
        assert worst(fast, q, k, grid, scaling) < 1e-5


def lse_of(q: Tensor, k: Tensor, scaling: float) -> Tensor:
    """The CPU's log-sum-exp, wherever q and k are."""
    return causal_attention(q.cpu(), k.cpu(), k.cpu(), scaling=scaling, kernel="aten-flash-cpu")[1].to(q.device)


TRITON_CASES = [
    # variant, T, H, G, D, l, and what else is changed; a length that nothing divides, heads of odd sizes, spans
    # longer and shorter than a tile, every stride, a grid whose residue classes differ
    ("released", 173, 2, 1, 32, 7, {}),
    pytest.param("released", 400, 3, 1, 80, 16, {"d_afs": 3, "d_cds": 2}, marks=pytest.mark.slow),
    pytest.param("released", 420, 1, 1, 256, 40, {"n": 1, "d_afs": 1, "d_cds": 1, "m": 0}, marks=pytest.mark.slow),
    pytest.param("released", 700, 4, 4, 16, 20, {"n": 5, "d_cds": 5, "m": 3}, marks=pytest.mark.slow),
    pytest.param("released", 1500, 1, 1, 64, 130, {"n": 1, "d_afs": 2, "d_cds": 1, "n0": 4}, marks=pytest.mark.slow),
    pytest.param("paper", 301, 4, 2, 40, 7, {"n0": 3}, marks=pytest.mark.slow),
    pytest.param("released", 420, 1, 1, 512, 40, {"n": 1, "d_afs": 2, "d_cds": 1}, marks=pytest.mark.slow),
    pytest.param("paper", 397, 2, 1, 96, 33, {"n0": 2, "n": 1, "d_afs": 2, "d_cds": 3}, marks=pytest.mark.slow),
    ("paper", 199, 2, 1, 96, 17, {"n0": 2, "n": 1, "d_afs": 2, "d_cds": 3}),
]


@pytest.mark.usefixtures("buffers_of_nan")
@pytest.mark.parametrize(("variant", "T", "H", "G", "D", "l", "changed"), TRITON_CASES)
def test_triton_equals_the_oracle(
    variant: str, T: int, H: int, G: int, D: int, l: int, changed: dict[str, Any]
) -> None:
    settings = {"m": 1, "n": 4, "n0": None, "d_afs": 4, "d_cds": 4} | changed
    grid = span_grid(T, variant=variant, l=l, **settings)
    # Heads behind tokens in memory, as a model has them, in the middle of something larger.
    q, k = (torch.randn(2, T, n + 1, D + 3, device=DEVICE)[:, :, 1:, :D].transpose(1, 2) for n in (H, G))
    lse = lse_of(q, k, 0.4)
    for known in (lse, None):
        fast = pairwise_focus(q, k, known, scaling=0.4, grid=grid, backend="triton")
        assert worst(fast.cpu(), q.cpu(), k.cpu(), grid, 0.4) < 1e-5
    by_head = pairwise_focus(q, k, lse, scaling=0.4, grid=grid, backend="triton", by_head=True)
    as_torch = pairwise_focus(q, k, lse, scaling=0.4, grid=grid, backend="torch", by_head=True)
    assert torch.allclose(by_head, as_torch, rtol=1e-4, atol=1e-7)


@pytest.fixture
def buffers_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor that is made empty is full of NaN, so that an element never written shows."""
    empty = torch.empty

    def nan(*size: Any, **options: Any) -> Tensor:
        made = empty(*size, **options)
        return made.fill_(torch.nan) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", nan)


@pytest.mark.usefixtures("buffers_of_nan")
@pytest.mark.parametrize(
    ("variant", "dtype"),
    [
        ("paper", torch.bfloat16),
        pytest.param("paper", torch.float16, marks=pytest.mark.slow),
        pytest.param("released", torch.bfloat16, marks=pytest.mark.slow),
        pytest.param("released", torch.float16, marks=pytest.mark.slow),
    ],
)
def test_triton_error_budget_in_half_precision(variant: str, dtype: torch.dtype) -> None:
    """Against a float32 oracle of the same half-precision q and k: at most twice the torch backend's error, or 1e-5.

    And at most twice that of plain torch, whose logits are of that precision.
    """
    grid = span_grid(500, variant=variant, l=20, m=1, n=4, n0=5, d_afs=2, d_cds=3)
    q, k = (x.to(DEVICE, dtype) for x in draw(1, 2, 1, 500, 64))
    lse = lse_of(q, k, 0.125)
    errors = {}
    for backend in ("torch", "triton"):
        fast = pairwise_focus(q, k, lse, scaling=0.125, grid=grid, backend=backend)
        errors[backend] = worst(fast.cpu(), q.cpu(), k.cpu(), grid, 0.125)
    assert errors["triton"] <= max(2 * errors["torch"], 1e-5)
    assert errors["triton"] <= 2 * worst(plain(q.cpu(), k.cpu(), grid, 0.125), q.cpu(), k.cpu(), grid, 0.125)


def plain(q: Tensor, k: Tensor, grid: Grid, scaling: float) -> Tensor:
    """Plain torch in the precision of q and k but for the softmax itself: (1, J, N) of the used pairs."""
    pfs = torch.zeros(1, len(grid.J), grid.N)
    keys = k[0].repeat_interleave(q.shape[1] // k.shape[1], dim=0)
    for row, j in enumerate(grid.J):
        rows = grid.tokens(j)
        last = rows.start if grid.variant == "released" else rows.stop
        logits = scaling * (q[0, :, rows] @ keys[:, :last].mT)
        if grid.variant == "paper":
            key = torch.arange(last)
            logits = logits.masked_fill(key > key[rows].unsqueeze(1), -torch.inf)
        weights = logits.softmax(dim=-1, dtype=torch.float32)
        for i in grid.I[row]:
            pfs[0, row, i] = weights[:, :, grid.tokens(i)].sum(dim=(1, 2)).mean()
    return pfs


@pytest.mark.skipif(DEVICE != "cpu", reason="made of a file")
@pytest.mark.slow
def test_triton_addresses_are_64_bits_wide() -> None:
    """A view whose strides put the second head beyond 2^31 elements; nothing there is copied."""
    T, D = 300, 32
    grid = span_grid(T, variant="released", l=10, m=1, n=2, n0=None, d_afs=2, d_cds=2)
    step = 2**31 + 64
    with tempfile.NamedTemporaryFile() as file:
        flat = torch.from_numpy(np.memmap(file.name, dtype=np.float32, mode="w+", shape=(2 * step,)))
    q = torch.as_strided(flat, (1, 2, T, D), (0, step, D, 1))
    q.copy_(torch.randn(1, 2, T, D))
    k = torch.randn(1, 1, T, D)
    fast = pairwise_focus(q, k, None, scaling=0.2, grid=grid, backend="triton")
    assert worst(fast, q.contiguous(), k, grid, 0.2) < 1e-5


class Launches:
    """Stands for a kernel: notes the grids that it would be launched with."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.grids.append(grid)
        return lambda *_, **__: None


def test_a_batch_of_many_short_rows_fits_a_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA takes 2^31 - 1 programs in the first dimension of a grid, and 65,535 in the others."""
    kernels = [(pfs_triton, "denominators_kernel"), (pfs_triton, "focus_kernel")]
    kernels += [(columns_triton, f"_{name}_kernel") for name in ("norms", "divide_by_median", "far_key_mass")]
    launches = Launches()
    for module, name in kernels:
        monkeypatch.setattr(module, name, launches)
    B, H, T = 4096, 32, 64
    grid = span_grid(T, variant="released", l=16, m=0, n=1, n0=1, d_afs=1, d_cds=1)
    # No memory of their own: nothing is computed.
    q, lse = torch.zeros(1).expand(B, H, T, 16), torch.zeros(1).expand(B, H, T)
    measure_focus(q, q, lse, scaling=1.0, grid=grid, backend="triton")
    columns_triton.value_weights(q)
    columns_triton.far_key_mass(q, q, lse, scaling=1.0, skipped_tokens=16)
    assert len(launches.grids) == len(kernels)
    for programs, *others in launches.grids:
        assert programs < 2**31
        assert all(each <= 65_535 for each in others)


def test_small_blocks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = span_grid(600, variant="released", l=8, m=1, n=4, n0=None, d_afs=4, d_cds=3)
    q, k = draw(1, 4, 2, 600, 16)
    _, lse = causal_attention(q, k, k, scaling=0.4, kernel="aten-flash-cpu")
    whole = pairwise_focus(q, k, lse, scaling=0.4, grid=grid, backend="torch")
    cut, blocks = fast_module._blocks, []
    monkeypatch.setattr(fast_module, "_blocks", lambda *a, **b: [blocks.append(x) or x for x in cut(*a, **b)])
    for name, value, low_memory in (("BLOCK_ELEMENTS", {"cpu": 1}, False), ("LOW_MEMORY_ELEMENTS", 1, True)):
        monkeypatch.setattr(fast_module, name, value)
        small = pairwise_focus(q, k, lse, scaling=0.4, grid=grid, backend="torch", low_memory=low_memory)
        assert torch.allclose(small, whole, rtol=1e-5)
    assert {len(block) for block in blocks} == {1}


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The most elements of any tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return made


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_nothing_of_the_size_of_all_pairs_is_made(variant: str) -> None:
    """At twice the length nothing is more than twice as large, where T x T, or H x l x T a span, would be."""
    largest = {}
    for T in (2048, 4096):
        # Spans of one length, strides that do not coincide: J and I grow with T, their blocks do not.
        grid = span_grid(T, variant=variant, l=32, m=1, n=4, n0=8, d_afs=3, d_cds=4)
        q, k = draw(1, 4, 2, T, 16)
        with Largest() as seen:
            _, lse = causal_attention(q, k, k, scaling=0.25, kernel="aten-flash-cpu")
            pairwise_focus(q, k, lse, scaling=0.25, grid=grid, backend="torch", low_memory=True)
        largest[T] = seen.elements
    assert largest[4096] <= 2.1 * largest[2048]
    assert largest[4096] < 4096 * 4096 / 4


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(
    "own_weight", [pytest.param(5.0, marks=pytest.mark.slow), pytest.param(20.0, marks=pytest.mark.slow), 80.0]
)
def test_rows_whose_own_span_holds_nearly_all_the_mass(own_weight: float, backend: str) -> None:
    """Keys that answer only to their own span: the prefix share falls to e^-80 and less."""
    T, l, D = 128, 8, 40
    q, k = draw(1, 2, 1, T, D, seed=2)
    spans = torch.arange(T) // l
    mark = torch.nn.functional.one_hot(spans, T // l).float()
    q[..., : T // l] = own_weight * mark
    k[..., : T // l] = mark
    grid = span_grid(T, variant="released", l=l, m=1, n=4, n0=6, d_afs=2, d_cds=1)
    there = DEVICE if backend == "triton" else "cpu"
    fast = pairwise_focus(
        q.to(there), k.to(there), lse_of(q, k, 1.0).to(there), scaling=1.0, grid=grid, backend=backend
    ).cpu()
    assert fast.isfinite().all()
    assert worst(fast, q, k, grid, 1.0) < 1e-5


@pytest.mark.parametrize("doubtful", [1, 5, 6, 7, 8])
def test_rows_that_are_summed_directly_do_not_depend_on_the_number_of_threads(doubtful: int) -> None:
    """MKL rounds a product of 5, 6 or 7 rows otherwise with two threads than with one."""
    grid = span_grid(1024, variant="released", l=8, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    q, k = draw(1, 1, 1, 1024, 64)
    for j in grid.J:
        own = slice(grid.start(j), grid.start(j) + doubtful)
        q[0, 0, own] = 4 * k[0, 0, own]
    lse = lse_of(q, k, 0.2)
    found = []
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(pairwise_focus(q, k, lse, scaling=0.2, grid=grid, backend="torch"))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


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


def test_golden_numbers_through_the_fast_path(golden: dict[str, Any], golden_observer: Any) -> None:
    views: dict[int, list[Any]] = {}
    for case in golden["cases"]:
        T, ablation = case["length"], case["ablation"]
        stride = case["d_afs"]
        grid = span_grid(
            T, variant="released", l=case["span_tokens"], m=1, n=stride, n0=None, d_afs=stride, d_cds=case["d_cds"]
        )
        if T not in views:
            views[T] = []
            golden_observer.observe(torch.tensor([ids[:T] for ids in golden["input_ids"]]), views[T].append)
        ours = []
        for view in views[T]:
            pfs = pairwise_focus(
                view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend="torch"
            )
            ours.append(contextual_dependency(aggregated_focus(pfs, grid, ablation=ablation), grid, ablation=ablation))
        for document, expected in enumerate(case["cds_per_layer"]):
            assert [layer[document].item() for layer in ours] == pytest.approx(expected, rel=1e-5)


def test_an_unknown_backend_is_named() -> None:
    q, k = draw(1, 2, 2, 64, 16)
    grid = span_grid(64, variant="paper", l=4, m=1, n=1, n0=4, d_afs=1, d_cds=1)
    with pytest.raises(UsageError, match="^no backend 'fpga'; choose from torch, triton$"):
        pairwise_focus(q, k, None, scaling=1.0, grid=grid, backend="fpga")


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=pytest.mark.slow)])
def test_focus_of_float64_is_that_of_float32(backend: str) -> None:
    grid = span_grid(200, variant="released", l=7, m=1, n=2, n0=None, d_afs=2, d_cds=4)
    q, k = (x.to(DEVICE) for x in draw(1, 2, 1, 200, 16))
    lse = lse_of(q, k, 0.3)
    for known in (lse, None):
        exact = pairwise_focus(q, k, known, scaling=0.3, grid=grid, backend=backend)
        lse_64 = None if known is None else known.double()
        found = pairwise_focus(q.double(), k.double(), lse_64, scaling=0.3, grid=grid, backend=backend)
        assert torch.equal(found, exact)
