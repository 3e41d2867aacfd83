"""A language model and a row -> the loss of the same last tokens by growing context: does more context help?

Of a row's first W tokens, W the largest window, the last S are scored: with the window w, given the w - S tokens before
them. S is half of the smallest window. Windows of 8, 16 and 32 tokens: tokens 28-31 after 4, 12 and 28 tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ladm.modeling.causal_lm import CausalLM, token_losses

DRAWS = 2000

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
LastLosses = Callable[[Ids, int], Floats]
"""A row and a number of tokens -> the losses of that many last tokens."""


def suffix_tokens(windows: tuple[int, ...]) -> int:
    """S: the tokens that are scored in every window."""
    return max(1, windows[0] // 2)


def ladder_losses(losses_of: LastLosses, ids_T: Ids, windows: tuple[int, ...]) -> list[float]:
    """The mean loss of the last tokens of the row in every window."""
    count = suffix_tokens(windows)
    return [float(losses_of(ids_T[len(ids_T) - window :], count).mean()) for window in windows]


def losses_of_model(language: CausalLM) -> LastLosses:
    """What computes the losses of a row's last tokens with a language model."""

    def last_losses(ids_T: Ids, count: int) -> Floats:
        ids = torch.from_numpy(ids_T).unsqueeze(0)
        return np.asarray(token_losses(language, ids)[0, -count:].double().numpy())

    return last_losses


def ladder_summary(
    losses_by_row: list[list[float]], windows: tuple[int, ...], documents_R: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Mean loss by context, and how much lower than with the shortest context, with 95 % intervals over documents."""
    losses_RW = np.array(losses_by_row)
    count = suffix_tokens(windows)
    # Paired by row: rows differ far more from each other than a row does between two contexts.
    gains_RW = losses_RW[:, :1] - losses_RW
    steps = []
    for k, window in enumerate(windows):
        low, high = interval_of_mean(gains_RW[:, k], documents_R)
        steps.append(
            {
                "window": window, "context": window - count, "loss": float(losses_RW[:, k].mean()),
                "gain": float(gains_RW[:, k].mean()), "gain_low": low, "gain_high": high,
            }
        )  # fmt: skip
    return {"tokens": count, "steps": steps}


def interval_of_mean(
    values_R: Floats, documents_R: npt.NDArray[np.int64], *, of: Callable[[Floats], Floats] = lambda means: means
) -> tuple[float | None, float | None]:
    """95 % of `of` the mean over rows, by bootstrap over documents with all their rows; a single one has none.

    `documents_R`: the number of each row's document, from 0 on.
    """
    sums_C, rows_C = np.bincount(documents_R, weights=values_R), np.bincount(documents_R)
    if len(rows_C) < 2:
        return None, None
    drawn = np.random.default_rng(0).integers(0, len(rows_C), (DRAWS, len(rows_C)))
    low, high = np.quantile(of(sums_C[drawn].sum(axis=1) / rows_C[drawn].sum(axis=1)), (0.025, 0.975))
    return float(low), float(high)
