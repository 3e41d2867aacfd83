"""A budget of tokens -> steps of whole rows, and what a step takes of a device's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from ladm.errors import LadmError, count_of
from ladm.modeling.causal_lm import why_not_causal
from ladm.modeling.loading_lock import LOADING
from ladm.settings.training import TrainSettings


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How a budget of tokens becomes steps: `steps` of `rows_a_step` rows of `length` tokens.

    Eight devices with 2 rows at once, accumulated twice, make steps of 32 rows: a million tokens at 32,768 each.
    """

    length: int
    devices: int
    rows_at_once: int
    accumulate: int
    steps: int

    @property
    def rows_a_step(self) -> int:
        return self.devices * self.rows_at_once * self.accumulate

    @property
    def tokens_a_step(self) -> int:
        return self.rows_a_step * self.length

    @property
    def tokens(self) -> int:
        return self.steps * self.tokens_a_step


def cut_batches(settings: TrainSettings, *, length: int, devices: int) -> Batches:
    """Steps for a budget of tokens: a batch is limited to the budget and rounded down to whole rows on every device.

    Raises LadmError for a budget of less than one row a device.
    """
    batch_rows = min(settings.batch_tokens, settings.tokens) // length
    if batch_rows < devices:
        held = "no row" if devices == 1 else count_of(batch_rows, "row")
        fewer = "" if devices == 1 else f", fewer than the {devices} devices"
        raise LadmError(
            f"a batch of {min(settings.batch_tokens, settings.tokens):,} tokens holds {held} of {length:,} tokens"
            f"{fewer}; raise --tokens or batch_tokens, or lower --length"
        )
    at_once = min(settings.rows_at_once, batch_rows // devices)
    accumulate = batch_rows // (devices * at_once)
    steps = max(1, settings.tokens // (devices * at_once * accumulate * length))
    return Batches(length=length, devices=devices, rows_at_once=at_once, accumulate=accumulate, steps=steps)


def memory_estimate(
    config: Any, batches: Batches, *, checkpointing: bool, half: bool, liger: bool, sharded: bool
) -> dict[str, int]:
    """Bytes on one device, by what they are for.

    Raises LadmError for a model that is no language model.
    """
    try:
        # On the meta device a model has shapes and no memory.
        with LOADING, torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise LadmError(f"--model {why_not_causal(config, error)}") from None
    parameters = sum(parameter.numel() for parameter in model.parameters())
    text = config.get_text_config()
    width, inner = text.hidden_size, getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    number = 2 if half else 4
    tokens = batches.rows_at_once * batches.length
    # What the backward pass needs of one layer: about ten activations of its width and four of its inner width.
    layer = tokens * (10 * width + 4 * inner) * number
    layers = text.num_hidden_layers
    # By identity, because both may be the same tensor.
    both = {id(part.weight): part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings())}
    embeddings = sum(weight.numel() for weight in both.values())
    # FSDP gathers the weights of the layer at work and of the next one, and the embeddings.
    together = 2 * (parameters - embeddings) // layers + embeddings
    held = -(-parameters // batches.devices) if sharded else parameters
    # Float32 weights and gradients, and Adam's two moments, are shared by all devices where they are sharded.
    return {
        "weights": 4 * held,
        "gradients": 4 * held,
        "optimiser": 8 * held,
        # Of the weights in the precision of the arithmetic: those of the whole model, or of what FSDP gathers.
        "copies": number * together if sharded else number * parameters if half else 0,
        # Checkpointing stores the input of every layer, and computes one layer again at a time.
        "activations": layers * tokens * width * number + layer if checkpointing else layers * layer,
        # In float32 with their gradient, and in the model's precision; a fused loss never has all of them at once.
        "logits": 0 if liger else tokens * text.vocab_size * (8 + number),
    }
