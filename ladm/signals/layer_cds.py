"""Token ids and an observed model -> CDS of every wanted layer: equations 2-5 as the model runs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ladm.method.columns import far_key_mass, value_weights
from ladm.method.focus import aggregated_focus, contextual_dependency, wanted_JN
from ladm.method.grid import Ablation, FocusKind, Grid
from ladm.method.pfs import measure_focus
from ladm.method.pfs_torch import CopyKeys
from ladm.method.reduction import kept_column
from ladm.method.sinks import sink_mass
from ladm.modeling.attention_function import LayerView
from ladm.modeling.observer import Observer

Columns = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class ForwardResult:
    """What a forward pass has left of rows of equal length, on the device where it ran or on its way to the host.

    `pfs_BLJN` is equation 2 of every wanted layer, `value_BLJN` the same with value weights, `copied_BL` the part of
    the sum of `pfs_BLJN` that falls on copy keys; `heads` are columns that were finished as the model ran.
    """

    grid: Grid
    ablation: Ablation
    record: str
    pfs_BLJN: Tensor
    value_BLJN: Tensor
    copied_BL: Tensor
    sink_mass_BL: Tensor
    heads: Columns

    def to_host(self, *, wait: bool = False) -> ForwardResult:
        """The same on the CPU. Without `wait` the copies are made when the device's queue reaches them."""
        names = ("pfs_BLJN", "value_BLJN", "copied_BL", "sink_mass_BL")
        tensors = {name: getattr(self, name).to("cpu", non_blocking=not wait) for name in names}
        heads = {name: values.to("cpu", non_blocking=not wait) for name, values in self.heads.items()}
        return replace(self, **tensors, heads=heads)

    def finish(self) -> Columns:
        """Equations 3-5: the stored columns, as in `layer_cds`."""
        kept = {
            kept_column(heads=False, second_form=k == 1, focus=focus): _cds(pfs_BLJN, self.grid, form)
            for focus, pfs_BLJN in _by_kind(self.pfs_BLJN, self.value_BLJN)
            for k, form in enumerate(_forms(self.ablation, self.record))
        }
        kept["copy_share_per_layer"] = _copy_share(self.copied_BL, self.pfs_BLJN)
        kept["sink_mass_per_layer"] = self.sink_mass_BL
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
) -> Columns:
    """The stored columns of rows of equal length, from one forward pass; float32 on the CPU, by `observer.layers`.

    `cds_per_layer` (B, L), beside an ablation of "none" the same without sigma, `cds_per_layer_no_std`; both also of
    the value-weighted PFS, `value_cds_per_layer` and `value_cds_per_layer_no_std`; `copy_share_per_layer`, the share
    of the used PFS that falls on copy keys; `sink_mass_per_layer`. With record "heads" also the same of each head, from
    its own attention, layer by layer: `..._per_head` in place of `..._per_layer` (B, L H); with "range" also
    `range_per_layer` (B, L), the median PFS of the used pairs at least half the document apart; with "forms" heads
    too, and a form without sigma beside any ablation. `low_memory`: see `measure_focus`.
    """
    one = forward(observer, ids_BT, grid, ablation=ablation, backend=backend, record=record, low_memory=low_memory)
    return one.to_host(wait=True).finish()


def forward(
    observer: Observer,
    ids_BT: Tensor,
    grid: Grid,
    *,
    ablation: Ablation,
    backend: str,
    record: str,
    low_memory: bool = False,
) -> ForwardResult:
    """The part of `layer_cds` that the device does. A GPU is given its work and, but for constants, not waited for."""
    measurement = FocusMeasurement(
        ids_BT.to(observer.device), grid, layers=observer.layers, ablation=ablation, backend=backend, record=record,
        low_memory=low_memory,
    )  # fmt: skip
    observer.observe(ids_BT, measurement.visit)
    return measurement.result()


