"""Blocks of rows -> digests of their content, the same however a data set is stored. Imports no torch.

There are two. That of `rows` covers `meta` as it is stored: where one row has a key, all rows have it, most of them
null. When `ladm prepare` adds rows whose meta has new keys, the nulls of the first rows change that digest. That of
the `content` covers the keys that each row has itself, so that a run recognises its rows among more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ladm.corpus.row import is_integer_list
from ladm.errors import StorageError
from ladm.storage.json_object import read_json_object

META = "meta"
PREPARED = "prepare.json"
"""What `ladm prepare` writes beside its rows."""
PREPARED_DIGEST = "xxh3_128"
"""Its key for the digest of all of them."""


def require_as_prepared(name: str, digest: str) -> None:
    """Raise StorageError where `ladm prepare` recorded another digest of all rows of the data set `name`.

    Rows of another origin, and of an earlier version, have none.
    """
    path = Path(name) / PREPARED
    if path.is_file() and read_json_object(path).get(PREPARED_DIGEST) not in (None, digest):
        raise StorageError(
            f"{name} is damaged or was changed since ladm prepare wrote it; remove it and prepare it again, or copy it "
            f"without {PREPARED} if it was changed on purpose"
        )


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
