"""Names of files that a folder or a glob leads to and that are not read -> one line with their kinds. No torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePath

from ladm.corpus.files.names import (
    is_about_data,
    kind_of,
    may_be_text,
    name_as_text,
    suffix_with_packing,
    without_packing,
)
from ladm.errors import count_of
from ladm.progress import Echo

_KINDS_SHOWN = 5
_LONGEST_SUFFIX = 12


class SkippedFiles:
    """The files of one SOURCE that are not read. Hidden files, cards and licences beside data are not among them."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._cards: set[str] = set()
        self._data_sets: set[str] = set()

    def add_file(self, name: str) -> None:
        """Count a file whose kind is not known, once however often a glob leads to it."""
        base = PurePath(name).name
        if kind_of(base) is None and not base.startswith(".") and not is_about_data(base):
            self._files.add(name)

    def add_cards(self, names: Iterable[str]) -> None:
        """Count texts that are left out because each has the name of a card or licence, such as `Notice.txt`."""
        self._cards.update(names)

    def add_data_set(self, name: str) -> None:
        """Count a saved data set inside a folder of documents."""
        self._data_sets.add(name)

    def forget_read(self, read: Collection[str]) -> None:
        """Do not count the data sets and files that are read because another SOURCE leads to them.

        `read`: their real paths.
        """
        if not read:
            return
        self._data_sets = {name for name in self._data_sets if os.path.realpath(name) not in read}
        self._files = {name for name in self._files if os.path.realpath(name) not in read}

    def report(self, source: str, echo: Echo) -> None:
        """Print what was left out of `source`, if anything."""
        if self.words:
            remedy = "; give it as a SOURCE of its own" if self._data_sets else ""
            echo(f"{source}: left out {self.words}{remedy}")

    @property
    def suffix_of_texts(self) -> str | None:
        """The commonest suffix of the files of other kinds that may be plain texts; None if there are none."""
        texts = [name for name in self._files if may_be_text(name) and _suffix(name)]
        found = Counter(map(suffix_with_packing, texts))
        return min(found, key=lambda suffix: (-found[suffix], suffix), default=None)

    @property
    def words(self) -> str:
        """`3 files of other kinds (2 .csv, 1 .pdf)`; empty where nothing was left out."""
        parts = []
        if self._files:
            parts.append(files_of_other_kinds(self._files))
        if self._cards:
            name = f"{_example(self._cards)}; under another name it is read"
            parts.append(f"{count_of(len(self._cards), 'text')} with the name of a card or licence ({name})")
        if self._data_sets:
            parts.append(f"{count_of(len(self._data_sets), 'saved data set')} ({_example(self._data_sets)})")
        return " and ".join(parts)


def files_of_other_kinds(names: Collection[str]) -> str:
    """`3 files of other kinds (2 .csv, 1 .pdf)`, the commonest suffixes first."""
    counts = Counter(_suffix(name) or "without a suffix" for name in names)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {kind}" for kind, count in ordered[:_KINDS_SHOWN]]
    if more := sum(count for _, count in ordered[_KINDS_SHOWN:]):
        shown.append(f"{more:,} more")
    return f"{count_of(len(names), 'file')} of other kinds ({', '.join(shown)})"


def _example(names: Collection[str]) -> str:
    return f"{'' if len(names) == 1 else 'such as '}{name_as_text(min(names))}"


def _suffix(name: str) -> str:
    """The suffix in lower case, without `.gz` and the like; empty where there is none."""
    suffix = PurePath(without_packing(name)).suffix or PurePath(name.lower()).suffix
    # `report v1. final` has none: what is behind its dot is a part of a sentence.
    is_one = 1 < len(suffix) <= _LONGEST_SUFFIX and suffix.isprintable() and " " not in suffix
    return suffix if is_one else ""
