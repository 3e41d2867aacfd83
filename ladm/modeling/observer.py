"""A Hugging Face decoder and token ids -> each layer's q, k, scaling and log-sum-exp, as the model runs.

The model is the stock one. Only its attention function is ours, put in through transformers'
`AttentionInterface`; what a call needs travels as a keyword of that call, so nothing is global.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModel, PreTrainedModel
from transformers.masking_utils import sdpa_mask

from ladm.errors import LadmError, one_line
from ladm.method.attention import attention_kernel, causal_attention
from ladm.modeling.facts import ModelFacts
from ladm.modeling.fused import FusedLayers

IMPLEMENTATION = "ladm"
PROBE_TOKENS = 48
_LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")
LSE_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 5e-2}
HIDDEN_STATE_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@dataclass(frozen=True, kw_only=True)
class LayerView:
    """What one attention layer works with.

    `lse_BHT` is the float32 log-sum-exp of the causal logits. It is None for the last layer that
    is wanted, because nothing of its attention is computed.
    """

    layer: int
    q_BHTD: Tensor
    k_BGTD: Tensor
    v_BGTD: Tensor
    scaling: float
    lse_BHT: Tensor | None


Visit = Callable[[LayerView], None]


# An exception is the only way out of a stock model in the middle of its forward pass without a copy of its code.
class _StopForward(Exception):
    """Unwinds the forward pass once the last wanted layer has been seen."""


@dataclass
class _ForwardContext:
    """The context of one forward pass, handed to every attention call in it."""

    kernel: str
    layers: frozenset[int] = frozenset()
    visit: Visit | None = None
    unwinds: bool = True
    """Does the pass end at the last wanted layer?"""
    seen: list[tuple[int, dict[str, Any]]] = field(default_factory=list)


class Observer:
    """A loaded model whose layers can be looked at; made by `load_observer`."""

    def __init__(
        self,
        model: PreTrainedModel,
        facts: ModelFacts,
        *,
        layers: tuple[int, ...],
        attention: str,
        fused: str = "none",
    ) -> None:
        self.facts = facts
        self.layers = layers
        self.device = model.device
        self.dtype = model.dtype
        self.attention = attention
        self._model = model
        self._fused = None if fused == "none" else FusedLayers(model, kernels=fused, attention=_attention)

    @torch.inference_mode()
    def observe(self, ids_BT: Tensor, visit: Visit) -> None:
        """Run the model on int64 `ids_BT` and call `visit` at each wanted layer, in their order.

        The pass ends at the last wanted layer's q and k: its attention output, its MLP and
        everything behind it are never computed.
        """
        context = _ForwardContext(self.attention, frozenset(self.layers), visit)
        try:
            self._model(input_ids=ids_BT.to(self.device), use_cache=False, ladm_context=context)
        except _StopForward:
            return
        raise LadmError(f"{self.facts.name}: the forward pass never reached layer {self.layers[-1]}")

    @torch.inference_mode()
    def check(self) -> None:
        """Compare with the stock model on a short input.

        Raises LadmError unless our attention is called once in every layer, with no argument that the
        formula does not cover, and returns the log-sum-exp of its logits, and unless the hidden states
        are those of the stock model.
        """
        length = min(PROBE_TOKENS, self.facts.max_tokens or PROBE_TOKENS)
        ids = torch.arange(length, device=self.device).mul(37).remainder(self.facts.vocab_size).unsqueeze(0)
        lse_errors: list[float] = []
        context = _ForwardContext(
            self.attention, frozenset(self.layers[:1]), lambda view: lse_errors.append(_lse_error(view)), unwinds=False
        )
        try:
            ours = self._model(input_ids=ids, use_cache=False, ladm_context=context).last_hidden_state
        except (AttributeError, ImportError, KeyError, TypeError, ValueError, RuntimeError, IndexError) as error:
            if _is_missing_in_table(error):
                raise _no_interface(self.facts) from None
            what = f"{type(error).__name__}: {error}"
            other = "" if self.device.type == "cpu" else f", or another --attention than that of {self.attention}"
            raise LadmError(
                f"{self.facts.name}: {self.facts.model_type} models cannot be observed, they fail with an attention "
                f"function of ours ({what}); use another model{other}"
            ) from None
        self._check_calls(context.seen)
        stock = self._stock_hidden_states(ids)
        if not stock.isfinite().all():
            raise LadmError(
                f"{self.facts.name}: the stock model's hidden states are NaN or infinite in {self.dtype}; its weights "
                "hold NaN, or it needs --dtype float32"
            )
        if lse_errors and not max(lse_errors) <= LSE_TOLERANCE[self.dtype]:
            raise LadmError(
                f"{self.attention} gives a wrong log-sum-exp here (off by {max(lse_errors):.2g}); choose another "
                "--attention"
            )
        apart = ((ours.float() - stock.float()).norm() / stock.float().norm()).item()
        if not apart <= HIDDEN_STATE_TOLERANCE[self.dtype]:
            if self._fused is not None:
                raise LadmError(
                    f"{self.facts.name}: the fused layers do not reproduce the stock ones in {self.dtype} "
                    f"(hidden states differ by {apart:.2g}); give --fused none"
                )
            raise LadmError(
                f"{self.facts.name}: causal attention does not reproduce this {self.facts.model_type} model (hidden "
                f"states differ by {apart:.2g}), so scores from its q and k would be wrong; use another model"
            )

    def _stock_hidden_states(self, ids_BT: Tensor) -> Tensor:
        """What the model computes as transformers made it: with its own layers and its own attention."""
        if self._fused is not None:
            self._fused.restore()
        self._model.set_attn_implementation("eager")
        hidden: Tensor = self._model(input_ids=ids_BT, use_cache=False).last_hidden_state
        self._model.set_attn_implementation(IMPLEMENTATION)
        if self._fused is not None:
            self._fused.apply()
        return hidden

    def _check_calls(self, seen: list[tuple[int, dict[str, Any]]]) -> None:
        name, kind = self.facts.name, self.facts.model_type
        if not seen:
            raise _no_interface(self.facts)
        called = [layer for layer, _ in seen]
        if called != list(range(self.facts.num_layers)):
            raise LadmError(
                f"{name}: {kind} calls softmax attention in layers {called} of {self.facts.num_layers}, not once "
                "in each; use another model"
            )
        for layer, extras in seen:
            for keyword, what in _NOT_COVERED.items():
                found = extras.get(keyword)
                if keyword == "sliding_window" and (layer not in self.layers or self.facts.fits_window(found)):
                    continue
                if found is not None:
                    raise LadmError(f"{name}: layer {layer} of this {kind} model {what}; use another model")


_NOT_COVERED = {
    "softcap": "caps its logits (softcap), which the focus score does not model",
    "s_aux": "has attention sinks, which the focus score does not model",
    "position_bias": "adds a position bias to its logits, which the focus score does not model",
    "sliding_window": "sees only a window (it can be left out with --layers)",
}


def load_observer(
    facts: ModelFacts,
    *,
    layers: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    attention: str | None = None,
    fused: str = "none",
    check: bool = True,
) -> Observer:
    """Load the weights of `facts.folder` and, unless `check` is False, check that they can be observed.

    `attention` is the name of a kernel; None: the one that `attention_kernel` chooses. `fused`: see `resolve_fused`.

    Only safetensors are read and no code of the model folder is run.
    Raises LadmError when the weights do not fit the config or the checks fail.
    """
    AttentionInterface.register(IMPLEMENTATION, _attention)
    AttentionMaskInterface.register(IMPLEMENTATION, _mask)
    try:
        # The config is read apart, so that an attention kernel named in it is overruled and never fetched.
        config = AutoConfig.from_pretrained(facts.folder, trust_remote_code=False)
        model, loading = AutoModel.from_pretrained(
            facts.folder,
            config=config,
            dtype=dtype,
            attn_implementation=IMPLEMENTATION,
            trust_remote_code=False,
            use_safetensors=True,
            # Reported below with both sizes, and refused.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        model = model.to(device).eval()
    except Exception as error:
        # Each model class, safetensors and the device raise kinds of their own.
        if _is_missing_in_table(error):
            raise _no_interface(facts) from None
        raise LadmError(f"{facts.name}: the model does not load: {type(error).__name__}: {one_line(error)}") from None
    if loading["mismatched_keys"]:
        key, stored, expected = min(loading["mismatched_keys"], key=str)
        raise LadmError(
            f"{facts.name}: the safetensors do not fit config.json: {key} is {_size(stored)} there, and "
            f"{_size(expected)} by the configuration"
        )
    if loading["missing_keys"]:
        absent = sorted(map(str, loading["missing_keys"]))
        raise LadmError(f"{facts.name}: the safetensors lack {len(absent)} weights of the model, such as {absent[0]}")
    beyond = [int(found[1]) for key in loading["unexpected_keys"] if (found := _LAYER_NUMBER.search(str(key)))]
    if max(beyond, default=-1) >= facts.num_layers:
        raise LadmError(
            f"{facts.name}: the safetensors have a layer {max(beyond)}, and config.json says {facts.num_layers} layers"
        )
    attention = attention or attention_kernel(str(device), dtype, head_size=facts.head_size)
    observer = Observer(model, facts, layers=layers, attention=attention, fused=fused)
    if check:
        observer.check()
    return observer


def _size(shape: Any) -> str:
    return " x ".join(map(str, shape))


def _no_interface(facts: ModelFacts) -> LadmError:
    return LadmError(
        f"{facts.name}: {facts.model_type} models never call transformers' attention interface; use another model"
    )


def _is_missing_in_table(error: Exception) -> bool:
    """Has the model looked for our attention function in a table of its own?"""
    return isinstance(error, KeyError) and error.args == (IMPLEMENTATION,)


def _mask(*args: Any, local_size: int | None = None, **more: Any) -> Tensor | None:
    """transformers' mask, and None (plain causal attention) also for rows exactly as long as the window."""
    if local_size is not None and more["kv_length"] <= local_size:
        local_size = None
    mask: Tensor | None = sdpa_mask(*args, local_size=local_size, **more)
    return mask


