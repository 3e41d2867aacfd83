"""The run of a contrast set -> quantiles of the intact documents for every recorded column: the band of a profile.

Repeated blocks, shuffled spans and lists score above almost every document, so a selection that ranks inside the band
of documents leaves them out. Imports no torch.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from ladm.calibration.candidates import Candidate, all_layers
from ladm.calibration.contrast import INTACT
from ladm.calibration.contrast_scores import JUDGED_ON, RELEASED, ROBUST, ContrastScores
from ladm.method.reduction import Floats
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, read_scores
from ladm.settings.profiles import Quantiles

QUANTILES = (0.05, 0.5, 0.95)
NOT_OF_THE_TEXT = ("rank", "index", "chunked_index", "position", "score", "num_tokens")
"""Columns that say which row it is, and the score of the contrast set's own run, which is not that of the profile."""


def intact_band(run: Run, scores: ContrastScores, recommended: Candidate) -> dict[str, Quantiles]:
    """By column: 0.05, 0.5 and 0.95 quantile of the intact documents.

    `score` is the profile's own, of the half that it was not chosen on: on the other half it is higher than it will be
    on new documents. `released`, `median`, `robust`, `copy_share` and `sink_mass` are made of the columns by layer as
    `ladm select` makes them; every other column of one number a row is as it was stored.
    """
    intact = scores.mask(INTACT, None)
    band = {"score": _quantiles(recommended.values(scores)[scores.mask(INTACT, JUDGED_ON)])}
    for name, values_B in derived_columns(scores).items():
        band[name] = _quantiles(values_B[intact])
    # The rows of `scores` are those of the run in its own order.
    table = read_scores(run.folder, _numbers(run))
    return band | {name: _quantiles(table[name].to_numpy()[intact]) for name in table.column_names}


def derived_columns(scores: ContrastScores) -> dict[str, Floats]:
    """Columns of one number a row that are made of those by layer: (B,) each."""
    found = {
        "released": all_layers(scores, "mean", form=RELEASED).values(scores),
        "median": all_layers(scores, "median", form=RELEASED).values(scores),
    }
    if ROBUST in scores.cds:
        found["robust"] = all_layers(scores, "mean", form=ROBUST).values(scores)
    for name, by_layer in (("copy_share", scores.copy_share), ("sink_mass", scores.sink_mass)):
        if by_layer is not None:
            found[name] = by_layer.mean(axis=1)
    return found


def _numbers(run: Run) -> list[str]:
    """Columns of the run that hold one floating-point number a row, such as text statistics."""
    schema = read_scores(run.folder, columns_of(run.folder)).schema
    return [each.name for each in schema if pa.types.is_floating(each.type) and each.name not in NOT_OF_THE_TEXT]


def _quantiles(values_B: Floats) -> Quantiles:
    # Six digits say more than any sample of documents knows.
    low, middle, high = (float(f"{value:.6g}") for value in np.quantile(values_B, QUANTILES))
    return low, middle, high
