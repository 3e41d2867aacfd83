"""A loaded model, compared with the stock one on a short input before its first row is scored.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ladm.errors import LadmError, one_line, raise_if_out_of_memory
from ladm.modeling.attention_function import (
    IMPLEMENTATION,
    ForwardContext,
    LayerView,
    NotCausalError,
    is_missing_in_table,
    no_interface,
    passes_no_options_on,
)
from ladm.modeling.facts import ModelFacts
from ladm.modeling.fused import FusedLayers

PROBE_TOKENS = 48
LSE_TOLERANCE = {torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 5e-2}
HIDDEN_STATE_TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_NOT_COVERED = {
    "softcap": "caps its logits (softcap), which the focus score does not model",
    "s_aux": "has attention sinks, which the focus score does not model",
    "position_bias": "adds a position bias to its logits, which the focus score does not model",
    "sliding_window": "sees only a window (it can be left out with --layers)",
}


def require_same_sizes(name: str, loading: Mapping[str, Any]) -> None:
    """Raise LadmError where a weight has another size than the config describes; `loading`: what loading reported."""
    if loading["mismatched_keys"]:
        key, stored, expected = min(loading["mismatched_keys"], key=str)
        raise LadmError(
            f"{name}: the safetensors do not match config.json: {key} is {_size(stored)} there, but "
            f"{_size(expected)} by the configuration"
        )


def _size(shape: Any) -> str:
    return " x ".join(map(str, shape))


@dataclass(frozen=True, kw_only=True)
class LoadCheck:
    """What is compared: the model with our attention function, and with its own."""

    model: Any
    facts: ModelFacts
    layers: tuple[int, ...]
    attention: str
    fused: FusedLayers | None

    @torch.inference_mode()
    def run(self) -> None:
        """Compare with the stock model on a short input.

        Raises LadmError unless our attention is called once in every layer, with no argument that the
        formula does not cover, and returns the log-sum-exp of its logits, and unless the hidden states
        are those of the stock model.
        """
        # Long enough for every head to attend to several tokens, short enough to cost nothing at every start.
        # Steps of 37 spread the ids over the vocabulary without drawing random numbers.
        length = min(PROBE_TOKENS, self.facts.max_tokens or PROBE_TOKENS)
        ids = torch.arange(length, device=self.model.device).mul(37).remainder(self.facts.vocab_size).unsqueeze(0)
        lse_errors: list[float] = []
        context = ForwardContext(
            self.attention, frozenset(self.layers[:1]), lambda view: lse_errors.append(_lse_error(view)),
            refuses_masks=False, to_end=True,
        )  # fmt: skip
        ours = self._observed_hidden_states(ids, context)
        self._check_calls(context.seen)
        stock = self._finite_stock_hidden_states(ids)
        if lse_errors and not max(lse_errors) <= LSE_TOLERANCE[self.model.dtype]:
            raise LadmError(
                f"{self.attention} gives a wrong log-sum-exp here (off by {max(lse_errors):.2g}); choose another "
                "--attention"
            )
        apart = self._difference(ours, stock)
        if not apart <= HIDDEN_STATE_TOLERANCE[self.model.dtype] and not apart <= 2 * self._stock_rounding(ids, stock):
            raise self._not_reproduced(apart)

    def _observed_hidden_states(self, ids_BT: Tensor, context: ForwardContext) -> Tensor:
        """What the model computes with our attention function. Raises LadmError for whatever fails there."""
        try:
            hidden: Tensor = self.model(input_ids=ids_BT, use_cache=False, ladm_context=context).last_hidden_state
            return hidden
        except NotCausalError:
            raise LadmError(
                f"{self.facts.name}: this {self.facts.model_type} model attends to later tokens as well; use a causal "
                "language model"
            ) from None
        except LadmError:
            raise
        # The model's code, the kernel's compiler and what they load raise exceptions of their own.
        except Exception as error:
            raise_if_out_of_memory(error, action=f"run the model {self.facts.name}")
            if is_missing_in_table(error):
                raise no_interface(self.facts) from None
            if passes_no_options_on(error):
                raise LadmError(
                    f"{self.facts.name}: {self.facts.model_type} models do not pass options on to their attention "
                    "function, so they cannot be observed; use another model"
                ) from None
            what = f"{type(error).__name__}: {one_line(error)}"
            other = "" if self.model.device.type == "cpu" else f", or another --attention than that of {self.attention}"
            other += "" if self.fused is None else ", or --fused none"
            raise LadmError(
                f"{self.facts.name}: {self.facts.model_type} models cannot be observed: they fail with ladm's "
                f"attention function ({what}); use another model{other}"
            ) from None

    def _finite_stock_hidden_states(self, ids_BT: Tensor) -> Tensor:
        """What the stock model computes. Raises LadmError where it fails, or where a value is NaN or infinite."""
        stock = self._stock_hidden_states(ids_BT, attention="eager")
        # Before the comparison, whose message would blame our attention function for broken weights.
        if not stock.isfinite().all():
            raise LadmError(
                f"{self.facts.name}: the stock model's hidden states are NaN or infinite in {self.model.dtype}; its "
                "weights hold NaN, or it needs --dtype float32"
            )
        return stock

    def _not_reproduced(self, apart: float) -> LadmError:
        """The error for hidden states that differ from the stock model's by `apart`, relative to their norm."""
        if self.fused is not None:
            return LadmError(
                f"{self.facts.name}: the fused layers do not reproduce the stock ones in {self.model.dtype} "
                f"(hidden states differ by {apart:.2g}); give --fused none"
            )
        rounded = self.model.dtype != torch.float32
        remedy = "try --dtype float32, or use another model" if rounded else "use another model"
        return LadmError(
            f"{self.facts.name}: causal attention does not reproduce this {self.facts.model_type} model (hidden "
            f"states differ by {apart:.2g}), so scores from its q and k would be wrong; {remedy}"
        )

    def _difference(self, ours_BTE: Tensor, stock_BTE: Tensor) -> float:
        """How far apart the hidden states are, relative to their norm."""
        apart_BTE, stock_BTE = ours_BTE.float() - stock_BTE.float(), stock_BTE.float()
        if self.facts.has_experts and self.model.dtype != torch.float32:
            # Rounding alone sends some tokens to another expert, which changes these altogether and few others; a wrong
            # attention changes nearly all. The first token attends to itself alone, so no attention is wrong there.
            by_token = apart_BTE[:, 1:].norm(dim=-1) / stock_BTE[:, 1:].norm(dim=-1)
            return float(by_token.median())
        return float(apart_BTE.norm() / stock_BTE.norm())

    def _stock_rounding(self, ids_BT: Tensor, eager_BTE: Tensor) -> float:
        """How far two of the stock model's own attention functions differ, by rounding alone; 0 in float32.

        Some models enlarge it beyond any fixed tolerance: Gemma 4 of random weights differs by 6 % in bfloat16.
        """
        if self.model.dtype == torch.float32 or not self.model._supports_sdpa:
            return 0.0
        return self._difference(self._stock_hidden_states(ids_BT, attention="sdpa"), eager_BTE)

    def _stock_hidden_states(self, ids_BT: Tensor, *, attention: str) -> Tensor:
        """What the model computes as transformers made it: with its own layers and an attention of transformers.

        The model is ours again afterwards. Raises LadmError for whatever fails.
        """
        try:
            if self.fused is not None:
                self.fused.restore()
            self.model.set_attn_implementation(attention)
            hidden: Tensor = self.model(input_ids=ids_BT, use_cache=False).last_hidden_state
            return hidden
        # Such as a number of key heads that no weight has to fit, which our own pass does not notice.
        except Exception as error:
            raise_if_out_of_memory(error, action=f"run the stock model {self.facts.name}")
            raise self._stock_failure(error, attention) from None
        finally:
            self.model.set_attn_implementation(IMPLEMENTATION)
            if self.fused is not None:
                self.fused.apply()

    def _stock_failure(self, error: Exception, attention: str) -> LadmError:
        """The error for a stock model that does not run with an attention of transformers."""
        stock = f"{self.facts.name}: the stock {self.facts.model_type} model"
        what = f"{type(error).__name__}: {one_line(error)}"
        if attention == "eager":
            return LadmError(f"{stock} does not run ({what}); its config.json may not match its weights")
        # It ran with eager attention before, so its files are sound.
        return LadmError(
            f"{stock} does not run with {attention} ({what}), so its rounding cannot be measured; try --dtype float32, "
            "or use another model"
        )

    def _check_calls(self, seen: list[tuple[int, dict[str, Any]]]) -> None:
        name, kind = self.facts.name, self.facts.model_type
        if not seen:
            raise no_interface(self.facts)
        # A hybrid model does not call it in its other layers; the hidden states are compared with those included.
        called = [layer for layer, _ in seen if layer in self.facts.full_layers]
        if called != list(self.facts.full_layers):
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


def _lse_error(view: LayerView) -> float:
    """How far the log-sum-exp of a layer is from that of its logits."""
    assert view.lse_BHT is not None
    q, k = view.q_BHTD.float(), view.k_BGTD.float()
    logits = view.scaling * q @ k.repeat_interleave(q.shape[1] // k.shape[1], dim=1).mT
    later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
    return (logits.masked_fill(later, -torch.inf).logsumexp(dim=-1) - view.lse_BHT).abs().max().item()
