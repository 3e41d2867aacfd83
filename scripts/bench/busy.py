"""A forward pass beside other work on the CPU: with OpenMP's own way of waiting, and with the one that ladm sets.

python scripts/bench/busy.py --model runs/toy/model --tokens 1024 --busy 1 --output FILE

A setting counts when torch is imported, so each measurement is a process of its own; they take turns.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from error_lines import errors_in_a_line

from ladm.cores import WAITING_ROUNDS

SETTINGS = {"default": {}, "ladm": {"GOMP_SPINCOUNT": WAITING_ROUNDS}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--busy", type=int, default=1, help="processes that keep a core busy meanwhile")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one_pass(options.model, options.tokens)))
        return
    from machine import facts, write_result

    from ladm.modeling.facts import model_facts

    # For its error: a process of each measurement would end with a traceback.
    model_facts(options.model)

    seconds: dict[str, dict[str, list[float]]] = {}
    for busy in (0, options.busy):
        with busy_processes(busy):
            for _ in range(options.repeats):
                for name, setting in SETTINGS.items():
                    each = seconds.setdefault(f"{name}, {busy} busy", {"wall_s": [], "cpu_s": []})
                    for kind, value in in_own_process(setting).items():
                        each[kind].append(value)
    middle = {name: {of: statistics.median(found) for of, found in each.items()} for name, each in seconds.items()}
    for name, each in middle.items():
        print(f"{name:<18} {each['wall_s']:8.2f} s {each['cpu_s']:8.2f} s of CPU", file=sys.stderr)
    write_result(facts("cpu") | {"tokens": options.tokens, "median": middle, "all": seconds}, options.output)


def in_own_process(setting: dict[str, str]) -> dict[str, float]:
    """The same command with `--one`, and a setting."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    } | setting
    done = subprocess.run([sys.executable, *sys.argv, "--one"], env=environment, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """Programs that never wait."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def one_pass(model: str, tokens: int) -> dict[str, float]:
    """Seconds of a plain forward pass, and of CPU time, after one that warms up: the median of three."""
    import torch
    from transformers import AutoModel

    stock = AutoModel.from_pretrained(model, dtype=torch.float32, attn_implementation="sdpa").eval()
    ids = torch.arange(tokens).remainder(stock.config.vocab_size).unsqueeze(0)
    found: dict[str, list[float]] = {"wall_s": [], "cpu_s": []}
    with torch.inference_mode():
        for _ in range(4):
            wall, cpu = time.perf_counter(), time.process_time()
            stock(input_ids=ids, use_cache=False)
            found["wall_s"].append(time.perf_counter() - wall)
            found["cpu_s"].append(time.process_time() - cpu)
    return {name: statistics.median(each[1:]) for name, each in found.items()}


if __name__ == "__main__":
    with errors_in_a_line():
        main()
