"""The columns that a run derives from those it stores: named scores, shares over layers, length, random. No torch.

Shape suffixes: B rows of a batch, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from ladm.method.reduction import reduce_cds
from ladm.runs.columns.sink_layers import SINK_MASS_COLUMN, layers_after_sinks
from ladm.runs.folder import Run
from ladm.runs.results import columns_of, lists_as_matrix
from ladm.settings.named_scores import NAMED_SCORES
from ladm.settings.signals import CDS, COLUMNS_OF, LONGATTN, OF_CDS

Floats = npt.NDArray[np.float64]

COPY_SHARE_COLUMN = "copy_share_per_layer"
NEAR_SHARE_COLUMN = "near_share_per_layer"
SHARES = {"copy_share": COPY_SHARE_COLUMN, "sink_mass": SINK_MASS_COLUMN, "near_share": NEAR_SHARE_COLUMN}
"""The stored column that each derived share needs, which runs of older formats may lack."""
OF_ANY_RUN = ("length", "random")
"""Derived columns that need neither layers nor a model."""
LONGATTN_PARTS = COLUMNS_OF[LONGATTN]
"""What the score of LongAttn is made of, relative to the documents that are ranked together."""


@dataclass(frozen=True, kw_only=True)
class DerivedColumn:
    """A column that is computed from others of `scores.parquet`, a batch at a time."""

    sources: tuple[str, ...]
    compute: Callable[[pa.RecordBatch], Floats]


def possible_columns(signals: Collection[str]) -> list[str]:
    """The columns that a run of these signals may have; which of those over layers it has, its settings decide."""
    stored = [column for signal in signals for column in COLUMNS_OF.get(signal, ())]
    over_layers = OF_CDS if CDS in signals else ()
    both = (LONGATTN,) if LONGATTN in signals else ()
    return ["score", *stored, *OF_ANY_RUN, *over_layers, *both]


def derivations(run: Run, *, seed: int, layers: tuple[int, ...], first_row: int = 0) -> dict[str, DerivedColumn]:
    """Every derived column that the run's own columns allow, by name, over some of its layers."""
    present = set(columns_of(run.folder))
    made = {"length": DerivedColumn(sources=("num_tokens",), compute=lambda batch: floats_of(batch["num_tokens"]))}
    labels = tuple(name for name in ("id", "index", "chunked_index") if name in present)
    if labels:
        compute = partial(random_numbers, labels=labels, seed=seed, first_row=first_row)
        made["random"] = DerivedColumn(sources=("position", *labels), compute=compute)
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
    if NEAR_SHARE_COLUMN in present:
        # The layers of `robust`, of whose PFS it is a share.
        later = NAMED_SCORES["robust"].layers_of(layers)
        made["near_share"] = _over_layers(run, NEAR_SHARE_COLUMN, "mean", later)
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


def _over_layers(run: Run, column: str, how: str, layers: tuple[int, ...]) -> DerivedColumn:
    used = [run.identity.layers.index(layer) for layer in layers]

    def compute(batch: pa.RecordBatch) -> Floats:
        return reduce_cds(lists_as_matrix(batch[column], run.folder)[:, used], how)

    return DerivedColumn(sources=(column,), compute=compute)


def _copy_share(run: Run, layers: tuple[int, ...], *, has_sinks: bool) -> DerivedColumn:
    """The mean over the layers after the last sink layer: what a layer of sinks copies says nothing of the text."""
    used: list[int] = []

    def compute(batch: pa.RecordBatch) -> Floats:
        # On the first batch only, so that listing the columns of a run does not read its sink masses.
        if not used:
            clean = layers_after_sinks(run, layers) if has_sinks else layers
            used.extend(run.identity.layers.index(layer) for layer in clean)
        return reduce_cds(lists_as_matrix(batch[COPY_SHARE_COLUMN], run.folder)[:, used], "mean")

    return DerivedColumn(sources=(COPY_SHARE_COLUMN,), compute=compute)


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
    # A hash rather than a generator: a row has its number in whatever order the rows are read. The index counts beside
    # the id, because ids may be repeated, and documents with one number would be drawn together.
    return np.array([xxhash.xxh3_64_intdigest(repr(key).encode()) / 2**64 for key in keys])


def floats_of(column: pa.Array) -> Floats:
    """A column of numbers as float64; NaN where there is none."""
    values_B: Floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values_B