class FocusMeasurement:
    """Takes equation 2 and what goes with it from each layer that it visits in one forward pass, `layers` in order.

    Equations 3-5 of whole layers are left to the host: a GPU would take longer to begin so little than to do it. Those
    of single heads are done as the model runs, because their PFS would be many times as large. Constants of a grid
    stay on the device, because a copy to it waits for it.
    """

    def __init__(
        self,
        ids_BT: Tensor,
        grid: Grid,
        *,
        layers: tuple[int, ...],
        ablation: Ablation,
        backend: str,
        record: str,
        low_memory: bool = False,
    ) -> None:
        self._grid, self._last = grid, layers[-1]
        self._ablation, self._record = ablation, record
        self._backend, self._low_memory = backend, low_memory
        # They depend on the ids alone: found once, used in every layer.
        self._copy_keys = CopyKeys(ids_BT, grid)
        self._layers: dict[str, list[Tensor]] = {
            "pfs_BLJN": [], "value_BLJN": [], "copied_BL": [],
        }  # fmt: skip
        self._far_key_mass: list[Tensor] = []
        self._heads: dict[str, list[Tensor]] = {}

    def visit(self, view: LayerView) -> None:
        """Measure a layer."""
        by_head = self._record in ("heads", "forms")
        grid = self._grid
        # Never that of the last layer, which a pass has only if it goes on for another signal: the same numbers to the
        # last bit, whatever else is measured in the pass.
        lse_BHT = None if view.layer == self._last else view.lse_BHT
        focus = measure_focus(
            view.q_BHTD, view.k_BGTD, lse_BHT, scaling=view.scaling, grid=grid, backend=self._backend, by_head=by_head,
            key_weight_BGT=value_weights(view.v_BGTD, backend=self._backend), copy_keys=self._copy_keys,
            low_memory=self._low_memory,
        )  # fmt: skip
        assert focus.weighted_BKJN is not None
        assert focus.copied_BK is not None
        self._layers["pfs_BLJN"].append(focus.pfs_BKJN.mean(dim=1))
        self._layers["value_BLJN"].append(focus.weighted_BKJN.mean(dim=1))
        self._layers["copied_BL"].append(focus.copied_BK.mean(dim=1))
        mass_BHT = far_key_mass(
            view.q_BHTD, view.k_BGTD, lse_BHT, scaling=view.scaling, skipped_tokens=grid.start(0) + grid.l,
            backend=self._backend,
        )  # fmt: skip
        self._far_key_mass.append(mass_BHT.mean(dim=1))
        if not by_head:
            return
        heads = {
            kept_column(heads=True, second_form=k == 1, focus=kind): _cds(pfs_BHJN, grid, form)
            for kind, pfs_BHJN in _by_kind(focus.pfs_BKJN, focus.weighted_BKJN)
            for k, form in enumerate(_forms(self._ablation, self._record))
        }
        heads["copy_share_per_head"] = _copy_share(focus.copied_BK, focus.pfs_BKJN)
        heads["sink_mass_per_head"] = sink_mass(mass_BHT)
        for name, values_BH in heads.items():
            self._heads.setdefault(name, []).append(values_BH)

    def result(self) -> ForwardResult:
        """What the visited layers have given."""
        heads = {name: torch.cat(parts, dim=1) for name, parts in self._heads.items()}
        by_layer = {name: torch.stack(parts, dim=1) for name, parts in self._layers.items()}
        return ForwardResult(
            grid=self._grid, ablation=self._ablation, record=self._record, heads=heads,
            # The strongest keys of all layers at once: a GPU takes hardly longer than for those of one.
            sink_mass_BL=sink_mass(torch.stack(self._far_key_mass, dim=1)), **by_layer,
        )  # fmt: skip


def _by_kind(plain: Tensor, value: Tensor) -> tuple[tuple[FocusKind, Tensor], ...]:
    return (("plain", plain), ("value", value))


def _forms(ablation: Ablation, record: str) -> tuple[Ablation, ...]:
    # An ablation is one form on purpose: no-std is without sigma already, no-length belongs to no named score.
    return (ablation, "no-std") if ablation == "none" or record == "forms" else (ablation,)


def _copy_share(copied: Tensor, pfs_JN: Tensor) -> Tensor:
    """The part of the sum of PFS that falls on copy keys: (...) and (..., J, N) -> (...)."""
    total = pfs_JN.sum(dim=(-2, -1))
    # Where nothing is paid to any span, nothing is copied: 0 and not NaN, which would cost the row its score.
    return torch.where(total > 0, copied / total, 0.0)


def _cds(pfs: Tensor, grid: Grid, ablation: Ablation) -> Tensor:
    return contextual_dependency(aggregated_focus(pfs, grid, ablation=ablation), grid, ablation=ablation)


def long_range_focus(pfs_JN: Tensor, grid: Grid) -> Tensor:
    """Median PFS over the used pairs with j - i >= N / 2: (..., J, N) -> (...); 0 where there is no such pair."""
    j_J1 = torch.tensor(grid.J, device=pfs_JN.device).unsqueeze(1)
    far_JN = wanted_JN(grid, pfs_JN.device) & (2 * (j_J1 - torch.arange(grid.N, device=pfs_JN.device)) >= grid.N)
    far_P = pfs_JN[..., far_JN]
    return far_P.median(dim=-1).values if far_P.shape[-1] else far_P.sum(dim=-1)
