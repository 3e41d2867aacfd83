"""Names given as documents -> an error where one is a folder that a later command wrote. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ladm.errors import LadmError, UsageError
from ladm.storage.json_object import read_json_object

# Written by stages that come after this one, whose modules must not be imported here.
_RUN, _UNITS, _MANIFEST = "run.json", "units", "manifest.json"
_WITHOUT_TEXT = ("megatron", "npy")
"""Formats of a subset that hold token ids alone; the others can be prepared again, with another tokenizer."""


def require_documents(names: Iterable[str]) -> None:
    """Raise UsageError, with the command that was meant, for a run folder or a subset without texts."""
    for name in names:
        folder = Path(name)
        if (folder / _RUN).is_file() and (folder / _UNITS).is_dir():
            raise UsageError(
                f"{name} is a run of ladm score, not documents; choose its best documents with: ladm select {name} "
                "--tokens N -o subset"
            )
        form = _format_of_subset(folder)
        if form in _WITHOUT_TEXT:
            raise UsageError(
                f"{name} is a subset in the format {form}, which has no texts; write one that has them: ladm select "
                "RUN --tokens N --format parquet -o SUBSET"
            )


def _format_of_subset(folder: Path) -> str | None:
    path = folder / _MANIFEST
    # Many programs write a manifest.json; only next to a file of one of these formats is it worth reading.
    if not path.is_file() or not (any(folder.glob("*.bin")) or any(folder.glob("*.npy"))):
        return None
    try:
        manifest = read_json_object(path)
    except LadmError:
        return None
    return str(manifest["format"]) if {"format", "taken_tokens"} <= manifest.keys() else None
