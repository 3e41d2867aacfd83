"""Which decoders can be observed, which are refused and how, and what is never computed."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
import transformers as tf

from ladm.errors import LadmError, UsageError
from ladm.method.attention import causal_attention
from ladm.method.focus import pairwise_focus
from ladm.method.grid import span_grid
from ladm.modeling.attention_function import IMPLEMENTATION, ForwardContext, LayerView, attention
from ladm.modeling.facts import model_facts, spell_layers, stated_positions
from ladm.modeling.observer import Observer, load_observer
from support.decoders import GROUPED, OBSERVED, SMALL, TOKENS
from support.paths import GOLDEN

EXPERTS = {"num_experts_per_tok": 1, "head_dim": 8}
REFUSED: dict[str, tuple[Any, str]] = {
    "falcon": (
        lambda: tf.FalconConfig(vocab_size=96, hidden_size=32, num_hidden_layers=2, num_attention_heads=4),
        "falcon computes attention itself, not through transformers' attention interface; use another model",
    ),
    "bloom": (
        lambda: tf.BloomConfig(vocab_size=96, hidden_size=32, n_layer=2, n_head=4),
        "bloom adds an ALiBi bias to its logits, which the focus score does not model; use another model",
    ),
    "mpt": (
        lambda: tf.MptConfig(vocab_size=96, d_model=32, n_layers=2, n_heads=4),
        "mpt adds an ALiBi bias to its logits, which the focus score does not model; use another model",
    ),
    "gpt_oss": (
        lambda: tf.GptOssConfig(**GROUPED, **EXPERTS, num_local_experts=2),
        "gpt_oss has attention sinks, which the focus score does not model; use another model",
    ),
    "gemma2": (
        lambda: tf.Gemma2Config(**GROUPED, head_dim=8),
        "gemma2 caps its logits (softcap), which the focus score does not model; use another model",
    ),
    "mistral": (
        lambda: tf.MistralConfig(**GROUPED, sliding_window=16),
        "layers 0-2 of this mistral model see only a window, which the focus score does not model; use another model",
    ),
    "gemma3": (
        lambda: tf.Gemma3TextConfig(**GROUPED, head_dim=8, sliding_window=16, sliding_window_pattern=3),
        "layers 0-1 of this gemma3_text model see only a window, which the focus score does not model; "
        "leave such layers out: --layers 2",
    ),
}


def save(config: Any, folder: Path) -> str:
    torch.manual_seed(0)
    tf.AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)


def load(folder: str, layers: tuple[int, ...] | None = None) -> Observer:
    facts = model_facts(folder)
    chosen = facts.choose_layers(layers)
    return load_observer(facts, layers=chosen, dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize("kind", OBSERVED)
def test_q_and_k_give_the_attention_of_the_stock_model(kind: str, tmp_path: Path) -> None:
    folder = save(OBSERVED[kind](), tmp_path / kind)
    views: list[LayerView] = []
    load(folder).observe(TOKENS, views.append)
    stock = tf.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    with torch.inference_mode():
        weights = stock(input_ids=TOKENS, output_attentions=True).attentions
    grid = span_grid(60, variant="paper", l=5, m=1, n=1, n0=3, d_afs=1, d_cds=1)
    assert [view.layer for view in views] == [0, 1, 2]
    for view, weights_BHTT in zip(views, weights, strict=True):
        pfs = pairwise_focus(view.q_BHTD[0], view.k_BGTD[0], scaling=view.scaling, grid=grid)
        for row, j in enumerate(grid.J):
            rows = weights_BHTT[0, :, grid.tokens(j)].mean(0)
            for i in grid.I[row]:
                assert pfs[row, i].item() == pytest.approx(rows[:, grid.tokens(i)].sum().item(), rel=1e-4)


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
BY_LENGTH: dict[str, Any] = {
    "dynamic": lambda: tf.LlamaConfig(**GROUPED, initializer_range=0.3, rope_parameters=DYNAMIC),
    "longrope": lambda: tf.LlamaConfig(
        **GROUPED, initializer_range=0.3,
        rope_parameters=DYNAMIC | {
            "rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 20,
        },
    ),
    "of each kind of layer": lambda: tf.Gemma3TextConfig(
        **GROUPED, head_dim=8, sliding_window=16, sliding_window_pattern=3, initializer_range=0.3,
        rope_parameters={"sliding_attention": {"rope_type": "default", "rope_theta": 1e4}, "full_attention": DYNAMIC},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BY_LENGTH)
def test_a_row_leaves_nothing_behind_for_the_next(kind: str, tmp_path: Path) -> None:
    """A stock model with dynamic RoPE turns a row by the angles of the longest row that it has seen so far."""
    config = BY_LENGTH[kind]()
    config.max_position_embeddings = 20
    folder = save(config, tmp_path / kind)

    def queries(observer: Observer, length: int) -> torch.Tensor:
        views: list[LayerView] = []
        observer.observe(TOKENS[:, :length], lambda view: views.append(view))
        return views[-1].q_BHTD.clone()

    layers = (2,)
    used = load(folder, layers)
    for length in (60, 40, 20, 10, 50):
        assert torch.equal(queries(used, length), queries(load(folder, layers), length))


@pytest.mark.parametrize("kind", REFUSED)
def test_models_outside_the_method_are_refused_before_their_weights_load(kind: str, tmp_path: Path) -> None:
    make, message = REFUSED[kind]
    folder = tmp_path / kind
    make().save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(LadmError) as caught:
        model_facts(str(folder)).choose_layers(None)
    assert str(caught.value) == f"{folder}: {message}"


def test_a_model_with_several_models_of_text_is_refused(tmp_path: Path) -> None:
    """MusicGen reads its prompt with an encoder and writes codes with a decoder."""
    parts = {"text_encoder": tf.T5Config(), "audio_encoder": tf.EncodecConfig(), "decoder": tf.MusicgenDecoderConfig()}
    folder = tmp_path / "musicgen"
    tf.MusicgenConfig(**{name: part.to_dict() for name, part in parts.items()}).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(LadmError, match=f"^{folder}: config.json cannot be used: Multiple valid text configs"):
        model_facts(str(folder))
    assert stated_positions(str(folder)) is None


def test_an_unwindowed_layer_of_a_windowed_model_can_be_scored(tmp_path: Path) -> None:
    folder = save(REFUSED["gemma3"][0](), tmp_path / "gemma3")
    views: list[LayerView] = []
    load(folder, (2,)).observe(TOKENS, views.append)
    stock = tf.AutoModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    with torch.inference_mode():
        weights = stock(input_ids=TOKENS, output_attentions=True).attentions[2]
    grid = span_grid(60, variant="paper", l=5, m=1, n=1, n0=3, d_afs=1, d_cds=1)
    pfs = pairwise_focus(views[0].q_BHTD[0], views[0].k_BGTD[0], scaling=views[0].scaling, grid=grid)
    rows = weights[0, :, grid.tokens(grid.J[-1])].mean(0)
    assert pfs[-1, 1].item() == pytest.approx(rows[:, grid.tokens(1)].sum().item(), rel=1e-4)


def test_windowed_layers_ask_for_no_grouped_keys_with_their_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA only the kernel that writes all T x T logits of every head takes both."""
    calls: list[tuple[Any, ...]] = []
    plain = torch.nn.functional.scaled_dot_product_attention

    def recorded(q: Any, k: Any, v: Any, **options: Any) -> Any:
        calls.append((q.shape[1], k.shape[1], v.shape[1], options.get("enable_gqa", False)))
        return plain(q, k, v, **options)

    observer = load(save(REFUSED["gemma3"][0](), tmp_path / "gemma3"), (2,))
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    observer.observe(TOKENS, lambda _: None)
    heads, keys = GROUPED["num_attention_heads"], GROUPED["num_key_value_heads"]
    assert heads > keys
    assert calls == 2 * [(heads, heads, heads, False)]


