"""A finished run, and what `ladm inspect` wrote into it -> one HTML page that needs no network. Imports no torch.

Whatever comes from the data is text: the template escapes all of it, and the page forbids remote content and every
script but its own.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ladm.corpus.rows.fingerprint import absolute_name
from ladm.explain.inspected_document import InspectedDocument
from ladm.progress import Echo
from ladm.report.charts import scale
from ladm.report.domain_quartiles import QuartileTable, quartile_table, table_columns
from ladm.report.environment import page_environment
from ladm.report.explorer import Explorer, explorer_columns, read_explorer, script, script_hash
from ladm.report.layer_shares import layer_shares
from ladm.report.overview import MOST_DOMAINS, MOST_DOTS, RunOverview, domain_rows, read_overview
from ladm.report.ranking import PageRanking, read_ranking
from ladm.report.run_columns import further_columns, open_columns
from ladm.report.run_details import error_kinds, run_details, score_weighting
from ladm.report.sections import document_sections, read_all_inspected
from ladm.report.subset import ReportedSubset, read_subset
from ladm.runs.columns.by_name import SCORE, column_names
from ladm.runs.columns.joined_columns import JoinedColumns
from ladm.runs.columns.joined_files import joined_lines
from ladm.runs.columns.labels import NO_DOMAIN
from ladm.runs.folder import Run
from ladm.runs.layout import PAGE_MARK, REPORT_FILE
from ladm.runs.results import Summary, require_any_score, require_finished, summarise
from ladm.runs.rows_of_run import partial_coverage, rows_of_run
from ladm.selection.windows import default_windows_per_document
from ladm.settings.expressions import Expression
from ladm.settings.joins import split_name
from ladm.settings.runs import ReportSettings
from ladm.settings.signals import CDS
from ladm.storage.files import require_place, write_whole
from ladm.version import __version__

STRIP_WIDTH = 440


def write_report(settings: ReportSettings, *, echo: Echo) -> Path:
    """Write the page about a run; returns its path.

    Raises LadmError for an unfinished run, a subset of another run, and files that cannot be read.
    """
    run = Run.open(settings.run)
    require_finished(run)
    output = Path(settings.output) if settings.output else run.folder / REPORT_FILE
    require_place(output, mark=PAGE_MARK)
    require_any_score(run)
    summary = summarise(run)
    joined = JoinedColumns(run, rows=settings.rows, joins=settings.joins)
    ranking = read_ranking(joined, settings.ranking, summary)
    subset = None
    if settings.subset is not None:
        subset = read_subset(Path(settings.subset), run, domain_key=settings.domain_key)
    # What explains scores has no place on a page that ranks by something else.
    documents = read_all_inspected(run) if ranking.is_cds else {}
    page = _render(settings, joined, ranking, summary, subset, documents, echo=echo)
    # Text cut from the middle of a character may hold half a surrogate pair, which UTF-8 cannot encode.
    write_whole(output, [page.encode(errors="replace")])
    return output


def _render(
    settings: ReportSettings,
    joined: JoinedColumns,
    ranking: PageRanking,
    summary: Summary,
    subset: ReportedSubset | None,
    documents: dict[int, InspectedDocument],
    *,
    echo: Echo,
) -> str:
    run = joined.run
    # As the subset has them, or a domain of the page would not be one that documents were taken of.
    domain = None if subset is None else subset.manifest.domain
    overview = read_overview(
        run, ranking, domain_key=settings.domain_key, domain=domain or NO_DOMAIN, inspected=set(documents),
        scored=summary.scored,
    )  # fmt: skip
    if set(overview.domains) == {NO_DOMAIN}:
        echo(f"warning   no document has {settings.domain_key}, so all are one domain; give --domain-key another key")
    quartiles, explorer = _read_columns(settings, joined, overview, subset, echo=echo)
    partial = partial_coverage(run, settings.rows)
    if partial is not None:
        echo(f"warning   {partial}")
    if explorer.without_text is not None:
        echo(f"note      there are no texts: {explorer.without_text}")
    # Where their texts could be read, the rows are there.
    windows_taken = (
        default_windows_per_document([rows_of_run(run, settings.rows)]) if explorer.without_text is None else None
    )
    context = _run_context(run, summary, overview, subset)
    context |= _explorer_context(explorer, arguments=_arguments(settings, domain))
    page: str = (
        page_environment()
        .get_template("report.html")
        .render(
            context,
            partial=partial,
            windows_taken=windows_taken,
            quartiles=quartiles,
            commands=_commands(settings),
            documents=document_sections(documents, overview, run),
            inspected=len(documents),
        )
    )
    return page


def _explorer_context(explorer: Explorer, *, arguments: str) -> dict[str, Any]:
    """What the template needs for the table of documents and its script."""
    from markupsafe import Markup

    return {
        # A constant of ours, and the only value that the template does not escape.
        "mark": Markup(PAGE_MARK),
        "explorer": explorer,
        # JSON without `<`, made for this place; and our own script, byte for byte what its hash is of.
        "explorer_data": Markup(explorer.as_script_data(arguments=arguments)),
        "script": Markup(script()),
        "script_hash": Markup(script_hash()),
        "texts": explorer.texts(),
    }


def _run_context(run: Run, summary: Summary, overview: RunOverview, subset: ReportedSubset | None) -> dict[str, Any]:
    """What the template needs of the run and of what was taken from it."""
    identity, ranking = run.identity, overview.ranking
    line = scale([ranking.range[0], ranking.range[-1]], STRIP_WIDTH)
    of_cds = {
        "weighting": score_weighting(identity),
        "uses_sigma": identity.score_form != "no-std",
        "is_mean": identity.reduction.how == "mean",
    } if ranking.is_cds else {}  # fmt: skip
    return of_cds | {
        "version": __version__,
        "folder": str(run.folder),
        "summary": summary,
        "ranking": ranking,
        "has_cds": CDS in identity.signals,
        "domains": domain_rows(overview, line, subset),
        "domains_left_out": max(0, len(overview.domains) - MOST_DOMAINS),
        "most_dots": MOST_DOTS,
        "line": line,
        "manifest": None if subset is None else subset.manifest,
        "subset_by": None if subset is None else ranking.name_of(subset.manifest.by),
        "is_cut": subset is not None and ranking.is_cut_by(subset.manifest),
        "taken": None if subset is None else subset.taken_T,
        "best": overview.best(),
        "worst": overview.worst(),
        "layers": layer_shares(run, overview.cds),
        "errors": error_kinds(run) if summary.failed else {},
        "details": run_details(identity),
    }


def _read_columns(
    settings: ReportSettings, joined: JoinedColumns, overview: RunOverview, subset: ReportedSubset | None, *, echo: Echo
) -> tuple[QuartileTable, Explorer]:
    """The medians and quartiles of the run's columns, and what the explorer shows of them and of further ones."""
    run, ranking = joined.run, overview.ranking
    known = column_names(run)
    explored = explorer_columns(known, ranking)
    # The score of a run without CDS is among them under its own name.
    shown = explored if ranking.score_name == SCORE else [*explored, SCORE]
    manifest = None if subset is None else subset.manifest
    requested = [settings.ranking, *settings.expressions]
    further = further_columns(requested, manifest, shown).readable(joined, echo)
    names = [*explored, *(each.text for each in further)]
    float32 = joined.float32(explored) | {
        each.text for each in further if each.is_column and joined.float32(each.names)
    }  # fmt: skip
    stored = list(dict.fromkeys([*explored, *table_columns(known, ranking)]))
    with open_columns(joined, stored, further, ranking, len(overview.positions)) as columns:
        for text in joined_lines(joined.files):
            echo(f"note      {text}")
        explorer = read_explorer(
            run, overview, subset, columns=columns, names=sorted(names, key=lambda name: name != ranking.by),
            float32=float32, flags={each.text: _by(each, settings.joins) for each in further}, rows=settings.rows,
        )  # fmt: skip
        return quartile_table(columns, overview), explorer


