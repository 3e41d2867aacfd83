"""A profile and the run that is selected from -> the band: between which values intact documents lie. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy.typing as npt

from ladm.errors import LadmError, UsageError
from ladm.runs.columns.profile_length import length_warning
from ladm.runs.folder import Run
from ladm.runs.results import columns_of
from ladm.settings.fields import flag
from ladm.settings.guards import Band, BandGuard
from ladm.settings.layers import spell_layers
from ladm.settings.named_scores import NAMED_SCORES
from ladm.settings.profiles import Profile, read_profile
from ladm.settings.selection import SelectSettings
from ladm.settings.signals import OF_CDS

_SCORES = ("score", *NAMED_SCORES, "median")
"""Columns made of CDS, whose scale the spans decide."""


def profile_with_band(run: Run, path: str, *, ranked_by: str) -> Profile:
    """A profile whose band, that of `band_of`, is for a run.

    Raises UsageError for a file that is no profile or has no band, and LadmError for a profile of another model, and
    where documents are ranked by `score` and the run's is not the profile's, or by a score of another method.
    """
    profile = read_profile(path)
    if not profile.band:
        raise UsageError(f"--profile {path} has no band; calibrate again with this version of ladm to write one")
    if profile.model["sha256"] != run.identity.model_sha256:
        raise LadmError(f"{path} was calibrated for another model than the one of {run.folder}")
    # Quantiles of one score are no limits for another: their scales differ by orders of magnitude.
    own = (run.identity.reduction, run.identity.score_form)
    if ranked_by == "score" and own != (profile.reduction, profile.method.ablation):
        heads, focus = profile.reduction.heads is not None, profile.reduction.focus
        is_stored = run.identity.cds_column(profile.method.ablation, heads=heads, focus=focus) in columns_of(run.folder)
        remedy = (
            f"rescore first: ladm rescore {run.folder} --score {path} -o RUN2"
            if is_stored
            else f"score the rows again with --profile {path}, which stores what it takes"
        )
        raise LadmError(
            f"the band of {path} is for the score of that profile, which {run.folder} does not have; {remedy}"
        )
    if ranked_by in _SCORES:
        _require_same_method(run, profile, path, ranked_by)
    return profile


def band_of(run: Run, profile: Profile) -> Band:
    """The band over the layers of the run: all that were calibrated, or those of the profile's score alone."""
    is_narrow = profile.reduction.layers == run.identity.layers != profile.band_layers
    return profile.band | profile.score_layers_band if is_narrow else profile.band


def require_same_layers(run: Run, profile: Profile, path: str, columns: list[str]) -> None:
    """Raise LadmError where one of the columns is over other layers in the run than in both bands."""
    layers = run.identity.layers
    if profile.band_layers in (None, layers) or (profile.score_layers_band and layers == profile.reduction.layers):
        return
    for column in columns:
        if column in OF_CDS:
            assert profile.band_layers is not None
            wanted = spell_layers(profile.band_layers)
            raise LadmError(
                f"the band of {path} has {column} over layers {wanted}, and {run.folder} has layers "
                f"{spell_layers(layers)}; score with --layers {wanted} and rescore with the profile, or guard columns "
                "that are not over layers, such as --within score:profile"
            )


def length_warnings(settings: SelectSettings, runs: Sequence[Run], tokens_N: npt.NDArray[Any]) -> Iterator[str]:
    """A warning for each profile that a guard or a run uses and that was calibrated at another length.

    `tokens_N`: the lengths of the documents with a score.
    """
    has_band = any(isinstance(guard, BandGuard) for guard in settings.guards)
    by_score = "score" in (*settings.ranking.names, *(guard.column for guard in settings.guards))
    of_runs = [run.identity.about.get("profile") for run in runs] if by_score or has_band else []
    paths = [settings.profile, *of_runs] if has_band else of_runs
    for path in dict.fromkeys(str(path) for path in paths if path is not None):
        try:
            profile = read_profile(path)
        except LadmError:
            # To rank by the scores of a run needs no profile: its file may be gone.
            continue
        line = length_warning(profile, path, tokens_N)
        if line is not None:
            yield line


def _require_same_method(run: Run, profile: Profile, path: str, ranked_by: str) -> None:
    had_values, wanted = run.identity.method.as_dict(), profile.method.as_dict()
    # That of a profile says which of two stored forms its own score is made of. The contrast set itself is scored
    # without an ablation, and of the other columns only the median takes the run's own.
    del wanted["ablation"]
    if ranked_by == "median":
        wanted["ablation"] = "none"
    for name, value in wanted.items():
        if had_values[name] != value:
            raise LadmError(
                f"{path} was calibrated with {flag(name)} {value}, and {run.folder} was scored with "
                f"{had_values[name]}, so that its band of {ranked_by} has another scale"
            )
