"""Rows and a model -> every layer's and head's CDS of a contrast set made from them, several ways in one forward pass.

    python scripts/bench/layers.py runs/bench/evaluation-4096 --model runs/toy/model --documents 100 \\
        --output scripts/bench/results/layers-smollm2-4096.jsonl

A line a row: kind (intact, 4 pieces, .., list), domain, the document that it begins with, and CDS by layer for spans of
T/256 and 128 tokens, with and without sigma; `heads` is CDS by layer and head for spans of T/256. Stopped at any
moment, the same command goes on.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
import numpy as np
import torch
from error_lines import errors_in_a_line

from ladm.corpus.rows.reading import open_rows
from ladm.corpus.rows.row import Row
from ladm.errors import LadmError
from ladm.method.cds import aggregated_focus, contextual_dependency
from ladm.method.grid import Grid, span_grid
from ladm.method.pfs import measure_focus
from ladm.modeling.attention_function import LayerView
from ladm.modeling.facts import model_facts
from ladm.modeling.observer import Observer, load_observer
from ladm.settings.layers import parse_layers

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from earlier_contrast import ContrastRow, contrast_set

PAPER = {"variant": "released", "m": 1, "n": 4, "n0": None, "d_afs": 4, "d_cds": 4}


def contrast(
    rows_name: str, *, documents: int, first: int, kinds: list[str], seed: int
) -> list[tuple[str, str, int, np.ndarray]]:
    """(kind, domain, document, ids) of the wanted rows, document by document; real lists at the end."""
    rows = open_rows(rows_name)
    every = rows.read(0, len(rows))
    lists, intact = ([row for row in every if kind_of(row) == kind] for kind in ("list", "document"))
    if not intact:
        raise LadmError(f"{rows_name}: no row has the kind `document` in its meta; documents.py makes such rows")
    chosen = [intact[k] for k in sorted(np.random.default_rng(seed).permutation(len(intact))[:documents])]
    made = contrast_set(
        [np.asarray(row.raw_ids) for row in chosen], np.zeros(len(chosen), int), span_tokens=16, seed=seed
    )
    wanted = sorted(
        (c for c in made if c.kind in kinds and c.document >= first), key=lambda c: (c.document, kinds.index(c.kind))
    )
    named = [(c.kind, domain_of(c, chosen), c.document, c.ids) for c in wanted]
    if "real list" in kinds:
        named += [
            ("real list", row.meta["pile_set_name"], len(chosen) + k, np.asarray(row.raw_ids))
            for k, row in enumerate(lists)
        ]
    return named


def kind_of(row: Row) -> object:
    return row.meta.get("kind") if isinstance(row.meta, dict) else None


def domain_of(row: ContrastRow, chosen: list) -> str:
    return chosen[row.document].meta["pile_set_name"] if "pieces" not in row.kind else "pasted"


@torch.inference_mode()
def measure(observer: Observer, ids: torch.Tensor, grids: dict[str, Grid]) -> dict[str, list]:
    out: dict[str, list] = {f"{name}{form}": [] for name in grids for form in ("", " no-std")} | {"heads": []}

    def visit(view: LayerView) -> None:
        for name, grid in grids.items():
            pfs_BHJN = measure_focus(
                view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend="torch", by_head=True
            ).pfs_BKJN
            for form, ablation in (("", "none"), (" no-std", "no-std")):
                afs_BJ = aggregated_focus(pfs_BHJN.mean(dim=1), grid, ablation=ablation)
                out[name + form].append(round_to_6(contextual_dependency(afs_BJ, grid, ablation=ablation).item()))
            if name == next(iter(grids)):
                afs_HJ = aggregated_focus(pfs_BHJN[0], grid, ablation="none")
                heads = contextual_dependency(afs_HJ, grid, ablation="none").tolist()
                out["heads"].append([round_to_6(cds) for cds in heads])

    observer.observe(ids, visit)
    return out


def round_to_6(number: float) -> float:
    return float(f"{number:.6g}")


@click.command(help=__doc__.splitlines()[0])
@click.argument("rows")
@click.option("--model", required=True)
@click.option("--output", required=True, type=click.Path(path_type=Path))
@click.option("--documents", default=100)
@click.option("--from-document", default=0, help="Leave out the rows of the documents before this one.")
@click.option("--kinds", default="intact,4 pieces,8 pieces,16 pieces,real list")
@click.option("--layers", help="As in ladm score.")
@click.option("--seed", default=2)
def main(
    rows: str, model: str, output: Path, documents: int, from_document: int, kinds: str, layers: str | None, seed: int
) -> None:
    facts = model_facts(model)
    wanted = facts.choose_layers(parse_layers(layers))
    todo = contrast(rows, documents=documents, first=from_document, kinds=kinds.split(","), seed=seed)
    if not todo:
        raise LadmError(f"{rows}: none of its rows is of the kinds {kinds} from document {from_document} on")
    T = len(todo[0][-1])
    grids = {str(l): span_grid(T, l=l, ablation="none", **PAPER) for l in dict.fromkeys((T // 256, 128))}
    done = len(output.read_text().splitlines()) if output.exists() else 0
    observer = load_observer(facts, layers=wanted, dtype=torch.float32, device=torch.device("cpu"))
    print(f"{len(todo)} rows of {T} tokens, {done} done, layers {wanted[0]}..{wanted[-1]}", file=sys.stderr)
    with output.open("a") as file:
        for number, (kind, domain, document, ids) in enumerate(todo[done:], done):
            began = time.perf_counter()
            cds = measure(observer, torch.from_numpy(ids).unsqueeze(0), grids)
            line = {"kind": kind, "domain": domain, "document": document, "layers": wanted, "cds": cds}
            file.write(json.dumps(line) + "\n")
            file.flush()
            print(f"{number + 1}/{len(todo)} {time.perf_counter() - began:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    with errors_in_a_line():
        main()
