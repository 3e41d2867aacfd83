"""CDS of a contrast set, by layer or head -> which of them to score with, and how sure that is.

Everything is chosen on one half of the documents and judged on the other. Imports no torch.

Shape suffixes: A intact documents, B pasted ones, P layers or heads, C candidates, R bootstrap draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ladm.calibration.contrast import INTACT, PASTED
from ladm.errors import LadmError
from ladm.method.grid import Ablation
from ladm.method.reduction import Floats, Reduction, reduce_cds

WITH_SIGMA: Ablation = "none"
WITHOUT_SIGMA: Ablation = "no-std"
"""The forms of CDS, named as the ablations that they are."""
DRAWS = 2000
CHOSEN_ON, JUDGED_ON = 0, 1
HEADS_TRIED = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
FEW_DOCUMENTS = 100
"""Fewer intact documents than this leave intervals so wide that a warning is due."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """CDS of every row of a contrast set, by form: with sigma (`none`) and without (`no-std`).

    `cds` has a column for each of `layers`; `by_head`, where heads were asked for, `num_heads` for each.
    """

    kinds: npt.NDArray[np.str_]
    halves: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int64]
    """The document that a row is, or, pasted together, begins with."""
    cds: dict[Ablation, Floats]
    by_head: dict[Ablation, Floats] = field(default_factory=dict)
    layers: tuple[int, ...]
    num_layers: int
    num_heads: int | None = None

    def of(self, kind: str, half: int | None, form: Ablation, *, heads: bool = False) -> Floats:
        """The rows of a kind, of one half or (None) of both: (B, P)."""
        rows: Floats = (self.by_head if heads else self.cds)[form][self._is(kind, half)]
        return rows

    def documents_of(self, kind: str, half: int | None) -> npt.NDArray[np.int64]:
        """The documents of the rows of `of`: (B,)."""
        documents: npt.NDArray[np.int64] = self.documents[self._is(kind, half)]
        return documents

    def _is(self, kind: str, half: int | None) -> npt.NDArray[np.bool_]:
        wanted: npt.NDArray[np.bool_] = self.kinds == kind
        return wanted if half is None else wanted & (self.halves == half)

    def num_columns(self, *, heads: bool) -> int:
        """P."""
        return len(self.layers) * ((self.num_heads or 1) if heads else 1)

    @property
    def pasted(self) -> tuple[str, ...]:
        """The kinds of pasted rows that there are."""
        return tuple(kind for kind in PASTED if kind in self.kinds)

    def part(self, column: int, *, heads: bool) -> tuple[int, int | None]:
        """The layer, and the head where columns are heads, of a column."""
        if not heads or self.num_heads is None:
            return self.layers[column], None
        return self.layers[column // self.num_heads], column % self.num_heads


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way to make one score: some columns of a form, reduced. `cost` is the share of a forward pass that it needs."""

    form: Ablation = WITH_SIGMA
    heads: bool = False
    columns: tuple[int, ...]
    how: str
    weights: tuple[float, ...] | None
    cost: float

    def score(self, measured: Measured, kind: str, half: int | None) -> Floats:
        """Scores of the rows of a kind: (B,)."""
        cds_BP = measured.of(kind, half, self.form, heads=self.heads)
        return reduce_cds(cds_BP[:, list(self.columns)], self.how, self.weights)


