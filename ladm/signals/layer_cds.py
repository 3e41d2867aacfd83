"""Token ids and an observed model -> CDS of every wanted layer: equations 2-5 as the model runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ladm.method.focus import aggregated_focus, contextual_dependency, wanted_JN
from ladm.method.grid import Ablation, Grid
from ladm.method.pfs import pairwise_focus
from ladm.method.reduction import kept_column
from ladm.modeling.observer import LayerView, Observer

Kept = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What a forward pass has left of rows of equal length, on the device where it ran or on its way to the host.

    `pfs_BLJN` is equation 2 of every wanted layer; `heads` are columns that were finished as the model ran.
    """

    grid: Grid
    ablation: Ablation
    record: str
    pfs_BLJN: Tensor
    heads: Kept

    def to_host(self) -> Pass:
        """The same on the CPU. Does not wait: the copies are made when the device's queue reaches them."""
        heads = {name: values.to("cpu", non_blocking=True) for name, values in self.heads.items()}
        return replace(self, pfs_BLJN=self.pfs_BLJN.to("cpu", non_blocking=True), heads=heads)

    def finish(self) -> Kept:
        """Equations 3-5: the stored columns, as in `layer_cds`."""
        kept = {
            kept_column(heads=False, second_form=k == 1): _cds(self.pfs_BLJN, self.grid, form)
            for k, form in enumerate(_forms(self.ablation, self.record))
        }
        if self.record == "range":
            kept["range_per_layer"] = long_range_focus(self.pfs_BLJN, self.grid)
        return kept | self.heads


def layer_cds(
    observer: Observer,
    ids_BT: Tensor,
    grid: Grid,
    *,
    ablation: Ablation,
    backend: str,
    record: str = "layers",
    low_memory: bool = False,
) -> Kept:
    """The stored columns of rows of equal length, from one forward pass; float32 on the CPU, by `observer.layers`.

    `cds_per_layer` (B, L); with record "heads" also `cds_per_head` (B, L H), each head's CDS from its
    own PFS, layer by layer; with "range" also `range_per_layer` (B, L), the median PFS of the used
    pairs at least half the document apart; with "forms" heads too, and both also without sigma
    (`cds_per_layer_no_std`, `cds_per_head_no_std`). `low_memory`: as of `pairwise_focus`.
    """
    one = forward(observer, ids_BT, grid, ablation=ablation, backend=backend, record=record, low_memory=low_memory)
    on_host = replace(one, pfs_BLJN=one.pfs_BLJN.cpu(), heads={name: x.cpu() for name, x in one.heads.items()})
    return on_host.finish()


def forward(
    observer: Observer,
    ids_BT: Tensor,
    grid: Grid,
    *,
    ablation: Ablation,
    backend: str,
    record: str,
    low_memory: bool = False,
) -> Pass:
    """The part of `layer_cds` that the device does. A GPU is given its work and, but for heads, not waited for.

    Equations 3-5 of whole layers are left to the host: a GPU would take longer to begin so little
    than to do it. Those of single heads are done as the model runs, because their PFS would be many
    times as large; their constants are copied to the device in every layer, which waits for it.
    """
    by_layer: list[Tensor] = []
    heads: dict[str, list[Tensor]] = {}
    by_head = record in ("heads", "forms")

    def visit(view: LayerView) -> None:
        pfs = pairwise_focus(
            view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend=backend, by_head=by_head,
            low_memory=low_memory,
        )  # fmt: skip
        by_layer.append(pfs.mean(dim=1) if by_head else pfs)
        for k, form in enumerate(_forms(ablation, record) if by_head else ()):
            heads.setdefault(kept_column(heads=True, second_form=k == 1), []).append(_cds(pfs, grid, form))

    observer.observe(ids_BT, visit)
    columns = {name: torch.cat(parts, dim=1) for name, parts in heads.items()}
    pfs_BLJN = torch.stack(by_layer, dim=1)
    return Pass(grid=grid, ablation=ablation, record=record, pfs_BLJN=pfs_BLJN, heads=columns)


def _forms(ablation: Ablation, record: str) -> tuple[Ablation, ...]:
    return (ablation, "no-std") if record == "forms" else (ablation,)


def _cds(pfs: Tensor, grid: Grid, ablation: Ablation) -> Tensor:
    return contextual_dependency(aggregated_focus(pfs, grid, ablation=ablation), grid, ablation=ablation)


def long_range_focus(pfs_JN: Tensor, grid: Grid) -> Tensor:
    """Median PFS over the used pairs with j - i >= N / 2: (..., J, N) -> (...); 0 where there is no such pair."""
    j_J1 = torch.tensor(grid.J, device=pfs_JN.device).unsqueeze(1)
    far_JN = wanted_JN(grid, pfs_JN.device) & (2 * (j_J1 - torch.arange(grid.N, device=pfs_JN.device)) >= grid.N)
    far_P = pfs_JN[..., far_JN]
    return far_P.median(dim=-1).values if far_P.shape[-1] else far_P.sum(dim=-1)
