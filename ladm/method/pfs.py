"""q, k and the log-sum-exp that attention already knows -> PFS, by the backend that was asked for.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size, J scored spans, N spans.
"""

from __future__ import annotations

from torch import Tensor

from ladm.errors import UsageError
from ladm.method.grid import Grid

BACKENDS = ("torch", "triton")


def pairwise_focus(
    q_BHTD: Tensor,
    k_BGTD: Tensor,
    lse_BHT: Tensor | None,
    *,
    scaling: float,
    grid: Grid,
    backend: str,
    by_head: bool = False,
    low_memory: bool = False,
) -> Tensor:
    """Equation 2 for the pairs that `grid` wants: (B, J, N) float32, 0 elsewhere; (B, H, J, N) with `by_head`.

    Logits are accumulated in float32 whatever the inputs. Held to `focus.pairwise_focus`.

    Args:
        lse_BHT: float32 log-sum-exp of the causal logits of every query row; None: it is computed
            here for the scored rows.
        by_head: leave out the mean over heads.
        low_memory: hold as few logits at a time as possible; the Triton backend never holds any.

    Raises UsageError for a backend that does not exist.
    """
    if backend == "torch":
        from ladm.method import pfs_torch

        return pfs_torch.pairwise_focus(
            q_BHTD, k_BGTD, lse_BHT, scaling=scaling, grid=grid, by_head=by_head, low_memory=low_memory
        )
    if backend == "triton":
        # Imported only when it is used: triton is missing on some platforms.
        from ladm.method import pfs_triton

        pfs_BHJN = pfs_triton.pairwise_focus(q_BHTD, k_BGTD, lse_BHT, scaling=scaling, grid=grid)
        return pfs_BHJN if by_head else pfs_BHJN.mean(dim=1)
    raise UsageError(f"no backend {backend!r}; there is {', '.join(BACKENDS)}")
