"""Rows -> CDS of every wanted layer and their mean or median: the LADM score."""

from __future__ import annotations

import statistics
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ladm.errors import RowError
from ladm.focus import Grid, span_grid
from ladm.observer import Observer
from ladm.rows import Ids, Row, token_ids
from ladm.scorers import Scored
from ladm.scorers.cds import layer_cds
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
        settings, grid = self._settings, self._grid(ids.shape[1])
        cds_BL = [
            cds
            for part in parts
            for cds in layer_cds(self._observer, part, grid, ablation=settings.ablation, backend=self._backend).tolist()
        ]
        return [Scored(score=reduce_layers(cds, settings.reduce), extras={"cds_per_layer": cds}) for cds in cds_BL]

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
