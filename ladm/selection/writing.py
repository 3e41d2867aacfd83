"""Taken documents -> the folder of a subset: the rows with all their columns, and the manifest. Imports no torch."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError, one_line
from ladm.selection.budget import Domains
from ladm.selection.manifest import Chosen, Manifest, write_manifest
from ladm.selection.sources import Source
from ladm.storage.files import io_errors, sync_folder, sync_tree

ROWS_AT_A_TIME = 10_000


def write_subset(output: Path, sources: Sequence[Source], domains: Domains, manifest: Manifest) -> None:
    """Write the taken rows in the order of the data, run after run, with the manifest; whole or not at all.

    Raises LadmError where the rows of several runs have columns of different types.
    """
    taken = np.sort(np.concatenate([domain.taken_positions for domain in domains.values()]))
    parts = [taken_of(source, taken) for source in sources]
    subsets = [source.rows.select(positions) for source, positions in zip(sources, parts, strict=True)]
    partial = output.with_name(output.name + ".partial")
    with io_errors(output, "write"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _save(subsets, sources, partial)
        # The rename is the commit, so everything under the name has to be durable before it.
        sync_tree(partial)
        chosen = (
            Chosen(data=source.run.identity.data, positions=_in_batches(positions), ids=_ids(subset, positions))
            for source, positions, subset in zip(sources, parts, subsets, strict=True)
        )
        write_manifest(partial, manifest, chosen)
        # `select` has made sure that it is an empty folder.
        if output.exists():
            output.rmdir()
        partial.rename(output)
        sync_folder(output.parent)


def taken_of(source: Source, taken: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The positions in the data of one run of those among `taken`, sorted row numbers over all runs."""
    first, last = np.searchsorted(taken, (source.first, source.first + len(source.rows)))
    return taken[first:last] - source.first


def _save(subsets: Sequence[Any], sources: Sequence[Source], folder: Path) -> None:
    """Save the rows as a DatasetDict with `train`; a column that one data set lacks is null there."""
    import datasets

    if len(subsets) == 1:
        whole = subsets[0]
    else:
        try:
            # Of an empty part only the columns would count, and they may be of types that nothing can be merged with.
            whole = datasets.concatenate_datasets([subset for subset in subsets if len(subset)])
        # What Arrow and `datasets` raise for types that cannot be merged.
        except (ValueError, TypeError) as error:
            names = " and ".join(source.rows.name for source in sources)
            raise LadmError(f"the columns of {names} cannot be joined: {one_line(error)}") from None
    datasets.DatasetDict(train=whole).save_to_disk(str(folder))


def _in_batches(positions: npt.NDArray[np.int64]) -> Iterator[list[int]]:
    for start in range(0, len(positions), ROWS_AT_A_TIME):
        yield positions[start : start + ROWS_AT_A_TIME].tolist()


def _ids(subset: Any, positions: npt.NDArray[np.int64]) -> Iterator[list[Any]]:
    """What names each row for its owner, in batches."""
    columns = [name for name in ("id", "index") if name in subset.column_names]
    for start in range(0, len(positions), ROWS_AT_A_TIME):
        part = positions[start : start + ROWS_AT_A_TIME].tolist()
        found = subset.select_columns(columns)[start : start + ROWS_AT_A_TIME] if columns else {}
        labels = [*(found[name] for name in columns), part]
        # Ids may be of any type in a data set of somebody else; JSON has a few.
        yield [
            next(label if isinstance(label, (int, str)) else str(label) for label in row if label is not None)
            for row in zip(*labels, strict=True)
        ]