@dataclass(frozen=True)
class Estimate:
    """A number with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def auc(intact_A: Floats, pasted_B: Floats) -> float:
    """Share of pairs in which the intact document scores higher; a tie counts half."""
    return float(wins(intact_A, pasted_B).mean())


def wins(intact_A: Floats, pasted_B: Floats) -> Floats:
    """1 where an intact document scores higher than a pasted one, 1/2 in a tie, 0 where it is lower: (A, B)."""
    above: Floats = (intact_A[:, None] > pasted_B).astype(np.float64)
    ties: Floats = (intact_A[:, None] == pasted_B) / 2
    return above + ties


@dataclass(frozen=True, kw_only=True)
class Wins:
    """Does each intact document score higher than each row of a kind? `rows` says of which documents those are."""

    wins_AB: Floats
    intact_A: npt.NDArray[np.int64]
    rows_B: npt.NDArray[np.int64]

    def __sub__(self, other: Wins) -> Wins:
        """The difference of two scores, document by document."""
        return Wins(wins_AB=self.wins_AB - other.wins_AB, intact_A=self.intact_A, rows_B=self.rows_B)


def estimate(kinds: list[Wins], *, seed: int) -> Estimate:
    """The mean over kinds of the mean win, with a percentile bootstrap over documents.

    A document is drawn with all its rows: the intact one, and of every kind the one that begins with it.
    Given the differences of two scores' wins, it is the paired interval of the difference of their AUC.
    That the later pieces of a row are shared with other rows is not seen: an interval may be some
    tenths too narrow where one strong piece decides a row.
    """
    draw = np.random.default_rng(seed)
    documents, places = np.unique(np.concatenate([kinds[0].intact_A, *(k.rows_B for k in kinds)]), return_inverse=True)
    D = len(documents)
    counts_RD = draw.multinomial(D, [1 / D] * D, size=DRAWS).astype(np.float64)
    ends = np.cumsum([len(kinds[0].intact_A), *(len(k.rows_B) for k in kinds)])
    intact_A, *rows = np.split(places, ends[:-1])
    counts_RA = counts_RD[:, intact_A]
    means_R = np.zeros(DRAWS)
    for kind, rows_B in zip(kinds, rows, strict=True):
        counts_RB = counts_RD[:, rows_B]
        drawn_R = counts_RA.sum(axis=1) * counts_RB.sum(axis=1)
        means_R += ((counts_RA @ kind.wins_AB) * counts_RB).sum(axis=1) / np.maximum(drawn_R, 1) / len(kinds)
    low, high = np.quantile(means_R, (0.025, 0.975))
    value = float(np.mean([kind.wins_AB.mean() for kind in kinds]))
    return Estimate(value, float(low), float(high))


def wins_of(measured: Measured, candidate: Candidate, kinds: tuple[str, ...], half: int | None) -> list[Wins]:
    """Who wins, kind by kind."""
    intact_A, documents_A = candidate.score(measured, INTACT, half), measured.documents_of(INTACT, half)
    return [
        Wins(
            wins_AB=wins(intact_A, candidate.score(measured, kind, half)),
            intact_A=documents_A,
            rows_B=measured.documents_of(kind, half),
        )
        for kind in kinds
    ]


def judge(measured: Measured, candidate: Candidate, kinds: tuple[str, ...], *, half: int | None, seed: int) -> Estimate:
    """AUC, averaged over `kinds`, with its interval.

    Where every pair is won, which leaves a bootstrap no room, the bound is that of the rule of three.
    """
    won = wins_of(measured, candidate, kinds, half)
    found = estimate(won, seed=seed)
    room = min(1.0, 3 / min(min(kind.wins_AB.shape) for kind in won))
    if found.low > 1.0 - 1e-9:
        return Estimate(1.0, 1.0 - room, 1.0)
    return Estimate(0.0, 0.0, room) if found.high < 1e-9 else found


def gain(
    measured: Measured, candidate: Candidate, over: Candidate, kinds: tuple[str, ...], *, half: int | None, seed: int
) -> Estimate:
    """How much higher the AUC of `candidate` is than that of `over` on the same documents, with the paired interval."""
    ours, theirs = wins_of(measured, candidate, kinds, half), wins_of(measured, over, kinds, half)
    return estimate([a - b for a, b in zip(ours, theirs, strict=True)], seed=seed)


def everything(measured: Measured, how: str) -> Candidate:
    """The mean or the median over all layers, which calibration has to beat."""
    P = len(measured.layers)
    return Candidate(columns=tuple(range(P)), how=how, weights=None, cost=cost_of(measured, P - 1, heads=False))


def cost_of(measured: Measured, column: int, *, heads: bool) -> float:
    """Share of the model's layers that run when nothing behind that column's layer is needed."""
    return (measured.part(column, heads=heads)[0] + 1) / measured.num_layers


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A candidate and how well it does on the first half: AUC over the pasted kinds, and effect size."""

    candidate: Candidate
    auc: float
    effect: float


