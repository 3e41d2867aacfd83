"""A finished run, and what `ladm inspect` left beside it -> one HTML page that needs no network. Imports no torch.

Whatever comes from the data is text: the template escapes all of it, and the page forbids scripts and anything remote.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

from ladm import __version__
from ladm.errors import LadmError
from ladm.progress import Echo
from ladm.report.charts import scale
from ladm.report.inspected import as_shown, read_inspected
from ladm.report.overview import (
    BEST,
    MOST_DOMAINS,
    MOST_DOTS,
    NO_DOMAIN,
    WORST,
    domain_rows,
    layer_shares,
    sweep_scores,
)
from ladm.runs.folder import PAGE_MARK, REPORT_FILE, Run
from ladm.runs.results import ERRORS_FILE, require_finished, summarise
from ladm.selection.manifest import Manifest, read_manifest
from ladm.settings.layers import spell_layers
from ladm.settings.runs import ReportSettings
from ladm.storage.files import require_place, write_whole

STRIP_WIDTH = 440
_BLANK_LINES = re.compile(r"\n\s*\n")
_CONTROL = {k: " " for k in (*range(32), *range(127, 160)) if k not in (9, 10)}
_DIRECTION = dict.fromkeys((*range(0x202A, 0x202F), *range(0x2066, 0x206A)), None)
"""Characters that turn the direction of all the text behind them."""


def write_report(settings: ReportSettings, *, echo: Echo) -> Path:
    """Write the page about a run; returns its path.

    Raises LadmError for an unfinished run, a subset of another run, and files that cannot be read.
    """
    run = Run.read(Path(settings.run))
    require_finished(run)
    output = Path(settings.output) if settings.output else run.folder / REPORT_FILE
    require_place(output, mark=PAGE_MARK)
    summary = summarise(run)
    if summary.scores is None:
        raise LadmError(f"{run.folder}: no document has a score; its errors.jsonl says why")
    manifest = None if settings.subset is None else _manifest(settings, run)
    documents = read_inspected(run)
    sweep = sweep_scores(run, settings.domain_key, set(documents), scored=summary.scored)
    if set(sweep.domains) == {NO_DOMAIN}:
        echo(f"warning   no document has {settings.domain_key}, so there is one domain; --domain-key says where it is")
    best, _, worst = summary.scores
    line = scale([best, worst], STRIP_WIDTH)
    from markupsafe import Markup

    template = _environment().get_template("report.html")
    page: str = template.render(
        version=__version__,
        run=run.identity.content,
        mark=Markup(PAGE_MARK),
        folder=str(run.folder),
        commands=_commands(settings),
        how=_how(run),
        meaning=_meaning(run),
        is_mean=run.identity.reduction.how == "mean",
        summary=summary,
        errors=_errors(run) if summary.failed else {},
        domains=domain_rows(sweep, line, manifest),
        domains_left_out=max(0, len(sweep.domains) - MOST_DOMAINS),
        most_dots=MOST_DOTS,
        line=line,
        manifest=manifest,
        best=[row for row in sweep.rows.values() if row["rank"] <= BEST],
        worst=[row for row in sweep.rows.values() if row["rank"] > max(BEST, summary.scored - WORST)],
        layers=layer_shares(run, sweep.cds),
        documents=as_shown(documents, sweep, run),
        inspected=len(documents),
    )
    write_whole(output, [page.encode(errors="replace")])
    return output


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("ladm", "report/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": lambda x: f"{x:,}", "short": lambda x: f"{x:.4g}", "clean": clean, "tight": tight}
    made.filters["percent"] = lambda x: f"{100 * x:.0f} %" if x >= 0.095 else f"{100 * x:.2g} %"
    return made


def clean(value: Any, most: int = 160) -> str:
    """Text for people: nothing that controls, no more than so many characters."""
    text = str(value).translate(_CONTROL | _DIRECTION)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def tight(value: str, most: int) -> str:
    """Text without runs of blank lines."""
    return clean(_BLANK_LINES.sub("\n", value), most)


def _manifest(settings: ReportSettings, run: Run) -> Manifest:
    """What was selected. Raises LadmError where there is none, or where it was selected from another run."""
    manifest = read_manifest(Path(settings.subset or ""))
    if any(manifest.run.get(name) != value for name, value in run.identity.for_manifest().items()):
        raise LadmError(f"{settings.subset} was not selected from {run.folder}")
    if manifest.domain_key != settings.domain_key:
        raise LadmError(
            f"{settings.subset} was selected by {manifest.domain_key}; give --domain-key {manifest.domain_key}"
        )
    return manifest


def _how(run: Run) -> list[tuple[str, str]]:
    """How the run was scored, for people."""
    method, score, form = run.identity.method, run.identity.reduction, run.identity.score_form
    parts = f"layers {spell_layers(score.layers)}"
    if score.heads:
        parts = f"{len(score.heads)} heads of {parts}"
    if score.weights:
        parts = f"{parts}, weighted"
    used, n0 = run.identity.backend, "as released" if method.n0 is None else method.n0
    return [
        ("score", f"{score.how} over {parts}" + ("" if form == "none" else f", {form}")),
        ("method", f"{method.variant}, spans of {method.span_tokens} tokens, m {method.m}, n {method.n}, n0 {n0}, "
                   f"d_afs {method.d_afs}, d_cds {method.d_cds}"),
        ("model", f"{Path(run.identity.model_name).name}: {run.identity.model['type']}"),
        ("rows", run.identity.rows_name),
        ("computed", f"on {used['device']} in {run.identity.dtype}, attention {used['attention']}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in run.identity.versions.items())),
    ]  # fmt: skip


def _commands(settings: ReportSettings) -> list[str]:
    """What to type for a page that says why, from whatever folder."""
    run = str(Path(settings.run).absolute())
    report = ["ladm", "report", run]
    for name in ("subset", "output"):
        value = getattr(settings, name)
        report += [] if value is None else [f"--{name}", str(Path(value).absolute())]
    if settings.domain_key != ReportSettings.domain_key:
        report += ["--domain-key", settings.domain_key]
    return [shlex.join(["ladm", "inspect", run]), shlex.join(report)]


def _meaning(run: Run) -> str:
    """What a score adds up, in words."""
    by_place = ", times how far apart they are and how late the later one comes"
    uneven = ", times how unevenly it attends to earlier ones"
    return {"none": by_place + uneven, "no-std": by_place, "no-length": uneven}[run.identity.score_form]


def _errors(run: Run) -> dict[str, dict[str, Any]]:
    """Rows without a score: how many of each kind, and what was said of the first."""
    kinds: dict[str, dict[str, Any]] = {}
    with (run.folder / ERRORS_FILE).open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            kind = kinds.setdefault(record["error_type"], {"count": 0, "first": record})
            kind["count"] += 1
    return dict(sorted(kinds.items(), key=lambda item: -item[1]["count"]))
