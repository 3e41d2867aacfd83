"""q, k and the log-sum-exp that attention already knows -> PFS, by the chosen backend.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size, J scored spans, N spans.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ladm.errors import UsageError
from ladm.method import pfs_torch
from ladm.method.grid import Grid
from ladm.method.pfs_torch import CopyKeys, Focus

BACKENDS = ("torch", "triton")


def measure_focus(
    q_BHTD: Tensor,
    k_BGTD: Tensor,
    lse_BHT: Tensor | None,
    *,
    scaling: float,
    grid: Grid,
    backend: str,
    by_head: bool = False,
    key_weight_BGT: Tensor | None = None,
    copy_keys: CopyKeys | None = None,
    low_memory: bool = False,
) -> Focus:
    """Equation 2 for the pairs that `grid` uses, 0 elsewhere, and what else the same attention weights yield.

    Logits are accumulated in float32, whatever the dtype of the inputs. Tested against `focus.pairwise_focus`.

    Args:
        lse_BHT: float32 log-sum-exp of the causal logits of every query row; None: it is computed
            here for the scored rows.
        by_head: leave out the mean over heads.
        key_weight_BGT: float32 factor on the attention to each key, see `focus.value_weights`.
        copy_keys: the rows' copy keys, to add up the attention that falls on them.
        low_memory: hold as few logits at a time as possible; the Triton backend never holds any.

    Raises UsageError for a backend that does not exist.
    """
    # The kernels know no float64, and their sums are of float32 whatever comes in.
    if q_BHTD.dtype == torch.float64:
        q_BHTD, k_BGTD = q_BHTD.float(), k_BGTD.float()
        lse_BHT = None if lse_BHT is None else lse_BHT.float()
    if backend == "torch":
        return pfs_torch.measure_focus(
            q_BHTD, k_BGTD, lse_BHT, scaling=scaling, grid=grid, by_head=by_head, key_weight_BGT=key_weight_BGT,
            copy_keys=copy_keys, low_memory=low_memory,
        )  # fmt: skip
    if backend == "triton":
        # Imported only when it is used: triton is missing on some platforms.
        from ladm.method import pfs_triton

        by_head_focus = pfs_triton.measure_focus(
            q_BHTD, k_BGTD, lse_BHT, scaling=scaling, grid=grid, key_weight_BGT=key_weight_BGT,
            ids_BT=None if copy_keys is None else copy_keys.ids_BT,
        )  # fmt: skip
        return by_head_focus if by_head else _mean_over_heads(by_head_focus)
    raise UsageError(f"no backend {backend!r}; choose from {', '.join(BACKENDS)}")


def _mean_over_heads(focus: Focus) -> Focus:
    return Focus(
        pfs_BKJN=focus.pfs_BKJN.mean(dim=1, keepdim=True),
        weighted_BKJN=None if focus.weighted_BKJN is None else focus.weighted_BKJN.mean(dim=1, keepdim=True),
        copied_BK=None if focus.copied_BK is None else focus.copied_BK.mean(dim=1, keepdim=True),
    )
