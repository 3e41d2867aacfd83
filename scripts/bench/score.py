"""What scoring costs beside the plain forward pass of the same model, and beside the released way, in one process.

    python scripts/bench/score.py --model runs/toy/model --tokens 8192 --span-tokens 32 --dtype float32
    python scripts/bench/score.py --shape tinyllama --device cuda --dtype bfloat16          (32,768 tokens)

(a) the stock model's forward pass; (b) ours; (c) the released algorithm, written afresh: a softmax
over all earlier keys for every scored span. Interleaved, medians; the times of (b) and (c) are those
of whole documents. A gate of correctness comes first. Prints a table, and one JSON object as its
last line. Peak memory is the device's; on a CPU, what a process of its own grows by (--memory).
Imports torch, transformers and what it measures, nothing else.
"""

from __future__ import annotations

import argparse
import gc
import gzip
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from released import Released

from ladm.devices import resolve_backend, resolve_dtype
from ladm.focus import Grid, aggregated_focus, contextual_dependency, span_grid
from ladm.focus import pairwise_focus as oracle
from ladm.models import model_facts
from ladm.observer import LayerView, Observer, load_observer
from ladm.scorers.cds import layer_cds
from ladm.settings import parse_layers

SHAPES = {
    "tinyllama": LlamaConfig(
        hidden_size=2048, intermediate_size=5632, num_hidden_layers=22, num_attention_heads=32, num_key_value_heads=4,
        vocab_size=32000, max_position_embeddings=32768, rope_theta=500_000.0,
    ),
}  # fmt: skip
GATE_TOKENS = 2048
FLOAT32_BUDGET = 1e-5
HALF_BUDGET = 1.2


def random_model(shape: str, folder: str, dtype: torch.dtype, tokens: int) -> str:
    """Random weights of a known shape, saved so that every contender loads them the same way."""
    torch.manual_seed(0)
    config = SHAPES[shape]
    config.max_position_embeddings = max(tokens, config.max_position_embeddings)
    AutoModel.from_config(config, dtype=dtype).save_pretrained(folder)
    return folder


def random_ids(vocab_size: int, tokens: int) -> Tensor:
    return torch.randint(vocab_size, (1, tokens), generator=torch.Generator().manual_seed(1))


def real_ids(folder: str, tokens: int) -> Tensor:
    """The toy's coherent documents, one after the other: how sharp attention is depends on real text."""
    packed = Path(__file__).resolve().parents[2] / "ladm" / "data" / "documents.jsonl.gz"
    documents = [json.loads(line) for line in gzip.decompress(packed.read_bytes()).splitlines()]
    texts = [document["text"] for document in documents if document["meta"]["expected"] == "coherent"]
    ids = [token for text in texts for token in AutoTokenizer.from_pretrained(folder)(text)["input_ids"]]
    return torch.tensor([ids[:tokens]])


def commit() -> str | None:
    """The commit that is measured, where it is known."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def grown_by(run: Callable[[], Any]) -> int:
    """Bytes by which one run lifts the peak of this process above what is resident before it."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    run()
    return status_bytes("VmHWM") - before


