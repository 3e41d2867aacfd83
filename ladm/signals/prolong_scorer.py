"""Rows and an observed model with its head -> ProLong's long-dependency score of each row."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from ladm.corpus.rows.row import Ids, Row, token_ids
from ladm.errors import RowError
from ladm.modeling.observer import Observer
from ladm.signals.prolong import SEGMENT_TOKENS, Floats, Ints, score_row
from ladm.signals.scorer import ScorerOutput

BATCH_TOKENS = {"cpu": 4096, "cuda": 1 << 16}
"""Tokens of short inputs that go through the model at once, by device."""
SEED = 0
"""Of the sample of pairs: rows with the same number of segments have the same pairs."""


class ProlongScorer:
    """Every pair of segments is an input of its own, so nothing is shared with other signals.

    `most_pairs`: how many pairs of a row are sampled; None: all.
    """

    # The pairs of one row keep a GPU busy for long enough.
    asynchronous = False

    def __init__(self, observer: Observer, *, most_pairs: int | None) -> None:
        self._observer, self._most_pairs = observer, most_pairs

    def check(self, row: Row) -> Ids:
        """The ids of a row of at least two segments. Long rows are fine, because the model gets short inputs only."""
        ids = token_ids(row, vocab_size=self._observer.facts.vocab_size)
        count = len(self._without_bos(ids))
        if count < 2 * SEGMENT_TOKENS:
            but = "" if count == len(ids) else " without BOS"
            raise RowError("too_short", f"{count} tokens{but} are fewer than two segments of {SEGMENT_TOKENS}")
        return ids

    def score(self, ids_BT: npt.NDArray[np.int64], *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:
        """The score of each row, and the number of pairs that it was made from."""
        perplexities = partial(self._perplexities, low_memory=low_memory)
        columns = [
            score_row(self._without_bos(ids_T), perplexities, most_pairs=self._most_pairs, seed=SEED).columns()
            for ids_T in ids_BT
        ]
        return lambda: [ScorerOutput(score=None, extras=dict(each)) for each in columns]

    def _without_bos(self, ids_T: Ids) -> Ids:
        """A row without the BOS in front: by its BOS alone the first segment would help the others."""
        return ids_T[1:] if ids_T[0] == self._observer.bos_id else ids_T

    def _perplexities(self, inputs_nT: Ints, *, low_memory: bool) -> Floats:
        """exp of the mean loss of the last 127 tokens of each input, those of its last segment."""
        observer = self._observer
        tokens = BATCH_TOKENS[observer.device.type] // (8 if low_memory else 1)
        found = []
        for ids_BT in torch.split(torch.from_numpy(inputs_nT), max(1, tokens // inputs_nT.shape[1])):
            on_device = ids_BT.to(observer.device)
            hidden_BTE = observer.observe(on_device, None, to_end=True)
            assert hidden_BTE is not None
            losses_BW = observer.head.losses(
                hidden_BTE[:, -SEGMENT_TOKENS:-1], on_device[:, 1 - SEGMENT_TOKENS :], low_memory=low_memory
            )
            found.append(losses_BW.double().mean(dim=1).exp())
        # One copy to the host for all inputs, because each copy waits for the device.
        perplexities: Floats = torch.cat(found).cpu().numpy()
        return perplexities
