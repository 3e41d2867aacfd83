"""What a run is made with -> the identity that its `run.json` will hold. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ladm.method.grid import Ablation, Method
from ladm.method.reduction import Reduction
from ladm.runs.identity import FORMAT, RunIdentity, Signals
from ladm.settings.signals import CDS, TEXT


def identity_of_scores(
    *,
    method: Method,
    record: str,
    layers: tuple[int, ...],
    reduction: Reduction,
    score_form: Ablation,
    machine: dict[str, Any],
    data: dict[str, Any],
    dtype: str,
    device_kind: str,
    attention: str,
    focus_backend: str,
    fused: str = "none",
    signals: Signals,
    unit_rows: int,
    about: dict[str, Any],
) -> RunIdentity:
    """The identity of a new run. `machine`: model, tokenizer and versions, as every machine of the run has them.

    `score_form`: the ablation of the CDS that make the score, which may be stored beside that of the method.
    `signals`: what is computed of a row; without `cds` neither method nor layers nor reduction matter.
    """
    made_of = {
        "settings": {"method": "ladm", **method.as_dict(), "reduce": reduction.how, "record": record},
        "layers": list(layers),
        "score": _score(reduction, score_form, ablation=method.ablation),
    }
    if CDS not in signals:
        made_of = {"settings": {"method": next(iter(signals))}, "layers": [], "score": {}}
    return RunIdentity(
        {
            "format": FORMAT,
            **made_of,
            # Left out where CDS is the only signal, as in runs from before there was a choice.
            **({} if tuple(signals) == (CDS,) else {"signals": signals}),
            **machine,
            "data": data,
            # Precision and kernels change the last digits of a score, the versions of torch and transformers may.
            "dtype": dtype,
            # `fused` is left out when nothing is fused, as in runs from before there was a choice.
            "backend": {"device": device_kind, "attention": attention, "focus": focus_backend}
            | ({} if fused == "none" else {"fused": fused}),
            # Here, and not computed on resume: a version with another rule would cut the rows at other places.
            "unit_rows": unit_rows,
            "about": about,
        }
    )


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
    score = _score(reduction, form, ablation=run.settings["ablation"])
    return RunIdentity(run.content | {"settings": settings, "score": score, "about": about})


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


def _score(reduction: Reduction, form: Ablation, *, ablation: Ablation) -> dict[str, Any]:
    """How the score is made; the form has a key only where it differs from that of the settings."""
    return reduction.identity() | ({} if form == ablation else {"form": form})
