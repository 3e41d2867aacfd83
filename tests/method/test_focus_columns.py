"""What the same attention weights give besides PFS: value-weighted PFS, attention to copy keys, and sink mass."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from torch import Tensor

from ladm.method import columns, pfs_torch
from ladm.method.attention import causal_attention
from ladm.method.cds import used_pairs_JN
from ladm.method.focus import copy_keys, copy_share, pairwise_focus, value_weights
from ladm.method.grid import Grid, span_grid
from ladm.method.pfs import measure_focus
from ladm.method.pfs_torch import CopyKeys
from ladm.method.sinks import SAMPLED_QUERIES, far_key_mass, sink_mass

DEVICE = "cuda" if torch.cuda.is_available() and os.environ["TRITON_INTERPRET"] != "1" else "cpu"
"""Where the Triton kernels run: in the interpreter, or with TRITON_INTERPRET=0 for real."""

CASES = [
    # variant, T, H, G, D, l, and what else is changed: lengths and heads that nothing divides, every stride
    pytest.param("released", 173, 2, 1, 32, 7, {}, marks=pytest.mark.slow),
    pytest.param("released", 400, 3, 1, 80, 16, {"d_afs": 3, "d_cds": 2}, marks=pytest.mark.slow),
    ("released", 161, 1, 1, 16, 70, {"n": 1, "d_afs": 1, "d_cds": 1, "m": 0, "n0": 1, "ablation": "no-std"}),
    pytest.param(
        "released",
        300,
        1,
        1,
        16,
        130,
        {"n": 1, "d_afs": 1, "d_cds": 1, "m": 0, "n0": 1, "ablation": "no-std"},
        marks=pytest.mark.slow,
    ),
    pytest.param("paper", 301, 4, 2, 40, 7, {"n0": 3}, marks=pytest.mark.slow),
    pytest.param("paper", 397, 2, 1, 96, 33, {"n0": 2, "n": 1, "d_afs": 2, "d_cds": 3}, marks=pytest.mark.slow),
    ("paper", 199, 2, 1, 96, 17, {"n0": 2, "n": 1, "d_afs": 2, "d_cds": 3}),
]


def make(T: int, H: int, G: int, D: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(T + H)
    q, k, v = (torch.randn(2, n, T, D, generator=draw) for n in (H, G, G))
    v *= torch.rand(2, G, T, 1, generator=draw) + 0.05
    return q, k, v, torch.randint(0, 30, (2, T), generator=draw)


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(("variant", "T", "H", "G", "D", "l", "changed"), CASES)
def test_columns_equal_the_oracle(
    backend: str, variant: str, T: int, H: int, G: int, D: int, l: int, changed: dict[str, Any]
) -> None:
    grid = span_grid(T, variant=variant, l=l, **{"m": 1, "n": 4, "n0": None, "d_afs": 4, "d_cds": 4} | changed)
    assert grid.J
    q, k, v, ids = make(T, H, G, D)
    weights = value_weights(v)
    _, lse = causal_attention(q, k, v, scaling=0.4, kernel="aten-flash-cpu")
    device = DEVICE if backend == "triton" else "cpu"
    q_there, k_there, lse_there = q.to(device), k.to(device), lse.to(device)
    for known in (lse_there, None):
        found = measure_focus(
            q_there, k_there, known, scaling=0.4, grid=grid, backend=backend, key_weight_BGT=weights.to(device),
            copy_keys=CopyKeys(ids.to(device), grid),
        )  # fmt: skip
        plain = measure_focus(q_there, k_there, known, scaling=0.4, grid=grid, backend=backend)
        assert torch.equal(found.pfs_BKJN, plain.pfs_BKJN)
        assert plain.weighted_BKJN is None
        assert plain.copied_BK is None
        assert found.weighted_BKJN is not None
        assert found.copied_BK is not None
        used = used_pairs_JN(grid)
        for b in range(2):
            arguments: dict[str, Any] = {"scaling": 0.4, "grid": grid}
            weighted = pairwise_focus(q[b], k[b], key_weight_GT=weights[b], **arguments)
            copied = pairwise_focus(q[b], k[b], counted_TT=copy_keys(ids[b]), **arguments)
            torch.testing.assert_close(found.weighted_BKJN[b, 0].cpu(), weighted.where(used, 0.0), rtol=1e-5, atol=1e-7)
            torch.testing.assert_close(found.copied_BK[b, 0].cpu(), copied.where(used, 0.0).sum(), rtol=1e-5, atol=1e-7)
            share = copy_share(pairwise_focus(q[b], k[b], **arguments), copied, grid)
            assert 0 < share < 1
            torch.testing.assert_close(
                (found.copied_BK[b, 0] / found.pfs_BKJN[b, 0].sum()).cpu(), share, rtol=1e-5, atol=0
            )


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=pytest.mark.slow)])
def test_columns_by_head_have_the_columns_as_their_mean(backend: str) -> None:
    grid = span_grid(301, variant="released", l=7, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    q, k, v, ids = make(301, 4, 2, 32)
    _, lse = causal_attention(q, k, v, scaling=0.4, kernel="aten-flash-cpu")
    by_head, together = (
        measure_focus(
            q, k, lse, scaling=0.4, grid=grid, backend=backend, key_weight_BGT=value_weights(v),
            copy_keys=CopyKeys(ids, grid), by_head=by_head,
        )
        for by_head in (True, False)
    )  # fmt: skip
    assert by_head.weighted_BKJN is not None
    assert by_head.copied_BK is not None
    torch.testing.assert_close(by_head.weighted_BKJN.mean(dim=1, keepdim=True), together.weighted_BKJN)
    torch.testing.assert_close(by_head.copied_BK.mean(dim=1, keepdim=True), together.copied_BK)


@pytest.mark.parametrize("elements", [1, 1 << 12])
def test_columns_do_not_depend_on_the_blocks(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = span_grid(400, variant="released", l=5, m=1, n=4, n0=None, d_afs=4, d_cds=3)
    q, k, v, ids = make(400, 4, 2, 32)
    _, lse = causal_attention(q, k, v, scaling=0.4, kernel="aten-flash-cpu")

    def measured() -> list[Tensor]:
        found = measure_focus(
            q, k, lse, scaling=0.4, grid=grid, backend="torch", key_weight_BGT=value_weights(v),
            copy_keys=CopyKeys(ids, grid),
        )  # fmt: skip
        assert found.weighted_BKJN is not None
        assert found.copied_BK is not None
        return [found.pfs_BKJN, found.weighted_BKJN, found.copied_BK]

    whole = measured()
    monkeypatch.setitem(pfs_torch.BLOCK_ELEMENTS, "cpu", elements)
    for one, other in zip(whole, measured(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_copy_keys_of_a_short_row() -> None:
    """3 1 2 1: the last 1 copies from the first 1, and from the 2 that followed it."""
    expected = [[1, 1, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]
    assert copy_keys(torch.tensor([3, 1, 2, 1])).int().tolist() == expected


def test_a_value_weight_of_1_is_that_of_the_median_value() -> None:
    v = torch.tensor([[[3.0, 4.0], [0.0, 10.0], [1.0, 0.0]]])
    torch.testing.assert_close(value_weights(v), torch.tensor([[1.0, 2.0, 0.2]]))


@pytest.mark.parametrize("T", [1, 2, 200, 5001])
def test_value_weights_of_the_kernel_equal_the_oracle(T: int) -> None:
    _, _, v, _ = make(T, 2, 3, 24)
    # Norms that are 0, equal or far apart; of one head more than half are 0, and so is the median.
    v[0, 0, ::3] = 0.0
    v[0, 1, T // 2 :] = v[0, 1, -1:]
    v[1, 0] *= torch.logspace(-15, 15, T).unsqueeze(1)
    v[1, 2, : T // 2 + 1] = 0.0
    # Neither contiguous nor with the heads before the tokens.
    there = v.transpose(1, 2).contiguous().transpose(1, 2).to(DEVICE)
    found = columns.value_weights(there, backend="triton").cpu()
    torch.testing.assert_close(found, value_weights(v), rtol=1e-6, atol=0)
    assert (found[1, 2] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("T", "H", "G", "D"), [(5, 2, 1, 16), (201, 14, 2, 24), (300, 9, 1, 16), (301, 2, 2, 80)])
def test_the_far_keys_of_the_kernel_equal_the_oracle(T: int, H: int, G: int, D: int, dtype: torch.dtype) -> None:
    """With more heads to a key head than a program takes, and with numbers of them that are no powers of two."""
    q, k, v, _ = (x.to(dtype) if x.is_floating_point() else x for x in make(T, H, G, D))
    _, lse = causal_attention(q.float(), k.float(), v.float(), scaling=0.4, kernel="aten-flash-cpu")
    there = [x.transpose(1, 2).contiguous().transpose(1, 2).to(DEVICE) for x in (q, k)]
    found = columns.far_key_mass(*there, lse.to(DEVICE), scaling=0.4, skipped_tokens=20, backend="triton").cpu()
    expected = far_key_mass(q, k, scaling=0.4, skipped_tokens=20)
    assert bool(expected.any()) == (T > 100)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def far_attention(q: Tensor, k: Tensor, scaling: float, rows: list[int], skipped: int) -> Tensor:
    """`far_key_mass` of one row of a batch, from the whole matrix of attention."""
    T = q.shape[1]
    logits = scaling * q @ k.repeat_interleave(q.shape[0] // k.shape[0], dim=0).mT
    weights = logits.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)
    mass = torch.zeros(len(q), T)
    for t in rows:
        for s in range(skipped, t - 63):
            mass[:, s] += weights[:, t, s]
    return mass


def test_the_mass_of_far_keys_is_that_of_the_sampled_rows() -> None:
    q, k, _, _ = make(200, 4, 2, 16)
    rows = [199 - (100 * n) // SAMPLED_QUERIES for n in range(SAMPLED_QUERIES)]
    found = far_key_mass(q, k, scaling=0.4, skipped_tokens=20)
    for b in range(2):
        torch.testing.assert_close(found[b], far_attention(q[b], k[b], 0.4, rows, 20), rtol=1e-4, atol=1e-6)


def test_a_planted_sink_has_the_mass() -> None:
    q, k, _, _ = make(2048, 4, 2, 16)
    even = sink_mass(far_key_mass(q, k, scaling=0.1, skipped_tokens=16))
    # One key that every query points at.
    k[:, :, 700] = 0
    k[:, :, 700, 0] = 60.0
    q[..., 0] = 1.5
    planted = far_key_mass(q, k, scaling=0.1, skipped_tokens=16)
    assert planted.argmax(dim=-1).tolist() == [[700] * 4] * 2
    assert (even < 0.1).all()
    assert (sink_mass(planted) > 0.5).all()


def test_a_row_without_far_keys_has_no_sink_mass() -> None:
    q, k, _, _ = make(40, 2, 1, 8)
    assert sink_mass(far_key_mass(q, k, scaling=1.0, skipped_tokens=8)).tolist() == [[0.0, 0.0]] * 2


@pytest.mark.parametrize("place", ["one value", "a head's values"])
def test_nan_is_not_hidden_by_the_columns_that_are_0_for_lack_of_attention(place: str) -> None:
    """A NaN costs the row its score; taken for 0, such a row would have one."""
    v = make(200, 2, 3, 24)[2]
    v[0, 1, 7 if place == "one value" else slice(None)] = torch.nan
    for backend, device in (("torch", "cpu"), ("triton", DEVICE)):
        assert columns.value_weights(v.to(device), backend=backend).isnan().any(), backend
    mass = torch.rand(2, 200)
    mass[1, 7] = torch.nan
    assert sink_mass(mass).isnan().tolist() == [False, True]


def test_an_empty_grid_gives_empty_columns() -> None:
    grid: Grid = span_grid(20, variant="released", l=7, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    assert not grid.J
    q, k, v, ids = make(20, 2, 1, 16)
    for backend in ("torch", "triton"):
        found = measure_focus(
            q, k, None, scaling=1.0, grid=grid, backend=backend, key_weight_BGT=value_weights(v),
            copy_keys=CopyKeys(ids, grid),
        )  # fmt: skip
        assert found.weighted_BKJN is not None
        assert found.copied_BK is not None
        assert found.weighted_BKJN.shape == (2, 1, 0, 2)
        assert found.copied_BK.tolist() == [[0.0], [0.0]]
