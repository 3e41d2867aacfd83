"""The attention function that a stock transformers model calls instead of its own, and the context of a call.

It is registered with transformers' `AttentionInterface`. What a call needs travels as a keyword of that call, so
nothing is global.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from ladm.errors import LadmError
from ladm.method.attention import causal_attention
from ladm.modeling.facts import ModelFacts

IMPLEMENTATION = "ladm"
"""The name that the function is registered under. Names with "flash" or "sdpa" in them trigger other code."""


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """What one attention layer works with.

    `lse_BHT` is the float32 log-sum-exp of the causal logits. It is None for the last layer that
    is wanted of a pass that ends there, because nothing of its attention is computed.
    """

    layer: int
    q_BHTD: Tensor
    k_BGTD: Tensor
    v_BGTD: Tensor
    scaling: float
    lse_BHT: Tensor | None


Visit = Callable[[LayerView], None]


# An exception is the only way out of a stock model in the middle of its forward pass without a copy of its code.
class StopForward(Exception):
    """Unwinds the forward pass once the last wanted layer has been seen."""


class NotCausalError(LadmError):
    """The model attends to later tokens as well, as encoders and embedding models do."""

    def __init__(self) -> None:
        super().__init__("the model attends to later tokens as well; use a causal language model")


@dataclass
class ForwardContext:
    """The context of one forward pass, handed to every attention call in it."""

    kernel: str
    layers: frozenset[int] = frozenset()
    visit: Visit | None = None
    refuses_masks: bool = True
    """Is a wanted layer with a mask, such as that of a window, an error?"""
    to_end: bool = False
    """Run on to the last hidden states, because they are needed. Otherwise the pass ends at the last wanted layer."""
    seen: list[tuple[int, dict[str, Any]]] = field(default_factory=list)


def register() -> None:
    """Register the function and its mask with transformers: without the mask, windows and padding would be ignored."""
    AttentionInterface.register(IMPLEMENTATION, attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    ladm_context: ForwardContext,
    **extras: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: q (B,H,T,D), k and v (B,G,T,D) -> (B,T,H,D)."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    context = ladm_context
    context.seen.append((layer, extras))
    wanted = context.visit is not None and layer in context.layers
    last = wanted and not context.to_end and layer == max(context.layers)
    # transformers passes a mask only where more than plain causal attention is meant: padding, or a sliding window.
    if attention_mask is not None:
        if wanted and context.refuses_masks:
            raise LadmError(f"layer {layer} does not see every earlier token; leave it out with --layers")
        # Not `enable_gqa`: with it and a mask CUDA has only the kernel that writes all B x H x T x T logits.
        repeats = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling
        )
        return out.transpose(1, 2), None
    # As transformers' own function reads them: without a mask, these two say whether later tokens are hidden.
    is_causal = extras.get("is_causal")
    if not (getattr(module, "is_causal", True) if is_causal is None else is_causal):
        raise NotCausalError
    lse = None
    # Nobody reads the output of the last scored layer, so its attention, the slowest kernel of a layer, is skipped.
    if not last:
        out, lse = causal_attention(query, key, value, scaling=scaling, kernel=context.kernel)
    if wanted and context.visit is not None:
        view = LayerView(layer=layer, q_BHTD=query, k_BGTD=key, v_BGTD=value, scaling=scaling, lse_BHT=lse)
        context.visit(view)
    if last:
        raise StopForward
    return out.transpose(1, 2), None


def _mask(
    *args: Any, local_size: int | None = None, allow_is_bidirectional_skip: bool = False, **more: Any
) -> Tensor | None:
    """transformers' mask, and None (plain causal attention) also for rows exactly as long as the window.

    Raises NotCausalError where None would mean attention to every token.
    """
    if allow_is_bidirectional_skip:
        raise NotCausalError
    if local_size is not None and more["kv_length"] <= local_size:
        local_size = None
    mask: Tensor | None = sdpa_mask(*args, local_size=local_size, **more)
    return mask


def no_interface(facts: ModelFacts) -> LadmError:
    """The error for a model that has an attention of its own."""
    return LadmError(
        f"{facts.name}: {facts.model_type} models never call transformers' attention interface; use another model"
    )


def passes_no_options_on(error: Exception) -> bool:
    """Does the model call our attention function without the options that its forward pass was given?"""
    return isinstance(error, TypeError) and "'ladm_context'" in str(error)


def is_missing_in_table(error: Exception) -> bool:
    """Has the model looked for our attention function in a table of its own?"""
    return isinstance(error, KeyError) and error.args == (IMPLEMENTATION,)
