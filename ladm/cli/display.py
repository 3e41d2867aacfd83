"""Results -> the lines and tables that a person reads on standard output."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ladm.errors import count_of, duration, printable, three_digits

if TYPE_CHECKING:
    from ladm.explain.explainer import ScoredDocument
    from ladm.explain.inspected_document import InspectedDocument, SpanText
    from ladm.selection.manifest import Manifest


TEXT_CHARACTERS = 80
"""Of the beginning of a text in a table that is not for a terminal."""
LEAST_COLUMNS = 20
"""Of the beginning of a text on a narrow terminal."""
MOST_DOMAINS = 12
"""Named in the line of a guard."""
_PAIRS_SHOWN = 3
"""Of an inspected document."""


def status_report(found: Any) -> Iterator[str]:
    """The lines of a run's status."""
    yield f"{'finished' if found.finished else 'unfinished'}: {found.done:,} of {count_of(found.rows, 'row')}"
    if found.partial is not None:
        yield f"warning: {found.partial}"
    if not found.finished:
        yield f"running: {_running(found)}"
    yield f"units: {found.sealed:,} of {found.units:,} sealed"
    for kind, count in sorted(found.errors.items()):
        yield f"  {kind}: {count:,}"
    # There is no rate before the first batch is stored, and any guess at the time left would be wrong.
    if not found.finished and found.rows_a_second:
        left = found.seconds_left
        yield f"rate: {three_digits(found.rows_a_second)} rows/s recently, {duration(left)} left at that rate"
    for unit, who in sorted(found.held.items()):
        yield f"unit {unit}: {who}"


def preparation_report(found: Any) -> Iterator[str]:
    """The lines of the status of a preparation."""
    documents, rows = count_of(found.documents, "document"), count_of(found.rows, "row")
    if found.finished:
        yield f"finished: {rows} of {documents}"
    elif found.prepared:
        yield f"prepared: {rows} of {documents}; nothing is scored yet"
    else:
        yield f"preparing: {documents} read, {rows} stored so far (duplicates are dropped at the end)"
    if not found.finished or found.running:
        yield f"running: {_running(found)}"


def _running(found: Any) -> str:
    """Whether a launch is at work, and since when nothing has come of it."""
    age = "" if found.seconds_since_rows is None else f", latest rows {duration(found.seconds_since_rows)} ago"
    if found.running:
        return f"yes{f', {found.who}' if found.who else ''}{age}"
    if found.running is None:
        return f"unknown, perhaps on another machine{age}"
    return f"no{age}; to continue, rerun the command that started it"


def selection_table(manifest: Manifest, *, others: str | None = None) -> Iterator[str]:
    """The lines of a manifest's table, a domain a line; then what could not be selected, and why.

    `others`: how rows that were not scored are added.
    """
    names = [*manifest.domains, "total"]
    # Names come from the data, so the column is as wide as the longest of them, but never more than 40 characters.
    width = max(text_width(plain(name)) for name in names)
    unit = "tokens" if manifest.budget_documents is None else "documents"
    lowest_of = "score" if manifest.by == "score" else "value"
    yield (
        f"{'domain':<{width}} {'pool':>9} {'taken':>9} {f'quota {unit}':>15} {'taken tokens':>14} "
        f"{f'lowest {lowest_of}':>13}"
    )
    for name, domain in manifest.domains.items():
        quota = domain.quota_tokens if manifest.budget_documents is None else domain.quota_documents
        lowest = "-" if domain.lowest_score_taken is None else f"{domain.lowest_score_taken:.6g}"
        yield (
            f"{padded(plain(name), width)} {domain.pool_documents:>9,} {domain.taken_documents:>9,} "
            f"{_count(quota):>15} {domain.taken_tokens:>14,} {lowest:>13}"
        )
    budget = manifest.budget_tokens if manifest.budget_documents is None else manifest.budget_documents
    yield (
        f"{'total':<{width}} {manifest.pool_documents:>9,} {manifest.taken_documents:>9,} "
        f"{_count(budget):>15} {manifest.taken_tokens:>14,}"
    )
    yield from _left_out_lines(manifest)
    if manifest.by != "score":
        yield f"ranked by: {manifest.by}"
    for name, file in manifest.joined_files.items():
        yield printable(file.text(name))
    if manifest.sample is not None:
        yield f"drawn by chance: temperature {manifest.sample['temperature']:g}, seed {manifest.sample['seed']}"
    if manifest.percent is not None:
        yield f"the best {manifest.percent} % of every domain"
    if manifest.partial is not None:
        yield f"warning: {manifest.partial}{'' if others is None else f'; {others}'}"


