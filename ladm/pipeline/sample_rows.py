"""Documents of a sample -> the rows that `ladm prepare` makes of them, counted by source."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ladm.corpus.documents.carried_columns import domain_keys_of, first_domain, parsed_meta
from ladm.corpus.files.meta import text_at, whole_text
from ladm.corpus.ids.readers import ID
from ladm.corpus.preparation.prepare import PreparedRows, prepare
from ladm.corpus.preparation.sealing import NoPrepareProgress
from ladm.corpus.preparation.tokenization import MOST_TOKENS_PER_BYTE
from ladm.corpus.rows.excluded_domains import domains_of
from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LackOfMemoryError, LadmError, StorageError, UsageError, count_of
from ladm.pipeline.document_sample import ALL_CHARACTERS, MOST_CHARACTERS, Sample
from ladm.pipeline.domain_keys import UNKNOWN, domain_flags, key_in_rows
from ladm.progress import silent
from ladm.selection.id_lists import IdList, match_ids
from ladm.selection.windows import WINDOWS_PER_DOCUMENT, read_windows
from ladm.settings.expressions import parse_expression
from ladm.settings.pipeline import prepare_settings

CHARACTERS_PER_TOKEN = 16
"""More than any text has: this many for each token of a row are enough to see whether a document makes a row."""


@dataclass(frozen=True, kw_only=True)
class SampleRows:
    """The rows of the documents that were looked at."""

    prepared: PreparedRows
    documents: dict[int, int]
    """How many documents and bad lines of each source were looked at, by the position of the source."""
    rows: dict[int, float]
    """Rows by source, those of a document of which only the beginning was read in proportion."""
    selectable: dict[int, float]
    """The same, with no more rows of a document than a subset may have, and none that is excluded."""
    most_per_document: int | None
    """Rows of a document that a subset may have; None: all of them."""
    bytes_per_row: float
    """On the disk."""
    seconds: dict[int, float]
    """What reading, tokenising and storing the documents takes, by source; of whole texts, where a part was read."""
    is_whole: bool
    """Was no text cut, and no document of the sample left out?"""
    without_domain: int
    """Documents without a domain, at the first of which the job stops; 0 where they get one."""


class _PrepareTimer(NoPrepareProgress):
    """The seconds from the first document to the last sealed block."""

    seconds = 0.0

    def start(self, **_: Any) -> None:
        """Documents begin to be read."""
        self._began = time.perf_counter()

    def advance(self, **_: Any) -> None:
        """A block is sealed."""
        self.seconds = time.perf_counter() - self._began


@dataclass(frozen=True, kw_only=True)
class _SampleDocument:
    """A document in the file that rows are made of."""

    source: int
    share: float
    """How much of its text is in the file."""
    characters: int
    """Of its text in the file."""


def rows_of_sample(job: Any, sample: Sample, *, work: Path, lists: list[IdList]) -> SampleRows:
    """Make rows of the sample in `work`. Raises LadmError where none of its documents makes a row."""
    file = work / "sample.jsonl"
    chosen = _thinned(sample, job.text_key)
    documents = Counter(sample.origins[k] for k in chosen)
    dropped: Counter[str] = Counter()
    for k, lines in sample.bad_lines.items():
        for reason, count in lines.items():
            documents[k] += round(count / chosen.step)
            dropped[reason] += round(count / chosen.step)
    written = _write(file, job, sample, chosen, dropped)
    key, domain = domain_flags(job.domain_key)
    # A document without a domain stops the job when it is reached, and is no reason not to estimate what it takes.
    whole = prepare_settings(job, rows=str(work / "rows"), length=job.length, domain_key=key, domain=domain or UNKNOWN)
    settings = replace(whole, sources=(str(file),), hub_config=None, split=None, limit=None)
    clock = _PrepareTimer()
    try:
        prepared = prepare(settings, echo=silent, progress=clock)
    except (StorageError, LackOfMemoryError, UsageError):
        raise
    except LadmError as error:
        raise LadmError(f"of {count_of(len(chosen), 'document')} looked at: {error}") from None
    counts = prepared.counts + dropped
    most = _most_per_document(job, windows=whole.most_windows)
    rows, selectable = _by_source(prepared, written, job, most=most, lists=lists)
    size = sum(path.stat().st_size for path in (prepared.folder / "train").rglob("*") if path.is_file())
    bad_files = {str(k): message for k, message in sample.bad_files.items()}
    # The lines of the sample's own file lead nowhere.
    repeated = prepared.repeated_ids and replace(prepared.repeated_ids, sources=())
    return SampleRows(
        prepared=replace(prepared, counts=counts, repeated_ids=repeated, bad_files=bad_files), documents=documents,
        rows=rows, selectable=selectable, most_per_document=most,
        seconds=_seconds(clock.seconds, written, length=job.length),
        bytes_per_row=size / prepared.rows, is_whole=chosen.step == 1 and all(each.share == 1 for each in written),
        without_domain=_without_domain(job, sample, chosen),
    )  # fmt: skip


def _thinned(sample: Sample, text_key: str) -> range:
    """The documents that are used: every k-th where all have too many characters to be tokenised for an estimate."""
    lengths = (len(text) for fields in sample.documents if isinstance(text := text_at(fields, text_key), str))
    characters = sum(min(length, MOST_CHARACTERS) for length in lengths)
    return range(0, len(sample.documents), max(1, math.ceil(characters / ALL_CHARACTERS)))


def _without_domain(job: Any, sample: Sample, chosen: range) -> int:
    """The documents with a text and no domain, where neither a flag nor the job gives them one."""
    key, other = domain_flags(job.domain_key)
    if other is not None or job.domain is not None:
        return 0
    keys, found = domain_keys_of(key), 0
    for k in chosen:
        fields, count = sample.documents[k], sample.counts[k]
        text = text_at(fields, job.text_key)
        # The others are dropped before their domain is looked for.
        if not isinstance(text, str) or text != whole_text(text) or (count is not None and count < job.length):
            continue
        with contextlib.suppress(RecursionError):
            found += first_domain(fields, parsed_meta(fields), keys)[0] is None
    return found


def _write(file: Path, job: Any, sample: Sample, chosen: range, dropped: Counter[str]) -> list[_SampleDocument]:
    """Write the chosen documents, a line each; those that are dropped beforehand are counted in `dropped`."""
    written = []
    most = max(MOST_CHARACTERS, CHARACTERS_PER_TOKEN * job.length)
    with file.open("w", encoding="ascii") as lines:
        for k in chosen:
            count = sample.counts[k]
            if count is not None and count < job.length:
                dropped["low_count"] += 1
                continue
            fields, share = sample.documents[k], 1.0
            text = text_at(fields, job.text_key)
            if isinstance(text, str) and len(text) > most:
                fields, share = fields | {job.text_key: text[:most]}, most / len(text)
            try:
                line = json.dumps(fields, default=_as_text)
            except RecursionError:
                dropped["too_deep"] += 1
                continue
            lines.write(f"{line}\n")
            characters = len(text[:most]) if isinstance(text, str) else 0
            written.append(_SampleDocument(source=sample.origins[k], share=share, characters=characters))
    return written


def _as_text(value: Any) -> str:
    """What JSON has no type for: texts of older Parquet, dates."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _most_per_document(job: Any, *, windows: int | None) -> int | None:
    """Rows of one document that a subset has at most; None: all of them."""
    if job.max_per_document is not None:
        return int(job.max_per_document)
    whole_documents = parse_expression(job.by).has_document_mean
    return None if windows == 1 or whole_documents else WINDOWS_PER_DOCUMENT


