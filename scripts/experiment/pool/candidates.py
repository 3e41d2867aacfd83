"""An unpacked package -> its candidate rows: at most two of a document, and the natural faults that it offers."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pool.extract import Document, Source, documents
from pool.faults import changelogs, listed_files, pages_end_to_end, pieces_of_one_manual
from pool.rows import ROWS_A_DOCUMENT, cut_rows

ROW_TOKENS = 16_384
LEAST_CHARACTERS = 2.6 * ROW_TOKENS
SPARE = 1.25
"""Candidates beyond what is wanted, for rows that share too much with another."""


def candidates(source: Source, root: Path, tokenizer: Any, tools: Any) -> Iterator[dict[str, Any]]:
    if source.kind == "faults":
        yield from fault_rows(source, listed_faults(source, root, tools), tokenizer, source.domain)
        return
    found = [document for document in documents(source, root, tools) if len(document.text) >= LEAST_CHARACTERS]
    yield from natural_rows(source, found, tokenizer)
    if source.split == "pool" and root.joinpath("usr/share/doc").is_dir():
        yield from fault_rows(source, changelogs(root), tokenizer, "changelogs", most=2)
    if source.split == "pool" and source.kind in ("manuals", "books", "standards"):
        pasted = pieces_of_one_manual(found, name=source.package, characters=6 * ROW_TOKENS)
        yield from fault_rows(source, pasted, tokenizer, "pieces of one manual", most=2)


def listed_faults(source: Source, root: Path, tools: Any) -> list[Document]:
    if source.format == "man":
        return pages_end_to_end(source, root, tools, characters=6 * ROW_TOKENS)
    return listed_files(source, root, tools)


def natural_rows(source: Source, found: list[Document], tokenizer: Any) -> Iterator[dict[str, Any]]:
    """One row of each document where there are many, else two; documents in an order drawn from the package's name."""
    wanted = round(source.most * SPARE)
    random.Random(source.package).shuffle(found)
    a_document = 1 if len(found) >= 2 * wanted else ROWS_A_DOCUMENT
    count = 0
    for document in found:
        if count >= wanted:
            return
        for number, row in enumerate(cut_rows(document.text, tokenizer, tokens=ROW_TOKENS, most=a_document)):
            if readable(row.text, prose=source.format != "source"):
                count += 1
                yield row_of(document, number, row, fault_kind="")


def fault_rows(
    source: Source, found: list[Document], tokenizer: Any, fault_kind: str, *, most: int | None = None
) -> Iterator[dict[str, Any]]:
    count = 0
    for document in found:
        if count >= (most or source.most):
            return
        # One of each: a register looks the same all the way.
        for number, row in enumerate(cut_rows(document.text, tokenizer, tokens=ROW_TOKENS, most=1)):
            count += 1
            yield row_of(document, number, row, fault_kind=fault_kind)


def row_of(document: Document, number: int, row: Any, *, fault_kind: str) -> dict[str, Any]:
    return {
        "document": document.name,
        "row_in_document": number,
        "text": row.text,
        "input_ids": row.ids,
        "fault_kind": fault_kind,
    }


def readable(text: str, *, prose: bool) -> bool:
    """Whether a row is English text or source: no table, no list, no other language, nothing badly converted."""
    letters = sum(map(str.isalpha, text)) / len(text)
    ascii_share = len(text.encode("ascii", "ignore")) / len(text)
    packed = len(zlib.compress(text.encode(), 6)) / len(text.encode())
    if letters < 0.5 or ascii_share < 0.93 or not 0.13 < packed < 0.55:
        return False
    words = re.findall(r"[a-z]+", text.lower())
    # "the" is 5 to 7 % of the words of English prose, and 1 to 3 % of a manual full of code.
    return not prose or words.count("the") >= 0.015 * len(words)
