"""The tiny model of the golden scores as flags and as keyword arguments, and small models with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.paths import GOLDEN

SMALL = ("--model", str(GOLDEN), "--dtype", "float32", "--device", "cpu", "--span-tokens", "16")
METHOD: dict[str, Any] = {"span_tokens": 16, "dtype": "float32", "device": "cpu"}
"""`SMALL` as keyword arguments."""

SMALL_MODEL = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 1024, "pad_token_id": 0,
}  # fmt: skip


def model(folder: Path, kind: str, *, edit: dict[str, Any] | None = None, **config: Any) -> Path:
    """A small model with random weights; `edit` changes its config.json afterwards."""
    import torch
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model(kind, **{**SMALL_MODEL, **config})).save_pretrained(folder)
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **(edit or {})}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return folder