def status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def peak_of_its_own(contender: str) -> int:
    """`grown_by` in a fresh process that runs nothing else. Its weights are not counted."""
    command = [sys.executable, *sys.argv, "--contenders", contender, "--grown-by"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def synchronised(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def measure(contenders: dict[str, Callable[[], Any]], *, repeats: int, device: str) -> dict[str, dict[str, Any]]:
    """Seconds of each contender, interleaved, after one untimed round; peak device memory where there is one."""
    sync = synchronised(device)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peak = dict.fromkeys(contenders, 0)
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            if device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats()
            sync()
            began = time.perf_counter()
            run()
            sync()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
            if device.startswith("cuda"):
                peak[name] = max(peak[name], torch.cuda.max_memory_allocated())
    return {
        name: {"median_s": statistics.median(values), "all_s": values, "peak_bytes": peak[name] or None}
        for name, values in seconds.items()
    }


@torch.inference_mode()
def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """The best rate of plain matrix products that this device reaches in this dtype, in FLOP/s."""
    size = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = measure({"product": lambda: a @ b}, repeats=9, device=device)["product"]["all_s"]
    return 2 * size**3 / min(best)


def flops(config: Any, tokens: int) -> float:
    """Operations of one forward pass of a Llama without its head; attention counted under the causal mask."""
    hidden, layers = config.hidden_size, config.num_hidden_layers
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    projections = 2 * hidden * head * (config.num_attention_heads + config.num_key_value_heads)
    per_token = 2 * (projections + 3 * hidden * config.intermediate_size)
    attention = 2 * 2 * config.num_attention_heads * head * tokens / 2
    return float(layers * tokens * (per_token + attention))


def scored_by_oracle(observer: Observer, ids_BT: Tensor, grid: Grid) -> list[float]:
    found: list[float] = []

    def visit(view: LayerView) -> None:
        pfs = oracle(view.q_BHTD[0], view.k_BGTD[0], scaling=view.scaling, grid=grid)
        found.append(contextual_dependency(aggregated_focus(pfs, grid), grid).item())

    observer.observe(ids_BT, visit)
    return found


def apart(ours: list[float], expected: list[float]) -> float:
    return max(abs(a - b) / abs(b) for a, b in zip(ours, expected, strict=True))


def gate(observer: Observer, released: Released, settings: dict[str, Any], ids: Tensor, backend: str) -> dict[str, Any]:
    """float32: our layers equal the oracle's; half precision: our error is within a budget of the baseline's."""
    short = ids[:, :GATE_TOKENS]
    grid = span_grid(short.shape[1], **settings | {"l": min(settings["l"], GATE_TOKENS // 64)})
    ours = layer_cds(observer, short, grid, ablation="none", backend=backend)["cds_per_layer"][0].tolist()
    if observer.dtype == torch.float32:
        error = apart(ours, scored_by_oracle(observer, short, grid))
        result = {"relative_to_oracle": error, "allowed": FLOAT32_BUDGET}
    else:
        exact_observer = load_observer(
            observer.facts, layers=observer.layers, dtype=torch.float32, device=observer.device, check=False
        )
        exact = statistics.fmean(scored_by_oracle(exact_observer, short, grid))
        baseline = released.cds(short, grid).mean().item()
        error = abs(statistics.fmean(ours) / exact - 1)
        floor = 2**-11
        result = {"ours_to_float32": error, "allowed": max(HALF_BUDGET * abs(baseline / exact - 1), floor)}
    if not error <= result["allowed"]:
        sys.exit(f"the gate of correctness is shut: {result}")
    return result


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="folder of a Llama")
    model.add_argument("--shape", choices=SHAPES, help="random weights of a known shape")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--span-tokens", type=int, help="default: a 256th of --tokens")
    parser.add_argument("--d-afs", type=int, default=4)
    parser.add_argument("--d-cds", type=int, default=4)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", help="time also (d): ours with these layers alone, as a profile scores")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backend", default="auto", choices=["auto", "torch", "triton"])
    parser.add_argument("--contenders", default="abcd", help="which of a, b, c and d to time")
    parser.add_argument("--memory", action="store_true", help="on a CPU, one more process a contender for its peak")
    parser.add_argument("--grown-by", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="file for the JSON object")
    return parser.parse_args()


def main() -> None:
    asked = parse()
    dtype = resolve_dtype(asked.dtype, asked.device)
    span = asked.span_tokens or asked.tokens // 256
    settings: dict[str, Any] = {
        "variant": "released", "l": span, "m": 1, "n": asked.d_afs, "n0": None, "d_afs": asked.d_afs,
        "d_cds": asked.d_cds,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.model or random_model(asked.shape, temporary, dtype, asked.tokens)
        facts = model_facts(folder)
        layers = facts.choose_layers(None)
        observer = load_observer(facts, layers=layers, dtype=dtype, device=torch.device(asked.device))
        released = Released(folder, dtype, asked.device)
        stock = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").to(asked.device).eval()
        ids = (real_ids(folder, asked.tokens) if asked.model else random_ids(facts.vocab_size, asked.tokens)).to(
            asked.device
        )
        backend = resolve_backend(asked.backend, asked.device)
        checked = None if asked.grown_by else gate(observer, released, settings, ids, backend)
        grid = span_grid(asked.tokens, **settings)

        @torch.inference_mode()
        def plain() -> None:
            stock(input_ids=ids, use_cache=False)

        contenders = {
            "a plain forward": plain,
            "b ladm": lambda: layer_cds(observer, ids, grid, ablation="none", backend=backend),
            "c released way": lambda: released.cds(ids, grid),
        }
        if asked.layers:
            some = load_observer(
                facts, layers=parse_layers(asked.layers), dtype=dtype, device=torch.device(asked.device), check=False
            )
            contenders[f"d layers {asked.layers}"] = lambda: layer_cds(
                some, ids, grid, ablation="none", backend=backend
            )
        contenders = {name: run for name, run in contenders.items() if name[0] in asked.contenders}
        if asked.grown_by:
            print(grown_by(*contenders.values()))
            return
        times = measure(contenders, repeats=asked.repeats, device=asked.device)
        if asked.memory and asked.device == "cpu":
            for name in times:
                times[name]["peak_bytes"] = peak_of_its_own(name[0])
        rate = matrix_rate(asked.device, dtype)
        report(asked, dtype, span, times, checked, rate, flops(stock.config, asked.tokens))


def report(
    asked: argparse.Namespace,
    dtype: torch.dtype,
    span: int,
    times: dict[str, Any],
    checked: Any,
    rate: float,
    work: float,
) -> None:
    plain = times["a plain forward"]["median_s"] if "a plain forward" in times else float("nan")
    print(f"{'':16} {'seconds':>9} {'x plain':>8} {'peak GiB':>9} {'utilisation':>12}")
    for name, row in times.items():
        peak = "-" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 2**30:.2f}"
        use = work / row["median_s"] / rate
        print(f"{name:16} {row['median_s']:9.3f} {row['median_s'] / plain:8.3f} {peak:>9} {use:12.1%}")
    cuda = asked.device.startswith("cuda")
    result = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "device": torch.cuda.get_device_name() if cuda else f"{processor()}, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "model": Path(asked.model).name if asked.model else asked.shape,
        "tokens": asked.tokens, "span_tokens": span, "d_afs": asked.d_afs, "d_cds": asked.d_cds,
        "dtype": str(dtype).removeprefix("torch."), "gate": checked, "matrix_flop_per_s": rate, "forward_flop": work,
        "backend": resolve_backend(asked.backend, asked.device),
        **{f"ratio_{name[0]}_to_a": row["median_s"] / plain for name, row in times.items() if name[0] != "a"},
        "times": times,
    }  # fmt: skip
    line = json.dumps(result)
    if asked.output:
        asked.output.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()
