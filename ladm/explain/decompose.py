"""Token ids and an observed model -> a score decomposed: what each pair of spans adds, and each token of the top pairs.

Shape suffixes: B rows (one here), P layers or heads behind the score, T tokens, J scored spans, N spans,
l tokens of a span, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ladm.explain.views import MOST_KEPT, DocumentViews
from ladm.method.attribution import column_weights, pair_parts, strongest_pairs, token_focus
from ladm.method.cds import aggregated_focus, contextual_dependency
from ladm.method.constants import release_constants
from ladm.method.focus import value_weights
from ladm.method.grid import Ablation, Grid
from ladm.method.pfs import measure_focus
from ladm.method.reduction import Floats, Reduction, reduce_cds
from ladm.modeling.attention_function import LayerView
from ladm.modeling.observer import Observer


@dataclass(frozen=True, kw_only=True)
class Decomposition:
    """The score of one document in parts, float32 on the CPU."""

    grid: Grid
    score: float
    cds_P: Floats
    w_P: Floats
    """The score is the sum of w_p CDS_p."""
    pfs_JN: Tensor
    """PFS, averaged over the columns by their w; with equal weights where all w are 0."""
    part_JN: Tensor
    """What each pair adds to the score, which is the sum of all."""
    pairs: list[tuple[int, int]]
    """The strongest pairs: row of J and span i."""
    token_parts: list[Tensor]
    """For each of `pairs` what each token of span j with each token of span i adds to the score, (l, l)."""


@dataclass(frozen=True, kw_only=True)
class Decomposer:
    """A model and a score, for decomposing one document after another.

    `observer` observes the layers of `reduction`, no others. `backend` is that of `pairwise_focus`.
    """

    observer: Observer
    reduction: Reduction
    ablation: Ablation
    backend: str
    most_pairs: int

    def decompose(self, ids_BT: Tensor, grid: Grid, *, low_memory: bool = False) -> Decomposition:
        """Decompose the score of one row.

        The focus of single tokens would be T x T numbers for each column, far more than the memory of any device.
        So a first pass over the layers computes PFS of whole spans and finds the strongest pairs, and a second pass
        computes the focus of single tokens for these alone. The second runs the model again only where the queries,
        keys and values of the first are too large to keep.

        `low_memory`: see `measure_focus`; nothing is kept.
        """
        if low_memory:
            release_constants()
        reduction, ablation = self.reduction, self.ablation
        views = DocumentViews(self.observer, ids_BT, most_bytes=0 if low_memory else MOST_KEPT)
        pfs_PJN = self._pairwise_focus(views, grid, low_memory=low_memory)
        afs_PJ = aggregated_focus(pfs_PJN, grid, ablation=ablation)
        cds_P = contextual_dependency(afs_PJ, grid, ablation=ablation).double().numpy()
        w_P = column_weights(cds_P, reduction)
        # In these columns the score is linear: a pair adds to it w_p times what it adds to CDS_p.
        w_P11 = torch.from_numpy(w_P).float()[:, None, None]
        part_PJN = w_P11 * pair_parts(pfs_PJN, grid, ablation=ablation)
        part_JN = part_PJN.sum(dim=0)
        pairs = list(strongest_pairs(part_JN, self.most_pairs))
        total = float(w_P.sum())
        return Decomposition(
            grid=grid,
            score=float(reduce_cds(cds_P[None], reduction.how, reduction.weights)[0]),
            cds_P=cds_P,
            w_P=w_P,
            pfs_JN=(w_P11 * pfs_PJN).sum(dim=0) / total if total > 0 else pfs_PJN.mean(dim=0),
            part_JN=part_JN,
            pairs=pairs,
            token_parts=self._token_parts(views, grid, pairs=pairs, pfs_PJN=pfs_PJN, part_PJN=part_PJN),
        )

    def _pairwise_focus(self, views: DocumentViews, grid: Grid, *, low_memory: bool) -> Tensor:
        """Equation 2 for every layer or head behind the score: (P, J, N) on the CPU."""
        by_head, weighted = self.reduction.heads is not None, self.reduction.focus == "value"
        columns: list[Tensor] = []

        def visit(view: LayerView) -> None:
            focus = measure_focus(
                view.q_BHTD, view.k_BGTD, view.lse_BHT, scaling=view.scaling, grid=grid, backend=self.backend,
                by_head=by_head, key_weight_BGT=value_weights(view.v_BGTD) if weighted else None, low_memory=low_memory,
            )  # fmt: skip
            pfs_BKJN = focus.pfs_BKJN if focus.weighted_BKJN is None else focus.weighted_BKJN
            columns.append((pfs_BKJN[0, self._heads_of(view.layer)] if by_head else pfs_BKJN[0]).cpu())

        views.visit_all(visit)
        return torch.cat(columns)

    def _token_parts(
        self, views: DocumentViews, grid: Grid, *, pairs: list[tuple[int, int]], pfs_PJN: Tensor, part_PJN: Tensor
    ) -> list[Tensor]:
        """For each pair what each token of span j with each token of span i adds to the score, (l, l)."""
        found = [torch.zeros(grid.l, grid.l, dtype=torch.float32) for _ in pairs]
        by_head = self.reduction.heads is not None
        next_column = 0

        def visit(view: LayerView) -> None:
            # Layers come in the order of the columns: one column each, or one for each of a layer's heads.
            nonlocal next_column
            heads = self._heads_of(view.layer)
            columns = slice(next_column, next_column + (len(heads) if by_head else 1))
            next_column = columns.stop
            for k, (row, i) in enumerate(pairs):
                # Of a median only the one or two columns in the middle have parts; the others need no work.
                if not part_PJN[columns, row, i].any():
                    continue
                focus_Hll = token_focus(
                    view.q_BHTD[0], view.k_BGTD[0], scaling=view.scaling, grid=grid, j=grid.J[row], i=i
                ).cpu()
                if self.reduction.focus == "value":
                    weight_Gl = value_weights(view.v_BGTD[0])[:, grid.tokens(i)].cpu()
                    focus_Hll *= weight_Gl.repeat_interleave(len(focus_Hll) // len(weight_Gl), dim=0).unsqueeze(1)
                focus_Pll = focus_Hll[heads] if by_head else focus_Hll.mean(dim=0, keepdim=True)
                pfs_P, part_P = pfs_PJN[columns, row, i].tolist(), part_PJN[columns, row, i].tolist()
                for focus_ll, pfs, part in zip(focus_Pll, pfs_P, part_P, strict=True):
                    # The tokens' focus sums to PFS(i, j); scaled by part / PFS it sums to the pair's part.
                    found[k] += focus_ll * (part / pfs if pfs > 0 else 0.0)

        views.visit_all(visit)
        return found

    def _heads_of(self, layer: int) -> list[int]:
        """The heads of a layer that count in the score; none where whole layers do."""
        return [head for of, head in self.reduction.heads or () if of == layer]
