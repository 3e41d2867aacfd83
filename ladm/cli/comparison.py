"""The commands that look at columns of a run: top, compare."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ladm.cli.display import cut_name, padded, plain, text_width, with_beginning
from ladm.cli.options import settings_command
from ladm.cli.terminal import configure_libraries, note, print_result
from ladm.errors import count_of
from ladm.settings.comparison import CompareSettings, TopSettings

if TYPE_CHECKING:
    from ladm.comparison.result import Comparison, DifferentDocument
    from ladm.comparison.top import TopList

MOST_DOMAINS, MOST_COLUMNS = 20, 4
"""Of the table of quartiles by domain, whose lines would otherwise be wider than a terminal."""
MOST_PAIRS = 20
"""Pairs of columns that nobody has chosen; of more, only those with the first column fit a screen."""


@settings_command(
    TopSettings,
    short_help="The best or worst documents, a line each",
    examples=(
        "ladm top run",
        "ladm top run -n 20 --worst --domain ArXiv",
        "ladm top run --by 'rank(gain)+rank(robust)'",
    ),
)
def top(settings: TopSettings) -> None:
    """List the documents of RUN with the highest scores: rank, score, domain, id and how the text begins."""
    configure_libraries()
    from ladm.comparison.top import top_documents

    found = top_documents(settings)
    if found.note is not None:
        note(f"note      {found.note}")
    if found.partial is not None:
        note(f"warning   {found.partial}")
    for line in found.joined:
        note(f"note      {line}")
    print_result(_top_table(found), found.as_json)


def _top_table(found: TopList) -> Iterator[str]:
    domains = [plain(document.domain) for document in found.documents]
    ids = [cut_name(document.name) for document in found.documents]
    by = "score" if found.by == "score" else "value"
    domain_width, id_width = (
        max(map(text_width, [title, *texts])) for title, texts in (("domain", domains), ("id", ids))
    )
    yield f"{'rank':>8}  {by:>11}  {'domain':<{domain_width}}  {'id':<{id_width}}  beginning"
    for document, domain, name in zip(found.documents, domains, ids, strict=True):
        names = f"{padded(domain, domain_width)}  {padded(name, id_width)}"
        yield with_beginning(f"{document.rank:>8,}  {document.value:>11.5g}  {names}  ", document.beginning)


@settings_command(
    CompareSettings,
    short_help="How columns of a run, or of two, agree",
    examples=(
        "ladm compare run --columns robust,gain,gzip_ratio",
        "ladm compare run run2 --columns score -o compare.html",
        "ladm compare run --rows rows --kinds kind --cluster package",
    ),
)
def compare(settings: CompareSettings) -> None:
    """Compare columns of RUN, or of two RUNs of the same rows.

    Rank correlations overall and inside domains, the overlap of the best rows by each, and the documents that the first
    two columns rank most differently. With --kinds, how well each column separates intact documents from others.
    """
    configure_libraries()
    from ladm.comparison.compare import compare as run_compare
    from ladm.comparison.page import PAGE_MARK, write_page
    from ladm.storage.files import require_place

    require_place(settings.output, mark=PAGE_MARK)
    found = run_compare(settings)
    if found.note is not None:
        note(f"note      {found.note}")
    for line in found.partial:
        note(f"warning   {line}")
    for line in found.joined:
        note(f"note      {line}")
    page = None if settings.output is None else str(write_page(found, Path(settings.output)))
    is_short = settings.columns is None and not settings.all_pairs
    lines = chain(_compare_lines(found, is_short=is_short), [] if page is None else [f"page: {page}"])
    print_result(lines, lambda: _without_nan(asdict(found)) | {"page": page})


def _without_nan(value: Any) -> Any:
    """NaN as null, because JSON has no word for it."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _compare_lines(found: Comparison, *, is_short: bool) -> Iterator[str]:
    """The tables of a comparison; `is_short`: of many pairs only those with the first column."""
    width = max(len(plain(column.name)) for column in found.columns)
    yield f"{'column':<{width}} {'documents':>10} {'25 %':>11} {'median':>11} {'75 %':>11}"
    for column in found.columns:
        numbers = " ".join(f"{value:>11.5g}" for value in column.quartiles)
        yield f"{plain(column.name):<{width}} {column.documents:>10,} {numbers}"
    yield from _domain_lines(found)
    yield from _pair_lines(found, width, is_short=is_short)
    yield from _kind_lines(found, width)
    compared = [plain(column.name) for column in found.columns[:2]]
    both = zip(compared, compared[::-1], (found.higher_by_a, found.higher_by_b), strict=False)
    for higher, lower, documents in both:
        yield from _different_lines(higher, lower, compared, documents)


