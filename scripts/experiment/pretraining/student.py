"""A model folder and rows -> a continually trained student, and its losses on held-out rows and needles.

Shape suffixes: R rows, T tokens, E width, N tokens of a chunk.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from judge import short_context

from ladm.evaluation.ladder import ladder_losses, suffix_tokens

Array = np.ndarray[Any, Any]

ROPE_BASE = 500_000.0
LEARNING_RATE = 3e-4
"""Fixed before anything was trained: a tenth of the peak of SmolLM2's own training, whose steps have more tokens."""
WARMUP_SHARE = 0.1
WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)
CLIP_NORM = 1.0
ROWS_A_STEP = 2
HEAD_TOKENS = 8192
BINS = 8
SHORT_ROWS = 16


def write_long_config(model: Path, folder: Path, tokens: int) -> None:
    """A model folder with the same weights, and RoPE for rows of `tokens` tokens."""
    for path in model.iterdir():
        if path.name != "config.json":
            (folder / path.name).symlink_to(path.resolve())
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"] = config.get("rope_parameters", {}) | {"rope_type": "default", "rope_theta": ROPE_BASE}
    config["max_position_embeddings"] = tokens
    (folder / "config.json").write_text(json.dumps(config))


def chunk_losses(head: Any, hidden_NE: Tensor, targets_N: Tensor) -> Tensor:
    return functional.cross_entropy(head(hidden_NE).float(), targets_N, reduction="none")


