"""PFS of many layers or heads at once -> AFS, CDS and the shares that are stored beside it, without waiting for a GPU.

Equations 3-5 and the shares as `focus.py` writes them out, tested against it. There every pair of spans is visited in a
loop; here each is one operation on all pairs, and pairs that the grid does not use are masked. The masks and weights
depend on the length of a row alone, so they are made once for each length and kept for a while.

Shape suffixes: J scored spans, N spans. `...` is any number of leading dimensions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ladm.method.constants import constant, kept_for_grid
from ladm.method.grid import Ablation, Grid


def aggregated_focus(pfs_JN: Tensor, grid: Grid, *, ablation: Ablation = "none") -> Tensor:
    """Equations 3 and 4, AFS(j): (..., J, N) -> (..., J). What stands in an unused pair does not matter.

    NaN for a span with a single earlier span, which `grid` leaves out by default, unless `ablation` drops sigma.
    """
    used = used_pairs_JN(grid, pfs_JN.device)
    used_JN = pfs_JN.where(used, 0.0)
    afs_J = (used_JN * distance_JN(grid, used_JN, ablation=ablation)).sum(dim=-1)
    if ablation == "no-std":
        return afs_J
    pairs_J1 = used.sum(dim=-1, keepdim=True)
    mean_J1 = used_JN.sum(dim=-1, keepdim=True) / pairs_J1
    squares_J = (used_JN - mean_J1).where(used, 0.0).square().sum(dim=-1)
    sigma_J = (squares_J / (pairs_J1.squeeze(-1) - 1)).sqrt()
    return sigma_J * afs_J


def contextual_dependency(afs_J: Tensor, grid: Grid, *, ablation: Ablation = "none") -> Tensor:
    """Equation 5, CDS: (..., J) -> (...). `grid.J` must not be empty."""
    weighted_J = afs_J * _position_J(grid, afs_J.dtype, afs_J.device, ablation)
    return weighted_J.sum(dim=-1) if grid.variant == "paper" else weighted_J.mean(dim=-1)


def near_share(pfs_JN: Tensor, grid: Grid) -> Tensor:
    """The near share of value-weighted PFS: (..., J, N) -> (...); 0 where no attention falls on any used pair."""
    used_JN = pfs_JN.where(used_pairs_JN(grid, pfs_JN.device), 0.0)
    near = used_JN.where(_near_pairs_JN(grid, pfs_JN.device), 0.0).sum(dim=(-2, -1))
    total = used_JN.sum(dim=(-2, -1))
    # Not NaN, which would cost the row its score.
    return torch.where(total == 0, 0.0, near / total)


def copy_share(copied: Tensor, pfs_JN: Tensor) -> Tensor:
    """The part of the sum of PFS that falls on copy keys: (...) and (..., J, N) -> (...)."""
    total = pfs_JN.sum(dim=(-2, -1))
    # Where no span gets any attention, nothing is copied: 0 and not NaN, which would cost the row its score.
    return torch.where(total == 0, 0.0, copied / total)


def long_range_focus(pfs_JN: Tensor, grid: Grid) -> Tensor:
    """Median PFS over the used pairs with j - i >= N / 2: (..., J, N) -> (...); 0 where there is no such pair.

    Of an even number of pairs the median is the lower of the two in the middle.
    """
    far_P = pfs_JN.flatten(-2)[..., _far_pairs(grid, pfs_JN.device)]
    return far_P.median(dim=-1).values if far_P.shape[-1] else far_P.sum(dim=-1)


def used_pairs_JN(grid: Grid, device: torch.device | str = "cpu") -> Tensor:
    """Boolean (J, N): is PFS(i, j) used?"""
    # One object for a device, however it is named, so that one tensor is kept for it.
    return _used_pairs_JN(grid, torch.device(device))


@kept_for_grid
def _used_pairs_JN(grid: Grid, device: torch.device) -> Tensor:
    used = np.zeros((len(grid.J), grid.N), dtype=bool)
    for row, spans in enumerate(grid.I):
        used[row, list(spans)] = True
    return constant(used, dtype=torch.bool, device=device)


def distance_JN(grid: Grid, like: Tensor, *, ablation: Ablation) -> Tensor:
    """The length weight of every pair, (J, N) of the type of `like`: j - i (paper), (j - i) l / T (released), or 1."""
    # The same with and without sigma, so that both forms share it.
    return _distance_JN(grid, like.dtype, like.device, weighted=ablation != "no-length")


@kept_for_grid
def _distance_JN(grid: Grid, dtype: torch.dtype, device: torch.device, *, weighted: bool) -> Tensor:
    j_J1 = constant(grid.J, dtype=dtype, device=device).unsqueeze(1)
    spans_JN = j_J1 - torch.arange(grid.N, device=device, dtype=dtype)
    if not weighted:
        return torch.ones_like(spans_JN)
    return spans_JN * (grid.l / grid.T) if grid.variant == "released" else spans_JN


@kept_for_grid
def _position_J(grid: Grid, dtype: torch.dtype, device: torch.device, ablation: Ablation) -> Tensor:
    """The weight of every scored span: how late in the document it is."""
    if ablation == "no-length":
        position_J = [1.0] * len(grid.J)
    elif grid.variant == "paper":
        position_J = [j / grid.N for j in grid.J]
    else:
        position_J = [grid.start(j) / grid.T for j in grid.J]
    return constant(position_J, dtype=dtype, device=device)


@kept_for_grid
def _near_pairs_JN(grid: Grid, device: torch.device) -> Tensor:
    """Boolean (J, N): is i among the nearest quarter of the spans before j?"""
    j_J1 = np.array(grid.J).reshape(-1, 1)
    return constant(4 * (j_J1 - np.arange(grid.N)) <= j_J1, dtype=torch.bool, device=device)


# Not a Boolean index: the host would wait for the device to learn how many values it selects.
@kept_for_grid
def _far_pairs(grid: Grid, device: torch.device) -> Tensor:
    """Where the used pairs with j - i >= N / 2 are in a flattened (J, N)."""
    places = [row * grid.N + i for row, j in enumerate(grid.J) for i in grid.I[row] if 2 * (j - i) >= grid.N]
    return constant(places, dtype=torch.int64, device=device)
