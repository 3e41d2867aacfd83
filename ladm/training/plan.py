"""Settings -> everything that is decided before the first step: rows, batches, precision, kernels, configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.utils import is_flash_attn_2_available, is_liger_kernel_available

from ladm.corpus.files.id_columns import commonest
from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError
from ladm.modeling.devices import resolve_dtype
from ladm.modeling.facts import learned_positions, read_config
from ladm.modeling.model_files import model_folder
from ladm.settings.training import TrainSettings
from ladm.training.batches import Batches, cut_batches

Positions = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """Everything that is decided before the first step."""

    settings: TrainSettings
    model_folder: Path
    config: Any
    """The model's configuration, with the new RoPE base and the length of the rows."""
    rows: Rows
    positions: Positions
    """The rows that are long enough; the others are left out."""
    batches: Batches
    half: bool
    """Is the arithmetic bfloat16? The weights are float32 either way."""
    attention: str
    """As transformers names it."""
    liger: bool
    """Do liger's fused kernels replace the model's own? Without them a loss needs all logits at once."""
    sharded: bool
    """Do the devices share weights, gradients and moments (FSDP)?"""

    @property
    def output(self) -> Path:
        return Path(self.settings.output)

    @property
    def text_config(self) -> Any:
        """The part of the configuration that is the language model."""
        return self.config.get_text_config()

    @property
    def warmup_steps(self) -> int:
        """At most half of a short training."""
        return min(self.settings.warmup_steps, self.batches.steps // 2)

    @property
    def rope_base(self) -> float | None:
        """The RoPE base to train with; None: the model has none."""
        base: float | None = rope_parameters(self.text_config).get("rope_theta")
        return base

    @property
    def rows_needed(self) -> int:
        """Rows of all steps together; where there are fewer, they are repeated."""
        return self.batches.steps * self.batches.rows_a_step

    def row_order(self) -> Positions:
        """The positions of the rows in the order of training."""
        return self.positions[training_order(len(self.positions), self.rows_needed, seed=self.settings.seed)]


def require_good_rows(plan: TrainPlan) -> None:
    """Raise LadmError for a row that a step would end at, which may be days away, and which no resume can pass.

    Reads the rows of all steps, as the digest in their identity does.
    """
    vocab_size, bad, first = int(plan.text_config.vocab_size), 0, ""
    positions = np.unique(plan.row_order()).tolist()
    for position in positions:
        try:
            plan.rows.ids_at(position, vocab_size=vocab_size)
        except LadmError as error:
            bad, first = bad + 1, first or str(error)
    if bad:
        raise LadmError(
            f"{bad:,} of the {len(positions):,} rows to train on cannot be used, so leave them out; the first is "
            f"{first}"
        )


def make_plan(settings: TrainSettings, *, limit: int | None = None) -> TrainPlan:
    """Open model and rows, and decide all the rest. `limit`: use the first rows only.

    Raises LadmError for a model and rows that cannot be used together.
    """
    folder = model_folder(settings.model)
    config = training_config(settings, folder)
    rows = open_rows(settings.rows, limit=limit)
    lengths = rows.lengths()
    length = settings.length or max(commonest(lengths), 2)
    positions = np.flatnonzero(lengths >= length)
    if not len(positions):
        raise LadmError(f"{rows.name}: no row has {length:,} tokens; give a smaller --length")
    batches = cut_batches(settings, length=length, devices=_launched_processes())
    text = config.get_text_config()
    _require_positions(settings.model, text, length)
    text.max_position_embeddings = max(length, getattr(text, "max_position_embeddings", None) or 0)
    half = is_half(settings)
    return TrainPlan(
        settings=settings,
        model_folder=folder,
        config=config,
        rows=rows,
        positions=positions,
        batches=batches,
        half=half,
        attention=attention_for(half=half),
        liger=uses_liger(settings, text.model_type),
        # What accelerate launch sets for the processes that it starts.
        sharded=os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true",
    )


def training_config(settings: TrainSettings, folder: Path) -> Any:
    """The model's configuration with the new RoPE base. Raises LadmError for a model without one to change."""
    config = read_config(settings.model, folder)
    if settings.rope_base is not None:
        text = config.get_text_config()
        rope = rope_parameters(text)
        if "rope_theta" not in rope:
            raise LadmError(f"{settings.model}: {text.model_type} has no RoPE base to change; leave --rope-base out")
        rope["rope_theta"] = float(settings.rope_base)
    return config


def rope_parameters(text_config: Any) -> Any:
    """The RoPE parameters of the layers that see everything; empty for a model without RoPE."""
    rope = getattr(text_config, "rope_parameters", None) or {}
    # Models with windowed layers keep one set of parameters for each kind of layer.
    return rope.get("full_attention", rope)


def _require_positions(model: str, text_config: Any, length: int) -> None:
    learned = learned_positions(text_config)
    if learned is not None and length > learned:
        raise LadmError(
            f"{model} has only {learned:,} learned positions, not enough for rows of {length:,} tokens; give a smaller "
            "--length, or a model with RoPE"
        )


def _launched_processes() -> int:
    """How many processes train together. Raises LadmError for several GPUs without a launcher that uses them."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if "WORLD_SIZE" not in os.environ and visible > 1:
        # The Trainer would put them under DataParallel, which copies the model for every batch.
        raise LadmError(
            f"{visible} GPUs are visible; start with accelerate launch -m ladm train .. to use them, or choose one "
            "with CUDA_VISIBLE_DEVICES=0"
        )
    return int(os.environ.get("WORLD_SIZE", "1"))


def training_order(rows: int, needed: int, *, seed: int) -> Positions:
    """`needed` numbers below `rows`: every row once before any is repeated, each pass in a random order of its own."""
    draw = np.random.default_rng(seed)
    passes = [draw.permutation(rows) for _ in range(-(-needed // rows))]
    return np.concatenate(passes)[:needed]


def is_half(settings: TrainSettings) -> bool:
    """Is the arithmetic bfloat16? With `auto`, on a GPU that is fast at it."""
    on_cuda = torch.cuda.is_available()
    return settings.dtype == "bfloat16" or (
        settings.dtype == "auto" and on_cuda and resolve_dtype("auto", "cuda") == torch.bfloat16
    )


def attention_for(*, half: bool) -> str:
    """FlashAttention where it is installed and can be used: on CUDA, in half precision."""
    flash = torch.cuda.is_available() and half and is_flash_attn_2_available()
    return "flash_attention_2" if flash else "sdpa"


def uses_liger(settings: TrainSettings, model_type: str) -> bool:
    """Are liger's kernels installed, wanted, and made for this kind of model?"""
    if not (settings.liger and torch.cuda.is_available() and is_liger_kernel_available()):
        return False
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return model_type in MODEL_TYPE_TO_APPLY_LIGER_FN
