"""A pack and a model -> for every row its scores, and how much training on it would lower the loss of each class.

    python scripts/experiment/influence/measure.py runs/experiment/influence --model runs/toy/model [--device cuda]

The influence is that of gradients.py.
The pack's folder has pack.npz and rows.json of prepare.py, and classes.npz of scripts/experiment/judge.py.
Writes a line a row to influence.jsonl, gain.jsonl, columns.jsonl and prolong.jsonl as it goes; started again, it
measures the rows that have none. The parts need not run on one machine.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from gradients import CLASSES, Influence, token_losses
from judge import read_classes

from ladm.method.grid import Method
from ladm.signals.context_gain import continues_earlier_bigram, gain_columns, windows
from ladm.signals.layer_cds import layer_cds
from ladm.signals.longattn import distant_attention
from ladm.signals.prolong import SEGMENT_TOKENS, score_row

SEGMENT_ROWS = 32
GPU_ROWS = 8
BIGRAM_SHARE = 0.5
TAKEN_OVER = {
    "influence": ["u_D", "u_C", "u_S", "bigram", "products"],
    "gain": ["gain", "gain_positive", "longfilter", "key_tokens", "gain_no_copy", "loss"],
    "columns": [
        "cds", "cds_no_std", "value_cds", "value_cds_no_std", "copy_share", "sink_mass", "longattn_ds", "longattn_v",
    ],
}  # fmt: skip


def cds_columns(
    observer: Any, first_layers: Any, ids_BT: Tensor, method: Method, *, backend: str
) -> list[dict[str, Any]]:
    """CDS of every layer in its four forms, the copy share, the sink mass, and LongAttn's two numbers, of each row."""
    columns_BL = layer_cds(
        observer, ids_BT, method.grid(ids_BT.shape[1]), ablation="none", backend=backend, record="layers"
    )
    longattn: dict[str, Tensor] = {}

    def visit(view: Any) -> None:
        if view.layer == 0:
            longattn.update(distant_attention(view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling))

    # LongAttn is of the first layer alone, so this second pass is a short one.
    first_layers.observe(ids_BT, visit)
    by_layer = {name.replace("_per_layer", ""): values.tolist() for name, values in columns_BL.items()}
    scalars = {name: values.tolist() for name, values in longattn.items()}
    return [{name: values[k] for name, values in (by_layer | scalars).items()} for k in range(len(ids_BT))]


@torch.inference_mode()
def gains(model: Any, ids_T: Tensor) -> dict[str, float]:
    """The columns of long-context gain by the suffix scheme, and the mean loss of the row."""
    (window,) = windows(len(ids_T), "suffix")
    losses = token_losses(model, ids_T)
    long = losses[window.first - 1 :]
    short = token_losses(model, ids_T[window.start : window.stop])[window.first - window.start - 1 :]
    copied = continues_earlier_bigram(ids_T.cpu())[window.first :]
    columns = gain_columns(long[None].cpu(), short[None].cpu(), copied[None])
    return {name: float(value[0]) for name, value in columns.items()} | {"loss": float(losses.mean())}


@torch.inference_mode()
def segment_perplexities(model: Any, inputs: np.ndarray) -> np.ndarray:
    """exp of the mean loss of the last 127 tokens of each input, SEGMENT_ROWS inputs at a time."""
    found = []
    for start in range(0, len(inputs), SEGMENT_ROWS):
        ids_BT = torch.from_numpy(inputs[start : start + SEGMENT_ROWS]).to(model.device)
        hidden_BTE = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        logits = model.get_output_embeddings()(hidden_BTE[:, -SEGMENT_TOKENS:-1]).float()
        targets_BC = ids_BT[:, 1 - SEGMENT_TOKENS :]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets_BC.flatten(), reduction="none")
        found.append(losses.view_as(targets_BC).double().mean(dim=1).exp().cpu().numpy())
    return np.concatenate(found)


