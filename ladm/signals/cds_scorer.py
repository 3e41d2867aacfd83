"""Rows -> CDS of every wanted layer and the one number made of them: the LADM score."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ladm.corpus.rows import Ids, Row, token_ids
from ladm.errors import RowError
from ladm.method.reduction import Floats, Reduction, kept_column, reduce_cds
from ladm.modeling.observer import Observer
from ladm.settings.score import ScoreSettings
from ladm.signals.layer_cds import Columns, forward, layer_cds
from ladm.signals.scorer import Scored


class LadmScorer:
    """Runs the observed model and equations 2-5 on each of its wanted layers."""

    def __init__(self, observer: Observer, settings: ScoreSettings, *, reduction: Reduction, backend: str) -> None:
        self._observer = observer
        self._settings = settings
        self._reduction = reduction
        self._how: dict[str, Any] = {"ablation": settings.ablation, "record": settings.record, "backend": backend}
        self._grid = lru_cache(maxsize=64)(lambda T: settings.method_at(T).grid(T))

    def check(self, row: Row) -> Ids:
        """Ids of the vocabulary, no more than the model has positions for, enough for one scored span."""
        facts = self._observer.facts
        ids = token_ids(row, vocab_size=facts.vocab_size)
        if facts.max_tokens is not None and len(ids) > facts.max_tokens:
            raise RowError("too_long", f"{len(ids)} tokens, and the model has {facts.max_tokens} positions")
        if not self._grid(len(ids)).J:
            raise RowError("too_short", f"{len(ids)} tokens leave no span to score")
        return ids

    @property
    def asynchronous(self) -> bool:
        """On a GPU, whose work only queues up."""
        return bool(self._observer.device.type == "cuda")

    def score(self, ids_BT: npt.NDArray[np.int64], *, low_memory: bool = False) -> Callable[[], list[Scored]]:
        """CDS per layer of each row, and the score made of them.

        Rows of one batch share a forward pass on a GPU, which is not waited for: copies go through
        pinned memory. On a CPU each row has its own, which costs no time there and makes a score
        independent of the batch to the last bit.
        """
        ids = torch.from_numpy(ids_BT)
        grid = self._grid(ids.shape[1])
        if self.asynchronous:
            device = self._observer.device
            # From ordinary memory the copy would wait for everything that is queued on the device before it.
            on_device = ids.pin_memory().to(device, non_blocking=True)
            started = forward(self._observer, on_device, grid, **self._how, low_memory=low_memory).to_host()
            # To wait for this event is to wait for these rows; the next ones may be queued behind it already.
            there = torch.cuda.current_stream(device).record_event()

            def wait() -> list[Scored]:
                there.synchronize()
                return self._scored(started.finish())

            return wait
        each_row = torch.tensor_split(ids, len(ids))
        kept = [layer_cds(self._observer, row, grid, **self._how, low_memory=low_memory) for row in each_row]
        together = {name: torch.cat([each[name] for each in kept]) for name in kept[0]}
        return lambda: self._scored(together)

    def _scored(self, kept: Columns) -> list[Scored]:
        kept_BL = {name: values.double().numpy() for name, values in kept.items()}
        scores_B = self._reduce(kept_BL)
        extras = {name: values_BL.tolist() for name, values_BL in kept_BL.items()}
        return [
            Scored(score=score, extras={name: values[row] for name, values in extras.items()})
            for row, score in enumerate(scores_B.tolist())
        ]

    def _reduce(self, kept_BL: dict[str, Floats]) -> Floats:
        reduction, layers = self._reduction, self._observer.layers
        heads, second_form = reduction.heads is not None, self._settings.score_form != self._settings.ablation
        values_BL = kept_BL[kept_column(heads=heads, second_form=second_form, focus=reduction.focus)]
        num_heads = values_BL.shape[1] // len(layers) if heads else None
        columns = reduction.columns(layers, num_heads=num_heads)
        return reduce_cds(values_BL[:, columns], reduction.how, reduction.weights)
