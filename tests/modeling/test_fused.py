"""The fused layers against the stock ones, kernel by kernel and model by model; what `--fused` resolves to."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf

from ladm.errors import LadmError, UsageError
from ladm.modeling import fused, fused_triton
from ladm.modeling.facts import model_facts
from ladm.modeling.fused import FUSED_MODEL_TYPES, FusedLayers, resolve_fused
from ladm.modeling.observer import Observer, load_observer
from support.decoders import GROUPED, OBSERVED, TOKENS
from support.paths import GOLDEN

DEVICE = "cuda" if torch.cuda.is_available() and os.environ["TRITON_INTERPRET"] != "1" else "cpu"
KINDS = ["triton"] + (["liger"] if DEVICE == "cuda" and importlib.util.find_spec("liger_kernel") else [])
"""liger-kernel runs on a GPU alone: Triton's interpreter does not take its kernels."""


@pytest.mark.parametrize("shape", [(2, 5, 48), (1, 3, 4, 16), (1, 7, 2500)])
def test_rms_norm_equals_plain_torch(shape: tuple[int, ...]) -> None:
    x, weight = torch.randn(shape, device=DEVICE), torch.randn(shape[-1], device=DEVICE)
    expected = torch.nn.functional.rms_norm(x, shape[-1:], weight, 1e-5)
    assert torch.allclose(fused_triton.rms_norm(x, weight, 1e-5), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("H", "G", "D"), [(6, 2, 16), (3, 1, 20)])
