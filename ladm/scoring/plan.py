"""Settings -> everything that is decided before the first forward pass: model, layers, devices, dtype, kernels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ladm.cores import available_cores
from ladm.errors import LadmError, UsageError, install_hint
from ladm.method.reduction import Reduction
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.progress import Echo, silent
from ladm.runs.layout import SIGNALS
from ladm.scoring.engines.batch_sizes import BatchRule, batch_rule
from ladm.scoring.engines.placement import Placement, find_placement
from ladm.scoring.signal_choice import started_run
from ladm.settings.layers import parse_layers
from ladm.settings.profiles import Profile, read_profile
from ladm.settings.score import ScoreSettings
from ladm.settings.signals import CDS, CONTEXT_GAIN, LONGATTN, PROLONG, TEXT
from ladm.signals.scorer import SignalScorer
from ladm.signals.text_columns import TextColumns, read_unigrams
from ladm.signals.text_scorer import TextScorer

if TYPE_CHECKING:
    from ladm.modeling.observer import Observer
    from ladm.scoring.engines.ray_connection import Cluster


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the model runs on, and how: every `auto` of the settings resolved."""

    devices: tuple[str, ...]
    dtype: str
    attention: str
    backend: str
    fused: str
    """Kernels for the elementwise work of the layers, or `none`."""
    passed_over: tuple[str, ...] = ()
    """A line to print for each attention kernel that should be faster and does not work here."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is decided before the first forward pass. It can be pickled."""

    settings: ScoreSettings
    facts: ModelFacts
    layers: tuple[int, ...]
    reduction: Reduction
    profile: Profile | None
    hardware: Hardware
    placement: Placement | None
    """Where this launch stands among those that share the run; None: it has the run to itself."""
    cluster: Cluster | None
    """The Ray cluster and how much of it is used; None: this machine."""
    text: TextColumns | None
    """How the statistics of texts are taken; None: they are not wanted."""

    @property
    def signals(self) -> tuple[str, ...]:
        """What is computed of a row."""
        return self.settings.signal_names

    def make_scorer(self) -> Callable[[str], SignalScorer]:
        """A function that loads the model on the device that it is given; it can be pickled."""
        return partial(_load_scorer, self)

    def batch_rows(self) -> BatchRule:
        """How many rows of a length go into one batch."""
        return batch_rule(self.settings.batch_size, on_cuda=self.hardware.devices[0].startswith("cuda"))


def choose_layers(settings: ScoreSettings, facts: ModelFacts, profile: Profile | None) -> tuple[int, ...]:
    """The layers to score. Raises LadmError for layers that do not exist, or whose attention cannot be scored."""
    # Only what can be compared without reading the weights: `identity_of` compares their SHA-256, once they are known.
    if profile is not None and max(profile.reduction.layers) >= facts.num_layers:
        raise LadmError(
            f"{settings.profile} was calibrated for another model: it names layer {max(profile.reduction.layers)}, and "
            f"{facts.name} has layers 0-{facts.num_layers - 1}"
        )
    # Only CDS refuses some layers; without it nothing reads the layers of the plan.
    layers = tuple(range(facts.num_layers))
    if CDS in settings.signal_names:
        layers = facts.choose_layers(parse_layers(settings.layers))
    if LONGATTN in settings.signal_names and (problem := facts.problem_of((0,))) is not None:
        raise LadmError(f"{facts.name}: {problem}; longattn needs its attention too: leave it out of --signals")
    return layers


def make_plan(
    settings: ScoreSettings,
    *,
    facts: ModelFacts | None = None,
    ask: Callable[[Callable[[], Hardware]], Hardware] | None = None,
    try_attention: bool = True,
    echo: Echo = silent,
) -> Plan:
    """Decide device, dtype, layers and kernels. Needs no rows, and of the output folder only what a run there was
    started with.

    `facts` are those of `settings.model`, where the caller has read them already. `ask` calls a function in a process
    that has imported torch already; without it, what needs torch is found out here. `try_attention`: let attention
    kernels compute something on the device, which takes device memory for as long as that process lives. `echo` is
    called with a line while a Ray cluster has no free device.
    Raises LadmError for a model or device that cannot be used.
    """
    facts = facts or model_facts(settings.model, weights=settings.runs_model)
    profile = None if settings.profile is None else read_profile(settings.profile)
    layers = choose_layers(settings, facts, profile)
    placement = find_placement(settings, os.environ)
    cluster = _join_cluster(settings) if settings.engine == "ray" else None
    recorded = _recorded_attention(settings)
    if cluster is None:
        rank = placement.rank if placement else None
        find_out = partial(find_hardware, settings, facts, recorded=recorded, rank=rank, try_attention=try_attention)
        hardware = find_out() if ask is None else ask(find_out)
    else:
        # Resolved on a node of the cluster: the driver may have no GPU.
        on_node = replace(settings, device="cuda" if cluster.cuda else "cpu", workers=None)
        hardware = cluster.on_a_device(partial(find_hardware, on_node, facts, recorded=recorded, rank=0), echo=echo)
    if profile is not None:
        reduction = profile.reduction
    else:
        reduction = Reduction(how=settings.reduce, layers=settings.score_layers(layers), focus=settings.focus)
    return Plan(
        text=_text_columns(settings, facts),
        settings=settings,
        facts=facts,
        layers=layers,
        reduction=reduction,
        profile=profile,
        hardware=hardware,
        placement=placement,
        cluster=cluster,
    )


