"""Prepared rows -> the lines that say what became of the documents. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator

from ladm.corpus.blocks import REASONS
from ladm.corpus.prepare import PreparedRows
from ladm.errors import count_of
from ladm.settings.data import ALL_WINDOWS


def preparation_lines(prepared: PreparedRows, *, length: int, windows: str) -> Iterator[str]:
    """How many documents were kept, how many were dropped for which reason, and how many of their tokens are in rows.

    `length`: tokens of a row; `windows`: as `--windows`.
    """
    counts = prepared.counts
    yield f"{'kept':<10} {counts.get('kept', 0):>12,}  documents of at least {count_of(length, 'token')}"
    if not prepared.all_read:
        yield f"{'limit':<10} {prepared.rows:>12,}  rows, where --limit stopped: later documents are not among them"
    # In a fixed order, so that two reports can be compared line by line.
    for reason, meaning in REASONS.items():
        if counts.get(reason):
            yield f"{reason:<10} {counts[reason]:>12,}  dropped: {meaning}"
    for message in prepared.bad_files.values():
        yield f"{'bad_file':<10} {1:>12,}  left out: {message}"
    tokens = prepared.tokens
    if tokens is not None:
        # Most of a book is beyond its first window, and nobody would look for it there. Of all windows only those are
        # missing that repeat an earlier row, or are beyond --limit.
        remedy = "; --windows all keeps them" if tokens.cut_off and windows != ALL_WINDOWS else ""
        cut_off = f"{tokens.cut_off:,} cut off{remedy}"
        yield f"{'tokens':<10} {tokens.read:>12,}  read in these documents: {tokens.kept:,} in rows, {cut_off}"
    if prepared.copies:
        yield f"{'copies':<10} {prepared.copies:>12,}  short rows that repeat another: kept here, left out by select"
    dropped = sum(counts.get(reason, 0) for reason in REASONS)
    if prepared.dropped_file is not None and (dropped or prepared.bad_files):
        files = f" and {count_of(len(prepared.bad_files), 'file')}" if prepared.bad_files else ""
        yield f"{'dropped':<10} {dropped:>12,}  documents{files}, listed in {prepared.dropped_file}"