def row_bigram_losses(rows: np.ndarray, held_out: np.ndarray, dependent: np.ndarray) -> Iterator[float]:
    """Of each row the loss on class D of a table of its bigrams, mixed half and half with the pool's unigrams.

    What a student that learns nothing but adjacent pairs would gain from the row.
    """
    V = int(max(rows.max(), held_out.max())) + 1
    unigram = (np.bincount(rows.ravel(), minlength=V) + 1) / (rows.size + V)
    places = np.argwhere(dependent)
    before, after = held_out[places[:, 0], places[:, 1] - 1], held_out[places[:, 0], places[:, 1]]
    wanted = before.astype(np.int64) * V + after
    for ids in rows.astype(np.int64):
        pairs, counts = np.unique(ids[:-1] * V + ids[1:], return_counts=True)
        firsts = np.bincount(ids[:-1], minlength=V)
        at = np.searchsorted(pairs, wanted).clip(max=len(pairs) - 1)
        found = np.where(pairs[at] == wanted, counts[at], 0) / np.maximum(firsts[before], 1)
        yield float(-np.log(BIGRAM_SHARE * found + (1 - BIGRAM_SHARE) * unigram[after]).mean())


def measured_ids(path: Path) -> set[str]:
    """The rows that are measured already; a torn last line is cut off."""
    if not path.exists():
        return set()
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with path.open("r+b") as file:
            file.truncate(end)
    return {json.loads(line)["id"] for line in content[:end].splitlines()}


def take_over(table: Path, output: Path, ids: list[str], *, products: str) -> None:
    """Write what a table of the same rows has of each part into the part's file; files that exist stay.

    Influence is taken over only where it was measured with the same `products`.
    """
    rows = pq.read_table(table / "rows.parquet").to_pylist()
    if [row["id"] for row in rows] != ids:
        sys.exit(f"{table} is of other rows")
    for name, columns in TAKEN_OVER.items():
        path = output / f"{name}.jsonl"
        if path.exists():
            continue
        of_part = [{key: row.get(key) for key in ("id", *columns)} for row in rows]
        kept = [row for row in of_part if None not in row.values() and row.get("products", products) == products]
        path.write_text("".join(json.dumps(row) + "\n" for row in kept))


@contextlib.contextmanager
def matrix_products(dtype: str) -> Iterator[None]:
    """Matrix products of float32 numbers on a CPU, rounded to `dtype` before they are multiplied."""
    settings = torch.backends.mkldnn.matmul
    before = settings.fp32_precision
    settings.fp32_precision = {"float32": "ieee", "bfloat16": "bf16"}[dtype]
    try:
        yield
    finally:
        settings.fp32_precision = before


def write_rows(
    path: Path, ids: list[str], measure: Callable[[list[int]], list[dict[str, Any]]], *, until: float, at_once: int = 1
) -> None:
    """Append a line for every row that has none yet, until the time is up; exits 3 when rows are left."""
    done = measured_ids(path)
    left = [k for k, name in enumerate(ids) if name not in done]
    started = time.monotonic()
    with path.open("ab") as file:
        for first in range(0, len(left), at_once):
            if time.monotonic() > until:
                print(f"{path.name}: {len(left) - first} rows left; the same command continues", file=sys.stderr)
                sys.exit(3)
            of = left[first : first + at_once]
            found = [{"id": ids[k]} | columns for k, columns in zip(of, measure(of), strict=True)]
            file.write(b"".join(json.dumps(row).encode() + b"\n" for row in found))
            file.flush()
    if left:
        seconds = time.monotonic() - started
        print(f"{path.name}: {len(left)} rows in {seconds:.1f} s", file=sys.stderr, flush=True)


