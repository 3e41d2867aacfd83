"""A finished run and the settings of `ladm rescore` -> the reduction to make, and the stored column to make it from."""

from __future__ import annotations

from ladm.errors import LadmError, UsageError
from ladm.method.grid import Ablation
from ladm.method.reduction import Reduction
from ladm.runs.columns.sink_layers import SINK_MASS_COLUMN, layers_after_sinks
from ladm.runs.folder import Run
from ladm.runs.results import columns_of
from ladm.settings.layers import AFTER_SINKS, parse_layers, spell_layers
from ladm.settings.named_scores import NamedScore, named_score
from ladm.settings.profiles import Profile, read_profile
from ladm.settings.runs import RescoreSettings


def requested_reduction(settings: RescoreSettings, run: Run) -> tuple[Reduction, Ablation]:
    """The reduction of the profile or the flags, the rest as in the run, and the ablation of the CDS that it reduces.

    Raises UsageError for a layer that the run does not have, and LadmError where a profile or a named score is for
    another model or method.
    """
    reduction, ablation = _requested(settings, run)
    absent = sorted(set(reduction.layers) - set(run.identity.layers))
    if absent:
        there = spell_layers(run.identity.layers)
        raise UsageError(f"layer {absent[0]} is not one of {run.folder}, which has layers {there}")
    return reduction, ablation


def stored_column(run: Run, reduction: Reduction, ablation: Ablation) -> str:
    """The column of `scores.parquet` that holds what is reduced. Raises LadmError where it was not stored."""
    name = run.identity.cds_column(ablation, heads=reduction.heads is not None, focus=reduction.focus)
    if name not in columns_of(run.folder):
        again = "this version of ladm" if reduction.heads is None else "--record heads"
        raise LadmError(f"{run.folder} did not store {name}; score it again with {again}")
    return name


def _requested(settings: RescoreSettings, run: Run) -> tuple[Reduction, Ablation]:
    own, form = run.identity.reduction, run.identity.score_form
    if settings.profile_path is not None:
        profile = read_profile(settings.profile_path)
        _require_same(profile, run, settings.profile_path)
        return profile.reduction, profile.method.ablation
    layers = _layers_after_sinks(run) if settings.layers == AFTER_SINKS else parse_layers(settings.layers)
    if settings.score is not None:
        named = _named(settings.score, run)
        return Reduction(layers=layers or named.layers_of(run.identity.layers), focus=named.focus), named.form
    if layers is not None:
        if own.how == "signed" and settings.reduce is None:
            raise LadmError(
                f"{run.folder} was scored with the signed weights of a profile, which other layers do not have; give "
                "--reduce too, such as --reduce mean, or another --profile"
            )
        return Reduction(how=settings.reduce or own.how, layers=layers, focus=own.focus), form
    # The weights of a profile were fitted to its own reduction; with another one every layer or head counts the same.
    return Reduction(how=settings.reduce or own.how, layers=own.layers, heads=own.heads, focus=own.focus), form


def _layers_after_sinks(run: Run) -> tuple[int, ...]:
    """The layers after those with sinks, or all where that leaves none. Raises LadmError without stored sink masses."""
    if SINK_MASS_COLUMN not in columns_of(run.folder):
        raise LadmError(f"{run.folder} did not store {SINK_MASS_COLUMN}; score it again with this version of ladm")
    return layers_after_sinks(run)


def _named(score: str, run: Run) -> NamedScore:
    """The score of that name. Raises LadmError where the run was scored by another variant or ablation."""
    named, method = named_score(score), run.identity.method
    if named.variant not in (None, method.variant):
        raise LadmError(
            f"--score {score} needs the variant {named.variant}, but {run.folder} was scored with {method.variant}"
        )
    # The second form, which is that without sigma, is stored beside `none` always, and beside others with `forms`.
    has_second = method.ablation == "none" or (named.form == "no-std" and run.identity.record == "forms")
    if named.form != method.ablation and not has_second:
        raise LadmError(f"--score {score} cannot be made from {run.folder}, which was scored with {method.ablation}")
    return named


def _require_same(profile: Profile, run: Run, path: str) -> None:
    """Raise LadmError unless the run was scored by the profile's model and method."""
    if profile.model["sha256"] != run.identity.model_sha256:
        raise LadmError(f"{path} was calibrated for another model than the one of {run.folder}")
    # The ablation may differ in one way: a run that stored both forms can be reduced from the one without sigma.
    had_values = run.identity.method.as_dict()
    for name, value in profile.method.as_dict().items():
        had = had_values[name]
        if had != value and not (name == "ablation" and run.identity.stores_both_forms and value == "no-std"):
            raise LadmError(f"{path} scores with {name} {value}, but {run.folder} was scored with {had}")
