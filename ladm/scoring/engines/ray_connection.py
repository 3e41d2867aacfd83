"""A Ray cluster -> the connection to it, and how many actors it has room for. Imports no torch."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import ray
from ray.exceptions import RayError
from ray.job_config import JobConfig

from ladm.errors import LadmError, UsageError, one_line, raise_if_out_of_memory
from ladm.progress import Echo, silent
from ladm.scoring.engines.job import TICK_SECONDS

T = TypeVar("T")
BUSY_SECONDS = 30.0
"""A cluster that has not answered after this has no free device, as a rule."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A Ray cluster that this process is connected to, and what of it is used."""

    cuda: bool
    actors: int

    def on_a_device(self, function: Callable[[], T], *, echo: Echo = silent) -> T:
        """Call a function on a node as an actor would see it, with one GPU where actors have one.

        `echo` is called with a line once that takes long.
        """
        answer = ray.remote(lambda: function()).options(**self.resources).remote()
        started, is_reported = time.monotonic(), False
        # In short waits, between which Python handles a Ctrl-C.
        while not ray.wait([answer], timeout=TICK_SECONDS)[0]:
            if not is_reported and time.monotonic() - started > BUSY_SECONDS:
                echo(f"waiting   for Ray: {self.devices} may all be in use by other jobs; `ray status` shows them")
                is_reported = True
        try:
            found: T = ray.get(answer)
        except RayError as error:
            cause = getattr(error, "cause", None)
            raise cause if isinstance(cause, LadmError) else LadmError(f"Ray: {one_line(error)}") from None
        return found

    @property
    def devices(self) -> str:
        """What actors occupy, for a message."""
        return "its GPUs" if self.cuda else "its CPU cores"

    @property
    def resources(self) -> dict[str, int]:
        """What one actor occupies."""
        return {"num_gpus": 1, "num_cpus": 0} if self.cuda else {"num_cpus": 1}


def connect(device: str, workers: int | None) -> Cluster:
    """Join the cluster of RAY_ADDRESS, of this job, or of this machine.

    Raises LadmError where there is none or it has no such device, UsageError for a device by number.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device}: Ray assigns the devices; use cpu, cuda or auto")
    if not ray.is_initialized():
        _initialise()
    gpus = int(ray.cluster_resources().get("GPU", 0))  # type: ignore[no-untyped-call]
    if device == "cuda" and not gpus:
        raise LadmError("--device cuda: the Ray cluster has no GPU")
    cuda = gpus > 0 and device != "cpu"
    cores = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
    return Cluster(cuda=cuda, actors=workers or (gpus if cuda else max(1, cores)))


class _NoPaths(list[str]):
    """A list that stays empty."""

    def extend(self, _paths: Iterable[str]) -> None:
        """Ray's call; see `_without_driver_paths`."""


def _without_driver_paths() -> JobConfig:
    """A job whose actors import what their nodes have installed, and nothing from the driver's working folder.

    Ray puts that folder first on their path, so that a `queue.py` in it, in a folder that somebody else filled, would
    run. No option of Ray switches this off but a working folder of the job's own, which it would copy to every node.
    """
    config = JobConfig()
    config._py_driver_sys_path = _NoPaths()
    return config


def _initialise() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "auto"), job_config=_without_driver_paths(), log_to_driver=False,
            logging_level=logging.ERROR,
        )  # fmt: skip
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise_if_out_of_memory(error, action="join the Ray cluster")
        raise LadmError(
            f"--engine ray: no Ray cluster to join ({one_line(error)}); start one with ray start --head, or name it in "
            "RAY_ADDRESS"
        ) from None
    finally:
        # Ray installs signal handlers of its own in place of ours.
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
