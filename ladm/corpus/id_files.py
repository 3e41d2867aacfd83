"""A file of document ids, or rows -> the hashes of their ids. Imports no torch.

d17                         text: an id a line
"d17", 17 or {"id": "d17"}  JSONL: a text, a number or an object a line
id: ["d17", "d18"]          Parquet: the column `id`, or the only column
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ladm.corpus.carried_columns import id_of
from ladm.corpus.compressed_files import bounded_lines, open_unpacked
from ladm.corpus.file_names import kind_of
from ladm.corpus.file_opening import open_bytes
from ladm.corpus.meta import whole_text
from ladm.corpus.rows import Rows
from ladm.corpus.tables import class_names_of_schema, parquet_file, rows_of_table
from ladm.corpus.utf8 import utf8_text
from ladm.errors import LadmError, StorageError, UsageError, printable, reading_problem
from ladm.storage.digests import file_xxh3

ID = "id"
LONGEST_SHOWN = 40
_BATCH_IDS = 65_536
Hashes = npt.NDArray[np.uint64]
Places = Iterator[tuple[str, Any]]
"""Where in a file each value is, and the value."""


@dataclass(frozen=True, kw_only=True)
class IdFile:
    """The ids of a file, without repetitions."""

    name: str
    xxh3_128: str
    """Of the bytes of the file."""
    hashes_M: Hashes
    """Ascending. 8 bytes an id (24 while the file is read), where a Python set of texts would take about 100."""
    example: str
    """Its first id, for a message."""

    def __len__(self) -> int:
        return len(self.hashes_M)


def read_id_file(name: str, *, flag: str) -> IdFile:
    """The ids in a file. `flag`: the option that names it, for messages.

    Raises UsageError for a file that is absent, empty, of another kind or without ids; StorageError for a damaged one.
    """
    kind = kind_of(name)
    if not os.path.isfile(name):
        problem = "it is a folder; give its files one by one" if os.path.isdir(name) else "there is no such file"
        raise UsageError(f"{flag} {name}: {problem}")
    if kind is None:
        raise UsageError(f"{flag} {name}: the name of a file of ids must end in .txt, .jsonl or .parquet (.gz, .zst)")
    read: Callable[[str], Places] = {"json": _of_json, "parquet": _of_parquet, "text": _of_text}[kind]
    examples: list[str] = []
    try:
        digest = file_xxh3(Path(name))
        hashes = np.fromiter(map(_hash, _spelled(read(name), examples)), dtype=np.uint64)
    except UsageError as error:
        raise UsageError(f"{flag} {name}: {error}") from None
    except LadmError:
        raise
    except Exception as error:
        # Each of gzip, zstandard and Arrow raises exceptions of its own.
        raise StorageError(f"cannot read {name}: {reading_problem(error)}") from None
    if not examples:
        raise UsageError(f"{flag} {name}: it has no ids")
    return IdFile(name=name, xxh3_128=digest, hashes_M=_without_repetitions(hashes), example=examples[0])


def _without_repetitions(hashes: Hashes) -> Hashes:
    """The different ones, ascending. The array that is given is sorted in place: np.unique would copy it."""
    hashes.sort()
    is_first_M = np.concatenate([[True], hashes[1:] != hashes[:-1]])
    found: Hashes = hashes[is_first_M]
    return found


def row_ids(rows: Rows) -> Iterator[list[str | None]]:
    """The id of every row as text, None where it has none, a batch at a time; the rows must have the column."""
    for values in rows.column_batches(ID):
        yield [_text(value) for value in values]


def hashes_of(ids: Iterable[str | None]) -> Hashes:
    """The hash of each id; that of the empty text, which no file has, where there is none."""
    # 64 bits: among a billion rows and a list of a hundred million ids, the chance that any row is taken for one of
    # the list is 0.5 %.
    return np.fromiter((_hash(each or "") for each in ids), dtype=np.uint64)


def shown_id(text: str) -> str:
    """An id for a message."""
    return printable(text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…")


def _hash(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())


def _text(value: Any) -> str | None:
    """An id as `ladm prepare` spells it: 7 for the numbers 7 and 7.0."""
    # Nearly all ids are texts, and a list may have a hundred million.
    return whole_text(value) or None if isinstance(value, str) else id_of({ID: value}, ID)


def _spelled(places: Places, examples: list[str]) -> Iterator[str]:
    """The ids as text; the first one goes to `examples`."""
    for where, value in places:
        found = _text(value)
        if found is None:
            raise UsageError(f"{where} has no id, which is a text or a whole number")
        if not examples:
            examples.append(found)
        yield found


def _of_text(name: str) -> Places:
    for number, line in _lines(name):
        yield f"line {number}", line


def _of_json(name: str) -> Places:
    for number, line in _lines(name):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            raise StorageError(f"cannot read {name}: line {number} is not JSON") from None
        yield f"line {number}", value.get(ID) if isinstance(value, dict) else value


def _lines(name: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, each with its number from 1, without the spaces at its ends."""
    with open_unpacked(name) as file:
        for number, line in enumerate(bounded_lines(file), 1):
            # Only the first line may begin with a mark, and only a broken one needs a message.
            is_plain = number > 1 and line.isascii()
            if text := (line.decode() if is_plain else utf8_text(name, line)).strip():
                yield number, text


def _of_parquet(name: str) -> Places:
    with open_bytes(name) as file:
        table = parquet_file(file, is_remote=False)
        names = table.schema_arrow.names
        if ID not in names and len(names) != 1:
            raise UsageError(f"it has no column {ID} (it has {', '.join(names) or 'none'})")
        column = ID if ID in names else names[0]
        labels = class_names_of_schema(table.schema_arrow)
        batches = table.iter_batches(batch_size=_BATCH_IDS, columns=[column])
        rows = chain.from_iterable(rows_of_table(batch, labels) for batch in batches)
        for number, fields in enumerate(rows):
            yield f"row {number}", fields.get(column)
