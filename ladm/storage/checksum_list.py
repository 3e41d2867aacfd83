"""A folder of files <-> its `SHA256SUMS`, which `sha256sum -c` checks too, where there is no ladm. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from ladm.errors import StorageError
from ladm.storage.digests import file_sha256
from ladm.storage.files import io_errors, write_whole

CHECKSUM_FILE = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_checksums(folder: Path, *, without: Collection[str]) -> None:
    """Write the SHA-256 of every file below a folder into its `SHA256SUMS`, but of the files named in `without`."""
    with io_errors(folder, "read"):
        names = (str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
        listed = sorted(name for name in names if name not in {*without, CHECKSUM_FILE})
        # These files are new, and are read once: to remember their digests would fill the cache.
        lines = [f"{file_sha256(folder / name, remember=False)}  {name}\n" for name in listed]
    write_whole(folder / CHECKSUM_FILE, ["".join(lines).encode()])


def read_checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file by its name in the folder. Raises StorageError for a list that is no such list."""
    path = folder / CHECKSUM_FILE
    with io_errors(path, "read"):
        text = path.read_bytes().decode(errors="replace")
    # Only at line feeds: `splitlines` would also split at what a flipped bit makes of one.
    found = [_LINE.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    # A name with `..` would lead out of the folder.
    if any(match is None or ".." in Path(match[2]).parts or match[2][0] == "/" for match in found):
        raise StorageError(f"{path} is damaged: it is no list of SHA-256 checksums")
    return {match[2]: match[1] for match in found if match is not None}


def changed_files(folder: Path, *, remember: bool) -> Iterator[Path]:
    """The files that are missing, or no longer have the SHA-256 that `SHA256SUMS` gives.

    `remember`: take digests from memory where files have not changed since they were last read for one.
    """
    for name, digest in read_checksums(folder).items():
        path = folder / name
        with io_errors(path, "read"):
            if not path.is_file() or file_sha256(path, remember=remember) != digest:
                yield path
