"""A run's rows -> the table of how common its tokens are, and the columns of text statistics of every row. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ladm.corpus.rows.reading import Rows
from ladm.corpus.rows.row import Ids, token_ids
from ladm.errors import LadmError, RowError
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE, UNIGRAMS_FILE
from ladm.runs.unigrams import counts_of_run, read_given_counts
from ladm.signals.text_statistics import SAMPLED_ROWS, TextStatistics, UnigramTable, text_statistics
from ladm.storage.files import write_whole

READ_ROWS = 16
"""Rows that are read at once, where all of them are counted."""


@dataclass(frozen=True, kw_only=True)
class TextColumns:
    """How the statistics of a row are taken. It travels to other processes by pickle.

    `has_text`: have the rows a column of text? Then every row gets the columns made from it, 0 where its text is null,
    because a run has the same columns in every row.
    """

    unigrams: UnigramTable | None
    """None: without `far_rare`."""
    has_text: bool

    def how(self) -> dict[str, str]:
        """What changes the statistics, besides the rows, as the identity of a run records it."""
        return {
            "unigrams": "none" if self.unigrams is None else self.unigrams.digest(),
            # The digest of the rows is one of their ids alone.
            "of": "text" if self.has_text else "ids",
        }

    def of(self, ids_T: Ids, text: str | None) -> dict[str, float]:
        """The columns of one row."""
        columns = text_statistics(ids_T, text, unigrams=self.unigrams).columns()
        if self.has_text and text is None:
            columns |= dict.fromkeys(TextStatistics.OF_TEXT, 0.0)
        return columns


def count_unigrams(rows: Rows, *, vocab_size: int, most_rows: int = SAMPLED_ROWS) -> UnigramTable:
    """The table of the rows of a data set: of all, or of `most_rows` evenly spaced ones.

    The result depends on the rows alone, not on the machine. Rows with ids outside the vocabulary are skipped.
    """
    return UnigramTable.count(_sampled(rows, vocab_size, most_rows), vocab_size=vocab_size)


def _sampled(rows: Rows, vocab_size: int, most_rows: int) -> Iterator[Ids]:
    count = min(len(rows), most_rows)
    # Where every row is counted they lie beside each other, and a read of several costs little more than one of one.
    at_once = READ_ROWS if count == len(rows) else 1
    for position in (len(rows) * k // count for k in range(0, count, at_once)):
        for row in rows.read(position, position + at_once):
            try:
                yield token_ids(row, vocab_size=vocab_size)
            except RowError:
                continue


def unigrams_of_folder(folder: Path) -> UnigramTable | None:
    """The table that the rows of the run in `folder` were scored with; None where there is no run, or no table yet.

    Raises StorageError for a damaged one.
    """
    # A start that failed may have left a table without a run.
    if not (folder / IDENTITY_FILE).is_file():
        return None
    counts = counts_of_run(Run.read(folder))
    return None if counts is None else UnigramTable(counts)


def store_unigrams(folder: Path, columns: TextColumns) -> None:
    """Store the table with the run, unless it is there: launches that share the run all have the same."""
    path = folder / UNIGRAMS_FILE
    content = None if columns.unigrams is None else columns.unigrams.file_content()
    if content is not None and (not path.exists() or path.read_bytes() != content):
        write_whole(path, [content])


def read_unigrams(path: str, *, vocab_size: int) -> UnigramTable:
    """The table in a file `unigrams.npy` of a run. Raises LadmError for one that is no table of that vocabulary."""
    counts = read_given_counts(Path(path))
    if len(counts) != vocab_size:
        raise LadmError(f"{path} has {len(counts):,} tokens, but the model's vocabulary has {vocab_size:,}")
    return UnigramTable(counts)
