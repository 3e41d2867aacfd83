"""The finished run of a contrast set -> CDS of every row by layer and head, in every form. Imports no torch.

Shape suffixes: B rows, P layers or heads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ladm.calibration.contrast import INTACT, KINDS, PASTED, SAME_PACKAGE, ContrastRow
from ladm.calibration.estimates import Clusters, PairwiseWins, wins
from ladm.errors import LadmError
from ladm.method.grid import Ablation, FocusKind
from ladm.method.reduction import Floats, cds_column_name
from ladm.runs.columns.derived import COPY_SHARE_COLUMN, NEAR_SHARE_COLUMN
from ladm.runs.columns.sink_layers import SINK_MASS_COLUMN
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, read_scores

WITH_SIGMA: Ablation = "none"
WITHOUT_SIGMA: Ablation = "no-std"
MIN_SCORED_PER_KIND = 6
CHOSEN_ON, JUDGED_ON = 0, 1
"""The half of the documents that a score is chosen on, and the half that the chosen one is judged on."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One of the four ways to compute CDS in one pass."""

    focus: FocusKind = "plain"
    ablation: Ablation = WITH_SIGMA

    def column(self, *, heads: bool) -> str:
        """Its column in a run that was scored with sigma."""
        return cds_column_name(heads=heads, second_form=self.ablation == WITHOUT_SIGMA, focus=self.focus)

    def __str__(self) -> str:
        weighted = ", value-weighted" if self.focus == "value" else ""
        return f"{'with' if self.ablation == WITH_SIGMA else 'without'} sigma{weighted}"


RELEASED = Form()
ROBUST = Form(focus="value", ablation=WITHOUT_SIGMA)
FORMS = (RELEASED, Form(ablation=WITHOUT_SIGMA), Form(focus="value"), ROBUST)


