"""Does torch.compile make the plain forward pass faster? Eager and compiled, interleaved, in one process.

python scripts/bench/compiled.py --model runs/toy/model --tokens 1024 --dtype float32 --output FILE
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModel

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from contenders import SHAPES, document, random_model
from error_lines import errors_in_a_line
from machine import facts, measure, synchronised, write_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", help="folder of a Llama")
    model.add_argument("--shape", choices=SHAPES, help="random weights of a known shape")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--work", type=Path, default=Path("runs/bench/random"), help="folder for random weights")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    folder = options.model or random_model(options.shape, str(options.work), dtype, options.tokens)
    stock = AutoModel.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa").to(options.device).eval()
    ids = document(folder, options.tokens, random=options.model is None).to(options.device)
    fast = torch.compile(stock)

    @torch.inference_mode()
    def run(each: torch.nn.Module) -> None:
        each(input_ids=ids, use_cache=False)

    began = time.perf_counter()
    run(fast)
    synchronised(options.device)()
    first = time.perf_counter() - began
    times = measure(
        {"eager": lambda: run(stock), "compiled": lambda: run(fast)}, repeats=options.repeats, device=options.device
    )
    ratio = times["compiled"]["median_s"] / times["eager"]["median_s"]
    result = facts(options.device) | {
        "tokens": options.tokens, "dtype": options.dtype, "first_compiled_s": first, "ratio": ratio, "times": times,
    }  # fmt: skip
    write_result(result, options.output)


if __name__ == "__main__":
    with errors_in_a_line():
        main()
