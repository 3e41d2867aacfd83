"""Records <-> lines with a checksum, so that a torn, fused or damaged line is known for what it is. Imports no torch.

A line is one JSON object whose last key is the CRC-32 of everything before that key.
"""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path
from typing import Any

from ladm.errors import StorageError
from ladm.storage.files import io_errors

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_LINE = re.compile(rb'(?s)(\{.*), "crc32": "([0-9a-f]{8})"\}')


def encode_line(record: dict[str, Any]) -> bytes:
    """One record as a line with its checksum. Raises ValueError for NaN and infinity."""
    body = _ENCODER.encode(record)[:-1].encode()
    return b'%s, "crc32": "%08x"}\n' % (body, zlib.crc32(body))


def decode_line(line: bytes) -> tuple[dict[str, Any], str] | None:
    """The record of a line without its newline, and its JSON text without the checksum; None for one not as written."""
    match = _LINE.fullmatch(line)
    if match is None or zlib.crc32(match[1]) != int(match[2], 16):
        return None
    text = match[1].decode() + "}"
    return json.loads(text), text


def read_lines(path: Path, *, start: int, stop: int) -> tuple[list[dict[str, Any]], int]:
    """The records of `read_texts`."""
    lines, offset = read_texts(path, start=start, stop=stop)
    return [record for record, _ in lines], offset


def read_texts(path: Path, *, start: int, stop: int) -> tuple[list[tuple[dict[str, Any], str]], int]:
    """Records with their JSON text from whole, valid lines of the unit of rows `start` to `stop - 1`.

    The second result is the byte where a torn tail begins, or the end.
    Torn: an end without a newline, or a line with NUL bytes where a write did not reach the disk.
    Raises StorageError, with file and offset, for anything else that is not as it was written.
    """
    with io_errors(path, "read"):
        content = path.read_bytes()
    lines: list[tuple[dict[str, Any], str]] = []
    seen: set[int] = set()
    offset = 0
    while (end := content.find(b"\n", offset)) >= 0:
        line = content[offset:end]
        if b"\0" in line:
            break
        decoded = decode_line(line)
        if decoded is None:
            raise StorageError(f"{path} is damaged at byte {offset}: the line is not as it was written")
        position = decoded[0].get("position")
        if not isinstance(position, int) or not start <= position < stop or position in seen:
            what = "twice there" if position in seen else "not of this unit"
            raise StorageError(f"{path} is damaged at byte {offset}: row {position} is {what}")
        seen.add(position)
        lines.append(decoded)
        offset = end + 1
    return lines, offset
