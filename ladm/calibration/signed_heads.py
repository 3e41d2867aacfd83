"""CDS of every head of labelled rows -> one signed weight for each head: ridge logistic regression. Imports no torch.

score = sum over layers and heads of b log CDS. A plain mean over layers or heads can only say "more attention to far
spans", and repetition has the most of that. Heads that copy get negative weights here, so repeated rows and lists
score low as well as pasted ones.

Shape suffixes: B rows, P heads, K kinds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.calibration.estimates import Clusters, auc
from ladm.calibration.packages import divide
from ladm.method.reduction import Floats, log_cds

RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Strengths of the penalty, divided by the number of heads before they are used; the features have unit variance."""
FOLDS = 4
NEWTON_STEPS = 50
TOLERANCE = 1e-8


@dataclass(frozen=True, kw_only=True)
class SignedFit:
    """The chosen ridge with the AUC of its worst kind on rows that were held out, and the weights of all rows."""

    ridge: float
    worst_auc: float
    weights_P: Floats


@dataclass(frozen=True, kw_only=True)
class LabelledRows:
    """What the weights are fitted to: log CDS (B, P), the kind of each row, and the cluster that is held out whole."""

    logs_BP: Floats
    kinds_B: npt.NDArray[np.str_]
    clusters_B: Clusters
    intact: str

    def take(self, rows_B: npt.NDArray[np.bool_]) -> LabelledRows:
        """Some of the rows."""
        return LabelledRows(
            logs_BP=self.logs_BP[rows_B],
            kinds_B=self.kinds_B[rows_B],
            clusters_B=self.clusters_B[rows_B],
            intact=self.intact,
        )


def label_rows(
    cds_BP: Floats, kinds_B: npt.NDArray[np.str_], clusters_B: Clusters, *, intact: str = "intact"
) -> LabelledRows:
    """Rows with their CDS by head."""
    return LabelledRows(logs_BP=log_cds(cds_BP), kinds_B=kinds_B, clusters_B=clusters_B, intact=intact)


def fit_signed_heads(rows: LabelledRows, *, seed: int) -> SignedFit:
    """Weights whose ridge is the one with the best worst kind among clusters that were held out.

    Every bad kind has the same total weight, and all bad kinds together that of the intact rows.
    """
    fold_of = divide([str(cluster) for cluster in rows.clusters_B], FOLDS, seed=seed)
    kinds = [kind for kind in dict.fromkeys(rows.kinds_B.tolist()) if kind != rows.intact]
    worst_of: dict[float, float] = {}
    starts: dict[int, Floats] = {}
    # From the strongest penalty to the weakest: each solution is a good start for the next.
    for ridge in sorted(RIDGES, reverse=True):
        found: dict[str, list[float]] = {kind: [] for kind in kinds}
        for fold in range(FOLDS):
            known, held = rows.take(fold_of != fold), rows.take(fold_of == fold)
            starts[fold] = weights_P = _fit(known, ridge=ridge, start_P=starts.get(fold))
            _add_auc(found, held, held.logs_BP @ weights_P)
        worst_of[ridge] = min(float(np.mean(values)) for values in found.values() if values)
    best = max(worst_of, key=worst_of.__getitem__)
    return SignedFit(ridge=best, worst_auc=worst_of[best], weights_P=_fit(rows, ridge=best, start_P=None))


def _add_auc(found: dict[str, list[float]], held: LabelledRows, score_B: Floats) -> None:
    intact_A = score_B[held.kinds_B == held.intact]
    for kind, values in found.items():
        bad_B = score_B[held.kinds_B == kind]
        # A fold may have no rows of a rare kind; the other folds judge it then.
        if len(bad_B) and len(intact_A):
            values.append(auc(intact_A, bad_B))


def _fit(rows: LabelledRows, *, ridge: float, start_P: Floats | None) -> Floats:
    """Weights of the raw logarithms, by Newton's method on standardised ones."""
    mean_P, spread_P = rows.logs_BP.mean(axis=0), rows.logs_BP.std(axis=0)
    # A head that never changes carries nothing; without this its feature would be 0 / 0 instead of 0.
    spread_P = np.where(spread_P > 1e-9, spread_P, 1.0)
    x_BP = np.hstack([(rows.logs_BP - mean_P) / spread_P, np.ones((len(rows.logs_BP), 1))])
    sign_B = np.where(rows.kinds_B == rows.intact, 1.0, -1.0)
    weight_B = _row_weights(rows)
    P = x_BP.shape[1]
    # The last coefficient is the intercept, which the penalty leaves alone; it does not change the order of rows.
    penalty_P = np.append(np.full(P - 1, ridge / (P - 1)), 1e-9)
    b_P = np.zeros(P) if start_P is None else np.append(start_P * spread_P, 0.0)
    before = np.inf
    for _ in range(NEWTON_STEPS):
        margin_B = np.clip(sign_B * (x_BP @ b_P), -500, 500)
        miss_B = 1 / (1 + np.exp(margin_B))
        loss = float(weight_B @ np.logaddexp(0, -margin_B) + penalty_P @ b_P**2 / 2)
        if abs(before - loss) < TOLERANCE:
            break
        before = loss
        gradient_P = penalty_P * b_P - x_BP.T @ (weight_B * sign_B * miss_B)
        curvature_PP = (x_BP * (weight_B * miss_B * (1 - miss_B))[:, None]).T @ x_BP + np.diag(penalty_P)
        b_P = b_P - _step(np.linalg.solve(curvature_PP, gradient_P))
    fitted: Floats = b_P[:-1] / spread_P
    return fitted


def _step(step_P: Floats) -> Floats:
    """At most a length of 5: far from the solution a full Newton step can overshoot and never come back."""
    return step_P * min(1.0, 5.0 / max(float(np.linalg.norm(step_P)), 1e-12))


def _row_weights(rows: LabelledRows) -> Floats:
    """1 in total for the intact rows, and for every bad kind the same share of 1."""
    names, places, counts = np.unique(rows.kinds_B, return_inverse=True, return_counts=True)
    bad = max(1, len(names) - 1)
    each_K = np.where(names == rows.intact, 1.0, 1 / bad) / counts
    weights: Floats = each_K[places]
    return weights
