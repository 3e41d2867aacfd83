"""A budget of tokens as steps of whole rows, and what a step takes of a device's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from ladm.errors import LadmError
from ladm.settings.training import TrainSettings
from ladm.training.batches import cut_batches, memory_estimate


def test_batches() -> None:
    settings = TrainSettings(tokens=10**9, rows_at_once=2)
    paper = cut_batches(settings, length=32_768, devices=8)
    assert (paper.rows_a_step, paper.accumulate, paper.tokens_a_step, paper.steps) == (32, 2, 2**20, 953)
    assert paper.tokens <= 10**9
    clipped = cut_batches(TrainSettings(tokens=100_000), length=32_768, devices=1)
    assert (clipped.rows_a_step, clipped.steps, clipped.tokens) == (3, 1, 98_304)
    with pytest.raises(
        LadmError, match="^a batch of .* tokens holds 32 rows of 32,768 tokens, fewer than the 64 devices; raise"
    ):
        cut_batches(settings, length=32_768, devices=64)
    with pytest.raises(
        LadmError, match="^a batch of 9 tokens holds no row of 10 tokens; raise --tokens or batch_tokens"
    ):
        cut_batches(TrainSettings(tokens=9), length=10, devices=1)


def test_memory(golden_lm: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(golden_lm)
    model = AutoModelForCausalLM.from_pretrained(golden_lm)
    batches = cut_batches(TrainSettings(tokens=10**6, batch_tokens=4096), length=1024, devices=1)
    found = memory_estimate(config, batches, checkpointing=True, half=False, liger=False, sharded=False)
    size = sum(p.numel() for p in model.parameters())
    assert (found["weights"], found["gradients"], found["optimiser"]) == (4 * size, 4 * size, 8 * size)
    assert found["logits"] == 1024 * config.vocab_size * 12
    assert found["copies"] == 0
    plain = memory_estimate(config, batches, checkpointing=False, half=False, liger=True, sharded=False)
    assert plain["activations"] > found["activations"]
    assert plain["logits"] == 0
    half = memory_estimate(config, batches, checkpointing=True, half=True, liger=False, sharded=False)
    assert half["copies"] == 2 * size


def test_memory_of_devices_that_share_the_states(golden_lm: Path) -> None:
    """Each holds its part of them, and puts two layers and the embeddings together at a time."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(golden_lm)
    model = AutoModelForCausalLM.from_pretrained(golden_lm)
    batches = cut_batches(TrainSettings(tokens=10**6, batch_tokens=8192), length=1024, devices=8)
    found = memory_estimate(config, batches, checkpointing=True, half=True, liger=False, sharded=True)
    size = sum(p.numel() for p in model.parameters())
    layer = sum(p.numel() for p in model.model.layers[0].parameters())
    ends = sum(p.numel() for p in (model.model.embed_tokens.weight, model.lm_head.weight))
    assert found["weights"] == pytest.approx(4 * size / 8, abs=4)
    assert found["optimiser"] == pytest.approx(8 * size / 8, abs=8)
    assert found["copies"] == pytest.approx(2 * (2 * layer + ends), rel=0.01)
