"""What `ladm.run`, `ladm.check` and `ladm.calibrate` return: what they wrote, and what they found. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ladm.api.scored_run import ScoredRun
from ladm.api.subset import Subset

if TYPE_CHECKING:
    from ladm.calibration.check_result import CheckResult, Fitness
    from ladm.calibration.estimates import Estimate
    from ladm.calibration.result import CalibrationResult


@dataclass(frozen=True, kw_only=True)
class FinishedJob:
    """What `ladm.run` wrote; it can be given to whatever takes a run or the folder of a job."""

    folder: Path
    rows: Path
    """The rows that were scored: those that it made, or the source."""
    run: ScoredRun
    subset: Subset
    page: Path

    def __fspath__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True, kw_only=True)
class ModelCheck:
    """What `ladm.check` found out about a model."""

    folder: Path
    """It has `check.json`, the picture and the runs."""
    picture: Path
    run: ScoredRun
    """The intact documents and the bad rows made of them, whose kind is `kind` in their `meta`."""
    result: CheckResult
    """Every number: AUC by kind of bad row and score, sinks by layer, rank correlations between two spans."""

    def __repr__(self) -> str:
        verdict = f"fitness={self.fitness!r}, recommended={self.recommended!r}"
        return f"{type(self).__name__}(folder={str(self.folder)!r}, {verdict})"

    @property
    def fitness(self) -> Fitness:
        """Is the model fit to be a calculator? `fit`, `weak`, `unfit`; or `undecided`, with too few documents."""
        return self.result.fitness

    @property
    def recommended(self) -> str:
        """The score to use with the model: `released`, `median` or `robust`."""
        return self.result.recommended

    @property
    def verdict(self) -> list[str]:
        """The judgement in words, a line for each aspect, as the command prints it."""
        return list(self.result.verdict())

    @property
    def auc(self) -> dict[str, dict[str, Estimate]]:
        """The AUC by kind of bad row, and for the `worst kind`, of each score and of two counts without a model."""
        return self.result.kinds


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What `ladm.calibrate` wrote and found; it can be given as the `profile` of a score."""

    profile: Path
    run: ScoredRun
    """The intact documents and the bad rows made of them, whose kind is `kind` in their `meta`."""
    result: CalibrationResult
    """Every number: AUC by layer, by cost and by kind of bad row, and the gains over other scores."""

    def __fspath__(self) -> str:
        return str(self.profile)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(profile={str(self.profile)!r}, recommended={self.recommended!r})"

    @property
    def recommended(self) -> str:
        """The score that the profile contains, in words: the one that was found, or `robust` where that is as good."""
        return self.result.names["profile" if self.result.recommended is self.result.chosen else "robust"]

    @property
    def auc(self) -> dict[str, dict[str, Estimate]]:
        """The AUC by kind of bad row, and for the `worst kind`, of the score that was found (`profile`) and others."""
        return self.result.kinds

    @property
    def not_separated(self) -> dict[str, Estimate]:
        """The kinds of bad rows that the score may rank no lower than intact documents, with their AUC."""
        return self.result.not_separated
