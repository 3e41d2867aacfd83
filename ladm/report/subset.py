"""The folder of a subset, and a run -> what was selected, and which of the run's rows. Imports no torch.

Shape suffixes: T rows of the data, N documents with a score in the order of `scores.parquet`.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ladm.errors import LadmError
from ladm.runs.folder import Run
from ladm.selection.manifest import MANIFEST_FILE, Manifest
from ladm.selection.manifest_file import read_manifest_and_chosen

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ReportedSubset:
    """A subset, and the rows of one run that it took."""

    manifest: Manifest
    taken_T: Bools

    def taken_of(self, positions: array[int]) -> Bools:
        """Whether each document was taken, given the positions of all: (N,)."""
        return self.taken_T[np.frombuffer(positions, dtype=np.int64)]


def read_subset(folder: Path, run: Run, *, domain_key: str) -> ReportedSubset:
    """What was selected from `run`.

    Raises LadmError where `folder` is no subset, or one of another run, by another key, or that lists no rows.
    """
    manifest, chosen = read_manifest_and_chosen(folder)
    # Older manifests have no signals, and newer ones also those that were added to the run.
    own = {name: value for name, value in run.identity.for_manifest().items() if name != "signals"}
    # A subset may be of several runs, of which this page shows one.
    found = [
        k
        for k, each in enumerate((manifest.run, *manifest.other_runs))
        if all(each.get(name) == value for name, value in own.items())
    ]
    if not found:
        raise LadmError(f"{folder} was not selected from {run.folder}")
    if manifest.domain_key != domain_key:
        raise LadmError(f"{folder} was selected with --domain-key {manifest.domain_key}; give the same --domain-key")
    positions = _positions(chosen, found[0], run.num_rows)
    if positions is None:
        raise LadmError(
            f"{folder / MANIFEST_FILE} does not list the rows that were chosen from {run.folder}; select again"
        )
    taken_T = np.zeros(run.num_rows, dtype=np.bool_)
    taken_T[positions] = True
    return ReportedSubset(manifest=manifest, taken_T=taken_T)


def _positions(chosen: Any, number: int, num_rows: int) -> npt.NDArray[np.int64] | None:
    """The rows that were chosen from one of the runs; None where the content is no list of rows of it."""
    try:
        positions = np.asarray(chosen[number]["positions"])
    # A file that somebody has edited: other types, fewer runs, lists of several lengths.
    except (TypeError, KeyError, IndexError, ValueError):
        return None
    if positions.ndim != 1 or (len(positions) and positions.dtype.kind != "i"):
        return None
    if len(positions) and not 0 <= positions.min() <= positions.max() < num_rows:
        return None
    return positions.astype(np.int64)
