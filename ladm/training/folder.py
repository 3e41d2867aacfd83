"""The folder of a training: what it was begun with, its checkpoints, whole or torn, and the finished model.

DIR/train.json        what it was begun with; the same command goes on from the newest whole checkpoint
DIR/checkpoint-50/    model, optimiser, schedule, random state; `whole` is written last
DIR/model.safetensors, config.json    the result, with the new base and length
DIR/losses.jsonl      a line a step; put in place last
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ladm.corpus.rows import Rows
from ladm.errors import LadmError, StorageError
from ladm.modeling.facts import TOKENIZER_FILES, model_identity
from ladm.settings.training import TrainSettings
from ladm.storage.files import create_once, io_errors, sync_file, sync_folder, sync_tree, write_whole
from ladm.storage.identity import require_same
from ladm.training.batches import Batches

BEGUN_FILE, LOSSES_FILE, WHOLE_FILE = "train.json", "losses.jsonl", "whole"
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_OWN = re.compile(r"train\.json\.|\.lock$|\.holder$")


def refuse_foreign(output: Path) -> None:
    """Raise LadmError when the folder holds anything but a training; nothing is put into it before."""
    with io_errors(output, "use"):
        others = sorted(p.name for p in output.iterdir() if not _OWN.match(p.name)) if output.exists() else []
    if others and not (output / BEGUN_FILE).exists():
        raise LadmError(f"{output} belongs to something else (it holds {others[0]}); give --output an empty folder")


def begin(output: Path, settings: TrainSettings, source: Path, rows: Rows, batches: Batches) -> None:
    """Keep what the training is begun with, or see that it is the same as before."""
    chosen = dataclasses.asdict(settings)
    about = {name: chosen.pop(name) for name in ("model", "rows", "output", "liger", "save_every")}
    identity = {
        "settings": chosen, "batches": dataclasses.asdict(batches), "model": model_identity(str(source)),
        "data": rows.identity(), "about": about,
    }  # fmt: skip
    path = output / BEGUN_FILE
    if not create_once(path, json.dumps(identity, indent=1).encode() + b"\n"):
        try:
            had = json.loads(path.read_bytes())
        except ValueError:
            raise StorageError(f"{path} is damaged: not what a training was begun with") from None
        require_same(output, had, json.loads(json.dumps(identity)))


def newest_checkpoint(output: Path) -> str | None:
    """The whole checkpoint with the most steps, or None."""
    whole = [path for path in _checkpoints(output) if (path / WHOLE_FILE).exists()]
    return str(max(whole, key=lambda path: int(path.name.partition("-")[2]))) if whole else None


def remove_torn(output: Path) -> None:
    """Remove the checkpoints that were left half written."""
    for path in _checkpoints(output):
        if not (path / WHOLE_FILE).exists():
            shutil.rmtree(path)


def _checkpoints(output: Path) -> list[Path]:
    return [path for path in output.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name)]


class Whole(TrainerCallback):  # type: ignore[misc]
    """Makes a checkpoint durable and then says so, so that one half written is known for what it is."""

    def on_save(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        if not state.is_world_process_zero:
            return
        with io_errors(folder, "write"):
            sync_tree(folder)
        write_whole(folder / WHOLE_FILE, [b""])
        with io_errors(folder, "write"):
            sync_folder(folder.parent)


def finish(output: Path, source: Path, history: list[dict[str, Any]]) -> None:
    """What a user needs beside the weights, and the losses, which say that all is there."""
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


def outcome(output: Path) -> dict[str, Any]:
    steps = [json.loads(line) for line in (output / LOSSES_FILE).read_text().splitlines()]
    return {"steps": len(steps), "first_loss": steps[0]["loss"], "last_loss": steps[-1]["loss"]}