needs_gemma4 = pytest.mark.skipif(not hasattr(tf, "Gemma4TextConfig"), reason="needs a transformers that has Gemma 4")


def gemma4(folder: Path) -> str:
    config = tf.Gemma4TextConfig(
        **GROUPED | {"num_hidden_layers": 6}, head_dim=8, global_head_dim=16, hidden_size_per_layer_input=8,
        vocab_size_per_layer_input=GROUPED["vocab_size"], num_kv_shared_layers=0, sliding_window=16,
    )  # fmt: skip
    return save(config, folder)


@needs_gemma4
def test_the_head_size_is_the_largest_of_any_layer(tmp_path: Path) -> None:
    """Attention kernels are chosen and tried by it; Gemma 4 has larger heads in the layers that can be scored."""
    folder = gemma4(tmp_path / "gemma4")
    assert model_facts(folder).head_size == 16
    views: list[LayerView] = []
    load(folder, (5,)).observe(TOKENS, views.append)
    assert [view.q_BHTD.shape[-1] for view in views] == [16]


def test_the_group_size_is_that_of_all_layers(tmp_path: Path) -> None:
    """FlashAttention 4 is compiled for it, so the attention that is tried before the model is loaded has it too."""
    heads, keys = GROUPED["num_attention_heads"], GROUPED["num_key_value_heads"]
    assert model_facts(save(tf.LlamaConfig(**GROUPED), tmp_path / "grouped")).group_size == heads // keys
    every = GROUPED | {"num_key_value_heads": heads}
    assert model_facts(save(tf.LlamaConfig(**every), tmp_path / "own keys")).group_size == 1


