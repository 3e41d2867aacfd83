"""A group of documents -> one sealed block: the rows that are kept, and counts of those that are not, by reason.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ladm.corpus.documents.carried_columns import (
    DOMAIN_NAME,
    domain_keys_of,
    first_domain,
    id_of,
    other_columns,
    parsed_meta,
)
from ladm.corpus.documents.groups import DocumentGroup, ReadPosition
from ladm.corpus.documents.missing_keys import keys_of, list_keys, name_of_domain_keys
from ladm.corpus.documents.reading import Document
from ladm.corpus.files.meta import reason_of_text, text_at, whole_text
from ladm.corpus.preparation.assemble import BLOCK_REMEDY, BLOCK_SCHEMA, open_block
from ladm.corpus.preparation.dropped import DROPPED_KEY, DUPLICATE, Entry, dropped_entry, packed_entries
from ladm.corpus.preparation.encoding import Ids, TokenizedText, TokenWindow
from ladm.corpus.preparation.tokenization import Tokenizer
from ladm.errors import LadmError
from ladm.settings.data import PrepareSettings
from ladm.storage.checked_parquet import add_checksum, reading_parquet
from ladm.storage.files import arrow_path, io_errors, replacing

KEPT = "kept"
UNBROKEN = "unbroken"
REASONS = {
    "too_short": "fewer tokens than --length",
    "low_count": "its token_count is below --length (--token-count-key none ignores that column)",
    "no_text": "nothing under --text-key (default: text)",
    "not_text": "the text is not a string",
    "not_json": "the line is not a JSON object in UTF-8",
    "long_line": "the line has more than 256 MiB",
    UNBROKEN: "more than 16,000,000 characters without a place where the text can be cut to be tokenised in parts",
    "too_deep": "a column is nested more than 200 levels deep",
    "bad_text": "the text is not valid Unicode",
    DUPLICATE: "every row has the ids of an earlier row",
}
_METADATA_KEY = b"ladm"
_REPEATED_COLUMNS = ["meta", "domain", "source", "carried"]

Counts = Mapping[str, int]
"""Documents by what became of them: `kept`, or one of REASONS."""


@dataclass(frozen=True, kw_only=True)
class BlockRecord:
    """What a sealed block holds beside its rows."""

    counts: Counts
    end: ReadPosition
    """Where its last document ends, so that a resume need not read what is in it again."""


def seal_block(settings: PrepareSettings, group: DocumentGroup, tokenizer: Tokenizer, path: Path) -> BlockRecord:
    """Tokenise a group of documents and write the rows that are kept to `path`.

    Raises LadmError for a document without a domain.
    """
    dropped: list[Entry] = []

    def drop(document: Document, reason: str, tokens: int | None = None) -> None:
        dropped.append(dropped_entry(document, reason, id_key=settings.id_key, tokens=tokens))

    candidates = list(_candidates(settings, group, tokenizer, drop))
    rows: list[dict[str, Any]] = []
    ids: list[Ids] = []
    kept = 0
    # All at once, because the tokenizer spreads a batch over all cores.
    cut = tokenizer.cut([text for _, text, _ in candidates], settings.length, most_windows=settings.most_windows)
    for (document, text, columns), tokens in zip(candidates, cut, strict=True):
        if tokens.is_unbroken:
            drop(document, UNBROKEN)
            continue
        if not tokens.windows:
            drop(document, "too_short", tokens.num_tokens)
            continue
        kept += 1
        rows += (_row(text, columns, window, k, tokens) for k, window in enumerate(tokens.windows))
        ids += (window.ids for window in tokens.windows)
    counts = Counter(entry["reason"] for entry in dropped) + Counter({KEPT: kept})
    record = BlockRecord(counts=counts, end=group.end)
    _write_block(path, _table(rows, ids), record, dropped)
    return record


def _candidates(
    settings: PrepareSettings, group: DocumentGroup, tokenizer: Tokenizer, drop: Callable[[Document, str], None]
) -> Iterator[tuple[Document, str, dict[str, Any]]]:
    """The documents that are tokenised, each with its text and the columns of its rows; `drop` gets the others."""
    for document in group.documents:
        text = text_at(document.fields, settings.text_key)
        reason = _drop_reason(document, text)
        if reason is not None:
            drop(document, reason)
            continue
        try:
            columns = _columns(document, settings)
        except RecursionError:
            drop(document, "too_deep")
            continue
        if tokenizer.surely_shorter(text, settings.length):
            drop(document, "too_short")
        else:
            yield document, text, columns


def _write_block(path: Path, table: pa.Table, record: BlockRecord, dropped: Iterable[Entry]) -> None:
    # Both are in the file itself, so that they become visible in the same instant as the block.
    metadata = {
        _METADATA_KEY: json.dumps({"counts": dict(record.counts), "end": asdict(record.end)}).encode(),
        DROPPED_KEY: packed_entries(dropped),
    }
    table = table.replace_schema_metadata(metadata)
    with io_errors(path, "write"), replacing(path) as partial:
        # Dictionary encoding would only be tried for token ids and texts, and then abandoned.
        pq.write_table(
            table, arrow_path(partial), compression="zstd", write_page_checksum=True, use_dictionary=_REPEATED_COLUMNS
        )
        add_checksum(partial)


def _table(rows: list[dict[str, Any]], ids: list[Ids]) -> pa.Table:
    """The rows of a block; the ids go in as arrays, because a Python object for each would take most of the time."""
    place = BLOCK_SCHEMA.get_field_index("input_ids")
    others = pa.Table.from_pylist(rows, schema=BLOCK_SCHEMA.remove(place))
    # NumPy joins no empty list of arrays.
    starts = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    values = np.concatenate([np.zeros(0, dtype=np.int32), *ids])
    return others.add_column(place, BLOCK_SCHEMA.field(place), pa.ListArray.from_arrays(starts, values))


def _row(text: str, columns: dict[str, Any], window: TokenWindow, number: int, tokens: TokenizedText) -> dict[str, Any]:
    ids = np.asarray(window.ids, dtype="<i4").tobytes()
    return columns | {
        "text": text[window.start : window.end],
        "chunked_index": number,
        "start_token": window.start_token,
        "document_tokens": tokens.num_tokens,
        # 128 bits of a cryptographic hash: no two rows of a corpus have the same by chance, nor by intent.
        "digest": hashlib.blake2b(ids, digest_size=16).digest(),
    }


def record_of_block(path: Path) -> BlockRecord | None:
    """What the block at `path` holds beside its rows; None where there is no block."""
    if not path.exists():
        return None
    metadata = open_block(path).schema_arrow.metadata
    found = json.loads(metadata[_METADATA_KEY])
    # Blocks of earlier development versions do not say where they end, or what was dropped; they are made again.
    is_complete = "end" in found and DROPPED_KEY in metadata
    return BlockRecord(counts=found["counts"], end=ReadPosition(**found["end"])) if is_complete else None


def size_of_block(path: Path) -> tuple[int, Counts]:
    """The rows of a sealed block, duplicates among them, and its counts of documents; only the footer is read.

    Raises FileNotFoundError where there is no block, and StorageError for a damaged one.
    """
    with path.open("rb") as file, reading_parquet(path, remedy=BLOCK_REMEDY):
        found = pq.ParquetFile(file)
        return found.metadata.num_rows, json.loads(found.schema_arrow.metadata[_METADATA_KEY])["counts"]


def describe_counts(counts: Counts) -> str:
    """`3 too_short, 1 no_text`."""
    return ", ".join(f"{counts[reason]:,} {reason}" for reason in REASONS if counts.get(reason)) or "there are none"


def _drop_reason(document: Document, text: Any) -> str | None:
    if document.is_short:
        return "low_count"
    if document.fields is None:
        return reason_of_line(document)
    return reason_of_text(text)


def reason_of_line(document: Document) -> str:
    """Why a line without fields is dropped."""
    return "long_line" if document.is_long_line else "not_json"


def _columns(document: Document, settings: PrepareSettings) -> dict[str, Any]:
    """What every row of a document has in common: meta with the domain under `pile_set_name`, id, source and the rest.

    Raises LadmError for a document without a domain.
    """
    fields = document.fields
    assert fields is not None
    meta = parsed_meta(fields)
    domain_keys = domain_keys_of(settings.domain_key)
    key, domain = first_domain(fields, meta, domain_keys)
    domain = settings.other_domain if domain is None else domain
    if domain is None:
        missing = name_of_domain_keys(fields, meta, domain_keys)
        raise LadmError(
            f"{document.where} has no {missing}; its keys are {list_keys(keys_of(fields))}: give --domain-key one of "
            "them, or --domain a name for all documents without one"
        )
    own_id = id_of(fields, settings.id_key)
    used = {*domain_keys[:1], *([] if key is None else [key])} | ({"meta"} if meta is not None else set())
    used |= {settings.id_key} if own_id is not None else set()
    others = other_columns(fields, text_key=settings.text_key, used=used)
    return {
        "meta": json.dumps((meta or {}) | {DOMAIN_NAME: domain}),
        "id": own_id,
        "domain": domain,
        "source": whole_text(document.where),
        "document": document.number,
        "carried": json.dumps(others, ensure_ascii=False),
    }
