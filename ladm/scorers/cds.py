"""Token ids and an observed model -> CDS of every wanted layer: equations 2-5 as the model runs."""

from __future__ import annotations

import torch
from torch import Tensor

from ladm.focus import Ablation, Grid, aggregated_focus, contextual_dependency
from ladm.kernels.pfs import pairwise_focus
from ladm.observer import LayerView, Observer


def layer_cds(observer: Observer, ids_BT: Tensor, grid: Grid, *, ablation: Ablation, backend: str) -> Tensor:
    """CDS of rows of equal length in one forward pass: (B, L) float32 on the CPU, layers as in `observer.layers`."""
    cds: list[Tensor] = []

    def visit(view: LayerView) -> None:
        pfs_BJN = pairwise_focus(
            view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend=backend
        )
        afs_BJ = aggregated_focus(pfs_BJN, grid, ablation=ablation)
        cds.append(contextual_dependency(afs_BJ, grid, ablation=ablation))

    observer.observe(ids_BT, visit)
    return torch.stack(cds, dim=1).cpu()
