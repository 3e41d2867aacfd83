"""Documents -> rows of token ids in the published format, every drop counted with its reason.

    ROWS/dataset_dict.json, ROWS/train/    text, meta, input_ids, index
    ROWS/prepare.json                      tokenizer, special tokens, sources, counts
    ROWS/.preparing/                       sealed blocks of an unfinished preparation

Documents are processed in blocks. A finished block is renamed to its final name, so that the same command
resumes where it was stopped. Imports no torch.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ladm.corpus.assemble import assemble
from ladm.corpus.blocks import KEPT, REASONS, Counts, counts_of_block, describe_counts, seal_block, value_at
from ladm.corpus.documents import Document, Source, find_sources, read_documents
from ladm.corpus.tokenization import Tokenizer, load_tokenizer
from ladm.errors import LadmError
from ladm.progress import Echo
from ladm.settings.data import PrepareSettings
from ladm.storage.files import io_errors, write_whole
from ladm.storage.identity import require_same
from ladm.storage.locks import locked
from ladm.storage.output_folder import LOCK_FILES, OutputFolder

__all__ = ["REASONS", "PreparedRows", "Progress", "prepare"]

RECORD_FILE = "prepare.json"
WORK_FOLDER = ".preparing"
BLOCK_DOCUMENTS = 512
BLOCK_CHARACTERS = 32_000_000


class Progress(Protocol):
    """Where the progress over documents is shown."""

    def start(self) -> None: ...
    def advance(self, *, documents: int, kept: int) -> None: ...
    def close(self) -> None: ...


class _NoProgress:
    """Shows nothing."""

    def start(self) -> None:
        """Do nothing."""

    def advance(self, *, documents: int, kept: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class PreparedRows:
    """A folder of rows; it can be given to whatever takes a path."""

    folder: Path
    rows: int
    counts: Counts
    """Documents by what became of them: `kept`, or the reason for the drop. With --limit more may be kept than rows."""

    def __fspath__(self) -> str:
        return str(self.folder)


def prepare(settings: PrepareSettings, *, echo: Echo, progress: Progress | None = None) -> PreparedRows:
    """Write the rows, or resume, or only open them where they are finished.

    Raises LadmError for a source, tokenizer or output that cannot be used, and for a document
    without a domain.
    """
    output = Path(settings.output)
    sources = find_sources(list(settings.sources))
    tokenizer = load_tokenizer(settings.tokenizer, bos=settings.bos)
    identity = _identity(settings, sources, tokenizer)
    finished = _finished(output, identity)
    if finished is not None:
        echo(f"{output} is prepared already")
        return finished
    # The record of what was started is in the work folder: a data set is ours as long as its preparation is unfinished.
    folder = OutputFolder(
        output, record=f"{WORK_FOLDER}/asked.json", leftovers=rf"{re.escape(WORK_FOLDER)}|{LOCK_FILES}"
    )
    folder.require_own_or_empty()
    with locked(output):
        work = output / WORK_FOLDER
        folder.start(identity)
        blocks = _seal_blocks(settings, sources, tokenizer, work, progress or _NoProgress())
        return _finish(settings, output, blocks, identity)


def _identity(settings: PrepareSettings, sources: list[Source], tokenizer: Tokenizer) -> dict[str, Any]:
    """What the rows are made with, as JSON gives it back; a resume must be the same."""
    content = asdict(settings) | {
        "output": None,
        "sources": [asdict(source) for source in sources],
        "tokenizer": tokenizer.record(),
    }
    loaded: dict[str, Any] = json.loads(json.dumps(content))
    return loaded


def _finished(output: Path, identity: dict[str, Any]) -> PreparedRows | None:
    path = output / RECORD_FILE
    if not path.is_file():
        return None
    with io_errors(path, "read"):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    require_same(output, record["asked"], identity)
    return PreparedRows(folder=output, rows=record["rows"], counts=record["counts"])


def _seal_blocks(
    settings: PrepareSettings, sources: list[Source], tokenizer: Tokenizer, work: Path, progress: Progress
) -> list[tuple[Path, Counts]]:
    """Seal every block that is not sealed yet; returns the files and counts of all, in order."""
    blocks: list[tuple[Path, Counts]] = []
    kept = 0
    progress.start()
    try:
        for number, documents in enumerate(_grouped(sources, settings)):
            path = work / f"{number:06d}.parquet"
            counts = counts_of_block(path) if path.exists() else seal_block(settings, documents, tokenizer, path)
            blocks.append((path, counts))
            kept += counts.get(KEPT, 0)
            progress.advance(documents=len(documents), kept=kept)
            if settings.limit is not None and kept >= settings.limit:
                break
    finally:
        progress.close()
    return blocks


def _grouped(sources: list[Source], settings: PrepareSettings) -> Iterator[list[Document]]:
    """Documents in groups of bounded number and size: the same groups whenever the sources are the same."""
    group: list[Document] = []
    characters = 0
    for source in sources:
        for document in read_documents(source, text_key=settings.text_key, domain_key=settings.domain_key):
            text = value_at(document.fields, settings.text_key)
            group.append(document)
            characters += len(text) if isinstance(text, str) else 0
            # Books fill memory long before there are 512 of them, hence the second bound.
            if len(group) == BLOCK_DOCUMENTS or characters >= BLOCK_CHARACTERS:
                yield group
                group, characters = [], 0
    if group:
        yield group


def _finish(
    settings: PrepareSettings, output: Path, blocks: list[tuple[Path, Counts]], identity: dict[str, Any]
) -> PreparedRows:
    """Assemble the blocks into the data set, and write the record that makes it finished."""
    counts: Counter[str] = Counter()
    for _, of_block in blocks:
        counts.update(of_block)
    rows = counts[KEPT] if settings.limit is None else min(counts[KEPT], settings.limit)
    if rows == 0:
        raise LadmError(f"no document has {settings.length:,} tokens: {describe_counts(counts)}")
    assemble(output, [path for path, _ in blocks], rows=rows)
    record = {"asked": identity, "rows": rows, "counts": dict(counts)}
    # The record last: it is what makes the folder finished, whenever a stop comes.
    with io_errors(output, "write"):
        write_whole(output / RECORD_FILE, [json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n"])
        shutil.rmtree(output / WORK_FOLDER, ignore_errors=True)
    return PreparedRows(folder=output, rows=rows, counts=counts)