@pytest.mark.parametrize("angles_of_each_row", [True, False])
def test_the_rotary_embedding_equals_that_of_llama(H: int, G: int, D: int, angles_of_each_row: bool) -> None:
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    # Heads behind tokens in memory, as the projections of a layer leave them.
    q, k = (torch.randn(2, 11, heads, D, device=DEVICE).transpose(1, 2) for heads in (H, G))
    half = torch.randn(2 if angles_of_each_row else 1, 11, D // 2, device=DEVICE)
    angles = torch.cat([half, half], dim=-1)
    expected = apply_rotary_pos_emb(q, k, angles.cos(), angles.sin())
    turned = fused_triton.rotary(q.clone(), k.clone(), angles.cos(), angles.sin())
    assert all(torch.allclose(ours, stock, atol=1e-6) for ours, stock in zip(turned, expected, strict=True))


def test_silu_times_gate_equals_plain_torch() -> None:
    gate, up = (10 * torch.randn(3, 5, 333, device=DEVICE) for _ in range(2))
    expected = torch.nn.functional.silu(gate) * up
    assert torch.allclose(fused_triton.silu_mul(gate, up), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_plain_torch(dtype: torch.dtype) -> None:
    """Against float64: rounded once, where plain torch rounds in between."""
    if dtype == torch.bfloat16 and DEVICE == "cpu":
        pytest.skip("the interpreter cuts float32 to bfloat16 instead of rounding it")
    gate, up = (torch.randn(4, 300, device=DEVICE).to(dtype) for _ in range(2))
    exact = torch.nn.functional.silu(gate.double()) * up.double()
    plain = (torch.nn.functional.silu(gate) * up).double()
    ours = fused_triton.silu_mul(gate, up).double()
    assert (ours - exact).norm() <= 1.01 * (plain - exact).norm()


def loaded(folder: Path, fused: str, dtype: torch.dtype = torch.float32) -> Observer:
    facts = model_facts(str(folder))
    return load_observer(
        facts, layers=tuple(range(facts.num_layers)), dtype=dtype, device=torch.device(DEVICE), fused=fused
    )


def hidden_states(observer: Observer) -> torch.Tensor:
    """Queries of the last layer: all that lies before has had its part in them."""
    views: list[Any] = []
    observer.observe(TOKENS[:, :25].repeat(2, 1), views.append)
    return views[-1].q_BHTD.float().cpu()


MODELS = {name: OBSERVED[name] for name in FUSED_MODEL_TYPES} | {
    "llama with biases": lambda: tf.LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True, initializer_range=0.3)
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", [name if name == "llama" else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_fused_layers_compute_what_the_stock_ones_do(name: str, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tf.AutoModel.from_config(MODELS[name](), dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 1.0, 0.3)
    model.save_pretrained(tmp_path)
    stock, fused = hidden_states(loaded(tmp_path, "none")), hidden_states(loaded(tmp_path, kind))
    assert torch.allclose(fused, stock, rtol=1e-3, atol=1e-3 * float(stock.abs().max()))


def test_the_class_and_other_models_keep_their_forward() -> None:
    config = OBSERVED["llama"]()
    model, other = (tf.AutoModel.from_config(config, dtype=torch.float32) for _ in range(2))
    layers = FusedLayers(model, kernels="triton", attention=lambda *_, **__: None)
    stock = type(model.layers[0]).forward
    assert model.layers[0].forward.func is not stock
    assert other.layers[0].forward.__func__ is stock
    layers.restore()
    assert model.layers[0].forward.__func__ is stock


def test_a_fused_layer_that_computes_something_else_is_found_before_the_first_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as a norm without its weight."""
    norm = fused_triton.rms_norm
    monkeypatch.setattr(fused_triton, "rms_norm", lambda x, weight, eps: norm(x, weight / weight * 3, eps))
    wrong = r"the fused layers do not reproduce the stock ones in torch.float32 \(hidden .*\); give --fused none$"
    with pytest.raises(LadmError, match=wrong):
        loaded(GOLDEN, "triton")


@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_fused_layers_are_for_the_activation_of_the_model(activation: str, tmp_path: Path) -> None:
    """With `--fused auto` such a model could not be scored on a GPU."""
    shutil.copytree(GOLDEN, tmp_path / "model")
    config = json.loads((GOLDEN / "config.json").read_text()) | {"hidden_act": activation}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    facts = model_facts(str(tmp_path / "model"))
    found = resolve_fused(
        "auto", device="cuda:0", dtype=torch.bfloat16, model_type=facts.model_type, activation=facts.activation
    )
    assert found == ("triton" if activation == "silu" else "none")


def test_what_fused_resolves_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(requested: str, device: str = "cuda:0", dtype: Any = torch.bfloat16, model_type: str = "llama") -> str:
        return resolve_fused(requested, device=device, dtype=dtype, model_type=model_type)

    monkeypatch.delenv("TRITON_INTERPRET")
    there = {"triton", "liger_kernel"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in there else None)
    assert resolve("auto") == resolve("triton") == "triton"
    assert resolve("liger") == "liger"
    # The float32 reference, a CPU and a family that nobody has written down here run the stock layers.
    assert resolve("auto", dtype=torch.float32) == resolve("auto", "cpu") == resolve("none") == "none"
    assert resolve("auto", model_type="olmo2") == "none"
    with pytest.raises(UsageError, match="^--fused liger is for bfloat16 and float16; float32 always runs the stock"):
        resolve("liger", dtype=torch.float32)
    with pytest.raises(LadmError, match="^--fused triton: its kernels need a CUDA device, not cpu$"):
        resolve("triton", "cpu")
    with pytest.raises(LadmError, match="^--fused triton: there are no fused layers for olmo2 models, only for llama"):
        resolve("triton", model_type="olmo2")
    relu = {"device": "cuda:0", "dtype": torch.bfloat16, "model_type": "llama", "activation": "relu"}
    assert resolve_fused("auto", **relu) == "none"
    with pytest.raises(LadmError, match="^--fused triton: there are no fused layers for models with relu, only for"):
        resolve_fused("triton", **relu)
    there.remove("liger_kernel")
    with pytest.raises(LadmError, match="^--fused liger: liger-kernel is not installed; run pip install '.\\[fast\\]'"):
        resolve("liger")
    there.remove("triton")
    assert resolve("auto") == "none"
    with pytest.raises(LadmError, match="^--fused triton: triton is not installed$"):
        resolve("triton")


def test_the_rotary_embedding_of_liger_is_launched_on_the_device_of_its_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It launches on the current device: with `--device cuda:1` that was another GPU."""
    events: list[str] = []

    def rope_forward(q: torch.Tensor, k: torch.Tensor, *_: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        events.append("launch")
        return q, k

    @contextlib.contextmanager
    def device_of(_: torch.Tensor) -> Iterator[None]:
        events.append("enter")
        yield
        events.append("exit")

    for module, function in (("rms_norm", "rms_norm_forward"), ("rope", "rope_forward"), ("swiglu", "swiglu_forward")):
        stand_in = types.ModuleType(module)
        setattr(stand_in, function, rope_forward)
        monkeypatch.setitem(sys.modules, f"liger_kernel.ops.{module}", stand_in)
    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    x = torch.zeros(1, 1, 2, 4)
    fused._liger_kernels().rotary(x, x, x, x)
    assert events == ["enter", "launch", "exit"]