@dataclass(frozen=True, kw_only=True)
class ContrastScores:
    """CDS of every scored row of a contrast set, by form.

    `cds` has a column for each of `layers`; `by_head`, where heads are compared, `num_heads` columns for each.
    """

    rows: list[ContrastRow] = field(default_factory=list)
    """The scored rows themselves."""
    kinds: npt.NDArray[np.str_]
    halves: npt.NDArray[np.int64]
    clusters: Clusters
    """What is held out and drawn together: the package of a row's first token, or its document."""
    cds: dict[Form, Floats]
    by_head: dict[Form, Floats] = field(default_factory=dict)
    copy_share: Floats | None = None
    sink_mass: Floats | None = None
    near_share: Floats | None = None
    """All three by layer; None where they were not stored."""
    layers: tuple[int, ...]
    num_layers: int
    """Layers of the model, of which `layers` may be a part."""
    num_heads: int | None = None

    @cached_property
    def counts(self) -> dict[str, Floats]:
        """Numbers of every row that need no model, see `count_baselines`; made when they are first read."""
        return count_baselines(self.rows) if self.rows else {}

    def columns(self, form: Form, *, heads: bool) -> Floats:
        """CDS of all rows: (B, P)."""
        return (self.by_head if heads else self.cds)[form]

    def mask(self, kind: str, half: int | None) -> npt.NDArray[np.bool_]:
        """The rows of a kind, of one half or (None) of both: (B,)."""
        of_kind: npt.NDArray[np.bool_] = self.kinds == kind
        return of_kind if half is None else of_kind & (self.halves == half)

    def wins(self, values_B: Floats, kinds: tuple[str, ...], half: int | None) -> list[PairwiseWins]:
        """Intact documents against the rows of each kind, by a score of all rows."""
        intact = self.mask(INTACT, half)
        masks = [self.mask(kind, half) for kind in kinds]
        return [
            PairwiseWins(
                wins_AB=wins(values_B[intact], values_B[mask]),
                intact_A=self.clusters[intact],
                rows_B=self.clusters[mask],
            )
            for mask in masks
        ]

    @property
    def bad(self) -> tuple[str, ...]:
        """The kinds that intact documents are compared with, of those that occur in every half that was scored."""
        halves = sorted(set(self.halves.tolist()))
        return tuple(kind for kind in KINDS if all(self.mask(kind, half).any() for half in halves))

    def kinds_in(self, half: int | None) -> tuple[str, ...]:
        """The kinds that rows of a half are judged on; where both halves judge (None), all that have a row."""
        return self.bad if half is not None else tuple(kind for kind in KINDS if self.mask(kind, None).any())

    @property
    def pasted(self) -> tuple[str, ...]:
        """The kinds of pasted rows among them."""
        return tuple(kind for kind in self.bad if kind in (*PASTED, SAME_PACKAGE))

    def layer_and_head(self, column: int, *, heads: bool) -> tuple[int, int | None]:
        """The layer and head of a column; the head is None where columns are whole layers."""
        if not heads or self.num_heads is None:
            return self.layers[column], None
        return self.layers[column // self.num_heads], column % self.num_heads

    def cost_of(self, column: int, *, heads: bool) -> float:
        """The share of the model's layers that have to run for this column: all up to its own."""
        return (self.layer_and_head(column, heads=heads)[0] + 1) / self.num_layers


def read_contrast_scores(
    run: Run,
    contrast: list[ContrastRow],
    clusters: list[str],
    *,
    num_layers: int,
    heads: bool,
    expected: set[tuple[str, int]] | None = None,
) -> ContrastScores:
    """Read the CDS of a finished run of `contrast`, whose rows have these clusters. Rows without a score are left out.

    `expected` are the kinds and halves that were scored; None: all of the set. Raises LadmError when too few rows of a
    kind have a score.
    """
    available = columns_of(run.folder)
    forms = [form for form in FORMS if form.column(heads=False) in available]
    by_head = [form for form in forms if heads and form.column(heads=True) in available]
    of_layers = (COPY_SHARE_COLUMN, SINK_MASS_COLUMN, NEAR_SHARE_COLUMN)
    others = [name for name in of_layers if name in available]
    names = [form.column(heads=False) for form in forms] + [form.column(heads=True) for form in by_head] + others
    table = read_scores(run.folder, ["index", *names])
    # The index of a row is its place in the contrast set; rows without a score are missing in the table.
    places = table["index"].to_pylist()
    scored = [contrast[place] for place in places]
    _require_enough(run, scored, expected or {(row.kind, row.half) for row in contrast})
    values = {name: np.array(table[name].to_pylist(), dtype=np.float64) for name in names}
    layers = run.identity.layers
    _, numbers = np.unique([clusters[place] for place in places], return_inverse=True)
    return ContrastScores(
        rows=scored,
        kinds=np.array([row.kind for row in scored]),
        halves=np.array([row.half for row in scored]),
        clusters=numbers,
        cds={form: values[form.column(heads=False)] for form in forms},
        by_head={form: values[form.column(heads=True)] for form in by_head},
        copy_share=values.get(COPY_SHARE_COLUMN),
        sink_mass=values.get(SINK_MASS_COLUMN),
        near_share=values.get(NEAR_SHARE_COLUMN),
        layers=layers,
        num_layers=num_layers,
        num_heads=values[by_head[0].column(heads=True)].shape[1] // len(layers) if by_head else None,
    )


def count_baselines(rows: list[ContrastRow]) -> dict[str, Floats]:
    """Numbers that need only a row's ids and no model: `F` (far_rare) and `gzip` (gzip_ratio), which every score has to
    beat.

    The unigram table of a half is counted on the intact documents of the other half, whose packages it shares none of.
    """
    from ladm.signals.text_statistics import UnigramTable, text_statistics

    vocabulary = 1 + max(int(row.ids.max()) for row in rows)
    tables = {
        half: UnigramTable.count(
            (row.ids for row in rows if row.kind == INTACT and row.half != half), vocab_size=vocabulary
        )
        for half in (CHOSEN_ON, JUDGED_ON)
    }
    found = [text_statistics(row.ids, None, unigrams=tables[row.half]) for row in rows]
    return {
        "F": np.array([each.far_rare for each in found]),
        "gzip": np.array([each.gzip_ratio for each in found]),
    }


def _require_enough(run: Run, scored: list[ContrastRow], expected: set[tuple[str, int]]) -> None:
    for kind, half in sorted(expected):
        count = sum((row.kind, row.half) == (kind, half) for row in scored)
        # The other kinds are as rare as the documents allow, and are left out of the comparison where they are absent.
        if kind in (INTACT, *PASTED) and count < MIN_SCORED_PER_KIND:
            raise LadmError(
                f"only {count} rows of kind '{kind}' in one half have a score, and at least {MIN_SCORED_PER_KIND} "
                f"are needed; {run.folder / 'errors.jsonl'} has the reasons"
            )
