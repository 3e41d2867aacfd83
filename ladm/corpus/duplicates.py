"""Sealed blocks -> which of their rows are not copies, and how many tokens the rows hold. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from ladm.corpus.assemble import BlockRows
from ladm.corpus.blocks import DUPLICATE, KEPT, Counts
from ladm.storage.files import io_errors


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """Tokens, without BOS, of the documents that rows were made of: all of them, and those that are in a row."""

    read: int
    kept: int

    @property
    def cut_off(self) -> int:
        return self.read - self.kept


class SeenRows:
    """Recognises rows with the ids of an earlier row.

    Which rows of a block are new depends only on the blocks before it, in their order: a resumed preparation reads the
    digests of the sealed blocks again and drops the same rows. About 100 bytes of memory a row.
    """

    def __init__(self, *, keep_duplicates: bool) -> None:
        self._keep = keep_duplicates
        self._digests: set[bytes] = set()

    def new_rows(self, path: Path) -> BlockRows:
        """The rows of the next block that are not copies."""
        with io_errors(path, "read"):
            digests = pq.read_table(path, columns=["digest"])["digest"].to_pylist()
        is_new = np.ones(len(digests), dtype=np.bool_)
        for k, digest in enumerate(digests if not self._keep else ()):
            is_new[k] = digest not in self._digests
            self._digests.add(digest)
        return BlockRows(path=path, is_new=is_new)


def counts_without_copies(counts: Counts, block: BlockRows) -> Counts:
    """The counts of a block in which a document without a new row is a duplicate."""
    documents = _column(block.path, "document")
    lost = len(np.unique(documents)) - len(np.unique(documents[block.is_new]))
    return Counter(counts) - Counter({KEPT: lost}) + Counter({DUPLICATE: lost})


def count_tokens(blocks: Iterable[BlockRows], *, rows: int, width: int) -> TokenCounts:
    """The tokens of the first `rows` new rows, each of `width` tokens; where windows overlap, a token counts once."""
    read = kept = 0
    left, last_document, last_stop = rows, -1, 0
    for block in blocks:
        columns = [
            _column(block.path, name)[block.is_new][:left].tolist()
            for name in ("document", "start_token", "document_tokens")
        ]
        for document, start, num_tokens in zip(*columns, strict=True):
            if document != last_document:
                read, last_document, last_stop = read + num_tokens, document, 0
            kept += start + width - max(start, last_stop)
            last_stop = start + width
        left -= len(columns[0])
    return TokenCounts(read=read, kept=kept)


def _column(path: Path, name: str) -> npt.NDArray[np.int64]:
    with io_errors(path, "read"):
        values: npt.NDArray[np.int64] = pq.read_table(path, columns=[name])[name].to_numpy()
    return values
