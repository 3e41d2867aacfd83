"""The folder of a training: its identity, its checkpoints, and the finished model.

DIR/train.json        what it was started with; the same command resumes from the newest complete checkpoint
DIR/checkpoint-50/    model, optimiser, schedule, random state; see `checkpoints`
DIR/model.safetensors, config.json    the result, with the new base and length
DIR/losses.jsonl      a line a step; put in place last
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladm.corpus.rows.reading import open_rows
from ladm.errors import LadmError, StorageError
from ladm.modeling.model_files import TOKENIZER_FILES, model_identity
from ladm.runs.lines import decode_object, encode_object
from ladm.storage.files import io_errors, sync_file, write_whole
from ladm.storage.output_folder import LOCK_FILES, OutputFolder
from ladm.training.plan import TrainPlan

IDENTITY_FILE, LOSSES_FILE = "train.json", "losses.jsonl"
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


def started_rows(output: Path, source: str) -> int | None:
    """How many of the rows the training in `output` was started with, where they have grown since; else None.

    A resume takes these alone: with more rows the order of training, and so the result, would be another.
    """
    if not output_folder(output).is_started:
        return None
    rows, data, content = open_rows(source), *_stored_rows(output)
    count = data.get("rows")
    return count if isinstance(count, int) and count < len(rows) and rows.begin_with(data, content=content) else None


def _stored_rows(output: Path) -> tuple[dict[str, Any], str | None]:
    """Identity and content of the rows that a training was started with; empty where its record has neither."""
    had = output_folder(output).started_with()
    data, about = (had[name] if isinstance(had.get(name), dict) else {} for name in ("data", "about"))
    return data, about.get("rows_content")


def create_or_resume(plan: TrainPlan) -> None:
    """Write down what the training is started with, or check that a resumed one is the same.

    Raises LadmError with the fields that differ.
    """
    folder, data = output_folder(plan.output), plan.rows.identity()
    if folder.is_started:
        had, content = _stored_rows(plan.output)
        # As it was stored: the digest of the same rows is another when later rows have other keys of `meta`.
        data = had if had.get("rows") == len(plan.rows) and plan.rows.begin_with(had, content=content) else data
    settings = dataclasses.asdict(plan.settings)
    settings["dtype"] = _precision(plan, folder)
    about = {name: settings.pop(name) for name in _FREE_TO_CHANGE} | {"rows_content": plan.rows.content()}
    identity = {
        "settings": settings, "batches": dataclasses.asdict(plan.batches),
        "model": model_identity(str(plan.model_folder)), "data": data, "about": about,
    }  # fmt: skip
    folder.start(identity)


def forget_start(output: Path) -> None:
    """Remove what `create_or_resume` wrote down for a training that did not begin."""
    with io_errors(output, "write in"):
        (output / IDENTITY_FILE).unlink(missing_ok=True)


def _precision(plan: TrainPlan, folder: OutputFolder) -> str:
    """What `--dtype auto` comes to here: a resume on another kind of device would go on in another precision.

    What is stored where that cannot happen, because the training is finished.
    """
    settings = folder.started_with().get("settings") if folder.is_started else None
    had = settings.get("dtype") if isinstance(settings, dict) else None
    if plan.settings.dtype == "auto" and had is not None and (plan.output / LOSSES_FILE).is_file():
        return str(had)
    return "bfloat16" if plan.half else "float32"


def finish(output: Path, source: Path, history: list[dict[str, Any]]) -> None:
    """Add the tokenizer to the trained model, and write the losses, whose file makes the training finished.

    Raises LadmError where the Trainer has not written the model.
    """
    weights = sorted(output.glob("*.safetensors"))
    if not weights or not (output / "config.json").exists():
        raise LadmError(
            f"{output}: the trained model was not written, but its checkpoints were; run the same command again "
            "(ZeRO-3 writes it only with zero3_save_16bit_model: true in its configuration)"
        )
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            write_whole(output / name, [(source / name).read_bytes()])
    with io_errors(output, "write"):
        (output / "training_args.bin").unlink(missing_ok=True)
        # All that the Trainer wrote: a model in parts has an index too.
        for path in output.iterdir():
            if path.is_file():
                sync_file(path)
    steps = [
        {"step": line["step"], "loss": line["loss"], "learning_rate": line["learning_rate"]}
        for line in history
        if "loss" in line
    ]
    write_whole(output / LOSSES_FILE, [encode_object(step) for step in steps])


def read_result(output: Path) -> TrainResult:
    """The result of a finished training. Raises StorageError for losses that are not as they were written."""
    path = output / LOSSES_FILE
    with io_errors(path, "read"):
        steps = [_loss_of(line) for line in path.read_bytes().splitlines()]
    losses = [loss for loss in steps if loss is not None]
    if not steps or len(losses) < len(steps):
        raise StorageError(f"{path} is damaged; remove it, and rerun the command that made it")
    return TrainResult(steps=len(losses), first_loss=losses[0], last_loss=losses[-1])


def _loss_of(line: bytes) -> float | None:
    """The loss of a step; None for a damaged line."""
    decoded = decode_object(line)
    if decoded is not None:
        return float(decoded[0]["loss"])
    try:
        step = json.loads(line)
    except (ValueError, RecursionError):
        return None
    # A line of an earlier version has these keys and no checksum.
    plain = isinstance(step, dict) and set(step) == {"step", "loss", "learning_rate"}
    return step["loss"] if plain and isinstance(step["loss"], float) else None
