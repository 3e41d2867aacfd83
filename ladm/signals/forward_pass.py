"""Token ids and an observed model -> the numbers of every signal that comes from a row's own forward pass."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ladm.method.attention import causal_attention
from ladm.method.grid import Ablation, Grid
from ladm.modeling.attention_function import LayerView
from ladm.modeling.observer import Observer
from ladm.settings.score import GainScheme
from ladm.signals.gain_losses import GainLosses, gain_losses
from ladm.signals.layer_cds import Columns, FocusMeasurement
from ladm.signals.longattn import distant_attention

FIRST_LAYER = 0
"""The layer whose attention LongAttn measures."""


@dataclass(frozen=True, kw_only=True)
class PassSignals:
    """Which signals a pass is made for, and how each is measured."""

    cds: bool
    gain: GainScheme | None
    longattn: bool
    ablation: Ablation = "none"
    record: str = "layers"
    backend: str = "torch"


@dataclass(frozen=True, kw_only=True)
class PassResult:
    """What a forward pass has computed of rows of equal length, on the device or on its way to the host."""

    focus: Columns
    gain: GainLosses | None
    longattn: Columns

    def to_host(self, *, wait: bool = False) -> PassResult:
        """The same on the CPU. Without `wait` the copies are made when the device's queue reaches them."""
        focus, longattn = (
            {name: values.to("cpu", non_blocking=not wait) for name, values in columns.items()}
            for columns in (self.focus, self.longattn)
        )
        return PassResult(focus=focus, gain=self.gain and self.gain.to_host(wait=wait), longattn=longattn)

    def finish(self) -> Columns:
        """The stored columns: (B,), or (B, L) where there is a number a layer or head."""
        return self.focus | ({} if self.gain is None else self.gain.finish()) | self.longattn


def forward_pass(
    observer: Observer, ids_BT: Tensor, on_device_BT: Tensor, grid: Grid, signals: PassSignals, *, low_memory: bool
) -> PassResult:
    """One pass over rows of equal length for all of `signals`, and for a context gain the short inputs as well.

    `ids_BT` is on the CPU, `on_device_BT` the same on the device. On a GPU the work is queued, and not waited for.
    """
    focus = None
    if signals.cds:
        focus = FocusMeasurement(
            on_device_BT, grid, layers=observer.layers, ablation=signals.ablation, backend=signals.backend,
            record=signals.record, low_memory=low_memory,
        )  # fmt: skip
    longattn: Columns = {}

    def visit(view: LayerView) -> None:
        # LongAttn may look at layer 0 although the score does not use it.
        if focus is not None and view.layer in observer.layers:
            focus.visit(view)
        if signals.longattn and view.layer == FIRST_LAYER:
            longattn.update(_distant_attention(view, kernel=observer.attention, low_memory=low_memory))

    hidden_BTE = observer.observe(on_device_BT, visit, to_end=signals.gain is not None)
    gain = None
    if signals.gain is not None:
        assert hidden_BTE is not None
        gain = gain_losses(observer, ids_BT, on_device_BT, hidden_BTE, scheme=signals.gain, low_memory=low_memory)
    return PassResult(focus={} if focus is None else focus.columns(), gain=gain, longattn=longattn)


def _distant_attention(view: LayerView, *, kernel: str, low_memory: bool) -> Columns:
    """LongAttn's two numbers of the layer, by row."""
    q_BHTD, k_BGTD, lse_BHT = view.q_BHTD, view.k_BGTD, view.lse_BHT
    if lse_BHT is None:
        # The pass ends at this layer, whose attention the model therefore leaves out.
        _, lse_BHT = causal_attention(q_BHTD, k_BGTD, view.v_BGTD, scaling=view.scaling, kernel=kernel)
    return distant_attention(q_BHTD, k_BGTD, lse_BHT, scaling=view.scaling, low_memory=low_memory)
