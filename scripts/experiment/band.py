"""A score -> the score inside its band: very high values, which repeated and shuffled text has, rank last."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

BAND_QUANTILE = 0.95


def in_band(values: Array, *, of: Array | None = None) -> Array:
    """Values above the 95th percentile of `of` (None: of all of them) become less than every other."""
    top = np.quantile(values if of is None else of, BAND_QUANTILE)
    return np.where(values <= top, values, values.min() - 1)
