"""Blocks of rows -> digests of their content, the same however a data set is stored. Imports no torch.

There are two. That of `rows` covers `meta` as it is stored: where one row has a key, all rows have it, most of them
null. When `ladm prepare` adds rows whose meta has new keys, the nulls of the first rows change that digest. That of
the `content` covers the keys that each row has itself, so that a run recognises its rows among more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ladm.corpus.files.id_columns import is_integer_list
from ladm.corpus.files.other_stages import MANIFEST
from ladm.errors import StorageError
from ladm.storage.checksum_list import CHECKSUM_FILE, changed_files
from ladm.storage.json_object import read_json_object

META = "meta"
PREPARED = "prepare.json"
"""What `ladm prepare` writes beside its rows."""
PREPARED_DIGEST = "xxh3_128"
"""Its key for the digest of all of them."""
PREPARED_COLUMNS = "columns_xxh3_128"
"""Its key for the digest of the columns that the other one does not cover, such as the texts."""


def require_as_prepared(name: str, digest: str, columns: Callable[[], str]) -> None:
    """Raise StorageError where `ladm prepare` recorded another digest of all rows of the data set `name`.

    `columns` computes that of the columns beside. Rows of another origin, and of an earlier version, have none.
    """
    path = Path(name) / PREPARED
    record = read_json_object(path) if path.is_file() else {}
    # Without the first, as in rows that were changed on purpose, the second says nothing either.
    had, had_columns = record.get(PREPARED_DIGEST), record.get(PREPARED_COLUMNS)
    if had is not None and (had != digest or (had_columns is not None and had_columns != columns())):
        raise StorageError(
            f"{name} is damaged or was changed since ladm prepare wrote it; remove it and prepare it again, or copy it "
            f"without {PREPARED} if it was changed on purpose"
        )


def require_as_selected(name: str) -> None:
    """Raise StorageError where a file of the subset `name` is not the one whose checksum `ladm select` recorded.

    Rows of another origin, and subsets of an earlier version, have no checksums.
    """
    folder = Path(name)
    if not (folder / CHECKSUM_FILE).is_file() or not (folder / MANIFEST).is_file():
        return
    for path in changed_files(folder, remember=True):
        raise StorageError(
            f"{path} is damaged or was changed since ladm select wrote it; select again, or remove "
            f"{folder / CHECKSUM_FILE} if it was changed on purpose"
        )


def prepared_domain_key(name: str) -> str | None:
    """The key of the documents that `ladm prepare` made the domain of the rows in the data set `name`, if it did."""
    path = Path(name) / PREPARED
    record = {"asked": None} | (read_json_object(path) if path.is_file() else {})
    settings = record["asked"]
    return settings.get("domain_key") if isinstance(settings, dict) else None


class RowDigests:
    """The two digests of rows, of which blocks are added in order."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._columns = columns
        """What is digested beside the ids; null where a data set does not have it."""
        import xxhash

        self._rows, self._content = xxhash.xxh3_128(), xxhash.xxh3_128()

    def add(self, carried: Mapping[str, Any], ids: pa.Array) -> None:
        """Add a block: its columns beside the ids, and the ids."""
        self._rows.update(_json([carried.get(column) for column in self._columns]))
        own = dict(carried)
        if own.get(META) is not None:
            own[META] = [own_keys(value) for value in own[META]]
        self._content.update(_json([own.get(column) for column in self._columns]))
        for part in _bytes_of_ids(ids):
            self._rows.update(part)
            self._content.update(part)

    @property
    def rows(self) -> str:
        return self._rows.hexdigest()

    @property
    def content(self) -> str:
        return self._content.hexdigest()


def _json(values: list[Any]) -> bytes:
    return json.dumps(values, sort_keys=True, default=str).encode()


def own_keys(meta: Any) -> Any:
    """The meta of one row without nulls; JSON text, as rows have it whose documents agree on no type, is parsed."""
    if isinstance(meta, str):
        try:
            parsed = json.loads(meta)
        except (ValueError, RecursionError):
            return meta
        return _without_nulls(parsed) if isinstance(parsed, dict) else meta
    return _without_nulls(meta)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _bytes_of_ids(ids: pa.Array) -> Iterator[bytes]:
    if not is_integer_list(ids.type) or ids.flatten().null_count:
        yield json.dumps(ids.to_pylist(), default=str).encode()
        return
    lengths = pc.list_value_length(ids).fill_null(-1).to_numpy(zero_copy_only=False)
    yield lengths.astype("<i8").tobytes()
    values = ids.flatten().to_numpy(zero_copy_only=False)
    small = values.dtype.itemsize <= 4 or not len(values) or (values.min() >= 0 and values.max() < 2**31)
    yield values.astype("<i4" if small else "<i8", copy=False).tobytes()


class ColumnDigest:
    """The digest of one column, of which chunks are added in order; how a column is cut into chunks does not matter."""

    def __init__(self) -> None:
        import xxhash

        # Apart from each other, because chunks have them one behind the other.
        self._valid, self._values, self._bytes = xxhash.xxh3_64(), xxhash.xxh3_64(), xxhash.xxh3_64()

    def add(self, chunk: pa.Array) -> None:
        """Add a chunk."""
        kind = chunk.type
        self._valid.update(pc.is_valid(chunk).to_numpy(zero_copy_only=False).tobytes())
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            self._values.update(pc.binary_length(chunk).fill_null(0).cast(pa.int64()).to_numpy().tobytes())
            self._bytes.update(_bytes_of_texts(chunk))
        elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            self._values.update(chunk.fill_null(pa.scalar(0).cast(kind)).to_numpy(zero_copy_only=False).tobytes())
        else:
            self._values.update(b"".join(_json([value]) for value in chunk.to_pylist()))

    def hexdigest(self) -> str:
        """48 hexadecimal digits."""
        return self._valid.hexdigest() + self._values.hexdigest() + self._bytes.hexdigest()


def columns_digest(tables: Iterable[pa.Table], names: Sequence[str]) -> str:
    """The digest of the columns `names` of a data set, whose rows come in several tables, in order."""
    import xxhash

    digests = {name: ColumnDigest() for name in names}
    for table in tables:
        for name in names:
            for chunk in table[name].chunks:
                digests[name].add(chunk)
    return xxhash.xxh3_128("".join(f"{name} {digests[name].hexdigest()}\n" for name in names).encode()).hexdigest()


def _bytes_of_texts(chunk: pa.Array) -> memoryview:
    """All texts of a chunk, one behind the other; a null has none."""
    if not len(chunk) or chunk.buffers()[2] is None:
        return memoryview(b"")
    width = "<i8" if pa.types.is_large_string(chunk.type) else "<i4"
    starts = np.frombuffer(chunk.buffers()[1], dtype=width)[chunk.offset : chunk.offset + len(chunk) + 1]
    return memoryview(chunk.buffers()[2])[int(starts[0]) : int(starts[-1])]
