"""The CPU cores that this process may use, and how the libraries that compute on them share them. Imports no torch."""

import math
import os
from pathlib import Path

WAITING_ROUNDS = "10000"
"""How often a thread of GNU OpenMP looks whether the others are done before it gives up its core."""
_CGROUPS = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """The cores that this process may use: by its affinity, which a scheduler sets, and by a container's limit."""
    limit = _limit_of_container(_CGROUPS)
    return _allowed_cores() if limit is None else min(_allowed_cores(), limit)


def share_cores() -> None:
    """Set what OpenMP reads once, when torch is imported; what the environment holds already wins."""
    # By default a thread that waits for the others keeps its core busy for 300,000 rounds. Where another program needs
    # that core, the others wait in turn, and a forward pass takes about three times as long. With fewer rounds it is
    # faster there, and as fast on an idle machine (scripts/bench/busy.py).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", WAITING_ROUNDS)
    # OpenMP knows the affinity but no limit of a container, and would start a thread for each core of the machine.
    if available_cores() < _allowed_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(available_cores()))


def _allowed_cores() -> int:
    # Where the system does not say, as on macOS, all there are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limit_of_container(cgroups: Path) -> int | None:
    """Such as 4 for `docker run --cpus 4`, rounded up; None without a limit. Reads cgroups of version 2, then of 1."""
    version_1 = cgroups / "cpu"
    for files in ((cgroups / "cpu.max",), (version_1 / "cpu.cfs_quota_us", version_1 / "cpu.cfs_period_us")):
        try:
            quota, period = " ".join(file.read_text() for file in files).split()
        except (OSError, ValueError):
            continue
        # Without a limit the quota is `max` in version 2 and -1 in version 1.
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            return max(1, math.ceil(int(quota) / int(period)))
    return None
