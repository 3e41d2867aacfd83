"""A finished run -> a warning where its score is a mean over layers that attention sinks dominate. Imports no torch."""

from __future__ import annotations

import shlex

from ladm.runs.folder import Run
from ladm.runs.results import columns_of
from ladm.runs.sink_layers import HIGH_SINK_MASS, SINK_MASS_COLUMN, median_sink_mass, sinks_in_mean
from ladm.settings.layers import AFTER_SINKS
from ladm.settings.named_scores import NAMED_SCORES
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
    last = max(layer for layer, mass in median_of.items() if mass > HIGH_SINK_MASS)
    # Where the last layer has sinks too, no layers are left to advise.
    layers_are_left = last < max(median_of)
    if is_weighted and not layers_are_left:
        return None
    command = f"ladm rescore {shlex.quote(str(run.folder))} --score robust"
    # The robust score leaves out the earlier half of the layers. A model may have sinks in the later half too.
    if layers_are_left and NAMED_SCORES["robust"].layers_of(run.identity.layers)[0] <= last:
        command += f" --layers {AFTER_SINKS}"
    command += f" --output {shlex.quote(f'{run.folder}-robust')}"
    return f"{problem}; try {command}"
