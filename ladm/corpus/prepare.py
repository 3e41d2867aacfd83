"""Documents -> rows of token ids in the published format, every drop counted with its reason.

    ROWS/dataset_dict.json, ROWS/train/    text, meta, input_ids, index
    ROWS/prepare.json                      tokenizer, special tokens, sources, counts
    ROWS/.preparing/                       sealed blocks of an unfinished run

The work is cut into blocks of documents; a finished block is renamed to its name, so that the same
command goes on where it was stopped. Imports no torch.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.corpus.assemble import BLOCK_SCHEMA, assemble
from ladm.corpus.documents import Document, Source, find_sources, read_documents
from ladm.corpus.meta import jsonable
from ladm.corpus.tokenization import Tokenizer, load_tokenizer
from ladm.errors import LadmError
from ladm.settings.data import PrepareSettings
from ladm.storage.files import create_once, io_errors, replacing, write_whole
from ladm.storage.locks import locked

RECORD_FILE = "prepare.json"
WORK_FOLDER = ".preparing"
DOMAIN_NAME = "pile_set_name"
BLOCK_DOCUMENTS = 512
BLOCK_CHARACTERS = 32_000_000
REASONS = {
    "too_short": "fewer tokens than --length",
    "no_text": "nothing under --text-key",
    "not_text": "the text is not a string",
    "not_json": "the line is not a JSON object",
}


class Progress(Protocol):
    """Where the advance is shown."""

    def start(self) -> None: ...
    def advance(self, *, documents: int, kept: int) -> None: ...
    def close(self) -> None: ...


def prepare(settings: PrepareSettings, *, echo: Callable[[str], None], progress: Progress) -> dict[str, Any]:
    """Write the rows and return their record, `prepare.json`.

    Raises LadmError for a source, tokenizer or output that cannot be used, and for a document
    without a domain.
    """
    output = Path(settings.output)
    sources = find_sources(list(settings.sources))
    tokenizer = load_tokenizer(settings.tokenizer, bos=settings.bos)
    asked = json.loads(json.dumps(asdict(settings) | {"output": None, "sources": [asdict(s) for s in sources]}))
    asked["tokenizer"] = tokenizer.record()
    finished = _finished(output, asked)
    if finished is not None:
        echo(f"{output} is prepared already")
        return finished
    _refuse_taken(output)
    with locked(output):
        work = output / WORK_FOLDER
        with io_errors(work, "create"):
            work.mkdir(exist_ok=True)
        _begin(work, asked)
        progress.start()
        try:
            blocks = list(_blocks(settings, sources, tokenizer, work, progress))
        finally:
            progress.close()
        counts: Counter[str] = Counter()
        for block in blocks:
            counts.update(block["counts"])
        kept = counts["kept"] if settings.limit is None else min(counts["kept"], settings.limit)
        if kept == 0:
            raise LadmError(f"no document has {settings.length:,} tokens: {describe_counts(counts)}")
        record = {"asked": asked, "rows": kept, "counts": dict(counts)}
        assemble(output, [work / f"{number:06d}.parquet" for number in range(len(blocks))], rows=kept)
        with io_errors(output, "write"):
            write_whole(output / RECORD_FILE, [json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n"])
            shutil.rmtree(work, ignore_errors=True)
    return record


def _finished(output: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    path = output / RECORD_FILE
    if not path.is_file():
        return None
    with io_errors(path, "read"):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    _same(output, record["asked"], asked)
    return record


def _same(output: Path, had: dict[str, Any], asked: dict[str, Any]) -> None:
    differing = [key for key in asked if had.get(key) != asked[key]]
    if differing:
        raise LadmError(
            f"{output} was begun with something else ({', '.join(differing)}); give another --output, or remove it"
        )


def _refuse_taken(output: Path) -> None:
    if output.is_dir():
        others = {path.name for path in output.iterdir()} - {WORK_FOLDER, ".lock", ".holder"}
        # A stop in the last step leaves the finished data set without its record; it is written again.
        if others and not (
            (output / WORK_FOLDER).exists() and others <= {"train", "dataset_dict.json", f"{RECORD_FILE}.partial"}
        ):
            raise LadmError(
                f"{output} belongs to something else (it holds {min(others)}); give --output an empty folder"
            )
    elif output.exists():
        raise LadmError(f"{output} is a file; give --output a folder")


def _begin(work: Path, asked: dict[str, Any]) -> None:
    path = work / "asked.json"
    if not create_once(path, json.dumps(asked).encode()):
        _same(work.parent, json.loads(path.read_text(encoding="utf-8")), asked)


def _blocks(
    settings: PrepareSettings, sources: list[Source], tokenizer: Tokenizer, work: Path, progress: Progress
) -> Iterator[dict[str, Any]]:
    """Work on every block that is not sealed; yields the counts of each, in order."""
    kept = 0
    for number, documents in enumerate(_grouped(sources, settings)):
        path = work / f"{number:06d}.parquet"
        if path.exists():
            block: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"ladm"])
        else:
            block = _work(settings, documents, tokenizer, path)
        kept += block["counts"].get("kept", 0)
        progress.advance(documents=len(documents), kept=kept)
        yield block
        if settings.limit is not None and kept >= settings.limit:
            return


def _grouped(sources: list[Source], settings: PrepareSettings) -> Iterator[list[Document]]:
    """Documents in groups of bounded number and size: the same groups whenever the sources are the same."""
    group: list[Document] = []
    characters = 0
    for source in sources:
        for document in read_documents(source, text_key=settings.text_key, domain_key=settings.domain_key):
            text = _at(document.fields, settings.text_key)
            group.append(document)
            characters += len(text) if isinstance(text, str) else 0
            if len(group) == BLOCK_DOCUMENTS or characters >= BLOCK_CHARACTERS:
                yield group
                group, characters = [], 0
    if group:
        yield group


def _work(settings: PrepareSettings, documents: list[Document], tokenizer: Tokenizer, path: Path) -> dict[str, Any]:
    """Tokenise a group of documents and seal what is kept of it at `path`."""
    counts: Counter[str] = Counter()
    candidates: list[tuple[str, dict[str, Any]]] = []
    for document in documents:
        text = _at(document.fields, settings.text_key)
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
    cut = tokenizer.cut([text for text, _ in candidates], settings.length)
    for (text, meta), tokens in zip(candidates, cut, strict=True):
        if tokens is None:
            counts["too_short"] += 1
        else:
            counts["kept"] += 1
            rows.append({"text": text[: tokens.end], "meta": json.dumps(meta), "input_ids": tokens.ids})
    block = {"counts": dict(counts)}
    table = pa.Table.from_pylist(rows, schema=BLOCK_SCHEMA.with_metadata({b"ladm": json.dumps(block).encode()}))
    with io_errors(path, "write"), replacing(path) as partial:
        pq.write_table(table, partial, compression="zstd")
    return block


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
    if isinstance(meta, str):
        try:
            meta = json.loads(meta)
        except ValueError:
            meta = None
    meta = jsonable(meta) if isinstance(meta, dict) else {}
    domain = _at(document.fields | {"meta": meta}, settings.domain_key)
    domain = settings.domain if domain is None else domain
    if domain is None:
        raise LadmError(
            f"{document.where} has no {settings.domain_key}; give --domain-key the key that it has, or --domain a name "
            "for all documents without one"
        )
    return meta | {DOMAIN_NAME: str(domain)}


def _at(fields: Any, key: str) -> Any:
    for part in key.split("."):
        fields = fields.get(part) if isinstance(fields, dict) else None
    return fields


def describe_counts(counts: Counter[str] | dict[str, int]) -> str:
    """`3 too_short, 1 no_text`."""
    return ", ".join(f"{counts[reason]:,} {reason}" for reason in REASONS if counts.get(reason)) or "no document at all"