def _lse_error(view: LayerView) -> float:
    """How far the log-sum-exp of a layer is from that of its logits."""
    assert view.lse_BHT is not None
    q, k = view.q_BHTD.float(), view.k_BGTD.float()
    logits = view.scaling * q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT
    later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
    return (logits.masked_fill(later, -torch.inf).logsumexp(dim=-1) - view.lse_BHT).abs().max().item()


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    ladm_context: _ForwardContext,
    **extras: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls: q (B,H,T,D), k and v (B,G,T,D) -> (B,T,H,D)."""
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    context = ladm_context
    context.seen.append((layer, extras))
    wanted = context.visit is not None and layer in context.layers
    last = wanted and context.unwinds and layer == max(context.layers)
    # transformers passes a mask only where more than plain causal attention is meant: padding, or a sliding window.
    if attention_mask is not None:
        if wanted and context.unwinds:
            raise LadmError(f"layer {layer} does not see every earlier token; leave it out with --layers")
        out = torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=True
        )
        return out.transpose(1, 2), None
    lse = None
    # Nobody reads the output of the last scored layer, so its attention, the dearest kernel of a layer, is skipped.
    if not last:
        out, lse = causal_attention(query, key, value, scaling=scaling, kernel=context.kernel)
    if wanted and context.visit is not None:
        view = LayerView(layer=layer, q_BHTD=query, k_BGTD=key, v_BGTD=value, scaling=scaling, lse_BHT=lse)
        context.visit(view)
    if last:
        raise _StopForward
    return out.transpose(1, 2), None
