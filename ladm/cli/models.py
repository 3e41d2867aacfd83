"""The commands that look at and train models: calibrate, check, train. Imports no torch."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import click

from ladm.cli.display import PreparingBar, ScoringBar, calibration_report, check_report
from ladm.cli.flags import EXIT_CODES, Tokens, WholeOrAuto, given, note, options_of, quieten_libraries
from ladm.errors import LadmError, UsageError, install_hint
from ladm.settings.commands import CalibrateSettings, CheckSettings, TrainSettings
from ladm.settings.config_file import read_config

_calibrate_option = options_of(CalibrateSettings())
_check_option = options_of(CheckSettings())
_train_option = options_of(TrainSettings())


@click.command(epilog=EXIT_CODES, short_help="Choose the layers that tell; a profile")
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
@_calibrate_option("batch_size", WholeOrAuto(), "Rows of equal length in one step.")
def calibrate(**flags: Any) -> None:
    """Find out which layers of a model separate coherent from pasted documents, and write them to a profile.

    The documents of --rows are compared with the same tokens pasted together from 2, 4, 8 and 16 of them. Layers are
    chosen on one half of the documents and judged on the other. The same command resumes a stopped calibration.
    """
    quieten_libraries()
    from ladm.calibration.calibrate import calibrate as run_calibrate

    settings = CalibrateSettings(**given(flags))
    result = run_calibrate(settings, echo=note, progress=ScoringBar())
    for line in calibration_report(result):
        click.echo(line)
    click.echo(f"profile: {settings.output}")


@click.command(epilog=EXIT_CODES, short_help="Is a model fit to be a calculator?")
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
    quieten_libraries()
    from ladm.calibration.check import check as run_check

    settings = CheckSettings(**given(flags))
    result, picture = run_check(settings, echo=note, progress=ScoringBar(), preparing=PreparingBar())
    for line in check_report(result):
        click.echo(line)
    click.echo(f"picture: {picture}")


@click.command(epilog=EXIT_CODES, short_help="Continual pretraining")
@_train_option("model", str, "Model folder or Hub id to begin with.")
@_train_option("rows", str, "Rows as ladm score reads them, or a subset of ladm select.")
@_train_option("output", str, "Folder for the trained model; the same command resumes.", metavar="DIR")
@_train_option("tokens", Tokens(), "Budget: 1B is 10^9; 500M, 250k.", metavar="N")
@_train_option("length", int, "Tokens of a row; longer ones are cut.  [default: the commonest length]")
@_train_option("rope_base", float, "RoPE base to train with.  [default: the model's]")
@click.option("--config", metavar="FILE", help="YAML file of these and the optimiser's settings; a flag beats it.")
def train(config: str | None, **flags: Any) -> None:
    """Train a model further on long rows: a calculator, or a model on what was selected.

    Under `accelerate launch` on several devices, with FSDP or DeepSpeed as its configuration says. --model, --rows,
    --output and --tokens are needed, here or in the file.
    """
    chosen = {} if config is None else read_config(Path(config), TrainSettings)
    settings = TrainSettings(**(chosen | given(flags)))
    for name in ("model", "rows", "output", "tokens"):
        if not getattr(settings, name):
            raise UsageError(f"--{name} is missing; give it here or in the file of --config")
    quieten_libraries()
    if importlib.util.find_spec("accelerate") is None:
        raise LadmError(f"ladm train needs accelerate; {install_hint('train')}")
    from ladm.training.train import train as run_train

    done = run_train(settings, echo=note)
    if done is None:
        return
    click.echo(
        f"{done['steps']:,} steps: loss {done['first_loss']:.4f} at the first, {done['last_loss']:.4f} at the last"
    )
    click.echo(f"model: {settings.output}")
