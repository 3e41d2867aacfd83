"""A Parquet file <-> the same with a checksum of its footer: no flipped bit of it is read in silence. No torch.

Parquet has checksums for its pages and none for its footer, which says what type the numbers of a page have and where
it starts. The checksum is put between the last page and the footer, where no reader looks:

    PAR1  pages ..  b"ladm-crc" + CRC-32 of the footer  footer  length of the footer  PAR1
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ladm.errors import StorageError, one_line
from ladm.storage.files import io_errors

_MARK = b"ladm-crc"
_MAGIC = b"PAR1"
_CHECKED_BYTES = len(_MARK) + 4
_TAIL_BYTES = 8
"""The length of the footer in 4 bytes, then the magic."""


def add_footer_checksum(path: Path) -> None:
    """Put the checksum into a Parquet file that has just been written."""
    with path.open("r+b") as file:
        file.seek(-_TAIL_BYTES, os.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-_TAIL_BYTES - length, os.SEEK_END)
        footer = file.read(length + _TAIL_BYTES)
        file.seek(-len(footer), os.SEEK_END)
        file.write(_MARK + _checksum(footer) + footer)


@contextlib.contextmanager
def reading_parquet(path: Path, *, remedy: str) -> Iterator[None]:
    """Turn what Arrow finds wrong with a Parquet file into a StorageError that names it and ends with `remedy`."""
    try:
        yield
    # A flipped byte of the footer may ask for anything: an unknown type, a name that is no UTF-8, an absurd size.
    except (pa.ArrowException, OSError, ValueError, MemoryError, KeyError, IndexError) as error:
        raise StorageError(f"{path} is damaged: {one_line(error)}; {remedy}") from None


def open_parquet(path: Path, *, remedy: str) -> pq.ParquetFile:
    """A file to be read with its checksums verified; that of the footer is verified here. Raises StorageError."""
    with io_errors(path, "read"), path.open("rb") as file:
        is_whole = _is_whole(file, path.stat().st_size)
    if not is_whole:
        raise StorageError(f"{path} is damaged: its footer does not match its checksum; {remedy}")
    with reading_parquet(path, remedy=remedy):
        # Arrow's default reads ahead and holds all of the file until the last batch, which is for stores far away.
        return pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False)


def _is_whole(file: BinaryIO, size: int) -> bool:
    """Does the footer match its checksum? True as well where there is none, as in files of earlier versions."""
    if size < 2 * _TAIL_BYTES:
        return True
    file.seek(size - _TAIL_BYTES)
    length = int.from_bytes(file.read(4), "little")
    before = size - _TAIL_BYTES - length - _CHECKED_BYTES
    if before < len(_MAGIC):
        return True
    file.seek(before)
    mark, checksum, footer = file.read(len(_MARK)), file.read(4), file.read(length + _TAIL_BYTES)
    return mark != _MARK or checksum == _checksum(footer)


def _checksum(footer: bytes) -> bytes:
    return zlib.crc32(footer).to_bytes(4, "little")
