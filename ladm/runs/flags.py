"""A field of a run's identity -> what a person changed to change it. Imports no torch."""

from __future__ import annotations

SCORE_FLAGS = "--score, --layers, --reduce or --profile"
UNIGRAMS_FLAG = "--unigrams"
PART = "the rows so far"
_FIELD_NAMES = {
    "layers": "--layers", "score": SCORE_FLAGS, "dtype": "--dtype", "data": "the rows or --limit",
    "model": "--model", "tokenizer": "the tokenizer of --model", "versions": "the installed versions",
    "backend.device": "--device", "backend.attention": "--attention", "backend.focus": "--backend",
    "backend.fused": "--fused", "format": "the version of ladm", "signals.context-gain.scheme": "--context-gain",
    "signals.text.unigrams": UNIGRAMS_FLAG, "signals.text.of": "the rows", "signals.prolong.pairs": "--prolong-pairs",
    "signals": "--signals", "part": PART,
}  # fmt: skip


def flag_of_field(field: str) -> str:
    """What a person changed to change a field of the identity: `settings.d_afs` -> `--d-afs`."""
    # A run without CDS has the name of its first signal there.
    if field == "settings.method":
        return "--signals"
    # Both fields change together, and are one choice.
    if field == "settings.reduce":
        return SCORE_FLAGS
    if field.startswith("settings."):
        return "--" + field.removeprefix("settings.").replace("_", "-")
    # The longest keys stand first in the table, so that a part of `signals` is not named by the whole.
    found = [name for key, name in _FIELD_NAMES.items() if field == key or field.startswith(f"{key}.")]
    return found[0] if found else field
