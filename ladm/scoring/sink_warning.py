"""A finished run -> a warning where its score is a mean over layers that attention sinks dominate. Imports no torch."""

from __future__ import annotations

from ladm.runs.columns.sink_layers import (
    HIGH_SINK_MASS,
    SINK_MASS_COLUMN,
    median_sink_mass,
    robust_command,
    sinks_in_mean,
)
from ladm.runs.folder import Run
from ladm.runs.results import columns_of
from ladm.settings.signals import CDS


def sink_warning(run: Run) -> str | None:
    """The warning; None where the score is no plain mean over layers, or no layer in it has a high median sink mass."""
    if CDS not in run.identity.signals:
        return None
    reduction = run.identity.reduction
    is_mean = reduction.how == "mean" and reduction.heads is None and reduction.weights is None
    if not is_mean or SINK_MASS_COLUMN not in columns_of(run.folder):
        return None
    median_of = median_sink_mass(run)
    is_weighted = reduction.focus == "value"
    problem = sinks_in_mean(reduction.layers, median_of, is_weighted=is_weighted)
    if problem is None:
        return None
    # Where the last layer has sinks too, no layers are left to advise.
    if is_weighted and median_of[max(median_of)] > HIGH_SINK_MASS:
        return None
    return f"{problem}; try {robust_command(run, median_of)}"
