"""Dropped documents -> `ROWS/dropped.jsonl`, a line for each: where it is, its id, the reason, its tokens.

Each sealed block lists the documents that were dropped while it was made, so that a resume lists the same ones. Which
documents repeat earlier rows is known only when the blocks are read in their order. Imports no torch.
"""

from __future__ import annotations

import base64
import itertools
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from ladm.corpus.documents.carried_columns import id_of
from ladm.corpus.documents.reading import Document
from ladm.corpus.files.meta import whole_text
from ladm.corpus.preparation.assemble import BlockRows, open_block, read_block
from ladm.storage.files import write_whole

DROPPED_FILE = "dropped.jsonl"
"""Beside the rows."""
BAD_FILE = "bad_file"
"""The reason of a file that was left out as a whole."""
DUPLICATE = "duplicate"
DROPPED_KEY = b"ladm_dropped"
"""Under which the metadata of a block has its list."""
# Parquet refuses metadata of more than 100 MB, and a block has up to 512 documents.
_MOST_ID_CHARACTERS = 1000

Entry = dict[str, Any]
"""A line of the file. What is not known of a document is absent."""


def dropped_entry(document: Document, reason: str, *, id_key: str, tokens: int | None) -> Entry:
    """The entry of a document. `tokens`: of all of it, without BOS; None where they were not counted."""
    own_id = id_of(document.fields or {}, id_key)
    return _entry(whole_text(document.where), document.number, own_id, reason, tokens)


def _entry(source: str, number: int, own_id: str | None, reason: str, tokens: int | None) -> Entry:
    entry: Entry = {"source": source, "document": number}
    if own_id is not None and len(own_id) <= _MOST_ID_CHARACTERS:
        entry["id"] = own_id
    entry["reason"] = reason
    return entry if tokens is None else entry | {"document_tokens": tokens}


def packed_entries(entries: Iterable[Entry]) -> bytes:
    """The entries as the metadata of a block holds them, in the order of the documents."""
    ordered = sorted(entries, key=itemgetter("document"))
    return base64.b64encode(zlib.compress(json.dumps(ordered).encode()))


def write_dropped(
    output: Path, blocks: Iterable[BlockRows], bad_files: Mapping[str, str], *, rows: int, last: int | None
) -> None:
    """Write the file of the rows in `output`: files that were left out, then documents in the order of the sources.

    `rows`: as many were written; a row beyond them is named by no `copy_of`. `last`: as for `dropped_of_block`.
    """
    of_blocks = (entry for block in blocks for entry in dropped_of_block(block, rows=rows, last=last))
    entries = itertools.chain(_bad_files(bad_files), of_blocks)
    write_whole(output / DROPPED_FILE, (json.dumps(entry).encode() + b"\n" for entry in entries))


def _bad_files(bad_files: Mapping[str, str]) -> Iterator[Entry]:
    for name, message in bad_files.items():
        yield {"source": name, "reason": BAD_FILE, "message": message}


def dropped_of_block(block: BlockRows, *, rows: int, last: int | None) -> Iterator[Entry]:
    """The documents that a block drops. `last`: those behind that document are left out; None: none is."""
    for entry in sorted([*_entries_of(block.path), *_duplicates(block, rows)], key=itemgetter("document")):
        if last is None or entry["document"] <= last:
            yield entry


def _entries_of(path: Path) -> list[Entry]:
    metadata = open_block(path).schema_arrow.metadata
    entries: list[Entry] = json.loads(zlib.decompress(base64.b64decode(metadata[DROPPED_KEY])))
    return entries


def _duplicates(block: BlockRows, rows: int) -> Iterator[Entry]:
    """The documents of a block that have rows there, of which all are copies that are dropped."""
    if block.is_kept.all():
        return
    table = read_block(block.path, ["source", "document", "id", "document_tokens"])
    documents = table["document"].to_numpy()
    _, first = np.unique(documents, return_index=True)
    lost = first[~np.isin(documents[first], documents[block.is_kept])]
    for k, row in zip(lost.tolist(), table.take(lost).to_pylist(), strict=True):
        entry = _entry(row["source"], row["document"], row["id"], DUPLICATE, row["document_tokens"])
        original = int(block.copy_of[k])
        yield entry | {"copy_of": original} if original < rows else entry
