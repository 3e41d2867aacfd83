"""A finished run -> scalar columns of its rows by name: stored with it, added by another signal, or derived.

Everything that ranks, filters or compares documents reads its numbers here. A name is looked up in `scores.parquet`
first, then in `signals/*/scores.parquet`, which are joined by `position`. Statistics of texts that were computed again
with another table of token counts are in both, and those in `signals/text` count. Imports no torch.

Shape suffixes: B rows of a batch, N rows with a score in the order of `scores.parquet`, T rows of the data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ladm.errors import StorageError, UsageError
from ladm.runs.columns.added_signals import added_columns, how_to_add, own_columns, require_rows_of_run, stored_columns
from ladm.runs.columns.derived import LONGATTN_PARTS, SHARES, DerivedColumn, derivations, floats_of
from ladm.runs.folder import Run
from ladm.runs.layout import PARQUET_FILE
from ladm.runs.results import column_types, count_scored, require_any_score, require_finished, score_batches
from ladm.settings.fields import nearest
from ladm.settings.signals import CDS, COLUMNS_OF, LONGATTN

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SCORE = "score"
"""The column that the results of a run are sorted by."""


def column_names(run: Run) -> list[str]:
    """The columns that `read_columns` can read: stored ones first, then those of added signals, then derived ones.

    Columns of a signal of other rows than the run's are not among them. Raises IncompleteError for an unfinished run.
    """
    require_finished(run)
    own, added = own_columns(run), added_columns(run)
    stored = [name for name in stored_columns(run.folder) if name in own or name in added]
    names = [*stored, *added, *derivations(run, seed=0, layers=run.identity.layers)]
    if set(LONGATTN_PARTS) <= set(names):
        names.append(LONGATTN)
    return list(dict.fromkeys(names))


def score_name(run: Run) -> str:
    """What the score of a run is: `score`; or, without CDS, the first column of its first signal, which it repeats.

    It is `score` where the run has no such column, as while it is computed again.
    """
    first = next((column for signal in run.identity.signals for column in COLUMNS_OF.get(signal, ())), SCORE)
    return first if CDS not in run.identity.signals and first in column_names(run) else SCORE


def read_columns(run: Run, names: Sequence[str], *, seed: int = 0, layers: tuple[int, ...] | None = None) -> pa.Table:
    """`position` and the named columns of every row with a score, as float64 in the order of `scores.parquet`.

    NaN where a row has no value. `seed` is that of the column `random`. With `layers` derived columns are those of a
    run of these layers alone. Memory: 8 bytes a row and column.
    Raises UsageError for a name that is not one of `column_names`.
    """
    require_known(run, names)
    count = count_scored(run.folder)
    arrays = {name: np.empty(count) for name in names}
    positions = np.empty(count, dtype=np.int64)
    fill_columns(run, arrays, positions, seed=seed, layers=layers)
    return pa.table({"position": positions, **arrays})


def fill_columns(
    run: Run,
    arrays: Mapping[str, Floats],
    positions_N: Ints,
    *,
    seed: int,
    layers: tuple[int, ...] | None = None,
    first_row: int = 0,
) -> None:
    """`read_columns` into arrays of the caller, who decides whether they are in memory or on disk.

    `first_row`: the number of the run's first row among those of all runs, where several are ranked together.
    """
    require_known(run, arrays)
    # Both parts of `longattn` are read in the same pass as the other columns, whether or not they are wanted too.
    parts = {name: np.empty(len(positions_N)) for name in LONGATTN_PARTS if LONGATTN in arrays}
    names = list(dict.fromkeys([*(name for name in arrays if name != LONGATTN), *parts]))
    start = 0
    derived = derivations(run, seed=seed, layers=layers or run.identity.layers, first_row=first_row)
    for positions_B, columns in _batches(run, names, derived):
        batch = slice(start, start + len(positions_B))
        positions_N[batch] = positions_B
        for name, values_B in columns.items():
            for target in (arrays, parts):
                if name in target:
                    target[name][batch] = values_B
        start += len(positions_B)
    if parts:
        arrays[LONGATTN][:] = longattn(*parts.values())


def float32_columns(run: Run, names: Iterable[str]) -> set[str]:
    """Those of the named columns that are stored in float32, which `read_columns` widens; derived ones are not."""
    own, added = column_types(run.folder), added_columns(run)
    # A list is no column of numbers, and what is added has no other column of its name, as in `_batches`.
    types = {name: column_types(added[name])[name] if name in added else own.get(name) for name in names}
    return {name for name, kind in types.items() if kind == pa.float32()}


def stored_limit(limit: float) -> float:
    """The float32 number that a limit for a column of float32 means: the one that results show in the same digits.

    A row that is shown with 0.7 has 0.699999988, and a limit of 0.7 includes it. A limit beyond the range of float32
    stays as it is, so that one just above 0 excludes 0.
    """
    with np.errstate(over="ignore", under="ignore"):
        found = float(np.float32(limit))
    return found if np.isfinite(found) and found else limit


def require_known(run: Run, names: Iterable[str]) -> None:
    """Raise UsageError for a name that is not one of `column_names`, with those there are.

    Raises LadmError for a run without any score, and for a column of an added signal that has other rows than the run.
    """
    known = column_names(run)
    for name in names:
        if name not in known:
            require_any_score(run)
            require_rows_of_run(run, LONGATTN_PARTS[0] if name == LONGATTN else name)
            # Every new run of CDS has them, so the name is right and the run is old.
            if name in SHARES and CDS in run.identity.signals:
                raise UsageError(
                    f"{run.folder} has no column {name}, because it did not store {SHARES[name]}; score its rows again "
                    "with this version of ladm"
                )
            # A name that only looks like one of its columns may be that of a signal.
            hint = how_to_add(run, name) or nearest(name, known) or f"; it has {', '.join(known)}"
            raise UsageError(f"{run.folder} has no column {name}{hint}")


def longattn(ds_N: Floats, v_N: Floats) -> Floats:
    """LongAttn's score of rows that are ranked together: z(DS) - 0.5 z(V)."""
    return standardised(ds_N) - 0.5 * standardised(v_N)


