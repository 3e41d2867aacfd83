"""Finished parts of score.sh -> scores of the judging rows by name, with kinds and packages.

Shape suffixes: B rows, L layers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
from rows import judging_rows

from ladm.calibration.candidates import Candidate, choose, evaluate_candidates, robust_score
from ladm.calibration.contrast import INTACT, ContrastRow
from ladm.calibration.contrast_scores import (
    CHOSEN_ON,
    FORMS,
    JUDGED_ON,
    RELEASED,
    ROBUST,
    ContrastScores,
    Form,
    read_contrast_scores,
)  # fmt: skip
from ladm.corpus.preparation.tokenization import plain_tokenizer
from ladm.method.reduction import Floats, reduce_cds
from ladm.runs.columns.by_name import longattn
from ladm.runs.columns.derived import LONGATTN_PARTS
from ladm.runs.columns.sink_layers import first_after_sinks
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, read_scores
from ladm.settings.profiles import Profile
from ladm.signals.text_statistics import COLUMNS, UnigramTable, text_statistics

WITHOUT_SIGMA = FORMS[1]
NEAR_SHARE = "near_share"
"""The column `near_share` of a run: lower in lists, shuffled and repeated text than in documents, higher in pastes."""
SIGNALS = {
    "gain": "gain", "positive gain": "gain_positive", "longfilter": "longfilter", "key tokens": "key_tokens",
    "gain without copies": "gain_no_copy", "LongAttn": "longattn", "ProLong": "prolong",
    "ProLong per pair": "prolong_per_pair",
}  # fmt: skip
"""Scores that are a column of a run, where the run has it."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The judging rows of one length, in the order that the index of every run counts in."""

    rows: list[ContrastRow]
    statistics: dict[str, Floats]
    """Text statistics of every row, of its ids decoded."""

    @classmethod
    def make(cls, packed: Path, model: str, *, length: int, documents: int | None) -> Rows:
        rows = judging_rows(packed, model, length=length, documents=documents)
        tokenizer = plain_tokenizer(model)
        # The table of one half counts the intact documents of the other: no package is in both.
        tables = {
            half: UnigramTable.count(
                (row.ids for row in rows if row.kind == INTACT and row.half != half), vocab_size=len(tokenizer) + 1
            )
            for half in (CHOSEN_ON, JUDGED_ON)
        }
        found = [
            text_statistics(row.ids, tokenizer.decode(row.ids.tolist()), unigrams=tables[row.half]) for row in rows
        ]
        return cls(rows=rows, statistics={name: np.array([getattr(each, name) for each in found]) for name in COLUMNS})


