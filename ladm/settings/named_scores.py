"""The name of a score, `released`, `paper` or `robust` -> what it fixes of the method. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from ladm.errors import UsageError
from ladm.method.grid import Ablation, FocusKind, Variant

PROFILE_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class NamedScore:
    """A mean over layers of one form of CDS."""

    variant: Variant | None
    """None: either."""
    focus: FocusKind
    form: Ablation
    """`none` with sigma, `no-std` without."""


NAMED_SCORES = {
    "released": NamedScore(variant="released", focus="plain", form="none"),
    "paper": NamedScore(variant="paper", focus="plain", form="none"),
    # Value weights take the attention sinks out of every layer, so no layers have to be chosen for a model.
    "robust": NamedScore(variant=None, focus="value", form="no-std"),
}


def is_profile(score: str | None) -> bool:
    """Is a value of --score the file of a profile rather than a name?"""
    return score is not None and score.endswith(PROFILE_ENDINGS)


def named_score(name: str) -> NamedScore:
    """The score of that name. Raises UsageError where there is none."""
    if name not in NAMED_SCORES:
        raise UsageError(
            f"--score {name!r} is neither {', '.join(NAMED_SCORES)} nor a .yaml file written by ladm calibrate"
        )
    return NAMED_SCORES[name]
