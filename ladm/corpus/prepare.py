"""Documents -> rows of token ids in the published format, every drop counted with its reason.

    ROWS/dataset_dict.json, ROWS/train/    text, meta, input_ids, index, id, domain, source, the documents' columns
    ROWS/prepare.json                      tokenizer, special tokens, sources, counts
    ROWS/dropped.jsonl                     the documents that were dropped, each with its reason
    ROWS/.preparing/                       sealed blocks of an unfinished preparation

Documents are processed in blocks. A finished block is renamed to its final name, so that the same command
resumes where it was stopped. Imports no torch.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ladm.corpus.assemble import assemble, count_copies
from ladm.corpus.bad_files import BadFiles
from ladm.corpus.blocks import REASONS, Counts, describe_counts
from ladm.corpus.changed_sources import SourceGuard
from ladm.corpus.dropped import DROPPED_FILE, write_dropped
from ladm.corpus.duplicates import TokenCounts, count_tokens
from ladm.corpus.missing_keys import replaced_domains, require_keys
from ladm.corpus.other_stages import WORK_FOLDER, require_documents
from ladm.corpus.prepare_identity import identity_of, require_same_preparation, with_digest_of_today
from ladm.corpus.prepare_start import start_or_resume, with_free_settings
from ladm.corpus.repeated_ids import RepeatedIds, find_repeated_ids
from ladm.corpus.row_identity import PREPARED, PREPARED_COLUMNS, PREPARED_DIGEST
from ladm.corpus.rows import open_rows
from ladm.corpus.sealing import NoProgress, Progress, SealedBlocks, seal_blocks
from ladm.corpus.sources import find_sources
from ladm.corpus.tokenization import Tokenizer, load_tokenizer
from ladm.errors import LadmError, StorageError, count_of
from ladm.modeling.facts import stated_positions
from ladm.progress import Echo
from ladm.settings.data import PrepareSettings
from ladm.storage.files import io_errors, sync_folder, write_whole
from ladm.storage.json_object import damaged_file, json_with_checksum, read_json_object
from ladm.storage.locks import locked
from ladm.storage.output_folder import LOCK_FILES, OutputFolder

__all__ = ["REASONS", "PreparedRows", "Progress", "has_sealed_rows", "prepare"]

BAD_FILES = "bad_files.json"


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
    copies: int = 0
    """Short rows with the ids of an earlier row, which are kept here and left out by `ladm select`."""
    repeated_ids: RepeatedIds | None = None
    """None where no two documents with rows have the same id."""
    all_read: bool = True
    """False where --limit stopped before the end of the sources: a greater one adds rows."""

    @property
    def dropped_file(self) -> Path | None:
        """The list of the dropped documents and files, JSON lines; None for rows of a version that wrote none."""
        path = self.folder / DROPPED_FILE
        return path if path.is_file() else None

    def __fspath__(self) -> str:
        return str(self.folder)


def prepare(
    settings: PrepareSettings, *, echo: Echo, progress: Progress | None = None, job: Path | None = None
) -> PreparedRows:
    """Write the rows, resume, open them where they are finished, or add what a greater `limit` allows.

    `job`: the folder of `ladm run` around the output, of which nothing is a source either.
    Raises LadmError for a source, tokenizer or output that cannot be used, and for a document
    without a domain.
    """
    output = Path(settings.output)
    require_documents(settings.sources)
    sources = find_sources(
        list(settings.sources), output=job or output, config=settings.hub_config, split=settings.split, echo=echo
    )
    guard = SourceGuard(sources)
    tokenizer = load_tokenizer(settings.tokenizer, bos=settings.bos, threads=settings.num_proc)
    too_long = positions_warning(settings)
    # `ladm run` knows the model that scores, and refuses.
    if too_long is not None and job is None:
        echo(f"warning   {too_long}")
    identity = identity_of(settings, sources, tokenizer)
    finished = _finished(output, identity, tokenizer)
    if finished is not None and not _may_grow(finished, settings.limit):
        return _prepared_already(finished, echo)
    # The record of what was started is in the work folder: a data set is ours as long as its preparation is unfinished.
    folder = OutputFolder(
        output, record=f"{WORK_FOLDER}/asked.json", leftovers=rf"{re.escape(WORK_FOLDER)}|{LOCK_FILES}"
    )
    if finished is None:
        folder.require_own_or_empty()
    else:
        echo(f"{output} has {count_of(finished.rows, 'row')}; adding to them")
    require_keys(settings, sources)
    # `ladm run` knows whether its user gave a key.
    if job is None and (replaced := replaced_domains(settings, sources)) is not None:
        echo(f"warning   {replaced}")
    with locked(output):
        # The documents were looked at meanwhile, and another launch may have finished: its rows are not replaced.
        finished = _finished(output, identity, tokenizer)
        if finished is not None and not _may_grow(finished, settings.limit):
            return _prepared_already(finished, echo)
        work = output / WORK_FOLDER
        start_or_resume(folder, work, identity, tokenizer, sources)
        bad_files = BadFiles(work / BAD_FILES, most=settings.max_bad_files, text_key=settings.text_key, echo=echo)
        sealed = seal_blocks(settings, sources, tokenizer, work, bad_files, guard, progress or NoProgress())
        width = settings.length - tokenizer.bos
        return _finish(settings, output, sealed, identity, bad_files=bad_files.messages, width=width)


def positions_warning(settings: PrepareSettings) -> str | None:
    """A line where the rows would be too long for the model in the folder of the tokenizer; None: they are not."""
    most = stated_positions(settings.tokenizer)
    if most is None or settings.length <= most:
        return None
    return (
        f"rows of {settings.length:,} tokens are longer than the {most:,} positions of the model in "
        f"{settings.tokenizer}, which cannot score them; for that model give --length {most}"
    )


def _prepared_already(finished: PreparedRows, echo: Echo) -> PreparedRows:
    # What could not be removed at its end.
    if finished.all_read:
        shutil.rmtree(finished.folder / WORK_FOLDER, ignore_errors=True)
    echo(f"{finished.folder} is prepared already")
    return finished


def has_sealed_rows(output: Path) -> bool:
    """Is anything there that a preparation with other settings could not use?"""
    return (output / PREPARED).is_file() or any((output / WORK_FOLDER).glob("*.parquet"))


def _finished(output: Path, identity: dict[str, Any], tokenizer: Tokenizer) -> PreparedRows | None:
    """The rows that are there. Raises LadmError where they were made with something else, or are more than wanted."""
    path = output / PREPARED
    if not path.is_file():
        return None
    record = read_json_object(path)
    try:
        return _opened(output, record | {"asked": with_digest_of_today(record["asked"], tokenizer)}, identity)
    except (KeyError, TypeError, AttributeError):
        raise damaged_file(path, "it does not describe prepared rows") from None


def _opened(output: Path, record: dict[str, Any], identity: dict[str, Any]) -> PreparedRows:
    """The rows that a record describes. Raises as `_finished`."""
    had, limit = record["asked"], identity["limit"]
    require_same_preparation(output, with_free_settings(had, identity), identity)
    if limit is not None and limit < record["rows"]:
        raise LadmError(
            f"{output} has {count_of(record['rows'], 'row')} already, more than --limit {limit:,}; give another "
            f"--output, or score the first of them: ladm score {output} --model MODEL --limit {limit} -o run"
        )
    tokens = record.get("tokens")
    return PreparedRows(
        folder=output,
        rows=record["rows"],
        counts=record["counts"],
        tokens=tokens and TokenCounts(read=tokens["read"], kept=tokens["kept"]),
        bad_files=record.get("bad_files", {}),
        copies=record.get("copies", 0),
        repeated_ids=_repeated_ids(record.get("repeated_ids")),
        all_read=record.get("all_read", had["limit"] is None),
    )


def _repeated_ids(found: dict[str, Any] | None) -> RepeatedIds | None:
    return None if found is None else RepeatedIds(**found | {"sources": tuple(found["sources"])})


def _may_grow(finished: PreparedRows, limit: int | None) -> bool:
    """May there be rows beyond those that are finished, within the limit?"""
    return not finished.all_read and (limit is None or limit > finished.rows)


def _finish(
    settings: PrepareSettings,
    output: Path,
    sealed: SealedBlocks,
    identity: dict[str, Any],
    *,
    bad_files: dict[str, str],
    width: int,
) -> PreparedRows:
    """Assemble the blocks into the data set, and write the record that makes it finished."""
    counts: Counter[str] = Counter()
    for _, of_block in sealed.blocks:
        counts.update(of_block)
    blocks = [block for block, _ in sealed.blocks]
    found = sum(int(block.is_kept.sum()) for block in blocks)
    rows = found if settings.limit is None else min(found, settings.limit)
    if rows == 0 and bad_files and not counts:
        raise StorageError("; ".join(bad_files.values()))
    if rows == 0:
        # Blocks without a row must not bind the folder to the --length that left none.
        shutil.rmtree(output / WORK_FOLDER, ignore_errors=True)
        remedy = "; give a smaller --length" if counts["too_short"] or counts["low_count"] else ""
        raise LadmError(f"no document has {settings.length:,} tokens: {describe_counts(counts)}{remedy}")
    with io_errors(output, "write"):
        # First: until the new record is written, a folder whose data set is being replaced is not finished.
        (output / PREPARED).unlink(missing_ok=True)
        sync_folder(output)
    assemble(output, blocks, rows=rows, windows=settings.most_windows != 1)
    write_dropped(output, blocks, bad_files, rows=rows)
    tokens, copies = count_tokens(blocks, rows=rows, width=width), count_copies(blocks, rows=rows)
    repeated_ids = find_repeated_ids(blocks, rows=rows)
    written = open_rows(str(output))
    record = {
        "asked": identity,
        "rows": rows,
        "counts": dict(counts),
        "tokens": {"read": tokens.read, "kept": tokens.kept, "cut_off": tokens.cut_off},
        "bad_files": bad_files,
        "copies": copies,
        "repeated_ids": repeated_ids and asdict(repeated_ids),
        "all_read": sealed.all_read,
        # A bit of the data set that flips later would give a wrong score, or a wrong text, and no error.
        PREPARED_DIGEST: written.identity()["xxh3_128"],
        PREPARED_COLUMNS: written.columns_digest(),
    }
    # The record last: it is what makes the folder finished, whenever a stop comes.
    with io_errors(output, "write"):
        write_whole(output / PREPARED, [json_with_checksum(record)])
        # Blocks of a part of the corpus are what a greater --limit goes on from.
        leftover = output / WORK_FOLDER / "cache" if not sealed.all_read else output / WORK_FOLDER
        shutil.rmtree(leftover, ignore_errors=True)
    return PreparedRows(
        folder=output,
        rows=rows,
        counts=counts,
        tokens=tokens,
        bad_files=bad_files,
        copies=copies,
        repeated_ids=repeated_ids,
        all_read=sealed.all_read,
    )
