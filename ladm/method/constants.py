"""Python numbers -> a tensor on a device, without waiting for what is queued there; kept for each length of rows."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from ladm.method.grid import Grid

MOST_BYTES = 512 << 20
"""The most that is kept, of all grids and devices together; those of the grid in use are kept whatever they take.

A number of bytes, not of lengths: rows of many lengths come in turn, unit after unit, and most need less than a
megabyte, but rows of 32,768 tokens with spans of 16 and strides of 1 need 63.
"""

_P = ParamSpec("_P")
_R = TypeVar("_R", bound=Tensor | tuple[Tensor, ...])


def constant(values: Any, *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """`values`, numbers or lists of them, as a tensor on `device`."""
    on_host = torch.tensor(values, dtype=dtype)
    if torch.device(device).type != "cuda":
        return on_host.to(device)
    # From memory that is not pinned the copy would wait for everything that is queued on the GPU.
    return on_host.pin_memory().to(device, non_blocking=True)


def kept_for_grid(make: Callable[Concatenate[Grid, _P], _R]) -> Callable[Concatenate[Grid, _P], _R]:
    """Decorates a function that makes tensors of a grid: they are made once while the grid is among those in use.

    Every layer, and every batch of rows of one length, needs the same. At most `MOST_BYTES` are kept; beyond them the
    grids that were not used for longest are dropped.
    """

    @functools.wraps(make)
    def look_up(grid: Grid, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        key = (make.__module__, make.__qualname__, args, tuple(sorted(kwargs.items())))
        return cast(_R, _KEPT.look_up(grid, key, lambda: make(grid, *args, **kwargs)))

    return look_up


def release_constants() -> None:
    """Drop these tensors, where memory is short. What is needed is made again."""
    _KEPT.clear()


class _KeptConstants:
    """Tensors by grid, the grid that was used last at the end. Threads may share it."""

    def __init__(self) -> None:
        self.bytes = 0
        """Of all devices together."""
        self._by_grid: OrderedDict[Grid, dict[Hashable, Tensor | tuple[Tensor, ...]]] = OrderedDict()
        self._lock = Lock()

    def look_up(
        self, grid: Grid, key: Hashable, make: Callable[[], Tensor | tuple[Tensor, ...]]
    ) -> Tensor | tuple[Tensor, ...]:
        with self._lock:
            found = self._by_grid.get(grid, {}).get(key)
            if found is not None:
                self._by_grid.move_to_end(grid)
                return found
        # Not under the lock: millions of pairs take seconds. Two threads may both make it, and the later one is kept.
        made = make()
        with self._lock:
            of_grid = self._by_grid.setdefault(grid, {})
            self._by_grid.move_to_end(grid)
            self.bytes += _size(made) - _size(of_grid.get(key, ()))
            of_grid[key] = made
            while self.bytes > MOST_BYTES and len(self._by_grid) > 1:
                _, dropped = self._by_grid.popitem(last=False)
                self.bytes -= sum(map(_size, dropped.values()))
        return made

    def clear(self) -> None:
        with self._lock:
            self._by_grid.clear()
            self.bytes = 0


def _size(tensors: Tensor | tuple[Tensor, ...]) -> int:
    return sum(x.nbytes for x in ((tensors,) if isinstance(tensors, Tensor) else tensors))


_KEPT = _KeptConstants()
