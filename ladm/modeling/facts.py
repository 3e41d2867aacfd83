"""The configuration of a model -> what can be known before its weights load: its sizes, and whether it will do.

Imports no torch, so that a model that cannot be used is refused within a second.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ladm.errors import LackOfMemoryError, LadmError, UsageError, one_line, raise_if_out_of_memory
from ladm.modeling.layer_kinds import layers_of, unscorable_layers, why_unscorable, window_tokens, windowed_layers
from ladm.modeling.model_files import model_folder
from ladm.settings.layers import spell_layers
from ladm.storage.json_object import read_json_object

_REFUSED = {
    "falcon": "falcon computes attention itself, not through transformers' attention interface",
    "bloom": "bloom adds an ALiBi bias to its logits, which the focus score does not model",
    "gpt_neo": "gpt_neo computes attention itself, not through transformers' attention interface",
    "gptj": "gptj computes attention itself, not through transformers' attention interface",
    "mpt": "mpt adds an ALiBi bias to its logits, which the focus score does not model",
    "gpt_oss": "gpt_oss has attention sinks, which the focus score does not model",
    "gemma2": "gemma2 caps its logits (softcap), which the focus score does not model",
}


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the configuration of a model says.

    `max_tokens`, with any scaling of the rotary angles, is None where the model sets no limit, and `head_size` None
    where it is not stated. `group_size` query heads share a key head; None where it is not stated or varies.
    `windowed` are the layers that do not see every earlier token, and `window` is how many they see. `unscorable` are
    the layers of hybrid models that have no plain softmax attention, with their kind, such as `linear attention`.
    """

    name: str
    folder: str
    model_type: str
    num_layers: int
    vocab_size: int
    max_tokens: int | None
    head_size: int | None
    group_size: int | None
    windowed: tuple[int, ...]
    unscorable: tuple[tuple[int, str], ...] = ()
    window: int | None = None
    longest_tokens: int | None = None
    """The longest row that `windowed` holds for; None: any."""
    activation: str | None = None
    """The activation of the MLPs, such as `silu`; None: it is not stated."""
    has_experts: bool = False
    """Is each token sent to a few of many MLPs (mixture of experts)?"""

    def at_length(self, tokens: int) -> ModelFacts:
        """The same for rows of at most `tokens`: a window that is no shorter hides nothing of them."""
        is_open = self.window is not None and tokens <= self.window
        return replace(self, longest_tokens=tokens, windowed=() if is_open else self.windowed)

    def fits_window(self, window: int | None) -> bool:
        """Does a window of that many tokens hide nothing of the rows?"""
        return window is None or (self.longest_tokens is not None and window >= self.longest_tokens)

    @property
    def full_layers(self) -> tuple[int, ...]:
        """The layers whose softmax attention sees every earlier token."""
        barred = {*self.windowed, *(layer for layer, _ in self.unscorable)}
        return tuple(layer for layer in range(self.num_layers) if layer not in barred)

    def problem_of(self, layers: tuple[int, ...]) -> str | None:
        """Why CDS cannot be computed from some of these layers, and which; None: it can."""
        kinds = dict(self.unscorable)
        others = [layer for layer in layers if layer in kinds]
        windowed = [layer for layer in layers if layer in self.windowed]
        if others:
            # A reader knows the others by the first, where a model has several kinds.
            why = why_unscorable(kinds[others[0]], count=len(others))
        elif windowed:
            why = f"{'sees' if len(windowed) == 1 else 'see'} only a window, which the focus score does not model"
        else:
            return None
        return f"{layers_of(others or windowed)} of this {self.model_type} model {why}"

    def choose_layers(self, requested: tuple[int, ...] | None) -> tuple[int, ...]:
        """The layers to score: the requested ones, or all.

        Raises UsageError for a layer that the model does not have and LadmError for one without full attention.
        """
        layers = tuple(range(self.num_layers)) if requested is None else requested
        if layers[-1] >= self.num_layers:
            raise UsageError(f"--layers names layer {layers[-1]}, but {self.name} has layers 0-{self.num_layers - 1}")
        problem = self.problem_of(layers)
        if problem is not None:
            free = self.full_layers
            remedy = f"leave such layers out: --layers {spell_layers(free)}" if free else "use another model"
            raise LadmError(f"{self.name}: {problem}; {remedy}")
        return layers


def model_facts(name: str, *, weights: bool = True) -> ModelFacts:
    """Read the configuration of a model folder, or of a Hub id after fetching its files.

    `weights=False`: for statistics of texts, which need neither weights nor attention, only the size of the vocabulary.
    Raises LadmError when there is no such model, when it holds no safetensors, or when its
    attention is known to be outside the method.
    """
    folder = model_folder(name, weights=weights)
    if not weights and (found := _facts_without_model(name, folder)) is not None:
        return found
    config = read_config(name, folder).get_text_config()
    if weights:
        _refuse(name, config)
    try:
        num_layers, vocab_size = int(config.num_hidden_layers), int(config.vocab_size)
    except (AttributeError, TypeError, ValueError):
        raise LadmError(f"{name}: {config.model_type} is not a decoder of text; use another model") from None
    if num_layers < 1 or vocab_size < 1:
        raise LadmError(f"{name}: config.json gives {num_layers} layers and a vocabulary of {vocab_size}")
    max_tokens, window = scaled_positions(config), window_tokens(config)
    facts = ModelFacts(
        name=name,
        folder=str(folder.absolute()),
        model_type=config.model_type,
        num_layers=num_layers,
        vocab_size=vocab_size,
        max_tokens=max_tokens,
        head_size=_head_size(config),
        group_size=_group_size(config),
        windowed=windowed_layers(config),
        unscorable=unscorable_layers(config),
        window=window,
        activation=getattr(config, "hidden_act", None),
        has_experts=_has_experts(config),
    )
    # Such as Phi-3.5-mini: a window of 262,144 tokens and 131,072 positions.
    return facts if max_tokens is None else facts.at_length(max_tokens)


