"""Documents and lists -> the rows of a contrast set, what limits it, and which rows belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ladm.calibration.contrast import KINDS, ContrastRow, absent_kinds, contrast_set
from ladm.calibration.contrast_scores import WITH_SIGMA, WITHOUT_SIGMA
from ladm.calibration.packages import MIN_PACKAGES, Halves, split_by_package
from ladm.calibration.sample import DocumentSample, ListSample
from ladm.errors import UsageError
from ladm.modeling.facts import ModelFacts
from ladm.settings.score import ScoreSettings

FEW_DOCUMENTS = 100
"""With fewer documents the intervals are so wide that a warning is printed."""


@dataclass(frozen=True, kw_only=True)
class PreparedContrast:
    """What a calibration or a check works with, made before anything is scored."""

    sample: DocumentSample
    halves: Halves
    contrast: list[ContrastRow]
    scoring: ScoreSettings
    facts: ModelFacts

    @property
    def clusters(self) -> list[str]:
        """What is held out together and drawn together, for every row of the set."""
        # Lists are numbered after the documents.
        clusters = self.halves.clusters(self.sample.groups)
        return [clusters[row.document] for row in self.contrast]


def make_contrast(
    sample: DocumentSample, lists: ListSample, *, span_tokens: int, seed: int, kinds: tuple[str, ...] = KINDS
) -> tuple[Halves, list[ContrastRow]]:
    """The halves, and the rows of the contrast set."""
    halves = split_by_package(sample.packages, sample.groups, seed=seed, list_packages=lists.packages)
    rows = contrast_set(sample.ids, halves, span_tokens=span_tokens, seed=seed, kinds=kinds, lists=lists.ids)
    return halves, rows


def contrast_notes(
    sample: DocumentSample,
    halves: Halves,
    contrast: list[ContrastRow],
    kinds: tuple[str, ...] = KINDS,
    *,
    by_halves: bool = True,
) -> Iterator[str]:
    """What limits the contrast set, a line for each: few documents, few packages, kinds that it lacks.

    `by_halves`: does one half choose and the other judge? Then a kind is of use only where both have it.
    """
    if len(sample.ids) < FEW_DOCUMENTS:
        yield f"warning   only {len(sample.ids)} documents: the intervals will be wide; use at least {FEW_DOCUMENTS}"
    packages = Counter(sample.packages)
    if not halves.by_package:
        why = f"too few packages ({len(packages)}) to hold out whole ones"
        if len(packages) >= MIN_PACKAGES:
            why = (
                f"{max(packages.values())} of {len(sample.ids)} documents are from one package, too many to hold it out"
            )
        yield f"warning   {why}, so single documents are held out; see --package-key"
    if not halves.lists_by_package:
        yield "warning   all lists are from one package, so lists are held out one by one; see --package-key"
    for line in absent_kinds(contrast, kinds, by_halves=by_halves):
        yield f"absent    {line}"


def require_spans(settings: ScoreSettings, length_tokens: int) -> None:
    """Raise UsageError when documents of this length leave no span to score, or not the same ones in both forms."""
    forms = (WITH_SIGMA, WITHOUT_SIGMA) if settings.record == "forms" else (settings.ablation,)
    grids = [replace(settings.method, ablation=form).grid(length_tokens) for form in forms]
    if not grids[0].J:
        raise UsageError(
            f"documents of {length_tokens:,} tokens have no span to score with spans of {settings.span_tokens} tokens; "
            "give a smaller --span-tokens or longer documents"
        )
    # Sigma needs two earlier spans, so without it one more span may qualify. The AUC of the two forms would then
    # differ for another reason than sigma.
    if grids[-1].J != grids[0].J:
        raise UsageError(
            "with these settings the forms with and without sigma score different spans; give a greater --n0"
        )
