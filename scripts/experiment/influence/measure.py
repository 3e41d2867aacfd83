"""A pack and a model -> for every row its scores, and how much training on it would lower the loss of each class.

    python scripts/experiment/influence/measure.py runs/experiment/influence --model runs/toy/model [--device cuda]

The influence of row x on class c of held-out tokens (LESS, TracIn):

    u_c(x) = <P g_c, grad L(x)> / |P^(1/2) grad L(x)|

with g_c the gradient of the held-out loss on class c, P = 1 / (sqrt(v) + eps) of Adam from 40 rows, L the mean loss
of the row. Writes a line a row to influence.jsonl, columns.jsonl and prolong.jsonl as it goes; started again, it
continues after their last whole lines. The parts need not run on one machine.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor

from ladm.method.focus import aggregated_focus, contextual_dependency, value_weights
from ladm.method.grid import Method
from ladm.method.pfs import measure_focus
from ladm.method.pfs_torch import CopyKeys
from ladm.method.sinks import far_key_mass, sink_mass
from ladm.signals.context_gain import continues_earlier_bigram, gain_columns, windows
from ladm.signals.longattn import distant_attention
from ladm.signals.prolong import SEGMENT_TOKENS, score_row

ADAM_ROWS = 40
EPS = 1e-8
CLASSES = {"D": 1, "C": 2, "S": 3}
HEAD_TOKENS = 512
SEGMENT_ROWS = 32
BIGRAM_SHARE = 0.5


def token_losses(model: Any, ids_T: Tensor) -> Tensor:
    """Loss of tokens 1 .. T-1, with the head applied in pieces: (T - 1,)."""
    hidden_TE = model.base_model(input_ids=ids_T[None], use_cache=False).last_hidden_state[0]
    head = model.get_output_embeddings()
    pieces = []
    for start in range(0, len(ids_T) - 1, HEAD_TOKENS):
        stop = min(start + HEAD_TOKENS, len(ids_T) - 1)
        logits = head(hidden_TE[start:stop]).float()
        pieces.append(torch.nn.functional.cross_entropy(logits, ids_T[start + 1 : stop + 1], reduction="none"))
    return torch.cat(pieces)


def gradient(model: Any, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


class Influence:
    """The gradients of the held-out classes, preconditioned, and what of them a row's gradient points along."""

    def __init__(self, model: Any, rows: Tensor, held_out: Tensor, classes: Tensor, *, state: Path | None) -> None:
        self._model = model
        if state is not None and state.exists():
            saved = torch.load(state, map_location=model.device, weights_only=True)
            self._p, self._pg = saved["p"], saved["pg"]
            return
        v = [torch.zeros_like(parameter) for parameter in model.parameters()]
        sampled = rows[:: max(1, len(rows) // ADAM_ROWS)][:ADAM_ROWS]
        for ids_T in sampled:
            for total, g in zip(v, gradient(model, token_losses(model, ids_T).mean()), strict=True):
                total += g.square() / len(sampled)
        self._p = [1 / (x.sqrt() + EPS) for x in v]
        counts = {name: int((classes == code).sum()) for name, code in CLASSES.items()}
        self._pg = {name: [torch.zeros_like(x) for x in v] for name in CLASSES}
        for ids_T, codes_T in zip(held_out, classes, strict=True):
            losses = token_losses(model, ids_T)
            sums = {name: losses[codes_T[1:] == code].sum() / counts[name] for name, code in CLASSES.items()}
            for k, (name, total) in enumerate(sums.items()):
                # The three gradients share one forward pass.
                keep = k < len(sums) - 1
                found = torch.autograd.grad(total, list(model.parameters()), retain_graph=keep)
                for accumulated, g in zip(self._pg[name], found, strict=True):
                    accumulated += g
        for name in CLASSES:
            self._pg[name] = [p * g for p, g in zip(self._p, self._pg[name], strict=True)]
        if state is not None:
            torch.save({"p": self._p, "pg": self._pg}, state.with_suffix(".partial"))
            state.with_suffix(".partial").rename(state)

    def of(self, ids_T: Tensor) -> dict[str, float]:
        """u_c of a row for every class, and its loss."""
        losses = token_losses(self._model, ids_T)
        mean = losses.mean()
        g = gradient(self._model, mean)
        norm = sum((p * x.square()).sum() for p, x in zip(self._p, g, strict=True)).sqrt()
        found = {
            f"u_{name}": float(sum((pg * x).sum() for pg, x in zip(self._pg[name], g, strict=True)) / norm)
            for name in CLASSES
        }
        return found | {"loss": float(mean.detach())}


def cds_columns(observer: Any, ids_T: Tensor, method: Method, *, backend: str) -> dict[str, Any]:
    """CDS of every layer in its four forms, the copy share, the sink mass, and LongAttn's two numbers, of one row."""
    grid = method.grid(len(ids_T))
    ids_BT = ids_T[None]
    copies = CopyKeys(ids_BT, grid)
    found: dict[str, list[float]] = {}
    scalars: dict[str, float] = {}

    def visit(view: Any) -> None:
        focus = measure_focus(
            view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend=backend,
            key_weight_BGT=value_weights(view.v_BGTD), copy_keys=copies,
        )  # fmt: skip
        for prefix, pfs in (("", focus.pfs_BKJN), ("value_", focus.weighted_BKJN)):
            for suffix, ablation in (("", "none"), ("_no_std", "no-std")):
                afs = aggregated_focus(pfs[0, 0], grid, ablation=ablation)
                cds = contextual_dependency(afs, grid, ablation=ablation)
                found.setdefault(f"{prefix}cds{suffix}", []).append(float(cds))
        if view.layer == 0:
            longattn = distant_attention(view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling)
            scalars.update({name: float(value[0]) for name, value in longattn.items()})
        found.setdefault("copy_share", []).append(float(focus.copied_BK[0, 0] / focus.pfs_BKJN.sum()))
        mass = far_key_mass(view.q_BHTD, view.k_BGTD, scaling=view.scaling, skipped_tokens=grid.start(0) + grid.l)
        found.setdefault("sink_mass", []).append(float(sink_mass(mass)))

    observer.observe(ids_BT, visit)
    return found | scalars


@torch.inference_mode()
def gains(model: Any, ids_T: Tensor) -> dict[str, float]:
    """The columns of long-context gain by the suffix scheme."""
    (window,) = windows(len(ids_T), "suffix")
    long = token_losses(model, ids_T)[window.first - 1 :]
    short = token_losses(model, ids_T[window.start : window.stop])[window.first - window.start - 1 :]
    copied = continues_earlier_bigram(ids_T.cpu())[window.first :]
    columns = gain_columns(long[None].cpu(), short[None].cpu(), copied[None])
    return {name: float(value[0]) for name, value in columns.items()}


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


def bigram_losses(rows: np.ndarray, held_out: np.ndarray, dependent: np.ndarray) -> Iterator[float]:
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


def whole_lines(path: Path) -> int:
    """Rows that are measured already; a torn last line is cut off."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        with path.open("r+b") as file:
            file.truncate(end)
    return content[:end].count(b"\n")


def write_rows(path: Path, count: int, measure: Callable[[int], dict[str, Any]], *, until: float) -> None:
    """Append a line for every row that has none yet, until the time is up; exits 3 when rows are left."""
    done = whole_lines(path)
    with path.open("ab") as file:
        for k in range(done, count):
            if time.monotonic() > until:
                print(f"{path.name}: {k} of {count} rows; the same command continues", file=sys.stderr)
                sys.exit(3)
            file.write(json.dumps(measure(k)).encode() + b"\n")
            file.flush()


@click.command(help=__doc__.splitlines()[0])
@click.argument("pack", type=click.Path(path_type=Path, exists=True))
@click.option("--model", "model_folder", required=True)
@click.option("--device", default="cpu")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of what is measured; default: the pack's.")
@click.option("--minutes", type=float, help="Stop after so long; started again, it continues.")
@click.option(
    "--parts", multiple=True, type=click.Choice(["influence", "columns", "prolong"]), default=["influence", "columns"],
    help="prolong costs 16 times the tokens of a row at 2,048.",
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
    rows, held_out = torch.from_numpy(all_ids[~held]).to(device), torch.from_numpy(all_ids[held]).to(device)
    classes = torch.from_numpy(content["classes"]).to(device)
    about = [row for row in json.loads((pack / "rows.json").read_text()) if row["split"] != "held_out"]
    torch.backends.cuda.matmul.allow_tf32 = False
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, attn_implementation="sdpa")
    model = model.to(device).eval()
    facts = model_facts(model_folder)
    bigrams = list(bigram_losses(all_ids[~held], all_ids[held], content["classes"] == CLASSES["D"]))
    if "influence" in parts:
        influence = Influence(model, rows, held_out, classes, state=output / "gradients.pt" if state else None)
        print(f"held-out gradients after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)

        def measure_influence(k: int) -> dict[str, Any]:
            return about[k] | influence.of(rows[k]) | gains(model, rows[k]) | {"bigram": -bigrams[k]}

        write_rows(output / "influence.jsonl", len(rows), measure_influence, until=until)
    if "columns" in parts:
        observer = load_observer(
            facts, layers=tuple(range(facts.num_layers)), dtype=torch.float32, device=torch.device(device)
        )
        method = Method(span_tokens=max(1, rows.shape[1] // 256))

        def measure_columns(k: int) -> dict[str, Any]:
            return {"id": about[k]["id"]} | cds_columns(observer, rows[k], method, backend=backend)

        write_rows(output / "columns.jsonl", len(rows), measure_columns, until=until)
    if "prolong" in parts:

        def measure_prolong(k: int) -> dict[str, Any]:
            found = score_row(all_ids[~held][k], partial(segment_perplexities, model), most_pairs=None, seed=0)
            return {"id": about[k]["id"]} | found.columns()

        write_rows(output / "prolong.jsonl", len(rows), measure_prolong, until=until)
    print(json.dumps({"rows": len(rows), "seconds": round(time.monotonic() - started, 1), "device": device}))


if __name__ == "__main__":
    main()
