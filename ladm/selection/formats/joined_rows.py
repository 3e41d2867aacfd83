"""The rows of several runs -> one data set of them all; integers of different widths become the widest. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ladm.corpus.files.checked_columns import checked
from ladm.corpus.files.id_columns import is_integer_list
from ladm.errors import LadmError, one_line
from ladm.selection.sources import SelectionSource

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class JoinedRows:
    """Data sets one behind the other, as if they were one, with the features of all their columns."""

    parts: Sequence[Any]
    """`datasets.Dataset` of each."""
    features: Mapping[str, Any]

    @property
    def column_names(self) -> list[str]:
        return list(self.features)

    def read(self, columns: list[str], positions: Ints) -> pa.Table:
        """Some columns of the rows at ascending positions; null where a data set does not have a column."""
        import datasets

        schema = datasets.Features({name: self.features[name] for name in columns}).arrow_schema
        tables, first = [schema.empty_table()], 0
        for part in self.parts:
            a, b = np.searchsorted(positions, (first, first + len(part))).tolist()
            if b > a:
                tables.append(_read_as(part, schema, positions[a:b] - first))
            first += len(part)
        # `datasets` gives each row as a piece of its own. Written like that, each would be a batch of the file, and
        # kilobytes of memory for whoever opens it.
        return pa.concat_tables(tables).combine_chunks()


def _read_as(part: Any, schema: pa.Schema, positions: Ints) -> pa.Table:
    """Rows of a data set with the types of the schema, which differ from its own in the width of integers at most."""
    own = [name for name in schema.names if name in part.column_names]
    table = checked(part.select_columns(own).with_format("arrow")[positions.tolist()]) if own else None
    arrays = [
        table[field.name].cast(field.type) if table is not None and field.name in own
        else pa.nulls(len(positions), field.type)
        for field in schema
    ]  # fmt: skip
    return pa.table(arrays, schema=schema)


def join_rows(sources: Sequence[SelectionSource], positions: Ints) -> tuple[Any, Ints]:
    """The rows of all runs as one data set, and the positions there; a column that one data set lacks is null.

    The data set is a `datasets.Dataset`, or `JoinedRows` where integers differ in width.
    Raises LadmError for columns of different types.
    """
    import datasets

    stops = [source.first + len(source.rows) for source in sources]
    firsts = np.searchsorted(positions, [source.first for source in sources]).tolist()
    lasts = np.searchsorted(positions, stops).tolist()
    # Of a part without chosen rows only the columns would count, and they may be of types that nothing can be joined
    # with.
    parts = [(source, a, b) for source, a, b in zip(sources, firsts, lasts, strict=True) if b > a]
    joined, first = [], 0
    shifted = positions.copy()
    for source, a, b in parts:
        shifted[a:b] += first - source.first
        first += len(source.rows)
        joined.append(source.rows.select(range(len(source.rows))))
    if len(joined) == 1:
        return joined[0], shifted
    widened = _widened(joined)
    try:
        if widened:
            # For the types of all other columns; the rows themselves are read a batch at a time.
            whole = datasets.concatenate_datasets([_one_null(data, widened) for data in joined])
            return JoinedRows(joined, whole.features), shifted
        return datasets.concatenate_datasets(joined), shifted
    # What Arrow and `datasets` raise for types that cannot be merged.
    except (ValueError, TypeError) as error:
        names = " and ".join(source.rows.name for source, _, _ in parts)
        reason = _types_of_column(joined, error) or one_line(error)
        remedy = "select from each run alone, or score rows with the same columns"
        raise LadmError(f"the columns of {names} cannot be joined: {reason}; {remedy}") from None


def _widened(joined: Sequence[Any]) -> dict[str, Any]:
    """The features of the columns that are integers, or lists of integers, of different widths in these data sets."""
    import datasets

    found = {}
    for name in dict.fromkeys(name for data in joined for name in data.column_names):
        kinds = [data.features.arrow_schema.field(name).type for data in joined if name in data.column_names]
        features = [data.features[name] for data in joined if name in data.column_names]
        is_list = all(map(is_integer_list, kinds))
        numbers = [kind.value_type for kind in kinds] if is_list else kinds
        # A class label is an integer too, but means its name.
        is_plain = is_list or all(isinstance(feature, datasets.Value) for feature in features)
        if len(set(kinds)) < 2 or not is_plain or not all(map(pa.types.is_integer, numbers)):
            continue
        # No integer holds all of uint64 and of signed ones: NumPy's common type of these is a float.
        widest = np.result_type(*(kind.to_pandas_dtype() for kind in numbers))
        if np.issubdtype(widest, np.integer):
            value = datasets.Value(str(widest))
            found[name] = datasets.List(value) if is_list else value
    return found


def _one_null(data: Any, widened: Mapping[str, Any]) -> Any:
    """A row of nulls with the features of a data set, some of them widened: `datasets` passes over one without rows."""
    import datasets

    features = {name: widened.get(name, kind) for name, kind in data.features.items()}
    return datasets.Dataset.from_dict({name: [None] for name in features}, features=datasets.Features(features))


def _types_of_column(joined: Sequence[Any], error: Exception) -> str | None:
    """The column that an error of `datasets` is about, with its types; None where the text does not say.

    The text itself begins with the types of all columns, and what is wrong comes after the part that is shown.
    """
    found = re.search(r"the key (.+?) of features", str(error))
    kinds = [str(data.features[found[1]]) for data in joined if found[1] in data.features] if found else []
    return f"{found[1]} is {' and '.join(dict.fromkeys(kinds))}" if found and kinds else None
