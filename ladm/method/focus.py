"""A layer's q and k -> PFS, AFS and CDS: equations 2-5 of LADM (arXiv 2503.02502) in plain float32 torch.

This file is the oracle: written to be read beside the paper, and what every faster version is
tested against. Equation 1, which documents are kept, is in `selection.py`.

A document of T tokens is cut into N = T // l spans of l tokens, counted from its end; the T mod l
tokens in front belong to no span. `j` is a scored span, `i` an earlier one.

Shape suffixes: B rows, H query heads, G key/value heads, T tokens, D head size, J scored spans,
N spans, l query rows of one span, K keys. `...` is any number of leading dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Variant = Literal["released", "paper"]
Ablation = Literal["none", "no-std", "no-length"]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which spans of a document are scored, and against which earlier spans.

    `J[row]` is a scored span and `I[row]` are the earlier spans it is compared with, ascending.
    An empty `J` means that the document is too short to be scored.
    """

    T: int
    l: int  # the paper's letter for the tokens of a span
    variant: Variant
    J: tuple[int, ...]
    I: tuple[tuple[int, ...], ...]  # the paper's letter for the spans compared with
    d_afs: int

    @property
    def N(self) -> int:
        """Number of whole spans."""
        return self.T // self.l

    def start(self, span: int) -> int:
        """Position of the first token of `span`."""
        return self.T - (self.N - span) * self.l

    def tokens(self, span: int) -> slice:
        """Positions of the tokens of `span`."""
        return slice(self.start(span), self.start(span) + self.l)

    def classes(self) -> list[list[int]]:
        """Rows of J whose earlier spans fall on the same stride, so that all are in the last row's."""
        by_residue: dict[int, list[int]] = {}
        for row, spans in enumerate(self.I):
            by_residue.setdefault(spans[0] % self.d_afs, []).append(row)
        return list(by_residue.values())

    def wanted_JN(self, device: torch.device | str = "cpu") -> Tensor:
        """Boolean (J, N): is PFS(i, j) used?"""
        wanted = torch.zeros(len(self.J), self.N, dtype=torch.bool)
        for row, spans in enumerate(self.I):
            wanted[row, list(spans)] = True
        return wanted.to(device)


def span_grid(
    T: int,
    *,
    variant: Variant,
    l: int,
    m: int,
    n: int,
    n0: int | None,
    d_afs: int,
    d_cds: int,
    ablation: Ablation = "none",
) -> Grid:
    """The spans J and I_j of equations 3 and 5 for a document of `T` tokens.

    paper:    J = n0, n0+d_cds, .. <= N-1      I_j = m, m+d_afs, .. <= j-n-1
    released: J = N-1, N-1-d_cds, ..           I_j = j-n, j-n-d_afs, .. >= m
              while j >= n0, or, where n0 is not given, while the first token of span j lies beyond
              token (m + 4 d_afs) l
    In the paper's variant no `n0` is an n0 of 0; the paper's own value is a setting's default.

    A span with a single earlier span has no sigma and is left out, unless sigma is not used.
    """
    N = T // l
    if variant == "paper":
        scored = range(n0 or 0, N, d_cds)
        earlier = {j: tuple(range(m, j - n, d_afs)) for j in scored}
    else:
        front = T - N * l
        last = (m + 4 * d_afs) * l
        scored = range(N - 1, -1, -d_cds)
        kept = [j for j in scored if (front + j * l > last if n0 is None else j >= n0)]
        earlier = {j: tuple(range(j - n, m - 1, -d_afs))[::-1] for j in reversed(kept)}
    fewest = 1 if ablation == "no-std" else 2
    J = tuple(j for j, spans in earlier.items() if len(spans) >= fewest)
    return Grid(T=T, l=l, variant=variant, J=J, I=tuple(earlier[j] for j in J), d_afs=d_afs)


