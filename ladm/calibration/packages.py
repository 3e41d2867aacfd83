"""Which package each document is from -> halves and folds that keep a package together. Imports no torch.

Documents of one package (a project, a site, a publisher) share names, habits and templates. A score that is chosen on
some of them looks better on the others than it is, so what judges a choice must come from other packages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]

MIN_PACKAGES = 8
"""With fewer packages, whole packages would make halves too unlike each other, so documents are held out instead."""


@dataclass(frozen=True, kw_only=True)
class Halves:
    """The package and the half (0 or 1) of every document and of every real list."""

    packages: tuple[str, ...]
    of_documents: Numbers
    list_packages: tuple[str, ...] = ()
    of_lists: Numbers
    by_package: bool
    """False: there are too few packages, and each document counts as a cluster of its own."""

    def clusters(self, groups: list[str]) -> list[str]:
        """What is held out together and drawn together by the bootstrap, for every document."""
        return list(self.packages) if self.by_package else groups


def split_by_package(
    packages: list[str], groups: list[str], *, seed: int, list_packages: list[str] | None = None
) -> Halves:
    """Halves with whole packages in each; with whole `groups` (parts of one document) where packages are too few."""
    by_package = len(set(packages)) >= MIN_PACKAGES
    of_documents = divide(packages if by_package else groups, 2, seed=seed)
    half_of = dict(zip(packages, of_documents.tolist(), strict=True)) if by_package else {}
    # A package that has both documents and lists stays whole; the others are divided by themselves, so that many
    # lists of one kind do not push the documents into one half.
    others = [package for package in list_packages or [] if package not in half_of]
    half_of |= dict(zip(others, divide(others, 2, seed=seed).tolist(), strict=True))
    return Halves(
        packages=tuple(packages),
        of_documents=of_documents,
        list_packages=tuple(list_packages or ()),
        of_lists=np.array([half_of[package] for package in list_packages or []], dtype=np.int64),
        by_package=by_package,
    )


def divide(groups: list[str], parts: int, *, seed: int) -> Numbers:
    """The part (0, 1, ..) of each member, in about equal numbers; members of one group stay together."""
    draw = np.random.default_rng(seed)
    counts = Counter(groups)
    names = sorted(counts)
    draw.shuffle(names)
    sizes, part_of = [0] * parts, {}
    # Largest group first, each into the smallest part, which keeps the parts even. The sort is stable, so that groups
    # of equal size stay in the order that was drawn.
    for name in sorted(names, key=lambda name: -counts[name]):
        part = sizes.index(min(sizes))
        part_of[name] = part
        sizes[part] += counts[name]
    return np.array([part_of[group] for group in groups], dtype=np.int64)
