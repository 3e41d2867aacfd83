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
import shlex
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ladm.corpus.documents.bad_files import BadFiles
from ladm.corpus.documents.changed_sources import SourceGuard
from ladm.corpus.documents.in_memory import FORMS, DocumentsInMemory
from ladm.corpus.documents.missing_keys import replaced_domains, require_keys
from ladm.corpus.documents.missing_sources import require_sources, without_documents
from ladm.corpus.documents.sources import Source, find_sources
from ladm.corpus.files.folders import NoSourceError
from ladm.corpus.files.other_stages import WORK_FOLDER, require_documents
from ladm.corpus.preparation.assemble import assemble, count_copies
from ladm.corpus.preparation.blocks import REASONS, describe_counts
from ladm.corpus.preparation.domain_counts import count_domains
from ladm.corpus.preparation.dropped import write_dropped
from ladm.corpus.preparation.duplicates import count_tokens, counts_to_limit, last_document
from ladm.corpus.preparation.identity import identity_of, names_of_sources
from ladm.corpus.preparation.prepared_rows import PreparedRows, finished_rows, may_grow, record_of
from ladm.corpus.preparation.repeated_ids import find_repeated_ids
from ladm.corpus.preparation.sealing import NoPrepareProgress, PrepareProgress, SealedBlocks, seal_blocks
from ladm.corpus.preparation.start import STARTED, start_or_resume, started_with
from ladm.corpus.preparation.tokenization import load_tokenizer
from ladm.corpus.rows.identity import PREPARED
from ladm.errors import LadmError, StorageError, count_of
from ladm.modeling.facts import stated_positions
from ladm.progress import Echo
from ladm.settings.data import PrepareSettings
from ladm.storage.files import io_errors, sync_folder, write_whole
from ladm.storage.json_object import json_with_checksum
from ladm.storage.locks import locked
from ladm.storage.output_folder import LOCK_FILES, OutputFolder

__all__ = ["REASONS", "PrepareProgress", "PreparedRows", "has_sealed_rows", "prepare"]

BAD_FILES = "bad_files.json"


def prepare(
    settings: PrepareSettings,
    *,
    echo: Echo,
    progress: PrepareProgress | None = None,
    job: Path | None = None,
    use_rows: str | None = None,
    in_memory: Sequence[DocumentsInMemory] = (),
) -> PreparedRows:
    """Write the rows, resume, open them where they are finished, or add what a greater `limit` allows.

    `job`: the folder of `ladm run` around the output, none of whose files is a source either. `use_rows`: the command
    that goes on with finished rows, for messages about documents that are gone; None: `ladm score`. `in_memory`:
    documents that the caller holds, whose names are among the sources. Raises LadmError for a source, tokenizer or
    output that cannot be used, and for a document without a domain.
    """
    output = Path(settings.output)
    require_documents(settings.sources)
    use_rows = use_rows or shlex.join(["ladm", "score", str(output), "--model", "MODEL", "-o", "run"])
    sources = _find_sources_again(settings, job or output, in_memory, echo, use_rows=use_rows)
    guard = SourceGuard(sources)
    tokenizer = load_tokenizer(settings.tokenizer, bos=settings.bos, threads=settings.num_proc)
    too_long = positions_warning(settings)
    # `ladm run` knows the model that scores, and refuses.
    if too_long is not None and job is None:
        echo(f"warning   {too_long}")
    identity = identity_of(settings, sources, tokenizer)
    finished = finished_rows(output, identity, tokenizer, use_rows=use_rows)
    if finished is not None and not may_grow(finished, settings.limit):
        return _prepared_already(finished, echo)
    # The record of what was started is in the work folder: a data set is ours as long as its preparation is unfinished.
    folder = OutputFolder(
        output, record=f"{WORK_FOLDER}/{STARTED}", leftovers=rf"{re.escape(WORK_FOLDER)}|{LOCK_FILES}"
    )
    if finished is None:
        folder.require_own_or_empty()
    else:
        echo(f"{output} has {count_of(finished.rows, 'row')}; adding to them")
    hint = require_keys(settings, sources)
    # `ladm run` knows whether its user gave a key.
    if job is None and (replaced := replaced_domains(settings, sources)) is not None:
        echo(f"warning   {replaced}")
    if job is None and hint is not None:
        echo(f"ids       {hint}")
    with locked(output):
        # The documents were looked at meanwhile, and another launch may have finished: its rows are not replaced.
        finished = finished_rows(output, identity, tokenizer, use_rows=use_rows)
        if finished is not None and not may_grow(finished, settings.limit):
            return _prepared_already(finished, echo)
        work = output / WORK_FOLDER
        start_or_resume(folder, work, identity, tokenizer, sources)
        bad_files = BadFiles(work / BAD_FILES, most=settings.max_bad_files, text_key=settings.text_key, echo=echo)
        sealed = seal_blocks(
            settings, sources, tokenizer, work, bad_files, guard, progress or NoPrepareProgress()
        )  # fmt: skip
        return _finish(
            settings, output, sealed, identity, bad_files=bad_files.messages, width=settings.length - tokenizer.bos,
            holds_documents=bool(in_memory),
        )  # fmt: skip


