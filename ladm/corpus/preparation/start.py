"""The folder of rows -> started, or compared with what it was started with. Imports no torch."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ladm.corpus.documents.sources import Source
from ladm.corpus.files.names import name_as_text
from ladm.corpus.files.other_stages import WORK_FOLDER
from ladm.corpus.preparation.identity import require_same_preparation, with_present_tokenizer_name
from ladm.corpus.preparation.tokenization import Tokenizer
from ladm.corpus.rows.identity import PREPARED
from ladm.errors import LadmError
from ladm.settings.common import NO_DOMAINS
from ladm.storage.files import io_errors, remove_all_abandoned, write_whole
from ladm.storage.json_object import json_with_checksum, read_json_object
from ladm.storage.output_folder import OutputFolder

STARTED = "asked.json"
"""What the rows were started with, in the work folder."""
_SPELLING = "sources.json"
"""How the sources were named, in the work folder."""


def start_or_resume(
    folder: OutputFolder, work: Path, identity: dict[str, Any], tokenizer: Tokenizer, sources: list[Source]
) -> None:
    """Record what the rows are made with, or compare it with what an earlier start recorded.

    A folder without a sealed block is not tied to any settings. Files that killed launches left half written are
    removed. Raises LadmError for settings that do not fit sealed blocks.
    """
    remove_all_abandoned(work)
    if folder.is_started:
        if any(work.glob("*.parquet")):
            had = with_present_tokenizer_name(folder.started_with(), tokenizer)
            # A longer or shorter prefix of the same rows.
            require_same_preparation(folder.path, with_free_settings(had, identity), identity)
            _require_same_spelling(folder.path, work / _SPELLING, sources)
            with io_errors(folder.record, "write"):
                write_whole(folder.record, [json_with_checksum(identity)])
            return
        with io_errors(work, "write in"):
            shutil.rmtree(work)
    folder.start(identity)
    _store_spelling(work / _SPELLING, sources)


def with_free_settings(had: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The record that rows were started with, with the present settings where those change no row.

    A domain for documents without one changes no row that was made while such a document was an error, nor do further
    keys that a domain is looked for under.
    """
    free = {"limit"}
    if had.get("domain") is None and had.get("domain_key") != NO_DOMAINS:
        free |= {"domain", "domain_keys"}
    had = had | {name: now[name] for name in free if name in now}
    # Of another --domain-key alone, which is a difference of its own.
    if "domain_keys" in free and "domain_keys" not in now:
        had.pop("domain_keys", None)
    return had


def started_with(output: Path) -> dict[str, Any] | None:
    """What the rows that are there were started with, finished or not; None where nothing ties the folder to it.

    Raises StorageError for a damaged record.
    """
    work = output / WORK_FOLDER
    if (output / PREPARED).is_file():
        had = ({"asked": None} | read_json_object(output / PREPARED))["asked"]
    elif (work / STARTED).is_file() and any(work.glob("*.parquet")):
        had = read_json_object(work / STARTED)
    else:
        return None
    # What is no record at all is refused where it is compared.
    return had if isinstance(had, dict) else None


def _store_spelling(path: Path, sources: list[Source]) -> None:
    """Record how the sources are spelled, and in which folder."""
    try:
        here = name_as_text(os.getcwd())
    except OSError:
        # Full paths stay valid in a working folder that was removed.
        here = "unknown"
    content = {"folder": here, "names": [name_as_text(source.name) for source in sources]}
    with io_errors(path, "write"):
        write_whole(path, [json_with_checksum(content)])


def _require_same_spelling(output: Path, path: Path, sources: list[Source]) -> None:
    """Raise LadmError where the same sources were spelled in another way at the start.

    The rows repeat the name that was given, so that a relative one would not be the same in another working folder.
    """
    had = read_json_object(path)
    for before, source in zip(had["names"], sources, strict=True):
        now = name_as_text(source.name)
        if before != now:
            raise LadmError(
                f"{output} was started in the folder {had['folder']} with {before}, which its rows repeat; now it is "
                f"{now}: run the original command again in that folder"
            )
