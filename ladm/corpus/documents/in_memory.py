"""Documents that a program holds -> the fields of each: dictionaries, a table, a data set. Imports no torch.

[{"text": "..", "domain": "web"}, ..]    a list, a generator, a table of Arrow, pandas, polars or DuckDB,
                                         files opened by pyarrow.dataset, a data set of the library datasets
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from ladm.corpus.files.checked_columns import checked
from ladm.corpus.files.meta import MOST_LEVELS, plain
from ladm.corpus.files.replayable_items import REPLAYED_ITEMS, ReplayableItems
from ladm.corpus.files.tables import class_names_of_features, class_names_of_schema, rows_of_table, wanted_columns
from ladm.errors import LadmError, UsageError, one_line

NAME = "documents in memory"
_BATCH_ROWS = 256
FORMS = (
    "documents in memory are dictionaries such as {'text': ..., 'domain': ...} in a list or an iterator, a table of "
    "Arrow, pandas or polars, or a data set of the library datasets"
)
_OF_TEXTS = "of texts make them with [{'text': each} for each in texts]"
_OF_COLUMNS = "of a dictionary of columns make a table with pandas.DataFrame"
Records = Iterator[dict[str, Any] | None]
"""The fields of each document; None for an item that is no dictionary."""


class DocumentsInMemory:
    """Documents of a Python object, read as often as needed; those of an iterator once, but for the first 1,000.

    `number` distinguishes several in one call, from 1. Raises UsageError for an object that holds no documents.
    """

    def __init__(self, documents: Any, *, number: int = 1) -> None:
        self.name = NAME if number == 1 else f"{NAME} ({number})"
        self._open = _reader_of(documents, self.name)
        self._size = len(documents) if hasattr(documents, "__len__") else None
        self.raised: Exception | None = None
        """An exception of the program's own iterator, which is for the program."""

    def digest(self, *, text_key: str) -> str:
        """A digest of the first 1,000 documents and, where it is known, of their number: the same for equal ones."""
        digest = xxhash.xxh3_128(f"{self._size}\n".encode())
        for fields in islice(self.records(text_key=text_key), REPLAYED_ITEMS):
            try:
                record = json.dumps(plain(fields))
            # Such a document is dropped, whatever is in it.
            except RecursionError:
                record = ""
            digest.update(f"{record}\n".encode())
        return digest.hexdigest()

    def records(self, *, text_key: str, skip: int = 0) -> Records:
        """The documents without the first `skip`. An exception of the program's own iterator passes through."""
        try:
            yield from self._open(text_key, skip)
        except LadmError:
            raise
        except Exception as error:
            self.raised = error
            raise


def _reader_of(documents: Any, name: str) -> Callable[[str, int], Records]:
    """What reads the object, for a text key, from a document on. Raises UsageError for what holds no documents."""
    # Whoever holds a data set has imported the library.
    library = sys.modules.get("datasets")
    if library is not None:
        if isinstance(documents, (library.DatasetDict, library.IterableDatasetDict)):
            splits = ", ".join(map(str, documents))
            raise UsageError(f"{name} are a data set with the splits {splits}; give one of them, as DATASET[SPLIT]")
        # A transform is Python code of the program's own, which works on dictionaries.
        if isinstance(documents, library.Dataset) and documents.format["type"] != "custom":
            return partial(_of_data_set, documents)
        if isinstance(documents, library.IterableDataset):
            return partial(_of_stream, documents)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(documents, pandas.DataFrame):
        return partial(_of_frame, documents, name)
    arrow_files = sys.modules.get("pyarrow.dataset")
    if arrow_files is not None and isinstance(documents, arrow_files.Dataset):
        return partial(_of_table, lambda: documents.scanner().to_reader(), name)
    if isinstance(documents, pa.RecordBatchReader):
        # A stream of record batches can be read once.
        return _of_iterator(partial(_of_table, lambda: documents, name), name)
    if hasattr(documents, "__arrow_c_stream__"):
        return partial(_of_table, partial(_stream_of, documents), name)
    # Of a text alone each letter would be a document.
    if isinstance(documents, (str, bytes, Mapping)):
        kind, remedy = type(documents).__name__, _OF_COLUMNS if isinstance(documents, Mapping) else _OF_TEXTS
        raise UsageError(f"a {kind} alone is not a collection of documents: {FORMS}; {remedy}")
    # What has items by number but no length, such as a query of polars, is no list.
    is_list = hasattr(documents, "__getitem__") and hasattr(documents, "__len__")
    if not (is_list or isinstance(documents, Iterable)):
        remedy = "; give what its collect() returns" if hasattr(documents, "collect") else ""
        raise UsageError(
            f"an object of type {type(documents).__name__} is neither a name nor a collection of documents: "
            f"{FORMS}{remedy}"
        )
    items = iter(documents)
    if items is documents:
        return _of_iterator(lambda _, skip: map(_fields_of, islice(items, skip, None)), name)
    return lambda _, skip: map(_fields_of, islice(iter(documents), skip, None))


