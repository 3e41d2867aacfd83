"""Settings -> everything that is known before the first forward pass: model, layers, devices, dtype, kernels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from ladm.errors import LadmError, UsageError, install_hint
from ladm.method.reduction import Reduction
from ladm.modeling.facts import ModelFacts, model_facts
from ladm.scoring.engines.shard import Place, Shard, parse_shard, place_of
from ladm.scoring.engines.work import BatchRule
from ladm.settings.layers import parse_layers
from ladm.settings.profiles import Profile, read_profile
from ladm.settings.score import ScoreSettings
from ladm.signals.scorer import Scorer

if TYPE_CHECKING:
    from ladm.modeling.observer import Observer
    from ladm.scoring.engines.ray_cluster import Cluster

CUDA_BATCH_TOKENS = 32_768


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What the model runs on, and how."""

    devices: tuple[str, ...]
    dtype: str
    attention: str
    backend: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is known before the first forward pass."""

    settings: ScoreSettings
    facts: ModelFacts
    layers: tuple[int, ...]
    reduction: Reduction
    profile: Profile | None
    hardware: Hardware
    place: Place | None
    """Where this launch stands among those that share the run; None: it has the run to itself."""
    cluster: Cluster | None
    """What of a Ray cluster is used; None: this machine."""

    def make_scorer(self) -> Callable[[str], Scorer]:
        """A function of the device that loads the model there; it can be pickled."""
        return partial(_load_scorer, self)

    def batch_rows(self) -> BatchRule:
        """How many rows of a length go into one step."""
        size = self.settings.batch_size
        tokens = CUDA_BATCH_TOKENS if self.hardware.devices[0].startswith("cuda") else 1
        return partial(_batch_rows, None if size == "auto" else size, tokens)


def make_plan(settings: ScoreSettings) -> Plan:
    """Settle device, dtype and layers. Raises LadmError for a model or device that cannot be used."""
    facts = model_facts(settings.model)
    profile = None if settings.profile is None else read_profile(settings.profile)
    if profile is not None and max(profile.reduction.layers) >= facts.num_layers:
        raise LadmError(
            f"{settings.profile} was calibrated for another model: it names layer {max(profile.reduction.layers)}, and "
            f"{facts.name} has layers 0-{facts.num_layers - 1}"
        )
    layers = facts.choose_layers(parse_layers(settings.layers))
    place = place_of(os.environ) if settings.shard is None else Place(shard=parse_shard(settings.shard))
    cluster = None
    if settings.engine == "ray":
        cluster = _join_cluster(settings)
        place = place or Place(shard=Shard(0, 1))
    if place is not None and (settings.overwrite or settings.retry_errors):
        raise UsageError(
            "--overwrite and --retry-errors are for a run that nobody shares; run them once without --shard and "
            "--engine ray"
        )
    if cluster is None:
        hardware = _hardware(settings, facts.head_size, rank=place.rank if place else None)
    else:
        there = replace(settings, device="cuda" if cluster.cuda else "cpu", workers=None)
        hardware = cluster.on_a_device(partial(_hardware, there, facts.head_size, rank=0))
    return Plan(
        settings=settings,
        facts=facts,
        layers=layers,
        reduction=Reduction(how=settings.reduce, layers=layers) if profile is None else profile.reduction,
        profile=profile,
        hardware=hardware,
        place=place,
        cluster=cluster,
    )


def _join_cluster(settings: ScoreSettings) -> Cluster:
    try:
        from ladm.scoring.engines.ray_cluster import connect
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise LadmError(f"--engine ray: Ray is not installed; {install_hint('ray')}") from None
    return connect(settings.device, settings.workers)


def _hardware(settings: ScoreSettings, head_size: int | None, *, rank: int | None) -> Hardware:
    """What this process, or one like it, runs on."""
    from ladm.method.attention import attention_kernel
    from ladm.modeling.devices import resolve_backend, resolve_devices, resolve_dtype

    devices = resolve_devices(settings.device, workers=settings.workers, rank=rank)
    dtype = resolve_dtype(settings.dtype, devices[0])
    return Hardware(
        devices=devices,
        dtype=str(dtype).removeprefix("torch."),
        attention=attention_kernel(devices[0], dtype, asked=settings.attention, head_size=head_size),
        backend=resolve_backend(settings.backend, devices[0]),
    )


def load_planned(plan: Plan, device: str) -> Observer:
    """The model on a device, with the layers, precision and attention of the plan."""
    import torch
    from transformers.utils import logging

    from ladm.modeling.observer import load_observer

    logging.disable_progress_bar()
    dtype = getattr(torch, plan.hardware.dtype)
    return load_observer(
        plan.facts, layers=plan.layers, dtype=dtype, device=torch.device(device), attention=plan.hardware.attention
    )


def _load_scorer(plan: Plan, device: str) -> Scorer:
    from ladm.signals.cds_scorer import LadmScorer

    observer = load_planned(plan, device)
    return LadmScorer(observer, plan.settings, reduction=plan.reduction, backend=plan.hardware.backend)


def _batch_rows(size: int | None, tokens: int, num_tokens: int) -> int:
    return max(1, tokens // num_tokens) if size is None else size
