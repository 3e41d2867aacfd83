"""Configurations of small decoders of every architecture that is observed, and tokens for them."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

GROUPED = SMALL | {"num_key_value_heads": 2}
TOKENS = torch.arange(60).mul(31).remainder(96).unsqueeze(0)

OBSERVED: dict[str, Any] = {
    "llama": lambda: tf.LlamaConfig(**GROUPED, initializer_range=0.3),
    "mistral": lambda: tf.MistralConfig(**GROUPED, sliding_window=None, initializer_range=0.3),
    "qwen2": lambda: tf.Qwen2Config(**GROUPED, initializer_range=0.3),
    "qwen3": lambda: tf.Qwen3Config(**GROUPED, head_dim=16, initializer_range=0.3),
    "gpt_neox": lambda: tf.GPTNeoXConfig(**SMALL, initializer_range=0.3),
    "olmo2": lambda: tf.Olmo2Config(**GROUPED, initializer_range=0.3),
    "phi": lambda: tf.PhiConfig(**GROUPED, initializer_range=0.3),
    "gpt2": lambda: tf.GPT2Config(
        vocab_size=96, n_embd=32, n_layer=3, n_head=4, n_positions=64, bos_token_id=1, eos_token_id=2
    ),
}