def _find_sources_again(
    settings: PrepareSettings, folder: Path, in_memory: Sequence[DocumentsInMemory], echo: Echo, *, use_rows: str
) -> list[Source]:
    """The sources, those of an earlier start among them; where they are gone, the error names what needs none."""
    output = Path(settings.output)
    had = started_with(output)
    try:
        if had is not None:
            held = {each.name for each in in_memory}
            require_sources((name for name in settings.sources if name not in held), before=names_of_sources(had))
        return _find_sources(settings, folder, in_memory, echo)
    except NoSourceError as error:
        if (output / PREPARED).is_file():
            error.args = (f"{error}; {without_documents(use_rows)}",)
        raise


def _find_sources(
    settings: PrepareSettings, output: Path, in_memory: Sequence[DocumentsInMemory], echo: Echo
) -> list[Source]:
    """The files and data sets that the sources name, none of them in `output`, and the documents in memory."""
    held = {
        each.name: Source(each.name, "memory", each.digest(text_key=settings.text_key), documents=each)
        for each in in_memory
    }
    return find_sources(
        list(settings.sources), output=output, config=settings.hub_config, split=settings.split, in_memory=held,
        echo=echo,
    )  # fmt: skip


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
    # Leftovers that could not be removed when it finished.
    if finished.all_read:
        shutil.rmtree(finished.folder / WORK_FOLDER, ignore_errors=True)
    echo(f"{finished.folder} is prepared already")
    return finished


def has_sealed_rows(output: Path) -> bool:
    """Is anything there that a preparation with other settings could not use?"""
    return (output / PREPARED).is_file() or any((output / WORK_FOLDER).glob("*.parquet"))


def _finish(
    settings: PrepareSettings,
    output: Path,
    sealed: SealedBlocks,
    identity: dict[str, Any],
    *,
    bad_files: dict[str, str],
    width: int,
    holds_documents: bool,
) -> PreparedRows:
    """Assemble the blocks into the data set, and write the record that makes it finished."""
    counts: Counter[str] = sum((Counter(of_block) for _, of_block in sealed.blocks), Counter())
    blocks = [block for block, _ in sealed.blocks]
    found = sum(int(block.is_kept.sum()) for block in blocks)
    rows = found if settings.limit is None else min(found, settings.limit)
    if rows == 0:
        if counts or not bad_files:
            # Blocks without a row must not tie the folder to the --length with which no document was long enough.
            shutil.rmtree(output / WORK_FOLDER, ignore_errors=True)
        raise _no_row(settings, counts, bad_files, holds_documents=holds_documents)
    last = None
    if not sealed.all_read:
        # Documents are read in blocks, and so behind the last row too: a greater limit counts and lists those.
        last = last_document(blocks, rows=rows)
        counts -= Counter(sealed.blocks[-1][1])
        counts += Counter(counts_to_limit(blocks[-1], rows=rows, last=last))
    with io_errors(output, "write"):
        # First: until the new record is written, a folder whose data set is being replaced is not finished.
        (output / PREPARED).unlink(missing_ok=True)
        sync_folder(output)
    assemble(output, blocks, rows=rows, windows=settings.most_windows != 1)
    write_dropped(output, blocks, bad_files, rows=rows, last=last)
    prepared = PreparedRows(
        folder=output,
        rows=rows,
        counts=counts,
        tokens=count_tokens(blocks, rows=rows, width=width),
        bad_files=bad_files,
        copies=count_copies(blocks, rows=rows),
        repeated_ids=find_repeated_ids(blocks, rows=rows),
        domains=count_domains(blocks, rows=rows),
        all_read=sealed.all_read,
    )
    record = record_of(prepared, identity)
    # The record last: it is what makes the folder finished, whenever a stop comes.
    with io_errors(output, "write"):
        write_whole(output / PREPARED, [json_with_checksum(record)])
        # Blocks of a part of the corpus are what a greater --limit goes on from.
        leftover = output / WORK_FOLDER / "cache" if not sealed.all_read else output / WORK_FOLDER
        shutil.rmtree(leftover, ignore_errors=True)
    return prepared


def _no_row(
    settings: PrepareSettings, counts: Counter[str], bad_files: dict[str, str], *, holds_documents: bool
) -> LadmError:
    """The error for documents none of which became a row."""
    if bad_files and not counts:
        # Each file had a warning with its reason: one line says how to go on, and not ten.
        others = f"; {count_of(len(bad_files) - 1, 'other file')} cannot be read either" if len(bad_files) > 1 else ""
        return StorageError(next(iter(bad_files.values())) + others)
    remedy = "; give a smaller --length" if counts["too_short"] or counts["low_count"] else ""
    if counts["not_json"] and holds_documents:
        remedy = f"; an item that is not a dictionary counts as not_json: {FORMS}"
    return LadmError(f"no document has {settings.length:,} tokens: {describe_counts(counts)}{remedy}")