@dataclass(frozen=True, kw_only=True)
class Part:
    """A finished run of some of the rows."""

    name: str
    rows: Rows
    scores: ContrastScores
    places_B: np.ndarray
    """The place of each scored row among all rows of its length."""
    signals: dict[str, Floats] = field(default_factory=dict)
    """Scores of other signals by name: (B,) each."""

    @classmethod
    def read(cls, folder: Path, rows: Rows) -> Part:
        run = Run.read(folder)
        places = read_scores(folder, ["index"])["index"].to_numpy()
        scores = read_contrast_scores(
            run,
            rows.rows,
            [row.packages[0] for row in rows.rows],
            num_layers=max(run.identity.layers) + 1,
            heads=True,
            expected={(rows.rows[place].kind, rows.rows[place].half) for place in places.tolist()},
        )
        return cls(name=folder.name, rows=rows, scores=scores, places_B=places, signals=read_signals(folder))

    def with_prolong(self, folder: Path) -> Part:
        """The rows of this part that ProLong has scored in the run of `folder`, with its scores."""
        row_of = {place: k for k, place in enumerate(read_scores(folder, ["index"])["index"].to_pylist())}
        kept = np.array([k for k, place in enumerate(self.places_B.tolist()) if place in row_of])
        order = np.array([row_of[place] for place in self.places_B[kept].tolist()])
        part = self.of_rows(kept, name=folder.name)
        found = {name: values[order] for name, values in read_signals(folder).items()}
        return replace(part, signals=part.signals | found)

    def of_rows(self, kept: np.ndarray, *, name: str) -> Part:
        """The same scores of some of the rows."""
        of = self.scores
        scores = replace(
            of,
            rows=[of.rows[k] for k in kept],
            kinds=of.kinds[kept],
            halves=of.halves[kept],
            clusters=of.clusters[kept],
            cds={form: values[kept] for form, values in of.cds.items()},
            by_head={form: values[kept] for form, values in of.by_head.items()},
            copy_share=None if of.copy_share is None else of.copy_share[kept],
            sink_mass=None if of.sink_mass is None else of.sink_mass[kept],
            near_share=None if of.near_share is None else of.near_share[kept],
        )
        signals = {each: values[kept] for each, values in self.signals.items()}
        return Part(name=name, rows=self.rows, scores=scores, places_B=self.places_B[kept], signals=signals)

    def statistic(self, name: str) -> Floats:
        """A text statistic of the scored rows: (B,)."""
        return self.rows.statistics[name][self.places_B]

    @cached_property
    def after_sinks(self) -> list[int]:
        """Columns of the layers after the last one whose median sink mass is high; all where there is none."""
        assert self.scores.sink_mass is not None
        median_L = np.median(self.scores.sink_mass[self.scores.kinds == INTACT], axis=0)
        return list(range(first_after_sinks(median_L), len(median_L)))

    @property
    def copy_share(self) -> Floats:
        """The mean over the layers after the last sink layer: (B,)."""
        assert self.scores.copy_share is not None
        return self.scores.copy_share[:, self.after_sinks].mean(axis=1)

    def values(self, *, signed: Candidate | None = None, profiles: list[Profile] | None = None) -> dict[str, Floats]:
        """Every score by name: (B,) each; a form that the run lacks is left out.

        A profile of signed heads is the score `signed heads`; `signed` is for where there is none.
        """
        cds, late = self.scores.cds, self.after_sinks
        found = {
            "released": reduce_cds(cds[RELEASED], "mean"),
            "median": reduce_cds(cds[RELEASED], "median"),
            "no sigma": reduce_cds(cds[WITHOUT_SIGMA], "mean"),
            "no sigma, after sinks": reduce_cds(cds[WITHOUT_SIGMA][:, late], "mean"),
            "robust": robust_score(self.scores).values(self.scores),
            "robust, all layers": reduce_cds(cds[ROBUST], "mean"),
            "robust, after sinks": reduce_cds(cds[ROBUST][:, late], "mean"),
        }
        for profile in profiles or []:
            form = Form(focus=profile.reduction.focus, ablation=profile.method.ablation)
            stored = cds if profile.reduction.heads is None else self.scores.by_head
            if form not in stored:
                continue
            columns = profile.reduction.columns(self.scores.layers, num_heads=self.scores.num_heads)
            name = "signed heads" if profile.reduction.how == "signed" else "profile"
            found[name] = reduce_cds(stored[form][:, columns], profile.reduction.how, profile.reduction.weights)
        if signed is not None and signed.form in self.scores.by_head:
            found["signed heads"] = signed.values(self.scores)
        if self.scores.near_share is not None:
            found[NEAR_SHARE] = reduce_cds(self.scores.near_share[:, len(self.scores.layers) // 2 :], "mean")
        found |= self.signals
        found["F"], found["gzip"] = self.statistic("far_rare"), self.statistic("gzip_ratio")
        found["random"] = np.random.default_rng(0).random(len(self.places_B))
        return found


def read_signals(folder: Path) -> dict[str, Floats]:
    """The scores of `SIGNALS` that a finished run has; of a run, score.sh keeps its scores alone."""
    known = columns_of(folder)
    names = [name for name in (*SIGNALS.values(), *LONGATTN_PARTS) if name in known]
    table = {name: column.to_numpy() for name, column in zip(names, read_scores(folder, names).columns, strict=True)}
    if set(LONGATTN_PARTS) <= set(table):
        table["longattn"] = longattn(*(table[name] for name in LONGATTN_PARTS))
    return {name: table[column] for name, column in SIGNALS.items() if column in table}


def fit_signed(part: Part) -> Candidate:
    """Signed heads fitted to half 0."""
    return choose(part.scores, evaluate_candidates(part.scores, search="signed"), most_cost=1.0, seed=0)
