"""Packages beside torch that have a fused attention kernel: are they installed, and how is their kernel reached?"""

from __future__ import annotations

import importlib.util
import inspect
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ladm.errors import LadmError, install_hint, one_line, raise_if_out_of_memory

FA3 = "kernels-community/flash-attn3"
"""The kernel of FlashAttention 3 on the Hub, for the package `kernels`."""
FA3_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package that a kernel comes from."""

    name: str
    remedy: str
    is_there: Callable[[], bool]


def has_flash_attn() -> bool:
    """Is the package installed, and does it fit this torch?"""
    try:
        from flash_attn import flash_attn_func  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def has_fa3() -> bool:
    """Is the package installed that loads the kernel? The kernel itself may still have to be fetched."""
    return importlib.util.find_spec("kernels") is not None


def has_fa4() -> bool:
    """Is the package installed, in a version that returns the log-sum-exp and fits its compiler?"""
    try:
        from flash_attn.cute import flash_attn_func
    # It is Python that is compiled when it runs, and its import runs that of a compiler: one for another version of it
    # or of CUDA raises whatever it does.
    except Exception:
        return False
    return "return_lse" in inspect.signature(flash_attn_func).parameters


@lru_cache(maxsize=1)
def fa4_function() -> Any:
    """The function of FlashAttention 4 that returns the log-sum-exp.

    Not through torch.nn.attention.activate_flash_attention_impl, which calls an inner function of the package and fails
    with versions of it that return more.
    """
    from flash_attn.cute import flash_attn_func

    # Whenever a kernel is compiled, the compiler prints a screenful of warnings about the package's own functions.
    warnings.filterwarnings("ignore", message="Argument .* cannot be converted to a JitArgument", category=UserWarning)
    return flash_attn_func


PACKAGES = {
    # A function each, so that the one of the module at the time of the call is used.
    "flash-attn": Package(name="the package", remedy=install_hint("flash"), is_there=lambda: has_flash_attn()),
    "fa3": Package(name="the package kernels", remedy="run pip install kernels", is_there=lambda: has_fa3()),
    "fa4": Package(name="FlashAttention 4", remedy=install_hint("fa4"), is_there=lambda: has_fa4()),
}


@lru_cache(maxsize=1)
def fa3_kernel() -> Any:
    """The module of FlashAttention 3, whose `flash_attn_func` is called: the copy in the local cache, else fetched.

    Raises LadmError where it can be neither loaded nor fetched.
    """
    try:
        stored = _load_stored_fa3()
        if stored is not None:
            return stored
        from kernels import get_kernel

        return get_kernel(FA3, version=FA3_VERSION)
    # The Hub, its HTTP client, the package and the kernel's own code raise exceptions of their own.
    except Exception as error:
        raise_if_out_of_memory(error, action=f"load {FA3}")
        raise LadmError(
            f"--attention fa3: {FA3} cannot be loaded ({type(error).__name__}: {one_line(error)}); fetch it where the "
            "Hub can be reached, or choose another --attention"
        ) from None


def fa3_needs_no_fetching() -> bool:
    """Is FlashAttention 3 in the local cache, for this torch?

    True also for a copy that is broken: its use says what is wrong with it.
    """
    if not has_fa3():
        return False
    try:
        return _load_stored_fa3() is not None
    except Exception:  # whatever the kernel's own code raises when it is imported
        return True


@lru_cache(maxsize=1)
def _load_stored_fa3() -> Any | None:
    """The stored copy; None where there is none, or none that was built for this torch and this system."""
    folder = stored_fa3()
    if folder is None:
        return None
    from kernels import get_local_kernel

    # From version 0.14 on the package finds out by itself what the kernel's module is called.
    named = "package_name" in inspect.signature(get_local_kernel).parameters
    try:
        return get_local_kernel(folder, *(("flash_attn3",) if named else ()))
    except FileNotFoundError:
        return None


def stored_fa3() -> Path | None:
    """The newest copy of FlashAttention 3 in the local cache, which is used without a request to the Hub; or None."""
    from huggingface_hub import constants

    cache = Path(os.environ.get("KERNELS_CACHE") or constants.HF_HUB_CACHE)
    name = FA3.replace("/", "--")
    # The Hub stores kernels as a kind of their own; earlier versions of the package stored them as models.
    snapshots = [path for kind in ("kernels", "models") for path in cache.glob(f"{kind}--{name}/snapshots/*/build")]
    return max(snapshots, key=lambda path: path.stat().st_mtime).parent if snapshots else None
