"""Columns, and the domain of each document -> medians and quartiles by domain, as in figure 4 of the paper.

Imports no torch. Shape suffixes: N documents, D domains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]
Quartiles = tuple[float, float, float]
"""First quartile, median and third quartile; NaN where no document has a value."""


@dataclass(frozen=True, kw_only=True)
class ColumnSummary:
    """How many documents have a value, and their quartiles."""

    name: str
    documents: int
    quartiles: Quartiles
    by_domain: dict[str, Quartiles]
    """Of the largest domains, the one with the highest median of the first column first."""


def summarise_columns(
    columns: Mapping[str, Floats], codes_N: Codes, names: Sequence[str], *, most_domains: int
) -> tuple[list[ColumnSummary], dict[str, int]]:
    """Summaries of the columns, and the documents of each domain in them. `codes_N` are places in `names`.

    Only the `most_domains` largest domains are summarised one by one.
    """
    counts_D = np.bincount(codes_N, minlength=len(names)).tolist()
    largest = sorted(range(len(names)), key=lambda d: (-counts_D[d], names[d]))[:most_domains]
    # One sort of the codes in place of a comparison of all documents with every domain and column.
    order, ends_D = np.argsort(codes_N, kind="stable"), np.cumsum(counts_D)
    places = {d: order[ends_D[d] - counts_D[d] : ends_D[d]] for d in largest}
    found = {name: {d: quartiles(values_N[places[d]]) for d in largest} for name, values_N in columns.items()}
    first = next(iter(found.values()), {})
    # NaN is lower than no number; with it as it is, the order would be left to chance.
    sorted_by = sorted(largest, key=lambda d: (-np.nan_to_num(first[d][1], nan=-np.inf), names[d])) if first else []
    summaries = [
        ColumnSummary(
            name=name,
            documents=int(np.count_nonzero(~np.isnan(values_N))),
            quartiles=quartiles(values_N),
            by_domain={names[d]: found[name][d] for d in sorted_by},
        )
        for name, values_N in columns.items()
    ]
    return summaries, {names[d]: counts_D[d] for d in sorted_by}


def quartiles(values: Floats) -> Quartiles:
    """The quartiles of those values that are numbers."""
    known = values[~np.isnan(values)]
    if not len(known):
        return (float("nan"),) * 3
    low, middle, high = np.quantile(known, (0.25, 0.5, 0.75))
    return float(low), float(middle), float(high)


def largest_domains(documents: Mapping[str, int], most: int) -> list[str]:
    """The `most` largest domains, in the order that they are given in."""
    kept = set(sorted(documents, key=lambda name: (-documents[name], name))[:most])
    return [name for name in documents if name in kept]


def quartiles_text(found: Quartiles) -> str:
    """`0.31 (0.14 to 0.54)`: the median, and the first and the third quartile; `-` where no document has a value."""
    low, middle, high = (f"{value:.3g}" for value in found)
    return "-" if math.isnan(found[1]) else f"{middle} ({low} to {high})"
