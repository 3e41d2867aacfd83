"""A document through a plain forward pass, through ours, and through the released algorithm."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from released import Released
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, LlamaConfig

from ladm.method.focus import aggregated_focus, contextual_dependency
from ladm.method.focus import pairwise_focus as oracle
from ladm.method.grid import Grid, span_grid
from ladm.modeling.attention_function import LayerView
from ladm.modeling.facts import model_facts
from ladm.modeling.fused import resolve_fused
from ladm.modeling.observer import Observer, load_observer
from ladm.settings.layers import parse_layers
from ladm.signals.layer_cds import layer_cds

SHAPES = {
    "tiny": LlamaConfig(
        hidden_size=64, intermediate_size=176, num_hidden_layers=5, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=512, max_position_embeddings=32768, rope_theta=500_000.0, initializer_range=0.1,
    ),
    "tinyllama": LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
        vocab_size=32000, max_position_embeddings=32768, rope_theta=500_000.0,
    ),
    # SmolLM2-135M, whose rows of 4,096 tokens do not fill a GPU.
    "smollm2": LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
        head_dim=64, vocab_size=49152, max_position_embeddings=8192, rope_theta=100_000.0, rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    ),
}  # fmt: skip


def random_model(shape: str, folder: str, dtype: torch.dtype, tokens: int, *, device: str = "cpu") -> str:
    """Random weights of a known shape, saved so that every contender loads them the same way."""
    torch.manual_seed(0)
    config = SHAPES[shape]
    config.max_position_embeddings = max(tokens, config.max_position_embeddings)
    # A GPU draws a billion numbers in a moment; a CPU takes half a minute.
    with torch.device(device):
        model = AutoModel.from_config(config, dtype=dtype)
    model.cpu().save_pretrained(folder)
    return folder


def document(folder: str, tokens: int, *, random: bool) -> Tensor:
    """Ids (1, tokens): random, or the toy's coherent texts one after the other, for how sharp attention is matters."""
    if random:
        vocab_size = model_facts(folder).vocab_size
        return torch.randint(vocab_size, (1, tokens), generator=torch.Generator().manual_seed(1))
    packed = Path(__file__).resolve().parents[2] / "ladm" / "data" / "documents.jsonl.gz"
    documents = [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()]
    texts = [document["text"] for document in documents if document["meta"]["expected"] == "coherent"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [token for text in texts for token in tokenizer(text)["input_ids"]]
    if len(ids) < tokens:
        raise SystemExit(f"the toy's texts have {len(ids):,} tokens, and {tokens:,} are wanted")
    return torch.tensor([ids[:tokens]])


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way with a document: its model, the layers whose attention it needs, and the run itself."""

    model: torch.nn.Module
    whole_layers: int
    run: Callable[[], Any]


class Contenders:
    """Models are loaded when they are first needed, and kept in memory."""

    def __init__(self, folder: str, *, dtype: torch.dtype, device: str, backend: str, attention: str | None) -> None:
        self.facts = model_facts(folder)
        self.dtype, self.device, self.backend, self._attention = dtype, device, backend, attention
        self._kept: dict[str, Any] = {}

    def _once(self, name: str, load: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = load()
        return self._kept[name]

    def observer(self, layers: str | None = None, dtype: torch.dtype | None = None) -> Observer:
        """Ours, of some layers or of all."""
        dtype = dtype or self.dtype
        chosen = self.facts.choose_layers(parse_layers(layers))
        return self._once(
            f"{layers} {dtype}",
            lambda: load_observer(
                self.facts, layers=chosen, dtype=dtype, device=torch.device(self.device),
                attention=self._attention if dtype == self.dtype else None, check=dtype == self.dtype,
                fused=self.fused(dtype),
            ),
        )  # fmt: skip

    def fused(self, dtype: torch.dtype | None = None) -> str:
        """The fused layers that ladm would use by itself."""
        return resolve_fused("auto", device=self.device, dtype=dtype or self.dtype, model_type=self.facts.model_type)

    def released(self) -> Released:
        """The released algorithm."""
        return self._once("released", lambda: Released(self.facts.folder, self.dtype, self.device))

    def stock(self) -> torch.nn.Module:
        """The model as it is."""

        def load() -> torch.nn.Module:
            model = AutoModel.from_pretrained(self.facts.folder, dtype=self.dtype, attn_implementation="sdpa")
            return model.to(self.device).eval()

        return self._once("stock", load)

    def get(self, letter: str, ids: Tensor, grid: Grid, *, layers: str | None) -> Contender:
        """The contender a, b, c or d (ours with some layers)."""
        count = self.facts.num_layers
        if letter == "a":
            stock = self.stock()

            @torch.inference_mode()
            def plain() -> None:
                stock(input_ids=ids, use_cache=False)

            return Contender(model=stock, whole_layers=count, run=plain)
        if letter == "c":
            released = self.released()
            return Contender(model=released.model, whole_layers=count, run=lambda: released.cds(ids, grid))
        observer = self.observer(layers if letter == "d" else None)
        return Contender(
            model=observer._model,
            whole_layers=observer.layers[-1],
            run=lambda: layer_cds(observer, ids, grid, ablation="none", backend=self.backend),
        )

    def ours(self, ids: Tensor, grid: Grid) -> Tensor:
        """CDS of every layer, our way."""
        return layer_cds(self.observer(), ids, grid, ablation="none", backend=self.backend)["cds_per_layer"][0].cpu()

    def exact(self, ids: Tensor, grid: Grid) -> Tensor:
        """CDS of every layer by the oracle, from a float32 model."""
        found: list[float] = []

        def visit(view: LayerView) -> None:
            pfs = oracle(view.q_BHTD[0], view.k_BGTD[0], scaling=view.scaling, grid=grid)
            # Not on a GPU: the oracle visits pair after pair.
            found.append(contextual_dependency(aggregated_focus(pfs.cpu(), grid), grid).item())

        self.observer(dtype=torch.float32).observe(ids, visit)
        return torch.tensor(found)


def grid_of(tokens: int, *, span_tokens: int, d_afs: int, d_cds: int) -> Grid:
    """The released grid of a document."""
    return span_grid(tokens, variant="released", l=span_tokens, m=1, n=d_afs, n0=None, d_afs=d_afs, d_cds=d_cds)


def flops(config: Any, tokens: int, *, whole_layers: int) -> float:
    """Operations of one forward pass of a Llama without its head, attention counted under the causal mask.

    Of the layer behind the whole ones, where there is one, q and k alone.
    """
    hidden = config.hidden_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    q, k = (2 * hidden * head * heads for heads in (config.num_attention_heads, config.num_key_value_heads))
    per_token = 2 * (q + k) + 3 * 2 * hidden * config.intermediate_size
    attention = 2 * 2 * config.num_attention_heads * head * tokens / 2
    rest = q + k if whole_layers < config.num_hidden_layers else 0
    return float(tokens * (whole_layers * (per_token + attention) + rest))
