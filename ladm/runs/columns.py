"""A finished run -> scalar columns of its rows by name: stored with it, added by another signal, or derived.

Everything that ranks, filters or compares documents reads its numbers here. A name is looked up in `scores.parquet`
first, then in `signals/*/scores.parquet`, which are joined by `position`. Imports no torch.

Shape suffixes: B rows of a batch, L layers, N rows with a score in the order of `scores.parquet`, T rows of the data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ladm.errors import StorageError, UsageError
from ladm.method.reduction import reduce_cds
from ladm.runs.added_signals import added_columns, require_rows_of_run, stored_columns
from ladm.runs.folder import Run
from ladm.runs.layout import PARQUET_FILE
from ladm.runs.results import column_types, columns_of, count_scored, lists_as_matrix, require_finished, score_batches
from ladm.runs.sink_layers import SINK_MASS_COLUMN, layers_after_sinks
from ladm.settings.fields import nearest
from ladm.settings.named_scores import NAMED_SCORES
from ladm.settings.signals import CDS, COLUMNS_OF
from ladm.settings.signals import LONGATTN as LONGATTN_SIGNAL

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COPY_SHARE_COLUMN = "copy_share_per_layer"
OF_ANY_RUN = ("length", "random")
"""Derived columns that need neither layers nor a model."""
OVER_LAYERS = (*NAMED_SCORES, "median", "copy_share", "sink_mass")
"""Derived columns over the layers of a run, whatever its score is made of."""
LONGATTN = COLUMNS_OF[LONGATTN_SIGNAL]
"""What the score of LongAttn is made of, relative to the documents that are ranked together."""


@dataclass(frozen=True, kw_only=True)
class _Derived:
    """A column that is computed from others of `scores.parquet`, a batch at a time."""

    sources: tuple[str, ...]
    compute: Callable[[pa.RecordBatch], Floats]


def column_names(run: Run) -> list[str]:
    """The columns that `read_columns` can read: stored ones first, then those of added signals, then derived ones.

    Columns of a signal of other rows than the run's are not among them. Raises IncompleteError for an unfinished run.
    """
    require_finished(run)
    names = [*stored_columns(run.folder), *added_columns(run), *_derivations(run, seed=0, layers=run.identity.layers)]
    if set(LONGATTN) <= set(names):
        names.append("longattn")
    return list(dict.fromkeys(names))


def possible_columns(signals: Collection[str]) -> list[str]:
    """The columns that a run of these signals may have; which of those over layers it has, its settings decide."""
    stored = [column for signal in signals for column in COLUMNS_OF.get(signal, ())]
    over_layers = OVER_LAYERS if CDS in signals else ()
    both = (LONGATTN_SIGNAL,) if LONGATTN_SIGNAL in signals else ()
    return ["score", *stored, *OF_ANY_RUN, *over_layers, *both]


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
    seed: int = 0,
    layers: tuple[int, ...] | None = None,
    first_row: int = 0,
) -> None:
    """`read_columns` into arrays of the caller, who decides whether they are in memory or on disk.

    `first_row`: the number of the run's first row among those of all runs, where several are ranked together.
    """
    require_known(run, arrays)
    # Both parts of `longattn` are read in the same pass as the other columns, whether or not they are wanted too.
    direct = [name for name in arrays if name != "longattn"]
    relative = {name: np.empty(len(positions_N)) for name in LONGATTN if "longattn" in arrays}
    start = 0
    names = [*direct, *(name for name in relative if name not in direct)]
    derivations = _derivations(run, seed=seed, layers=layers or run.identity.layers, first_row=first_row)
    for positions_B, columns in _batches(run, names, derivations):
        part = slice(start, start + len(positions_B))
        positions_N[part] = positions_B
        for name, values_B in columns.items():
            for target in (arrays, relative):
                if name in target:
                    target[name][part] = values_B
        start += len(positions_B)
    if relative:
        arrays["longattn"][:] = longattn(*relative.values())


def float32_columns(run: Run, names: Iterable[str]) -> set[str]:
    """Those of the named columns that are stored in float32, which `read_columns` widens; derived ones are not."""
    own, added = column_types(run.folder), added_columns(run)
    # A list is no column of numbers, and what is stored wins, as in `_batches`.
    types = {name: column_types(added[name])[name] if name in added else own.get(name) for name in names}
    return {name for name, kind in types.items() if kind == pa.float32()}


def stored_limit(limit: float) -> float:
    """The number that a limit for a column of float32 means: the float32 that results show in the same digits.

    A row that is shown with 0.7 has 0.699999988, and a limit of 0.7 includes it. A limit beyond the range of float32
    stays as it is, so that one just above 0 excludes 0.
    """
    with np.errstate(over="ignore", under="ignore"):
        found = float(np.float32(limit))
    return found if np.isfinite(found) and found else limit


def require_known(run: Run, names: Iterable[str]) -> None:
    """Raise UsageError for a name that is not one of `column_names`, with those there are.

    Raises LadmError for a column of an added signal that has other rows than the run.
    """
    known = column_names(run)
    for name in names:
        if name not in known:
            require_rows_of_run(run, LONGATTN[0] if name == LONGATTN_SIGNAL else name)
            hint = nearest(name, known) or f"; it has {', '.join(known)}"
            raise UsageError(f"{run.folder} has no column {name}{hint}")


def longattn(ds_N: Floats, v_N: Floats) -> Floats:
    """LongAttn's score of rows that are ranked together: z(DS) - 0.5 z(V)."""
    return standardised(ds_N) - 0.5 * standardised(v_N)


