"""Rows that `ladm prepare` finished, and the record of them. Imports no torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from operator import index
from pathlib import Path
from typing import Any

from ladm.corpus.preparation.domain_counts import DomainCounts
from ladm.corpus.preparation.dropped import DROPPED_FILE
from ladm.corpus.preparation.duplicates import TokenCounts
from ladm.corpus.preparation.identity import require_same_preparation, with_present_tokenizer_name
from ladm.corpus.preparation.repeated_ids import RepeatedIds
from ladm.corpus.preparation.start import with_free_settings
from ladm.corpus.preparation.tokenization import Tokenizer
from ladm.corpus.rows.identity import PREPARED, PREPARED_COLUMNS, PREPARED_DIGEST
from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError, count_of
from ladm.storage.json_object import damaged_file, read_json_object


@dataclass(frozen=True, kw_only=True)
class PreparedRows:
    """A folder of rows; it can be given to whatever takes a path."""

    folder: Path
    rows: int
    counts: Counter[str]
    """Documents by what became of them: `kept`, or the reason for the drop. With --limit up to that of the last row."""
    tokens: TokenCounts | None = None
    """None for rows of a version that did not count them."""
    bad_files: dict[str, str] = field(default_factory=dict)
    """Files that were left out, because they cannot be read to their end, each with its message."""
    copies: int = 0
    """Short rows with the ids of an earlier row, which are kept here and left out by `ladm select`."""
    repeated_ids: RepeatedIds | None = None
    """None where no two documents with rows have the same id."""
    domains: DomainCounts | None = None
    """None for rows of a version that did not count them."""
    all_read: bool = True
    """False where --limit stopped before the end of the sources: a greater one adds rows."""

    @property
    def dropped_file(self) -> Path | None:
        """The list of the dropped documents and files, JSON lines; None for rows of a version that wrote none."""
        path = self.folder / DROPPED_FILE
        return path if path.is_file() else None

    def __fspath__(self) -> str:
        return str(self.folder)


def finished_rows(
    output: Path, identity: dict[str, Any], tokenizer: Tokenizer, *, use_rows: str
) -> PreparedRows | None:
    """The rows that are there. Raises LadmError where they were made with something else, or are more than wanted.

    `use_rows`: the command that goes on with them where only their documents are others now.
    """
    path = output / PREPARED
    if not path.is_file():
        return None
    record = read_json_object(path)
    try:
        record |= {"asked": with_present_tokenizer_name(record["asked"], tokenizer)}
        return _opened(output, record, identity, use_rows=use_rows)
    except (KeyError, TypeError, AttributeError):
        raise damaged_file(path, "it does not describe prepared rows") from None


def _opened(output: Path, record: dict[str, Any], identity: dict[str, Any], *, use_rows: str) -> PreparedRows:
    """The rows that a record describes. Raises as `finished_rows`."""
    had, limit = record["asked"], identity["limit"]
    require_same_preparation(output, with_free_settings(had, identity), identity, use_rows=use_rows)
    if limit is not None and limit < record["rows"]:
        raise LadmError(
            f"{output} has {count_of(record['rows'], 'row')} already, more than --limit {limit:,}; give another "
            f"--output, or score the first of them: ladm score {output} --model MODEL --limit {limit} -o run"
        )
    tokens = record.get("tokens")
    return PreparedRows(
        folder=output,
        rows=record["rows"],
        counts=Counter(record["counts"]),
        tokens=tokens and TokenCounts(read=tokens["read"], kept=tokens["kept"]),
        bad_files=record.get("bad_files", {}),
        copies=record.get("copies", 0),
        repeated_ids=_repeated_ids(record.get("repeated_ids")),
        domains=_domains(record.get("domains")),
        all_read=record.get("all_read", had["limit"] is None),
    )


def _repeated_ids(found: dict[str, Any] | None) -> RepeatedIds | None:
    return None if found is None else RepeatedIds(**found | {"sources": tuple(found["sources"])})


def _domains(found: dict[str, Any] | None) -> DomainCounts | None:
    if found is None:
        return None
    return DomainCounts(
        number=index(found["number"]), largest={name: index(rows) for name, rows in found["largest"].items()}
    )


def record_of(prepared: PreparedRows, identity: dict[str, Any]) -> dict[str, Any]:
    """The content of `prepare.json`. Reads all rows for their digests."""
    written = open_rows(prepared)
    return {
        "asked": identity,
        "rows": prepared.rows,
        "counts": dict(prepared.counts),
        "tokens": prepared.tokens and prepared.tokens.as_json(),
        "bad_files": prepared.bad_files,
        "copies": prepared.copies,
        "repeated_ids": prepared.repeated_ids and asdict(prepared.repeated_ids),
        "domains": prepared.domains and asdict(prepared.domains),
        "all_read": prepared.all_read,
        # A bit of the data set that flips later would give a wrong score, or a wrong text, and no error.
        PREPARED_DIGEST: written.identity()["xxh3_128"],
        PREPARED_COLUMNS: written.columns_digest(),
    }


def may_grow(finished: PreparedRows, limit: int | None) -> bool:
    """May there be rows beyond those that are finished, within the limit?"""
    return not finished.all_read and (limit is None or limit > finished.rows)
