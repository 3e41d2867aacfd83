"""A Hugging Face decoder and token ids -> each layer's q, k, scaling and log-sum-exp, and losses, as the model runs.

The model is the stock one. Only its attention function is ours: see `attention_function.py`.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from ladm.errors import LadmError, count_of, one_line, raise_if_out_of_memory
from ladm.method.attention_choice import attention_kernel
from ladm.modeling.attention_function import (
    IMPLEMENTATION,
    ForwardContext,
    StopForward,
    Visit,
    is_missing_in_table,
    no_interface,
    register,
)
from ladm.modeling.attention_function import attention as attention_function
from ladm.modeling.facts import ModelFacts
from ladm.modeling.fused import FusedLayers
from ladm.modeling.language_head import LanguageHead, head_of
from ladm.modeling.load_check import LoadCheck, require_same_sizes
from ladm.modeling.loading_lock import LOADING
from ladm.modeling.rotary_state import RotaryState

_LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")


class Observer:
    """A loaded model whose layers can be observed; made by `load_observer`."""

    def __init__(
        self,
        model: PreTrainedModel,
        facts: ModelFacts,
        *,
        layers: tuple[int, ...],
        attention: str,
        fused: str = "none",
        also: tuple[int, ...] = (),
        head: LanguageHead | None = None,
    ) -> None:
        self.facts = facts
        self.layers = layers
        self.also = also
        self.device = model.device
        self.dtype = model.dtype
        bos = getattr(model.config.get_text_config(), "bos_token_id", None)
        self.bos_id = bos if isinstance(bos, int) else None
        """The token that the model expects in front of a text; None: it is not stated."""
        self.attention = attention
        self._model = model
        self._head = head
        self._rotary = RotaryState(model)
        self._fused = None if fused == "none" else FusedLayers(model, kernels=fused, attention=attention_function)

    @torch.inference_mode()
    def observe(self, ids_BT: Tensor, visit: Visit | None, *, to_end: bool = False) -> Tensor | None:
        """Run the model on int64 `ids_BT` and call `visit` at each wanted layer, in their order.

        The wanted layers are `self.layers` and `self.also`. The pass ends at the last wanted layer's q and k: its
        attention output, its MLP and everything behind it are never computed. With `to_end` it goes on, and the last
        hidden states, those that the head reads, are returned: (B, T, E). Without `visit` the pass computes nothing
        else.

        Raises LadmError for a model that never calls its attention in the last wanted layer, and where nothing is
        wanted of the pass: neither a layer nor its end.
        """
        wanted = frozenset((*self.layers, *self.also)) if visit is not None else frozenset()
        if not wanted and not to_end:
            raise LadmError("nothing to observe: give a function to call at each layer, or to_end=True")
        context = ForwardContext(self.attention, wanted, visit, to_end=to_end)
        self._rotary.restore()
        try:
            out = self._model(input_ids=ids_BT.to(self.device), use_cache=False, ladm_context=context)
        except StopForward:
            return None
        if not to_end:
            raise LadmError(f"{self.facts.name}: the forward pass never reached layer {max(wanted)}")
        hidden_BTE: Tensor = out.last_hidden_state
        return hidden_BTE

    @property
    def head(self) -> LanguageHead:
        """The head of a model that was loaded with one."""
        assert self._head is not None
        return self._head

    def check(self) -> None:
        """Compare with the stock model on a short input. Raises LadmError for a model whose scores would be wrong."""
        LoadCheck(
            model=self._model, facts=self.facts, layers=tuple(sorted({*self.layers, *self.also})),
            attention=self.attention, fused=self._fused,
        ).run()  # fmt: skip


def load_observer(
    facts: ModelFacts,
    *,
    layers: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    attention: str | None = None,
    fused: str = "none",
    also: tuple[int, ...] = (),
    head: bool = False,
    check: bool = True,
) -> Observer:
    """Load the weights of `facts.folder` and, unless `check` is False, check that they can be observed.

    `attention` is the name of a kernel; None: the one that `attention_kernel` chooses. `fused`: see `resolve_fused`.
    `also`: further layers to observe, whose CDS is not wanted. `head`: load the head too.

    Only safetensors are read and no code of the model folder is run.
    Raises LadmError when the weights do not fit the config or the checks fail.
    """
    model = _load_weights(facts, dtype=dtype, device=device, head=head)
    attention = attention or attention_kernel(
        str(device), dtype, head_size=facts.head_size, group_size=facts.group_size
    )
    body = model.base_model if head else model
    observer = Observer(
        body, facts, layers=layers, attention=attention, fused=fused, also=also, head=head_of(model) if head else None
    )
    if check:
        observer.check()
        if head:
            observer.head.check(
                facts.name, model_type=facts.model_type, vocab_size=facts.vocab_size,
                both_logits=partial(_both_logits, observer, model),
            )  # fmt: skip
    return observer


def _load_weights(facts: ModelFacts, *, dtype: torch.dtype, device: torch.device, head: bool) -> Any:
    """The model of `facts.folder`, whose attention is ours. Raises LadmError where weights and config do not match."""
    register()
    try:
        # The config is read separately, so that an attention kernel named in it is overruled and never fetched.
        config = AutoConfig.from_pretrained(facts.folder, trust_remote_code=False)
        # Without a use for the head its weights, a tenth of a small model, are not even read.
        kind = AutoModelForCausalLM if head else AutoModel
        with LOADING:
            model, loading = kind.from_pretrained(
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
        raise_if_out_of_memory(error, action=f"load the model {facts.name}")
        # Each model class, safetensors and the device raise exceptions of their own.
        if is_missing_in_table(error):
            raise no_interface(facts) from None
        raise LadmError(f"{facts.name}: the model does not load: {type(error).__name__}: {one_line(error)}") from None
    _require_matching_weights(facts, loading, head=head)
    return model


def _require_matching_weights(facts: ModelFacts, loading: Mapping[str, Any], *, head: bool) -> None:
    """Raise LadmError where the files have other weights than the config describes."""
    require_same_sizes(facts.name, loading)
    if loading["missing_keys"]:
        absent = sorted(map(str, loading["missing_keys"]))
        what = "a language model" if head else "the model"
        missing = count_of(len(absent), "weight")
        raise LadmError(f"{facts.name}: the safetensors lack {missing} of {what}, such as {absent[0]}")
    beyond = [int(found[1]) for key in loading["unexpected_keys"] if (found := _LAYER_NUMBER.search(str(key)))]
    if max(beyond, default=-1) >= facts.num_layers:
        raise LadmError(
            f"{facts.name}: the safetensors have a layer {max(beyond)}, but config.json gives {facts.num_layers} layers"
        )


@torch.inference_mode()
def _both_logits(observer: Observer, model: PreTrainedModel, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
    """The logits of a short input as the whole model makes them, and as the head makes them of hidden states."""
    context = ForwardContext(observer.attention, to_end=True)
    own = model(input_ids=ids_BT.to(observer.device), use_cache=False, ladm_context=context).logits.float()
    hidden = observer.observe(ids_BT, None, to_end=True)
    assert hidden is not None
    return own, observer.head.logits(hidden)
