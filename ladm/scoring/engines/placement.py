"""`--shard`, or the environment of Slurm or torchrun -> which of several launches of one run this is. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ladm.errors import UsageError
from ladm.settings.score import ScoreSettings


@dataclass(frozen=True)
class Shard:
    """This launch is number `index` of `count` that share a run."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            allowed = f"the first is 0/{self.count}, the last {self.count - 1}/{self.count}"
            raise UsageError(
                f"--shard {self.index}/{self.count}: {allowed if self.count else 'at least one shard is needed, 0/1'}"
            )


_SHARING_VARIABLES = ("SLURM_ARRAY_TASK_ID", "WORLD_SIZE", "SLURM_STEP_ID")
"""Variables without which `placement_from` finds a launch to be alone."""


def parse_shard(text: str) -> Shard:
    """`2/8` -> the third of eight. Raises UsageError for anything else."""
    found = re.fullmatch(r"(\d{1,18})/(\d{1,18})", text)
    if found is None:
        raise UsageError(f"--shard {text!r} is not a number and a count such as 0/8")
    return Shard(int(found[1]), int(found[2]))


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where this launch stands: its shard, and which of its machine's devices it is meant to use (None: all)."""

    shard: Shard
    rank: int | None = None


def find_placement(settings: ScoreSettings, environment: Mapping[str, str]) -> Placement | None:
    """Where this launch stands among those that share the run; None: it has the run to itself.

    Raises UsageError for flags that remove what other launches may be working on.
    """
    placement = placement_from(environment) if settings.shard is None else Placement(shard=parse_shard(settings.shard))
    if placement is None and settings.engine == "ray":
        # The driver of a Ray cluster claims units like any launch, so that several drivers may share a run.
        placement = Placement(shard=Shard(0, 1))
    if placement is not None and (settings.overwrite or settings.retry_errors):
        # Such as SLURM_ARRAY_TASK_ID of an array in which every task has a run of its own.
        found = [name for name in _SHARING_VARIABLES if name in environment]
        shared_by = settings.shard is None and settings.engine != "ray" and found
        remedy = f"to run alone, unset {' '.join(found)}" if shared_by else "leave --shard and --engine out"
        raise UsageError(f"--overwrite and --retry-errors are for a run that no other launch shares; {remedy}")
    return placement


def placement_from(environment: Mapping[str, str]) -> Placement | None:
    """The placement that Slurm or torchrun has written into the environment; None for a launch of its own.

    An array and a step or torchrun may be combined. Example: array task 1 of 2, in each of them a step of
    8 tasks, of which this is number 3: shard 1 * 8 + 3 = 11 of 16.
    A task of an array always shares the run, because others may be running even where it was submitted
    alone, such as one that is submitted again.
    """
    index, count, rank = 0, 1, None
    get = environment.get
    in_array = get("SLURM_ARRAY_TASK_ID", "").isdecimal()
    if in_array:
        count = max(_number(get("SLURM_ARRAY_TASK_COUNT"), 1), 1)
        step = max(_number(get("SLURM_ARRAY_TASK_STEP"), 1), 1)
        # The ids of `--array=5-20:5` are 5, 10, 15, 20: as an index from 0 they are 0, 1, 2, 3.
        first = _number(get("SLURM_ARRAY_TASK_MIN"), 0)
        index = (int(environment["SLURM_ARRAY_TASK_ID"]) - first) // step % count
    for process, processes, local_rank, only_with in (
        ("RANK", "WORLD_SIZE", "LOCAL_RANK", "WORLD_SIZE"),
        ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_ID"),
    ):
        # The batch script itself has the variables of a task too, but no step: it is not one of the tasks.
        if only_with in environment and _number(get(processes), 1) > 1:
            index = index * int(environment[processes]) + _number(get(process), 0)
            count = count * int(environment[processes])
            rank = int(environment[local_rank]) if get(local_rank, "").isdecimal() else None
            break
    return Placement(shard=Shard(index, count), rank=rank) if in_array or count > 1 else None


def _number(text: str | None, default: int) -> int:
    return int(text) if text is not None and text.isdecimal() else default
