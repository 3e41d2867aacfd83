"""Standard input, compressed or not -> its lines, the first of them as often as wanted. Imports no torch.

zcat corpus.gz | ladm prepare - ...
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import xxhash

from ladm.corpus.files.compressed import cut_lines, unpacked
from ladm.corpus.files.replayable_items import ReplayableItems
from ladm.errors import LadmError, StorageError, UsageError, one_line, raise_if_out_of_memory

STANDARD_INPUT = "-"
_PARQUET = b"PAR1"


class StandardInput:
    """The lines of standard input that are not blank; the first 1,000 are stored and can be read again."""

    def __init__(self, stream: BinaryIO) -> None:
        self._lines = ReplayableItems(
            _lines_of(stream),
            problem="standard input is used up, but its last documents are not stored yet; run the "
            "same command again to continue from what is stored",
        )

    def digest(self) -> str:
        """A digest of the lines that are stored, to recognise the same input by."""
        digest = xxhash.xxh3_128()
        for _, line in self._lines.stored():
            digest.update(line)
        return digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Number and content of each line, from the first. Raises StorageError where the lines behind are gone."""
        return iter(self._lines)


def _lines_of(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    try:
        yield from ((number, line) for number, line in enumerate(cut_lines(_unpacked(stream)), 1) if line.strip())
    except LadmError:
        raise
    except Exception as error:
        raise_if_out_of_memory(error, action="read standard input")
        # Each kind of compression raises exceptions of its own.
        raise StorageError(f"cannot read standard input: {one_line(error)}") from None


def open_standard_input() -> StandardInput:
    """The standard input of this process. Raises UsageError where it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("- stands for standard input, but nothing is piped into it")
    return StandardInput(cast(BinaryIO, getattr(sys.stdin, "buffer", sys.stdin)))


def _unpacked(stream: Any) -> BinaryIO:
    buffered = stream if hasattr(stream, "peek") else io.BufferedReader(stream)
    if buffered.peek(len(_PARQUET))[: len(_PARQUET)] == _PARQUET:
        raise LadmError(
            "Parquet cannot be read from standard input, because it is read from its end; give the path of the file"
        )
    return unpacked(buffered)
