"""The finished run of a contrast set -> CDS of every row by layer and head, in both forms. Imports no torch.

Shape suffixes: B rows of one kind, P layers or heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ladm.calibration.contrast import INTACT, PASTED, ContrastRow
from ladm.errors import LadmError
from ladm.method.grid import Ablation
from ladm.method.reduction import Floats, kept_column
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, read_scores

WITH_SIGMA: Ablation = "none"
WITHOUT_SIGMA: Ablation = "no-std"
"""The two forms of CDS, each called what the setting `ablation` calls it."""
MIN_SCORED_PER_KIND = 6


@dataclass(frozen=True, kw_only=True)
class ContrastScores:
    """CDS of every scored row of a contrast set, by form: with sigma (`none`) and without (`no-std`).

    `cds` has a column for each of `layers`; `by_head`, where heads are compared, `num_heads` columns for each.
    """

    kinds: npt.NDArray[np.str_]
    halves: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]
    """The document that a row consists of, or that a pasted row begins with."""
    cds: dict[Ablation, Floats]
    by_head: dict[Ablation, Floats] = field(default_factory=dict)
    layers: tuple[int, ...]
    num_layers: int
    """Layers of the model, of which `layers` may be a part."""
    num_heads: int | None = None

    @property
    def has_heads(self) -> bool:
        """Are single heads compared instead of whole layers?"""
        return self.num_heads is not None

    def rows(self, kind: str, half: int | None, form: Ablation, *, heads: bool = False) -> Floats:
        """CDS of the rows of a kind, of one half or (None) of both: (B, P)."""
        cds_BP: Floats = (self.by_head if heads else self.cds)[form][self._mask(kind, half)]
        return cds_BP

    def documents_of(self, kind: str, half: int | None) -> npt.NDArray[np.int64]:
        """The documents of those rows: (B,)."""
        documents_B: npt.NDArray[np.int64] = self.documents[self._mask(kind, half)]
        return documents_B

    def _mask(self, kind: str, half: int | None) -> npt.NDArray[np.bool_]:
        of_kind: npt.NDArray[np.bool_] = self.kinds == kind
        return of_kind if half is None else of_kind & (self.halves == half)

    def num_columns(self, *, heads: bool) -> int:
        """P."""
        return len(self.layers) * ((self.num_heads or 1) if heads else 1)

    @property
    def pasted(self) -> tuple[str, ...]:
        """The kinds of pasted rows that occur."""
        return tuple(kind for kind in PASTED if kind in self.kinds)

    def layer_and_head(self, column: int, *, heads: bool) -> tuple[int, int | None]:
        """What a column holds; the head is None where columns are whole layers."""
        if not heads or self.num_heads is None:
            return self.layers[column], None
        return self.layers[column // self.num_heads], column % self.num_heads

    def cost_of(self, column: int, *, heads: bool) -> float:
        """The share of the model's layers that have to run for this column: all up to its own."""
        return (self.layer_and_head(column, heads=heads)[0] + 1) / self.num_layers


def read_contrast_scores(run: Run, contrast: list[ContrastRow], *, num_layers: int, heads: bool) -> ContrastScores:
    """Read the CDS of a finished run of `contrast`. Rows without a score are left out.

    Raises LadmError when too few rows of a kind have a score.
    """
    # A calibration stores both forms, a check only the one with sigma.
    available = columns_of(run.folder)
    column_of = {form: kept_column(heads=False, second_form=form == WITHOUT_SIGMA) for form in _FORMS}
    forms = [form for form in _FORMS if column_of[form] in available]
    head_column_of = {form: kept_column(heads=True, second_form=form == WITHOUT_SIGMA) for form in forms if heads}
    names = [*(column_of[form] for form in forms), *head_column_of.values()]
    table = read_scores(run.folder, ["index", *names])
    # The index of a row is its place in the contrast set; rows without a score are missing in the table.
    scored = [contrast[index] for index in table["index"].to_pylist()]
    _require_enough(run, contrast, scored)
    values = {name: np.array(table[name].to_pylist(), dtype=np.float64) for name in names}
    by_head = {form: values[name] for form, name in head_column_of.items()}
    layers = run.identity.layers
    return ContrastScores(
        kinds=np.array([row.kind for row in scored]),
        halves=np.array([row.half for row in scored]),
        documents=np.array([row.document for row in scored]),
        cds={form: values[column_of[form]] for form in forms},
        by_head=by_head,
        layers=layers,
        num_layers=num_layers,
        num_heads=by_head[WITH_SIGMA].shape[1] // len(layers) if heads else None,
    )


_FORMS = (WITH_SIGMA, WITHOUT_SIGMA)


def _require_enough(run: Run, contrast: list[ContrastRow], scored: list[ContrastRow]) -> None:
    for kind in dict.fromkeys(row.kind for row in contrast if row.kind == INTACT or row.kind in PASTED):
        for half in (0, 1):
            count = sum((row.kind, row.half) == (kind, half) for row in scored)
            if count < MIN_SCORED_PER_KIND:
                raise LadmError(
                    f"only {count} rows of kind '{kind}' in one half have a score, and at least {MIN_SCORED_PER_KIND} "
                    f"are needed; {run.folder / 'errors.jsonl'} has the reasons"
                )
