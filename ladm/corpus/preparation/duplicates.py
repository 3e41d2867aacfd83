"""Sealed blocks -> which of their rows are not copies, and how many tokens the rows hold. Imports no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ladm.corpus.preparation.assemble import NO_COPY, BlockRows, kept_columns, read_block
from ladm.corpus.preparation.blocks import KEPT, Counts
from ladm.corpus.preparation.dropped import DUPLICATE, dropped_of_block

# The paper's span. Two pages of text that agree in every token are copies; two notes that do may be a greeting.
SHORT_ROW_TOKENS = 128
"""Copies of rows shorter than this are not dropped by `ladm prepare` but marked."""


@dataclass(frozen=True, kw_only=True)
class TokenCounts:
    """Tokens, without BOS, of the documents that rows were made of: all of them, and those that are in a row."""

    read: int
    kept: int

    @property
    def cut_off(self) -> int:
        return self.read - self.kept

    def as_json(self) -> dict[str, int]:
        """The counts as `prepare.json` and `--json` have them."""
        return {"read": self.read, "kept": self.kept, "cut_off": self.cut_off}


class SeenRows:
    """Recognises rows with the ids of an earlier row.

    A copy of at least SHORT_ROW_TOKENS is dropped. A shorter one is kept and marked, because a few words in common do
    not make a copy of a document, and `ladm select` leaves it out. With `keep_duplicates` every row counts as new.

    What becomes of the rows of a block depends only on the blocks before it, in their order: a resumed preparation
    reads the digests of the sealed blocks again and drops the same rows. About 120 bytes of memory a row.
    """

    def __init__(self, *, length: int, keep_duplicates: bool) -> None:
        self._keep_duplicates, self._keeps_copies = keep_duplicates, length < SHORT_ROW_TOKENS
        self._index_of: dict[bytes, int] = {}
        self._rows = 0

    def judge(self, path: Path) -> BlockRows:
        """What becomes of the rows of the next block."""
        digests = read_block(path, ["digest"])["digest"].to_pylist()
        is_kept = np.ones(len(digests), dtype=np.bool_)
        copy_of = np.full(len(digests), NO_COPY, dtype=np.int64)
        for k, digest in enumerate(digests if not self._keep_duplicates else ()):
            first = self._index_of.setdefault(digest, self._rows)
            if first != self._rows:
                copy_of[k], is_kept[k] = first, self._keeps_copies
            self._rows += int(is_kept[k])
        return BlockRows(path=path, is_kept=is_kept, copy_of=copy_of)


def counts_without_copies(counts: Counts, block: BlockRows) -> Counts:
    """The counts of a block in which a document without a row is a duplicate."""
    documents = read_block(block.path, ["document"])["document"].to_numpy()
    lost = len(np.unique(documents)) - len(np.unique(documents[block.is_kept]))
    return Counter(counts) - Counter({KEPT: lost}) + Counter({DUPLICATE: lost})


def last_document(blocks: Sequence[BlockRows], *, rows: int) -> int:
    """The number of the document of the last of `rows`, which is in the last block."""
    before = sum(int(block.is_kept.sum()) for block in blocks[:-1])
    return int(kept_columns(blocks[-1], ["document"], most=rows - before)[0][-1])


def counts_to_limit(block: BlockRows, *, rows: int, last: int) -> Counts:
    """The counts of the last block without the documents behind `last`, which --limit leaves to a later command."""
    (documents,) = kept_columns(block, ["document"], most=rows)
    dropped = Counter(entry["reason"] for entry in dropped_of_block(block, rows=rows, last=last))
    return dropped + Counter({KEPT: len({number for number in documents if number <= last})})


def count_tokens(blocks: Iterable[BlockRows], *, rows: int, width: int) -> TokenCounts:
    """The tokens of the first `rows` kept rows, each of `width` tokens; where windows overlap, a token counts once."""
    read = kept = 0
    left, last_document, last_stop = rows, -1, 0
    for block in blocks:
        columns = kept_columns(block, ["document", "start_token", "document_tokens"], most=left)
        for document, start, num_tokens in zip(*columns, strict=True):
            if document != last_document:
                read, last_document, last_stop = read + num_tokens, document, 0
            kept += start + width - max(start, last_stop)
            last_stop = start + width
        left -= len(columns[0])
    return TokenCounts(read=read, kept=kept)
