"""The toy's rows and run -> scores by class, and what scoring cost beside plain forward passes timed here.

    python scripts/toy/report.py runs/toy/rows runs/toy/scores --rescored runs/toy/rescored --model runs/toy/model

Exit 1 when scoring took more than 2.2 times the CPU time of the plain passes. Wall-clock time is only printed: it
depends on what else runs.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click
import torch
from datasets import load_from_disk
from transformers import AutoModel
from transformers.utils import logging

MOST_RATIO = 2.2
PASSES = 4


def auc(coherent: list[float], incoherent: list[float]) -> float:
    """Share of pairs in which the coherent document scores higher; a tie counts half."""
    wins = [(a > b) + (a == b) / 2 for a in coherent for b in incoherent]
    return sum(wins) / len(wins)


def read(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "sorted_by_score.jsonl").read_text().splitlines()]


def print_classes(rows: str, run: Path, rescored: Path) -> None:
    """Median score of either class under three scores, and how well each separates them."""
    expected = {row["index"]: row["meta"]["expected"] for row in load_from_disk(rows)["train"]}
    lines = read(run)
    scores = {
        "mean over layers (released)": {line["index"]: statistics.fmean(line["cds_per_layer"]) for line in lines},
        "median over layers": {line["index"]: statistics.median(line["cds_per_layer"]) for line in lines},
        "profile": {line["index"]: line["score"] for line in read(rescored)},
    }
    print(f"{'':28} {'coherent':>12} {'incoherent':>12} {'pasted':>12} {'AUC':>6} {'AUC, pasted':>12}")
    domains = {line["index"]: line["meta"]["pile_set_name"] for line in lines}
    for name, by_index in scores.items():
        good = [score for index, score in by_index.items() if expected[index] == "coherent"]
        bad = [score for index, score in by_index.items() if expected[index] == "incoherent"]
        pasted = [score for index, score in by_index.items() if domains[index] == "Pasted pieces"]
        medians = " ".join(f"{statistics.median(values):12.6f}" for values in (good, bad, pasted))
        print(f"{name:28} {medians} {auc(good, bad):6.2f} {auc(good, pasted):12.2f}")


@torch.inference_mode()
def plain_seconds(rows: str, model_folder: str) -> tuple[float, float]:
    """Seconds by the clock and of CPU time of plain forward passes over all rows, from the median of a few."""
    data = load_from_disk(rows)["train"]
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    seconds: list[float] = []
    cpu_seconds: list[float] = []
    for row in data.select(range(PASSES + 1)):
        ids = torch.tensor([row["input_ids"]])
        started, cpu_started = time.perf_counter(), time.process_time()
        model(input_ids=ids, use_cache=False)
        seconds.append(time.perf_counter() - started)
        cpu_seconds.append(time.process_time() - cpu_started)
    # The first pass warms up.
    return statistics.median(seconds[1:]) * len(data), statistics.median(cpu_seconds[1:]) * len(data)


@click.command(help=__doc__.splitlines()[0])
@click.argument("rows")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--rescored", required=True, type=click.Path(path_type=Path))
@click.option("--model", required=True)
@click.option("--seconds", type=float, help="Seconds that `ladm run` took.")
@click.option("--cpu-seconds", help="Its CPU time: user and system.")
def main(rows: str, run: Path, rescored: Path, model: str, seconds: float | None, cpu_seconds: str | None) -> None:
    print_classes(rows, run, rescored)
    if seconds is None or cpu_seconds is None:
        return
    plain, cpu_plain = plain_seconds(rows, model)
    cpu_ratio = sum(map(float, cpu_seconds.split())) / cpu_plain
    print(
        f"cost: {seconds:.0f} s, from documents to the page; plain forward passes alone {plain:.0f} s "
        f"(median of {PASSES}, times {len(load_from_disk(rows)['train'])}): {seconds / plain:.2f} x; "
        f"in CPU time {cpu_ratio:.2f} x"
    )
    if cpu_ratio > MOST_RATIO:
        sys.exit(f"scoring took more than {MOST_RATIO} x the CPU time of the plain forward passes")


if __name__ == "__main__":
    main()
