"""Names of files that a folder or a glob leads to and that are not read -> one line with their kinds. No torch."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import PurePath

from ladm.corpus.files.names import (
    is_about_data,
    is_beside_data,
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

    def how_to_read(self, source: str) -> str:
        """What to put behind a message: a glob that reads the commonest kind of texts; empty if none can be texts."""
        if glob.has_magic(source):
            return _how_to_read(self._files, pattern="a pattern that ends in {suffix}")
        return _how_to_read(self._files, pattern=f"'{source.rstrip('/')}/**/*{{suffix}}'")

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


def without_files_beside_data(names: list[str], *, echo: Echo) -> list[str]:
    """The names as given, without files of this machine that are no data; all of them where there is nothing else.

    The shell expands `d/*` to every file in d: its licence and card must not stop the corpus.
    """
    beside = [name for name in names if os.path.isfile(name) and is_beside_data(PurePath(name))]
    if not beside or len(beside) == len(names):
        return names
    if len(beside) == 1:
        echo(f"{beside[0]} is not a data file; it is left out")
    else:
        how = _how_to_read(beside, pattern="a pattern in quotes that ends in {suffix}")
        echo(f"left out {len(beside):,} files that are not data ({_kinds(beside)}){how}")
    left_out = set(beside)
    return [name for name in names if name not in left_out]


def _how_to_read(names: Iterable[str], *, pattern: str) -> str:
    """`; PATTERN reads the .py files as texts`, of the commonest kind that may be texts; empty if there is none."""
    found = Counter(suffix_with_packing(name) for name in names if may_be_text(name) and _shown_suffix(name))
    if not found:
        return ""
    suffix = min(found, key=lambda suffix: (-found[suffix], suffix))
    return f"; {pattern.replace('{suffix}', suffix)} reads the {suffix} files as texts"


def files_of_other_kinds(names: Collection[str]) -> str:
    """`3 files of other kinds (2 .csv, 1 .pdf)`, the commonest suffixes first."""
    return f"{count_of(len(names), 'file')} of other kinds ({_kinds(names)})"


def _kinds(names: Collection[str]) -> str:
    counts = Counter(_shown_suffix(name) or "without a suffix" for name in names)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{count:,} {kind}" for kind, count in ordered[:_KINDS_SHOWN]]
    if more := sum(count for _, count in ordered[_KINDS_SHOWN:]):
        shown.append(f"{more:,} more")
    return ", ".join(shown)


def _example(names: Collection[str]) -> str:
    return f"{'' if len(names) == 1 else 'such as '}{name_as_text(min(names))}"


def _shown_suffix(name: str) -> str:
    """The suffix as a line shows it: in lower case, without `.gz` and the like; empty where there is none."""
    suffix = PurePath(without_packing(name)).suffix or PurePath(name.lower()).suffix
    # `report v1. final` has none: what is behind its dot is a part of a sentence.
    is_one = 1 < len(suffix) <= _LONGEST_SUFFIX and suffix.isprintable() and " " not in suffix
    return suffix if is_one else ""
