"""A run's rows -> the table of how common its tokens are, and the columns of text statistics of every row. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ladm.corpus.rows import Ids, Rows, token_ids
from ladm.errors import LadmError, RowError, UsageError
from ladm.signals.text_statistics import SAMPLED_ROWS, TextStatistics, UnigramTable, text_statistics

TEXT = "text"
"""The column of a data set that holds the text of a row."""


@dataclass(frozen=True, kw_only=True)
class TextColumns:
    """How the statistics of a row are taken. It travels to other processes by pickle.

    `has_text`: have the rows a column of text? Then every row gets the columns made from it, 0 where its text is null,
    because a run has the same columns in every row.
    """

    unigrams: UnigramTable | None
    """None: without `far_rare`."""
    has_text: bool

    def of(self, ids_T: Ids, text: str | None) -> dict[str, float]:
        """The columns of one row."""
        columns = text_statistics(ids_T, text, unigrams=self.unigrams).columns()
        if self.has_text and text is None:
            columns |= dict.fromkeys(TextStatistics.OF_TEXT, 0.0)
        return columns


def count_unigrams(rows: Rows, *, vocab_size: int) -> UnigramTable:
    """The table of the rows of a data set: of all, or of `SAMPLED_ROWS` evenly spaced ones.

    The same for the same rows, whatever machine counts. Rows that hold no ids of the vocabulary are passed over.
    """
    return UnigramTable.count(_sampled(rows, vocab_size), vocab_size=vocab_size)


def _sampled(rows: Rows, vocab_size: int) -> Iterator[Ids]:
    count = min(len(rows), SAMPLED_ROWS)
    for position in (len(rows) * k // count for k in range(count)):
        (row,) = rows.read(position, position + 1)
        try:
            yield token_ids(row, vocab_size=vocab_size)
        except RowError:
            continue


def read_unigrams(path: str, *, vocab_size: int) -> UnigramTable:
    """The table in a file `unigrams.npy` of a run. Raises LadmError for one that is no such table."""
    try:
        counts = np.load(Path(path), allow_pickle=False)
    except FileNotFoundError:
        raise UsageError(f"--unigrams {path} does not exist") from None
    except (OSError, ValueError, EOFError):
        raise LadmError(f"{path} is not a file of token counts, such as the unigrams.npy of a run") from None
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise LadmError(f"{path} is not a list of counts, one for each token id")
    if len(counts) != vocab_size:
        raise LadmError(f"{path} has {len(counts):,} tokens, and the model's vocabulary {vocab_size:,}")
    return UnigramTable(counts.astype(np.int64))
