"""A data set of token ids -> rows, read a block at a time, and the identity of their content.

Reads what `datasets` saved to disk, or a Hub id. Columns: `input_ids`, and `meta`, `index`,
`chunked_index` where present. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from ladm.errors import LadmError, RowError, one_line
from ladm.modeling.facts import HUB_ID

IDENTITY_BLOCK_ROWS = 1024
SAMPLED_ROWS = 64
_CARRIED = ("index", "chunked_index", "meta")

_PLAIN = (str, int, bool, type(None))
"""What JSON gives back as it is."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One document as it is scored. `raw_ids` is whatever the column holds; see `token_ids`."""

    position: int
    index: int | str
    chunked_index: int | str | None
    meta: Any
    raw_ids: Any

    @property
    def num_tokens(self) -> int | None:
        """Length of the ids, where they have one."""
        return len(self.raw_ids) if isinstance(self.raw_ids, (list, np.ndarray)) else None


class Rows:
    """The rows of a data set, all or the first `limit`; made by `open_rows`."""

    def __init__(self, dataset: Any, *, name: str, limit: int | None) -> None:
        self.name = name
        dataset = dataset.with_format(None)
        names = set(dataset.column_names)
        if "input_ids" not in names:
            raise LadmError(
                f"{name} has no column input_ids (it has {', '.join(sorted(names)) or 'none'}); "
                "tokenise it first: ladm prepare"
            )
        self._ids = dataset.select_columns(["input_ids"]).with_format("arrow")
        carried = [column for column in _CARRIED if column in names]
        self._whole_numbers = {
            column: column in names and _is_whole_number(dataset, column) for column in ("index", "chunked_index")
        }
        self._carried = dataset.select_columns(carried) if carried else None
        self._dataset = dataset
        self._count = len(dataset) if limit is None else min(limit, len(dataset))
        if self._count == 0:
            raise LadmError(f"{name} has no rows")
        kind = self._ids[0:1]["input_ids"].type
        if not _may_hold_ids(kind):
            raise LadmError(f"{name}: input_ids holds {kind}, not lists of token ids; tokenise it first: ladm prepare")

    def __len__(self) -> int:
        return self._count

    def read(self, start: int, stop: int) -> list[Row]:
        """Rows `start` to `stop - 1`."""
        carried = {} if self._carried is None else self._carried[start:stop]
        absent = [None] * (stop - start)
        index, chunk, meta = (carried.get(column, absent) for column in _CARRIED)
        raw = _split_ids(self._ids[start:stop]["input_ids"].combine_chunks())
        return [
            Row(
                position=start + k,
                index=start + k if "index" not in carried else self._label("index", index[k], start + k),
                chunked_index=None if chunk[k] is None else self._label("chunked_index", chunk[k], 0),
                meta=jsonable(meta[k]),
                raw_ids=raw[k],
            )
            for k in range(stop - start)
        ]

    def ids_at(self, position: int, *, vocab_size: int) -> Ids:
        """The ids of a row that has to be good. Raises LadmError, naming it, for one that is not."""
        (row,) = self.read(position, position + 1)
        try:
            return token_ids(row, vocab_size=vocab_size)
        except RowError as error:
            raise LadmError(f"row {position} of {self.name}: {error}") from None

    def sample(self) -> str:
        """A digest of the number of rows and of a few of them, quick to take wherever they are opened anew."""
        digest = xxhash.xxh3_128(str(len(self)).encode())
        for position in sorted({len(self) * k // SAMPLED_ROWS for k in range(SAMPLED_ROWS)}):
            (row,) = self.read(position, position + 1)
            raw = row.raw_ids
            digest.update(raw.tobytes() if isinstance(raw, np.ndarray) else repr(raw).encode())
        return digest.hexdigest()

    def lengths(self, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int64]:
        """Tokens of rows `start` to `stop - 1`, or of every row; 0 where there is no list."""
        stop = self._count if stop is None else stop
        kept = []
        for first in range(start, stop, IDENTITY_BLOCK_ROWS):
            ids = self._ids[first : min(first + IDENTITY_BLOCK_ROWS, stop)]["input_ids"].combine_chunks()
            if _is_integer_list(ids.type):
                kept.append(pc.list_value_length(ids).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64))
            else:
                kept.append(np.array([len(raw) if isinstance(raw, list) else 0 for raw in map(_raw_ids, ids)]))
        return np.concatenate(kept)

    def _label(self, column: str, value: Any, default: int) -> int | str:
        """One type for a whole column: whole numbers where it holds only such, else text."""
        value = default if value is None else value
        return int(value) if self._whole_numbers[column] else str(value)

    @property
    def column_names(self) -> list[str]:
        """All columns of the data set."""
        names: list[str] = self._dataset.column_names
        return names

    def column(self, name: str, start: int, stop: int) -> list[Any]:
        """A column of rows `start` to `stop - 1`. Raises LadmError where there is no such column."""
        if name not in self._dataset.column_names:
            raise LadmError(
                f"{self.name} has no column {name} (it has {', '.join(sorted(self._dataset.column_names))})"
            )
        values: list[Any] = self._dataset.select_columns([name])[start:stop][name]
        return values

    def save_subset(self, positions: npt.NDArray[np.int64], folder: Path) -> None:
        """Save those rows, all their columns kept, as a DatasetDict with `train`."""
        import datasets

        subset = self._dataset.with_format(None).select(positions)
        datasets.DatasetDict(train=subset).save_to_disk(str(folder))

    def identity(self) -> dict[str, Any]:
        """Number of rows and a digest of their ids, indices and meta, in order."""
        digest = xxhash.xxh3_128()
        for start in range(0, self._count, IDENTITY_BLOCK_ROWS):
            for content in self._content(start, min(start + IDENTITY_BLOCK_ROWS, self._count)):
                digest.update(content)
        return {"rows": self._count, "xxh3_128": digest.hexdigest()}

    def _content(self, start: int, stop: int) -> Iterator[bytes]:
        """Bytes that stand for the rows, the same however the data set is stored."""
        carried = {} if self._carried is None else self._carried[start:stop]
        yield json.dumps([carried.get(column) for column in _CARRIED], sort_keys=True, default=str).encode()
        ids = self._ids[start:stop]["input_ids"].combine_chunks()
        if not _is_integer_list(ids.type) or ids.flatten().null_count:
            yield json.dumps(ids.to_pylist(), default=str).encode()
            return
        lengths = pc.list_value_length(ids).fill_null(-1).to_numpy(zero_copy_only=False)
        yield lengths.astype("<i8").tobytes()
        values = ids.flatten().to_numpy(zero_copy_only=False)
        small = values.dtype.itemsize <= 4 or not len(values) or (values.min() >= 0 and values.max() < 2**31)
        yield values.astype("<i4" if small else "<i8", copy=False).tobytes()


def commonest(lengths: npt.NDArray[np.int64]) -> int:
    """The commonest length above 0, the longest of several; 0 when there is none."""
    found, counts = np.unique(lengths[lengths > 0], return_counts=True)
    return int(found[len(counts) - 1 - counts[::-1].argmax()]) if len(found) else 0


def open_rows(source: str, *, limit: int | None = None) -> Rows:
    """Open a folder written by `save_to_disk` (a Dataset, or a DatasetDict with `train`) or a Hub id.

    Raises LadmError with one line when it is neither, or holds no token ids.
    """
    import datasets

    path = Path(source)
    try:
        if path.is_dir():
            loaded = datasets.load_from_disk(source)
        elif not path.exists() and HUB_ID.fullmatch(source):
            loaded = datasets.load_dataset(source)
        else:
            raise LadmError(f"no such data set: {source} is neither a folder nor a Hub id such as org/name")
    except LadmError:
        raise
    except IndexError:
        # What `datasets` makes of a saved data set without a single shard.
        raise LadmError(f"{source} has no rows") from None
    except Exception as error:
        # Arrow, JSON, the file system and the Hub client each raise kinds of their own here.
        where = "is not a data set saved by save_to_disk" if path.is_dir() else "is not a folder, nor given by the Hub"
        raise LadmError(f"no such data set: {source} {where}: {one_line(error)}") from None
    if isinstance(loaded, datasets.DatasetDict):
        if "train" not in loaded:
            raise LadmError(f"{source} has no split train (it has {', '.join(map(str, loaded)) or 'none'})")
        loaded = loaded["train"]
    return Rows(loaded, name=source, limit=limit)


def token_ids(row: Row, *, vocab_size: int) -> Ids:
    """The ids of a row as int64. Raises RowError for anything that is not a list of ids of the vocabulary."""
    raw = row.raw_ids
    if raw is None:
        raise RowError("no_ids", "input_ids is None")
    if isinstance(raw, np.ndarray):
        ids = raw
    else:
        wrong = next((k for k, x in enumerate(raw) if type(x) is not int), None) if isinstance(raw, list) else -1
        if wrong == -1:
            raise RowError("wrong_type", f"input_ids is {type(raw).__name__}, not a list of integers")
        if wrong is not None:
            raise RowError("wrong_type", f"input_ids holds {_type_name(raw[wrong])} at token {wrong}, not an integer")
        try:
            ids = np.asarray(raw, dtype=np.int64)
        except OverflowError:
            raise RowError("outside_vocabulary", "an id does not fit 64 bits") from None
    if len(ids) == 0:
        raise RowError("empty", "input_ids is empty")
    outside = (ids < 0) | (ids >= vocab_size)
    if outside.any():
        token = int(outside.argmax())
        raise RowError(
            "outside_vocabulary",
            f"id {ids[token]} at token {token} is outside the model's vocabulary of {vocab_size}; "
            "was the data made with another tokenizer?",
        )
    return ids.astype(np.int64)


def _type_name(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def _is_integer_list(kind: pa.DataType) -> bool:
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return bool(listed and pa.types.is_integer(kind.value_type))


def _may_hold_ids(kind: pa.DataType) -> bool:
    """Lists of integers; or a column of nulls or of mixed JSON, whose rows are judged one by one."""
    if _is_integer_list(kind) or pa.types.is_null(kind) or isinstance(kind, pa.BaseExtensionType):
        return True
    inner = getattr(kind, "value_type", None)
    return inner is not None and (pa.types.is_null(inner) or isinstance(inner, pa.BaseExtensionType))


def _split_ids(ids: pa.Array) -> list[Any]:
    """What each row of the column holds, as `_raw_ids` has it."""
    values = ids.flatten() if _is_integer_list(ids.type) else None
    if values is None or ids.null_count or values.null_count:
        return [_raw_ids(scalar) for scalar in ids]
    stops = np.cumsum(pc.list_value_length(ids).to_numpy(zero_copy_only=False))
    return np.split(values.to_numpy(zero_copy_only=False), stops[:-1])


def _raw_ids(scalar: pa.Scalar) -> Any:
    """A numpy array where all is well; otherwise plain Python values for `token_ids` to name."""
    if not scalar.is_valid:
        return None
    if _is_integer_list(scalar.type) and not scalar.values.null_count:
        return scalar.values.to_numpy(zero_copy_only=False)
    value = scalar.as_py()
    if isinstance(scalar.type, pa.BaseExtensionType):
        return json.loads(value)
    if isinstance(value, list) and isinstance(scalar.type.value_type, pa.BaseExtensionType):
        return [None if item is None else json.loads(item) for item in value]
    return value


def _is_whole_number(dataset: Any, column: str) -> bool:
    kind = dataset.select_columns([column]).with_format("arrow")[0:1][column].type
    return bool(pa.types.is_integer(kind) and kind != pa.uint64()) or pa.types.is_null(kind)


def jsonable(value: Any) -> Any:
    """`value` as JSON gives it back: dates become text, NaN and infinity null."""
    if type(value) is dict and all(type(k) is str and type(v) in _PLAIN for k, v in value.items()):
        return value
    try:
        return json.loads(json.dumps(value, allow_nan=False, default=str))
    except ValueError:
        return json.loads(json.dumps(value, default=str), parse_constant=lambda _: None)


def look_up(value: Any, path: list[str]) -> str | None:
    """`{"a": {"b": 1}}` and `["a", "b"]` -> `"1"`; None where there is no such thing. JSON text is opened."""
    for key in path:
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None or isinstance(value, (dict, list)) else str(value)
