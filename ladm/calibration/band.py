"""The run of a contrast set -> quantiles of the intact documents for every recorded column: the band of a profile.

Repeated blocks, shuffled spans and lists score above almost every document, so a selection that ranks inside the band
of documents leaves them out. Imports no torch.
"""

from __future__ import annotations

import numpy as np

from ladm.calibration.candidates import Candidate
from ladm.calibration.contrast import INTACT
from ladm.calibration.contrast_scores import JUDGED_ON, ContrastScores
from ladm.method.reduction import Floats
from ladm.runs.columns import column_names, read_columns
from ladm.runs.folder import Run
from ladm.settings.profiles import Quantiles

QUANTILES = (0.05, 0.5, 0.95)
NO_GUARDS = ("score", "length", "random")
"""Columns that say nothing of a document, and the score of the contrast set's own run, which is not the profile's."""


def intact_band(run: Run, scores: ContrastScores, recommended: Candidate) -> dict[str, Quantiles]:
    """By column, 0.05, 0.5 and 0.95 quantile of the intact documents: of `score` and of all that `select` can read.

    `score` is the profile's own, of the half that it was not chosen on: on the other half it is higher than it will be
    on new documents.
    """
    names = [name for name in column_names(run) if name not in NO_GUARDS]
    # Both tables are in the order of scores.parquet.
    table = read_columns(run, names)
    intact = scores.mask(INTACT, None)
    band = {"score": _quantiles(recommended.values(scores)[scores.mask(INTACT, JUDGED_ON)])}
    return band | {name: _quantiles(table[name].to_numpy()[intact]) for name in names}


def _quantiles(values_B: Floats) -> Quantiles:
    # Six digits say more than any sample of documents knows.
    low, middle, high = (float(f"{value:.6g}") for value in np.quantile(values_B, QUANTILES))
    return low, middle, high