def _by_source(
    prepared: PreparedRows, written: list[_SampleDocument], job: Any, *, most: int | None, lists: list[IdList]
) -> tuple[dict[int, float], dict[int, float]]:
    """All rows, and those that may be selected, by source."""
    opened = open_rows(str(prepared.folder))
    numbers = list(_line_numbers(opened))
    by_document = Counter(numbers)
    # Overlapping windows are of one length, so that it does not matter which of two would be the better one.
    repeating = read_windows([opened]).repeating(np.arange(len(opened)), opened.lengths())
    repeated = Counter(number for number, is_repeating in zip(numbers, repeating, strict=True) if is_repeating)
    domains = domains_of(opened, key_in_rows(job.domain_key, are_made_here=True)) if job.exclude_domains else []
    excluded = {number for number, domain in zip(numbers, domains, strict=False) if domain in job.exclude_domains}
    excluded |= _outside_id_lists(opened, numbers, lists)
    rows: dict[int, float] = defaultdict(float)
    selectable: dict[int, float] = defaultdict(float)
    for number, count in by_document.items():
        document = written[number - 1]
        # Of more windows than one, the part of the text that was not read has as many as its length says.
        estimate = count / document.share if count > 1 else count
        rows[document.source] += estimate
        # All of them where whole documents are ranked.
        different = estimate if most is None else min(most, estimate - repeated[number])
        selectable[document.source] += 0 if number in excluded else different
    return rows, selectable


def _outside_id_lists(opened: Rows, numbers: list[int], lists: list[IdList]) -> set[int]:
    """The documents that lists of ids drop."""
    # Of rows without ids the whole job is refused, or documents that were not looked at have some.
    ids = match_ids(lists, [opened]) if ID in opened.column_names else None
    return set() if ids is None else set(np.array(numbers)[~ids.included_T].tolist())


def _seconds(measured: float, written: list[_SampleDocument], *, length: int) -> dict[int, float]:
    """The seconds by source, in proportion to the characters of the texts that are not too short to be tokenised."""
    long = [each for each in written if each.characters * MOST_TOKENS_PER_BYTE >= length]
    seconds: dict[int, float] = defaultdict(float)
    characters = sum(each.characters for each in long)
    for each in long:
        seconds[each.source] += measured * each.characters / each.share / characters
    return seconds


def _line_numbers(rows: Rows) -> Iterator[int]:
    """For each row the line, from 1, that its document is in the file."""
    for sources in rows.column_batches("source"):
        yield from (int(source.rpartition(" ")[2]) for source in sources)
