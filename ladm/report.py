"""A finished run, and what `ladm inspect` left beside it -> one HTML page that needs no network. Imports no torch.

Whatever comes from the data is text: the template escapes all of it, and the page forbids scripts and anything remote.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ladm import __version__
from ladm.errors import LadmError, StorageError, one_line
from ladm.options import ReportSettings
from ladm.overview import BEST, MOST_DOMAINS, MOST_DOTS, WORST, Sweep, domain_rows, layer_shares, sweep_scores
from ladm.pictures import heat_map, scale, shares_by_distance
from ladm.results import ERRORS_FILE, require_finished, summarise
from ladm.runs import INSPECTED, REPORT_FILE, Run
from ladm.settings import spell_layers
from ladm.storage import require_place, write_whole

INSPECTION_FORMAT = 1
STRIP_WIDTH = 440
MANIFEST_FILE = "manifest.json"
_MANIFEST_RUN = ("settings", "layers", "model", "data", "dtype")
_BLANK_LINES = re.compile(r"\n\s*\n")
_CONTROL = {k: " " for k in (*range(32), *range(127, 160)) if k not in (9, 10)}


def write_report(settings: ReportSettings) -> Path:
    """Write the page about a run; returns its path.

    Raises LadmError for an unfinished run, a subset of another run, and files that cannot be read.
    """
    run = Run.read(Path(settings.run))
    require_finished(run)
    output = Path(settings.output) if settings.output else run.folder / REPORT_FILE
    require_place(output)
    summary = summarise(run)
    if summary.scores is None:
        raise LadmError(f"{run.folder}: no document has a score")
    manifest = None if settings.subset is None else _manifest(settings, run)
    documents = _inspected(run)
    sweep = sweep_scores(run, settings.domain_key, set(documents), scored=summary.scored)
    best, _, worst = summary.scores
    line = scale([best, worst], STRIP_WIDTH)
    template = _environment().get_template("report.html")
    page: str = template.render(
        version=__version__,
        run=run.identity,
        folder=str(run.folder),
        how=_how(run),
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
        documents=[_document(documents[position], sweep, run) for position in _by_rank(documents, sweep, run)],
    )
    write_whole(output, [page.encode(errors="replace")])
    return output


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("ladm"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"number": lambda x: f"{x:,}", "short": lambda x: f"{x:.4g}", "clean": clean, "tight": tight}
    made.filters["percent"] = lambda x: f"{100 * x:.0f} %" if x >= 0.095 else f"{100 * x:.2g} %"
    return made


def clean(value: Any, most: int = 160) -> str:
    """Text for people: no control characters, no more than so many characters."""
    text = str(value).translate(_CONTROL)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def tight(value: str, most: int) -> str:
    """Text without runs of blank lines."""
    return clean(_BLANK_LINES.sub("\n", value), most)


def _manifest(settings: ReportSettings, run: Run) -> dict[str, Any]:
    """What was selected. Raises LadmError where there is none, or where it was selected from another run."""
    path = Path(settings.subset or "") / MANIFEST_FILE
    found = _read_json(path, "is not a subset of ladm select")
    try:
        same = all(found["run"][key] == run.identity[key] for key in _MANIFEST_RUN)
        if found["domain_key"] != settings.domain_key:
            raise LadmError(f"{settings.subset} was selected by {found['domain_key']}; give it as --domain-key")
    except (KeyError, TypeError):
        raise LadmError(f"{path} is not a manifest of ladm select") from None
    if not same:
        raise LadmError(f"{settings.subset} was not selected from {run.folder}")
    return found


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LadmError(f"{path.parent} {otherwise}: it has no {path.name}") from None
    except (ValueError, RecursionError) as error:
        raise StorageError(f"{path} is damaged: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise StorageError(f"{path} is damaged: it is no JSON object")
    return found


def _inspected(run: Run) -> dict[int, dict[str, Any]]:
    """What `ladm inspect` found, by position."""
    documents = {}
    for path in sorted((run.folder / INSPECTED).glob("*.json")):
        found = _read_json(path, "is not readable")
        if found.get("format") != INSPECTION_FORMAT:
            raise LadmError(f"{path} was made by another version of ladm; remove it, or run ladm inspect again")
        documents[int(found["position"])] = found
    return documents


def _how(run: Run) -> list[tuple[str, str]]:
    """How the run was scored, for people."""
    had, score = run.identity["settings"], run.identity["score"]
    parts = f"layers {spell_layers(score['layers'])}"
    if score["heads"]:
        parts = f"{len(score['heads'])} heads of {parts}"
    ablation = score.get("form", had["ablation"])
    used = run.identity["backend"]
    return [
        ("score", f"{score['reduce']} over {parts}" + ("" if ablation == "none" else f", {ablation}")),
        ("method", f"{had['variant']}, spans of {had['span_tokens']} tokens, m {had['m']}, n {had['n']}, "
                   f"d_afs {had['d_afs']}, d_cds {had['d_cds']}"),
        ("model", f"{Path(run.identity['about']['model']).name}: {run.identity['model']['type']}"),
        ("rows", str(run.identity["about"]["rows"])),
        ("computed", f"on {used['device']} in {run.identity['dtype']}, attention {used['attention']}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in run.identity["versions"].items())),
    ]  # fmt: skip


def _errors(run: Run) -> dict[str, dict[str, Any]]:
    """Rows without a score: how many of each kind, and what was said of the first."""
    kinds: dict[str, dict[str, Any]] = {}
    with (run.folder / ERRORS_FILE).open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            kind = kinds.setdefault(record["error_type"], {"count": 0, "first": record})
            kind["count"] += 1
    return dict(sorted(kinds.items(), key=lambda item: -item[1]["count"]))


def _by_rank(documents: dict[int, dict[str, Any]], sweep: Sweep, run: Run) -> list[int]:
    for position, found in documents.items():
        row = sweep.rows.get(position)
        if row is None or row["score"] != found["score"]:
            raise LadmError(
                f"{run.folder / INSPECTED} holds row {position}, and the run has another score for it; remove that "
                "folder, or run ladm inspect again"
            )
    return sorted(documents, key=lambda position: int(sweep.rows[position]["rank"]))


def _document(found: dict[str, Any], sweep: Sweep, run: Run) -> dict[str, Any]:
    """An inspected document as the template shows it."""
    row = sweep.rows[found["position"]]
    try:
        pairs = [
            pair | {
                "number": k,
                "share": pair["part"] / found["score_here"],
                "back": (pair["j"] - pair["i"]) * found["span_tokens"],
                **{side: _lit(pair[side]) for side in ("earlier", "later")},
            }
            for k, pair in enumerate(found["pairs"], 1)
        ]  # fmt: skip
        return row | {
            "excerpt": found["excerpt"],
            "map": heat_map(found),
            "distances": shares_by_distance(found),
            "pairs": pairs,
            "columns": [column for column in found["columns"] if column["weight"]],
        }
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StorageError(
            f"{run.folder / INSPECTED} is damaged: what it holds of row {found['position']} is not whole "
            f"({one_line(error)}); run ladm inspect again"
        ) from None


def _lit(span: dict[str, Any]) -> dict[str, Any]:
    """A span whose tokens have the weight of the heaviest as their unit."""
    most = max(span["weights"], default=0.0) or 1.0
    lit = [(text, round(weight / most, 2)) for text, weight in zip(span["tokens"], span["weights"], strict=False)]
    return span | {"lit": lit}
