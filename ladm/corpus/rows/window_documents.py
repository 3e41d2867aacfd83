"""Rows that are windows of long documents -> the document that each is a window of. Imports no torch.

Windows of one document resemble each other: whoever samples documents, or draws them for an interval, has to know.
"""

from __future__ import annotations

from itertools import chain, repeat

from ladm.corpus.rows.reading import Rows

DOCUMENT_COLUMN = "document"
"""The number of the document that a row is a window of, in the rows of `ladm prepare`."""


def documents_of_windows(rows: Rows) -> list[str] | None:
    """The name of each row's document, (rows,); None for rows that are no windows.

    It is the index, which published rows repeat in all parts of a book. Where `ladm prepare` cut windows, an index
    counts rows, and a column of its own counts the documents.
    """
    names = set(rows.column_names)
    if "chunked_index" not in names or not {DOCUMENT_COLUMN, "index"} & names:
        return None
    # Whole columns: to look at single rows would read all their ids.
    numbers = chain.from_iterable(rows.column_batches(DOCUMENT_COLUMN)) if DOCUMENT_COLUMN in names else repeat(None)
    indices = chain.from_iterable(rows.column_batches("index")) if "index" in names else range(len(rows))
    # Somebody else's column of that name may hold anything, and an index may be missing.
    return [
        str(number) if isinstance(number, int) else str(position if index is None else index)
        for position, (index, number) in enumerate(zip(indices, numbers, strict=False))
    ]
