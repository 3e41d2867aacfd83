"""A finished run -> a warning where its score is a mean over layers that attention sinks dominate. Imports no torch."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ladm.runs.folder import Run
from ladm.runs.results import columns_of, score_batches
from ladm.settings.layers import spell_layers

HIGH_SINK_MASS = 0.5
"""Above it most of a layer's distant attention falls on a handful of keys. Layers of text have 0.04 to 0.21, those with
sinks 0.62 to 0.75 (SmolLM2-135M)."""
MOST_ROWS = 10_000
_COLUMN = "sink_mass_per_layer"


def sink_warning(run: Run, *, scored: int) -> str | None:
    """The warning; None where the score is another than a plain mean, or no layer in it has a high median sink mass.

    `scored`: rows with a score. Of many rows evenly spaced ones are read.
    """
    reduction = run.identity.reduction
    is_plain_mean = reduction.how == "mean" and reduction.focus == "plain"
    if not is_plain_mean or reduction.heads is not None or _COLUMN not in columns_of(run.folder):
        return None
    every = max(1, scored // MOST_ROWS)
    masses: list[list[float]] = []
    for batch in score_batches(run.folder, ["rank", _COLUMN]):
        chosen = pa.array(batch["rank"].to_numpy() % every == 0)
        masses += batch[_COLUMN].filter(chosen).to_pylist()
    if not masses:
        return None
    median_of = dict(zip(run.identity.layers, np.median(np.array(masses), axis=0).tolist(), strict=True))
    sinks = [layer for layer in reduction.layers if median_of[layer] > HIGH_SINK_MASS]
    if not sinks:
        return None
    return (
        f"in layer{'s' if len(sinks) > 1 else ''} {spell_layers(sinks)} a few tokens receive up to "
        f"{max(median_of[layer] for layer in sinks):.0%} of the distant attention, and a plain mean over layers "
        f"depends on where they stand; try ladm rescore {run.folder} --score robust"
    )
