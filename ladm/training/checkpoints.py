"""The checkpoints of a training: which are complete, and whether their files are as they were written.

DIR/checkpoint-50/whole    written last and synced; XXH3-128 of every other file of the checkpoint, by name
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import TrainerCallback

from ladm.errors import StorageError, one_line, raise_if_out_of_memory
from ladm.storage.files import io_errors, sync_folder, sync_tree
from ladm.storage.folder_seal import require_undamaged, seal_folder

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


def require_undamaged_checkpoint(checkpoint: Path) -> None:
    """Raise StorageError for a complete checkpoint with a file that is not as it was written.

    A flipped bit in a weight or in the optimiser's state would load, and train another model in silence.
    """
    require_undamaged(
        checkpoint, seal=SEAL_FILE,
        remedy=f"remove {checkpoint}, and run the same command again to continue from the checkpoint before it, or "
        "from the start",
    )  # fmt: skip


def _checkpoints(output: Path) -> list[Path]:
    return [path for path in output.glob("checkpoint-*") if _CHECKPOINT.fullmatch(path.name)]


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the Trainer raises while it writes into a StorageError."""
    try:
        with io_errors(folder, "write"):
            yield
    # On a full disk safetensors and torch raise errors of their own; that of torch speaks of positions alone.
    except (SafetensorError, RuntimeError) as error:
        raise_if_out_of_memory(error, action=f"write {folder}")
        raise StorageError(f"cannot write {folder}: {one_line(error)}; is the disk full?") from None


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
        seal_folder(folder, seal=SEAL_FILE)
        with io_errors(folder, "write"):
            sync_folder(folder.parent)
