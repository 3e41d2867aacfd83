"""Token ids and an observed model -> CDS of every wanted layer: equations 2-5 as the model runs."""

from __future__ import annotations

import torch
from torch import Tensor

from ladm.method.cds import aggregated_focus, contextual_dependency, copy_share, long_range_focus, near_share
from ladm.method.columns import far_key_mass, value_weights
from ladm.method.constants import release_constants
from ladm.method.grid import Ablation, FocusKind, Grid
from ladm.method.pfs import measure_focus
from ladm.method.pfs_torch import CopyKeys
from ladm.method.reduction import cds_column_name
from ladm.method.sinks import sink_mass
from ladm.modeling.attention_function import LayerView
from ladm.modeling.observer import Observer

Columns = dict[str, Tensor]


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
    of the used PFS that falls on copy keys; `sink_mass_per_layer`; `near_share_per_layer`, of value-weighted PFS. With
    record "heads" also the same of each head, from its own attention, layer by layer: `..._per_head` in place of
    `..._per_layer` (B, L H); with "range" also `range_per_layer` (B, L), the median PFS of the used pairs at least half
    the document apart; with "forms" heads too, and a form without sigma beside any ablation. `low_memory`: see
    `measure_focus`.
    """
    measurement = FocusMeasurement(
        ids_BT.to(observer.device), grid, layers=observer.layers, ablation=ablation, backend=backend, record=record,
        low_memory=low_memory,
    )  # fmt: skip
    observer.observe(ids_BT, measurement.visit)
    return {name: values.cpu() for name, values in measurement.columns().items()}


class FocusMeasurement:
    """Computes equation 2, and what is stored beside it, of each layer in one forward pass, `layers` in order.

    Everything stays on the device, where the work is queued and not waited for.
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
        if low_memory:
            # Those of other lengths; what this one needs is made again.
            release_constants()
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
        for name, x_BK in (
            ("pfs_BLJN", focus.pfs_BKJN), ("value_BLJN", focus.weighted_BKJN), ("copied_BL", focus.copied_BK),
        ):  # fmt: skip
            self._layers[name].append(x_BK.mean(dim=1) if by_head else x_BK.squeeze(1))
        mass_BHT = far_key_mass(
            view.q_BHTD, view.k_BGTD, lse_BHT, scaling=view.scaling, skipped_tokens=grid.start(0) + grid.l,
            backend=self._backend,
        )  # fmt: skip
        self._far_key_mass.append(mass_BHT.mean(dim=1))
        if not by_head:
            return
        heads = self._cds_columns(focus.pfs_BKJN, focus.weighted_BKJN, heads=True)
        heads["copy_share_per_head"] = copy_share(focus.copied_BK, focus.pfs_BKJN)
        heads["sink_mass_per_head"] = sink_mass(mass_BHT)
        heads["near_share_per_head"] = near_share(focus.weighted_BKJN, grid)
        for name, values_BH in heads.items():
            self._heads.setdefault(name, []).append(values_BH)

    def columns(self) -> Columns:
        """Equations 3-5 of the visited layers: the stored columns, as in `layer_cds`, on the device."""
        grid = self._grid
        by_layer = {name: torch.stack(parts, dim=1) for name, parts in self._layers.items()}
        pfs_BLJN = by_layer["pfs_BLJN"]
        kept = self._cds_columns(pfs_BLJN, by_layer["value_BLJN"], heads=False)
        kept["copy_share_per_layer"] = copy_share(by_layer["copied_BL"], pfs_BLJN)
        # The strongest keys of all layers at once: a GPU takes hardly longer than for those of one.
        kept["sink_mass_per_layer"] = sink_mass(torch.stack(self._far_key_mass, dim=1))
        kept["near_share_per_layer"] = near_share(by_layer["value_BLJN"], grid)
        if self._record == "range":
            kept["range_per_layer"] = long_range_focus(pfs_BLJN, grid)
        return kept | {name: torch.cat(parts, dim=1) for name, parts in self._heads.items()}

    def _cds_columns(self, plain: Tensor, value: Tensor, *, heads: bool) -> Columns:
        """CDS of both kinds of PFS in every stored form: (..., J, N) -> (...)."""
        kinds: tuple[tuple[FocusKind, Tensor], ...] = (("plain", plain), ("value", value))
        return {
            cds_column_name(heads=heads, second_form=k == 1, focus=kind): _cds(pfs, self._grid, form)
            for kind, pfs in kinds
            for k, form in enumerate(_forms(self._ablation, self._record))
        }


def _forms(ablation: Ablation, record: str) -> tuple[Ablation, ...]:
    # An ablation is one form on purpose: no-std is without sigma already, no-length belongs to no named score.
    return (ablation, "no-std") if ablation == "none" or record == "forms" else (ablation,)


def _cds(pfs: Tensor, grid: Grid, ablation: Ablation) -> Tensor:
    return contextual_dependency(aggregated_focus(pfs, grid, ablation=ablation), grid, ablation=ablation)
