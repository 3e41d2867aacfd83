"""A Hugging Face decoder and token ids -> each layer's q, k, scaling and log-sum-exp, as the model runs.

The model is the stock one. Only its attention function is ours: see `attention_function.py`.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ladm.errors import LadmError, one_line
from ladm.method.attention import attention_kernel
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
from ladm.modeling.load_check import LoadCheck

_LAYER_NUMBER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")


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
        self._fused = None if fused == "none" else FusedLayers(model, kernels=fused, attention=attention_function)

    @torch.inference_mode()
    def observe(self, ids_BT: Tensor, visit: Visit) -> None:
        """Run the model on int64 `ids_BT` and call `visit` at each wanted layer, in their order.

        The pass ends at the last wanted layer's q and k: its attention output, its MLP and
        everything behind it are never computed.
        """
        context = ForwardContext(self.attention, frozenset(self.layers), visit)
        try:
            self._model(input_ids=ids_BT.to(self.device), use_cache=False, ladm_context=context)
        except StopForward:
            return
        raise LadmError(f"{self.facts.name}: the forward pass never reached layer {self.layers[-1]}")

    def check(self) -> None:
        """Compare with the stock model on a short input. Raises LadmError for a model whose scores would be wrong."""
        LoadCheck(
            model=self._model, facts=self.facts, layers=self.layers, attention=self.attention, fused=self._fused
        ).run()


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
    register()
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
        if is_missing_in_table(error):
            raise no_interface(facts) from None
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
