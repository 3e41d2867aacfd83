"""The command `ladm train`."""

from __future__ import annotations

import importlib.util

import click

from ladm.cli.options import settings_command
from ladm.cli.terminal import note, quieten_libraries
from ladm.errors import LadmError, install_hint
from ladm.settings.training import TrainSettings


@settings_command(
    TrainSettings,
    short_help="Continual pretraining",
    examples=(
        "ladm train --config configs/train/calculator.yaml --rows rows --tokens 1B -o calculator",
        "accelerate launch --config_file configs/train/fsdp.yaml -m ladm train \\\n"
        "    --config configs/train/target.yaml --model org/model --rows subset --tokens 1B -o target",
    ),
)
def train(settings: TrainSettings) -> None:
    """Train a model further on long rows: a calculator, or a model on what was selected.

    Under `accelerate launch` on several devices, with FSDP or DeepSpeed as its configuration says.
    """
    quieten_libraries()
    # Looked up without importing it, which takes seconds, so that the answer comes before any model is loaded.
    if importlib.util.find_spec("accelerate") is None:
        raise LadmError(f"ladm train needs accelerate; {install_hint('train')}")
    from ladm.training.train import train as run_train

    result = run_train(settings, echo=note)
    # Under accelerate every process gets here, and only the main one has results to print.
    if result is None:
        return
    click.echo(f"{result.steps:,} steps: loss {result.first_loss:.4f} at the first, {result.last_loss:.4f} at the last")
    click.echo(f"model: {settings.output}")
