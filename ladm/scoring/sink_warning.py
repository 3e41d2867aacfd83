"""A finished run -> a warning where its score is a mean over layers that attention sinks dominate. Imports no torch."""

from __future__ import annotations

from ladm.runs.folder import Run
from ladm.runs.results import columns_of
from ladm.runs.sink_layers import HIGH_SINK_MASS, SINK_MASS_COLUMN, median_sink_mass
from ladm.settings.layers import spell_layers
from ladm.settings.signals import CDS


def sink_warning(run: Run, *, scored: int) -> str | None:
    """The warning; None where the score is another than a plain mean, or no layer in it has a high median sink mass.

    `scored`: rows with a score. Of many rows evenly spaced ones are read.
    """
    if CDS not in run.identity.signals:
        return None
    reduction = run.identity.reduction
    is_plain_mean = reduction.how == "mean" and reduction.focus == "plain"
    if not is_plain_mean or reduction.heads is not None or SINK_MASS_COLUMN not in columns_of(run.folder):
        return None
    median_of = median_sink_mass(run, scored=scored)
    sinks = [layer for layer in reduction.layers if median_of.get(layer, 0.0) > HIGH_SINK_MASS]
    if not sinks:
        return None
    return (
        f"in layer{'s' if len(sinks) > 1 else ''} {spell_layers(sinks)} a few tokens receive up to "
        f"{max(median_of[layer] for layer in sinks):.0%} of the distant attention, and a plain mean over layers "
        f"depends on where they stand; try ladm rescore {run.folder} --score robust"
    )
