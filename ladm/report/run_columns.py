"""A run and expressions -> arrays, in memory or, where they are large, in files of a folder that is then removed.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError
from ladm.progress import Echo
from ladm.report.ranking import PageRanking
from ladm.runs.columns.joined_columns import JoinedColumns
from ladm.runs.columns.joined_files import require_matches
from ladm.selection.evaluation import evaluate
from ladm.selection.manifest import Manifest
from ladm.selection.windows import documents_of
from ladm.settings.expressions import Expression, parse_expression, spell_column
from ladm.settings.joins import ROWS, split_name
from ladm.storage.disk_arrays import array_on_disk
from ladm.storage.temporary import temporary_folder

Floats = npt.NDArray[np.float64]

IN_MEMORY_UP_TO = 4_000_000
"""Number of values held in memory; beyond it arrays are memory-mapped."""


@dataclass(frozen=True, kw_only=True)
class FurtherColumns:
    """What the explorer shows beside the columns of the run itself."""

    requested: list[Expression]
    """Named by the user; an error where they cannot be read."""
    of_subset: list[Expression]
    """What the subset was ranked by and guarded with."""

    def readable(self, columns: JoinedColumns, echo: Echo) -> list[Expression]:
        """Those to show; a line to print for what a subset used and is gone, such as its rows."""
        columns.require(name for each in self.requested for name in each.names)
        found = list(self.requested)
        for each in self.of_subset:
            try:
                columns.require(each.names)
                if each.has_document_mean or any(split_name(name)[0] in (ROWS, *columns.files) for name in each.names):
                    # Opened for the check that they are those of the run.
                    _ = columns.rows
            except LadmError as error:
                echo(f"note      the page does not show {each.text}, which the subset used: {error}")
            else:
                found.append(each)
        return list({each.text: each for each in found}.values())


def further_columns(requested: Sequence[Expression], manifest: Manifest | None, shown: Sequence[str]) -> FurtherColumns:
    """What to show beside the columns `shown` of the run.

    What a subset was ranked by is left out where its values are not those of this run alone: with `rank` or `z` over
    other runs too or without some documents, and numbers drawn with another seed.
    """
    of_subset = []
    if manifest is not None:
        by = parse_expression(manifest.by)
        is_same = by.is_column or not (manifest.other_runs or manifest.excluded_domains or manifest.id_lists)
        if is_same and "random" not in by.names:
            of_subset.append(by)
        # Texts and dates have no histogram; the table of guards has what they dropped.
        guards = (guard for guard in manifest.guards if guard.kept is None and guard.left_out is None)
        names = (spell_column(guard.column) for guard in guards)
        of_subset += [parse_expression(name) for name in names if name is not None]
    return FurtherColumns(
        requested=[each for each in requested if each.text not in shown],
        of_subset=[each for each in of_subset if each.text not in shown],
    )


@contextmanager
def open_columns(
    columns: JoinedColumns, names: Sequence[str], expressions: Sequence[Expression], ranking: PageRanking, count: int
) -> Iterator[dict[str, Floats]]:
    """The named columns of all `count` documents, in the order of the ranking, and the expressions by their text.

    Raises LadmError for added signals of other rows, and for rows that are not the run's where one of theirs is used.
    """
    # What the expressions are made of is needed only until they are evaluated.
    used = list(dict.fromkeys([*names, *(name for each in expressions for name in each.names)]))
    with temporary_folder() as work:
        in_memory = count * len(used) <= IN_MEMORY_UP_TO
        arrays: dict[str, Floats] = {
            name: np.empty(count) if in_memory else array_on_disk(work / f"column-{k}", "f8", count)
            for k, name in enumerate(used)
        }
        positions_N = np.empty(count, dtype=np.int64)
        # All columns in one pass over the file, because several of them are derived from the same lists of layers.
        columns.fill(arrays, positions_N)
        require_matches(columns.files)
        found = {name: arrays[name] for name in names}
        for each in expressions:
            found[each.text] = evaluate(each, arrays, read_documents=lambda: documents_of([columns.rows])[positions_N])
        if ranking.ranked is not None:
            # By identity: an expression that is a column alone is the same array once more.
            for values_N in {id(array): array for array in found.values()}.values():
                values_N[:] = values_N[ranking.ranked.order_N]
        try:
            yield found
        finally:
            # Closed before the folder is removed, which Windows refuses for a mapped file.
            arrays.clear()
            found.clear()