def _text_columns(settings: ScoreSettings, facts: ModelFacts) -> TextColumns | None:
    """As for rows without a text, with a table of unigrams if one is given: all that is known without the rows."""
    if TEXT not in settings.signal_names:
        return None
    given = settings.unigrams
    unigrams = None if given is None else read_unigrams(given, vocab_size=facts.vocab_size)
    return TextColumns(unigrams=unigrams, has_text=False)


def _join_cluster(settings: ScoreSettings) -> Cluster:
    try:
        from ladm.scoring.engines.ray_connection import connect
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise LadmError(f"--engine ray: Ray is not installed; {install_hint('ray')}") from None
    return connect(settings.device, settings.workers)


def _recorded_attention(settings: ScoreSettings) -> str | None:
    """The attention kernel of the run in the output folder; of a signal that is added to a run, that of the run."""
    folder = Path(settings.output)
    run = started_run(settings)
    if run is None and folder.parent.name == SIGNALS:
        run = started_run(replace(settings, output=str(folder.parent.parent)))
    return None if run is None else run.identity.backend.get("attention")


def find_hardware(
    settings: ScoreSettings, facts: ModelFacts, *, recorded: str | None, rank: int | None, try_attention: bool = True
) -> Hardware:
    """What this process, or a worker on a machine like this one, runs on."""
    if not settings.runs_model:
        # Statistics of texts: as many processes as there are cores, and no torch. Of launches on one machine that each
        # have a rank, every one is a process.
        processes = settings.workers or (available_cores() if rank is None else 1)
        return Hardware(devices=("cpu",) * processes, dtype="float32", attention="none", backend="none", fused="none")
    from ladm.method.attention_choice import choose_attention
    from ladm.modeling.devices import resolve_backend, resolve_devices, resolve_dtype
    from ladm.modeling.fused import resolve_fused

    devices = resolve_devices(settings.device, workers=settings.workers, rank=rank)
    dtype = resolve_dtype(settings.dtype, devices[0])
    attention = choose_attention(
        devices[0], dtype, requested=settings.attention, head_size=facts.head_size, group_size=facts.group_size,
        recorded=recorded, elsewhere=settings.engine == "ray", check=try_attention,
    )  # fmt: skip
    return Hardware(
        devices=devices,
        dtype=str(dtype).removeprefix("torch."),
        attention=attention.kernel,
        passed_over=attention.passed_over,
        backend=resolve_backend(settings.backend, devices[0]),
        fused=resolve_fused(
            settings.fused, device=devices[0], dtype=dtype, model_type=facts.model_type, activation=facts.activation
        ),
    )


def load_planned(plan: Plan, device: str) -> Observer:
    """The model on a device, with the layers, precision and attention of the plan, and what its signals need of it."""
    import torch
    from transformers.utils import logging

    from ladm.modeling.observer import load_observer
    from ladm.signals.forward_pass import FIRST_LAYER

    logging.disable_progress_bar()
    dtype = getattr(torch, plan.hardware.dtype)
    return load_observer(
        plan.facts,
        layers=plan.layers if CDS in plan.signals else (),
        dtype=dtype,
        device=torch.device(device),
        attention=plan.hardware.attention,
        fused=plan.hardware.fused,
        also=(FIRST_LAYER,) if LONGATTN in plan.signals else (),
        head=CONTEXT_GAIN in plan.signals or PROLONG in plan.signals,
    )


def _load_scorer(plan: Plan, device: str) -> SignalScorer:
    settings, names = plan.settings, plan.signals
    # Before torch is imported: statistics of texts alone need no model, and must not wait for one to load.
    if names == (TEXT,) and plan.text is not None:
        return TextScorer(columns=plan.text, vocab_size=plan.facts.vocab_size)
    from ladm.signals.forward_pass import PassSignals
    from ladm.signals.prolong_scorer import ProlongScorer
    from ladm.signals.row_scorer import RowScorer

    if names == (PROLONG,):
        return ProlongScorer(load_planned(plan, device), most_pairs=settings.prolong_pairs)
    if PROLONG in names:
        raise UsageError("prolong cannot be computed together with other signals; give --signals prolong alone")
    signals = PassSignals(
        cds=CDS in names,
        gain=settings.context_gain if CONTEXT_GAIN in names else None,
        longattn=LONGATTN in names,
        ablation=settings.ablation,
        record=settings.record,
        backend=plan.hardware.backend,
    )
    return RowScorer(
        plan.facts, load_planned(plan, device), settings, signals=signals, reduction=plan.reduction, text=plan.text
    )
