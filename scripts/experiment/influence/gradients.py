"""Rows and held-out tokens of known classes -> how much training on a row would lower the loss of each class.

The influence of row x on class c of held-out tokens (LESS, TracIn):

    u_c(x) = <P g_c, grad L(x)> / |P^(1/2) grad L(x)|

with g_c the gradient of the held-out loss on class c, P = 1 / (sqrt(v) + eps) as of Adam, v from 40 rows, eps the root
mean square gradient of the parameter, L the mean loss of the row.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ADAM_ROWS = 40
CLASSES = {"D": 1, "C": 2, "S": 3}
LAST_CLASS = list(CLASSES)[-1]
HEAD_TOKENS = 512
SAVE_ROWS = 15
"""Held-out rows between two saves of 2 GB for 135M parameters."""


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


def adam_rows(count: int) -> slice:
    """The rows that v is computed from. Sharing it makes their influence large, so a report leaves them out."""
    step = max(1, count // ADAM_ROWS)
    return slice(0, min(count, step * ADAM_ROWS), step)


def preconditioner(v: Tensor) -> Tensor:
    """P of a parameter from the mean square of its gradient.

    With Adam's eps of 1e-8, P is huge where v is about 0: at the embeddings of tokens that none of the 40 rows has.
    The number of such tokens in a row then governs its influence, as it did in a first run.
    """
    return 1 / (v.sqrt() + v.mean().sqrt())


class Influence:
    """The gradients of the held-out classes, preconditioned, and what of them a row's gradient points along."""

    def __init__(self, model: Any, rows: Tensor, held_out: Tensor, classes: Tensor, *, state: Path | None) -> None:
        self._model = model
        if state is not None and state.exists():
            saved = torch.load(state, map_location=model.device, weights_only=True)
        else:
            v = [torch.zeros_like(parameter) for parameter in model.parameters()]
            sampled = rows[adam_rows(len(rows))]
            for ids_T in sampled:
                for total, g in zip(v, gradient(model, token_losses(model, ids_T).mean()), strict=True):
                    total += g.square() / len(sampled)
            sums = {name: [torch.zeros_like(x) for x in v] for name in CLASSES}
            saved = {"p": [preconditioner(x) for x in v], "sums": sums, "rows": 0}
            _save(saved, state)
        counts = {name: int((classes == code).sum()) for name, code in CLASSES.items()}
        for k in range(saved["rows"], len(held_out)):
            losses = token_losses(model, held_out[k])
            for name, code in CLASSES.items():
                total = losses[classes[k, 1:] == code].sum() / counts[name]
                # The three gradients share one forward pass.
                found = torch.autograd.grad(total, list(model.parameters()), retain_graph=name != LAST_CLASS)
                for accumulated, g in zip(saved["sums"][name], found, strict=True):
                    accumulated += g
            saved["rows"] = k + 1
            if saved["rows"] % SAVE_ROWS == 0 or saved["rows"] == len(held_out):
                _save(saved, state)
        self._p = saved["p"]
        self._pg = {name: [p * g for p, g in zip(self._p, saved["sums"][name], strict=True)] for name in CLASSES}

    def of(self, ids_T: Tensor) -> dict[str, float]:
        """u_c of a row for every class."""
        mean = token_losses(self._model, ids_T).mean()
        g = gradient(self._model, mean)
        norm = torch.stack([(p * x.square()).sum() for p, x in zip(self._p, g, strict=True)]).sum().sqrt()
        found = {
            f"u_{name}": torch.stack([(pg * x).sum() for pg, x in zip(self._pg[name], g, strict=True)]).sum() / norm
            for name in CLASSES
        }
        # One wait for the device instead of four.
        return dict(zip(found, torch.stack(list(found.values())).tolist(), strict=True))


def _save(saved: dict[str, Any], state: Path | None) -> None:
    if state is not None:
        partial = state.with_suffix(".partial")
        torch.save(saved, partial)
        partial.rename(state)
