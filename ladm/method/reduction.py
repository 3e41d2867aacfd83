"""CDS of layers or heads -> one score: which of the stored numbers count, and how they are combined. Imports no torch.

Shape suffixes: B documents, P layers or heads that are used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError
from ladm.method.grid import FocusKind

HOW = ("mean", "median", "geometric", "signed")
SMALLEST_CDS = 1e-30
"""Stands for a CDS of 0 in a logarithm."""

Floats = npt.NDArray[np.float64]


def cds_column_name(*, heads: bool, second_form: bool, focus: FocusKind = "plain") -> str:
    """The name of the column of a run's results that holds CDS by layer or head.

    `second_form`: without sigma, stored beside the other. `focus`: which PFS the CDS are made of.
    """
    prefix = "value_" if focus == "value" else ""
    return f"{prefix}cds_per_{'head' if heads else 'layer'}{'_no_std' if second_form else ''}"


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """Which of the stored numbers make the score, and how. `heads` are (layer, head); None: whole layers."""

    how: str = "mean"
    layers: tuple[int, ...]
    heads: tuple[tuple[int, int], ...] | None = None
    weights: tuple[float, ...] | None = None
    focus: FocusKind = "plain"

    def __post_init__(self) -> None:
        parts = self.layers if self.heads is None else self.heads
        if self.how not in HOW:
            raise LadmError(f"no reduction {self.how!r}; choose from {', '.join(HOW)}")
        if self.focus not in ("plain", "value"):
            raise LadmError(f"no focus {self.focus!r}; choose from plain, value")
        if not parts:
            raise LadmError("a score needs at least one layer")
        # In order and each once, because the place of a number among those that are stored is looked up by it.
        if list(parts) != sorted(set(parts)) or min(self.layers) < 0:  # type: ignore[type-var]
            raise LadmError("layers and heads must be in order, each once")
        if self.heads is not None and {layer for layer, _ in self.heads} != set(self.layers):
            raise LadmError("the heads are not those of the layers")
        if self.weights is not None and not all(map(math.isfinite, self.weights)):
            raise LadmError("every weight must be a finite number")
        if self.how == "signed":
            if self.weights is None or len(self.weights) != len(parts) or not any(self.weights):
                raise LadmError("a signed sum needs a weight for every layer or head, and one that is not 0")
        elif self.weights is not None and (len(self.weights) != len(parts) or not sum(self.weights) > 0):
            raise LadmError(f"{len(self.weights)} weights for {len(parts)} layers or heads, or none above 0")
        if self.weights is not None and self.how == "median":
            raise LadmError("a median takes no weights")

    def identity(self) -> dict[str, Any]:
        """As `run.json` holds it. `focus` is left out where it is plain, as in older runs, which know no other."""
        return {
            "reduce": self.how,
            "layers": list(self.layers),
            "heads": None if self.heads is None else [list(head) for head in self.heads],
            "weights": None if self.weights is None else list(self.weights),
        } | ({} if self.focus == "plain" else {"focus": self.focus})

    def columns(self, kept_layers: tuple[int, ...], *, num_heads: int | None) -> list[int]:
        """Where the wanted numbers stand among those stored. Raises LadmError for a layer that was not stored."""
        absent = sorted(set(self.layers) - set(kept_layers))
        if absent:
            raise LadmError(f"layer {absent[0]} is not among the layers of the run: {', '.join(map(str, kept_layers))}")
        place = {layer: k for k, layer in enumerate(kept_layers)}
        if self.heads is None:
            return [place[layer] for layer in self.layers]
        if num_heads is None:
            raise LadmError(
                "the profile weights single heads, but the run stored only whole layers; score the rows with --record "
                "heads"
            )
        if max(head for _, head in self.heads) >= num_heads:
            raise LadmError(
                f"the profile names head {max(head for _, head in self.heads)}, but a layer has only {num_heads} heads"
            )
        return [place[layer] * num_heads + head for layer, head in self.heads]


def reduce_cds(cds_BP: Floats, how: str, weights: tuple[float, ...] | None = None) -> Floats:
    """One score a document from its P numbers: (B, P) -> (B,).

    mean: sum of w x / sum of w; geometric: exp of that of log x; median: of x; signed: sum of w log x, where w may be
    negative. The order of the additions is fixed, so that a score is the same to the last bit however many are made at
    once.
    """
    cds_BP = np.ascontiguousarray(cds_BP, dtype=np.float64)
    if how == "median":
        # A NaN becomes the median of its document without numpy's warning.
        with np.errstate(invalid="ignore"):
            return np.asarray(np.median(cds_BP, axis=1))
    w_P = (1.0,) * cds_BP.shape[1] if weights is None else weights
    if how == "geometric":
        # A CDS of 0 makes the whole mean 0, but not where its weight is 0: 0 log 0 would be NaN.
        uncounted_BP = (cds_BP == 0.0) & (np.array(w_P) == 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            cds_BP = np.log(np.where(uncounted_BP, 1.0, cds_BP))
    if how == "signed":
        cds_BP = log_cds(cds_BP)
    # Not a matrix product: BLAS adds in another order for another number of documents, which changes the last bit.
    total_B = np.zeros(len(cds_BP))
    for k, w in enumerate(w_P):
        total_B = total_B + (cds_BP[:, k] if w == 1.0 else w * cds_BP[:, k])
    if how == "signed":
        return total_B
    mean_B = total_B / sum(w_P)
    return np.exp(mean_B) if how == "geometric" else mean_B


def log_cds(cds_BP: Floats) -> Floats:
    """log CDS, as a signed sum uses them; a CDS of 0 counts as 1e-30, and NaN stays NaN."""
    logs: Floats = np.log(np.maximum(cds_BP, SMALLEST_CDS))
    return logs