def try_all(measured: Measured) -> list[Tried]:
    """Every candidate with its AUC and effect size on the first half."""
    tried = []
    for candidate in _candidates(measured):
        intact_A = candidate.score(measured, INTACT, CHOSEN_ON)
        pasted = [candidate.score(measured, kind, CHOSEN_ON) for kind in measured.pasted]
        mean = float(np.mean([auc(intact_A, pasted_B) for pasted_B in pasted]))
        effect = float(np.mean([_effect_size(intact_A, pasted_B) for pasted_B in pasted]))
        tried.append(Tried(candidate=candidate, auc=mean, effect=effect))
    return tried


def choose(measured: Measured, tried: list[Tried], *, most_cost: float, seed: int) -> Candidate:
    """The candidate that separates best on the first half, among those within `most_cost`.

    Candidates within one standard error of the best AUC are told apart by their effect size.

    Raises LadmError when nothing is cheap enough.
    """
    allowed = [each for each in tried if each.candidate.cost <= most_cost + 1e-9]
    if not allowed:
        raise LadmError(f"no layer ends within {most_cost:g} of a forward pass; allow more with --max-cost")
    best = max(allowed, key=lambda each: each.auc)
    found = judge(measured, best.candidate, measured.pasted, half=CHOSEN_ON, seed=seed)
    error = (found.high - found.low) / (2 * 1.96)
    near = [each for each in allowed if each.auc >= best.auc - error]
    return max(near, key=lambda each: each.effect).candidate


def _effect_size(intact_A: Floats, pasted_B: Floats) -> float:
    """(Mean logarithm of one - of the other) / pooled standard deviation."""
    a, b = (np.log(np.maximum(scores, 1e-300)) for scores in (intact_A, pasted_B))
    spread = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    return float((a.mean() - b.mean()) / max(spread, 1e-12))


def _candidates(measured: Measured) -> Iterator[Candidate]:
    """Windows of layers, or the best heads of an own AUC, in every form and reduced in every way."""
    heads = measured.num_heads is not None
    for form in measured.cds:
        for columns in _best_heads(measured, form) if heads else _windows(measured):
            cost = cost_of(measured, max(columns), heads=heads)
            weights = _scales(measured, columns, form, heads=heads)
            ways = [("mean", None), ("mean", weights), ("median", None), ("geometric", None)]
            for how, w in ways if len(columns) > 1 else ways[:1]:
                yield Candidate(form=form, heads=heads, columns=columns, how=how, weights=w, cost=cost)


def _windows(measured: Measured) -> Iterator[tuple[int, ...]]:
    P = len(measured.layers)
    yield from (tuple(range(first, last + 1)) for first in range(P) for last in range(first, P))


def _best_heads(measured: Measured, form: Ablation) -> Iterator[tuple[int, ...]]:
    """For every layer to stop at, the so many heads up to it that separate best by themselves on the first half."""
    P = measured.num_columns(heads=True)
    singles = [Candidate(form=form, heads=True, columns=(k,), how="mean", weights=None, cost=0.0) for k in range(P)]
    means = np.array(
        [np.mean([w.wins_AB.mean() for w in wins_of(measured, c, measured.pasted, CHOSEN_ON)]) for c in singles]
    )
    for stop in range(measured.num_heads or 1, P + 1, measured.num_heads or 1):
        order = np.argsort(-means[:stop], kind="stable")
        yield from (tuple(sorted(int(k) for k in order[:count])) for count in HEADS_TRIED if count <= stop)


def _scales(measured: Measured, columns: tuple[int, ...], form: Ablation, *, heads: bool) -> tuple[float, ...]:
    """Weights that give every column the same median over the intact documents of the first half, 6 digits, sum 1."""
    medians = np.median(measured.of(INTACT, CHOSEN_ON, form, heads=heads)[:, list(columns)], axis=0)
    weights = 1 / np.maximum(medians, 1e-300)
    return tuple(float(f"{w:.6g}") for w in weights / weights.sum())


def reduction_of(measured: Measured, candidate: Candidate) -> Reduction:
    """The candidate as a profile holds it."""
    parts = [measured.part(column, heads=candidate.heads) for column in candidate.columns]
    layers = tuple(sorted({layer for layer, _ in parts}))
    heads = tuple((layer, head or 0) for layer, head in parts) if candidate.heads else None
    return Reduction(how=candidate.how, layers=layers, heads=heads, weights=candidate.weights)