def _left_out_lines(manifest: Manifest) -> Iterator[str]:
    """What could not be selected, and why, in the order in which it was left out."""
    if manifest.without_score:
        reasons = ", ".join(f"{kind} {count:,}" for kind, count in manifest.without_score.items())
        yield f"not selectable without a score: {sum(manifest.without_score.values()):,} ({reasons})"
    if manifest.excluded_domains:
        excluded = ", ".join(f"{plain(name)} {count:,}" for name, count in manifest.excluded_domains.items())
        yield f"left out by --exclude-domain: {excluded}"
    yield from _id_list_lines(manifest)
    if manifest.without_value:
        yield f"not selectable without a value of {manifest.by}: {manifest.without_value:,}"
    if manifest.copies:
        yield f"left out as copies of another row: {manifest.copies:,}"
    yield from _guard_table(manifest)
    if manifest.repeating_windows:
        yield f"left out as windows that mostly repeat a better one of their document: {manifest.repeating_windows:,}"
    if manifest.beyond_max_per_document:
        limit, count = manifest.max_per_document, manifest.beyond_max_per_document
        yield f"left out by --max-per-document {limit}: {count:,}, of documents with more rows than that"
    for cap in manifest.max_per:
        unlimited = f"; {cap.without_value:,} without a value are not limited" if cap.without_value else ""
        given = f"{plain(cap.column)}:{cap.most}"
        yield f"left out by --max-per {given}: {cap.left_out:,}, of values with more rows than that{unlimited}"
    if manifest.domains_left_out:
        yield f"left out by weight 0: {', '.join(map(plain, manifest.domains_left_out))}"


def _guard_table(manifest: Manifest) -> Iterator[str]:
    """What each guard dropped, by domain; the domains of which one dropped nothing are left out."""
    # Imported here, because a command that selects nothing needs no NumPy.
    from ladm.selection.guarding import forgotten_percent

    for guard in manifest.guards:
        total = sum(guard.dropped.values())
        by_domain = _by_domain(guard.dropped)
        where = f" ({by_domain})" if by_domain else forgotten_percent(guard)
        yield f"dropped by --within {guard.given}: {total:,}, keeping {guard.limits_text}{where}"
        if guard.without_value:
            yield f"dropped without a value of {guard.column}: {guard.without_value:,}"


def _by_domain(dropped: Mapping[str, int]) -> str:
    """Counts by domain; of more than MOST_DOMAINS domains the largest counts. The manifest has all."""
    shown = list(dropped.items())
    if len(shown) > MOST_DOMAINS:
        shown = sorted(shown, key=lambda item: -item[1])[:MOST_DOMAINS]
    text = ", ".join(f"{plain(name)} {count:,}" for name, count in shown)
    return text if len(shown) == len(dropped) else f"{text}, and {len(dropped) - len(shown):,} domains more"


def _id_list_lines(manifest: Manifest) -> Iterator[str]:
    """What each list of ids excluded or kept."""
    for each in manifest.id_lists:
        yield printable(each.text)
    if manifest.outside_only_ids:
        yield f"left out because no --only-ids has their id: {manifest.outside_only_ids:,}"


def inspected_lines(document: InspectedDocument, name: str) -> Iterator[str]:
    """An inspected document and its strongest pairs, the later span of each above the earlier one."""
    yield f"{cut_name(name)} (row {document.position}): score {document.score:.6g}, of which"
    for pair in document.pairs[:_PAIRS_SHOWN]:
        yield f"{100 * document.share(pair):>6.1f} %  {_beginning(pair.later)}"
        yield f"{'from':>8}  {_beginning(pair.earlier)}"


def _beginning(span: SpanText) -> str:
    """Where a span starts, and its text, continued where it is short."""
    text = " ".join(f"{span.text}{span.after}".split())
    return f"token {span.first_token:>6,}  {plain(text, most=80)}".rstrip()


def inspected_summary(document: InspectedDocument, scored: ScoredDocument) -> dict[str, Any]:
    """The same for a program, with the whole texts of the spans."""
    pairs = [
        {
            "share": document.share(pair),
            "later": {"first_token": pair.later.first_token, "text": pair.later.text},
            "earlier": {"first_token": pair.earlier.first_token, "text": pair.earlier.text},
        }
        for pair in document.pairs[:_PAIRS_SHOWN]
    ]
    names = {"id": scored.id, "name": scored.name}
    return names | {"position": document.position, "score": document.score, "pairs": pairs}


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def plain(name: str, *, most: int = 40) -> str:
    """A text from the data as one line of at most `most` printable characters."""
    # Control characters could rewrite what is on the terminal, and a right-to-left mark the order of the table.
    text = printable(name.replace("\t", " "))
    return text if len(text) <= most else text[: most - 1] + "…"


def cut_name(name: str, *, most: int = 40) -> str:
    """A document's name as `plain` text, cut in its middle: paths differ at their ends, where a window's number is."""
    text = plain(name, most=len(name))
    head = (most - 1) // 2
    return text if len(text) <= most else f"{text[:head]}…{text[head + 1 - most :]}"


def text_width(text: str) -> int:
    """The columns of a terminal that a text takes: two for each letter of Chinese or Japanese, none for an accent."""
    # Mn and Me: marks above and below letters, such as accents, and vowels of Thai or Hindi.
    marks = ("Mn", "Me")
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text if unicodedata.category(c) not in marks)


def with_beginning(start: str, text: str) -> str:
    """A line of a table that ends with the beginning of a text: as wide as the terminal, else with 80 characters."""
    shown = plain(text, most=TEXT_CHARACTERS)
    if sys.stdout.isatty():
        # A little of the text has to be seen on a narrow terminal too, where the line is then wrapped.
        columns = max(LEAST_COLUMNS, shutil.get_terminal_size().columns - text_width(start))
        shown = plain(text, most=columns)
        # Letters of two columns.
        while text_width(shown) > columns:
            shown = plain(text, most=len(shown) - 1)
    return f"{start}{shown}".rstrip()


def padded(text: str, width: int) -> str:
    """The text, filled with spaces to that many columns; f-strings count letters."""
    return text + " " * (width - text_width(text))
