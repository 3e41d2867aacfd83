"""A plan -> transformers' Trainer, set up for it: arguments, the rows in their order, a line for every step."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError
from ladm.modeling.language_head import FINITE_REMEDY
from ladm.progress import Echo
from ladm.training.checkpoints import CheckpointSeal, writing
from ladm.training.plan import Positions, TrainPlan
from ladm.training.trackers import tracker_arguments

Batch = dict[str, torch.Tensor]


def make_trainer(plan: TrainPlan, model: PreTrainedModel, arguments: TrainingArguments, echo: Echo) -> Trainer:
    """A Trainer over the plan's rows. Raises LadmError, while it trains, for a bad row or a loss that is not finite."""
    data = _TrainingRows(plan.rows, plan.row_order(), plan.batches.length, vocab_size=int(plan.text_config.vocab_size))
    trainer = _OrderedTrainer(
        model=model, args=arguments, train_dataset=data, data_collator=_stack,
        callbacks=[LossPrinter(echo), CheckpointSeal()],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer


def training_arguments(plan: TrainPlan) -> TrainingArguments:
    """The plan in the Trainer's own words."""
    settings, batches = plan.settings, plan.batches
    cuda = torch.cuda.is_available()
    # A launcher's configuration file sets a precision too; the Trainer would follow it and say nothing.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if plan.half else "no"
    return TrainingArguments(
        output_dir=str(plan.output),
        max_steps=batches.steps,
        per_device_train_batch_size=batches.rows_at_once,
        gradient_accumulation_steps=batches.accumulate,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        warmup_steps=plan.warmup_steps,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused" if cuda else "adamw_torch",
        bf16=plan.half,
        **_checkpointing(enabled=settings.gradient_checkpointing),
        use_liger_kernel=plan.liger,
        use_cpu=not cuda,
        seed=settings.seed,
        logging_steps=1,
        save_steps=settings.save_every,
        save_total_limit=2,
        **tracker_arguments(settings),
        disable_tqdm=True,
        remove_unused_columns=False,
        # The filter would print the mean of the finite losses in place of NaN.
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False if batches.devices > 1 else None,
    )


def _checkpointing(*, enabled: bool) -> dict[str, Any]:
    """Gradient checkpointing under the name that the installed version of transformers has for it."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    if not enabled:
        return {name: False}
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


class _OrderedTrainer(Trainer):  # type: ignore[misc]
    """A Trainer that takes the rows in their order, across passes: the end of a pass makes no smaller batch.

    Raises StorageError for a checkpoint that cannot be written.
    """

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def _save_checkpoint(self, *args: Any, **more: Any) -> None:
        with writing(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"):
            super()._save_checkpoint(*args, **more)


class _TrainingRows(torch.utils.data.Dataset[Batch]):
    """The rows at some positions, cut to one length."""

    def __init__(self, rows: Rows, positions: Positions, length: int, *, vocab_size: int) -> None:
        self._rows, self._positions, self._length, self._vocab_size = rows, positions, length, vocab_size

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, k: int) -> Batch:
        ids = self._rows.ids_at(int(self._positions[k]), vocab_size=self._vocab_size)[: self._length]
        return {"input_ids": torch.from_numpy(ids)}


def _stack(batch: list[Batch]) -> Batch:
    """Rows of one length need no padding, and the model shifts the labels itself."""
    ids_BT = torch.stack([row["input_ids"] for row in batch])
    return {"input_ids": ids_BT, "labels": ids_BT}


class LossPrinter(TrainerCallback):  # type: ignore[misc]
    """Prints a line for every step, and ends a training whose loss is not finite."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Called by the Trainer. Raises LadmError for a loss that is NaN or infinite."""
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            # That of the first step is the loss of the model as it was given.
            remedy = FINITE_REMEDY if state.global_step == 1 else "lower learning_rate, and start again"
            raise LadmError(f"step {state.global_step:,}: the loss is {logs['loss']}; {remedy}")
        if state.is_world_process_zero:
            rate = logs.get("learning_rate", 0.0)
            self._echo(f"step {state.global_step:,} of {state.max_steps:,}: loss {logs['loss']:.4f}, rate {rate:.3g}")
