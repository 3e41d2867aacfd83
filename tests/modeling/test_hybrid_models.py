"""Models whose layers are of several kinds, whose values are smaller than their queries, or that have experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from ladm.errors import LadmError
from ladm.method.attention import causal_attention
from ladm.method.focus import pairwise_focus
from ladm.method.grid import span_grid
from ladm.modeling.attention_function import LayerView
from ladm.modeling.facts import model_facts
from ladm.modeling.observer import load_observer
from support.models import SMALL
from support.paths import GOLDEN

SIZES: dict[str, Any] = {
    "vocab_size": 512, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.3,
}  # fmt: skip
DELTA = {"linear_num_key_heads": 2, "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16,
    "v_head_dim": 12, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16,
    "num_experts_per_tok": 2,
}  # fmt: skip
TOKENS = torch.arange(60).mul(31).remainder(512).unsqueeze(0)

HYBRIDS: dict[str, tuple[dict[str, Any], str, tuple[int, ...]]] = {
    "qwen3_next": (
        {"head_dim": 8, "shared_expert_intermediate_size": 16, **DELTA, **EXPERTS},
        "layers 0-2 of this qwen3_next model have linear attention",
        (3,),
    ),
    "qwen3_5_text": (
        {"head_dim": 8, **DELTA},
        "layers 0-2 of this qwen3_5_text model have linear attention",
        (3,),
    ),
    "lfm2": (
        {"layer_types": ["full_attention", "conv", "full_attention", "conv"]},
        "layers 1,3 of this lfm2 model have conv",
        (0, 2),
    ),
}


def save(kind: str, folder: Path, **sizes: Any) -> str:
    torch.manual_seed(0)
    tf.AutoModelForCausalLM.from_config(tf.AutoConfig.for_model(kind, **{**SIZES, **sizes})).save_pretrained(folder)
    return str(folder)


def focus_errors(folder: str, layers: tuple[int, ...]) -> list[float]:
    """For each layer the largest relative difference of PFS from the weights that the stock model returns."""
    views: list[LayerView] = []
    observer = load_observer(model_facts(folder), layers=layers, dtype=torch.float32, device=torch.device("cpu"))
    observer.observe(TOKENS, views.append)
    assert [view.layer for view in views] == list(layers)
    stock = tf.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    with torch.inference_mode():
        # transformers returns those of the layers that have any.
        weights = stock(input_ids=TOKENS, output_attentions=True).attentions
    grid = span_grid(60, variant="paper", l=5, m=1, n=1, n0=3, d_afs=1, d_cds=1)
    errors = []
    for view, weights_BHTT in zip(views, weights, strict=True):
        pfs = pairwise_focus(view.q_BHTD[0], view.k_BGTD[0], scaling=view.scaling, grid=grid)
        expected = [
            (pfs[row, i].item(), weights_BHTT[0, :, grid.tokens(j)].mean(0)[:, grid.tokens(i)].sum().item())
            for row, j in enumerate(grid.J)
            for i in grid.I[row]
        ]
        errors.append(max(abs(found - stock) / stock for found, stock in expected))
    return errors


@pytest.mark.parametrize("kind", HYBRIDS)
def test_the_softmax_layers_of_a_hybrid_model_can_be_scored(kind: str, tmp_path: Path) -> None:
    sizes, problem, layers = HYBRIDS[kind]
    folder = save(kind, tmp_path / kind, **sizes)
    with pytest.raises(LadmError) as caught:
        model_facts(folder).choose_layers(None)
    assert str(caught.value) == (
        f"{folder}: {problem} in place of the softmax attention that the focus score is made of; "
        f"leave such layers out: --layers {','.join(map(str, layers))}"
    )
    assert model_facts(folder).choose_layers(layers) == layers
    assert max(focus_errors(folder, layers)) < 1e-4


def test_a_layer_with_softmax_attention_beside_another_kind_is_called_that(tmp_path: Path) -> None:
    sizes = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_ssm": 64, "mamba_d_state": 8, "mamba_n_groups": 1}
    folder = save("falcon_h1", tmp_path / "model", **sizes)
    with pytest.raises(LadmError) as caught:
        model_facts(folder).choose_layers(None)
    assert str(caught.value) == (
        f"{folder}: layers 0-3 of this falcon_h1 model have something else besides the softmax attention that the "
        "focus score is made of; use another model"
    )


def test_a_hybrid_model_scores_a_data_set(ladm: Any, short_rows: str, tmp_path: Path) -> None:
    folder = save("qwen3_5_text", tmp_path / "model", **HYBRIDS["qwen3_5_text"][0])
    common = ("score", short_rows, *SMALL, "--model", folder)
    refused = ladm(*common, "--signals", "cds,longattn", "--layers", "3", "--output", tmp_path / "refused")
    assert refused.exit_code == 1
    assert refused.stderr.splitlines()[-1] == (
        f"ladm: {folder}: layer 0 of this qwen3_5_text model has linear attention in place of the softmax attention "
        "that the focus score is made of; longattn needs its attention too: leave it out of --signals"
    )
    result = ladm(*common, "--signals", "cds,context-gain", "--layers", "3", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "run" / "sorted_by_score.jsonl").read_text().splitlines()
    assert len(lines) == 7
    assert all(json.loads(line)["score"] > 0 for line in lines)


@pytest.mark.parametrize("kind", ["deepseek_v3", "minicpm3"])
def test_values_may_be_smaller_than_queries(kind: str, tmp_path: Path) -> None:
    """Multi-head latent attention."""
    folder = save(kind, tmp_path / kind, **LATENT)
    facts = model_facts(folder)
    # Attention kernels are chosen and tried by it; `head_dim` in the config is that of the rotary part.
    assert (facts.head_size, facts.group_size) == (24, 1)
    assert max(focus_errors(folder, (0, 1, 2, 3))) < 1e-4


def test_smaller_values_give_the_attention_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 40, size, generator=generator) for heads, size in ((4, 24), (2, 24), (2, 12)))
    out, lse = causal_attention(q, k, v, scaling=0.2, kernel="aten-flash-cpu")
    later = torch.ones(40, 40, dtype=torch.bool).triu(1)
    logits = (0.2 * q @ k.repeat_interleave(2, dim=1).mT).masked_fill(later, -torch.inf)
    torch.testing.assert_close(out, logits.softmax(dim=-1) @ v.repeat_interleave(2, dim=1))
    torch.testing.assert_close(lse, logits.logsumexp(dim=-1))


def test_experts_chosen_differently_by_rounding_are_no_wrong_attention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 some tokens of this model reach another expert with our attention than with the stock one."""
    folder = save("mixtral", tmp_path / "mixtral", num_local_experts=4, num_experts_per_tok=2, head_dim=8)

    def load() -> None:
        load_observer(model_facts(folder), layers=(0,), dtype=torch.bfloat16, device=torch.device("cpu"))

    load()

    def stronger(*qkv: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = causal_attention(*qkv, **options)
        return 1.5 * out, lse

    monkeypatch.setattr("ladm.modeling.attention_function.causal_attention", stronger)
    with pytest.raises(LadmError, match=r"does not reproduce this mixtral model .*; try --dtype float32, or use anoth"):
        load()


def test_a_stock_model_that_does_not_run_is_one_line(tmp_path: Path) -> None:
    """The key heads of latent attention are not in the size of any weight, so this loads."""
    folder = save("minicpm3", tmp_path / "model", **{**LATENT, "num_key_value_heads": 2})
    with pytest.raises(LadmError) as caught:
        load_observer(model_facts(folder), layers=(0,), dtype=torch.float32, device=torch.device("cpu"))
    assert str(caught.value) == (
        f"{folder}: the stock minicpm3 model does not run (RuntimeError: The size of tensor a (4) must match the size "
        "of tensor b (8) at non-singleton dimension 1); its config.json may not match its weights"
    )


def test_the_golden_model_has_one_kind_of_layer() -> None:
    facts = model_facts(str(GOLDEN))
    assert (facts.full_layers, facts.unscorable, facts.has_experts) == ((0, 1, 2), (), False)
