"""Rows and a model -> the model trained on them further: a calculator, or a target model. On transformers' Trainer."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import is_flash_attn_2_available, is_liger_kernel_available

from ladm.corpus.rows import Rows, commonest, open_rows
from ladm.corpus.tokenization import disagreement
from ladm.errors import LadmError
from ladm.modeling.causal_lm import load_causal
from ladm.modeling.devices import resolve_dtype
from ladm.modeling.facts import learned_positions, model_folder, read_config, windowed_layers
from ladm.progress import Echo
from ladm.settings.training import TrainSettings
from ladm.storage.locks import locked
from ladm.training.batches import Batches, cut_batches, memory_estimate
from ladm.training.folder import (
    LOSSES_FILE,
    Whole,
    begin,
    finish,
    newest_checkpoint,
    outcome,
    refuse_foreign,
    remove_torn,
)


def train(settings: TrainSettings, *, echo: Echo) -> dict[str, Any] | None:
    """Train, or go on training, into `settings.output`; returns the first and the last loss and how many steps.

    Of several processes that a launcher started, one says, checks and writes what is for all; the others
    return None. Raises LadmError for a model or rows that cannot be used, for a folder begun with
    something else, and for a loss that is no number.
    """
    source = model_folder(settings.model)
    config = training_config(settings, source)
    rows = open_rows(settings.rows)
    lengths = rows.lengths()
    length = settings.length or commonest(lengths)
    positions = np.flatnonzero(lengths >= max(length, 1))
    if not len(positions):
        raise LadmError(f"{rows.name}: no row has {length:,} tokens; give a smaller --length")
    batches = cut_batches(settings, length=length, devices=_launched())
    text = config.get_text_config()
    learned = learned_positions(text)
    if learned is not None and length > learned:
        raise LadmError(
            f"{settings.model} has learned positions, {learned:,} of them, and none for rows of {length:,} tokens; "
            "give a smaller --length, or a model with RoPE"
        )
    text.max_position_embeddings = max(length, getattr(text, "max_position_embeddings", None) or 0)
    output = Path(settings.output)
    refuse_foreign(output)
    said = _resolved(settings, config, rows, batches, kept=len(positions))
    problem = disagreement(rows, str(source))
    said += [] if problem is None else [f"warning   {problem}"]
    arguments = _arguments(settings, batches, output, model_type=text.model_type)
    main = arguments.distributed_state is None or arguments.distributed_state.is_main_process
    with locked(output) if main else contextlib.nullcontext():
        if main:
            for line in said:
                echo(line)
            begin(output, settings, source, rows, batches)
        _wait(arguments)
        if (output / LOSSES_FILE).exists():
            if main:
                echo(f"{output} is finished already")
            return outcome(output) if main else None
        # On a CPU a product with a number below 1e-38 takes many times as long, and a trained model's gradients are
        # full of them: the backward pass of a small one took three times as long.
        torch.set_flush_denormal(True)
        model = load_causal(settings.model, dtype=torch.float32, attention=_attention(settings), config=config)
        order = training_order(len(positions), batches.steps * batches.rows_a_step, seed=settings.seed)
        data = _TrainingRows(rows, positions[order], length, vocab_size=int(text.vocab_size))
        trainer = _Trainer(
            model=model, args=arguments, train_dataset=data, data_collator=_stack, callbacks=[_Told(echo), Whole()]
        )
        trainer.remove_callback(PrinterCallback)
        if main:
            remove_torn(output)
        _wait(arguments)
        trainer.train(resume_from_checkpoint=newest_checkpoint(output))
        model.config.use_cache = True
        _save_whole(trainer, output)
        if main:
            finish(output, source, trainer.state.log_history)
        _wait(arguments)
    return outcome(output) if main else None


def _launched() -> int:
    """How many processes train together. Raises LadmError for several GPUs and no launcher to use them."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if "WORLD_SIZE" not in os.environ and visible > 1:
        raise LadmError(
            f"{visible} GPUs are visible; begin with accelerate launch -m ladm train .. to use them, or show one with "
            "CUDA_VISIBLE_DEVICES=0"
        )
    return int(os.environ.get("WORLD_SIZE", "1"))


def _wait(arguments: TrainingArguments) -> None:
    """Until every process is here."""
    if arguments.distributed_state is not None:
        arguments.distributed_state.wait_for_everyone()


def _save_whole(trainer: Trainer, output: Path) -> None:
    """The model in one piece, also where its weights are split over devices."""
    fsdp = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if fsdp is not None:
        fsdp.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(output))


def training_config(settings: TrainSettings, folder: Path) -> Any:
    """The model's configuration with the new RoPE base. Raises LadmError for a model without one to change."""
    config = read_config(settings.model, folder)
    if settings.rope_base is not None:
        text = config.get_text_config()
        rope = getattr(text, "rope_parameters", None) or {}
        # Models with windowed layers keep one set of parameters for each kind of layer.
        rope = rope.get("full_attention", rope)
        if "rope_theta" not in rope:
            raise LadmError(f"{settings.model}: {text.model_type} has no RoPE base to change; leave --rope-base out")
        rope["rope_theta"] = float(settings.rope_base)
    return config


