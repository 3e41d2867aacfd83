"""A group of documents -> one sealed block: the rows that are kept, and counts of those that are not, by reason.

Imports no torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.corpus.assemble import BLOCK_SCHEMA
from ladm.corpus.documents import Document
from ladm.corpus.meta import jsonable
from ladm.corpus.tokenization import Tokenizer
from ladm.errors import LadmError
from ladm.settings.data import PrepareSettings
from ladm.storage.files import io_errors, replacing

KEPT = "kept"
DOMAIN_NAME = "pile_set_name"
"""Where a row's meta holds its domain, as in the published data."""
REASONS = {
    "too_short": "fewer tokens than --length",
    "no_text": "nothing under --text-key",
    "not_text": "the text is not a string",
    "not_json": "the line is not a JSON object",
}
_METADATA_KEY = b"ladm"

Counts = Mapping[str, int]
"""Documents by what became of them: `kept`, or one of REASONS."""


def seal_block(settings: PrepareSettings, documents: list[Document], tokenizer: Tokenizer, path: Path) -> Counts:
    """Tokenise a group of documents and write the rows that are kept to `path`; returns the counts.

    Raises LadmError for a document without a domain.
    """
    counts: Counter[str] = Counter()
    candidates: list[tuple[str, dict[str, Any]]] = []
    for document in documents:
        text = value_at(document.fields, settings.text_key)
        reason = _drop_reason(document, text)
        if reason is not None:
            counts[reason] += 1
            continue
        meta = _meta(document, settings)
        if tokenizer.surely_shorter(text, settings.length):
            counts["too_short"] += 1
        else:
            candidates.append((text, meta))
    rows = []
    # All at once, because the tokenizer spreads a batch over all cores.
    cut = tokenizer.cut([text for text, _ in candidates], settings.length)
    for (text, meta), tokens in zip(candidates, cut, strict=True):
        if tokens is None:
            counts["too_short"] += 1
        else:
            counts[KEPT] += 1
            rows.append({"text": text[: tokens.end], "meta": json.dumps(meta), "input_ids": tokens.ids})
    # The counts are in the file itself, so that the block and they become visible in the same instant.
    metadata = {_METADATA_KEY: json.dumps({"counts": dict(counts)}).encode()}
    table = pa.Table.from_pylist(rows, schema=BLOCK_SCHEMA.with_metadata(metadata))
    with io_errors(path, "write"), replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    return counts


def counts_of_block(path: Path) -> Counts:
    """The counts of a sealed block."""
    with io_errors(path, "read"):
        found: dict[str, dict[str, int]] = json.loads(pq.read_schema(path).metadata[_METADATA_KEY])
    return found["counts"]


def describe_counts(counts: Counts) -> str:
    """`3 too_short, 1 no_text`."""
    return ", ".join(f"{counts[reason]:,} {reason}" for reason in REASONS if counts.get(reason)) or "no document at all"


def _drop_reason(document: Document, text: Any) -> str | None:
    if document.fields is None:
        return "not_json"
    if text is None:
        return "no_text"
    return None if isinstance(text, str) else "not_text"


def _meta(document: Document, settings: PrepareSettings) -> dict[str, Any]:
    """The document's own meta, with its domain under `pile_set_name`."""
    assert document.fields is not None
    meta = document.fields.get("meta")
    # In published corpora meta is often JSON in a text.
    if isinstance(meta, str):
        try:
            meta = json.loads(meta)
        except ValueError:
            meta = None
    meta = jsonable(meta) if isinstance(meta, dict) else {}
    domain = value_at(document.fields | {"meta": meta}, settings.domain_key)
    domain = settings.domain if domain is None else domain
    if domain is None:
        raise LadmError(
            f"{document.where} has no {settings.domain_key}; give --domain-key the key that it has, or --domain a name "
            "for all documents without one"
        )
    return meta | {DOMAIN_NAME: str(domain)}


def value_at(fields: Any, key: str) -> Any:
    """What a dotted key such as `meta.title` leads to, or None."""
    for part in key.split("."):
        fields = fields.get(part) if isinstance(fields, dict) else None
    return fields