def _facts_without_model(name: str, folder: Path) -> ModelFacts | None:
    """What `config.json` says by itself, without transformers, whose import takes seconds; None: it does not say it."""
    config = read_json_object(folder / "config.json")
    text = config.get("text_config", config)
    vocab_size = text.get("vocab_size") if isinstance(text, dict) else None
    num_layers = text.get("num_hidden_layers") if isinstance(text, dict) else None
    # GPT-2 and others name them with keys of their own, which transformers knows.
    if type(vocab_size) is not int or type(num_layers) is not int or min(vocab_size, num_layers) < 1:
        return None
    return ModelFacts(
        name=name, folder=str(folder.absolute()), model_type=str(config.get("model_type")), vocab_size=vocab_size,
        num_layers=num_layers, max_tokens=None, head_size=None, group_size=None, windowed=(),
    )  # fmt: skip


def scaled_positions(config: Any) -> int | None:
    """How many positions a model is made for, including a scaling of its rotary angles; None: it sets no limit.

    For yarn, llama3 and the like a configuration states the positions before the scaling, and only sometimes those
    after it, so the greater of the two numbers counts.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit < 1:
        return None
    rope = getattr(config, "rope_parameters", None) or {}
    kind, factor = rope.get("rope_type", "default"), rope.get("factor")
    if kind == "default" or not isinstance(factor, (int, float)) or not math.isfinite(factor):
        return limit
    original = rope.get("original_max_position_embeddings") or limit
    return max(limit, int(original * factor))


def stated_positions(name: str) -> int | None:
    """The positions of the model in a folder, which may hold a tokenizer and `config.json` alone; None: not known."""
    folder = Path(name)
    if not (folder / "config.json").is_file():
        return None
    try:
        return scaled_positions(read_config(name, folder).get_text_config())
    except LackOfMemoryError:
        raise
    except LadmError:
        # Whether a model can be used is a question for the command that uses it.
        return None


def _layer_configs(config: Any) -> list[Any]:
    return list(config.per_layer_config) if getattr(config, "is_heterogeneous", False) else [config]


def _has_experts(config: Any) -> bool:
    counts = (
        getattr(config, name, None)
        for name in ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    )
    return any(isinstance(count, int) and count > 1 for count in counts)


def _group_size(config: Any) -> int | None:
    sizes = set()
    for layer in _layer_configs(config):
        queries = getattr(layer, "num_attention_heads", None)
        # Where no number of key heads is stated every query head has its own.
        keys = getattr(layer, "num_key_value_heads", None) or queries
        sizes.add(queries // keys if isinstance(queries, int) and isinstance(keys, int) and keys else None)
    return sizes.pop() if len(sizes) == 1 else None


def _head_size(config: Any) -> int | None:
    """The largest of any layer, because kernels have a limit: Gemma 4 has larger heads in layers without a window."""
    layers = _layer_configs(config)
    # Earlier versions of transformers have a separate name for the larger size.
    sizes = [getattr(config, "global_head_dim", None), *map(_head_size_of_layer, layers)]
    return max((size for size in sizes if isinstance(size, int)), default=None)


def _head_size_of_layer(config: Any) -> int | None:
    # Multi-head latent attention: `head_dim` there is that of the rotary part alone.
    plain, rotary = (getattr(config, name, None) for name in ("qk_nope_head_dim", "qk_rope_head_dim"))
    if isinstance(plain, int) and isinstance(rotary, int):
        return plain + rotary
    size = getattr(config, "head_dim", None)
    if size is None and getattr(config, "num_attention_heads", None):
        size = config.hidden_size // config.num_attention_heads
    return size if isinstance(size, int) else None


def read_config(name: str, folder: Path) -> Any:
    """The configuration of a model folder; no code of it runs. Raises LadmError for one that cannot be used."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        # Fails where there are several, such as an encoder of prompts beside the decoder of a model of music.
        config.get_text_config()
        return config
    except Exception as error:
        raise_if_out_of_memory(error, action=f"read the configuration of {name}")
        # Every configuration class checks its fields in its own way, and raises exceptions of its own.
        if _has_own_code(folder):
            raise LadmError(
                f"{name}: this model needs its own code (auto_map in config.json), which ladm never runs; use a model "
                "type that transformers has built in"
            ) from None
        raise LadmError(f"{name}: config.json cannot be used: {one_line(error)}") from None


def _has_own_code(folder: Path) -> bool:
    try:
        return "auto_map" in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _refuse(name: str, config: Any) -> None:
    reason = _REFUSED.get(config.model_type.removesuffix("_text"))
    if reason is None and getattr(config, "attn_logit_softcapping", None):
        reason = f"{config.model_type} caps its logits (softcap), which the focus score does not model"
    if reason is None and getattr(config, "is_encoder_decoder", False):
        reason = f"{config.model_type} is an encoder and a decoder, not a decoder alone"
    if reason is not None:
        raise LadmError(f"{name}: {reason}; use another model")


def learned_positions(config: Any) -> int | None:
    """How many positions a model has learned, beyond which it has none; None: it computes them."""
    return None if getattr(config, "rope_parameters", None) else getattr(config, "max_position_embeddings", None)
