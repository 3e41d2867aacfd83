"""`--report-to` -> what the Trainer needs to send its losses to a tracker. Imports no torch."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from ladm.errors import LadmError
from ladm.settings.training import TrainSettings

PROJECT = "ladm"


def require_tracker(settings: TrainSettings) -> None:
    """Raise LadmError where the tracker is not installed; called before a model loads."""
    name = settings.report_to
    if name is not None and importlib.util.find_spec(name) is None:
        raise LadmError(f"--report-to {name}: {name} is not installed; run pip install {name}")


def tracker_arguments(settings: TrainSettings) -> dict[str, Any]:
    """Arguments of the Trainer. A project that the environment names wins (WANDB_PROJECT, TRACKIO_PROJECT)."""
    name = settings.report_to
    if name is None:
        return {"report_to": []}
    # The Trainer writes into the folder that it is started in, which nobody looks at.
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", os.path.join(settings.output, "tensorboard"))
    os.environ.setdefault("WANDB_PROJECT", PROJECT)
    # Trackers show runs by their name; without one the Trainer gives each a random one.
    run = os.path.basename(os.path.abspath(settings.output))
    return {"report_to": [name], "run_name": run, "project": os.environ.get("TRACKIO_PROJECT", PROJECT)}
