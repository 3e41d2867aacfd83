"""What `ladm train` does: its flags with defaults, types, ranges and help. The optimiser's defaults are the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ladm.settings.common import model_setting, output_setting, seed_setting
from ladm.settings.fields import DEVICE, Settings, setting
from ladm.settings.quantities import parse_tokens

OPTIMISER = "Optimiser"


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """The settings of `ladm train`. `length` None: the commonest length of the rows. `rope_base` None: the model's."""

    model: str = model_setting("Model folder or Hub id to start from.", required=True)
    rows: str = setting("", "Rows as ladm score reads them, or a subset of ladm select.", metavar="ROWS", required=True)
    output: str = output_setting("Folder for the trained model; the same command resumes.", metavar="FOLDER")
    tokens: int = setting(
        0, "Tokens to train on: 1B is 10^9; 500M, 250k.", metavar="N", required=True, parse=parse_tokens, at_least=1
    )
    length: int | None = setting(
        None,
        "Tokens of a row; longer rows are cut.",
        metavar="TOKENS",
        unset="the commonest length",
        # A single token follows no other, and has no loss.
        at_least=2,
    )
    rope_base: float | None = setting(None, "RoPE base to train with.", metavar="BASE", unset="the model's", above=1)
    # The paper's batch of 1M tokens; how it is split over devices and steps of accumulation follows from it.
    batch_tokens: int = setting(
        1_048_576,
        "Tokens in one step of the optimiser, over all devices.",
        section=OPTIMISER,
        metavar="TOKENS",
        at_least=1,
    )
    rows_at_once: int = setting(
        1,
        "Rows per forward pass on each device; the gradients of several passes add up to a batch.",
        section=DEVICE,
        metavar="N",
        at_least=1,
    )
    # The bounds only catch typing errors, such as 2e5 for 2e-5.
    learning_rate: float = setting(2e-5, "Highest learning rate.", section=OPTIMISER, metavar="RATE", above=0, below=10)
    weight_decay: float = setting(0.0, "Weight decay of AdamW.", section=OPTIMISER, metavar="X", at_least=0, below=10)
    beta1: float = setting(0.9, "First beta of AdamW.", section=OPTIMISER, metavar="X", at_least=0, below=1)
    beta2: float = setting(0.999, "Second beta of AdamW.", section=OPTIMISER, metavar="X", at_least=0, below=1)
    schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear", "How the learning rate falls after the warm-up.", section=OPTIMISER
    )
    warmup_steps: int = setting(
        20, "Steps in which the learning rate rises.", section=OPTIMISER, metavar="STEPS", at_least=0
    )
    max_grad_norm: float = setting(
        1.0, "Gradients are clipped to this norm.", section=OPTIMISER, metavar="NORM", above=0
    )
    dtype: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Precision of the arithmetic (the weights stay float32); auto: bfloat16 on CUDA.",
        section=DEVICE,
    )
    # On by default: at 32K tokens the activations of one row take more memory than a 1B model.
    gradient_checkpointing: bool = setting(
        True, "Recompute activations in the backward pass, to save memory.", section=DEVICE
    )
    liger: bool = setting(True, "Use liger kernels on CUDA where they are installed.", section=DEVICE)
    save_every: int = setting(50, "Steps between checkpoints; the two newest are kept.", metavar="STEPS", at_least=1)
    # The Trainer seeds NumPy's older generator, which takes 32 bits.
    seed: int = seed_setting(at_most=2**32 - 1)
    report_to: Literal["trackio", "wandb", "tensorboard"] | None = setting(
        None, "Also send loss and learning rate to this tracker.", unset="none"
    )
