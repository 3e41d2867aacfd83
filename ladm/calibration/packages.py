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
LEAST_OF_A_HALF = MIN_PACKAGES // 2
"""The same where one package is as large as all others: a half of it alone has nothing to hold out, and no spread."""


@dataclass(frozen=True, kw_only=True)
class Halves:
    """The package and the half (0 or 1) of every document and of every real list."""

    packages: tuple[str, ...]
    of_documents: Numbers
    list_packages: tuple[str, ...] = ()
    of_lists: Numbers
    by_package: bool
    """False: there are too few packages, and each document counts as a cluster of its own."""
    lists_by_package: bool = True
    """False: all lists are of one package, and each counts as a cluster of its own."""

    def clusters(self, groups: list[str]) -> list[str]:
        """What is held out together and drawn together by the bootstrap, for every document and then every list."""
        lists = self.list_packages if self.lists_by_package else [f"list {k}" for k in range(len(self.of_lists))]
        return [*(self.packages if self.by_package else groups), *lists]


def split_by_package(
    packages: list[str], groups: list[str], *, seed: int, list_packages: list[str] | None = None
) -> Halves:
    """Halves with whole packages in each; with whole `groups` (documents) where packages are too few, see above."""
    by_package = len(set(packages)) >= MIN_PACKAGES and _least_packages(packages, seed=seed) >= LEAST_OF_A_HALF
    of_documents = divide(packages if by_package else groups, 2, seed=seed)
    half_of = dict(zip(packages, of_documents.tolist(), strict=True)) if by_package else {}
    # A package that has both documents and lists stays whole; the others are divided by themselves, so that many
    # lists of one kind do not push the documents into one half.
    list_packages = list_packages or []
    others = [package for package in list_packages if package not in half_of]
    # Otherwise the lists of a single package would be in one half, and nothing would be judged on them.
    lists_by_package = not (len(set(others)) == 1 < len(others) == len(list_packages))
    if lists_by_package:
        half_of |= dict(zip(others, divide(others, 2, seed=seed).tolist(), strict=True))
        of_lists = np.array([half_of[package] for package in list_packages], dtype=np.int64)
    else:
        of_lists = divide([str(k) for k in range(len(others))], 2, seed=seed)
    return Halves(
        packages=tuple(packages),
        of_documents=of_documents,
        list_packages=tuple(list_packages),
        of_lists=of_lists,
        by_package=by_package,
        lists_by_package=lists_by_package,
    )


def _least_packages(packages: list[str], *, seed: int) -> int:
    """How many packages the half with fewer of them has."""
    return min(len(set(np.array(packages)[divide(packages, 2, seed=seed) == half])) for half in (0, 1))


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