def _pair_lines(found: Comparison, width: int, *, is_short: bool) -> Iterator[str]:
    """The agreement of pairs of columns; all of them unless `is_short` and there are many."""
    pairs, first = found.pairs, found.columns[0].name
    if is_short and len(pairs) > MOST_PAIRS:
        pairs = [pair for pair in pairs if pair.a == first]
    if pairs:
        yield ""
        head = f"{'a':<{width}} {'b':<{width}}"
        overlap = f"overlap of the best {found.top_percent:g} %"
        yield f"{head} {'inside domains':>15} {'overall':>8} {overlap:>{len(overlap)}}"
    for pair in pairs:
        names = f"{plain(pair.a):<{width}} {plain(pair.b):<{width}}"
        overlap_text = f"{pair.overlap:.0%}" if not math.isnan(pair.overlap) else "-"
        yield f"{names} {_rho(pair.inside_domains):>15} {_rho(pair.spearman):>8} {overlap_text:>{len(overlap)}}"
    if left := len(found.pairs) - len(pairs):
        yield f"not shown: {count_of(left, 'pair')} without {plain(first)}; give --all-pairs, or choose with --columns"
    if found.correlated < found.documents:
        yield f"correlations on {found.correlated:,} of {found.documents:,} documents, evenly spaced"


def _domain_lines(found: Comparison) -> Iterator[str]:
    """Medians and quartiles by domain, which of a single domain are those of all documents."""
    from ladm.runs.columns.quartiles import largest_domains, quartiles_text

    if found.domains < 2:
        return
    columns, domains = found.columns[:MOST_COLUMNS], largest_domains(found.domain_documents, MOST_DOMAINS)
    yield ""
    yield f"median (first to third quartile) by domain, in the order of the median of {plain(columns[0].name)}"
    cells = [[quartiles_text(column.by_domain[name]) for name in domains] for column in columns]
    widths = [max(map(len, (plain(column.name), *texts))) for column, texts in zip(columns, cells, strict=True)]
    width = max(map(text_width, ("domain", *map(plain, domains))))
    titles = "".join(f"  {plain(column.name):>{w}}" for column, w in zip(columns, widths, strict=True))
    yield f"{'domain':<{width}} {'documents':>10}{titles}"
    for name, texts in zip(domains, zip(*cells, strict=True), strict=True):
        numbers = "".join(f"  {text:>{w}}" for text, w in zip(texts, widths, strict=True))
        yield f"{padded(plain(name), width)} {found.domain_documents[name]:>10,}{numbers}"
    if left := found.domains - len(domains):
        yield f"not shown: {left:,} smaller {'domain' if left == 1 else 'domains'}"
    if left := len(found.columns) - len(columns):
        yield f"not shown: {count_of(left, 'more column')}; choose with --columns, or write a page of all with -o FILE"


def _kind_lines(found: Comparison, width: int) -> Iterator[str]:
    if found.kinds is None:
        return
    kinds = found.kinds
    yield ""
    yield (
        f"AUC of {plain(kinds.intact)} ({kinds.intact_rows:,} rows) over each kind; 95 % intervals over "
        f"{kinds.clusters:,} clusters"
    )
    titles = [f"{plain(kind.kind)} ({kind.rows:,})" for kind in kinds.kinds]
    widths = [max(24, len(title)) for title in titles]
    yield f"{'column':<{width}}" + "".join(f" {title:>{w}}" for title, w in zip(titles, widths, strict=True))
    for column in found.columns:
        cells = [kind.by_column[column.name] for kind in kinds.kinds]
        texts = ["-" if cell is None else str(cell) for cell in cells]
        yield f"{plain(column.name):<{width}}" + "".join(f" {t:>{w}}" for t, w in zip(texts, widths, strict=True))


def _different_lines(higher: str, lower: str, names: list[str], documents: list[DifferentDocument]) -> Iterator[str]:
    """The documents that `higher` ranks above `lower`; `names`: of both columns, in the order of the comparison."""
    if not documents:
        return
    yield ""
    yield f"documents that {higher} ranks above {lower} (rank in the domain: 1 is the best, 0 the last)"
    texts = [(plain(document.domain), cut_name(document.name)) for document in documents]
    domain = max(len("domain"), *(text_width(text) for text, _ in texts))
    id_ = max(len("id"), *(text_width(text) for _, text in texts))
    a, b = (max(4, len(name)) for name in names)
    yield f"{names[0]:>{a}} {names[1]:>{b}}  {'domain':<{domain}}  {'id':<{id_}}  beginning"
    for document, (of_domain, of_id) in zip(documents, texts, strict=True):
        ranks = f"{document.rank_a:>{a}.2f} {document.rank_b:>{b}.2f}"
        yield with_beginning(f"{ranks}  {padded(of_domain, domain)}  {padded(of_id, id_)}  ", document.beginning)


def _rho(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
