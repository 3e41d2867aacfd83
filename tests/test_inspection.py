"""Where a score comes from: the parts of a score add up to it, and what `ladm inspect` writes says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ladm.attribution import column_weights, pair_parts, strongest, token_focus
from ladm.focus import aggregated_focus, contextual_dependency, pairwise_focus, span_grid
from ladm.profiles import Reduction, reduce_cds

GRID = {"l": 16, "m": 1, "n": 4, "d_afs": 4, "d_cds": 4}


@pytest.mark.parametrize("variant", ["released", "paper"])
@pytest.mark.parametrize("ablation", ["none", "no-std", "no-length"])
@pytest.mark.parametrize(("n", "d_afs", "d_cds", "T"), [(4, 4, 4, 517), (1, 3, 2, 300)])
def test_parts_of_pairs_add_up_to_cds(variant: Any, ablation: Any, n: int, d_afs: int, d_cds: int, T: int) -> None:
    grid = span_grid(T, variant=variant, l=16, m=1, n=n, n0=None, d_afs=d_afs, d_cds=d_cds, ablation=ablation)
    pfs_PJN = torch.rand(3, len(grid.J), grid.N, generator=torch.Generator().manual_seed(1))
    pfs_PJN[1, 0] = 0.0
    parts = pair_parts(pfs_PJN, grid, ablation=ablation)
    assert not parts[:, ~grid.wanted_JN()].any()
    cds = contextual_dependency(aggregated_focus(pfs_PJN, grid, ablation=ablation), grid, ablation=ablation)
    torch.testing.assert_close(parts.sum(dim=(1, 2)), cds, rtol=1e-5, atol=0)


@pytest.mark.parametrize("columns", [1, 2, 5, 6])
@pytest.mark.parametrize("how", ["mean", "median", "geometric"])
@pytest.mark.parametrize("weighted", [False, True])
def test_weights_of_columns_make_the_score(columns: int, how: str, weighted: bool) -> None:
    if weighted and how == "median":
        return
    draw = np.random.default_rng(columns)
    cds = draw.uniform(0.01, 3, columns)
    weights = tuple(draw.uniform(0.1, 1, columns)) if weighted else None
    reduction = Reduction(how=how, layers=tuple(range(columns)), weights=weights)
    score = reduce_cds(cds[None], how, weights)[0]
    assert (column_weights(cds, reduction) * cds).sum() == pytest.approx(score, rel=1e-12)


def test_a_geometric_mean_of_nothing_has_no_parts() -> None:
    reduction = Reduction(how="geometric", layers=(0, 1))
    assert column_weights(np.array([0.0, 1.0]), reduction).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("variant", ["released", "paper"])
def test_tokens_add_up_to_the_focus_of_their_spans(variant: Any) -> None:
    draw = torch.Generator().manual_seed(2)
    q, k = torch.randn(4, 205, 8, generator=draw), torch.randn(2, 205, 8, generator=draw)
    grid = span_grid(205, variant=variant, l=16, m=1, n=4, n0=None, d_afs=4, d_cds=4)
    pfs_JN = pairwise_focus(q, k, scaling=0.4, grid=grid)
    for row, j in enumerate(grid.J):
        for i in grid.I[row]:
            found = token_focus(q, k, scaling=0.4, grid=grid, j=j, i=i)
            assert found.shape == (4, 16, 16)
            assert found.mean(dim=0).sum().item() == pytest.approx(pfs_JN[row, i].item(), rel=1e-5)


def test_the_strongest_pairs_share_no_span() -> None:
    part = torch.tensor([[0.0, 5.0, 4.0], [3.0, 6.0, 0.5], [0.0, 0.0, 0.0]])
    assert list(strongest(part, 4)) == [(1, 1), (0, 2)]
