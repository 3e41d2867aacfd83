"""q, k and the log-sum-exp of attention -> PFS by head, in two Triton kernels that write nothing else.

The first gives each scored query row its softmax denominator, the second multiplies the wanted pairs of spans and sums
them while they are still in registers; both are in `pfs_kernels.py`. Tested against `focus.pairwise_focus`; runs on a
GPU, or anywhere under TRITON_INTERPRET=1.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size, J scored spans, N spans, P pairs that
are wanted, l tokens of a span.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ladm.method.constants import constant, kept_for_grid
from ladm.method.grid import Grid
from ladm.method.pfs_kernels import denominators_kernel, focus_kernel
from ladm.method.pfs_torch import SMALLEST_PREFIX_SHARE, Focus

LOG2_E = 1.4426950408889634
PAIRS_OF_A_PROGRAM = 16
SMALL_SHARED_BYTES, LARGE_SHARED_BYTES = 99 << 10, 227 << 10
"""Shared memory of a program on a consumer GPU, and on an H100. Three stages with heads of 128 take 102 KiB."""


def measure_focus(
    q_BHTD: Tensor,
    k_BGTD: Tensor,
    lse_BHT: Tensor | None,
    *,
    scaling: float,
    grid: Grid,
    key_weight_BGT: Tensor | None = None,
    ids_BT: Tensor | None = None,
) -> Focus:
    """Equation 2 by head for the pairs that `grid` wants, and with `ids_BT` the part of it that falls on copy keys.

    The last dimension of q and k must be contiguous; any other strides will do.
    """
    B, H, _, D = q_BHTD.shape
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q_BHTD, k_BGTD))
    device = q.device
    if not grid.J:
        return _without_pairs(q, grid, weighted=key_weight_BGT is not None, copied=ids_BT is not None)
    kernel_grid = _kernel_grid(grid, device)
    shared_bytes = shared_bytes_of(device)
    tile = max(16, min(triton.next_power_of_2(grid.l), largest_tile(D, q.dtype, shared_bytes)))
    parts = triton.cdiv(grid.l, tile)
    denominators = torch.empty(B * H, len(grid.J), grid.l, dtype=torch.float32, device=device)
    # In place of what is neither given nor requested: the kernels do not follow its pointer.
    unused = q.new_empty(1, dtype=torch.float32)
    common = _arguments_of_both(q, k, kernel_grid, grid=grid, scaling=scaling, tile=tile)
    # Triton launches on the current device, which may not be the one that holds the tensors.
    with torch.cuda.device_of(q):
        denominators_kernel[(B * H, len(grid.J), parts)](
            lse=unused if lse_BHT is None else lse_BHT.contiguous(),
            out=denominators,
            smallest_share=SMALLEST_PREFIX_SHARE[q.dtype],
            HAS_LSE=lse_BHT is not None,
            PAPER=grid.variant == "paper",
            **common,
        )
        focus, weighted, copied = (
            torch.empty(B * H, parts**2, len(kernel_grid.pairs), dtype=torch.float32, device=device)
            if is_requested
            else unused
            for is_requested in (True, key_weight_BGT is not None, ids_BT is not None)
        )
        focus_kernel[(len(kernel_grid.items) * B * H * parts, parts)](
            denominators=denominators,
            weight=unused if key_weight_BGT is None else key_weight_BGT.float().contiguous(),
            ids=unused if ids_BT is None else ids_BT.to(device).contiguous(),
            out=focus,
            out_weighted=weighted,
            out_copied=copied,
            items=kernel_grid.items,
            P=len(kernel_grid.pairs),
            d_afs=grid.d_afs,
            G=k.shape[1],
            parts=parts,
            num_items=len(kernel_grid.items),
            FULL=grid.l % tile == 0,
            STAGES=stages(shared_bytes),
            WEIGHTED=key_weight_BGT is not None,
            COPIED=ids_BT is not None,
            **common,
        )
    by_span = partial(_by_span, pairs_P2=kernel_grid.pairs, heads=(B, H), grid=grid)
    return Focus(
        pfs_BKJN=by_span(focus),
        weighted_BKJN=None if key_weight_BGT is None else by_span(weighted),
        copied_BK=None if ids_BT is None else copied.sum(dim=(1, 2)).view(B, H),
    )


def _without_pairs(q_BHTD: Tensor, grid: Grid, *, weighted: bool, copied: bool) -> Focus:
    """The result of a grid without scored spans."""
    B, H = q_BHTD.shape[:2]
    nothing = q_BHTD.new_zeros(B, H, 0, grid.N, dtype=torch.float32)
    return Focus(
        pfs_BKJN=nothing,
        weighted_BKJN=nothing if weighted else None,
        copied_BK=nothing.new_zeros(B, H) if copied else None,
    )


def _arguments_of_both(
    q_BHTD: Tensor, k_BGTD: Tensor, kernel_grid: _KernelGrid, *, grid: Grid, scaling: float, tile: int
) -> dict[str, Any]:
    """The arguments that both kernels have: q, k and their strides, sizes, and the shape of a tile."""
    H, T, D = q_BHTD.shape[1:]
    return {
        "q": q_BHTD, "k": k_BGTD, "scored": kernel_grid.scored, "J": len(grid.J), "T": T,
        "q_b": q_BHTD.stride(0), "q_h": q_BHTD.stride(1), "q_t": q_BHTD.stride(2),
        "k_b": k_BGTD.stride(0), "k_g": k_BGTD.stride(1), "k_t": k_BGTD.stride(2),
        "H": H, "R": H // k_BGTD.shape[1], "front": grid.start(0), "l": grid.l, "scale": scaling * LOG2_E,
        "D": D, "BLOCK_D": max(16, triton.next_power_of_2(D)), "BLOCK_M": tile, "BLOCK_K": tile,
        "WIDEN": widened(q_BHTD.dtype),
    }  # fmt: skip


def _by_span(sums_ZXP: Tensor, *, pairs_P2: Tensor, heads: tuple[int, int], grid: Grid) -> Tensor:
    """The sums of all X tiles of each pair, in its place: (B, H, J, N). Z stands for the B H pairs of row and head."""
    B, H = heads
    row_P, span_P = pairs_P2.unbind(dim=1)
    out_BHJN = sums_ZXP.new_zeros(B, H, len(grid.J), grid.N)
    out_BHJN[:, :, row_P, span_P] = sums_ZXP.sum(dim=1).view(B, H, -1)
    return out_BHJN


def largest_tile(D: int, dtype: torch.dtype, shared_bytes: int) -> int:
    """Rows of a tile such that the kernels take no more shared memory than a program may have on the device.

    The same on every device with 99 KiB or more, as all have from compute capability 8.0 on: another tile adds in
    another order.
    """
    most_rows, most_elements = (64, 1 << 13) if dtype == torch.float32 else (128, 1 << 14)
    if shared_bytes < SMALL_SHARED_BYTES:
        most_elements //= 2
    return max(16, min(most_rows, most_elements // int(triton.next_power_of_2(D))))


def stages(shared_bytes: int) -> int:
    """How many tiles of keys are on their way at once. It changes no number."""
    return 3 if shared_bytes > SMALL_SHARED_BYTES else 2


def widened(dtype: torch.dtype) -> bool:
    """Must operands be made float32? The interpreter multiplies bfloat16 as if it were integers."""
    return bool(triton.knobs.runtime.interpret and dtype == torch.bfloat16)


def shared_bytes_of(device: torch.device) -> int:
    """Shared memory that a program may have. The interpreter knows no limit."""
    if device.type != "cuda":
        return LARGE_SHARED_BYTES
    # torch does not know it of AMD's GPUs, which have 64 KiB.
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin", 64 << 10))


class _KernelGrid(NamedTuple):
    """A grid as the kernels read it: scored spans, pairs (row of J, i), and items of at most 16 pairs each."""

    scored: Tensor
    pairs: Tensor
    items: Tensor


@kept_for_grid
def _kernel_grid(grid: Grid, device: torch.device) -> _KernelGrid:
    pairs: list[tuple[int, int]] = []
    items: list[tuple[int, int, int, int]] = []
    for row, spans in enumerate(grid.I):
        for first in range(0, len(spans), PAIRS_OF_A_PROGRAM):
            some = spans[first : first + PAIRS_OF_A_PROGRAM]
            items.append((row, some[0], len(pairs) + first, len(some)))
        pairs += [(row, i) for i in spans]
    scored, all_pairs, all_items = (constant(x, dtype=torch.int64, device=device) for x in (grid.J, pairs, items))
    return _KernelGrid(scored, all_pairs, all_items)
