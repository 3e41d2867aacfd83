"""Losses of the same tokens with long and with short context -> how much distant context helps to predict a row.

The long-context gain of LongFilter (Deng et al.) and LongPPL (Fang et al. 2024). With l_i(c) = -ln p(x_i | the c
tokens before it), S tokens of short context and the whole row L before token i:

    gain          mean over scored tokens of  l_i(S) - l_i(L)
    gain_positive share of scored tokens with l_i(S) - l_i(L) > 0
    longfilter    mean of  exp(-l_i(L)) (l_i(S) - l_i(L))
    key_tokens    share with  l_i(S) - l_i(L) > 2  and  l_i(L) < 2
    gain_no_copy  gain without tokens that continue an earlier occurrence of the two tokens before them

Shape suffixes: B rows, T tokens of a row, W scored tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladm.settings.score import GainScheme

KEY_GAIN, KEY_LOSS = 2.0, 2.0
"""LongPPL's thresholds, in nats."""


@dataclass(frozen=True, kw_only=True)
class ContextWindow:
    """A short input: tokens `start` to `stop - 1` of the row, of which those from `first` on are scored."""

    start: int
    first: int
    stop: int


def short_context_tokens(T: int) -> int:
    """S, the short context of a row of T tokens: T / 8, which is 4,096 at 32K."""
    return max(1, T // 8)


def windows(T: int, scheme: GainScheme) -> list[ContextWindow]:
    """The short inputs of a row of at least 16 tokens; the scored tokens of all are one stretch to the row's end.

    suffix: one input of the last T/4 tokens with S before them, about 1.25 x the cost of the row alone in all.
    blocks: inputs of 2S tokens, each scoring its second half, which cover everything but the first S to 2S tokens: for
    most of these the short context would be everything before them, and their gain nothing but rounding.
    """
    S = short_context_tokens(T)
    if scheme == "suffix":
        first = T - max(1, T // 4)
        return [ContextWindow(start=max(0, first - S), first=first, stop=T)]
    # Counted from the row's end, so that every block has its full length and all of a row can share a batch.
    starts = range(T - 2 * S, 0, -S)
    return [ContextWindow(start=start, first=start + S, stop=start + 2 * S) for start in reversed(starts)]


def scored_from(T: int, scheme: GainScheme) -> int:
    """The first scored token of a row."""
    return windows(T, scheme)[0].first


def continues_earlier_bigram(ids_T: Tensor) -> Tensor:
    """Did the two tokens before token t occur earlier in the row with the same successor? (T,) bool.

    That is, did the three tokens that end at t occur before? For the ids 1 2 3 1 2 3 it holds for the last 3 alone.
    """
    copies_T = torch.zeros(len(ids_T), dtype=torch.bool)
    if len(ids_T) < 3:
        return copies_T
    # Three ids as one number: rows of a matrix take 20 times as long to sort. It fits 64 bits up to 2 million ids.
    V = int(ids_T.max()) + 1
    trigrams = (ids_T[:-2] * V + ids_T[1:-1]) * V + ids_T[2:]
    _, kind = torch.unique(trigrams, return_inverse=True)
    first = torch.full((int(kind.max()) + 1,), len(ids_T), dtype=torch.int64)
    place = torch.arange(len(kind))
    first.scatter_reduce_(0, kind, place, reduce="amin")
    copies_T[2:] = place > first[kind]
    return copies_T


def gain_columns(long_BW: Tensor, short_BW: Tensor, copied_BW: Tensor) -> dict[str, Tensor]:
    """The five columns of rows, (B,) float64 each, from float32 losses of their scored tokens in nats.

    `copied_BW`: which scored tokens `continues_earlier_bigram`. A row of nothing but copies has a `gain_no_copy`
    of 0: distant context helps it only by repetition.
    """
    long_BW, short_BW = long_BW.double(), short_BW.double()
    gain_BW = short_BW - long_BW
    own_BW = ~copied_BW
    return {
        "gain": gain_BW.mean(dim=1),
        "gain_positive": (gain_BW > 0).double().mean(dim=1),
        "longfilter": (torch.exp(-long_BW) * gain_BW).mean(dim=1),
        "key_tokens": ((gain_BW > KEY_GAIN) & (long_BW < KEY_LOSS)).double().mean(dim=1),
        "gain_no_copy": (gain_BW * own_BW).sum(dim=1) / own_BW.sum(dim=1).clamp(min=1),
    }
