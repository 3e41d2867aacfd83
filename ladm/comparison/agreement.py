"""Two columns -> how far they agree: rank correlation, overall and inside domains, and the overlap of what they take.

Imports no torch. Shape suffixes: N documents, D domains.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ladm.selection.budget import documents_of_top, round_quotas
from ladm.selection.ranks import average_ranks, spearman

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int32]


def spearman_inside_domains(a_N: Floats, b_N: Floats, codes_N: Codes) -> float:
    """The mean of the domains' own Spearman correlations, weighted by their documents.

    Selection ranks inside domains, so that a correlation which only reflects differences between domains is of no use
    to it. Domains of fewer than three documents, and those where a column is constant, are left out.
    """
    # Ranks are taken again in every domain: ranks over all documents would still hold the differences between domains.
    total = weight = 0.0
    for part in _parts(codes_N):
        found = spearman(a_N[part], b_N[part])
        if not np.isnan(found):
            both = int(np.count_nonzero(~(np.isnan(a_N[part]) | np.isnan(b_N[part]))))
            total, weight = total + found * both, weight + both
    return total / weight if weight else float("nan")


def ranks_inside_domains(values_N: Floats, codes_N: Codes) -> Floats:
    """The rank of each document in its domain, as a share from 0 (the lowest) to 1; NaN where it has no value."""
    shares_N = np.full(len(values_N), np.nan)
    for part in _parts(codes_N):
        ranks = average_ranks(values_N[part])
        count = np.count_nonzero(~np.isnan(ranks))
        shares_N[part] = (ranks - 1) / (count - 1) if count > 1 else np.where(np.isnan(ranks), np.nan, 0.5)
    return shares_N


def best_inside_domains(
    values_N: Floats, codes_N: Codes, *, names: Sequence[str], percent: float
) -> npt.NDArray[np.bool_]:
    """The documents that `ladm select --top` takes by these values, ties in the order of the documents: (N,).

    `names` are those of the domains. A document without a value is not in the pool that the share is of.
    """
    taken_N = np.zeros(len(values_N), dtype=np.bool_)
    known = {}
    for part in _parts(codes_N):
        places = part[~np.isnan(values_N[part])]
        if len(places):
            known[names[codes_N[places[0]]]] = places
    if not known:
        return taken_N
    counts = {name: len(places) for name, places in known.items()}
    quotas = round_quotas(documents_of_top(percent, sum(counts.values())), counts)
    for name, places in known.items():
        taken_N[places[np.argsort(-values_N[places], kind="stable")[: quotas[name]]]] = True
    return taken_N


def overlap(taken_N: npt.NDArray[np.bool_], other_N: npt.NDArray[np.bool_]) -> float:
    """The share of what one takes that the other takes too; of the larger one where their numbers differ."""
    most = max(int(taken_N.sum()), int(other_N.sum()))
    return int((taken_N & other_N).sum()) / most if most else float("nan")


def is_constant(values_N: Floats) -> bool:
    """Has every document that has a value the same one? What a selection by it takes is then decided by ties alone."""
    known = values_N[~np.isnan(values_N)]
    return len(known) == 0 or bool((known == known[0]).all())


def _parts(codes_N: Codes) -> Sequence[npt.NDArray[np.int64]]:
    """The places of the documents of each domain."""
    # Stable, so that the documents of a domain keep their order, which decides ties.
    order = np.argsort(codes_N, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes_N[order])) + 1)
