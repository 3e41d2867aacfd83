"""The folder of a training: its identity, its checkpoints, and the finished model.

DIR/train.json        what it was started with; the same command resumes from the newest complete checkpoint
DIR/checkpoint-50/    model, optimiser, schedule, random state; the empty file `whole` is written last
DIR/model.safetensors, config.json    the result, with the new base and length
DIR/losses.jsonl      a line a step; put in place last
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ladm.errors import LadmError
from ladm.modeling.model_files import TOKENIZER_FILES, model_identity
from ladm.storage.files import io_errors, sync_file, sync_folder, sync_tree, write_whole
from ladm.storage.output_folder import LOCK_FILES, OutputFolder
from ladm.training.plan import TrainPlan

IDENTITY_FILE, LOSSES_FILE, SEAL_FILE = "train.json", "losses.jsonl", "whole"
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_FREE_TO_CHANGE = ("model", "rows", "output", "liger", "save_every", "report_to")
"""Settings that a resume may have other values of: where things are, and how fast the same result is reached."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """A finished training in three numbers."""

    steps: int
    first_loss: float
    last_loss: float


def output_folder(output: Path) -> OutputFolder:
    """The folder of a training, which is its own as soon as `train.json` is in it."""
    return OutputFolder(output, record=IDENTITY_FILE, leftovers=rf"train\.json\..*|{LOCK_FILES}")


def create_or_resume(plan: TrainPlan) -> None:
    """Write down what the training is started with, or check that a resumed one is the same.

    Raises LadmError with the fields that differ.
    """
    settings = dataclasses.asdict(plan.settings)
    about = {name: settings.pop(name) for name in _FREE_TO_CHANGE}
    identity = {
        "settings": settings, "batches": dataclasses.asdict(plan.batches),
        "model": model_identity(str(plan.model_folder)), "data": plan.rows.identity(), "about": about,
    }  # fmt: skip
    output_folder(plan.output).start(identity)


def newest_checkpoint(output: Path) -> str | None:
    """The complete checkpoint with the most steps, or None."""
    complete = [path for path in _checkpoints(output) if (path / SEAL_FILE).exists()]
    return str(max(complete, key=lambda path: int(path.name.partition("-")[2]))) if complete else None


def remove_incomplete(output: Path) -> None:
    """Remove the checkpoints that a stop left half written."""
    for path in _checkpoints(output):
        if not (path / SEAL_FILE).exists():
            shutil.rmtree(path)


def _checkpoints(output: Path) -> list[Path]:
    return [path for path in output.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name)]


class CheckpointSeal(TrainerCallback):  # type: ignore[misc]
    """Makes every checkpoint durable, then marks it as complete, so that a resume never takes half a checkpoint."""

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Called by the Trainer after each checkpoint, in every process."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        # Each process writes its own random state; the mark has to come after all of them.
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        with io_errors(folder, "write"):
            sync_tree(folder)
        write_whole(folder / SEAL_FILE, [b""])
        with io_errors(folder, "write"):
            sync_folder(folder.parent)


def finish(output: Path, source: Path, history: list[dict[str, Any]]) -> None:
    """Add the tokenizer to the trained model, and write the losses, whose file makes the training finished.

    Raises LadmError where the Trainer has not written the model.
    """
    weights = sorted(output.glob("*.safetensors"))
    if not weights or not (output / "config.json").exists():
        raise LadmError(
            f"{output}: the trained model was not written; the checkpoints are there, run the command again (ZeRO-3 "
            "writes it only with zero3_save_16bit_model: true in its configuration)"
        )
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            write_whole(output / name, [(source / name).read_bytes()])
    with io_errors(output, "write"):
        (output / "training_args.bin").unlink(missing_ok=True)
        for path in (*weights, output / "config.json"):
            sync_file(path)
    steps = [
        {"step": line["step"], "loss": line["loss"], "learning_rate": line["learning_rate"]}
        for line in history
        if "loss" in line
    ]
    write_whole(output / LOSSES_FILE, [json.dumps(step).encode() + b"\n" for step in steps])


def read_result(output: Path) -> TrainResult:
    """The result of a finished training."""
    steps = [json.loads(line) for line in (output / LOSSES_FILE).read_text().splitlines()]
    return TrainResult(steps=len(steps), first_loss=steps[0]["loss"], last_loss=steps[-1]["loss"])
