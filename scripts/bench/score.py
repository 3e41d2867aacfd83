"""What scoring costs beside the plain forward pass of the same model, and beside the released way, in one process.

    python scripts/bench/score.py --model runs/toy/model --tokens 8192 --span-tokens 32 --dtype float32
    python scripts/bench/score.py --shape tinyllama --device cuda --dtype bfloat16          (32,768 tokens)

(a) the stock model's forward pass; (b) ours; (c) the released algorithm, implemented
independently: a softmax over all earlier keys for every scored span; with --layers also (d), ours with
those layers alone. Interleaved, medians; the times are those of whole documents. A check of correctness comes first.
Prints a table, and one JSON object as its last line. Memory is the model's weights and what one
document adds to them at the most, on a CPU each in a process of its own. Imports torch,
transformers and what it measures, nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from contenders import SHAPES, Contender, Contenders, document, flops, grid_of, random_model
from error_lines import errors_in_a_line
from machine import facts, grown_by, made_resident, matrix_rate, measure, write_result

from ladm.method.attention_choice import attention_kernel
from ladm.modeling.devices import resolve_backend, resolve_dtype

NAMES = {"a": "a plain forward", "b": "b ladm", "c": "c released way", "d": "d some layers"}
GATE_TEXTS = 3
GATE_TOKENS = {"cpu": 2048, "cuda": 32768}
FLOAT32_BUDGET = 1e-5
HALF_BUDGET = 2.0


def relative(ours: Tensor, exact: Tensor) -> Tensor:
    return (ours - exact) / exact


def gate(
    contenders: Contenders, ids: Tensor, *, span_tokens: int, strides: dict[str, int], most_tokens: int | None
) -> dict[str, Any]:
    """Each layer of a few texts against the oracle on a float32 model, with the spans that are timed where they fit.

    float32: within 1e-5. Half precision: the root mean square of our relative errors, over layers and
    texts, is at most twice that of the released way in the same precision: the error budget of the kernels' tests.
    """
    tokens = min(ids.shape[1], most_tokens or GATE_TOKENS[contenders.device.split(":")[0]])
    grid = grid_of(tokens, span_tokens=min(span_tokens, tokens // 64), **strides)
    texts = ids[0].unfold(0, tokens, max(1, (ids.shape[1] - tokens) // (GATE_TEXTS - 1)))[:GATE_TEXTS]
    ours, theirs = [], []
    for text in texts:
        exact = contenders.exact(text.unsqueeze(0), grid)
        ours.append(relative(contenders.ours(text.unsqueeze(0), grid), exact))
        if contenders.dtype != torch.float32:
            theirs.append(relative(contenders.released().cds(text.unsqueeze(0), grid), exact))
    if contenders.dtype == torch.float32:
        result = {"error": torch.stack(ours).abs().max().item(), "allowed": FLOAT32_BUDGET}
    else:
        baseline = torch.stack(theirs).square().mean().sqrt().item()
        error = torch.stack(ours).square().mean().sqrt().item()
        result = {"error": error, "released_error": baseline, "allowed": HALF_BUDGET * baseline}
    if not result["error"] <= result["allowed"]:
        sys.exit(f"the gate of correctness is shut: {result}")
    return result | {"texts": len(texts), "tokens": tokens}


def memory(contender: Contender, letter: str, device: str, *, tokens: int, strides: dict[str, int]) -> dict[str, int]:
    """Bytes of the weights, and of what a document adds to them at the most."""
    if device.startswith("cuda"):
        return {"weights_bytes": made_resident(contender.model), "grown_bytes": grown_by(contender.run, device)}
    same = {"tokens": tokens, **strides, "memory_of": letter}
    options = [text for name, value in same.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, __file__, *sys.argv[1:], *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="folder of a Llama")
    model.add_argument("--shape", choices=SHAPES, help="random weights of a known shape")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--span-tokens", type=int, help="default: a 256th of --tokens")
    parser.add_argument("--gate-tokens", type=int, help="of the texts of the check; default: 2048, on a GPU 32768")
    parser.add_argument("--d-afs", type=int, default=4)
    parser.add_argument("--d-cds", type=int, default=4)
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--layers", help="time also (d): ours with these layers alone, as a profile scores")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--backend", default="auto", choices=["auto", "torch", "triton"])
    parser.add_argument(
        "--attention", default="auto", choices=["auto", "flash", "cudnn", "flash-attn", "fa3", "fa4", "efficient"]
    )
    parser.add_argument("--contenders", default="abc", help="which of a, b and c to time")
    parser.add_argument("--memory-of", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help="file for the JSON object")
    return parser.parse_args()


def load(options: argparse.Namespace, temporary: str, tokens: int) -> tuple[Contenders, Tensor]:
    """The contenders and a document of `tokens` tokens."""
    dtype = resolve_dtype(options.dtype, options.device)
    folder = options.model or random_model(options.shape, temporary, dtype, tokens, device=options.device)
    contenders = Contenders(
        folder, dtype=dtype, device=options.device, backend=resolve_backend(options.backend, options.device),
        attention=None
        if options.attention == "auto"
        else attention_kernel(options.device, dtype, requested=options.attention),
    )  # fmt: skip
    return contenders, document(folder, tokens, random=options.model is None).to(options.device)


def timed(
    options: argparse.Namespace, contenders: Contenders, ids: Tensor, *, strides: dict[str, int]
) -> dict[str, Any]:
    """Gate, times and memory of one document."""
    tokens = ids.shape[1]
    span_tokens = options.span_tokens or tokens // 256
    checked = gate(contenders, ids, span_tokens=span_tokens, strides=strides, most_tokens=options.gate_tokens)
    grid = grid_of(tokens, span_tokens=span_tokens, **strides)
    letters = options.contenders + ("d" if options.layers else "")
    running = {letter: contenders.get(letter, ids, grid, layers=options.layers) for letter in letters}
    times = measure(
        {NAMES[letter]: each.run for letter, each in running.items()}, repeats=options.repeats, device=options.device
    )
    rate = matrix_rate(options.device, contenders.dtype)
    for letter, each in running.items():
        row = times[NAMES[letter]]
        row |= memory(each, letter, options.device, tokens=tokens, strides=strides)
        work = flops(each.model.config, tokens, whole_layers=each.whole_layers)
        row["utilisation"] = work / row["median_s"] / rate
    plain = times[NAMES["a"]]["median_s"]
    return {
        "model": Path(options.model).name if options.model else options.shape, "layers": options.layers,
        "tokens": tokens, "span_tokens": span_tokens, **strides,
        "dtype": str(contenders.dtype).removeprefix("torch."), "backend": contenders.backend,
        "attention": contenders.observer().attention, "fused": contenders.fused(), "gate": checked,
        "matrix_flop_per_s": rate,
        **{f"ratio_{letter}_to_a": times[NAMES[letter]]["median_s"] / plain for letter in running if letter != "a"},
        "times": times,
    }  # fmt: skip


def main() -> None:
    options = parse()
    if "a" not in options.contenders:
        sys.exit("--contenders: everything is compared with (a)")
    strides = {"d_afs": options.d_afs, "d_cds": options.d_cds}
    with tempfile.TemporaryDirectory() as temporary:
        contenders, ids = load(options, temporary, options.tokens)
        if options.memory_of:
            grid = grid_of(options.tokens, span_tokens=options.span_tokens or options.tokens // 256, **strides)
            only = contenders.get(options.memory_of, ids, grid, layers=options.layers)
            weights = made_resident(only.model)
            print(json.dumps({"weights_bytes": weights, "grown_bytes": grown_by(only.run, options.device)}))
            return
        result = facts(options.device) | timed(options, contenders, ids, strides=strides)
    plain = result["times"][NAMES["a"]]["median_s"]
    print(f"{'':16} {'seconds':>9} {'x plain':>8} {'weights GiB':>12} {'and GiB':>8} {'utilisation':>12}")
    for name, row in result["times"].items():
        print(
            f"{name:16} {row['median_s']:9.3f} {row['median_s'] / plain:8.3f} {row['weights_bytes'] / 2**30:12.2f} "
            f"{row['grown_bytes'] / 2**30:8.2f} {row['utilisation']:12.1%}"
        )
    write_result(result, options.output)


if __name__ == "__main__":
    with errors_in_a_line():
        main()
