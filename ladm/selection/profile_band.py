"""A profile and the run that is selected from -> the band: between which values intact documents lie. No torch."""

from __future__ import annotations

from ladm.errors import LadmError, UsageError
from ladm.runs.folder import Run
from ladm.settings.guards import Band
from ladm.settings.profiles import read_profile


def band_for(run: Run, path: str, *, ranked_by: str) -> Band:
    """The band of a profile for a run.

    Raises UsageError for a file that is no profile or has no band, and LadmError for a profile of another model, and
    where documents are ranked by `score` and the run's is not the profile's.
    """
    profile = read_profile(path)
    if not profile.band:
        raise UsageError(f"--profile {path} has no band; ladm calibrate of this version writes one")
    if profile.model["sha256"] != run.identity.model_sha256:
        raise LadmError(f"{path} was calibrated for another model than the one of {run.folder}")
    # Quantiles of one score are no limits for another: their scales differ by orders of magnitude.
    own = (run.identity.reduction, run.identity.score_form)
    if ranked_by == "score" and own != (profile.reduction, profile.method.ablation):
        raise LadmError(
            f"the band of {path} is for the score of that profile, which {run.folder} does not have; rescore first: "
            f"ladm rescore {run.folder} --score {path} -o RUN2"
        )
    return profile.band
