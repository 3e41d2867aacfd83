"""Numbers that are known before a pass, as tensors on its device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def constant(values: Any, *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """`values` as a tensor on `device`, which is not waited for.

    From ordinary memory a copy to a GPU would wait for everything that is queued there.
    """
    on_host = torch.tensor(values, dtype=dtype)
    if torch.device(device).type != "cuda":
        return on_host.to(device)
    return on_host.pin_memory().to(device, non_blocking=True)
