"""The toy's rows and run -> scores by class, and what scoring cost beside plain forward passes timed here.

    python scripts/toy/report.py runs/toy/rows runs/toy/scores --model runs/toy/model --seconds 280

Exit 1 when scoring took more than 2.2 times the plain passes.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

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


def print_classes(rows: str, run: Path) -> None:
    """Median score of either class under the mean and the median over layers, and how well each separates them."""
    expected = {row["index"]: row["meta"]["expected"] for row in load_from_disk(rows)["train"]}
    lines = [json.loads(line) for line in (run / "sorted_by_score.jsonl").read_text().splitlines()]
    print(f"{'':28} {'coherent':>12} {'incoherent':>12} {'separation (AUC)':>17}")
    for name, reduce in (("mean over layers (released)", statistics.fmean), ("median over layers", statistics.median)):
        by_class: dict[str, list[float]] = {"coherent": [], "incoherent": []}
        for line in lines:
            by_class[expected[line["index"]]].append(reduce(line["cds_per_layer"]))
        good, bad = by_class["coherent"], by_class["incoherent"]
        print(f"{name:28} {statistics.median(good):12.6f} {statistics.median(bad):12.6f} {auc(good, bad):17.2f}")


@torch.inference_mode()
def plain_seconds(rows: str, model_folder: str) -> float:
    """Seconds of plain forward passes over all rows, from the median of a few after one to warm up."""
    data = load_from_disk(rows)["train"]
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    seconds = []
    for row in data.select(range(PASSES + 1)):
        ids = torch.tensor([row["input_ids"]])
        began = time.perf_counter()
        model(input_ids=ids, use_cache=False)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]) * len(data)


@click.command(help=__doc__.splitlines()[0])
@click.argument("rows")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--model", required=True)
@click.option("--seconds", type=float, help="What `ladm score` took, start to end.")
def main(rows: str, run: Path, model: str, seconds: float | None) -> None:
    print_classes(rows, run)
    if seconds is None:
        return
    plain = plain_seconds(rows, model)
    print(
        f"cost: {seconds:.0f} s, loading and writing included; plain forward passes alone {plain:.0f} s "
        f"(median of {PASSES}, times {len(load_from_disk(rows)['train'])}): {seconds / plain:.2f} x"
    )
    if seconds > MOST_RATIO * plain:
        sys.exit(f"scoring took more than {MOST_RATIO} x the plain forward passes")


if __name__ == "__main__":
    main()
