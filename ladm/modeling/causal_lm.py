"""A model folder -> a causal language model with all its weights, and the loss of every token.

Shape suffixes: B rows, T tokens, E width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ladm.errors import LadmError, one_line, raise_if_out_of_memory
from ladm.modeling.devices import resolve_devices, resolve_dtype
from ladm.modeling.facts import learned_positions, read_config, scaled_positions
from ladm.modeling.language_head import LanguageHead, head_of
from ladm.modeling.load_check import require_same_sizes
from ladm.modeling.loading_lock import LOADING
from ladm.modeling.model_files import model_folder
from ladm.modeling.rotary_state import RotaryState, depends_on_length
from ladm.progress import Echo


@dataclass(frozen=True, kw_only=True)
class CausalLM:
    """A causal language model on a device. `max_tokens`: its positions, see `scaled_positions`."""

    name: str
    model: Any
    device: torch.device
    vocab_size: int
    max_tokens: int | None
    same_for_prefixes: bool
    """Do the losses of a row's first tokens stay the same when the row is cut behind them?"""
    learned_positions: int | None
    """How many positions it has learned, beyond which it has none; None: it computes them."""
    head: LanguageHead
    rotary: RotaryState
    """To restore before a pass."""


def load_language(name: str, *, device: str, dtype: str) -> CausalLM:
    """Load a model for evaluation. Raises LadmError for one that cannot be used."""
    where = torch.device(resolve_devices(device)[0])
    model = load_causal(name, dtype=resolve_dtype(dtype, str(where)), attention="sdpa").to(where).eval()
    config = model.config.get_text_config()
    found = CausalLM(
        name=name,
        model=model,
        device=where,
        vocab_size=int(config.vocab_size),
        max_tokens=scaled_positions(config),
        same_for_prefixes=not depends_on_length(config),
        learned_positions=learned_positions(config),
        head=head_of(model),
        rotary=RotaryState(model),
    )
    found.head.check(name, model_type=config.model_type, vocab_size=found.vocab_size, both_logits=_both_logits(found))
    return found


def require_positions(language: CausalLM, length: int, echo: Echo) -> None:
    """Warn of rows longer than the model was made for. Raises LadmError where it has no positions for the rest."""
    if language.max_tokens is None or length <= language.max_tokens:
        return
    if language.learned_positions is not None:
        raise LadmError(
            f"{language.name} has only {language.learned_positions:,} learned positions, not enough for {length:,} "
            "tokens; request fewer tokens"
        )
    echo(f"warning   {language.name} is made for {language.max_tokens:,} positions")


def why_not_causal(config: Any, error: Exception) -> str:
    """Why the model of `config` does not load as a causal language model: the end of a message."""
    # That of a type without such a class lists the hundreds of types that have one.
    if "Unrecognized configuration class" in str(error):
        return f"is not a causal language model but of the type {config.model_type}; use another model"
    return f"cannot be loaded as a language model: {one_line(error)}"


def load_causal(name: str, *, dtype: torch.dtype, attention: str, config: Any = None) -> Any:
    """A causal language model with all its weights; no code of the folder runs.

    Raises LadmError for one that does not load, or whose folder lacks weights, such as a model without its head.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder = model_folder(name)
    # Its errors are clearer than those of loading with a configuration that cannot be read.
    config = config or read_config(name, folder)
    try:
        with LOADING:
            model, info = AutoModelForCausalLM.from_pretrained(
                folder, config=config, dtype=dtype, attn_implementation=attention, trust_remote_code=False,
                use_safetensors=True, output_loading_info=True,
                # Reported below with both sizes, and refused.
                ignore_mismatched_sizes=True,
            )  # fmt: skip
    except Exception as error:
        raise_if_out_of_memory(error, action=f"load the model {name}")
        # Each model class raises exceptions of its own for weights or settings that do not fit.
        raise LadmError(f"{name} {why_not_causal(config, error)}") from None
    require_same_sizes(name, info)
    missing = sorted(info["missing_keys"])
    if missing:
        raise LadmError(
            f"{name}: its files lack {len(missing)} weights, such as {missing[0]}; use a complete language model"
        )
    return model


@torch.inference_mode()
def token_losses(language: CausalLM, ids_BT: Tensor) -> Tensor:
    """-log p of every token but the first given all before it: (B, T) ids -> (B, T - 1) float32 on the CPU.

    The logits are made and used a chunk of tokens at a time, so that B x T x V numbers never exist.
    """
    ids_BT = ids_BT.to(language.device)
    hidden_BTE = _hidden(language, ids_BT)
    # The last hidden state predicts a token that is not in the row, so it gets no logits.
    return language.head.losses(hidden_BTE[:, :-1], ids_BT[:, 1:]).cpu()


def _hidden(language: CausalLM, ids_BT: Tensor) -> Tensor:
    language.rotary.restore()
    hidden: Tensor = language.model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
    return hidden


def _both_logits(language: CausalLM) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    @torch.inference_mode()
    def both(ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        ids_BT = ids_BT.to(language.device)
        language.rotary.restore()
        own = language.model(input_ids=ids_BT, use_cache=False).logits.float()
        return own, language.head.logits(_hidden(language, ids_BT))

    return both
