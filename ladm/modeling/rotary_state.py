"""A loaded model -> its rotary embedding as it was loaded, before every row: no row's angles depend on the one before.

With dynamic RoPE a stock model turns a row longer than its positions by angles made for that length. It keeps them, and
a later, shorter row that is still longer than the positions would be turned by the angles of the longest row so far.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DEPENDS_ON_LENGTH = ("dynamic", "longrope")
"""Kinds of RoPE whose angles depend on how long the row is."""


def depends_on_length(config: Any) -> bool:
    """Does the RoPE of a model with this configuration depend on how long a row is?"""
    rope = getattr(config, "rope_parameters", None) or {}
    # One for all layers, or one for each kind of layer.
    kinds = {rope.get("rope_type")} | {part.get("rope_type") for part in rope.values() if isinstance(part, dict)}
    return not kinds.isdisjoint(DEPENDS_ON_LENGTH)


class RotaryState:
    """The state of a model's rotary embeddings when this object was made; empty where no row changes it."""

    def __init__(self, model: torch.nn.Module) -> None:
        config: Any = model.config
        modules = model.modules() if depends_on_length(config.get_text_config()) else ()
        rotary = [each for each in modules if any("inv_freq" in name for name in _buffers(each))]
        self._kept = [(module, _attributes(module), _buffers(module)) for module in rotary]

    def restore(self) -> None:
        """Put that state back. Call it before every forward pass."""
        for module, attributes, buffers in self._kept:
            # Where each kind of layer has its own angles, the first pass adds an attribute with the longest row of a
            # kind.
            for name in _attributes(module).keys() - attributes.keys():
                delattr(module, name)
            for name, value in attributes.items():
                setattr(module, name, value)
            for name, value in buffers.items():
                # A copy, which a pass may overwrite.
                setattr(module, name, value.clone())


def _attributes(module: torch.nn.Module) -> dict[str, Any]:
    # Those with an underscore are torch's own.
    return {name: value for name, value in vars(module).items() if not name.startswith("_")}


def _buffers(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers(recurse=False)}