def _of_iterator(read: Callable[[str, int], Records], name: str) -> Callable[[str, int], Records]:
    """A reader of documents that `read` gives only once: the first of them are stored, and can be read again."""
    replayed: list[ReplayableItems[dict[str, Any] | None]] = []

    def records(text_key: str, skip: int) -> Records:
        if not replayed:
            problem = (
                f"{name}: the iterator is used up, but its last documents are not stored yet; make the same call with "
                "a new one to continue from what is stored"
            )
            replayed.append(ReplayableItems(read(text_key, 0), problem=problem))
        return islice(replayed[0], skip, None)

    return records


def _fields_of(item: Any) -> dict[str, Any] | None:
    return {str(key): _as_python(value) for key, value in item.items()} if isinstance(item, Mapping) else None


def _as_python(value: Any, *, levels: int = MOST_LEVELS) -> Any:
    """What a program holds of NumPy, pandas or torch, also inside of lists and dictionaries, as files have it."""
    # A document nested so deep is dropped, whatever is in it.
    if value is None or isinstance(value, (str, bool, int, float, bytes)) or levels < 0:
        return value
    if isinstance(value, Mapping):
        return {str(key): _as_python(part, levels=levels - 1) for key, part in value.items()}
    if isinstance(value, (set, frozenset)):
        # In another process its order may be another.
        value = sorted(value, key=str)
    if isinstance(value, (list, tuple)):
        return [_as_python(part, levels=levels - 1) for part in value]
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "mM":
        # As a list they would be whole numbers.
        value = np.where(np.isnat(value), np.array(None), value.astype(str))
    return _as_python(value.tolist(), levels=levels - 1) if hasattr(value, "tolist") else value


def _of_data_set(dataset: Any, text_key: str, skip: int) -> Records:
    wanted = wanted_columns(dataset.features.arrow_schema, text_key)
    if skip >= len(dataset):
        return
    tables = dataset.select_columns(wanted).with_format("arrow").select(range(skip, len(dataset)))
    labels = class_names_of_features(dataset.features)
    for table in tables.iter(batch_size=_BATCH_ROWS):
        yield from rows_of_table(checked(table), labels)


def _of_stream(stream: Any, text_key: str, skip: int) -> Records:
    labels = class_names_of_features(stream.features)
    for table in stream.with_format("arrow").skip(skip).iter(batch_size=_BATCH_ROWS):
        yield from rows_of_table(checked(table.select(wanted_columns(table.schema, text_key))), labels)


def _of_table(open_table: Callable[[], pa.RecordBatchReader], name: str, text_key: str, skip: int) -> Records:
    try:
        reader = open_table()
        wanted = wanted_columns(reader.schema, text_key)
        if reader.schema.names.count(text_key) > 1:
            raise LadmError(f"{name} have {reader.schema.names.count(text_key)} columns named {text_key}")
        labels = class_names_of_schema(reader.schema)
        for batch in reader:
            for start in range(0, batch.num_rows, _BATCH_ROWS):
                if skip >= min(_BATCH_ROWS, batch.num_rows - start):
                    skip -= min(_BATCH_ROWS, batch.num_rows - start)
                    continue
                part = pa.Table.from_batches([batch.slice(start + skip, _BATCH_ROWS - skip)])
                skip = 0
                yield from rows_of_table(checked(part.select(wanted)), labels)
    except pa.ArrowException as error:
        # Of an error in the program's own code Arrow appends the traceback.
        raise LadmError(f"cannot read {name}: {one_line(error).partition(' Detail: ')[0]}") from None


def _stream_of(documents: Any) -> pa.RecordBatchReader:
    try:
        return pa.RecordBatchReader.from_stream(documents)
    except pa.ArrowInvalid:
        # One column alone, such as a Series of texts.
        raise UsageError(f"a {type(documents).__name__} has no columns: {FORMS}; {_OF_TEXTS}") from None


def _of_frame(frame: Any, name: str, text_key: str, skip: int) -> Records:
    # A level without a name is a number that pandas made; one with a name is a column, often the documents' id.
    named = [each for each in frame.index.names if isinstance(each, str) and each not in frame.columns]
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise UsageError(f"{name} have more than one column {twice[0]}; drop or rename the others")
    # A part at a time: it is read several times, and would be in memory twice.
    for start in range(skip, len(frame), _BATCH_ROWS):
        part = frame.iloc[start : start + _BATCH_ROWS]
        part = part.reset_index(named) if named else part
        try:
            table = pa.Table.from_pandas(part, preserve_index=False)
        except pa.ArrowException:
            # A column of texts and numbers, for example, is none of Arrow.
            yield from map(_fields_of, part.to_dict("records"))
            continue
        yield from rows_of_table(checked(table.select(wanted_columns(table.schema, text_key))), {})
