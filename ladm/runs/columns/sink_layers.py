"""A finished run -> which of its layers are dominated by attention sinks. Imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ladm.runs.folder import Run
from ladm.runs.results import count_scored, score_batches
from ladm.settings.layers import AFTER_SINKS, spell_layers
from ladm.settings.named_scores import NAMED_SCORES

SINK_MASS_COLUMN = "sink_mass_per_layer"
HIGH_SINK_MASS = 0.55
"""Above it most of a layer's distant attention falls on a handful of keys. Medians over 208 documents of 4,096 tokens
(SmolLM2-135M): 0.66 to 0.82 in layers 3-10, which have sinks, 0.49 in layer 18, 0.02 to 0.30 in the others."""
MOST_ROWS = 10_000


def median_sink_mass(run: Run) -> dict[int, float]:
    """The median sink mass of each layer of a run that stored it; empty where no row has a score.

    Of many rows evenly spaced ones are read.
    """
    every = max(1, count_scored(run.folder) // MOST_ROWS)
    masses: list[list[float]] = []
    for batch in score_batches(run.folder, ["rank", SINK_MASS_COLUMN]):
        chosen = pa.array(batch["rank"].to_numpy() % every == 0)
        masses += batch[SINK_MASS_COLUMN].filter(chosen).to_pylist()
    if not masses:
        return {}
    return dict(zip(run.identity.layers, np.median(np.array(masses), axis=0).tolist(), strict=True))


def sinks_in_mean(layers: tuple[int, ...], median_of: dict[int, float], *, is_weighted: bool) -> str | None:
    """Why a mean over these layers says little; None where none of them has a high sink mass.

    `median_of`: as `median_sink_mass`. `is_weighted`: is it a mean of value-weighted CDS?
    """
    sinks = [layer for layer in layers if median_of.get(layer, 0.0) > HIGH_SINK_MASS]
    if not sinks:
        return None
    return (
        f"in layer{'s' if len(sinks) > 1 else ''} {spell_layers(sinks)} a few tokens receive up to "
        f"{max(median_of[layer] for layer in sinks):.0%} of the distant attention, and a "
        f"{'' if is_weighted else 'plain '}mean over layers depends on where those tokens are"
    )


def robust_has_sinks(layers: tuple[int, ...], median_of: dict[int, float]) -> bool:
    """Does the score `robust` of a run of these layers count one with sinks, although layers without come after it?"""
    last = max((layer for layer, mass in median_of.items() if mass > HIGH_SINK_MASS), default=-1)
    return NAMED_SCORES["robust"].layers_of(layers)[0] <= last < max(median_of, default=-1)


def robust_command(run: Run, median_of: dict[int, float]) -> str:
    """The command line that makes another run with the score `robust`, without the layers up to the last with sinks."""
    command = f"ladm rescore {shlex.quote(str(run.folder))} --score robust"
    # The robust score leaves out the earlier half of the layers. A model may have sinks in the later half too.
    if robust_has_sinks(run.identity.layers, median_of):
        command += f" --layers {AFTER_SINKS}"
    return f"{command} --output {shlex.quote(f'{run.folder}-robust')}"


def layers_after_sinks(run: Run, layers: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Of these layers of a run (None: all) those behind the last one with sinks, or all where none would be left."""
    layers = layers or run.identity.layers
    masses = median_sink_mass(run)
    return layers[first_after_sinks([masses[layer] for layer in layers if layer in masses]) :]


def describe_layers(run: Run, layers: tuple[int, ...], *, after_sinks: bool) -> str:
    """A line with the layers that make a score of a run, where a word such as `after-sinks` stands for them."""
    why = ""
    if after_sinks and layers == run.identity.layers:
        why = ", all of the run: no layer has attention sinks, or none comes after the last one with sinks"
    elif after_sinks:
        why = ", those after the last one with attention sinks"
    return f"layers    {spell_layers(layers)} of {spell_layers(run.identity.layers)}{why}"


def first_after_sinks(median_L: Sequence[float] | npt.NDArray[np.float64]) -> int:
    """The place of the first layer behind the last one with sinks, or 0 where none would be left.

    `median_L`: the median sink mass of each layer. For 0.1, 0.8, 0.6, 0.2 it is 3.
    """
    sinks = np.flatnonzero(np.asarray(median_L) > HIGH_SINK_MASS)
    first = int(sinks[-1]) + 1 if len(sinks) else 0
    return first if first < len(median_L) else 0
