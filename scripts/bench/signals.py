"""What each signal adds to the pass of CDS alone, side by side in one process.

    python scripts/bench/signals.py --model runs/toy/model --tokens 2048 --dtype float32
    python scripts/bench/signals.py --shape tinyllama --device cuda --dtype bfloat16          (32,768 tokens)

Contenders are interleaved; ratios are of medians, to CDS alone. Marks: 1.30 for context gain over the suffix, 2.0 over
blocks. Beside wall time the time of the process on the CPU is given, which other work on the machine disturbs less. A
first round checks that no signal changes a bit of CDS; with `--repeats 1` it is also the one that is timed. Prints a
table, and one JSON object as its last line.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from contenders import SHAPES, document, grid_of
from error_lines import errors_in_a_line
from machine import facts, grown_by, synchronised, write_result
from transformers import LlamaForCausalLM

from ladm.method.attention_choice import attention_kernel
from ladm.modeling.devices import resolve_backend, resolve_dtype
from ladm.modeling.facts import model_facts
from ladm.modeling.fused import resolve_fused
from ladm.modeling.observer import Observer, load_observer
from ladm.signals.forward_pass import PassSignals, forward_pass
from ladm.signals.text_statistics import UnigramTable, text_statistics

MARKS = {"cds, suffix": 1.30, "cds, blocks": 2.0}


def random_language_model(shape: str, folder: str, dtype: torch.dtype, tokens: int, *, device: str) -> str:
    """Random weights of a known shape, head included."""
    torch.manual_seed(0)
    config = SHAPES[shape]
    config.max_position_embeddings = max(tokens, config.max_position_embeddings)
    with torch.device(device):
        model = LlamaForCausalLM(config).to(dtype)
    model.cpu().save_pretrained(folder)
    return folder


def signals_of(backend: str) -> dict[str, PassSignals]:
    """What is timed, by name."""

    def of(**which: Any) -> PassSignals:
        return PassSignals(**{"cds": True, "gain": None, "longattn": False} | which, backend=backend)

    return {
        "cds": of(),
        "cds, suffix": of(gain="suffix"),
        "cds, blocks": of(gain="blocks"),
        "cds, longattn": of(longattn=True),
        "cds, suffix, longattn": of(gain="suffix", longattn=True),
    }


def contenders_of(
    observer: Observer, ids: Tensor, span_tokens: int, backend: str, names: list[str]
) -> dict[str, Callable[[], Any]]:
    """Every contender as a call that computes the columns of one row."""
    on_device = ids.to(observer.device)
    grid = grid_of(ids.shape[1], span_tokens=span_tokens, d_afs=4, d_cds=4)

    def run(signals: PassSignals) -> dict[str, Tensor]:
        found = forward_pass(observer, ids, on_device, grid, signals, low_memory=False)
        return found.to_host(wait=True).finish()

    running: dict[str, Callable[[], Any]] = {
        name: lambda signals=signals: run(signals)
        for name, signals in signals_of(backend).items()
        if name in names or name == "cds"
    }
    row = ids[0].numpy()
    unigrams = UnigramTable.count([row], vocab_size=observer.facts.vocab_size)
    # A text of the usual four characters a token, read in parallel with the pass as `ladm score` does.
    text = " ".join(map(str, row.tolist()))[: 4 * len(row)]
    reader = ThreadPoolExecutor(1)

    def with_text() -> dict[str, Tensor]:
        reading = reader.submit(text_statistics, row, text, unigrams=unigrams)
        columns = run(signals_of(backend)["cds"])
        reading.result()
        return columns

    if "cds, text" in names:
        running["cds, text"] = with_text
        running["text alone"] = lambda: text_statistics(row, text, unigrams=unigrams)
    return running


@dataclass(frozen=True, kw_only=True)
class Timed:
    """One run of a contender."""

    columns: dict[str, Tensor]
    wall_s: float
    cpu_s: float


def one_round(running: dict[str, Callable[[], Any]], *, device: str) -> dict[str, Timed]:
    """Every contender once."""
    sync = synchronised(device)
    found = {}
    for name, run in running.items():
        sync()
        began, began_cpu = time.perf_counter(), time.process_time()
        columns = run()
        sync()
        wall, cpu = time.perf_counter() - began, time.process_time() - began_cpu
        found[name] = Timed(columns=columns if name != "text alone" else {}, wall_s=wall, cpu_s=cpu)
    return found


def gate(found: dict[str, Timed]) -> None:
    """Exit unless every contender gives exactly the CDS of the first, and finite numbers."""
    alone = found["cds"].columns
    for name, one in found.items():
        for key, values in one.columns.items():
            if not values.isfinite().all() or (key in alone and not torch.equal(values, alone[key])):
                sys.exit(f"correctness check failed: {name} has another {key} than CDS alone")


def measured(running: dict[str, Callable[[], Any]], *, repeats: int, device: str) -> dict[str, dict[str, Any]]:
    """Median seconds of each, wall and CPU, interleaved; the round of the check counts only if there is no other."""
    first = one_round(running, device=device)
    gate(first)
    rounds = [first] if repeats == 1 else [one_round(running, device=device) for _ in range(repeats)]
    return {
        name: {
            "median_s": statistics.median(each[name].wall_s for each in rounds),
            "median_cpu_s": statistics.median(each[name].cpu_s for each in rounds),
        }
        for name in running
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="folder of a causal language model")
    model.add_argument("--shape", choices=SHAPES, help="random weights of a known shape")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--span-tokens", type=int, help="default: a 256th of --tokens")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    names = [*signals_of("torch"), "cds, text"]
    parser.add_argument("--contenders", nargs="+", choices=names, default=names)
    parser.add_argument("--output", type=Path, help="file for the JSON object")
    return parser.parse_args()


def main() -> None:
    options = parse()
    dtype = resolve_dtype(options.dtype, options.device)
    backend = resolve_backend("auto", options.device)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.model or random_language_model(
            options.shape, temporary, dtype, options.tokens, device=options.device
        )
        found = model_facts(folder)
        attention = attention_kernel(options.device, dtype, head_size=found.head_size, group_size=found.group_size)
        fused = resolve_fused("auto", device=options.device, dtype=dtype, model_type=found.model_type)
        observer = load_observer(
            found, layers=tuple(range(found.num_layers)), dtype=dtype, device=torch.device(options.device),
            attention=attention, fused=fused, also=(0,), head=True,
        )  # fmt: skip
        ids = document(folder, options.tokens, random=options.model is None)
    span_tokens = options.span_tokens or options.tokens // 256
    running = contenders_of(observer, ids, span_tokens, backend, options.contenders)
    times = measured(running, repeats=options.repeats, device=options.device)
    cuda = options.device.startswith("cuda")
    if cuda:
        for name, run in running.items():
            times[name]["grown_bytes"] = grown_by(run, options.device)
    key = "median_s" if cuda else "median_cpu_s"
    ratios = {name: row[key] / times["cds"][key] for name, row in times.items()}
    result = facts(options.device) | {
        "model": Path(options.model).name if options.model else options.shape, "tokens": options.tokens,
        "span_tokens": span_tokens, "dtype": str(dtype).removeprefix("torch."), "backend": backend,
        "attention": attention, "fused": fused, "times": times, "ratio_of": key, "ratios": ratios,
        "vocabulary": found.vocab_size, "marks": MARKS,
    }  # fmt: skip
    print(f"{'':24} {'seconds':>9} {'of the CPU':>11} {'x cds':>7} {'mark':>6}")
    for name, row in times.items():
        mark = f"{MARKS[name]:6.2f}" if name in MARKS else ""
        print(f"{name:24} {row['median_s']:9.3f} {row['median_cpu_s']:11.3f} {ratios[name]:7.3f} {mark:>6}")
    write_result(result, options.output)


if __name__ == "__main__":
    with errors_in_a_line():
        main()
