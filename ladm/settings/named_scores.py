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
    later_half: bool = False
    """Only the later half of the layers counts."""

    def layers_of(self, layers: tuple[int, ...]) -> tuple[int, ...]:
        """Those of a run's layers, in ascending order, that the score is a mean of. Of 3 layers: the last 2."""
        return layers[len(layers) // 2 :] if self.later_half else layers


NAMED_SCORES = {
    "released": NamedScore(variant="released", focus="plain", form="none"),
    "paper": NamedScore(variant="paper", focus="plain", form="none"),
    # Value weights take most of the attention sinks out of a layer, the later half leaves out the layers that have
    # them. A rule that looked at each run's own rows would give runs of one model scores that do not compare.
    "robust": NamedScore(variant=None, focus="value", form="no-std", later_half=True),
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
