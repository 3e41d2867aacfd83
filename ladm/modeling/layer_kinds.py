"""The configuration of a model -> the layers that see only a window of the tokens, and those without softmax attention.

Imports no torch.
"""

from __future__ import annotations

from typing import Any

from ladm.settings.layers import spell_layers

_FULL = "full_attention"
_WINDOWED = ("sliding_attention", "chunked_attention")


def windowed_layers(config: Any) -> tuple[int, ...]:
    """Layers whose attention sees only a window of the tokens."""
    types = getattr(config, "layer_types", None)
    if types:
        return tuple(i for i, kind in enumerate(types) if kind in _WINDOWED)
    return tuple(range(config.num_hidden_layers)) if getattr(config, "sliding_window", None) else ()


def unscorable_layers(config: Any) -> tuple[tuple[int, str], ...]:
    """Layers of another kind than softmax attention over all tokens or a window, each with its kind."""
    types = getattr(config, "layer_types", None) or ()
    return tuple((i, str(kind).replace("_", " ")) for i, kind in enumerate(types) if kind not in (_FULL, *_WINDOWED))


def why_unscorable(kind: str, *, count: int) -> str:
    """The end of a sentence about `count` layers of a kind that `unscorable_layers` gives."""
    # Each layer of Falcon-H1 has both, and a sum of them as its output.
    what = "something else besides" if kind.startswith("hybrid") else f"{kind} in place of"
    return f"{'has' if count == 1 else 'have'} {what} the softmax attention that the focus score is made of"


def window_tokens(config: Any) -> int | None:
    """Tokens that a windowed layer sees; None: there is no window, or its size is not stated."""
    kinds = set(getattr(config, "layer_types", None) or ())
    # Without layer types every layer has the window.
    sizes = [getattr(config, "sliding_window", None)] if not kinds or "sliding_attention" in kinds else []
    if "chunked_attention" in kinds:
        sizes.append(getattr(config, "attention_chunk_size", None))
    if None in sizes:
        return None
    return min((size for size in sizes if isinstance(size, int) and size > 0), default=None)


def layers_of(layers: list[int]) -> str:
    """`layer 3`, or `layers 0-2,5`."""
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {spell_layers(layers)}"
