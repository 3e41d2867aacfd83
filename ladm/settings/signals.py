"""The names of the signals that `ladm score` computes, and the spelling of several of them. Imports no torch."""

from __future__ import annotations

from ladm.errors import UsageError
from ladm.settings.fields import nearest
from ladm.settings.named_scores import NAMED_SCORES

CDS, CONTEXT_GAIN, LONGATTN, TEXT, PROLONG = "cds", "context-gain", "longattn", "text", "prolong"
SIGNALS = (CDS, CONTEXT_GAIN, LONGATTN, TEXT, PROLONG)
"""In the order of their columns; the first column of the first signal is the score of a run without cds."""
DEFAULT_SIGNALS = (CDS, TEXT)
FAR_RARE = "far_rare"
"""The column of `text` whose values depend on a table of how common each token is."""
COLUMNS_OF = {
    CONTEXT_GAIN: ("gain", "gain_positive", "longfilter", "key_tokens", "gain_no_copy"),
    LONGATTN: ("longattn_ds", "longattn_v"),
    TEXT: (
        "gzip_ratio", FAR_RARE, "unigram_entropy", "repeated_4grams", "repeated_13grams", "characters_per_token",
        "digits",
    ),
    PROLONG: ("prolong", "prolong_per_pair", "prolong_pairs"),
}  # fmt: skip
"""The columns that a run stores of each signal; those of CDS depend on the settings."""
OF_CDS = (*NAMED_SCORES, "median", "copy_share", "sink_mass", "near_share")
"""The columns that are derived from CDS, over the layers of a run, whatever its score is made of."""
OPTIONS_OF = {
    # Not the lengths and strides of the method: configs/paper.yaml has them, and serves every signal of a run.
    # A score or a profile stands before what it sets.
    CDS: ("score", "profile", "variant", "ablation", "reduce", "layers", "record"),
    CONTEXT_GAIN: ("context_gain",),
    TEXT: ("unigrams",),
    PROLONG: ("prolong_pairs",),
}
"""The settings of `ladm score` that concern one signal alone."""


def parse_signals(text: str | None) -> tuple[str, ...] | None:
    """`cds,context-gain` as names in the order of `SIGNALS`, each once; None stays None.

    Raises UsageError for an unknown name, and where there is none.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in SIGNALS:
            raise UsageError(f"--signals {name!r} is not one of {', '.join(SIGNALS)}{nearest(name, SIGNALS)}")
    if not names:
        raise UsageError(f"--signals is empty; choose from {', '.join(SIGNALS)}")
    return tuple(name for name in SIGNALS if name in names)
