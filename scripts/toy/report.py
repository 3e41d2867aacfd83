"""The toy's rows and run -> scores by class, and what scoring cost beside plain forward passes timed here.

    python scripts/toy/report.py runs/toy/rows runs/toy/scores --guarded runs/toy/guarded --model runs/toy/model

Exit 1 when scoring took more than 2.2 times the CPU time of the plain passes. Wall-clock time is only printed: it
depends on what else runs.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from pathlib import Path

import click
import torch
from datasets import load_from_disk
from transformers import AutoModel
from transformers.utils import logging

from ladm.cores import available_cores
from ladm.errors import count_of
from ladm.runs.columns.by_name import read_columns
from ladm.runs.folder import Run

MOST_RATIO = 2.2


def auc(coherent: list[float], incoherent: list[float]) -> float:
    """Share of pairs in which the coherent document scores higher; a tie counts half."""
    wins = [(a > b) + (a == b) / 2 for a in coherent for b in incoherent]
    return sum(wins) / len(wins)


def print_classes(rows: str, run: Path, guarded: Path) -> None:
    """What three scores make of either class, and what a selection by each takes: a quarter of the documents."""
    about = {row["index"]: row["meta"] for row in load_from_disk(rows)["train"]}
    table = read_columns(Run.read(run), ["released", "median", "robust"])
    # `position` is the place of a row in the data, and the toy's index counts in the same order.
    meta = [about[position] for position in table["position"].to_pylist()]
    expected = [each["expected"] for each in meta]
    coherent = [k for k, each in enumerate(expected) if each == "coherent"]
    incoherent = [k for k, each in enumerate(expected) if each == "incoherent"]
    pasted = [k for k, each in enumerate(meta) if each["pile_set_name"] == "Pasted pieces"]
    quarter = len(meta) // 4
    taken: dict[str, list[int]] = {}
    print(f"{'median score, AUC':20} {'coherent':>10} {'incoherent':>10} {'pasted':>10} {'AUC':>6} {'AUC, pasted':>11}")
    for name in ("released", "median", "robust"):
        scores = table[name].to_pylist()
        medians = " ".join(
            f"{statistics.median(scores[k] for k in rows_of):10.6f}" for rows_of in (coherent, incoherent, pasted)
        )
        good, bad, pieces = ([scores[k] for k in rows_of] for rows_of in (coherent, incoherent, pasted))
        print(f"{name:20} {medians} {auc(good, bad):6.2f} {auc(good, pieces):11.2f}")
        taken[name] = sorted(range(len(meta)), key=lambda k: -scores[k])[:quarter]
    inside = {row["index"] for row in load_from_disk(str(guarded))["train"]}
    taken["guarded"] = [k for k, position in enumerate(table["position"].to_pylist()) if position in inside]
    print(f"\n{'best quarter by':20} {'taken':>10} {'coherent':>10} {'pasted':>10} {'lists, logs, tables':>20}")
    for name, chosen in taken.items():
        good, pieces = len(set(chosen) & set(coherent)), len(set(chosen) & set(pasted))
        print(f"{name:20} {len(chosen):>10} {good:>10} {pieces:>10} {len(chosen) - good - pieces:>20}")


def plain_seconds(rows: str, model_folder: str, *, workers: int) -> tuple[float, float]:
    """Seconds by the clock and of CPU time of plain forward passes over all rows, which have equally many tokens.

    As many processes as scored the rows share the cores; each makes one pass. The median of them counts.
    """
    threads = max(1, available_cores() // workers)
    # Not forked: OpenMP does not work in a fork of a process that has used it.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        times = pool.starmap(_time_of_a_pass, [(rows, model_folder, threads, which) for which in range(workers)])
        # Else they are killed, and Python may warn of the semaphores that they leave.
        pool.close()
        pool.join()
    seconds, cpu_seconds = (statistics.median(each) for each in zip(*times, strict=True))
    count = len(load_from_disk(rows)["train"])
    return seconds * count / workers, cpu_seconds * count


@torch.inference_mode()
def _time_of_a_pass(rows: str, model_folder: str, threads: int, which: int) -> tuple[float, float]:
    """Seconds by the clock and of CPU time of a pass over row `which`."""
    torch.set_num_threads(threads)
    data = load_from_disk(rows)["train"]
    logging.disable_progress_bar()
    model = AutoModel.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    ids = torch.tensor([data[which]["input_ids"]])
    # A short pass warms up.
    model(input_ids=ids[:, :256], use_cache=False)
    started, cpu_started = time.perf_counter(), time.process_time()
    model(input_ids=ids, use_cache=False)
    return time.perf_counter() - started, time.process_time() - cpu_started


@click.command(help=__doc__.splitlines()[0])
@click.argument("rows")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--guarded", required=True, type=click.Path(path_type=Path), help="The guarded selection of the run.")
@click.option("--model", required=True)
@click.option("--seconds", type=float, help="Seconds that `ladm run` took.")
@click.option("--cpu-seconds", help="Its CPU time: user and system.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that it scored with.")
def main(
    rows: str, run: Path, guarded: Path, model: str, seconds: float | None, cpu_seconds: str | None, workers: int
) -> None:
    print_classes(rows, run, guarded)
    if seconds is None or cpu_seconds is None:
        return
    plain, cpu_plain = plain_seconds(rows, model, workers=workers)
    cpu_ratio = sum(map(float, cpu_seconds.split())) / cpu_plain
    print(
        f"cost: {seconds:.0f} s, from documents to the page; plain forward passes alone {plain:.0f} s (from one pass "
        f"of each of {count_of(workers, 'process', 'processes')}, for {len(load_from_disk(rows)['train'])} documents): "
        f"{seconds / plain:.2f} x; in CPU time {cpu_ratio:.2f} x"
    )
    if cpu_ratio > MOST_RATIO:
        sys.exit(f"scoring took more than {MOST_RATIO} x the CPU time of the plain forward passes")


if __name__ == "__main__":
    main()