def standardised(values_N: Floats) -> Floats:
    """Minus the mean, over the standard deviation; 0 where all values are equal. NaN stays NaN and does not count."""
    if np.isnan(values_N).all():
        return np.full_like(values_N, np.nan)
    deviation = float(np.nanstd(values_N))
    centred: Floats = values_N - np.nanmean(values_N)
    return centred / deviation if deviation > 0 else centred


def _batches(
    run: Run, names: Sequence[str], derivations: Mapping[str, _Derived]
) -> Iterator[tuple[Ints, dict[str, Floats]]]:
    """Positions and columns, a batch at a time in the order of `scores.parquet`."""
    # What is stored wins over a column of the same name that is added or derived.
    stored, added = stored_columns(run.folder), added_columns(run)
    joined = {name: _by_position(added[name], name, run.num_rows) for name in names if name in added}
    derived = {name: derivations[name] for name in names if name not in stored and name not in joined}
    wanted = {"position", *(name for name in names if name in stored)}
    wanted.update(source for each in derived.values() for source in each.sources)
    for batch in score_batches(run.folder, sorted(wanted)):
        positions_B = batch["position"].to_numpy()
        columns = {name: _floats(batch[name]) for name in names if name in stored}
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
        values_T[positions_B] = _floats(batch[name])
    return values_T


def _derivations(run: Run, *, seed: int, layers: tuple[int, ...], first_row: int = 0) -> dict[str, _Derived]:
    """Every derived column that the run's own columns allow, by name, over some of its layers."""
    present = set(columns_of(run.folder))
    made = {"length": _Derived(sources=("num_tokens",), compute=lambda batch: _floats(batch["num_tokens"]))}
    labels = tuple(name for name in ("id", "index", "chunked_index") if name in present)
    if labels:
        compute = partial(random_numbers, labels=labels, seed=seed, first_row=first_row)
        made["random"] = _Derived(sources=("position", *labels), compute=compute)
    # Runs of a signal alone have no layers and no method.
    if "cds_per_layer" not in present:
        return made
    for name, column, how, counted in _scores(run, layers):
        if column in present:
            made[name] = _over_layers(run, column, how, counted)
    if COPY_SHARE_COLUMN in present:
        made["copy_share"] = _copy_share(run, layers, has_sinks=SINK_MASS_COLUMN in present)
    if SINK_MASS_COLUMN in present:
        made["sink_mass"] = _over_layers(run, SINK_MASS_COLUMN, "mean", layers)
    return made


def _scores(run: Run, layers: tuple[int, ...]) -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
    """Name, column, reduction and the layers that count, of the scores that any run of CDS has."""
    method = run.identity.method
    for name, score in NAMED_SCORES.items():
        # A second form, where a run has one, is that without sigma, whatever the first is.
        if score.variant in (None, method.variant) and score.form in (method.ablation, "no-std"):
            column = run.identity.cds_column(score.form, heads=False, focus=score.focus)
            yield name, column, "mean", score.layers_of(layers)
    yield "median", run.identity.cds_column(method.ablation, heads=False), "median", layers


def _over_layers(run: Run, column: str, how: str, layers: tuple[int, ...]) -> _Derived:
    used = [run.identity.layers.index(layer) for layer in layers]

    def compute(batch: pa.RecordBatch) -> Floats:
        return reduce_cds(lists_as_matrix(batch[column], run.folder)[:, used], how)

    return _Derived(sources=(column,), compute=compute)


def _copy_share(run: Run, layers: tuple[int, ...], *, has_sinks: bool) -> _Derived:
    """The mean over the layers after the last sink layer: what a layer of sinks copies says nothing of the text."""
    used: list[int] = []

    def compute(batch: pa.RecordBatch) -> Floats:
        # On the first batch only, so that listing the columns of a run does not read its sink masses.
        if not used:
            clean = layers_after_sinks(run, layers) if has_sinks else layers
            used.extend(run.identity.layers.index(layer) for layer in clean)
        return reduce_cds(lists_as_matrix(batch[COPY_SHARE_COLUMN], run.folder)[:, used], "mean")

    return _Derived(sources=(COPY_SHARE_COLUMN,), compute=compute)


def random_numbers(batch: pa.RecordBatch, labels: Sequence[str], *, seed: int, first_row: int = 0) -> Floats:
    """A number from 0 to 1 for each row, made of `seed` and of what names the row in the columns `labels`.

    `first_row` is as in `fill_columns`.
    """
    columns = [batch[name].to_pylist() for name in labels]
    ids = batch["id"].to_pylist() if "id" in labels else [None] * len(batch)
    places = [first_row + position for position in batch["position"].to_pylist()]
    # Without an id several rows may have one index, as where shards were put together; their places differ.
    keys = [
        (seed, *names) if row_id is not None else (seed, *names, place)
        for row_id, place, *names in zip(ids, places, *columns, strict=True)
    ]
    # A hash rather than a generator: a document has its number whatever else is in the data, and in whatever order.
    return np.array([xxhash.xxh3_64_intdigest(repr(key).encode()) / 2**64 for key in keys])


def _floats(column: pa.Array) -> Floats:
    """A column of numbers as float64; NaN where there is none."""
    values_B: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values_B