def training_order(rows: int, wanted: int, *, seed: int) -> npt.NDArray[np.int64]:
    """So many numbers of rows, every row once before any comes again, each pass in a random order of its own."""
    draw = np.random.default_rng(seed)
    passes = [draw.permutation(rows) for _ in range(-(-wanted // rows))]
    return np.concatenate(passes)[:wanted]


class _Trainer(Trainer):  # type: ignore[misc]
    """A Trainer that takes the rows as they come: a pass that ends in the middle of a batch makes no small batch."""

    def _get_train_sampler(self, *_: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)


class _TrainingRows(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The rows at some positions, cut to one length."""

    def __init__(self, rows: Rows, positions: Any, length: int, *, vocab_size: int) -> None:
        self._rows, self._positions, self._length, self._vocab_size = rows, positions, length, vocab_size

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, k: int) -> dict[str, torch.Tensor]:
        position = int(self._positions[k])
        ids = self._rows.ids_at(position, vocab_size=self._vocab_size)[: self._length]
        return {"input_ids": torch.from_numpy(ids)}


def _stack(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Rows of one length need no padding; the model shifts the labels itself."""
    ids_BT = torch.stack([row["input_ids"] for row in batch])
    return {"input_ids": ids_BT, "labels": ids_BT}


class _Told(TrainerCallback):  # type: ignore[misc]
    """A line for every step."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise LadmError(
                f"step {state.global_step:,}: the loss is {logs['loss']}; lower learning_rate, and begin anew"
            )
        if state.is_world_process_zero:
            rate = logs.get("learning_rate", 0.0)
            self._echo(f"step {state.global_step:,} of {state.max_steps:,}: loss {logs['loss']:.4f}, rate {rate:.3g}")


def _arguments(settings: TrainSettings, batches: Batches, output: Path, *, model_type: str) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    # A launcher's file has an opinion too, and would be followed without a word.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if _is_half(settings) else "no"
    return TrainingArguments(
        output_dir=str(output),
        max_steps=batches.steps,
        per_device_train_batch_size=batches.rows_at_once,
        gradient_accumulation_steps=batches.accumulate,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        warmup_steps=_warmup_steps(settings, batches),
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused" if cuda else "adamw_torch",
        bf16=_is_half(settings),
        **_checkpointing(settings),
        use_liger_kernel=_uses_liger(settings, model_type),
        use_cpu=not cuda,
        seed=settings.seed,
        logging_steps=1,
        save_steps=settings.save_every,
        save_total_limit=2,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        logging_nan_inf_filter=False,
        ddp_find_unused_parameters=False if batches.devices > 1 else None,
    )


def _warmup_steps(settings: TrainSettings, batches: Batches) -> int:
    """At most half of a short training."""
    return min(settings.warmup_steps, batches.steps // 2)


def _checkpointing(settings: TrainSettings) -> dict[str, Any]:
    """Gradient checkpointing under the name that this version of transformers has for it."""
    known = {field.name for field in dataclasses.fields(TrainingArguments)}
    name = "activation_checkpointing" if "activation_checkpointing" in known else "gradient_checkpointing"
    if not settings.gradient_checkpointing:
        return {name: False}
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


def _is_half(settings: TrainSettings) -> bool:
    on_cuda = torch.cuda.is_available()
    return settings.dtype == "bfloat16" or (
        settings.dtype == "auto" and on_cuda and resolve_dtype("auto", "cuda") == torch.bfloat16
    )


def _uses_liger(settings: TrainSettings, model_type: str) -> bool:
    """Are liger's kernels there, and made for this kind of model? Without them a loss holds all logits."""
    if not (settings.liger and torch.cuda.is_available() and is_liger_kernel_available()):
        return False
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


def _is_sharded() -> bool:
    """Did accelerate launch begin this with FSDP?"""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def _attention(settings: TrainSettings) -> str:
    flash = torch.cuda.is_available() and _is_half(settings) and is_flash_attn_2_available()
    return "flash_attention_2" if flash else "sdpa"


def _resolved(settings: TrainSettings, config: Any, rows: Rows, batches: Batches, *, kept: int) -> list[str]:
    """The settings as they will be used, for people."""
    shorter = len(rows) - kept
    wanted = batches.steps * batches.rows_a_step
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    base = rope.get("full_attention", rope).get("rope_theta")
    half, liger = _is_half(settings), _uses_liger(settings, config.get_text_config().model_type)
    memory = memory_estimate(
        config, batches, checkpointing=settings.gradient_checkpointing, half=half,
        liger=liger, sharded=_is_sharded(),
    )  # fmt: skip
    who = f"each of {batches.devices} devices that share the states" if _is_sharded() else "a device"
    lines = [
        f"rows      {rows.name}: {kept:,} of at least {batches.length:,} tokens, cut to that"
        + (f"; {shorter:,} shorter ones left out" if shorter else ""),
        f"model     {settings.model}: RoPE base {'none' if base is None else format(base, ',.0f')}",
        f"batch     {batches.rows_a_step:,} rows, {batches.tokens_a_step:,} tokens"
        + (f" (asked for: {settings.batch_tokens:,})" if batches.tokens_a_step != settings.batch_tokens else "")
        + f": {batches.rows_at_once} at once on each of {batches.devices}, {batches.accumulate} times",
        f"budget    {batches.steps:,} steps, {batches.tokens:,} tokens of the {settings.tokens:,} asked for",
        f"optimiser AdamW, rate {settings.learning_rate:g}, {settings.schedule} after "
        f"{_warmup_steps(settings, batches)} steps of warm-up; in {'bfloat16' if half else 'float32'}, attention "
        f"{_attention(settings)}" + (", liger kernels" if liger else ""),
        f"memory    about {sum(memory.values()) / 2**30:.1f} GiB on {who}: "
        + ", ".join(f"{name} {size / 2**30:.1f}" for name, size in memory.items()),
        f"output    {settings.output}",
    ]
    windowed = windowed_layers(config.get_text_config())
    window = getattr(config.get_text_config(), "sliding_window", None)
    if windowed and window is not None and window < batches.length:
        what = f"{len(windowed)} layers see only the last {window:,} tokens"
        lines.append(f"warning   {what}, and rows have {batches.length:,}")
    if wanted > kept:
        lines.append(f"warning   that is {wanted / kept:.1f} times the rows that there are; they will be repeated")
    return lines
