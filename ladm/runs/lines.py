"""Records <-> lines with a checksum, so that a torn, fused or damaged line is recognised. Imports no torch.

A line is one JSON object whose last key is the CRC-32 of everything before that key.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladm.errors import StorageError
from ladm.runs.layout import SORTED_FILE
from ladm.runs.records import Record, record_from_json
from ladm.storage.files import io_errors

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
# Not `json.loads` first: the checksum is over the bytes as written, and a damaged line may still be JSON.
_LINE = re.compile(rb'(?s)(\{.*), "crc32": "([0-9a-f]{8})"\}')


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredLine:
    """A row as it was read: the record, and its JSON text without the checksum."""

    record: Record
    text: str

    @property
    def result(self) -> str:
        """The text from `"index"` on: what a line of the sorted file has behind its rank."""
        return self.text[self.text.index('"index"') :]


def damaged_unit(path: Path, problem: str, *, offset: int | None = None) -> StorageError:
    """The error for a damaged file of a unit, with what to do about it; `offset`: the byte where the damage is."""
    place = "" if offset is None else f" at byte {offset}"
    # Without the sorted file the run is unfinished, or the command would take it for one that has all its rows.
    too = f" and {SORTED_FILE}" if (path.parent.parent / SORTED_FILE).exists() else ""
    return StorageError(
        f"{path} is damaged{place}: {problem}; remove it{too}, and rerun the command that made the run to score its "
        "rows again"
    )


def encode_object(found: dict[str, Any]) -> bytes:
    """One JSON object as a line with its checksum. Raises ValueError for NaN and infinity."""
    body = _ENCODER.encode(found)[:-1].encode()
    return b'%s, "crc32": "%08x"}\n' % (body, zlib.crc32(body))


def encode_line(record: Record) -> bytes:
    """One record as a line with its checksum. Raises ValueError for NaN and infinity."""
    return encode_object(record.to_json())


def decode_object(line: bytes) -> tuple[dict[str, Any], str] | None:
    """The object of a line without its newline, and its text without the checksum; None for a damaged line."""
    match = _undamaged(line)
    return None if match is None else _decoded(match)


def read_lines(path: Path, *, start: int, stop: int) -> tuple[list[StoredLine], int]:
    """The whole, valid lines of the unit of rows `start` to `stop - 1`.

    The second result is the byte where a torn tail begins, or the end.
    Torn: an end without a newline, or a line with NUL bytes where a write did not reach the disk.
    Raises StorageError, with file and offset, for anything else that is not as it was written.
    """
    with io_errors(path, "read"):
        content = path.read_bytes()
    lines: list[StoredLine] = []
    seen: set[int] = set()
    end = 0
    for offset, match in _whole(content, path):
        found, text = _decoded(match)
        position = found.get("position")
        if not isinstance(position, int) or not start <= position < stop or position in seen:
            what = "stored twice" if position in seen else "not of this unit"
            raise damaged_unit(path, f"row {position} is {what}", offset=offset)
        seen.add(position)
        lines.append(_stored(found, text, path=path, offset=offset))
        end = offset + len(match[0]) + 1
    return lines, end


def whole_lines(content: bytes, path: Path) -> Iterator[bytes]:
    """The lines of a unit whose content was read from `path`, up to a torn tail, their checksums verified.

    Nothing is decoded, which takes ten times as long. Raises StorageError, with file and offset, for a damaged line.
    """
    return (match[0] for _, match in _whole(content, path))


def _whole(content: bytes, path: Path) -> Iterator[tuple[int, re.Match[bytes]]]:
    """The same as matches of `_LINE`, each with the byte where its line begins."""
    offset = 0
    while (end := content.find(b"\n", offset)) >= 0:
        line = content[offset:end]
        # After a power loss a file may have its new length before its new content: the gap reads as NUL bytes.
        if b"\0" in line:
            return
        match = _undamaged(line)
        if match is None:
            raise damaged_unit(path, "the line does not match its checksum", offset=offset)
        yield offset, match
        offset = end + 1


def _undamaged(line: bytes) -> re.Match[bytes] | None:
    match = _LINE.fullmatch(line)
    return None if match is None or zlib.crc32(match[1]) != int(match[2], 16) else match


def _decoded(match: re.Match[bytes]) -> tuple[dict[str, Any], str]:
    text = match[1].decode() + "}"
    return json.loads(text), text


def read_records(path: Path, *, start: int, stop: int) -> list[Record]:
    """The records of `read_lines`."""
    return [line.record for line in read_lines(path, start=start, stop=stop)[0]]


def _stored(found: dict[str, Any], text: str, *, path: Path, offset: int) -> StoredLine:
    try:
        return StoredLine(record=record_from_json(found), text=text)
    except (KeyError, TypeError):
        raise damaged_unit(path, "the line does not hold a row", offset=offset) from None
