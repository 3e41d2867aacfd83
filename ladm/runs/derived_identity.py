"""A run -> the identities of the runs that are made from it, without a model. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ladm.method.grid import Ablation
from ladm.method.reduction import Reduction
from ladm.runs.identity import FORMAT, RunIdentity
from ladm.settings.signals import TEXT


def score_record(reduction: Reduction, form: Ablation, *, ablation: Ablation) -> dict[str, Any]:
    """How the score is made; the form has a key only where it differs from that of the settings."""
    return reduction.identity() | ({} if form == ablation else {"form": form})


def rescored_identity(
    run: RunIdentity, reduction: Reduction, form: Ablation, *, source: str, profile: str | None = None
) -> RunIdentity:
    """The identity of the run that another reduction makes from `run`; `profile`: its file, if it has one.

    Raises LadmError for a run without CDS.
    """
    about = {key: value for key, value in run.about.items() if key != "profile"} | {"rescored_from": source}
    if profile is not None:
        about["profile"] = str(Path(profile).absolute())
    settings = {**run.settings, "reduce": reduction.how}
    score = score_record(reduction, form, ablation=run.settings["ablation"])
    return RunIdentity(run.content | {"settings": settings, "score": score, "about": about})


def identity_so_far(run: RunIdentity, *, rows: int, units: int, source: str) -> RunIdentity:
    """The identity of a run of those `rows` of `run`, in as many `units`, that are there before it is finished."""
    # Compared, unlike `about`: no command may take it for the run itself.
    part = {"rows": rows, "units": units}
    return RunIdentity(run.content | {"part": part, "about": run.about | {"rescored_from": source}})


def identity_of_text(run: RunIdentity, how: dict[str, str]) -> RunIdentity:
    """The identity of the statistics of texts that are added to `run`; `how` as in `RunIdentity.signals`.

    Whichever command adds them: no statistic depends on a device, a precision or a package.
    """
    made_of = {"settings": {"method": TEXT}, "layers": [], "score": {}, "signals": {TEXT: how}, "versions": {}}
    backend = {"device": "cpu", "attention": "none", "focus": "none"}
    # Model and tokenizer are those of the run, for whoever asks which rows of which model these are.
    same = {name: run.content.get(name, {}) for name in ("model", "tokenizer", "data", "unit_rows")}
    about = {name: run.about.get(name, "") for name in ("rows", "model")}
    about |= {"rows_content": run.rows_content} if run.rows_content is not None else {}
    return RunIdentity({"format": FORMAT, **made_of, **same, "dtype": "float32", "backend": backend, "about": about})
