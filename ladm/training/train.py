"""Rows and a model -> the model trained on them further: a calculator, or a target model. On transformers' Trainer."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from ladm.errors import LadmError
from ladm.modeling.causal_lm import load_causal
from ladm.progress import Echo
from ladm.settings.training import TrainSettings
from ladm.storage.locks import locked
from ladm.training.checkpoints import newest_checkpoint, remove_incomplete, require_undamaged_checkpoint, writing
from ladm.training.folder import (
    LOSSES_FILE,
    TrainResult,
    create_or_resume,
    finish,
    forget_start,
    output_folder,
    read_result,
    started_rows,
)
from ladm.training.plan import TrainPlan, make_plan, require_good_rows
from ladm.training.plan_report import describe_plan
from ladm.training.trackers import require_tracker
from ladm.training.trainer import make_trainer, training_arguments


def train(settings: TrainSettings, *, echo: Echo) -> TrainResult | None:
    """Train, or resume training, into `settings.output`.

    Of several processes that a launcher started, one prints, checks and writes for all; the others return None.
    Raises LadmError for a model or rows that cannot be used, for a folder that was started with something else,
    and for a loss that is not finite; StorageError where the disk is full.
    """
    require_tracker(settings)
    limit = started_rows(Path(settings.output), settings.rows)
    plan = make_plan(settings, limit=limit)
    output_folder(plan.output).require_own_or_empty()
    # Before the folder is locked: a model that is no language model is refused while these are made.
    lines = list(describe_plan(plan))
    arguments = training_arguments(plan)
    main = arguments.distributed_state is None or arguments.distributed_state.is_main_process
    is_new = main and not output_folder(plan.output).is_started
    # Those of a training that was started have passed this, and a resume takes no others.
    if is_new:
        require_good_rows(plan)
    with locked(plan.output) if main else contextlib.nullcontext():
        if main:
            for line in lines:
                echo(line)
            if limit is not None and not (plan.output / LOSSES_FILE).exists():
                echo(f"resumed   with the first {limit:,} rows, as it was started, without those added later")
            create_or_resume(plan)
        # The others must not look at the folder before the first has made it.
        _wait_for_all(arguments)
        if not (plan.output / LOSSES_FILE).exists():
            _train(plan, _load(plan, is_new=is_new), arguments, echo, main=main)
        elif main:
            echo(f"{plan.output} is finished already")
    return read_result(plan.output) if main else None


def _load(plan: TrainPlan, *, is_new: bool) -> Any:
    """The model to train. Raises LadmError where it cannot be loaded."""
    try:
        return load_causal(plan.settings.model, dtype=torch.float32, attention=plan.attention, config=plan.config)
    except LadmError:
        # Nothing was trained yet: the same command works as soon as the model is repaired.
        if is_new:
            forget_start(plan.output)
        raise


def _train(plan: TrainPlan, model: Any, arguments: TrainingArguments, echo: Echo, *, main: bool) -> None:
    """All steps that are left, and the model in one piece at their end."""
    # On a CPU a product with a number below 1e-38 takes many times as long, and a trained model's gradients are
    # full of them: the backward pass of a small one took three times as long.
    torch.set_flush_denormal(True)
    trainer = make_trainer(plan, model, arguments, echo)
    if main:
        remove_incomplete(plan.output)
    _wait_for_all(arguments)
    checkpoint = newest_checkpoint(plan.output)
    if main and checkpoint is not None:
        require_undamaged_checkpoint(checkpoint)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    # Checkpointing of activations switches the cache off, and the saved configuration would keep it so.
    model.config.use_cache = True
    _save_whole(trainer, plan)
    if main:
        finish(plan.output, plan.model_folder, trainer.state.log_history)
    _wait_for_all(arguments)


def _wait_for_all(arguments: TrainingArguments) -> None:
    """Wait until every process is here."""
    if arguments.distributed_state is not None:
        arguments.distributed_state.wait_for_everyone()


def _save_whole(trainer: Trainer, plan: TrainPlan) -> None:
    """Save the model in one piece, also where its weights are split over devices."""
    fsdp = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if fsdp is not None:
        fsdp.set_state_dict_type("FULL_STATE_DICT")
    with writing(plan.output):
        trainer.save_model(str(plan.output))
