"""Taken documents -> the folder of a subset: the rows with all their columns, and the manifest. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.corpus.files.checked_columns import CheckedColumns
from ladm.corpus.files.data_set import reading_rows
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError
from ladm.selection.budget import Domains, taken_rows
from ladm.selection.changed_inputs import as_recorded_by, changed_inputs
from ladm.selection.formats.card import CARD_FILE, card_text
from ladm.selection.formats.content import AllRows, SubsetContent, subset_content
from ladm.selection.formats.destination import Destination
from ladm.selection.formats.hub_push import push_subset
from ladm.selection.formats.tables import write_arrow, write_shards
from ladm.selection.formats.token_files import write_megatron, write_npy
from ladm.selection.manifest import MANIFEST_FILE, ChosenRows, Manifest
from ladm.selection.manifest_file import head_of, write_manifest
from ladm.selection.sources import SelectionSource
from ladm.storage.checksum_list import CHECKSUM_FILE, write_checksums
from ladm.storage.files import write_whole

ROWS_AT_A_TIME = 10_000


_WRITERS: dict[str, Callable[[SubsetContent, Path], object]] = {
    "arrow": write_arrow,
    "parquet": partial(write_shards, kind="parquet"),
    "jsonl": partial(write_shards, kind="jsonl"),
    "megatron": write_megatron,
    "npy": write_npy,
}


def write_subset(
    place: Destination,
    sources: Sequence[SelectionSource],
    domains: Domains,
    manifest: Manifest,
    *,
    every: AllRows | None,
    weights: Mapping[str, float] | None,
    push: str | None,
) -> None:
    """Write the taken rows in the order of the data, run after run, card, manifest and checksums; whole or not at all.

    `weights`: those of the domains, where `--quota` gave some. With `every`, all rows instead; with `push`, to the Hub
    as well.
    Raises LadmError where the rows of several runs have columns of different types.
    """
    content = subset_content(sources, domains, every=every)
    taken = taken_rows(domains)

    def fill(folder: Path) -> None:
        _WRITERS[manifest.format](content, folder)
        card = card_text(manifest, rows=len(content), folder=place.name, repository=push, weights=weights)
        write_whole(folder / CARD_FILE, [card.encode()])
        # Of the rows alone, so that equal rows have equal lists: card and manifest name the folder. The card is its
        # owner's to complete, and the manifest has a checksum of its own.
        write_checksums(folder, without=[CARD_FILE])
        # The manifest last: it is what makes a folder a subset.
        write_manifest(folder, manifest, _chosen(sources, taken))

    place.write(fill, after=None if push is None else partial(_push, place.name, push))


def require_same_subset(
    place: Destination,
    sources: Sequence[SelectionSource],
    domains: Domains,
    manifest: Manifest,
    *,
    push: str | None,
    work: Path,
) -> None:
    """The end of a command whose subset exists already: raise LadmError unless it would be made in the same way.

    With `push` it is uploaded to the Hub, which takes equal files a second time without a copy.
    """
    with place.read_manifest() as there:
        comparable = as_recorded_by(head_of(there), manifest)
    write_manifest(work, comparable, _chosen(sources, taken_rows(domains)))
    # It names the command, all that was read, and every chosen row with its id.
    with place.read_manifest() as there, (work / MANIFEST_FILE).open("rb") as own:
        is_same = all(a == b for a, b in zip_longest(there, own))
    if not is_same:
        with place.read_manifest() as there, (work / MANIFEST_FILE).open("rb") as own:
            others = {name: run.folder for name, run in sources[0].columns.others.items()}
            runs = [source.run.folder for source in sources]
            changed = changed_inputs(head_of(there), head_of(own), runs=runs, joined_runs=others)
        has = "has" if len(changed) == 1 else "have"
        what = f": {', '.join(changed)} {has} other content now" if changed else ", or by another version of ladm"
        replacing = "" if "://" in place.name else ", or --overwrite to replace the subset"
        raise LadmError(
            f"{place.name} exists already: it was made from other data{what}; give another --output{replacing}"
        )
    if not place.file_names() - {MANIFEST_FILE, CARD_FILE, CHECKSUM_FILE}:
        raise LadmError(
            f"{place.name} has a manifest, but its rows are missing; remove it, and run the same command again"
        )
    if push is not None:
        _push(place.name, push, Path(place.name))


def _push(name: str, repository: str, folder: Path) -> None:
    # The client of the Hub uploads from this machine alone.
    is_address = "://" in name
    place = "FOLDER" if is_address else name
    command = shlex.join(["hf", "upload", repository, place, "--repo-type", "dataset", "--delete", "data/train-*"])
    how = "; copy it to a FOLDER of this machine, and" if is_address else ":"
    push_subset(folder, repository, remedy=f"the subset is in {name}{how} {command}")


def _chosen(sources: Sequence[SelectionSource], taken: npt.NDArray[np.int64]) -> Iterator[ChosenRows]:
    """The taken rows by run, for the manifest."""
    for source in sources:
        positions = source.positions_among(taken)
        ids = _ids(source.rows, positions)
        yield ChosenRows(data=source.run.identity.data, positions=_in_batches(positions), ids=ids)


def _in_batches(positions: npt.NDArray[np.int64]) -> Iterator[list[int]]:
    for start in range(0, len(positions), ROWS_AT_A_TIME):
        yield positions[start : start + ROWS_AT_A_TIME].tolist()


def _ids(rows: Rows, positions: npt.NDArray[np.int64]) -> Iterator[list[Any]]:
    """The id by which its owner knows each row, in batches."""
    columns = [name for name in ("id", "index") if name in rows.column_names]
    subset = CheckedColumns(rows.select(positions), columns)
    for start in range(0, len(positions), ROWS_AT_A_TIME):
        part = positions[start : start + ROWS_AT_A_TIME].tolist()
        with reading_rows(rows.name):
            # Without a column `datasets` has no rows either.
            found = subset.values(slice(start, start + ROWS_AT_A_TIME)) if columns else {}
        labels = [*(found[name] for name in columns), part]
        # Ids may be of any type in a data set of somebody else; JSON has a few.
        yield [
            next(label if isinstance(label, (int, str)) else str(label) for label in row if label is not None)
            for row in zip(*labels, strict=True)
        ]