def pairwise_focus(q_HTD: Tensor, k_GTD: Tensor, *, scaling: float, grid: Grid) -> Tensor:
    """Equation 2, the Pairwise Focus Score, as a (J, N) float32 matrix.

    PFS(i, j) = mean over heads, sum over the l query rows of span j, sum over the l keys of span i,
    of softmax(scaling * q_row . K). K are all tokens up to the query row itself (paper), or all
    tokens before span j (released); a front fragment is among them in both. Query head h reads
    key head h // (H / G). Every i < j is filled in, the rest is 0; `Grid.I` says which are used.

    Args:
        q_HTD: query states after the position embedding, any float dtype.
        k_GTD: key states after the position embedding.
        scaling: the layer's own factor on the logits.
    """
    q_HTD = q_HTD.float()
    k_HTD = k_GTD.float().repeat_interleave(q_HTD.shape[0] // k_GTD.shape[0], dim=0)
    front = grid.T - grid.N * grid.l
    pfs_JN = q_HTD.new_zeros(len(grid.J), grid.N)
    for row, j in enumerate(grid.J):
        rows = grid.tokens(j)
        last = rows.start if grid.variant == "released" else rows.stop
        logits_HlK = scaling * (q_HTD[:, rows] @ k_HTD[:, :last].mT)
        if grid.variant == "paper":
            key = torch.arange(last, device=q_HTD.device)
            query = key[rows].unsqueeze(1)
            logits_HlK = logits_HlK.masked_fill(key > query, -torch.inf)
        weights_HlK = logits_HlK.softmax(dim=-1)
        by_span = weights_HlK[:, :, front : rows.start].reshape(-1, grid.l, j, grid.l)
        pfs_JN[row, :j] = by_span.sum(dim=(1, 3)).mean(dim=0)
    return pfs_JN


def aggregated_focus(pfs_JN: Tensor, grid: Grid, *, ablation: Ablation = "none") -> Tensor:
    """Equations 3 and 4, the Aggregated Focus Score: (..., J, N) -> (..., J).

    sigma_j = unbiased std of { PFS(i, j) : i in I_j }
    AFS(j)  = sigma_j * sum over i in I_j of PFS(i, j) * (j - i)

    Released: the length weight is (j - i) l / T. `no-std` drops sigma, `no-length` the weight.
    """
    wanted_JN = grid.wanted_JN(pfs_JN.device)
    used_JN = pfs_JN.where(wanted_JN, 0.0)
    afs_J = (used_JN * distance_JN(grid, used_JN, ablation=ablation)).sum(dim=-1)
    if ablation == "no-std":
        return afs_J
    pairs_J1 = wanted_JN.sum(dim=-1, keepdim=True)
    mean_J1 = used_JN.sum(dim=-1, keepdim=True) / pairs_J1
    squares_J = (used_JN - mean_J1).where(wanted_JN, 0.0).square().sum(dim=-1)
    sigma_J = (squares_J / (pairs_J1.squeeze(-1) - 1)).sqrt()
    return sigma_J * afs_J


def distance_JN(grid: Grid, like: Tensor, *, ablation: Ablation) -> Tensor:
    """The length weight of every pair, (J, N) of the type of `like`: j - i (paper), (j - i) l / T (released), or 1."""
    j_J1 = torch.tensor(grid.J, device=like.device, dtype=like.dtype).unsqueeze(1)
    spans_JN = j_J1 - torch.arange(grid.N, device=like.device, dtype=like.dtype)
    if ablation == "no-length":
        return torch.ones_like(spans_JN)
    return spans_JN * (grid.l / grid.T) if grid.variant == "released" else spans_JN


def contextual_dependency(afs_J: Tensor, grid: Grid, *, ablation: Ablation = "none") -> Tensor:
    """Equation 5, the Contextual Dependency Score: (..., J) -> (...).

    paper:    CDS = sum over j in J of (j / N) AFS(j)
    released: CDS = mean over j in J of (first token of j / T) AFS(j)

    `no-length` drops the weight of j.
    """
    if ablation == "no-length":
        where_J = [1.0] * len(grid.J)
    elif grid.variant == "paper":
        where_J = [j / grid.N for j in grid.J]
    else:
        where_J = [grid.start(j) / grid.T for j in grid.J]
    weighted_J = afs_J * torch.tensor(where_J, device=afs_J.device, dtype=afs_J.dtype)
    return weighted_J.sum(dim=-1) if grid.variant == "paper" else weighted_J.mean(dim=-1)
