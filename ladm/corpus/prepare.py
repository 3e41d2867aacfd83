"""Documents -> rows of token ids in the published format, every drop counted with its reason.

    ROWS/dataset_dict.json, ROWS/train/    text, meta, input_ids, index, id, domain, source, the documents' columns
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
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ladm.corpus.assemble import BlockRows, assemble
from ladm.corpus.bad_files import BadFiles
from ladm.corpus.blocks import REASONS, Counts, counts_of_block, describe_counts, seal_block
from ladm.corpus.documents import Document, read_documents, value_at
from ladm.corpus.duplicates import SeenRows, TokenCounts, count_tokens, counts_without_copies
from ladm.corpus.missing_keys import require_keys
from ladm.corpus.sources import Source, find_sources
from ladm.corpus.tokenization import Tokenizer, load_tokenizer
from ladm.errors import LadmError, StorageError
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
BAD_FILES = "bad_files.json"


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
    tokens: TokenCounts | None = None
    """None for rows of a version that did not count them."""
    bad_files: dict[str, str] = field(default_factory=dict)
    """Files that were left out, because they cannot be read to their end, each with its message."""

    def __fspath__(self) -> str:
        return str(self.folder)


def prepare(settings: PrepareSettings, *, echo: Echo, progress: Progress | None = None) -> PreparedRows:
    """Write the rows, or resume, or only open them where they are finished.

    Raises LadmError for a source, tokenizer or output that cannot be used, and for a document
    without a domain.
    """
    output = Path(settings.output)
    sources = find_sources(list(settings.sources), output=output)
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
    require_keys(settings, sources)
    with locked(output):
        work = output / WORK_FOLDER
        _start(folder, work, identity)
        bad_files = BadFiles(work / BAD_FILES, most=settings.max_bad_files, text_key=settings.text_key, echo=echo)
        blocks = _seal_blocks(settings, sources, tokenizer, work, bad_files, progress or _NoProgress())
        width = settings.length - tokenizer.bos
        return _finish(settings, output, blocks, identity, bad_files=bad_files.messages, width=width)


def _identity(settings: PrepareSettings, sources: list[Source], tokenizer: Tokenizer) -> dict[str, Any]:
    """What the rows are made with, as JSON gives it back; a resume must be the same."""
    content = asdict(settings) | {
        "output": None,
        # How many torn files are too many does not change a row.
        "max_bad_files": None,
        "sources": [asdict(source) | {"name": source.place} for source in sources],
        "tokenizer": tokenizer.record(),
    }
    loaded: dict[str, Any] = json.loads(json.dumps(content))
    return loaded


def _start(folder: OutputFolder, work: Path, identity: dict[str, Any]) -> None:
    """Write down what the rows are made with, or compare with what is written down there.

    Nothing binds a folder in which no block is sealed. Raises LadmError for settings that do not fit sealed blocks.
    """
    if folder.is_started:
        if any(work.glob("*.parquet")):
            had = folder.started_with()
            # A longer or shorter prefix of the same rows; and a domain for documents without one changes no block
            # that was sealed while such a document was an error.
            free = {"limit"} | ({"domain"} if had.get("domain") is None else set())
            require_same(folder.path, had | {name: identity[name] for name in free}, identity)
            with io_errors(folder.record, "write"):
                write_whole(folder.record, [json.dumps(identity, indent=1, ensure_ascii=False).encode() + b"\n"])
            return
        with io_errors(work, "write in"):
            shutil.rmtree(work)
    folder.start(identity)


def _finished(output: Path, identity: dict[str, Any]) -> PreparedRows | None:
    path = output / RECORD_FILE
    if not path.is_file():
        return None
    with io_errors(path, "read"):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    require_same(output, record["asked"], identity)
    tokens = record.get("tokens")
    return PreparedRows(
        folder=output,
        rows=record["rows"],
        counts=record["counts"],
        tokens=tokens and TokenCounts(read=tokens["read"], kept=tokens["kept"]),
        bad_files=record.get("bad_files", {}),
    )


def _seal_blocks(
    settings: PrepareSettings,
    sources: list[Source],
    tokenizer: Tokenizer,
    work: Path,
    bad_files: BadFiles,
    progress: Progress,
) -> list[tuple[BlockRows, Counts]]:
    """Seal every block that is not sealed yet; returns the new rows and the counts of all, in order."""
    blocks: list[tuple[BlockRows, Counts]] = []
    seen = SeenRows(keep_duplicates=settings.keep_duplicates)
    rows = 0
    progress.start()
    try:
        for number, documents in enumerate(_grouped(sources, settings, bad_files)):
            path = work / f"{number:06d}.parquet"
            counts = counts_of_block(path) if path.exists() else seal_block(settings, documents, tokenizer, path)
            block = seen.new_rows(path)
            blocks.append((block, counts_without_copies(counts, block)))
            rows += int(block.is_new.sum())
            progress.advance(documents=len(documents), kept=rows)
            if settings.limit is not None and rows >= settings.limit:
                break
    finally:
        progress.close()
    return blocks


def _grouped(sources: list[Source], settings: PrepareSettings, bad_files: BadFiles) -> Iterator[list[Document]]:
    """Documents in groups of bounded number and size: the same groups whenever the sources are the same."""
    group: list[Document] = []
    characters = number = 0
    for source in sources:
        if source in bad_files:
            continue
        for document in read_documents(source, text_key=settings.text_key):
            text = value_at(document.fields, settings.text_key)
            group.append(Document(document.where, document.fields, number))
            number += 1
            characters += len(text) if isinstance(text, str) else 0
            # Books fill memory long before there are 512 of them, hence the second bound.
            if len(group) == BLOCK_DOCUMENTS or characters >= BLOCK_CHARACTERS:
                yield group
                group, characters = [], 0
    if group:
        yield group


def _finish(
    settings: PrepareSettings,
    output: Path,
    blocks: list[tuple[BlockRows, Counts]],
    identity: dict[str, Any],
    *,
    bad_files: dict[str, str],
    width: int,
) -> PreparedRows:
    """Assemble the blocks into the data set, and write the record that makes it finished."""
    counts: Counter[str] = Counter()
    for _, of_block in blocks:
        counts.update(of_block)
    new = [block for block, _ in blocks]
    found = sum(int(block.is_new.sum()) for block in new)
    rows = found if settings.limit is None else min(found, settings.limit)
    if rows == 0 and bad_files and not counts:
        raise StorageError("; ".join(bad_files.values()))
    if rows == 0:
        raise LadmError(f"no document has {settings.length:,} tokens: {describe_counts(counts)}")
    assemble(output, new, rows=rows, windows=settings.most_windows != 1)
    tokens = count_tokens(new, rows=rows, width=width)
    record = {
        "asked": identity,
        "rows": rows,
        "counts": dict(counts),
        "tokens": {"read": tokens.read, "kept": tokens.kept, "cut_off": tokens.cut_off},
        "bad_files": bad_files,
    }
    # The record last: it is what makes the folder finished, whenever a stop comes.
    with io_errors(output, "write"):
        write_whole(output / RECORD_FILE, [json.dumps(record, indent=1, ensure_ascii=False).encode() + b"\n"])
        shutil.rmtree(output / WORK_FOLDER, ignore_errors=True)
    return PreparedRows(folder=output, rows=rows, counts=counts, tokens=tokens, bad_files=bad_files)
