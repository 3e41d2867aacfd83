"""Python numbers -> a tensor on a device, without waiting for the work that is queued there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def constant(values: Any, *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """`values`, numbers or lists of them, as a tensor on `device`."""
    on_host = torch.tensor(values, dtype=dtype)
    if torch.device(device).type != "cuda":
        return on_host.to(device)
    # From memory that is not pinned the copy would wait for everything that is queued on the GPU.
    return on_host.pin_memory().to(device, non_blocking=True)
