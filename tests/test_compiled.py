"""The Triton kernels as a GPU gets them: compiled without one, for its matrix units and its memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAD = """
import subprocess, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ladm.method import pfs_kernels, pfs_triton

POINTERS = {"q": "*bf16", "k": "*bf16", "scored": "*i64", "items": "*i64", "ids": "*i64"}
POINTERS |= {"scale": "fp32", "smallest_share": "fp32"}
POINTERS |= dict.fromkeys(("lse", "out", "denominators", "weight", "out_weighted", "out_copied"), "*fp32")
"""
COMPILE = (
    HEAD
    + """
shapes = {"D": 64, "BLOCK_D": 64, "BLOCK_M": 128, "BLOCK_K": 128, "WIDEN": False}
for kernel, more in (
    (pfs_kernels.denominators_kernel, {"HAS_LSE": True, "PAPER": False}),
    (pfs_kernels.denominators_kernel, {"HAS_LSE": False, "PAPER": True}),
    (pfs_kernels.focus_kernel, {"ONE_TILE": True, "WEIGHTED": False, "COPIED": False}),
    (pfs_kernels.focus_kernel, {"ONE_TILE": False, "WEIGHTED": False, "COPIED": False}),
    (pfs_kernels.focus_kernel, {"ONE_TILE": True, "WEIGHTED": True, "COPIED": True}),
):
    fixed = shapes | more
    signature = {name: "constexpr" if name in fixed else POINTERS.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        said = ""
        for assembler in sorted(Path(triton.__file__).parent.glob("backends/nvidia/bin/ptxas*")):
            command = [str(assembler), "-v", "-arch=sm_90a", file.name, "-o", "/dev/null"]
            done = subprocess.run(command, capture_output=True, text=True)
            said += done.stderr if done.returncode == 0 else ""
    print("wgmma" in ptx, " 0 bytes spill stores, 0 bytes spill loads" in said)
"""
)

SHARED = (
    HEAD
    + """
import sys, torch
D, name = int(sys.argv[1]), sys.argv[2]
tile = pfs_triton.largest_tile(D, getattr(torch, name))
POINTERS |= dict.fromkeys(("q", "k"), {"float32": "*fp32", "bfloat16": "*bf16"}[name])
shapes = {"D": D, "BLOCK_D": D, "BLOCK_M": tile, "BLOCK_K": tile, "WIDEN": False}
for kernel, more in (
    (pfs_kernels.denominators_kernel, {"HAS_LSE": True, "PAPER": False}),
    (pfs_kernels.focus_kernel, {"ONE_TILE": True, "WEIGHTED": True, "COPIED": True}),
):
    fixed = shapes | more
    signature = {name: "constexpr" if name in fixed else POINTERS.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
    print(triton.compile(source, target=GPUTarget("cuda", 80, 32)).metadata.shared)
"""
)


def test_the_kernels_compile_for_a_gpu_and_use_its_matrix_units() -> None:
    """For compute capability 9.0, which needs no GPU: matrix instructions are there, and no register is spilled."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", COMPILE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"] * 5


@pytest.mark.slow
@pytest.mark.parametrize(("D", "dtype"), [(64, "float32"), (128, "float32"), (256, "float32"), (256, "bfloat16")])
def test_the_kernels_fit_small_gpus(D: int, dtype: str) -> None:
    """Compute capability 8.0 stands for all of 8.x, of which the smallest let a program have 99 KiB."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", SHARED, str(D), dtype]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(int(bytes_) <= 99 * 1024 for bytes_ in done.stdout.split())
