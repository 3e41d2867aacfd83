"""A started job, and a model or a tokenizer in another place -> whether the job may go on with them. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ladm.modeling.model_files import model_folder, model_identity
from ladm.runs.folder import Run
from ladm.runs.layout import IDENTITY_FILE


def moved_files(job: Any, had: Any, *, scores: Path) -> frozenset[str]:
    """Those of `model` and `tokenizer` that are in another place than before, and not known to be others.

    Until something is scored, rows alone are made with them, by the tokenizer: `prepare` compares its content. Raises
    LadmError for a model that is not there.
    """
    found = set()
    if job.tokenizer is not None and job.tokenizer != had.tokenizer:
        found.add("tokenizer")
    if job.model != had.model and _may_score(job.model, scores):
        found.add("model")
    return frozenset(found)


def _may_score(model: str, scores: Path) -> bool:
    """Is nothing scored so far, or with a model of the same configuration and weights?"""
    if not (scores / IDENTITY_FILE).is_file():
        return True
    run = Run.read(scores).identity
    if run.content.get("model") is None:
        return False
    weights = run.names_weights
    return model_identity(str(model_folder(model, weights=weights)), weights=weights) == run.model_sha256