@click.command(help=__doc__.splitlines()[0])
@click.argument("pack", type=click.Path(path_type=Path, exists=True))
@click.option("--model", "model_folder", required=True)
@click.option("--device", default="cpu")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of what is measured; default: the pack's.")
@click.option("--minutes", type=float, help="Stop after so long; started again, it continues.")
@click.option(
    "--parts", multiple=True, type=click.Choice(["influence", "gain", "columns", "prolong"]),
    default=["influence", "gain", "columns"], help="prolong costs 16 times the tokens of a row at 2,048.",
)  # fmt: skip
@click.option(
    "--products", type=click.Choice(["float32", "bfloat16"]), default="float32", show_default=True,
    help="Of the gradients: bfloat16 rounds what is multiplied, which is faster on a CPU with AMX.",
)  # fmt: skip
@click.option(
    "--continue-from", type=click.Path(path_type=Path, exists=True),
    help="A folder of tables.py for the same rows: what it has of them is not measured again.",
)  # fmt: skip
@click.option("--backend", type=click.Choice(["torch", "triton"]), default="torch", help="Of equation 2.")
@click.option("--state/--no-state", default=True, help="Keep the held-out gradients (1.5 GB for 135M parameters).")
def main(
    pack: Path,
    model_folder: str,
    device: str,
    output: Path | None,
    minutes: float | None,
    parts: tuple[str, ...],
    products: str,
    continue_from: Path | None,
    backend: str,
    state: bool,
) -> None:
    from transformers import AutoModelForCausalLM

    from ladm.modeling.facts import model_facts
    from ladm.modeling.observer import load_observer

    started = time.monotonic()
    until = started + 60 * minutes if minutes is not None else float("inf")
    output = output or pack
    output.mkdir(parents=True, exist_ok=True)
    content = np.load(pack / "pack.npz")
    held = content["held_out"]
    all_ids = content["ids"].astype(np.int64)
    rows = torch.from_numpy(all_ids[~held]).to(device)
    held_out_ids = all_ids[held]
    classes_HT, judged_H = read_classes(pack / "classes.npz", held_out_ids.shape)
    if not judged_H.any():
        sys.exit(f"{pack}: no held-out row has its classes yet; run scripts/experiment/judge.py first")
    held_out_ids, classes_HT = held_out_ids[judged_H], classes_HT[judged_H]
    held_out, classes = torch.from_numpy(held_out_ids).to(device), torch.from_numpy(classes_HT).to(device)
    about = [row for row in json.loads((pack / "rows.json").read_text()) if row["split"] != "held_out"]
    torch.backends.cuda.matmul.allow_tf32 = False
    # Gradients of far tokens are tiny; on a CPU, arithmetic with denormal numbers takes many times as long.
    torch.set_flush_denormal(True)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="sdpa")
    model = model.to(device).eval()
    facts = model_facts(model_folder)
    ids = [row["id"] for row in about]
    if continue_from is not None:
        take_over(continue_from, output, ids, products=products)
    bigrams = list(row_bigram_losses(all_ids[~held], held_out_ids, classes_HT == CLASSES["D"]))
    path = output / "influence.jsonl"
    # Where no row is left, the gradients of the held-out rows are not needed.
    if "influence" in parts and len(measured_ids(path)) < len(ids):
        with matrix_products(products):
            file = output / f"gradients-{products}.pt"
            influence = Influence(model, rows, held_out, classes, state=file if state else None)
            print(f"held-out gradients after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

            def measure_influence(of: list[int]) -> list[dict[str, Any]]:
                return [influence.of(rows[k]) | {"bigram": -bigrams[k], "products": products} for k in of]

            write_rows(path, ids, measure_influence, until=until)
    if "gain" in parts:

        def measure_gain(of: list[int]) -> list[dict[str, Any]]:
            return [gains(model, rows[k]) for k in of]

        write_rows(output / "gain.jsonl", ids, measure_gain, until=until)
    if "columns" in parts:
        how: dict[str, Any] = {"dtype": torch.float32, "device": torch.device(device)}
        observer = load_observer(facts, layers=tuple(range(facts.num_layers)), **how)
        # Two, because a pass ends before the attention of its last layer, and with it the log-sum-exp, is computed.
        first_layers = load_observer(facts, layers=(0, 1), check=False, **how)
        method = Method(span_tokens=max(1, rows.shape[1] // 256))

        def measure_columns(of: list[int]) -> list[dict[str, Any]]:
            return cds_columns(observer, first_layers, rows[of], method, backend=backend)

        at_once = GPU_ROWS if device.startswith("cuda") else 1
        write_rows(output / "columns.jsonl", ids, measure_columns, until=until, at_once=at_once)
    if "prolong" in parts:

        def measure_prolong(of: list[int]) -> list[dict[str, Any]]:
            perplexities = partial(segment_perplexities, model)
            return [score_row(row, perplexities, most_pairs=None, seed=0).columns() for row in all_ids[~held][of]]

        write_rows(output / "prolong.jsonl", ids, measure_prolong, until=until)
    print(json.dumps({"rows": len(rows), "seconds": round(time.monotonic() - started, 1), "device": device}))


if __name__ == "__main__":
    main()
