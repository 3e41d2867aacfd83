"""The Triton kernels as a GPU gets them: compiled without one, for its matrix units and its memory."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ladm.method import pfs_triton

HEAD = """
import subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ladm.method import columns_triton, pfs_kernels, pfs_triton

POINTERS = {"q": "*bf16", "k": "*bf16", "v": "*bf16", "scored": "*i64", "items": "*i64", "ids": "*i32"}
POINTERS |= {"norms": "*fp32", "bits": "*i32", "rows": "*i64", "mass": "*fp32"}
POINTERS |= {"scale": "fp32", "smallest_share": "fp32"}
POINTERS |= dict.fromkeys(("lse", "out", "denominators", "weight", "out_weighted", "out_copied"), "*fp32")
# As at a launch: rows of a tile are copied to shared memory ahead of their use only where 16 bytes are copied at once.
ALIGNED = {*POINTERS, "q_b", "q_h", "q_t", "k_b", "k_g", "k_t", "v_b", "v_g", "v_t", "l"} - {"scale", "smallest_share"}

def attributes(kernel):
    return {(k,): [["tt.divisibility", 16]] for k, name in enumerate(kernel.arg_names) if name in ALIGNED}

"""
COMPILE = (
    HEAD
    + """
shapes = {"D": 64, "BLOCK_D": 64, "BLOCK_M": 128, "BLOCK_K": 128, "WIDEN": False}
shapes |= {"BLOCK_T": 64, "BLOCK": 4096, "FAR": 64, "COUNT": 8, "HEADS": 8}
KERNELS = (
    (pfs_kernels.denominators_kernel, {"HAS_LSE": True, "PAPER": False}),
    (pfs_kernels.focus_kernel, {"FULL": True, "STAGES": 3, "WEIGHTED": True, "COPIED": True}),
    (columns_triton._norms_kernel, {}),
    (pfs_kernels.denominators_kernel, {"HAS_LSE": False, "PAPER": True}),
    (pfs_kernels.focus_kernel, {"FULL": True, "STAGES": 3, "WEIGHTED": False, "COPIED": False}),
    (pfs_kernels.focus_kernel, {"FULL": False, "STAGES": 3, "WEIGHTED": False, "COPIED": False}),
    (columns_triton._far_key_mass_kernel, {}),
    (columns_triton._divide_by_median_kernel, {}),
)
for kernel, more in KERNELS[int(sys.argv[1]) : int(sys.argv[2])]:
    fixed = {name: value for name, value in (shapes | more).items() if name in kernel.arg_names}
    signature = {name: "constexpr" if name in fixed else POINTERS.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=attributes(kernel))
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        said = ""
        for assembler in sorted(Path(triton.__file__).parent.glob("backends/nvidia/bin/ptxas*")):
            command = [str(assembler), "-v", "-arch=sm_90a", file.name, "-o", "/dev/null"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                said = done.stderr
                break
    print(kernel.fn.__name__, "wgmma" in ptx, " 0 bytes spill stores, 0 bytes spill loads" in said)
"""
)

SHARED = (
    HEAD
    + """
import torch
D, name, capability, shared_bytes = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
tile = pfs_triton.largest_tile(D, getattr(torch, name), shared_bytes)
POINTERS |= dict.fromkeys(("q", "k"), {"float32": "*fp32", "float16": "*fp16", "bfloat16": "*bf16"}[name])
shapes = {"D": D, "BLOCK_D": D, "BLOCK_M": tile, "BLOCK_K": tile, "WIDEN": False}
shapes |= {"FAR": 64, "COUNT": 8, "HEADS": max(2, min(8, tile // 8))}
for kernel, more in (
    (pfs_kernels.denominators_kernel, {"HAS_LSE": True, "PAPER": False}),
    (
        pfs_kernels.focus_kernel,
        {"FULL": True, "STAGES": pfs_triton.stages(shared_bytes), "WEIGHTED": True, "COPIED": True},
    ),
    (columns_triton._far_key_mass_kernel, {}),
):
    fixed = {name: value for name, value in (shapes | more).items() if name in kernel.arg_names}
    signature = {name: "constexpr" if name in fixed else POINTERS.get(name, "i32") for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs=attributes(kernel))
    print(triton.compile(source, target=GPUTarget("cuda", capability, 32)).metadata.shared)
"""
)


MATRIX_UNITS = {
    "denominators_kernel": True, "focus_kernel": True, "_far_key_mass_kernel": True, "_norms_kernel": False,
    "_divide_by_median_kernel": False,
}  # fmt: skip


@pytest.mark.parametrize(
    ("start", "stop", "kernels"),
    [
        (0, 3, ["denominators_kernel", "focus_kernel", "_norms_kernel"]),
        pytest.param(
            3, 8,
            ["denominators_kernel", "focus_kernel", "focus_kernel", "_far_key_mass_kernel", "_divide_by_median_kernel"],
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_the_kernels_compile_for_a_gpu_and_use_its_matrix_units(start: int, stop: int, kernels: list[str]) -> None:
    """For compute capability 9.0, which needs no GPU: matrix instructions are there, and no register is spilled."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", COMPILE, str(start), str(stop)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{kernel} {MATRIX_UNITS[kernel]} True" for kernel in kernels]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("D", "dtype"),
    [(64, "float32"), (128, "float32"), (256, "float32"), (128, "bfloat16"), (256, "bfloat16"), (512, "bfloat16")],
)
def test_the_kernels_fit_small_gpus(D: int, dtype: str) -> None:
    """Compute capability 8.6, such as of an RTX 3090 or an A10, lets a program have 99 KiB, as do 8.9 and 12.0."""
    assert all(bytes_ <= 99 << 10 for bytes_ in shared_bytes_of(D, dtype, capability=86, shared_bytes=99 << 10))


@pytest.mark.slow
@pytest.mark.parametrize(("D", "dtype"), [(128, "float32"), (128, "float16")])
def test_the_kernels_fit_a_t4(D: int, dtype: str) -> None:
    assert all(bytes_ <= 64 << 10 for bytes_ in shared_bytes_of(D, dtype, capability=75, shared_bytes=64 << 10))


def shared_bytes_of(D: int, dtype: str, *, capability: int, shared_bytes: int) -> list[int]:
    """Shared memory of each kernel, compiled for a device that has so much of it."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", SHARED, str(D), dtype, str(capability), str(shared_bytes)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [int(text) for text in done.stdout.split()]


def test_only_small_gpus_have_smaller_tiles_or_fewer_stages() -> None:
    """With other tiles the numbers would be added in another order."""
    tiles = {
        shared: [
            pfs_triton.largest_tile(D, dtype, shared << 10)
            for dtype in (torch.bfloat16, torch.float32)
            for D in (64, 128, 256)
        ]
        for shared in (227, 163, 99, 64)
    }
    assert tiles[227] == tiles[163] == tiles[99] == [128, 128, 64, 64, 64, 32]
    assert tiles[64] == [128, 64, 32, 64, 32, 16]
    assert [pfs_triton.stages(shared << 10) for shared in (227, 163, 99, 64)] == [3, 3, 2, 2]
