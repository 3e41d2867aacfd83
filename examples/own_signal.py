"""A signal of one's own: how much of a document's second half repeats rare tokens of its first half.

    python examples/own_signal.py MODEL ROWS

ROWS are rows of `ladm prepare`, MODEL the model whose vocabulary they are of; the model itself is not loaded. A signal
is any object with the three members of `SignalScorer` in `ladm/signals/scorer.py`; rows are checked, batched and, where
a device runs out of memory, halved for it as for the signals of the package.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

import ladm
from ladm.corpus.rows.reading import open_rows
from ladm.corpus.rows.row import Row, token_ids
from ladm.errors import RowError
from ladm.modeling.facts import model_facts
from ladm.signals.scorer import ScorerOutput

Ids = npt.NDArray[np.int64]


class RareReturns:
    """The share of the second half's tokens that occur in the first half, and there only once or twice."""

    asynchronous = False
    """`score` does its work before it returns. A signal on a GPU says True and returns before the numbers are there."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size

    def check(self, row: Row) -> Ids:
        """The ids of a row that can be scored. Raises RowError, with a short word, for one that cannot."""
        ids_T = token_ids(row, vocab_size=self.vocab_size)
        if len(ids_T) < 16:
            raise RowError("too_short", f"{len(ids_T)} tokens; a share of fewer than 8 means little")
        return ids_T

    def score(self, ids_BT: Ids, *, low_memory: bool = False) -> Callable[[], list[ScorerOutput]]:  # noqa: ARG002
        """Scores of rows of one length. What is returned is called for the results."""
        scored = [self._one(ids_T) for ids_T in ids_BT]
        return lambda: scored

    def _one(self, ids_T: Ids) -> ScorerOutput:
        first, second = np.array_split(ids_T, 2)
        counts_V = np.bincount(first, minlength=self.vocab_size)
        earlier = counts_V[second]
        share = float(((earlier == 1) | (earlier == 2)).mean())
        # Higher is better; `extras` become further columns: numbers, or lists of one length.
        return ScorerOutput(score=share, extras={"seen_before": float((earlier > 0).mean())})


def main(model: str, folder: str) -> None:
    signal = RareReturns(vocab_size=model_facts(model, weights=False).vocab_size)
    scorer = ladm.Scorer.from_signal(signal, batch_rows=64)
    rows = open_rows(folder)
    for start in range(0, len(rows), 1024):
        block = rows.read(start, min(start + 1024, len(rows)))
        for row, found in zip(block, scorer.score([row.raw_ids for row in block]), strict=True):
            print(row.index, found.score if found.error is None else found.error, sep="\t")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("rows")
    given = parser.parse_args()
    try:
        main(given.model, given.rows)
        # Here, so that a closed pipe is found before Python ends.
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as head, has seen enough. Python flushes once more when it ends, which leads nowhere now.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except ladm.LadmError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
