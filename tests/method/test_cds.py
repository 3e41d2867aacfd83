"""Equations 3-5 and the shares as a run computes them, against the oracle that writes them out pair by pair."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from ladm.method import cds as fast
from ladm.method import focus as oracle
from ladm.method.grid import Ablation, Grid, Variant, span_grid

CHANGES: list[dict[str, Any]] = [
    {},
    # 203 tokens are 25 spans of 8 and 3 tokens in front; 200 leave none.
    {"T": 200},
    {"m": 0, "n": 1, "d_afs": 1, "d_cds": 1},
    {"m": 3, "n": 2, "d_afs": 3, "d_cds": 2, "n0": 6},
    {"l": 3, "n0": 2, "d_cds": 5},
    # A single scored span.
    {"l": 20, "n": 1, "d_afs": 1, "d_cds": 9, "n0": 6},
]


def grid_of(variant: Variant, ablation: Ablation, **changed: Any) -> Grid:
    values = {"T": 203, "l": 8, "m": 1, "n": 4, "n0": None, "d_afs": 4, "d_cds": 4} | changed
    return span_grid(values.pop("T"), variant=variant, ablation=ablation, **values)


def focus_of(grid: Grid, *lead: int) -> Tensor:
    """Random PFS, of rows, layers or heads; NaN in the pairs that the grid does not use."""
    pfs_JN = torch.rand(*lead, len(grid.J), grid.N, generator=torch.Generator().manual_seed(grid.N))
    used = torch.zeros(len(grid.J), grid.N, dtype=torch.bool)
    for row, spans in enumerate(grid.I):
        for i in spans:
            used[row, i] = True
    return pfs_JN.where(used, torch.nan)


@pytest.mark.parametrize("lead", [(), (3,), (2, 4)])
@pytest.mark.parametrize("changed", CHANGES)
def test_equals_the_oracle(changed: dict[str, Any], lead: tuple[int, ...]) -> None:
    variants: tuple[Variant, ...] = ("released", "paper")
    ablations: tuple[Ablation, ...] = ("none", "no-std", "no-length")
    for variant, ablation in itertools.product(variants, ablations):
        grid = grid_of(variant, ablation, **changed)
        assert grid.J
        pfs_JN = focus_of(grid, *lead)
        afs_J = oracle.aggregated_focus(pfs_JN, grid, ablation=ablation)
        cds = oracle.contextual_dependency(afs_J, grid, ablation=ablation)
        assert (afs_J.shape, cds.shape) == ((*lead, len(grid.J)), lead)
        assert cds.isfinite().all()
        found_J = fast.aggregated_focus(pfs_JN, grid, ablation=ablation)
        torch.testing.assert_close(found_J, afs_J, rtol=1e-5, atol=0)
        torch.testing.assert_close(fast.contextual_dependency(found_J, grid, ablation=ablation), cds, rtol=1e-5, atol=0)
        near = oracle.near_share(pfs_JN, grid)
        torch.testing.assert_close(fast.near_share(pfs_JN, grid), near, rtol=1e-5, atol=0)


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_a_span_with_one_earlier_span_counts_without_sigma(variant: Variant) -> None:
    grid = grid_of(variant, "no-std", l=8, n=1, d_afs=20, d_cds=1, n0=3)
    assert min(map(len, grid.I)) == 1
    pfs_JN = focus_of(grid)
    afs_J = oracle.aggregated_focus(pfs_JN, grid, ablation="no-std")
    torch.testing.assert_close(fast.aggregated_focus(pfs_JN, grid, ablation="no-std"), afs_J, rtol=1e-5, atol=0)
    row = [len(spans) for spans in grid.I].index(1)
    j, i = grid.J[row], grid.I[row][0]
    weight = (j - i) * (grid.l / grid.T if variant == "released" else 1)
    assert afs_J[row].item() == pytest.approx(pfs_JN[row, i].item() * weight, rel=1e-5)


def test_copy_share_equals_the_oracle() -> None:
    grid = grid_of("released", "none")
    pfs_JN = focus_of(grid, 2).nan_to_num(0.0)
    pfs_JN[1] = 0.0
    copied_JN = 0.3 * pfs_JN
    found = fast.copy_share(copied_JN.sum(dim=(-2, -1)), pfs_JN)
    assert found.tolist() == pytest.approx([0.3, 0.0], rel=1e-5)
    torch.testing.assert_close(found, oracle.copy_share(pfs_JN, copied_JN, grid), rtol=1e-5, atol=0)


def test_attention_on_no_pair_is_a_cds_and_shares_of_0() -> None:
    grid = grid_of("released", "none")
    nothing_JN = torch.zeros(2, len(grid.J), grid.N)
    for equations in (oracle, fast):
        cds = equations.contextual_dependency(equations.aggregated_focus(nothing_JN, grid), grid)
        assert cds.tolist() == equations.near_share(nothing_JN, grid).tolist() == [0.0, 0.0]
