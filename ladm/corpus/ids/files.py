"""A file of document ids, or rows -> the hashes of their ids. Imports no torch.

d17                         text: an id a line
"d17", 17 or {"id": "d17"}  JSONL: a text, a number or an object a line
id: ["d17", "d18"]          Parquet: the column `id`, or the only column
id,text                     CSV: the column `id`, which the first line names
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from ladm.corpus.documents.carried_columns import id_of
from ladm.corpus.files.meta import whole_text
from ladm.corpus.ids.readers import ID, Batches, Place, values_of_file
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError, StorageError, UsageError, printable, reading_problem
from ladm.storage.digests import file_xxh3

IN_MEMORY = "ids in memory"
"""In place of the name of a file. No file of ids is called so, because it would have no suffix."""
LONGEST_SHOWN = 40
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class IdFile:
    """The ids of a file, or those that a program holds, without repetitions."""

    name: str
    xxh3_128: str
    """Of the bytes of the file; of ids in memory, of their hashes as in `hashes_M`."""
    hashes_M: Hashes
    """Ascending. 8 bytes an id (about 17 while they are read), where a Python set of texts would take about 100."""
    example: str
    """Its first id, for a message."""

    def __len__(self) -> int:
        return len(self.hashes_M)


def read_id_file(name: str, *, flag: str) -> IdFile:
    """The ids in a file. `flag`: the option that names it, for messages.

    Raises UsageError for a file that is absent, empty, of another kind or without ids; StorageError for a damaged one.
    """
    with reading_file_of_ids(name, option=f"{flag} {name}"):
        batches = values_of_file(name)
        digest = file_xxh3(Path(name))
        hashes, example = hashes_of_batches(batches)
    return IdFile(name=name, xxh3_128=digest, hashes_M=hashes, example=example)


@contextlib.contextmanager
def reading_file_of_ids(name: str, *, option: str) -> Iterator[None]:
    """Add `option`, as the user wrote it, to each UsageError. Raises UsageError where there is no such file.

    And StorageError for anything else that reading a file raises.
    """
    _require_file(name, option=option)
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{option}: {error}") from None
    except LadmError:
        raise
    except Exception as error:
        # Each of gzip, zstandard and Arrow raises exceptions of its own.
        raise StorageError(f"cannot read {name}: {reading_problem(error)}") from None


def id_file_digest(name: str, *, flag: str) -> str:
    """The `xxh3_128` of a file of ids, which is not read as such. Raises UsageError where there is no such file."""
    _require_file(name, option=f"{flag} {name}")
    return file_xxh3(Path(name))


def hashes_of_batches(batches: Batches) -> tuple[Hashes, str]:
    """The different hashes of all ids, ascending, and the first id. Raises UsageError for a value that is no id."""
    parts, example = [], None
    for values, place in batches:
        texts = id_texts(values, place)
        parts.append(hashes_of(texts))
        example = example or next(iter(texts), None)
    if example is None:
        raise UsageError("it has no ids")
    hashes = np.concatenate(parts)
    parts.clear()
    return _without_repetitions(hashes), example


def id_texts(values: Sequence[Any], place: Place) -> list[str]:
    """The ids as text. Raises UsageError for a value that is no id."""
    # Nearly all ids are plain texts, and a list may have a hundred million.
    texts = [value if type(value) is str and value and value.isascii() else _text(value) for value in values]
    if None in texts:
        raise UsageError(f"{place(texts.index(None))} has no id, which is a text or a whole number")
    return texts  # type: ignore[return-value]


def _require_file(name: str, *, option: str) -> None:
    if os.path.isfile(name):
        return
    problem = "there is no such file"
    if os.path.isdir(name):
        problem = "it is a folder; give its files one by one"
    elif os.path.exists(name):
        problem = "it is a pipe or a device; write it to a file, which can be read twice"
    elif name.startswith(IN_MEMORY):
        problem = "a Python program gave these; make the same call there, or write the ids to a file"
    raise UsageError(f"{option}: {problem}")


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


def require_ids(rows: Rows, option: str) -> None:
    """Raise LadmError unless the rows have a column of ids, which `option`, as the user wrote it, needs."""
    if ID not in rows.column_names:
        raise rows_without_ids(rows, option)


def rows_without_ids(rows: Rows, option: str) -> LadmError:
    """The error for rows of which none has an id."""
    return LadmError(
        f"{rows.name} has no ids that {option} could name; prepare the documents again with --id-key KEY, or give "
        "--rows with a column id: neither changes a score"
    )


def hash_of_id(text: str) -> int:
    """64 bits, by which ids are compared."""
    return xxhash.xxh3_64_intdigest(text.encode())


def hashes_of(ids: Iterable[str | None]) -> Hashes:
    """The hash of each id; that of the empty text, which no file has, where there is none."""
    # 64 bits: among a billion rows and a list of a hundred million ids, the chance that any row is taken for one of
    # the list is 0.5 %.
    return np.fromiter((hash_of_id(each or "") for each in ids), dtype=np.uint64)


def shown_id(text: str) -> str:
    """An id for a message."""
    return printable(text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 1]}…")


def _text(value: Any) -> str | None:
    """An id as `ladm prepare` spells it: 7 for the numbers 7 and 7.0."""
    return whole_text(value) or None if isinstance(value, str) else id_of({ID: value}, ID)