def _arguments(settings: ReportSettings, domain: str | None) -> str:
    """The run, its rows and its domains, in a command that works from any folder."""
    rows = [] if settings.rows is None else ["--rows", absolute_name(settings.rows)]
    key = [] if settings.domain_key == ReportSettings.domain_key else ["--domain-key", settings.domain_key]
    own = [] if domain is None else ["--domain", domain]
    return shlex.join([str(Path(settings.run).absolute()), *rows, *key, *own])


def _by(expression: Expression, joins: Mapping[str, str]) -> str:
    """What `--by` is given for an expression, with the runs that its columns are of."""
    used = dict.fromkeys(of for of, _ in map(split_name, expression.names) if of in joins)
    words = [expression.text, *(word for of in used for word in ("--join", f"{of}={Path(joins[of]).absolute()}"))]
    return shlex.join(words)


def _commands(settings: ReportSettings) -> list[str]:
    """The commands that explain scores and write this page again; they work from any folder."""
    # Absolute and quoted: they are copied from the page into a shell that may be anywhere.
    run = str(Path(settings.run).absolute())
    report = ["ladm", "report", run]
    for name in ("subset", "output"):
        value = getattr(settings, name)
        report += [] if value is None else [f"--{name}", str(Path(value).absolute())]
    report += [] if settings.rows is None else ["--rows", absolute_name(settings.rows)]
    report += [] if settings.columns is None else ["--columns", settings.columns]
    for name, place in settings.joins.items():
        report += ["--join", f"{name}={Path(place).absolute()}"]
    if settings.domain_key != ReportSettings.domain_key:
        report += ["--domain-key", settings.domain_key]
    return [shlex.join(["ladm", "inspect", run]), shlex.join(report)]
