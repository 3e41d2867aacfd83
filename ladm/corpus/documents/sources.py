"""Names that a user gives (files, folders, globs, addresses, Hub ids) -> the files behind them, in a fixed order.

Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from fsspec.implementations.local import LocalFileSystem

from ladm.corpus.documents.in_memory import DocumentsInMemory
from ladm.corpus.files.data_set import is_saved
from ladm.corpus.files.folders import (
    NoSourceError,
    documents_below,
    kept_documents,
    no_documents,
    no_such_source,
    remote_documents_below,
    require_target,
)
from ladm.corpus.files.hub import may_be_data_set, parquet_files_of
from ladm.corpus.files.names import (
    is_document,
    is_named_text,
    kind_of,
    may_be_text,
    name_as_text,
)
from ladm.corpus.files.opening import file_system
from ladm.corpus.files.patterns import is_pattern, matching_names
from ladm.corpus.files.saved_shards import key_of_shards
from ladm.corpus.files.skipped import SkippedFiles, files_of_other_kinds, without_files_beside_data
from ladm.corpus.files.standard_input import STANDARD_INPUT, StandardInput, open_standard_input
from ladm.errors import LadmError, UsageError
from ladm.progress import Echo, silent


@dataclass(frozen=True)
class Source:
    """One file, or one data set. `key` changes with its content, as far as that shows without reading it."""

    name: str
    kind: Literal["json", "parquet", "text", "dataset", "memory"]
    key: str
    config: str | None = None
    split: str | None = None
    """Which part of a data set, where one was named."""
    lines: StandardInput | None = field(default=None, compare=False)
    """Standard input; None for everything that has a place."""
    documents: DocumentsInMemory | None = field(default=None, compare=False)
    """Documents that the calling program holds; None for everything that has a place."""

    def record(self) -> dict[str, str]:
        """What identifies the source, whatever the spelling of its name."""
        parts = {"config": self.config, "split": self.split}
        named = {key: value for key, value in parts.items() if value is not None}
        return {"name": name_as_text(self.place), "kind": self.kind, "key": self.key} | named

    @property
    def place(self) -> str:
        """The name without its spelling: `x.jsonl`, `./x.jsonl` and the absolute path are one file."""
        return os.path.abspath(self.name) if self.has_place and os.path.exists(self.name) else self.name

    @property
    def has_place(self) -> bool:
        """Is it a file, a folder or an address, rather than what is piped in or held by a program?"""
        return self.lines is None and self.documents is None

    @property
    def identity(self) -> tuple[str, str | None, str | None]:
        """Equal for two sources that are the same file, or the same part of a data set."""
        name = self.name.removeprefix("file://")
        return os.path.realpath(name) if _is_local(name) else name, self.config, self.split

    @property
    def is_remote(self) -> bool:
        """Does every byte that is read come over a network?"""
        return "://" in self.name and not self.name.startswith(("file://", "memory://"))


def find_sources(
    names: list[str],
    *,
    output: Path | None = None,
    config: str | None = None,
    split: str | None = None,
    in_memory: Mapping[str, Source] | None = None,
    echo: Echo = silent,
) -> list[Source]:
    """The files behind file names, folders, globs and Hub ids, in a fixed order; nothing inside `output`.

    `-` is standard input. Below a folder, and among what a glob matches, hidden files, saved data sets, and the cards
    and licences beside data are left out. So are files of other kinds, with a line to `echo` for each source, and files
    given by name that are no data but stand beside data, with one line. A file of another kind that is named, or
    matched by a glob that ends in its suffix, is read as one text. A file that is given twice is read once.
    `config` and `split` are for data sets. `in_memory`: documents that a program holds, by the name that stands for
    them. Raises LadmError for a name that is none of these, or a folder without a file of a known kind.
    """
    own = None if output is None else output.absolute()
    if names.count(STANDARD_INPUT) > 1:
        raise UsageError(f"{STANDARD_INPUT} is given twice, but standard input can be read only once")
    found = []
    skipped_files: dict[str, SkippedFiles] = {}
    for name in without_files_beside_data(names, echo=echo):
        if in_memory is not None and name in in_memory:
            found.append(in_memory[name])
            continue
        skipped_files[name] = SkippedFiles()
        sources = _hub(name, config, split) if _is_hub_id(name) else _find(name, own, skipped_files[name])
        found += [_part(s, split) if s.kind == "dataset" else s for s in sources]
    # By the file itself: a folder, a glob and a link may all lead to it.
    first: dict[object, Source] = {}
    for source in found:
        first.setdefault(source.identity, source)
    # A file with a misspelt name, such as a.jsnol, would otherwise become one document without a word.
    texts = [source.name for source in first.values() if source.kind == "text" and kind_of(source.name) is None]
    data_sets = (source.name for source in found if source.kind == "dataset")
    read = set(map(os.path.realpath, [*texts, *data_sets]))
    for name, what in skipped_files.items():
        what.forget_read(read)
        what.report(name, echo)
    if texts:
        echo(f"{files_of_other_kinds(texts)}: each is read as one text")
    is_of_hub = any(map(_is_hub_id, names))
    if config and not is_of_hub and any(source.kind == "dataset" for source in found):
        raise UsageError("--hub-config is for data sets on the Hub, and no SOURCE is one")
    has_data_set = is_of_hub or any(source.kind == "dataset" for source in found)
    if (config or split) and not has_data_set:
        raise UsageError("--hub-config and --split are for data sets, and no SOURCE is one")
    return list(first.values())


def _part(source: Source, split: str | None) -> Source:
    """One split of a data set; None: its only one, or `train`."""
    key = key_of_shards(source.name, split=split) if _is_local(source.name) else source.key
    return replace(source, split=split, key=key)


def _is_hub_id(name: str) -> bool:
    return name != STANDARD_INPUT and not (os.path.exists(name) or kind_of(name)) and may_be_data_set(name)


def _hub(name: str, config: str | None, split: str | None) -> list[Source]:
    """A data set on the Hub: its Parquet files where it has such, so that only what is wanted of them is fetched."""
    files = parquet_files_of(name, config=config, split=split)
    return [_file(file) for file in files] or [Source(name, "dataset", "", config, split)]


def _find(name: str, own: Path | None, skipped_files: SkippedFiles) -> list[Source]:
    if name == STANDARD_INPUT:
        lines = open_standard_input()
        return [Source(name, "json", lines.digest(), lines=lines)]
    path = Path(name)
    if path.is_dir():
        if is_saved(path) and path.absolute() != own:
            return [Source(name, "dataset", "")]
        files = documents_below(path, own, skipped_files)
        if not files:
            raise no_documents(name, skipped_files, nor=" and is not a data set saved by save_to_disk")
        return [_file(str(file)) for file in files]
    if not path.exists() and is_pattern(name):
        return _matching_sources(name, own, skipped_files)
    if "://" in name and kind_of(name) is None:
        addresses = remote_documents_below(name, skipped_files)
        if addresses is not None:
            if not addresses:
                raise no_documents(name, skipped_files)
            return [_file(address) for address in addresses]
    if path.is_file() or "://" in name:
        return [_file(name)]
    _refuse_pipe(name)
    raise NoSourceError(f"no such source: {name} is neither a file, a folder nor a Hub id such as org/name")


def _matching_sources(pattern: str, own: Path | None, skipped_files: SkippedFiles) -> list[Source]:
    """The sources among what a glob matches, by the rules of a folder; raises LadmError where there is none.

    A folder that is matched stands for the documents below it, or for the data set that it is.
    """
    matched = matching_names(pattern)
    sources: list[Source] = []
    files: list[str] = []
    for name in matched:
        if _is_below(name, own) or any(_is_below(name, Path(source.name)) for source in sources):
            continue
        if _is_local(name) and Path(name).is_dir():
            if is_saved(Path(name)):
                sources.append(Source(name, "dataset", ""))
            else:
                files += map(str, documents_below(Path(name), own, skipped_files))
        elif is_document(PurePosixPath(name).name) or is_named_text(name, pattern):
            files.append(name)
        elif "://" in name and not PurePosixPath(name).suffix:
            files += remote_documents_below(name, skipped_files) or []
        else:
            if "://" not in name:
                require_target(name)
            skipped_files.add_file(name)
    # With `**` a folder and the files in it are matched: what is found twice is read once.
    sources += map(_file, kept_documents(files, skipped_files))
    if not sources:
        what = "no .jsonl, .parquet or .txt file" if matched else "no file"
        raise NoSourceError(f"no such source: {pattern} matches {what}{skipped_files.how_to_read(pattern)}")
    return sorted(sources, key=lambda source: source.name)


def _is_below(name: str, folder: Path | None) -> bool:
    """Is it the folder, or inside it?"""
    return folder is not None and _is_local(name) and Path(name).absolute().is_relative_to(folder.absolute())


def _is_local(name: str) -> bool:
    return "://" not in name and os.path.exists(name)


def _refuse_pipe(name: str) -> None:
    """Raise LadmError for a pipe, a socket or a device of this machine: reading one may wait forever, and only once."""
    if _is_local(name) and not os.path.isfile(name) and not os.path.isdir(name):
        raise LadmError(
            f"{name} is a pipe or a device, which can be read only once; write its documents to a file, or pass them "
            "to ladm prepare - through standard input"
        )


def _file(name: str) -> Source:
    kind = kind_of(name) or ("text" if may_be_text(name) else None)
    if kind is None:
        raise LadmError(f"{name}: unknown kind of file; its name must end in .jsonl, .parquet or .txt (.gz, .zst)")
    _refuse_pipe(name)
    try:
        system, path = file_system(name)
        if isinstance(system, LocalFileSystem):
            # Of a link that of the file behind it, which is what changes; some versions of fsspec give the link's date.
            stat = os.stat(path)
            return Source(name, kind, f"{stat.st_size} {stat.st_mtime}")
        return Source(name, kind, str(system.ukey(path)))
    except Exception as error:
        raise no_such_source(name, error) from None
