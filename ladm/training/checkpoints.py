"""The checkpoints of a training: which are complete, and whether their files are as they were written.

DIR/checkpoint-50/whole    written last and synced; XXH3-128 of every other file of the checkpoint, by name
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ladm.errors import StorageError
from ladm.storage.digests import file_xxh3
from ladm.storage.files import io_errors, sync_folder, sync_tree, write_whole
from ladm.storage.json_object import json_with_checksum, read_json_object

SEAL_FILE = "whole"
_CHECKPOINT = re.compile(r"checkpoint-\d+")


def newest_checkpoint(output: Path) -> Path | None:
    """The complete checkpoint with the most steps, or None."""
    complete = [path for path in _checkpoints(output) if (path / SEAL_FILE).exists()]
    return max(complete, key=lambda path: int(path.name.partition("-")[2])) if complete else None


def remove_incomplete(output: Path) -> None:
    """Remove the checkpoints that a stop left half written."""
    for path in _checkpoints(output):
        if not (path / SEAL_FILE).exists():
            shutil.rmtree(path)


def require_undamaged(checkpoint: Path) -> None:
    """Raise StorageError for a complete checkpoint with a file that is not as it was written.

    A flipped bit in a weight or in the optimiser's state would load, and train another model in silence.
    """
    seal = checkpoint / SEAL_FILE
    with io_errors(seal, "read"):
        # Earlier versions wrote an empty file.
        if seal.stat().st_size == 0:
            return
    written = read_json_object(seal)
    for name, digest in written.items():
        path = checkpoint / name
        if not path.is_file() or file_xxh3(path) != digest:
            raise StorageError(
                f"{path} is damaged or missing; remove {checkpoint}, and the same command goes on from the checkpoint "
                "before it, or from the start"
            )


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
            digests = {str(path.relative_to(folder)): file_xxh3(path) for path in _files(folder)}
        write_whole(folder / SEAL_FILE, [json_with_checksum(digests)])
        with io_errors(folder, "write"):
            sync_folder(folder.parent)


def _files(checkpoint: Path) -> list[Path]:
    """All files of a checkpoint but its seal."""
    return sorted(path for path in checkpoint.rglob("*") if path.is_file() and path != checkpoint / SEAL_FILE)
