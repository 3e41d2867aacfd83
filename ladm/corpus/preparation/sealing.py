"""Documents -> sealed blocks of rows, as many as are wanted; the blocks of an earlier start are kept and continued.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from ladm.corpus.documents.bad_files import BadFiles
from ladm.corpus.documents.changed_sources import SourceGuard
from ladm.corpus.documents.groups import DamagedSourceError, DocumentGroup, ReadPosition, read_groups
from ladm.corpus.documents.reading import ShortRule
from ladm.corpus.documents.sources import Source
from ladm.corpus.preparation.assemble import BlockRows
from ladm.corpus.preparation.blocks import BlockRecord, Counts, record_of_block, seal_block
from ladm.corpus.preparation.duplicates import SeenRows, counts_without_copies
from ladm.corpus.preparation.tokenization import Tokenizer
from ladm.settings.data import NO_TOKEN_COUNT, PrepareSettings
from ladm.storage.files import io_errors, sync_folder


class PrepareProgress(Protocol):
    """Receives the progress over documents.

    `rows` counts all so far, `documents` those since the last call; `source` is the number of the source that is being
    read. A block that is not `is_new` was made by an earlier start.
    """

    def start(self, *, sources: int, limit: int | None) -> None: ...
    def advance(self, *, documents: int, rows: int, source: int, is_new: bool) -> None: ...
    def close(self) -> None: ...


class NoPrepareProgress:
    """Shows nothing."""

    def start(self, *, sources: int, limit: int | None) -> None:
        """Do nothing."""

    def advance(self, *, documents: int, rows: int, source: int, is_new: bool) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, kw_only=True)
class SealedBlocks:
    """The sealed blocks, in order, and whether they hold all documents of the sources."""

    blocks: list[tuple[BlockRows, Counts]]
    all_read: bool


def seal_blocks(
    settings: PrepareSettings,
    sources: list[Source],
    tokenizer: Tokenizer,
    work: Path,
    bad_files: BadFiles,
    guard: SourceGuard,
    progress: PrepareProgress,
) -> SealedBlocks:
    """Seal every block that is not sealed yet, until there are as many rows as wanted.

    Damage may show only after rows of a file are sealed. The whole file is left out all the same: its blocks and those
    after them are removed, and the latter made again.
    Raises StorageError beyond `--max-bad-files`, and LadmError for a file that was changed since `guard` was made.
    """
    key = settings.token_count_key
    short = None if key == NO_TOKEN_COUNT else ShortRule(key=key, length=settings.length)
    read = partial(
        read_groups, sources, text_key=settings.text_key, short=short, bad_files=bad_files, guard=guard
    )  # fmt: skip
    while True:
        made = _sealed_then_new(read, work, partial(seal_block, settings, tokenizer=tokenizer))
        try:
            return _take(made, settings, progress, sources=len(sources))
        except DamagedSourceError as error:
            # Blocks first: after a stop in between, the file is read and found damaged again. The other way round
            # it would be recorded as left out while its rows stayed.
            _remove_blocks_from(work, error.source)
            bad_files.leave_out(error.name, error.error)


def _remove_blocks_from(work: Path, source: int) -> None:
    """Remove the blocks with documents of that source, and those behind them."""
    number = 0
    while (record := record_of_block(work / f"{number:06d}.parquet")) is not None and record.end.source < source:
        number += 1
    with io_errors(work, "write in"):
        # From the end, so that there is never a gap behind which blocks of this try would pass for sealed ones. Each is
        # made durable, because a power loss may undo some removals and not others.
        for path in sorted(work.glob("*.parquet"), reverse=True):
            if int(path.stem) >= number:
                path.unlink()
                sync_folder(work)


def _take(
    made: Iterator[tuple[Path, BlockRecord, bool]],
    settings: PrepareSettings,
    progress: PrepareProgress,
    *,
    sources: int,
) -> SealedBlocks:
    """Take blocks, which are sealed one by one, until there are as many rows as wanted."""
    blocks: list[tuple[BlockRows, Counts]] = []
    seen = SeenRows(length=settings.length, keep_duplicates=settings.keep_duplicates)
    rows, end = 0, ReadPosition()
    progress.start(sources=sources, limit=settings.limit)
    try:
        for path, record, is_new in made:
            block = seen.judge(path)
            blocks.append((block, counts_without_copies(record.counts, block)))
            rows += int(block.is_kept.sum())
            documents = record.end.documents - end.documents
            progress.advance(documents=documents, rows=rows, source=record.end.source, is_new=is_new)
            end = record.end
            if settings.limit is not None and rows >= settings.limit:
                return SealedBlocks(blocks=blocks, all_read=False)
    finally:
        progress.close()
    return SealedBlocks(blocks=blocks, all_read=True)


def _sealed_then_new(
    read: Callable[..., Iterator[DocumentGroup]], work: Path, seal: Callable[..., BlockRecord]
) -> Iterator[tuple[Path, BlockRecord, bool]]:
    """The blocks of an earlier start, whose documents are not read again, then new ones; and whether one is new."""
    number, end = 0, ReadPosition()
    while (record := record_of_block(path := work / f"{number:06d}.parquet")) is not None:
        yield path, record, False
        number, end = number + 1, record.end
    for group in read(start=end):
        path = work / f"{number:06d}.parquet"
        yield path, seal(group, path=path), True
        number += 1
