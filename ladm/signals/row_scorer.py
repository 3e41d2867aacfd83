"""Rows -> the numbers of all signals that share a row's forward pass, and the score made of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from ladm.corpus.rows.row import Ids, Row, token_ids
from ladm.errors import RowError
from ladm.method.reduction import Floats, Reduction, cds_column_name, reduce_cds
from ladm.modeling.facts import ModelFacts
from ladm.modeling.observer import Observer
from ladm.settings.score import ScoreSettings
from ladm.signals.forward_pass import PassSignals, forward_pass
from ladm.signals.layer_cds import Columns
from ladm.signals.scorer import LEAST_TOKENS, ScorerOutput
from ladm.signals.text_columns import TextColumns


class RowScorer:
    """Runs the observed model on a row for every signal that needs it; and takes the statistics of its text.

    `text` None: the statistics are not wanted. Alone they need no model, and have a scorer of their own.
    """

    def __init__(
        self,
        facts: ModelFacts,
        observer: Observer,
        settings: ScoreSettings,
        *,
        signals: PassSignals,
        reduction: Reduction,
        text: TextColumns | None,
    ) -> None:
        self._facts, self._observer, self._settings = facts, observer, settings
        self._signals, self._reduction, self._text = signals, reduction, text
        self._grid = lru_cache(maxsize=64)(lambda T: settings.method_at(T).grid(T))

    def check(self, row: Row) -> Ids:
        """Ids of the vocabulary, no more than the model has positions for, enough for every signal."""
        ids = token_ids(row, vocab_size=self._facts.vocab_size)
        limit = self._facts.max_tokens
        if limit is not None and len(ids) > limit:
            raise RowError("too_long", f"{len(ids)} tokens, but the model has only {limit} positions")
        if self._signals.cds and not self._grid(len(ids)).J:
            raise RowError("too_short", f"{len(ids)} tokens leave no span to score")
        if len(ids) < LEAST_TOKENS and (self._signals.gain or self._signals.longattn):
            needed = f"context-gain and longattn, which need at least {LEAST_TOKENS}"
            raise RowError("too_short", f"{len(ids)} tokens are too few for {needed}")
        return ids

    @property
    def wants_text(self) -> bool:
        """Does `row_columns` give anything?"""
        return self._text is not None

    def row_columns(self, ids: Ids, text: str | None) -> dict[str, float]:
        """The statistics of a row's text, which the thread that reads rows computes beside the forward pass."""
        return {} if self._text is None else self._text.of(ids, text)

    @property
    def asynchronous(self) -> bool:
        """On a GPU, whose work only queues up."""
        return bool(self._observer.device.type == "cuda")

    def score(self, ids_BT: npt.NDArray[np.int64], *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
        """The columns of each row, and the score made of its CDS.

        Rows of one batch share a forward pass on a GPU, which is not waited for: copies go through
        pinned memory. On a CPU each row has its own, which costs no time there and makes a score
        independent of the batch to the last bit.
        """
        observer = self._observer
        ids = torch.from_numpy(ids_BT)
        grid = self._grid(ids.shape[1])
        if self.asynchronous:
            device = observer.device
            # From ordinary memory the copy would wait for everything that is queued on the device before it.
            on_device = ids.pin_memory().to(device, non_blocking=True)
            started = forward_pass(observer, ids, on_device, grid, self._signals, low_memory=low_memory).to_host()
            # To wait for this event is to wait for these rows; the next ones may be queued behind it already.
            there = torch.cuda.current_stream(device).record_event()

            def wait() -> list[ScorerOutput]:
                there.synchronize()
                return self._scored(started.finish())

            return wait
        kept = [
            forward_pass(observer, row, row, grid, self._signals, low_memory=low_memory).to_host(wait=True).finish()
            for row in torch.tensor_split(ids, len(ids))
        ]
        together = {name: torch.cat([each[name] for each in kept]) for name in kept[0]}
        return lambda: self._scored(together)

    def _scored(self, kept: Columns) -> list[ScorerOutput]:
        columns = {name: values.double().numpy() for name, values in kept.items()}
        count = len(next(iter(columns.values())))
        scores = self._reduce(columns).tolist() if self._signals.cds else [None] * count
        extras = {name: values.tolist() for name, values in columns.items()}
        return [
            ScorerOutput(score=score, extras={name: values[row] for name, values in extras.items()})
            for row, score in enumerate(scores)
        ]

    def _reduce(self, kept_BL: dict[str, Floats]) -> Floats:
        reduction, layers = self._reduction, self._observer.layers
        heads, second_form = reduction.heads is not None, self._settings.score_form != self._settings.ablation
        values_BL = kept_BL[cds_column_name(heads=heads, second_form=second_form, focus=reduction.focus)]
        num_heads = values_BL.shape[1] // len(layers) if heads else None
        columns = reduction.columns(layers, num_heads=num_heads)
        return reduce_cds(values_BL[:, columns], reduction.how, reduction.weights)
