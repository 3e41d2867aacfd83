"""`--device`, `--backend` and `--dtype` -> the devices, the backend and the dtype that are used."""

from __future__ import annotations

import importlib.util
import os

import torch

from ladm.errors import LadmError, UsageError


def resolve_devices(requested: str, *, workers: int | None = None, rank: int | None = None) -> tuple[str, ...]:
    """`auto`, `cpu`, `cuda` (all visible), `cuda:0,1` -> device names, one for each process.

    A CPU is shared by `workers` processes. Of all visible devices, a launcher's `rank` on this machine
    takes the one that is meant for it.

    `requested` is spelled as `parse_device` wants it. Raises LadmError for a device that is not there.
    """
    if requested == "cpu" or (requested == "auto" and not torch.cuda.is_available()):
        return ("cpu",) * (workers or 1)
    if workers is not None:
        raise UsageError("--workers is for a CPU; on CUDA, one process runs on each device of --device")
    _, _, named = requested.partition(":")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise LadmError(f"--device {requested}: no CUDA device here; use --device cpu")
    numbers = [int(text) for text in named.split(",")] if named else list(range(count))
    if max(numbers) >= count:
        several = f"there are {count} CUDA devices here, cuda:0 to cuda:{count - 1}"
        raise LadmError(f"--device {requested}: {several if count > 1 else 'the only CUDA device here is cuda:0'}")
    if rank is not None and not named and count > 1:
        return (f"cuda:{rank % count}",)
    return tuple(f"cuda:{number}" for number in numbers)


def resolve_backend(requested: str, device: str) -> str:
    """`auto` is triton on CUDA where it is installed, torch elsewhere. Raises LadmError where triton cannot run."""
    has_triton = importlib.util.find_spec("triton") is not None
    on_cuda = device.startswith("cuda")
    if requested == "auto":
        return "triton" if on_cuda and has_triton else "torch"
    if requested == "triton" and not has_triton:
        raise LadmError("--backend triton: triton is not installed; use --backend torch")
    if requested == "triton" and not on_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise LadmError(f"--backend triton needs a CUDA device, not {device}; use --backend torch")
    return requested


def resolve_dtype(requested: str, device: str) -> torch.dtype:
    """`auto` is bfloat16 where the device is fast at it: CUDA from compute capability 8, a CPU with AMX."""
    if requested != "auto":
        dtype = getattr(torch, requested)
        assert isinstance(dtype, torch.dtype)
        return dtype
    if device.startswith("cuda"):
        fast = torch.cuda.get_device_capability(device)[0] >= 8
    else:
        fast = torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if fast else torch.float32
