"""A run -> its columns as arrays, in memory or, where they are large, in files of a folder that is then removed.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from ladm.runs.columns import fill_columns
from ladm.runs.folder import Run
from ladm.storage.disk_arrays import array_on_disk
from ladm.storage.temporary import temporary_folder

Floats = npt.NDArray[np.float64]

IN_MEMORY_UP_TO = 4_000_000
"""Number of values held in memory; beyond it arrays are memory-mapped."""


@contextmanager
def open_columns(run: Run, names: Sequence[str], count: int) -> Iterator[dict[str, Floats]]:
    """The named columns of all `count` documents, in the order of `scores.parquet`.

    Raises LadmError for added signals of other rows.
    """
    with temporary_folder() as work:
        in_memory = count * len(names) <= IN_MEMORY_UP_TO
        columns: dict[str, Floats] = {
            name: np.empty(count) if in_memory else array_on_disk(work / f"column-{k}", "f8", count)
            for k, name in enumerate(names)
        }
        # All columns in one pass over the file, because several of them are derived from the same lists of layers.
        fill_columns(run, columns, np.empty(count, dtype=np.int64))
        try:
            yield columns
        finally:
            # Closed before the folder is removed, which Windows refuses for a mapped file.
            columns.clear()