class Disguise:
    """A model type that the table of refusals does not name, so that the behavioural checks must speak."""

    def __init__(self, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ladm.modeling.facts._REFUSED", {})
        monkeypatch.setattr("ladm.modeling.facts._refuse", lambda *_: None)
        monkeypatch.setattr("ladm.modeling.facts.windowed_layers", lambda *_: ())
        self.folder = folder

    def refusal(self) -> str:
        with pytest.raises(LadmError) as caught:
            load(self.folder)
        return str(caught.value).removeprefix(f"{self.folder}: ")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bloom", "bloom models never call transformers' attention interface; use another model"),
        (
            "gpt_oss",
            "layer 0 of this gpt_oss model has attention sinks, which the focus score does not model; "
            "use another model",
        ),
        (
            "gemma2",
            "layer 0 of this gemma2 model caps its logits (softcap), which the focus score does not model; "
            "use another model",
        ),
        (
            "mistral",
            "layer 0 of this mistral model sees only a window (it can be left out with --layers); use another model",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_the_behavioural_checks_refuse_what_no_table_names(
    kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(REFUSED[kind][0](), tmp_path / kind)
    assert Disguise(folder, monkeypatch).refusal() == message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("falcon", "falcon models never call transformers' attention interface; use another model"),
        (
            "mpt",
            "mpt models cannot be observed: they fail with ladm's attention function (AttributeError: 'NoneType' "
            "object has no attribute 'to'); use another model",
        ),
        (
            "stablelm",
            "stablelm models do not pass options on to their attention function, so they cannot be observed; use "
            "another model",
        ),
    ],
)
def test_a_model_that_breaks_on_our_attention_is_refused(
    kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tf.StableLmConfig(**GROUPED) if kind == "stablelm" else REFUSED[kind][0]()
    folder = save(config, tmp_path / kind)
    assert Disguise(folder, monkeypatch).refusal() == message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "config", [tf.BertConfig(**SMALL), tf.LlamaConfig(**GROUPED, is_causal=False)], ids=["encoder", "decoder"]
)
def test_attention_to_later_tokens_is_noticed_in_every_precision(
    config: Any, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Causal attention changes the hidden states of such a small model by less than rounding to bfloat16 may."""
    folder = save(config, tmp_path / "model")
    with pytest.raises(LadmError) as caught:
        load_observer(model_facts(folder), layers=(0,), dtype=dtype, device=torch.device("cpu"))
    kind = config.model_type
    expected = f"this {kind} model attends to later tokens as well; use a causal language model"
    assert str(caught.value) == f"{folder}: {expected}"


@pytest.mark.parametrize("where", ["layer", "call"])
def test_a_layer_without_a_mask_that_is_not_causal_is_refused(where: str) -> None:
    q = torch.randn(1, 2, 8, 16)
    module = SimpleNamespace(layer_idx=0, is_causal=where == "call")
    extras = {"is_causal": False} if where == "call" else {}
    with pytest.raises(LadmError, match="^the model attends to later tokens as well; use a causal language model$"):
        attention(module, q, q, q, None, ladm_context=ForwardContext("aten-flash-cpu"), **extras)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [(torch.float32, "use another model"), (torch.bfloat16, "try --dtype float32, or use another model")],
)
def test_attention_that_is_not_that_of_the_model_is_noticed(
    dtype: torch.dtype, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stronger(*qkv: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = causal_attention(*qkv, **options)
        return 1.5 * out, lse

    monkeypatch.setattr("ladm.modeling.attention_function.causal_attention", stronger)
    message = rf"does not reproduce this llama model \(hidden states differ by .*\), so scores .* be wrong; {remedy}$"
    with pytest.raises(LadmError, match=message):
        load_observer(model_facts(str(GOLDEN)), layers=(0,), dtype=dtype, device=torch.device("cpu"))


@needs_gemma4
def test_rounding_that_a_model_enlarges_is_no_wrong_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stock model's own attentions, eager and sdpa, differ by 6 % here in bfloat16."""
    facts = model_facts(gemma4(tmp_path / "gemma4"))
    load = partial(load_observer, facts, layers=(5,), dtype=torch.bfloat16, device=torch.device("cpu"))
    load()

    def of_next_token(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> Any:
        return causal_attention(q, k, v.roll(1, dims=2), **options)

    monkeypatch.setattr("ladm.modeling.attention_function.causal_attention", of_next_token)
    with pytest.raises(LadmError, match="causal attention does not reproduce this gemma4_text model"):
        load()


def test_nothing_runs_after_the_last_wanted_layer() -> None:
    observer = load(str(GOLDEN), (0, 1))
    ran: list[str] = []
    for name, module in observer._model.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    observer.observe(TOKENS, lambda _: None)
    assert "layers.0.mlp" in ran
    assert "layers.1.self_attn.k_proj" in ran
    assert not [
        name for name in ran if name.startswith(("layers.1.mlp", "layers.1.self_attn.o_proj", "layers.2", "norm"))
    ]


def test_only_wanted_layers_are_visited_and_the_last_has_no_log_sum_exp() -> None:
    seen: list[tuple[int, bool]] = []
    load(str(GOLDEN), (0, 2)).observe(TOKENS, lambda view: seen.append((view.layer, view.lse_BHT is None)))
    assert seen == [(0, False), (2, True)]


def test_no_logits_over_the_vocabulary(golden_observer: Observer) -> None:
    assert not hasattr(golden_observer._model, "lm_head")


def test_an_attention_kernel_and_code_named_by_the_model_folder_are_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(GOLDEN, folder)
    marker = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "modeling_evil.C", "AutoModel": "modeling_evil.M"}
    config["_attn_implementation"] = config["attn_implementation"] = "evil-org/evil-kernel"
    (folder / "config.json").write_text(json.dumps(config))
    views: list[LayerView] = []
    load(str(folder)).observe(TOKENS, views.append)
    assert len(views) == 3
    assert not marker.exists()


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    folder = tmp_path / "more"
    shutil.copytree(GOLDEN, folder)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LadmError) as caught:
        load(str(folder))
    assert str(caught.value) == (
        f"{folder}: the safetensors lack 9 weights of the model, such as layers.3.input_layernorm.weight"
    )


def test_weights_of_more_layers_than_the_config_says_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "fewer"
    shutil.copytree(GOLDEN, folder)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(LadmError) as caught:
        load(str(folder))
    assert str(caught.value) == f"{folder}: the safetensors have a layer 2, but config.json gives 2 layers"


def test_a_layer_the_model_does_not_have() -> None:
    with pytest.raises(UsageError) as caught:
        model_facts(str(GOLDEN)).choose_layers((1, 3))
    assert str(caught.value) == f"--layers names layer 3, but {GOLDEN} has layers 0-2"


def test_layers_are_spelled_as_they_are_read() -> None:
    assert spell_layers([0, 1, 2, 5, 7, 8]) == "0-2,5,7-8"


def test_a_stock_pass_that_fails_is_one_line_and_leaves_our_attention_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    options: Any = {"layers": (0,), "dtype": torch.bfloat16, "device": torch.device("cpu")}
    observer = load_observer(model_facts(str(GOLDEN)), **options)
    full = RuntimeError("CUDA error: out of memory")
    broken = RuntimeError("no kernel")

    def stronger(*qkv: torch.Tensor, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        out, lse = causal_attention(*qkv, **options)
        return 1.5 * out, lse

    # So far from the stock model that its own rounding is measured, in a second pass with sdpa.
    monkeypatch.setattr("ladm.modeling.attention_function.causal_attention", stronger)
    memory = f"^not enough memory to run the stock model {GOLDEN} "
    stops = f"^{GOLDEN}: the stock llama model does not run "
    for function, error, message in (
        ("torch.nn.functional.scaled_dot_product_attention", full, memory),
        (
            "torch.nn.functional.scaled_dot_product_attention",
            broken,
            rf"{stops}with sdpa \(RuntimeError: no kernel\), so its rounding cannot be measured; try --dtype float32, "
            "or use another model$",
        ),
        ("transformers.models.llama.modeling_llama.eager_attention_forward", full, memory),
        (
            "transformers.models.llama.modeling_llama.eager_attention_forward",
            broken,
            rf"{stops}\(RuntimeError: no kernel\); its config.json may not match its weights$",
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(function, Mock(side_effect=error))
            with pytest.raises(LadmError, match=message):
                observer.check()
        assert observer._model.config._attn_implementation == IMPLEMENTATION


def test_fused_layers_stay_in_place_where_the_stock_model_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tf.AutoModel.from_pretrained(GOLDEN, attn_implementation=IMPLEMENTATION, dtype=torch.float32)
    observer = Observer(model, model_facts(str(GOLDEN)), layers=(0,), attention="aten-flash-cpu", fused="triton")
    error = RuntimeError("no kernel")
    monkeypatch.setattr("transformers.models.llama.modeling_llama.eager_attention_forward", Mock(side_effect=error))
    with pytest.raises(LadmError, match="the stock llama model does not run"):
        observer.check()
    assert all("forward" in vars(layer) for layer in model.layers)


def test_a_pass_that_observes_nothing_is_refused(golden_observer: Any) -> None:
    with pytest.raises(LadmError, match="^nothing to observe: give a function to call at each layer, or to_end=True$"):
        golden_observer.observe(TOKENS, None)