def use_fused_norms(model: Any) -> None:
    """Let PyTorch's one kernel do RMSNorm, which is written out in six operations in the stock model."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            shape, eps = tuple(module.weight.shape), module.variance_epsilon
            module.forward = lambda x, w=module.weight, shape=shape, eps=eps: functional.rms_norm(x, shape, w, eps)


@dataclass(frozen=True, kw_only=True)
class HeldOutLosses:
    """What a student makes of the held-out rows."""

    long: Array
    """Losses of the far half with all context: (rows, T / 2)."""
    short: Array
    """The same with at most 1K of context."""
    bins: list[list[float]]
    """Of every row the mean loss by position."""
    ladder: list[list[float]]
    """Of every row the mean loss of the same last tokens in each of `ladder_windows`."""


def ladder_windows(T: int) -> tuple[int, ...]:
    """Windows from the short context to the whole row, each twice the one before it."""
    found = [short_context(T)]
    while found[-1] * 2 < T:
        found.append(found[-1] * 2)
    return (*found, T)


class Students:
    """Students that all start from the weights of one model folder, one at a time."""

    def __init__(self, folder: Path, *, device: str, dtype: torch.dtype) -> None:
        from transformers import AutoModelForCausalLM

        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
        self._start = [parameter.detach().to(device, copy=True) for parameter in model.parameters()]
        self.model = model.to(device)
        # The weights alone: frequencies of RoPE in bfloat16 would be off by a whole turn after some 500 tokens.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(dtype)
        self.device = device
        use_fused_norms(self.model)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        self.model.eval()
        for parameter, value in zip(self.model.parameters(), self._start, strict=True):
            parameter.copy_(value)
            parameter.grad = None

    def _hidden(self, ids_RT: Tensor) -> Tensor:
        hidden: Tensor = self.model.base_model(input_ids=ids_RT, use_cache=False).last_hidden_state
        return hidden

    def train(self, rows_RT: Array, *, seed: int) -> dict[str, Any]:
        """Train from the start weights, once over the rows in an order of the seed; the loss of every step."""
        self.reset()
        parameters = list(self.model.parameters())
        # Weights and moments in float32; the model computes with a bfloat16 copy on a GPU.
        masters = [value.clone() for value in self._start]
        optimizer = torch.optim.AdamW(
            masters, lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=self.device.startswith("cuda")
        )
        order = np.random.default_rng([seed, 2]).permutation(len(rows_RT))
        steps = math.ceil(len(order) / ROWS_A_STEP)
        warmup = max(1, round(WARMUP_SHARE * steps))
        losses = []
        for step in range(steps):
            ids_RT = torch.from_numpy(rows_RT[order[step * ROWS_A_STEP : (step + 1) * ROWS_A_STEP]].astype(np.int64))
            loss = self._loss(ids_RT.to(self.device))
            loss.backward()
            done = max(0.0, (step + 1 - warmup) / max(1, steps - warmup))
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * done)))
            for master, parameter in zip(masters, parameters, strict=True):
                assert parameter.grad is not None
                master.grad = parameter.grad.float()
                parameter.grad = None
            torch.nn.utils.clip_grad_norm_(masters, CLIP_NORM)
            optimizer.step()
            with torch.no_grad():
                torch._foreach_copy_(parameters, masters)
            losses.append(loss.detach())
        return {"training_losses": [round(value, 4) for value in torch.stack(losses).tolist()]}

    def _loss(self, ids_RT: Tensor) -> Tensor:
        hidden_NE = self._hidden(ids_RT)[:, :-1].flatten(0, 1)
        targets_N = ids_RT[:, 1:].flatten()
        head = self.model.get_output_embeddings()
        # Logits of all tokens at once would take 13 GB with their gradients; a chunk's are computed again instead.
        sums: list[Tensor] = [
            checkpoint(chunk_losses, head, hidden, targets, use_reentrant=False).sum()
            for hidden, targets in zip(hidden_NE.split(HEAD_TOKENS), targets_N.split(HEAD_TOKENS), strict=True)
        ]
        return torch.stack(sums).sum() / len(targets_N)

    @torch.inference_mode()
    def losses(self, ids_RT: Tensor, *, last: int) -> Array:
        """Loss of the last `last` tokens of each row: (R, last) float32."""
        hidden_NE = self._hidden(ids_RT)[:, -last - 1 : -1].flatten(0, 1)
        targets_N = ids_RT[:, -last:].flatten()
        head = self.model.get_output_embeddings()
        parts = [
            chunk_losses(head, hidden, targets)
            for hidden, targets in zip(hidden_NE.split(HEAD_TOKENS), targets_N.split(HEAD_TOKENS), strict=True)
        ]
        return torch.cat(parts).view(len(ids_RT), last).cpu().numpy()

    def evaluate(self, held_out_RT: Array) -> HeldOutLosses:
        """The losses of every held-out row.

        A short input scores its second half, so that its tokens see 512 to 1,024 tokens.
        """
        T = held_out_RT.shape[1]
        context = short_context(T)
        step = context // 2
        all_long, all_short, bins, ladder = [], [], [], []
        windows_of_ladder = ladder_windows(T)
        for ids_T in held_out_RT.astype(np.int64):
            ids_RT = torch.from_numpy(ids_T)[None].to(self.device)
            long = self.losses(ids_RT, last=T - 1)[0]
            stops = range(T // 2 + step, T + 1, step)
            windows = torch.stack([ids_RT[0, stop - context : stop] for stop in stops])
            short = [self.losses(part, last=step).ravel() for part in windows.split(SHORT_ROWS)]
            all_short.append(np.concatenate(short))
            all_long.append(long[T // 2 - 1 :])
            bins.append([round(float(part.mean()), 4) for part in np.array_split(long, BINS)])
            steps = ladder_losses(self._last_losses, ids_T, windows_of_ladder[:-1])
            # The longest window is the whole row, of which the losses are known.
            ladder.append([*steps, float(long[-suffix_tokens(windows_of_ladder) :].mean())])
        return HeldOutLosses(
            long=np.stack(all_long), short=np.stack(all_short), bins=bins,
            ladder=[[round(value, 4) for value in steps] for steps in ladder],
        )  # fmt: skip

    def _last_losses(self, ids_T: Array, count: int) -> Array:
        return self.losses(torch.from_numpy(ids_T)[None].to(self.device), last=count)[0]

    @torch.inference_mode()
    def needle_losses(self, ids_RT: Array, places_RDV: Array) -> list[list[float]]:
        """Mean loss of the digits of every needle's value, by row and distance."""
        found = []
        head = self.model.get_output_embeddings()
        for ids_T, places_DV in zip(ids_RT.astype(np.int64), places_RDV, strict=True):
            ids = torch.from_numpy(ids_T).to(self.device)
            at = torch.from_numpy(places_DV.astype(np.int64).ravel()).to(self.device)
            losses = chunk_losses(head, self._hidden(ids[None])[0, at - 1], ids[at])
            found.append([round(value, 4) for value in losses.view(places_DV.shape).mean(dim=1).tolist()])
        return found


def timed(function: Any, *arguments: Any, **keywords: Any) -> tuple[Any, float]:
    """What a function returns, and its seconds, with the device's work done."""
    started = time.monotonic()
    found = function(*arguments, **keywords)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return found, round(time.monotonic() - started, 2)
