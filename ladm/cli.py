"""The command line: build settings, call one function, echo what it returns. Imports no torch."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ladm import __version__
from ladm.config import score_settings
from ladm.display import PreparingBar, ScoringBar, calibration_report, check_report, selection_table, status_report
from ladm.errors import EXIT_ERROR, EXIT_INTERRUPTED, EXIT_IO, IncompleteError, LadmError, one_line
from ladm.options import CalibrateSettings, CheckSettings, PrepareSettings, RescoreSettings, SelectSettings
from ladm.settings import ScoreSettings, flag

EXIT_CODES = """
\b
Exit codes: 0 done, 1 error, 2 usage, 3 incomplete run, 74 file system,
75 folder in use, 130 Ctrl-C, 143 SIGTERM.
"""


class _Group(click.Group):
    """Turns the library's errors into one line and an exit code; a traceback only with LADM_DEBUG=1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LadmError as error:
            if os.environ.get("LADM_DEBUG"):
                raise
            click.echo(f"ladm: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            sys.exit(EXIT_INTERRUPTED)
        except (click.exceptions.Exit, click.Abort, click.ClickException):
            raise
        except BrokenPipeError:
            raise
        except OSError as error:
            click.echo(f"ladm: {one_line(error)}", err=True)
            sys.exit(EXIT_IO)
        except Exception as error:
            if os.environ.get("LADM_DEBUG"):
                raise
            what = one_line(error)
            click.echo(
                f"ladm: unexpected {type(error).__name__}: {what} (a fault of ladm; LADM_DEBUG=1 shows where)", err=True
            )
            sys.exit(EXIT_ERROR)


@click.group(cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ladm")
def main() -> None:
    """Pick the long documents worth training a long-context language model on."""


def _options_of(defaults: Any) -> Callable[..., Callable[..., Any]]:
    """A maker of flags whose defaults are those of a settings object, shown in the help but not repeated."""

    def option(name: str, kind: Any, help_text: str, **more: Any) -> Callable[..., Any]:
        default = getattr(defaults, name)
        if default not in (None, False, "", 0, ()):
            help_text += f"  [default: {default}]"
        return click.option(more.pop("flag", flag(name)), name, type=kind, default=None, help=help_text, **more)

    return option


_option = _options_of(ScoreSettings())
_prepare_option = _options_of(PrepareSettings())
_select_option = _options_of(SelectSettings())
_calibrate_option = _options_of(CalibrateSettings())
_check_option = _options_of(CheckSettings())
_rescore_option = _options_of(RescoreSettings())


class _WholeOrAuto(click.ParamType):  # type: ignore[type-arg]
    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        if value == "auto":
            return "auto"
        if not str(value).isdecimal():
            self.fail(f"{value!r} is neither auto nor a whole number", param, ctx)
        return int(value)


@main.command(epilog=EXIT_CODES)
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
@_option("backend", click.Choice(["auto", "torch", "triton"]), "What computes equation 2.")
@_option("device", str, "auto, cpu, cuda (all visible), or cuda:0,1.")
@_option("engine", click.Choice(["local", "ray"]), "This machine, or a Ray cluster (RAY_ADDRESS).")
@_option("workers", int, "Processes on a CPU, or actors of Ray.  [default: one; a GPU each]", metavar="N")
@_option("shard", str, "One of n launches that share RUN.  [default: as Slurm or torchrun say]", metavar="I/N")
@_option("batch_size", _WholeOrAuto(), "Rows of equal length in one step.")
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
    _quieten_libraries()
    from ladm.score import score as run_score

    began = time.monotonic()
    summary, finished_before = run_score(settings, echo=_note, progress=ScoringBar())
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


@main.command(epilog=EXIT_CODES)
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, default=None, help="One JSON object instead of text.")
def status(run: str, as_json: bool | None) -> None:
    """How far RUN is: units, rows, errors by type, rate, time left. It may be running."""
    from ladm.runs import Run
    from ladm.upkeep import describe
    from ladm.upkeep import status as read_status

    found = read_status(Run.read(Path(run)))
    for line in [json.dumps(describe(found))] if as_json else status_report(found):
        click.echo(line)


@main.command(epilog=EXIT_CODES)
@click.argument("run")
@click.option("--deep", is_flag=True, default=None, help="Compare the model and the rows with the run's identity too.")
def verify(run: str, deep: bool | None) -> None:
    """Is RUN sound? Checksums, every row there once, results that agree with the units."""
    _quieten_libraries()
    from ladm.results import is_finished
    from ladm.runs import Run
    from ladm.upkeep import verify as run_verify

    found = Run.read(Path(run))
    problems = list(run_verify(found, deep=bool(deep)))
    for problem in problems:
        click.echo(problem)
    if problems:
        raise LadmError(f"{run} is not sound: {len(problems)} problem{'s' if len(problems) > 1 else ''}")
    if not is_finished(found):
        raise IncompleteError(f"{run} is sound as far as it is, and not finished; run its ladm score again")
    click.echo(f"{run} is sound: {found.num_rows:,} rows, {len(found.units):,} units")


@main.command(epilog=EXIT_CODES)
@click.argument("run")
@_rescore_option("output", str, "Folder for the new run.", required=True, metavar="RUN2")
@_rescore_option("profile", str, "File of ladm calibrate.", metavar="PROFILE")
@_rescore_option("reduce", click.Choice(["mean", "median", "geometric"]), "How the layers become one score.")
@_rescore_option("layers", str, "Layers that count, such as 0-10,14.")
def rescore(**flags: Any) -> None:
    """Another score for the documents of RUN from the layers that it kept; no model runs."""
    from ladm.rescore import rescore as run_rescore

    settings = RescoreSettings(**{name: value for name, value in flags.items() if value is not None})
    began = time.monotonic()
    summary = run_rescore(settings)
    _echo_summary(f"rescored in {time.monotonic() - began:.1f} s", summary, settings.output)


@main.command(epilog=EXIT_CODES)
@_calibrate_option("model", str, "Model folder or Hub id of the calculator.", required=True)
@_calibrate_option("rows", str, "Coherent long documents, as ladm score reads them.", required=True)
@_calibrate_option("output", str, "File for the profile.", required=True, metavar="PROFILE.yaml")
@_calibrate_option("span_tokens", int, "l: tokens in a span.  [default: that of --config, or T/256]")
@_calibrate_option(
    "exclude_domains", str, "Leave the documents of a domain out; may be repeated.", flag="--exclude-domain",
    multiple=True, metavar="D",
)  # fmt: skip
@_calibrate_option("objective", click.Choice(["auc", "cost"]), "Best separation, or the best within --max-cost.")
@_calibrate_option("max_cost", float, "Share of a forward pass that --objective cost may use.  [default: 0.65]")
@_calibrate_option("heads", bool, "Choose among single heads instead of whole layers.", is_flag=True)
@_calibrate_option("seed", int, "Seed of every draw.  [default: 0]")
@_calibrate_option("documents", int, "At most so many documents, drawn by the seed.", metavar="N")
@_calibrate_option("layers", str, "Choose among these layers only.")
@_calibrate_option("domain_key", str, "Where a row's domain is.", metavar="KEY")
@_calibrate_option("config", str, "YAML file of ladm score's settings: method, layers, device.", metavar="FILE")
@_calibrate_option("work", str, "Folder of the contrast set and its run.  [default: PROFILE.calibration]")
@_calibrate_option("device", str, "auto, cpu, cuda (all visible), or cuda:0,1.")
@_calibrate_option("dtype", click.Choice(["auto", "float32", "bfloat16", "float16"]), "Precision of the model.")
@_calibrate_option("batch_size", _WholeOrAuto(), "Rows of equal length in one step.")
def calibrate(**flags: Any) -> None:
    """Find out which layers of a model tell coherent documents from pasted ones, and write them down as a profile.

    The documents of --rows are compared with the same tokens pasted together from 2, 4, 8 and 16 of them. Layers are
    chosen on one half of the documents and judged on the other. A stopped calibration goes on where it was.
    """
    _quieten_libraries()
    from ladm.calibrate import calibrate as run_calibrate

    settings = CalibrateSettings(**{name: value for name, value in flags.items() if value not in (None, ())})
    findings = run_calibrate(settings, echo=_note, progress=ScoringBar())
    for line in calibration_report(findings):
        click.echo(line)
    click.echo(f"profile: {settings.output}")


@main.command(epilog=EXIT_CODES)
@_check_option("model", str, "Model folder or Hub id.", required=True)
@_check_option("rows", str, "Coherent long documents as rows.  [default: 22 that come with ladm]")
@_check_option("output", str, "Folder for the run, check.json and check.png.  [default: check-MODEL]", metavar="FOLDER")
@_check_option("length", int, "Tokens of a document, where --rows is not given.")
@_check_option("span_tokens", int, "l: tokens in a span.  [default: T/256]")
@_check_option("documents", int, "At most so many documents, drawn by the seed.", metavar="N")
@_check_option("seed", int, "Seed of every draw.  [default: 0]")
@_check_option("domain_key", str, "Where a row's domain is.", metavar="KEY")
@_check_option("device", str, "auto, cpu, cuda (all visible), or cuda:0,1.")
@_check_option("dtype", click.Choice(["auto", "float32", "bfloat16", "float16"]), "Precision of the model.")
def check(**flags: Any) -> None:
    """Is a model fit to be a calculator? Its attention to intact documents against the same ones pasted together.

    Prints figure 2 of the paper for it, the AUC of the mean, the median and the best profile, and a verdict.
    """
    _quieten_libraries()
    from ladm.check import check as run_check

    settings = CheckSettings(**{name: value for name, value in flags.items() if value is not None})
    checked, picture = run_check(settings, echo=_note, progress=ScoringBar(), preparing=PreparingBar())
    for line in check_report(checked):
        click.echo(line)
    click.echo(f"picture: {picture}")


class _Tokens(click.ParamType):  # type: ignore[type-arg]
    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:  # noqa: ARG002
        from ladm.selection import parse_tokens

        return value if isinstance(value, int) else parse_tokens(value)


@main.command(epilog=EXIT_CODES)
@click.argument("run")
@_select_option("rows", str, "The data set that the run scored.", required=True)
@_select_option("tokens", _Tokens(), "Budget: 1B is 10^9; 500M, 250k.", required=True, metavar="N")
@_select_option("output", str, "Folder for the subset.", required=True, metavar="SUBSET")
@_select_option("rule", click.Choice(["exact", "percent"]), "Fill the budget exactly, or as released.")
@_select_option("quota", str, "Share of a domain: by tokens, documents, or weights in a YAML file.", metavar="QUOTA")
@_select_option("domain_key", str, "Where a row's domain is, or none.", metavar="KEY")
@_select_option("allow_small_pool", bool, "Take everything when the pool is smaller than the budget.", is_flag=True)
@_select_option("dry_run", bool, "Show what would be taken, write nothing.", is_flag=True)
def select(**flags: Any) -> None:
    """Choose the best documents of every domain of RUN for a budget of tokens."""
    _quieten_libraries()
    from ladm.subset import select as run_select

    settings = SelectSettings(**{name: value for name, value in flags.items() if value is not None})
    manifest = run_select(settings)
    for line in selection_table(manifest):
        click.echo(line)
    if not settings.dry_run:
        click.echo(f"subset: {settings.output}")


@main.command(epilog=EXIT_CODES)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@_prepare_option("tokenizer", str, "Folder or Hub id.", required=True, metavar="T")
@_prepare_option("output", str, "Folder for the rows; the same command resumes.", required=True, metavar="ROWS")
@_prepare_option("length", int, "Tokens of a row; shorter documents are dropped.")
@_prepare_option("text_key", str, "Where a document's text is.", metavar="KEY")
@_prepare_option("domain_key", str, "Where its domain is.", metavar="KEY")
@_prepare_option("domain", str, "Domain of documents that have none.", metavar="NAME")
@_prepare_option(
    "bos", bool, "Put the tokenizer's first token in front.  [default: as the tokenizer does]", flag="--bos/--no-bos"
)
@_prepare_option("limit", int, "Stop once N rows are kept.", metavar="N")
def prepare(**flags: Any) -> None:
    """Turn documents into rows of exactly --length tokens, as `ladm score` reads them.

    SOURCE is a JSONL (.gz, .zst), Parquet or text file, a folder of them, a data set saved by save_to_disk, or a
    Hub id.
    """
    _quieten_libraries()
    from ladm.prepare import REASONS
    from ladm.prepare import prepare as run_prepare

    settings = PrepareSettings(**{name: value for name, value in flags.items() if value is not None})
    record = run_prepare(settings, echo=_note, progress=PreparingBar())
    click.echo(f"{'kept':<10} {record['counts'].get('kept', 0):>12,}  documents of at least {settings.length:,} tokens")
    for reason, meaning in REASONS.items():
        if record["counts"].get(reason):
            click.echo(f"{reason:<10} {record['counts'][reason]:>12,}  dropped: {meaning}")
    click.echo(f"rows: {settings.output} ({record['rows']:,} rows)")


def _note(line: str) -> None:
    click.echo(line, err=True)


def _quieten_libraries() -> None:
    """Keep warnings that are not for the user off the terminal; what the user sets in the environment wins."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
