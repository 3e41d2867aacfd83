"""`LadmScore` for Ray Data's `map_batches` and `Dataset.map` of `datasets`: batches of texts -> with their LADM scores.

Imports neither of the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ladm.api.keywords import AnyPath
from ladm.errors import LadmError
from ladm.integrations.scoring import COLUMNS, LazyScorer, ScoredText

if TYPE_CHECKING:
    from typing import Unpack

    from ladm.api.flags import ScorerFlags

_TYPES = dict(zip(COLUMNS, (pa.float64(), pa.int64(), pa.string()), strict=True))
_ERROR = COLUMNS[2]


class LadmScore:
    """Adds `ladm_score`, `ladm_tokens`, `ladm_error` and the columns of `signals` to every batch.

        documents.map_batches(LadmScore, fn_constructor_args=("org/model",), fn_constructor_kwargs={"length": 32768},
                              compute=ActorPoolStrategy(size=8), num_gpus=1, batch_size=64, batch_format="pyarrow")

        dataset.with_format("arrow").map(LadmScore("org/model", length=32768), batched=True, batch_size=64)

    Each process loads the model once. The first `length` tokens of the column `text_key` are scored; a shorter text has
    no score. With `signals=["cds", "text"]` there are columns such as `ladm_gzip_ratio` too. With
    `batch_format="pyarrow"` what is missing is null; with NumPy's and with pandas' a missing number is NaN, and a
    missing error an empty text. Columns that have these names before are replaced.
    `settings`: those of `ladm.Scorer`, such as `device`. To check them before the actors start, call `require_model`
    with them.
    """

    def __init__(
        self,
        model: AnyPath,
        *,
        length: int,
        text_key: str = "text",
        **settings: Unpack[ScorerFlags],
    ) -> None:
        self._text_key = text_key
        self._scorer = LazyScorer(model, length=length, settings=settings, own=("text_key",))

    def __call__(self, batch: Any) -> Any:
        """The batch, a table of pyarrow, a dictionary of arrays or a DataFrame of pandas, with the columns.

        Raises LadmError for any other batch, and for one without the column of texts.
        """
        is_arrow = isinstance(batch, (pa.Table, pa.RecordBatch))
        if not is_arrow and not isinstance(batch, dict) and not hasattr(batch, "assign"):
            raise LadmError(
                "a batch must be a table of pyarrow, a dictionary of arrays or a DataFrame of pandas, not an object of "
                f'type {type(batch).__name__}; choose it with batch_format, or for `datasets` with_format("arrow")'
            )
        names = batch.column_names if is_arrow else list(map(str, batch))
        if self._text_key not in names:
            raise LadmError(f"a batch has no column {self._text_key}; give text_key, one of {', '.join(names)}")
        # Both pyarrow and pandas allow it, and neither says in plain words that it cannot give one of them.
        doubled = sorted({name for name in (self._text_key, *self._scorer.columns) if names.count(name) > 1})
        if doubled:
            raise LadmError(f"a batch has several columns {', '.join(doubled)}; rename them, or leave out all but one")
        if isinstance(batch[self._text_key], (str, bytes)):
            raise LadmError(f"{self._text_key} of a batch must be a list or an array of texts, not one text")
        if is_arrow:
            found = self._columns(batch[self._text_key].to_pylist())
            batch = batch.drop_columns([name for name in found if name in batch.column_names])
            for name, values in found.items():
                batch = batch.append_column(name, pa.array(values, _TYPES.get(name, pa.float64())))
            return batch
        # Ray's other formats have no null: NumPy's numbers have NaN, and its texts are objects.
        made: dict[str, Any] = {}
        for name, values in self._columns(list(batch[self._text_key])).items():
            if name == _ERROR:
                made[name] = np.array([error or "" for error in values], dtype=object)
            else:
                made[name] = np.array(values, dtype=np.float64)
        # A DataFrame has `assign`; whoever gives one has pandas.
        return batch | made if isinstance(batch, dict) else batch.assign(**made)

    def _columns(self, texts: list[Any]) -> dict[str, list[Any]]:
        found: list[ScoredText] = self._scorer.score(texts)
        columns = [row.columns() for row in found]
        return {name: [row[name] for row in columns] for name in self._scorer.columns}
