"""Token ids -> CDS of every wanted layer and their mean or median: the LADM score."""

from __future__ import annotations

import statistics
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ladm.errors import RowError
from ladm.focus import Grid, aggregated_focus, contextual_dependency, span_grid
from ladm.kernels.pfs import pairwise_focus
from ladm.observer import LayerView, Observer
from ladm.rows import Ids, Row, token_ids
from ladm.scorers import Scored
from ladm.settings import Reduce, ScoreSettings


class LadmScorer:
    """Runs the observed model and equations 2-5 on each of its wanted layers."""

    def __init__(self, observer: Observer, settings: ScoreSettings, *, backend: str) -> None:
        self._observer = observer
        self._settings = settings
        self._backend = backend
        self._grid = lru_cache(maxsize=64)(self._make_grid)

    def check(self, row: Row) -> Ids:
        """Ids of the vocabulary, no more than the model has positions for, enough for one scored span."""
        facts = self._observer.facts
        ids = token_ids(row, vocab_size=facts.vocab_size)
        if facts.max_tokens is not None and len(ids) > facts.max_tokens:
            raise RowError("too_long", f"{len(ids)} tokens, and the model has {facts.max_tokens} positions")
        if not self._grid(len(ids)).J:
            raise RowError("too_short", f"{len(ids)} tokens leave no span to score")
        return ids

    def score(self, ids_BT: npt.NDArray[np.int64]) -> list[Scored]:
        """CDS per layer of each row, and the score made of them.

        Rows of one batch share a forward pass on a GPU. On a CPU each has its own, which costs no
        time there and makes a score independent of the batch to the last bit.
        """
        ids = torch.from_numpy(ids_BT)
        parts = torch.tensor_split(ids, len(ids)) if self._observer.device.type == "cpu" else (ids,)
        cds_BL = torch.cat([self._cds(part) for part in parts]).tolist()
        return [
            Scored(score=reduce_layers(cds, self._settings.reduce), extras={"cds_per_layer": cds}) for cds in cds_BL
        ]

    def _cds(self, ids_BT: Tensor) -> Tensor:
        """Equations 2-5 for rows of equal length: (B, L) float32."""
        grid = self._grid(ids_BT.shape[1])
        ablation = self._settings.ablation
        cds: list[Tensor] = []

        def visit(view: LayerView) -> None:
            pfs_BJN = pairwise_focus(
                view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend=self._backend
            )
            afs_BJ = aggregated_focus(pfs_BJN, grid, ablation=ablation)
            cds.append(contextual_dependency(afs_BJ, grid, ablation=ablation))

        self._observer.observe(ids_BT, visit)
        return torch.stack(cds, dim=1).cpu()

    def _make_grid(self, T: int) -> Grid:
        return span_grid(T, **grid_settings(self._settings))


def grid_settings(settings: ScoreSettings) -> dict[str, Any]:
    """The arguments of `span_grid` but for the length of the document."""
    return {
        "variant": settings.variant,
        "l": settings.span_tokens,
        "m": settings.m,
        "n": settings.resolved_n,
        "n0": settings.resolved_n0,
        "d_afs": settings.d_afs,
        "d_cds": settings.d_cds,
        "ablation": settings.ablation,
    }


def reduce_layers(cds: list[float], how: Reduce) -> float:
    """One score from the layers' CDS: their mean (released) or their median."""
    return sum(cds) / len(cds) if how == "mean" else statistics.median(cds)
