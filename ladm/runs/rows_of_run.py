"""A run -> the rows that it scored, where they are now. Imports no torch."""

from __future__ import annotations

from ladm.corpus.rows import Rows, open_rows
from ladm.errors import LackOfMemoryError, LadmError, StorageError
from ladm.runs.folder import Run


def rows_of_run(run: Run, name: str | None) -> Rows:
    """The rows called `name`, or with None those at the place where the run found them; their content is not compared.

    Raises LadmError where there are none, StorageError for damaged ones.
    """
    try:
        return open_rows(name or run.identity.rows_name, limit=run.num_rows)
    except (StorageError, LackOfMemoryError):
        # Neither is cured by another place.
        raise
    except LadmError as error:
        raise LadmError(str(error) if name else f"{error}; give --rows where they are now") from None
