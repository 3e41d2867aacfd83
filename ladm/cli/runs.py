"""The commands that make, look at and change runs: score, rescore, status, verify. Imports no torch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click

from ladm.cli.display import ScoringBar, status_report
from ladm.cli.flags import EXIT_CODES, WholeOrAuto, given, note, options_of, quieten_libraries
from ladm.errors import IncompleteError, LadmError
from ladm.settings.commands import InspectSettings, ReportSettings, RescoreSettings
from ladm.settings.config_file import score_settings
from ladm.settings.score import ScoreSettings

_option = options_of(ScoreSettings())
_rescore_option = options_of(RescoreSettings())
_inspect_option = options_of(InspectSettings())
_report_option = options_of(ReportSettings())


@click.command(epilog=EXIT_CODES, short_help="Rows and a model to scores")
@click.argument("rows")
@_option("model", str, "Model folder or Hub id of the calculator.")
@_option("output", str, "Run folder; the same command resumes it.", required=True, metavar="RUN")
@_option("variant", click.Choice(["released", "paper"]), "The published code, or equations 2-5 as printed.")
@_option("span_tokens", int, "l: tokens in a span.")
@_option("m", int, "Spans at the start that are never looked back at.")
@_option("n", int, "Nearest earlier span used: j-n (released), j-n-1 (paper).  [default: d_afs]")
@_option("n0", int, "No span before it is scored.  [default: 16 (paper), the released bound (released)]")
@_option("d_afs", int, "Stride over the earlier spans.")
@_option("d_cds", int, "Stride over the scored spans.")
@_option("ablation", click.Choice(["none", "no-std", "no-length"]), "Drop sigma, or both length weights.")
@_option("reduce", click.Choice(["mean", "median", "geometric"]), "How the layers become one score.")
@_option("layers", str, "Layers to score, such as 0-10,14; no later layer runs.  [default: all]")
@_option("record", click.Choice(["layers", "heads", "range", "forms"]), "Kept of a document beside its score.")
@_option("profile", str, "File of ladm calibrate: method, layers and reduction.", metavar="PROFILE")
@_option("dtype", click.Choice(["auto", "float32", "bfloat16", "float16"]), "Precision of the model.")
@_option("attention", click.Choice(["auto", "flash", "cudnn", "flash-attn", "efficient"]), "Fused attention to use.")
@_option("backend", click.Choice(["auto", "torch", "triton"]), "What computes equation 2.")
@_option("device", str, "auto, cpu, cuda (all visible), or cuda:0,1.")
@_option("engine", click.Choice(["local", "ray"]), "This machine, or a Ray cluster (RAY_ADDRESS).")
@_option("workers", int, "Processes on a CPU, or actors of Ray.  [default: one; a GPU each]", metavar="N")
@_option("shard", str, "One of n launches that share RUN.  [default: as Slurm or torchrun say]", metavar="I/N")
@_option("batch_size", WholeOrAuto(), "Rows of equal length in one step.")
@_option("limit", int, "Score only the first N rows.", metavar="N")
@_option("max_errors", int, "Stop when more than N rows have no score.", metavar="N")
@_option("fail_fast", bool, "Stop at the first row without a score.", is_flag=True)
@_option("retry_errors", bool, "Try every row without a score again.", is_flag=True)
@_option("overwrite", bool, "Remove the run in RUN and begin anew.", is_flag=True)
@click.option("--config", metavar="FILE", help="YAML file of these settings; a flag beats it.")
def score(config: str | None, **flags: Any) -> None:
    """Score ROWS, a data set of token ids: a folder written by save_to_disk, or a Hub id.

    Writes RUN/sorted_by_score.jsonl, best first, RUN/scores.parquet and RUN/errors.jsonl.
    """
    settings = score_settings(config, flags)
    quieten_libraries()
    from ladm.scoring.score import score as run_score

    began = time.monotonic()
    summary, finished_before = run_score(settings, echo=note, progress=ScoringBar())
    seconds = time.monotonic() - began
    _echo_summary("already finished" if finished_before else f"finished in {seconds:.1f} s", summary, settings.output)


def _echo_summary(head: str, summary: Any, output: str) -> None:
    click.echo(f"{head}: {summary.scored:,} documents scored, {summary.failed:,} without a score")
    for kind, count in sorted(summary.errors.items()):
        click.echo(f"  {kind}: {count:,}")
    if summary.scores is None:
        raise LadmError(f"no document has a score; {output}/errors.jsonl says why")
    best, middle, worst = summary.scores
    click.echo(f"score: best {best:.6g}, middle {middle:.6g}, worst {worst:.6g}")
    click.echo(f"results: {output}/sorted_by_score.jsonl")


@click.command(epilog=EXIT_CODES, short_help="How far a run is")
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, default=None, help="One JSON object instead of text.")
def status(run: str, as_json: bool | None) -> None:
    """How far RUN is: units, rows, errors by type, rate, time left. It may be running."""
    from ladm.runs.folder import Run
    from ladm.runs.status import describe
    from ladm.runs.status import status as read_status

    found = read_status(Run.read(Path(run)))
    for line in [json.dumps(describe(found))] if as_json else status_report(found):
        click.echo(line)


@click.command(epilog=EXIT_CODES, short_help="Is a run sound?")
@click.argument("run")
@click.option("--deep", is_flag=True, default=None, help="Compare the model and the rows with the run's identity too.")
def verify(run: str, deep: bool | None) -> None:
    """Is RUN sound? Checksums, every row there once, results that agree with the units."""
    quieten_libraries()
    from ladm.runs.folder import Run
    from ladm.runs.results import is_finished
    from ladm.runs.verify import verify as run_verify

    found = Run.read(Path(run))
    problems = list(run_verify(found, deep=bool(deep)))
    for problem in problems:
        click.echo(problem)
    if problems:
        raise LadmError(f"{run} is not sound: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
    if not is_finished(found):
        raise IncompleteError(f"{run} is sound as far as it is, and not finished; run its ladm score again")
    click.echo(f"{run} is sound: {found.num_rows:,} rows, {len(found.units):,} units")


@click.command(epilog=EXIT_CODES, short_help="Another score from the layers kept")
@click.argument("run")
@_rescore_option("output", str, "Folder for the new run.", required=True, metavar="RUN2")
@_rescore_option("profile", str, "File of ladm calibrate.", metavar="PROFILE")
@_rescore_option("reduce", click.Choice(["mean", "median", "geometric"]), "How the layers become one score.")
@_rescore_option("layers", str, "Layers that count, such as 0-10,14.")
def rescore(**flags: Any) -> None:
    """Another score for the documents of RUN from the layers that it kept; no model runs."""
    from ladm.scoring.rescore import rescore as run_rescore

    settings = RescoreSettings(**given(flags))
    began = time.monotonic()
    summary = run_rescore(settings)
    _echo_summary(f"rescored in {time.monotonic() - began:.1f} s", summary, settings.output)


@click.command(epilog=EXIT_CODES, short_help="Where some documents' scores come from")
@click.argument("run")
@_inspect_option("top", int, "The N best documents.  [default: 3; 0 when --index is given]", metavar="N")
@_inspect_option("bottom", int, "The N worst documents.  [default: 1; 0 when others are asked for]", metavar="N")
@_inspect_option("index", str, "The document with this index; may be repeated.", multiple=True, metavar="INDEX")
@_inspect_option("rows", str, "The rows that RUN scored.  [default: where they were]")
@_inspect_option("model", str, "The model that scored them.  [default: where it was]")
@_inspect_option("device", str, "auto, cpu or cuda:0.")
@_inspect_option(
    "dtype", click.Choice(["auto", "float32", "bfloat16", "float16"]), "Precision.  [default: that of RUN]"
)
def inspect(**flags: Any) -> None:
    """Find out where the scores of some documents of RUN come from, for ladm report to show.

    Writes RUN/inspected/POSITION.json: what each pair of spans adds to the score, and the texts of the strongest pairs.
    At most 100 documents at once; those that are there already are not looked at again.
    """
    settings = InspectSettings(**given(flags))
    quieten_libraries()
    from ladm.explain.inspect_run import inspect as run_inspect

    run_inspect(settings, echo=note, tell=lambda path: click.echo(str(path)), progress=ScoringBar("inspecting"))


@click.command(epilog=EXIT_CODES, short_help="A page about a run, for a browser")
@click.argument("run")
@_report_option("subset", str, "What ladm select made of RUN: its cut is shown too.", metavar="SUBSET")
@_report_option("output", str, "The page.  [default: RUN/report.html]", metavar="FILE")
@_report_option("domain_key", str, "Where in meta a row's domain is; none: all as one.", metavar="KEY")
def report(**flags: Any) -> None:
    """A page about RUN for a browser: how the scores lie, which documents lead, and why. One file, no network."""
    from ladm.report.page import write_report

    click.echo(f"page: {write_report(ReportSettings(**given(flags)), echo=note)}")
