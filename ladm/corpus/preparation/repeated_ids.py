"""Sealed blocks -> how many documents with rows have the id of an earlier one, and an example. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.corpus.ids.files import hash_of_id
from ladm.corpus.preparation.assemble import BlockRows, kept_columns


@dataclass(frozen=True, kw_only=True)
class RepeatedIds:
    """Ids that more than one document has."""

    documents: int
    """Those with the id of an earlier document."""
    id: str
    """The first such id."""
    sources: tuple[str, ...] = ()
    """Where the first two documents with it are."""


def find_repeated_ids(blocks: Iterable[BlockRows], *, rows: int) -> RepeatedIds | None:
    """The repeated ids among the documents of the first `rows` kept rows; None where there are none.

    Ids are compared by 64-bit hashes, at 8 bytes of memory a document: among 100 million ids two that differ count as
    equal with a chance of 1 in 4,000.
    """
    blocks = list(blocks)
    parts = [
        np.array([hash_of_id(own_id) for own_id, _ in block], dtype=np.uint64) for block in _documents(blocks, rows)
    ]
    hashes = np.sort(np.concatenate([np.empty(0, np.uint64), *parts]))
    repeated = hashes[1:][hashes[1:] == hashes[:-1]]
    if not len(repeated):
        return None
    example, sources = "", list[str]()
    for block in _documents(blocks, rows):
        for own_id, source in block:
            if sources and own_id == example:
                return RepeatedIds(documents=len(repeated), id=example, sources=(*sources, source))
            if not sources and _is_in(repeated, hash_of_id(own_id)):
                example, sources = own_id, [source]
    # Only of two ids with one hash.
    return None


def _documents(blocks: Iterable[BlockRows], rows: int) -> Iterator[list[tuple[str, str]]]:
    """Block by block, id and source of each document with an id of which a row is among the first `rows`."""
    left, last = rows, -1
    for block in blocks:
        columns = kept_columns(block, ["document", "id", "source"], most=left)
        left -= len(columns[0])
        found = []
        for document, own_id, source in zip(*columns, strict=True):
            # The windows of a document follow each other.
            if document != last and own_id is not None:
                found.append((own_id, source))
            last = document
        yield found


def _is_in(ordered: npt.NDArray[np.uint64], value: int) -> bool:
    place = int(np.searchsorted(ordered, np.uint64(value)))
    return place < len(ordered) and int(ordered[place]) == value