def standardised(values_N: Floats) -> Floats:
    """(value - mean) / standard deviation; 0 where all values are equal. NaN stays NaN and does not count."""
    if np.isnan(values_N).all():
        return np.full_like(values_N, np.nan)
    deviation = float(np.nanstd(values_N))
    centred: Floats = values_N - np.nanmean(values_N)
    return centred / deviation if deviation > 0 else centred


def _batches(
    run: Run, names: Sequence[str], derivable: Mapping[str, DerivedColumn]
) -> Iterator[tuple[Ints, dict[str, Floats]]]:
    """Positions and columns, a batch at a time in the order of `scores.parquet`."""
    # What is stored wins over a column of the same name that is added or derived.
    stored, added = own_columns(run), added_columns(run)
    joined = {name: _by_position(added[name], name, run.num_rows) for name in names if name in added}
    derived = {name: derivable[name] for name in names if name not in stored and name not in joined}
    wanted = {"position", *(name for name in names if name in stored)}
    wanted.update(source for each in derived.values() for source in each.sources)
    for batch in score_batches(run.folder, sorted(wanted)):
        positions_B = batch["position"].to_numpy()
        columns = {name: floats_of(batch[name]) for name in names if name in stored}
        columns |= {name: values_T[positions_B] for name, values_T in joined.items()}
        columns |= {name: each.compute(batch) for name, each in derived.items()}
        yield positions_B, columns


def _by_position(folder: Path, name: str, num_rows: int) -> Floats:
    """A column of an added signal, NaN where a row has none: (T,)."""
    values_T = np.full(num_rows, np.nan)
    for batch in score_batches(folder, ["position", name]):
        positions_B = batch["position"].to_numpy()
        if len(positions_B) and not 0 <= positions_B.min() <= positions_B.max() < num_rows:
            raise StorageError(f"{folder / PARQUET_FILE} is damaged: it has rows that the run does not have")
        values_T[positions_B] = floats_of(batch[name])
    return values_T
