"""Names that a user gives (files, folders, globs, addresses, Hub ids) -> the files behind them, in a fixed order.

Imports no torch.
"""

from __future__ import annotations

import glob
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import fsspec

from ladm.errors import LadmError, one_line
from ladm.modeling.model_files import HUB_ID

_JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
_PACKED_SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
_SAVED_MARKS = ("dataset_dict.json", "state.json")
"""Files that make a folder a data set saved by `save_to_disk`."""
_ABOUT_DATA = frozenset(("dataset_dict.json", "state.json", "dataset_info.json", "dataset_infos.json", "prepare.json"))
_CARDS = frozenset(
    "readme license licence licenses copying copyright notice authors citation contributing changelog changes "
    "code_of_conduct security checksums sha256sums md5sums".split()
)


@dataclass(frozen=True)
class Source:
    """One file, or one data set. `key` changes when its content does, as far as that is quick to see."""

    name: str
    kind: Literal["json", "parquet", "text", "dataset"]
    key: str

    @property
    def place(self) -> str:
        """The name without its spelling: `x.jsonl`, `./x.jsonl` and the absolute path are one file."""
        return os.path.abspath(self.name) if os.path.exists(self.name) else self.name

    @property
    def is_packed(self) -> bool:
        """Is the file compressed?"""
        return self.name.lower().endswith(_PACKED_SUFFIXES)


def find_sources(names: list[str], *, output: Path | None = None) -> list[Source]:
    """The files behind file names, folders, globs and Hub ids, in a fixed order; nothing inside `output`.

    Of a folder, hidden files, saved data sets below it, and the cards and licences beside data are left out.
    Raises LadmError for a name that is none of these, or a folder without a file of a known kind.
    """
    own = None if output is None else output.absolute()
    return [source for name in names for source in _find(name, own)]


def _find(name: str, own: Path | None) -> list[Source]:
    path = Path(name)
    if path.is_dir():
        if any((path / mark).exists() for mark in _SAVED_MARKS) and path.absolute() != own:
            return [Source(name, "dataset", "")]
        files = _documents_below(path, own)
        if not files:
            raise LadmError(f"{name} holds no .jsonl, .parquet or .txt file and is no data set saved by save_to_disk")
        return [_file(str(file)) for file in files]
    if not path.exists() and _is_pattern(name):
        found = [each for each in _matching(name) if not _is_own(each, own)]
        if not found:
            raise LadmError(f"no such source: {name} matches no file")
        return [source for each in found for source in ([_file(each)] if "://" in each else _find(each, own))]
    if path.is_file() or "://" in name:
        return [_file(name)]
    if not path.exists() and HUB_ID.fullmatch(name) and not _kind(name):
        return [Source(name, "dataset", "")]
    raise LadmError(f"no such source: {name} is neither a file, a folder nor a Hub id such as org/name")


def _is_own(name: str, own: Path | None) -> bool:
    return own is not None and "://" not in name and Path(name).absolute() == own


def _documents_below(folder: Path, own: Path | None) -> list[Path]:
    """The files of a folder that are documents, in the order of their names."""
    found = []
    for parent, folders, names in os.walk(folder):
        below = Path(parent)
        # Pruned here, so that os.walk never enters them: a notebook's copies, a cache, our own output.
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and (below / name).absolute() != own
            and not any((below / name / mark).exists() for mark in _SAVED_MARKS)
        ]
        found += [below / name for name in names if not name.startswith(".") and _kind(name)]
    found = sorted(path for path in found if path.name not in _ABOUT_DATA and path.is_file())
    # A folder may be nothing but a file called README.md, and then that is the document.
    return [path for path in found if not _is_card(path)] or found


def _is_card(path: Path) -> bool:
    return _kind(path.name) == "text" and path.name.split(".")[0].split("-")[0].lower() in _CARDS


def _is_pattern(name: str) -> bool:
    # In an address `?` and `[` have meanings of their own.
    return any(sign in name for sign in ("*" if "://" in name else "*?["))


def _matching(pattern: str) -> list[str]:
    """What a glob matches, in the order of the names."""
    if "://" not in pattern:
        return sorted(glob.glob(pattern, recursive=True))
    try:
        system, path = fsspec.url_to_fs(pattern)
        return [str(system.unstrip_protocol(found)) for found in sorted(system.glob(path))]
    except (OSError, ValueError, ImportError) as error:
        raise LadmError(f"no such source: {pattern}: {one_line(error)}") from None


def _file(name: str) -> Source:
    kind = _kind(name)
    if kind is None:
        raise LadmError(f"{name}: unknown kind of file; its name must end in .jsonl, .parquet or .txt (.gz, .zst)")
    try:
        system, path = fsspec.url_to_fs(name)
        info = system.info(path)
        local = "mtime" in info and "ino" in info
        return Source(name, kind, f"{info['size']} {info['mtime']}" if local else str(system.ukey(path)))
    except (OSError, ValueError, ImportError) as error:
        raise LadmError(f"no such source: {name}: {one_line(error)}") from None


def _kind(name: str) -> Literal["json", "parquet", "text"] | None:
    bare = name.lower()
    for suffix in _PACKED_SUFFIXES:
        bare = bare.removesuffix(suffix)
    if bare.endswith(_JSON_SUFFIXES):
        return "json"
    if bare.endswith(".parquet"):
        return "parquet"
    return "text" if bare.endswith((".txt", ".md")) else None
