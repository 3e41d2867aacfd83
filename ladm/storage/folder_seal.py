"""A folder of own files <-> its seal: a file with the digest of every other one. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from ladm.errors import LadmError, StorageError
from ladm.storage.digests import file_xxh3
from ladm.storage.files import io_errors, write_whole
from ladm.storage.json_object import json_with_checksum, read_json_object


def seal_folder(folder: Path, *, seal: str) -> None:
    """Write the XXH3-128 of every file below a folder, by its path there, into the folder's file `seal`."""
    with io_errors(folder, "read"):
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / seal]
        digests = {str(path.relative_to(folder)): file_xxh3(path) for path in paths}
    write_whole(folder / seal, [json_with_checksum(digests)])


def require_undamaged(folder: Path, *, seal: str, remedy: str) -> None:
    """Raise StorageError, which ends with the remedy, for a sealed folder with a file that is not as it was written."""
    try:
        written = read_json_object(folder / seal)
    except LadmError:
        # The general remedy, to make the file again, would seal whatever is there.
        raise StorageError(f"{folder / seal} is damaged or cannot be read; {remedy}") from None
    for name, digest in written.items():
        path = folder / name
        if not path.is_file() or file_xxh3(path) != digest:
            raise StorageError(f"{path} is damaged or missing: it does not match its digest in {seal}; {remedy}")
