"""One model in one process: each change to the forward pass that scoring makes, timed beside the stock forward pass.

    python scripts/bench/forward.py --shape tinyllama --device cuda:0 --dtype bfloat16 --output FILE.jsonl
    python scripts/bench/forward.py --model runs/toy/model --device cpu --tokens 1024 --dtype float32

Parts, in order of worth. Each prints and writes one line of JSON as soon as it is done; one that fails does not stop
the others, and makes the exit code 1.

    gate       correctness: CDS by layer of fused and unfused layers against the oracle on a float32 model
    columns    what each column of a pass costs beside PFS: value-weighted PFS, copy keys, sink mass
    fused      stock forward, ladm with stock layers, ladm with each kind of fused layers, interleaved
    depth      the same with the layers of a profile that ends at 60 % of the depth
    kernels    time by kernel of a fused forward, from the profiler (CUDA)
    operations each fused operation alone: bytes per second, beside torch
    attention  the whole of ladm with each attention kernel that is installed
    batches    short rows, several at a time
    compiled   the stock forward, and one with each layer compiled, whose first run compiles
    error      relative error of CDS by layer in float32 and in half precision, on the model's own weights

Imports torch, transformers, triton and what it measures, nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from contenders import SHAPES, Contenders, document, grid_of, random_model
from error_lines import errors_in_a_line
from machine import facts, grown_by, measure, synchronised

from ladm.method.attention_choice import attention_kernel
from ladm.method.columns import far_key_mass, value_weights
from ladm.method.pfs import measure_focus
from ladm.method.pfs_torch import CopyKeys
from ladm.method.sinks import sink_mass
from ladm.modeling.devices import resolve_backend, resolve_dtype
from ladm.modeling.fused import resolve_fused
from ladm.modeling.observer import load_observer
from ladm.signals.layer_cds import layer_cds

STRIDES = {"d_afs": 4, "d_cds": 4}
FUSED = ("triton", "liger")
ATTENTION = ("cudnn", "flash", "flash-attn", "fa3", "fa4", "efficient")
HALF_BUDGET = 1.2
"""The error of fused layers in half precision over that of stock layers."""
HALF_LIMIT = 0.02
"""The error of CDS in half precision with random weights; 0.002 to 0.004 was measured where all was right."""


class Bench:
    """A model on a device, and what the parts share."""

    def __init__(self, options: argparse.Namespace, folder: str) -> None:
        self.options = options
        self.folder = folder
        self.device = options.device
        self.dtype = resolve_dtype(options.dtype, options.device)
        self.backend = resolve_backend("auto", options.device)
        self.contenders = Contenders(
            folder, dtype=self.dtype, device=options.device, backend=self.backend, attention=None
        )
        self.facts = self.contenders.facts
        self.ids = document(folder, options.tokens, random=options.model is None).to(options.device)
        self.grid = grid_of(options.tokens, span_tokens=options.tokens // 256, **STRIDES)
        self._observers: dict[tuple[Any, ...], Any] = {}
        self._fused: list[str] | None = None

    def fused(self) -> list[str]:
        """The kinds of fused layers that can be used here, found out once by loading and checking a model with each."""
        if self._fused is None:
            self._fused = []
            for name in FUSED:
                try:
                    options = {"device": self.device, "dtype": self.dtype, "model_type": self.facts.model_type}
                    self.observer(resolve_fused(name, **options))
                    self._fused.append(name)
                except Exception as problem:  # one kind that does not run here must not end the others
                    print(f"without fused {name}: {type(problem).__name__}: {str(problem)[:300]}", flush=True)
        return self._fused

    def observer(
        self, fused: str = "none", *, last: int | None = None, attention: str | None = None, check: bool = True
    ) -> Any:
        """Ours with these layers. One model is held in memory for each kind of fused layers."""
        key = (fused, last, attention)
        if key not in self._observers:
            layers = tuple(range(self.facts.num_layers)) if last is None else tuple(range(max(0, last - 4), last + 1))
            self._observers[key] = load_observer(
                self.facts, layers=layers, dtype=self.dtype, device=torch.device(self.device), attention=attention,
                fused=fused, check=check,
            )  # fmt: skip
        return self._observers[key]

    def ours(self, observer: Any, ids: Tensor | None = None, **more: Any) -> Callable[[], Any]:
        """A run of ladm over a document."""
        ids = self.ids if ids is None else ids
        grid = grid_of(ids.shape[1], span_tokens=max(1, ids.shape[1] // 256), **STRIDES)
        return lambda: layer_cds(observer, ids, grid, ablation="none", backend=self.backend, **more)

    def plain(self, ids: Tensor | None = None) -> Callable[[], Any]:
        """A stock forward pass over a document."""
        ids, stock = self.ids if ids is None else ids, self.contenders.stock()

        @torch.inference_mode()
        def run() -> None:
            stock(input_ids=ids, use_cache=False)

        return run

    def times(self, runs: dict[str, Callable[[], Any]], repeats: int | None = None) -> dict[str, Any]:
        """Medians in milliseconds, interleaved, and each over that of the first."""
        found = measure(runs, repeats=repeats or self.options.repeats, device=self.device)
        first = next(iter(found.values()))["median_s"]
        return {
            name: {
                "ms": round(1e3 * each["median_s"], 3),
                "to_first": round(each["median_s"] / first, 4),
                "all_ms": [round(1e3 * second, 2) for second in each["all_s"]],
            }
            for name, each in found.items()
        }

    def forget(self) -> None:
        """Let go of every model."""
        self._observers.clear()
        self.contenders._kept.clear()
        if self.device.startswith("cuda"):
            torch.cuda.empty_cache()


def gate(bench: Bench) -> dict[str, Any]:
    """Error of CDS by layer, of each kind of layers, against the oracle on a float32 model; one text.

    With the spans of most runs, and with some that the PFS kernel divides among programs.
    """
    tokens = min(bench.options.gate_tokens, bench.ids.shape[1])
    result: dict[str, Any] = {"tokens": tokens, "spans": {}}
    wrong = []
    for span_tokens in (tokens // 64, tokens // 32):
        found = _errors_against_the_oracle(bench, tokens, span_tokens)
        result["spans"][str(span_tokens)] = found
        wrong += [f"{name}, spans of {span_tokens}" for name, good in found["passed"].items() if not good]
    return result | ({"failed": f"layers that are wrong: {'; '.join(wrong)}"} if wrong else {})


def _errors_against_the_oracle(bench: Bench, tokens: int, span_tokens: int) -> dict[str, Any]:
    ids = bench.ids[:, :tokens]
    grid = grid_of(tokens, span_tokens=span_tokens, **STRIDES)
    exact = bench.contenders.exact(ids, grid)
    errors = {}
    for name in ("none", *bench.fused()):
        cds = layer_cds(bench.observer(name), ids, grid, ablation="none", backend=bench.backend)["cds_per_layer"][0]
        relative = (cds.cpu() - exact) / exact
        errors[name] = {
            "rms": relative.square().mean().sqrt().item(),
            "largest": relative.abs().max().item(),
            "by_layer": [round(each, 6) for each in relative.tolist()],
        }
    allowed = 1e-4 if bench.dtype == torch.float32 else max(HALF_BUDGET * errors["none"]["rms"], 1e-4)
    if bench.options.model is None:
        allowed = min(allowed, HALF_LIMIT)
    passed = {name: found["rms"] <= allowed for name, found in errors.items()}
    return {"allowed_rms": allowed, "passed": passed, "errors": errors}


def fused(bench: Bench) -> dict[str, Any]:
    """Stock, ladm unfused, ladm fused; and what a document adds to the memory."""
    runs = {"stock forward": bench.plain(), "ladm, stock layers": bench.ours(bench.observer())}
    runs |= {f"ladm, fused {name}": bench.ours(bench.observer(name)) for name in bench.fused()}
    times = bench.times(runs)
    if bench.device.startswith("cuda"):
        for name, run in runs.items():
            times[name]["grown_MiB"] = grown_by(run, bench.device) >> 20
    return {"tokens": bench.options.tokens, "times": times}


def columns(bench: Bench) -> dict[str, Any]:
    """What value-weighted PFS, attention to copy keys and the sink mass of every layer cost beside PFS alone."""
    observer = bench.observer("triton" if "triton" in bench.fused() else "none")
    together: dict[str, Any] = {"copy_keys": CopyKeys(bench.ids, bench.grid)}

    def run(*, weighted: bool, copied: bool, sinks: bool) -> Callable[[], Any]:
        masses: list[torch.Tensor] = []

        def visit(view: Any) -> None:
            weights = value_weights(view.v_BGTD, backend=bench.backend) if weighted else None
            measure_focus(
                view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=bench.grid, backend=bench.backend,
                key_weight_BGT=weights, **(together if copied else {}),
            )  # fmt: skip
            if sinks:
                skipped = bench.grid.start(0) + bench.grid.l
                mass_BHT = far_key_mass(
                    view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, skipped_tokens=skipped,
                    backend=bench.backend,
                )  # fmt: skip
                masses.append(mass_BHT.mean(dim=1))

        def measure() -> None:
            masses.clear()
            observer.observe(bench.ids, visit)
            if sinks:
                sink_mass(torch.stack(masses, dim=1))

        return measure

    nothing = {"weighted": False, "copied": False, "sinks": False}
    runs = {
        "PFS": run(**nothing),
        "and value-weighted": run(**nothing | {"weighted": True}),
        "and copy keys": run(**nothing | {"copied": True}),
        "and sink mass": run(**nothing | {"sinks": True}),
        "and all three": run(weighted=True, copied=True, sinks=True),
    }
    return {"tokens": bench.options.tokens, "times": bench.times(runs)}


def depth(bench: Bench) -> dict[str, Any]:
    """Five layers that end at 60 % of the depth, as a calibrated profile may have."""
    last = round(0.6 * bench.facts.num_layers) - 1
    runs = {"stock forward": bench.plain(), "ladm, stock layers": bench.ours(bench.observer(last=last))}
    runs |= {f"ladm, fused {name}": bench.ours(bench.observer(name, last=last)) for name in bench.fused()}
    return {"last_layer": last, "layers": bench.facts.num_layers, "times": bench.times(runs)}


def kernels(bench: Bench) -> dict[str, Any]:
    """Milliseconds by kernel of one run, the largest first."""
    if not bench.device.startswith("cuda"):
        return {"skipped": "needs a CUDA device"}
    result = {}
    for name in ("none", *bench.fused()):
        run = bench.ours(bench.observer(name))
        run()
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            run()
            torch.cuda.synchronize()
        events = sorted(profiler.key_averages(), key=lambda event: -event.self_device_time_total)
        result[name] = {
            "total_ms": round(sum(event.self_device_time_total for event in events) / 1e3, 2),
            "kernels": [
                [round(event.self_device_time_total / 1e3, 2), event.count, event.key[:90]] for event in events[:14]
            ],
        }
    return result


@torch.inference_mode()
def operations(bench: Bench) -> dict[str, Any]:
    """Each operation alone on tensors of a layer: milliseconds, and the share of the bytes it must move per second."""
    from ladm.modeling.fused import _KERNELS

    config = bench.contenders.stock().config
    T, E, inner = bench.options.tokens, config.hidden_size, config.intermediate_size
    H, G = config.num_attention_heads, config.num_key_value_heads
    D = E // H
    options = {"device": bench.device, "dtype": bench.dtype}
    x, gate_TI, up_TI = (torch.randn(1, T, width, **options) for width in (E, inner, inner))
    q, k = (torch.randn(1, T, heads, D, **options).transpose(1, 2) for heads in (H, G))
    cos, sin = (torch.randn(1, T, D, **options) for _ in range(2))
    weight, square, down = torch.randn(E, **options), torch.randn(E, E, **options), torch.randn(E, inner, **options)
    size = x.element_size() * T
    moved = {"rms_norm": 2 * size * E, "rotary": 2 * size * (E + G * D), "silu_mul": 3 * size * inner}
    runs: dict[str, Callable[[], Any]] = {"copy": lambda: gate_TI.clone()}
    for name in bench.fused():
        each = _KERNELS[name]()
        runs |= {
            f"rms_norm {name}": lambda each=each: each.rms_norm(x, weight, 1e-6),
            f"rotary {name}": lambda each=each: each.rotary(q, k, cos, sin),
            f"silu_mul {name}": lambda each=each: each.silu_mul(gate_TI, up_TI),
        }
    runs |= {
        "rms_norm torch": lambda: torch.nn.functional.rms_norm(x, (E,), weight, 1e-6),
        "silu_mul torch": lambda: torch.nn.functional.silu(gate_TI) * up_TI,
        "o_proj, then add": lambda: x + torch.nn.functional.linear(x, square),
        "o_proj adds": lambda: x.view(-1, E).addmm_(x.view(-1, E), square.mT),
        "down_proj, then add": lambda: x + torch.nn.functional.linear(gate_TI, down),
        "down_proj adds": lambda: x.view(-1, E).addmm_(gate_TI.view(-1, inner), down.mT),
    }
    found = measure(runs, repeats=15, device=bench.device)
    result: dict[str, Any] = {}
    for name, taken in found.items():
        result[name] = {"ms": round(1e3 * taken["median_s"], 3)}
        bytes_moved = 2 * size * inner if name == "copy" else moved.get(name.split()[0])
        if bytes_moved:
            result[name]["TB_per_s"] = round(bytes_moved / taken["median_s"] / 1e12, 2)
    return result


def attention(bench: Bench) -> dict[str, Any]:
    """The whole of ladm with each attention kernel and the fastest layers; the check at load runs for each."""
    best = (*bench.fused(), "none")[0]
    runs: dict[str, Callable[[], Any]] = {}
    refused = {}
    for name in ATTENTION:
        try:
            kernel = attention_kernel(
                bench.device,
                bench.dtype,
                requested=name,
                head_size=bench.facts.head_size,
                group_size=bench.facts.group_size,
            )
            run = bench.ours(bench.observer(best, attention=kernel))
            run()
            runs[kernel] = run
        except Exception as error:  # one kernel that does not run here must not end the others
            refused[name] = f"{type(error).__name__}: {str(error)[:200]}"
    times = bench.times({"stock forward": bench.plain(), **runs}, repeats=5)
    return {"fused": best, "times": times, "refused": refused}


def batches(bench: Bench) -> dict[str, Any]:
    """Milliseconds a row of short rows, by how many go into one step."""
    best = (*bench.fused(), "none")[0]
    observer = bench.observer(best)
    result: dict[str, Any] = {"fused": best}
    for tokens in bench.options.short_tokens:
        sizes = [size for size in (1, 2, 4, 8, 16, 32, 64) if size * tokens <= bench.options.batch_tokens]
        if tokens > bench.ids.shape[1] or not sizes:
            result[f"{tokens} tokens"] = "skipped: longer than --tokens or --batch-tokens"
            continue
        ids = bench.ids[:, : tokens * (bench.ids.shape[1] // tokens)].reshape(-1, tokens)
        ids = ids.repeat(-(-sizes[-1] // len(ids)), 1)
        for record in bench.options.records:
            runs = {str(size): bench.ours(observer, ids[:size], record=record) for size in sizes}
            times = measure(runs, repeats=5, device=bench.device)
            result[f"{tokens} tokens, {record}"] = {
                size: round(1e3 * each["median_s"] / int(size), 3) for size, each in times.items()
            }
    return result


def compiled(bench: Bench) -> dict[str, Any]:
    """torch.compile of each layer by itself, which compiles one graph for all of them."""
    stock = bench.contenders.stock()
    plain = bench.plain()
    before = bench.times({"stock forward": plain}, repeats=3)
    began = time.perf_counter()
    for layer in stock.layers:
        layer.compile()
    plain()
    synchronised(bench.device)()
    first = time.perf_counter() - began
    after = bench.times({"compiled layers": plain}, repeats=5)
    bench.contenders._kept.pop("stock")
    return {"first_s": round(first, 2), **before, **after}


def error(bench: Bench) -> dict[str, Any]:
    """Relative error by layer against the oracle in float32, of float32 and half precision, on real weights."""
    if bench.options.model is None:
        return {"skipped": "needs --model: random weights say nothing about the error on real ones"}
    result = {}
    for dtype in (torch.float32, torch.bfloat16):
        options = argparse.Namespace(**{**vars(bench.options), "dtype": str(dtype).removeprefix("torch.")})
        result[options.dtype] = gate(Bench(options, bench.folder))["spans"]
    return result


PARTS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    part.__name__: part
    for part in (gate, fused, columns, depth, kernels, operations, attention, batches, compiled, error)
}


@contextmanager
def folder_of(options: argparse.Namespace) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as temporary:
        dtype = resolve_dtype(options.dtype, options.device)
        yield options.model or random_model(options.shape, temporary, dtype, options.tokens, device=options.device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="folder of a Llama")
    model.add_argument("--shape", choices=SHAPES, help="random weights of a known shape")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--gate-tokens", type=int, default=8192)
    parser.add_argument("--short-tokens", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--batch-tokens", type=int, default=65536)
    parser.add_argument("--records", nargs="+", default=["layers", "forms"], choices=["layers", "heads", "forms"])
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--output", type=Path, help="file of JSON lines, one a part")
    options = parser.parse_args()
    began = time.perf_counter()
    with folder_of(options) as folder:
        bench = Bench(options, folder)
        about = facts(options.device) | {"shape": options.shape, "dtype": str(bench.dtype).removeprefix("torch.")}
        write(options.output, {"part": "about", **about, "seconds_to_load": round(time.perf_counter() - began, 1)})
        failed = []
        for name in options.parts:
            began = time.perf_counter()
            try:
                result = PARTS[name](bench)
            except Exception as problem:  # the parts are independent: what the others measure is not lost
                traceback.print_exc()
                bench.forget()
                result = {"failed": f"{type(problem).__name__}: {str(problem)[:300]}"}
            write(options.output, {"part": name, "took_s": round(time.perf_counter() - began, 1), **result})
            failed += [name] if "failed" in result else []
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def write(output: Path | None, line: dict[str, Any]) -> None:
    """Print a line of JSON and add it to the file."""
    text = json.dumps(line)
    print(text, flush=True)
    if output:
        with output.open("a") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    with errors_in_a_line():
        main()
