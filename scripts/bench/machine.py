"""What a measurement is made with: device, versions, commit; and how time and memory are taken."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import transformers

KERNEL_PACKAGES = ("triton", "liger-kernel", "flash-attn", "kernels", "flash-attn-4", "nvidia-cutlass-dsl")


def facts(device: str) -> dict[str, Any]:
    """How a result came about, for its file."""
    cuda = device.startswith("cuda")
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "device": torch.cuda.get_device_name(device) if cuda else f"{processor()}, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__}
        | ({"cudnn": torch.backends.cudnn.version()} | _installed(KERNEL_PACKAGES) if cuda else {}),
    }


def _installed(packages: tuple[str, ...]) -> dict[str, str]:
    """The versions of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write_result(result: dict[str, Any], output: Path | None) -> None:
    """Print a result as one line of JSON, and write it where it is wanted."""
    line = json.dumps(result)
    if output:
        output.write_text(line + "\n")
    print(line)


def commit() -> str | None:
    """The commit that is measured, where it is known."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def synchronised(device: str) -> Callable[[], None]:
    """What waits for a device."""
    return torch.cuda.synchronize if device.startswith("cuda") else lambda: None


def measure(contenders: dict[str, Callable[[], Any]], *, repeats: int, device: str) -> dict[str, dict[str, Any]]:
    """Seconds of each contender, interleaved, after one untimed round."""
    sync = synchronised(device)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            sync()
            began = time.perf_counter()
            run()
            sync()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return {name: {"median_s": statistics.median(values), "all_s": values} for name, values in seconds.items()}


@torch.inference_mode()
def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """The best rate of plain matrix products that this device reaches in this dtype, in FLOP/s."""
    size = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = measure({"product": lambda: a @ b}, repeats=9, device=device)["product"]["all_s"]
    return 2 * size**3 / min(best)


def grown_by(run: Callable[[], Any], device: str) -> int:
    """Bytes by which one run lifts the peak of a device's memory above what is held before it.

    On a CPU that is the resident memory of this process, which should have done nothing else before.
    """
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS")
    run()
    return _status_bytes("VmHWM") - before


def made_resident(model: torch.nn.Module) -> int:
    """Bytes of a model's weights, all of which are in memory afterwards: a file of weights may be mapped only."""
    for parameter in model.parameters():
        parameter.detach().flatten()[:: 4096 // parameter.element_size()].sum()
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
