"""Prepared rows -> the lines that say what became of the documents. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ladm.corpus.ids.files import shown_id
from ladm.corpus.preparation.blocks import REASONS
from ladm.corpus.preparation.prepare import PreparedRows
from ladm.corpus.preparation.repeated_ids import RepeatedIds
from ladm.errors import count_of
from ladm.settings.data import ALL_WINDOWS

DOMAINS_SHOWN = 10


def preparation_lines(prepared: PreparedRows, *, length: int, windows: str) -> Iterator[str]:
    """How many documents were kept, how many were dropped for which reason, and how many of their tokens are in rows.

    `length`: tokens of a row; `windows`: as `--windows`.
    """
    counts = prepared.counts
    yield _line("kept", counts.get("kept", 0), "document", f"of at least {count_of(length, 'token')}")
    if not prepared.all_read:
        yield _line(
            "limit",
            prepared.rows,
            "row",
            ": --limit stopped there; documents after the last row are not counted",
            gap="",
        )
    # In a fixed order, so that two reports can be compared line by line.
    for reason, meaning in REASONS.items():
        if counts.get(reason):
            yield _line(reason, counts[reason], "document", f"dropped: {meaning}")
    for message in prepared.bad_files.values():
        yield _line("bad_file", 1, "file", f"left out: {message}")
    tokens = prepared.tokens
    if tokens is not None:
        # Most of a book is beyond its first window, and nobody would look for it there.
        missing = "cut off; --windows all keeps them" if tokens.cut_off else "cut off"
        if tokens.cut_off and windows == ALL_WINDOWS:
            limit = "" if prepared.all_read else " or are beyond --limit"
            missing = f"in windows that repeat earlier rows{limit}"
        parts = f"{tokens.kept:,} in rows, {tokens.cut_off:,} {missing}"
        yield f"{'tokens':<10} {tokens.read:>12,}  in the documents that have rows: {parts}"
    if prepared.copies:
        yield _line(
            "copies", prepared.copies, "short row", "with the token ids of another: kept here, left out by select"
        )
    if prepared.repeated_ids is not None:
        yield _line("same_id", prepared.repeated_ids.documents, "document", repeated_ids_text(prepared.repeated_ids))
    dropped = sum(counts.get(reason, 0) for reason in REASONS)
    if prepared.dropped_file is not None and (dropped or prepared.bad_files):
        files = f" and {count_of(len(prepared.bad_files), 'file')}" if prepared.bad_files else ""
        yield _line("dropped", dropped, "document", f"{files}, listed in {prepared.dropped_file}", gap="")


def domain_lines(prepared: PreparedRows, *, length: int, other_domain: str | None) -> Iterator[str]:
    """The domains with most rows, which `ladm select` fills a budget from; nothing where there is only one.

    `length`: tokens of a row; `other_domain`: the domain of documents without one, as `--domain`.
    """
    found = prepared.domains
    if found is None or found.number < 2:
        return
    shown = dict(islice(found.largest.items(), DOMAINS_SHOWN))
    for name, rows in shown.items():
        flag = " (--domain)" if name == other_domain else ""
        yield _line("domain", rows, "row", f"{rows * length:,} tokens: {shown_id(name)}{flag}", gap=", ")
    if found.number > len(shown):
        others = prepared.rows - sum(shown.values())
        more = found.number - len(shown)
        yield _line("domains", others, "row", f"{others * length:,} tokens: {count_of(more, 'more domain')}", gap=", ")


def too_short_hint(prepared: PreparedRows, *, length: int, stored: bool, looked_at: int | None = None) -> str:
    """What to put behind the remedies for too few rows: how many documents are too short, and what keeps them.

    Empty where none is. `stored`: do the rows bind the length of their folder? `looked_at`: the size of the sample that
    was prepared; None for all documents.
    """
    short = prepared.counts.get("too_short", 0) + prepared.counts.get("low_count", 0)
    if not short:
        return ""
    documents = count_of(short, "document") if looked_at is None else f"{short:,} of {looked_at:,} documents looked at"
    have = "has" if short == 1 else "have"
    smaller = "a smaller length, with another --output," if stored else "a smaller length"
    return f"; {documents} {have} fewer tokens than --length {length:,}: {smaller} keeps more of them"


def repeated_ids_text(repeated: RepeatedIds) -> str:
    """What follows the number of documents with the id of an earlier one: an example, and what to do."""
    where = f" ({' and '.join(repeated.sources)})" if repeated.sources else ""
    return (
        f"with the id of an earlier one, such as {shown_id(repeated.id)}{where}: scores cannot be joined to them by "
        "id; use source, or give --id-key a key with unique values"
    )


def _line(label: str, number: int, unit: str, rest: str, *, gap: str = " ") -> str:
    """A number under a label, always with its unit: documents and rows stand side by side here."""
    unit = count_of(number, unit).partition(" ")[2]
    return f"{label:<10} {number:>12,}  {unit}{gap}{rest}"
