"""A glob, here or in a store -> the names that it matches, in their order. Imports no torch."""

from __future__ import annotations

import fnmatch
import glob

import fsspec

from ladm.corpus.files.folders import no_such_source, require_listable


def is_pattern(name: str) -> bool:
    """Is it a glob?"""
    # In an address `?` and `[` have meanings of their own.
    return any(sign in name for sign in ("*" if "://" in name else "*?["))


def matching_names(pattern: str) -> list[str]:
    """What a glob matches, in the order of the names, without what hidden folders hold.

    Hidden folders that the pattern itself names, as `.cache` or as `.*`, are not left out. Raises NoSourceError for an
    address that cannot be reached, and StorageError for a folder that cannot be listed.
    """
    hidden = [part for part in pattern.split("/") if part[:1] == "."]
    return [name for name in _all_matching(pattern) if all(_is_shown(part, hidden) for part in name.split("/"))]


def _all_matching(pattern: str) -> list[str]:
    if "://" not in pattern:
        require_listable(pattern)
        return sorted(glob.glob(pattern, recursive=True))
    try:
        system, path = fsspec.url_to_fs(pattern)
        return [str(system.unstrip_protocol(found)) for found in sorted(system.glob(path))]
    except Exception as error:
        raise no_such_source(pattern, error) from None


def _is_shown(part: str, patterns: list[str]) -> bool:
    return part[:1] != "." or any(fnmatch.fnmatchcase(part, pattern) for pattern in patterns)
