"""The last hidden states of a row's own pass -> the losses that context gain compares, with long and short context.

Shape suffixes: B rows, n windows, T tokens, W scored tokens, E width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ladm.modeling.observer import Observer
from ladm.settings.score import GainScheme
from ladm.signals.context_gain import (
    ContextWindow,
    continues_earlier_bigram,
    gain_columns,
    scored_from,
    windows,
)


@dataclass(frozen=True, kw_only=True)
class GainLosses:
    """Losses of the scored tokens, on the device or on their way to the host, and the ids of the rows on the CPU."""

    ids_BT: Tensor
    first: int
    """The first scored token."""
    long_BW: Tensor
    short_BW: Tensor

    def to_host(self, *, wait: bool) -> GainLosses:
        """The same on the CPU. Without `wait` the copies are made when the device's queue reaches them."""
        long_BW, short_BW = (x.to("cpu", non_blocking=not wait) for x in (self.long_BW, self.short_BW))
        return replace(self, long_BW=long_BW, short_BW=short_BW)

    def finish(self) -> dict[str, Tensor]:
        """The columns of `gain_columns`, (B,) each."""
        copied_BW = torch.stack([continues_earlier_bigram(ids_T) for ids_T in self.ids_BT])[:, self.first :]
        return gain_columns(self.long_BW, self.short_BW, copied_BW)


def gain_losses(
    observer: Observer,
    ids_BT: Tensor,
    on_device_BT: Tensor,
    hidden_BTE: Tensor,
    *,
    scheme: GainScheme,
    low_memory: bool = False,
) -> GainLosses:
    """Losses with the whole row before each token, from the hidden states of its own pass, and with a short context.

    `ids_BT` on the CPU, `on_device_BT` the same on the device. The short inputs are one more pass, in batches of no
    more tokens than the rows themselves.
    """
    T = ids_BT.shape[1]
    first = scored_from(T, scheme)
    # The state of token t predicts token t + 1, so those from `first - 1` on are needed, and the last one is not.
    long_BW = observer.head.losses(hidden_BTE[:, first - 1 : T - 1], on_device_BT[:, first:], low_memory=low_memory)
    short_BW = _short_losses(observer, on_device_BT, windows(T, scheme), low_memory=low_memory)
    return GainLosses(ids_BT=ids_BT, first=first, long_BW=long_BW, short_BW=short_BW)


def _short_losses(observer: Observer, ids_BT: Tensor, of_row: list[ContextWindow], *, low_memory: bool) -> Tensor:
    """Losses of the scored tokens of the windows of a row, which have one shape, side by side: (B, W)."""
    length, context = of_row[0].stop - of_row[0].start, of_row[0].first - of_row[0].start
    inputs = torch.stack([ids_BT[:, window.start : window.stop] for window in of_row], dim=1).flatten(0, 1)
    # On a CPU an input at a time: a batch would be no faster, and results must not depend on the batch.
    alone = low_memory or observer.device.type == "cpu"
    at_once = 1 if alone else max(1, ids_BT.numel() // length)
    losses = []
    for ids in torch.split(inputs, at_once):
        hidden = observer.observe(ids, None, to_end=True)
        assert hidden is not None
        losses.append(observer.head.losses(hidden[:, context - 1 : -1], ids[:, context:], low_memory=low_memory))
    return torch.cat(losses).view(len(ids_BT), -1)
