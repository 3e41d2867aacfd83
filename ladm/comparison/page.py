"""A comparison -> one HTML page that needs no network, in the look of `ladm report`. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from ladm.comparison.result import Comparison, Pair
from ladm.report.environment import page_environment
from ladm.report.overview import MOST_DOMAINS
from ladm.runs.columns.quartiles import largest_domains
from ladm.storage.files import write_whole
from ladm.version import __version__

PAGE_MARK = '<meta name="generator" content="ladm compare">'
"""What every page has near its beginning, by which it may be written again."""
TEMPLATES = "comparison/templates"


def write_page(comparison: Comparison, output: Path) -> Path:
    """Write the page; returns its path."""
    from markupsafe import Markup

    names = [column.name for column in comparison.columns]
    template = page_environment(TEMPLATES).get_template("compare.html")
    page = template.render(
        version=__version__,
        mark=Markup(PAGE_MARK),
        found=comparison,
        names=names,
        pairs={(pair.a, pair.b): pair for pair in comparison.pairs} | _mirrored(comparison.pairs),
        domains=largest_domains(comparison.domain_documents, MOST_DOMAINS),
    )
    write_whole(output, [page.encode(errors="replace")])
    return output


def _mirrored(pairs: list[Pair]) -> dict[tuple[str, str], Pair]:
    """Each pair by its names the other way round: all three numbers are the same in both directions."""
    return {(pair.b, pair.a): pair for pair in pairs}
