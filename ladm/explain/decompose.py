"""Token ids and an observed model -> a score taken apart: what each pair of spans adds, and tokens of the strongest.

Shape suffixes: B rows (one here), P layers or heads that make the score, T tokens, J scored spans, N spans,
l tokens of a span.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladm.method.attribution import column_weights, pair_parts, strongest, token_focus
from ladm.method.focus import aggregated_focus, contextual_dependency
from ladm.method.grid import Ablation, Grid
from ladm.method.pfs import pairwise_focus
from ladm.method.reduction import Floats, Reduction, reduce_cds
from ladm.modeling.observer import LayerView, Observer


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A score taken apart, float32 on the CPU."""

    grid: Grid
    score: float
    cds_P: Floats
    w_P: Floats
    """The score is the sum of w_p CDS_p."""
    pfs_JN: Tensor
    """PFS, a mean over the columns by their w; a plain one where all are 0."""
    part_JN: Tensor
    """What each pair adds: their sum is the score."""
    pairs: list[tuple[int, int]]
    """Row of J and span i of the strongest."""
    tokens: list[Tensor]
    """For each of `pairs` what each token of span j with each of span i adds, (l, l)."""


def take_apart(
    observer: Observer,
    ids_BT: Tensor,
    grid: Grid,
    *,
    reduction: Reduction,
    ablation: Ablation,
    backend: str,
    most_pairs: int,
    low_memory: bool = False,
) -> Parts:
    """Run the model twice over one row: for its spans, and for the tokens of its strongest pairs.

    `observer.layers` are those of `reduction`. `low_memory`: as of `pairwise_focus`.
    """
    pfs_PJN = _focus(observer, ids_BT, grid, reduction, backend, low_memory=low_memory)
    cds_P = contextual_dependency(aggregated_focus(pfs_PJN, grid, ablation=ablation), grid, ablation=ablation)
    of_columns = cds_P.double().numpy()
    w_P = column_weights(of_columns, reduction)
    by_column = torch.from_numpy(w_P).float()[:, None, None]
    parts_PJN = by_column * pair_parts(pfs_PJN, grid, ablation=ablation)
    part_JN = parts_PJN.sum(dim=0)
    pairs = list(strongest(part_JN, most_pairs))
    total = float(w_P.sum())
    return Parts(
        grid=grid,
        score=float(reduce_cds(of_columns[None], reduction.how, reduction.weights)[0]),
        cds_P=of_columns,
        w_P=w_P,
        pfs_JN=(by_column * pfs_PJN).sum(dim=0) / total if total > 0 else pfs_PJN.mean(dim=0),
        part_JN=part_JN,
        pairs=pairs,
        tokens=_tokens(observer, ids_BT, grid, reduction, pairs, pfs_PJN, parts_PJN),
    )


def _focus(
    observer: Observer, ids_BT: Tensor, grid: Grid, reduction: Reduction, backend: str, *, low_memory: bool
) -> Tensor:
    """Equation 2 of every layer or head that makes the score: (P, J, N) on the CPU."""
    by_head = reduction.heads is not None
    kept: list[Tensor] = []

    def visit(view: LayerView) -> None:
        pfs = pairwise_focus(
            view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend=backend, by_head=by_head,
            low_memory=low_memory,
        )[0]  # fmt: skip
        kept.append((pfs[_heads_of(reduction, view.layer)] if by_head else pfs.unsqueeze(0)).cpu())

    observer.observe(ids_BT, visit)
    return torch.cat(kept)


def _tokens(
    observer: Observer,
    ids_BT: Tensor,
    grid: Grid,
    reduction: Reduction,
    pairs: list[tuple[int, int]],
    pfs_PJN: Tensor,
    parts_PJN: Tensor,
) -> list[Tensor]:
    found = [torch.zeros(grid.l, grid.l) for _ in pairs]
    column = 0

    def visit(view: LayerView) -> None:
        nonlocal column
        heads = None if reduction.heads is None else _heads_of(reduction, view.layer)
        of_layer = slice(column, column + (1 if heads is None else len(heads)))
        column = of_layer.stop
        for k, (row, i) in enumerate(pairs):
            if not parts_PJN[of_layer, row, i].any():
                continue
            focus_Hll = token_focus(
                view.q_BHTD[0], view.k_BGTD[0], scaling=view.scaling, grid=grid, j=grid.J[row], i=i
            ).cpu()
            each = focus_Hll.mean(dim=0, keepdim=True) if heads is None else focus_Hll[heads]
            pfs_P, part_P = pfs_PJN[of_layer, row, i].tolist(), parts_PJN[of_layer, row, i].tolist()
            for focus_ll, pfs, part in zip(each, pfs_P, part_P, strict=True):
                found[k] += focus_ll * (part / pfs if pfs > 0 else 0.0)

    observer.observe(ids_BT, visit)
    return found


def _heads_of(reduction: Reduction, layer: int) -> list[int]:
    return [head for of, head in reduction.heads or () if of == layer]
