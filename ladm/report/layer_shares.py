"""CDS by layer of some documents -> what each layer contributes, for a page that ranks by CDS. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ladm.report.ranking import PageRanking
from ladm.runs.folder import Run
from ladm.runs.results import columns_of


def layer_columns(run: Run, ranking: PageRanking) -> list[str]:
    """The column with the CDS by layer that the ranking is made of, if there is one."""
    if not ranking.is_cds:
        return []
    identity = run.identity
    column = identity.cds_column(identity.score_form, heads=False, focus=identity.reduction.focus)
    return [column] if column in columns_of(run.folder) else []


@dataclass(frozen=True, kw_only=True)
class LayerShare:
    """A layer's share of the mean over all stored layers."""

    layer: int
    share: float
    of_largest: float
    """The share relative to that of the largest layer."""
    counted: bool
    """Is the layer part of the run's score?"""


def layer_shares(run: Run, cds: list[list[float]]) -> list[LayerShare]:
    """The share of each stored layer, averaged over documents; none where the run stores no CDS."""
    if not cds:
        return []
    cds_BL = np.array(cds)
    # Shares within each document first, so that a document with a high score counts no more than another.
    total_B1 = cds_BL.sum(axis=1, keepdims=True)
    shares_L = np.divide(cds_BL, total_B1, out=np.zeros_like(cds_BL), where=total_B1 > 0).mean(axis=0)
    largest = max(float(shares_L.max()), 1e-300)
    counted = set(run.identity.reduction.layers)
    return [
        LayerShare(layer=layer, share=float(share), of_largest=float(share) / largest, counted=layer in counted)
        for layer, share in zip(run.identity.layers, shares_L, strict=True)
    ]
