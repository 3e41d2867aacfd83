"""A plan and its rows -> the identity of the run; and whether another machine would give the same. Imports no torch."""

from __future__ import annotations

import socket
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ladm.corpus.rows.fingerprint import absolute_name
from ladm.corpus.rows.reading import Rows
from ladm.errors import LadmError
from ladm.modeling.facts import ModelFacts
from ladm.modeling.model_files import CONFIG_FILE, model_identity, tokenizer_identity
from ladm.runs.derived_identity import score_record
from ladm.runs.folder import require_same_start, unit_rows_for
from ladm.runs.identity import FORMAT, RunIdentity, Signals
from ladm.scoring.engines.job import MakeScorer
from ladm.scoring.plan import Plan
from ladm.scoring.signal_choice import started_run
from ladm.settings.signals import CDS, CONTEXT_GAIN, PROLONG, TEXT
from ladm.signals.scorer import SignalScorer
from ladm.storage.identity import differences
from ladm.version import __version__


def identity_of(plan: Plan, rows: Rows, *, machine: dict[str, Any]) -> RunIdentity:
    """What the run is made with; all but `about` must be the same when it is resumed.

    `machine` is `machine_identity` of the plan's model. Raises LadmError when the profile was made for another model.
    """
    _require_model_of_profile(plan, machine["model"]["sha256"])
    if not plan.settings.runs_model:
        machine = _of_texts(machine)
    about = {
        "rows": absolute_name(rows.name),
        "rows_content": rows.content(),
        "model": absolute_name(plan.facts.name),
        "batch_size": plan.settings.batch_size,
        # For `ladm select --within profile`, which looks for the band there.
        **({} if plan.profile is None else {"profile": str(Path(str(plan.settings.profile)).absolute())}),
    }
    return _identity(
        plan, machine=machine, data=rows.identity(), signals={name: _how(plan, name) for name in plan.signals},
        unit_rows=unit_rows_for(len(rows)), about=about,
    )  # fmt: skip


def require_same_settings(plan: Plan) -> None:
    """Raise LadmError where the plan's run folder was started with other settings, a score that would be refused.

    Writes nothing, and compares neither rows nor model, which would have to be read from end to end.
    """
    # Statistics of texts that are added to a run have no settings.
    run = None if plan.signals == (TEXT,) else started_run(plan.settings)
    if run is not None and run.identity.is_as_written_now:
        had = run.identity
        same: dict[str, Any] = {"machine": had.machine, "data": had.data, "unit_rows": had.unit_rows, "about": {}}
        # How common a token is would have to be counted on the rows.
        signals = {name: how if name == TEXT else _how(plan, name) for name, how in had.signals.items()}
        require_same_start(run.folder, _identity(plan, signals=signals, **same))


def _identity(
    plan: Plan,
    *,
    machine: dict[str, Any],
    data: dict[str, Any],
    signals: Signals,
    unit_rows: int,
    about: dict[str, Any],
) -> RunIdentity:
    hardware = plan.hardware
    made_of: dict[str, Any] = {"settings": {"method": next(iter(signals))}, "layers": [], "score": {}}
    if CDS in signals:
        settings, method = plan.settings, plan.settings.method
        made_of = {
            "settings": {"method": "ladm", **method.as_dict(), "reduce": plan.reduction.how, "record": settings.record},
            "layers": list(plan.layers),
            "score": score_record(plan.reduction, settings.score_form, ablation=method.ablation),
        }
    # Left out where CDS is the only signal and where nothing is fused, as in runs from before there was a choice.
    more = {} if tuple(signals) == (CDS,) else {"signals": signals}
    fused = {} if hardware.fused == "none" else {"fused": hardware.fused}
    # `cuda`, without the number: a run may be resumed on another GPU.
    device = hardware.devices[0].split(":")[0]
    return RunIdentity(
        {
            "format": FORMAT,
            **made_of,
            **more,
            **machine,
            "data": data,
            # Precision and kernels change the last digits of a score, the versions of torch and transformers may.
            "dtype": hardware.dtype,
            "backend": {"device": device, "attention": hardware.attention, "focus": hardware.backend, **fused},
            # Here, and not computed on resume: a version with another rule would cut the rows at other places.
            "unit_rows": unit_rows,
            "about": about,
        }
    )


def require_model_of_profile(plan: Plan) -> None:
    """Raise LadmError when the profile was made for another model. Reads the weights where there is a profile."""
    if plan.profile is not None:
        _require_model_of_profile(plan, model_identity(plan.facts.folder))


def _require_model_of_profile(plan: Plan, sha256: dict[str, str]) -> None:
    if plan.profile is not None and plan.profile.model["sha256"] != sha256:
        raise LadmError(
            f"{plan.settings.profile} was calibrated for another model: the files of {plan.facts.name} have other "
            "SHA-256 digests; calibrate this model: ladm calibrate"
        )


def _how(plan: Plan, signal: str) -> dict[str, str]:
    """What changes the numbers of a signal, besides the rows and the model; for CDS that is the method."""
    if signal == CONTEXT_GAIN:
        return {"scheme": plan.settings.context_gain}
    if signal == PROLONG:
        most = plan.settings.prolong_pairs
        return {"pairs": "all" if most is None else str(most)}
    if signal == TEXT and plan.text is not None:
        return plan.text.how()
    return {}


def machine_identity(facts: ModelFacts, *, weights: bool = True) -> dict[str, Any]:
    """The part of the identity that depends on the files and packages of a machine, as in `RunIdentity.machine`.

    `weights=False`: where no signal runs the model.
    """
    return {
        "model": {"type": facts.model_type, "sha256": model_identity(facts.folder, weights=weights)},
        "tokenizer": tokenizer_identity(facts.folder),
        "versions": {"ladm": __version__} | {name: version(name) for name in ("torch", "transformers")},
    }


def _of_texts(machine: dict[str, Any]) -> dict[str, Any]:
    """The part of it that statistics of texts depend on: no weights, which other signals may need, and no packages."""
    model = machine["model"]
    config = {name: digest for name, digest in model["sha256"].items() if name == CONFIG_FILE}
    return machine | {"model": model | {"sha256": config}, "versions": {}}


def checked_scorer(make_scorer: MakeScorer, facts: ModelFacts, expected: RunIdentity, device: str) -> SignalScorer:
    """Load the model on a machine that may have other files and packages than the one that started the run.

    Raises LadmError with what differs.
    """
    # Statistics of texts depend on no package, and name none.
    had = {name: value for name, value in expected.machine.items() if value}
    here = machine_identity(facts, weights=expected.runs_model)
    found = {name: value for name, value in here.items() if name in had}
    differing = "".join(f"\n  {line}" for line in differences(had, found))
    if differing:
        raise LadmError(f"the node {socket.gethostname()} differs from what the run was started with:{differing}")
    return make_scorer(device)
