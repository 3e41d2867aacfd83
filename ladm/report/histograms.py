"""A column of a run -> how many documents and tokens of each domain have which values. Imports no torch.

Shape suffixes: N documents in the order of the page's ranking, D domains, B bins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.report.charts import LOG_FROM_RATIO
from ladm.runs.columns.by_name import stored_limit

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCORE_BINS, OTHER_BINS = 200, 60
"""Steps of a cut. The score has more, because it is what most selections are made by."""
TAILS = 0.001
"""Quantile at either end beyond which all values share the first or the last bin: one outlier would else leave nearly
all documents in a single bin."""
CHUNK = 1 << 20
SAMPLE = 200_000
DIGITS = 6


@dataclass(frozen=True, kw_only=True)
class ColumnHistogram:
    """Documents and tokens by domain and bin. The first bin has no lower end, and the last no upper one."""

    name: str
    is_logarithmic: bool
    edges: list[float]
    """B + 1 numbers; a cut at edge b takes the bins from b on, exactly."""
    documents_DB: Ints
    tokens_DB: Ints
    without_value: int
    taken_DB: Ints | None
    """Those of the documents that a subset took; None without one."""

    def as_json(self) -> dict[str, Any]:
        """What the script of the page reads."""
        taken = {} if self.taken_DB is None else {"taken": self.taken_DB.tolist()}
        return {
            "name": self.name,
            "log": self.is_logarithmic,
            "edges": self.edges,
            "documents": self.documents_DB.tolist(),
            "tokens": self.tokens_DB.tolist(),
            "without": self.without_value,
        } | taken


def column_histogram(
    name: str,
    values_N: Floats,
    *,
    domains_N: Ints,
    tokens_N: Ints,
    num_domains: int,
    bins: int,
    is_float32: bool = False,
    taken_N: npt.NDArray[np.bool_] | None = None,
) -> ColumnHistogram | None:
    """Count a column; None where no document has a value. Reads the arrays in chunks, which may be on disk.

    `is_float32`: the column is stored in float32.
    """
    edges, is_logarithmic = _edges(values_N, bins)
    if edges is None:
        return None
    # As `ladm select --min-score EDGE` compares them.
    borders = np.array([stored_limit(edge) for edge in edges[1:-1]]) if is_float32 else edges[1:-1]
    size = num_domains * (len(edges) - 1)
    documents, tokens, taken = (np.zeros(size, dtype=np.int64) for _ in range(3))
    without = 0
    for start in range(0, len(values_N), CHUNK):
        part = slice(start, start + CHUNK)
        valid = ~np.isnan(values_N[part])
        without += int(np.count_nonzero(~valid))
        # "right", so that a value that equals an edge is above the cut there.
        bins_B = np.searchsorted(borders, values_N[part][valid], side="right")
        # Domain and bin as one number, so that a single count does for all domains.
        cells = domains_N[part][valid] * (len(edges) - 1) + bins_B
        documents += np.bincount(cells, minlength=size)
        # Sums of whole numbers below 2^53, so exact in the float64 that bincount adds up in.
        tokens += np.bincount(cells, weights=tokens_N[part][valid], minlength=size).astype(np.int64)
        if taken_N is not None:
            taken += np.bincount(cells[taken_N[part][valid]], minlength=size)
    shape = (num_domains, -1)
    return ColumnHistogram(
        name=name,
        is_logarithmic=is_logarithmic,
        edges=edges.tolist(),
        documents_DB=documents.reshape(shape),
        tokens_DB=tokens.reshape(shape),
        without_value=without,
        taken_DB=None if taken_N is None else taken.reshape(shape),
    )


def _edges(values_N: Floats, bins: int) -> tuple[Floats | None, bool]:
    """Evenly spaced edges between the outermost quantiles, on a logarithmic axis where values are far apart."""
    # Evenly spaced documents: they are in the order of the scores, so the sample has the scores' own quantiles.
    sample = np.array(values_N[:: max(1, len(values_N) // SAMPLE)], dtype=np.float64)
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return None, False
    # Few documents have no tails: every value is at its own place.
    tails = TAILS if len(sample) > 1 / TAILS else 0.0
    # In as few digits as the page has: values that are equal there would else leave no bin between two edges.
    low, high = (rounded(float(x)) for x in np.quantile(sample, (tails, 1 - tails)))
    if low == high:
        margin = abs(low) / 2 or 1.0
        low, high = low - margin, high + margin
    # The rule of the page's other axes.
    is_logarithmic = low > 0 and high / low > LOG_FROM_RATIO
    edges = np.geomspace(low, high, bins + 1) if is_logarithmic else np.linspace(low, high, bins + 1)
    # The page has the edges in few digits, and documents are counted with the same numbers.
    return np.unique([rounded(x) for x in edges]), is_logarithmic


def rounded(value: float) -> float:
    """A number in as many digits as the page has of it."""
    return float(f"{value:.{DIGITS}g}")
