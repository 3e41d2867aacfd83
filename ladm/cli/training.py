"""The command `ladm train`."""

from __future__ import annotations

import importlib.util

from ladm.cli.options import settings_command
from ladm.cli.terminal import configure_libraries, next_step, note, print_result
from ladm.errors import LadmError, count_of, install_hint
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
    """Continue pretraining a model on long rows: a calculator, or a model on the selected subset.

    For several devices, start it with `accelerate launch`, whose configuration sets FSDP or DeepSpeed.
    """
    configure_libraries()
    # Looked up without importing it, which takes seconds, so that the answer comes before any model is loaded.
    if importlib.util.find_spec("accelerate") is None:
        raise LadmError(f"ladm train needs accelerate; {install_hint('train')}")
    from ladm.training.train import train as run_train

    result = run_train(settings, echo=note)
    # Under accelerate every process gets here, and only the main one has results to print.
    if result is None:
        return
    steps = count_of(result.steps, "step")
    lines = [
        f"{steps}: loss {result.first_loss:.4f} at the first, {result.last_loss:.4f} at the last",
        f"model: {settings.output}",
    ]
    content = {"model": settings.output, "steps": result.steps, "first_loss": result.first_loss}
    print_result(lines, lambda: content | {"last_loss": result.last_loss})
    next_step("ladm", "evaluate", "perplexity", "--model", settings.output, "--rows", "ROWS")
