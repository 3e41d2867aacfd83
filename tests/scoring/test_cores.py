"""The cores that are used: those of the affinity and of a container's limit, shared with other programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladm.cores import available_cores, share_cores
from support.models import SMALL
from support.rows import topical_rows


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A container on a machine of which 8 cores may be used."""
    monkeypatch.setattr("ladm.cores._CGROUPS", tmp_path)
    monkeypatch.setattr("ladm.cores._allowed_cores", lambda: 8)
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("200000 100000", 2), ("250000 100000", 3), ("1000 100000", 1), ("1600000 100000", 8),
        ("max 100000", 8), ("200000 0", 8), ("", 8),
    ],
)  # fmt: skip
def test_the_limit_of_a_container_counts(limit: str, cores: int, cgroups: Path) -> None:
    (cgroups / "cpu.max").write_text(f"{limit}\n")
    assert available_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("300000", 3), ("-1", 8)])
def test_so_does_the_limit_of_an_older_system(quota: str, cores: int, cgroups: Path) -> None:
    (cgroups / "cpu").mkdir()
    (cgroups / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (cgroups / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores() == cores


def test_a_system_that_does_not_say_which_cores_a_process_may_use_has_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as macOS."""
    monkeypatch.setattr("ladm.cores._CGROUPS", tmp_path)
    monkeypatch.setattr("ladm.cores.os", SimpleNamespace(cpu_count=lambda: 3))
    assert available_cores() == 3


def test_openmp_starts_no_more_threads_than_the_container_has_cores(
    cgroups: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share_cores()
    assert "OMP_NUM_THREADS" not in os.environ
    (cgroups / "cpu.max").write_text("200000 100000\n")
    share_cores()
    assert os.environ.pop("OMP_NUM_THREADS") == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    share_cores()
    assert os.environ["OMP_NUM_THREADS"] == "5"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the OpenMP library of Linux for its settings")
def test_a_thread_that_waits_soon_gives_up_its_core(
    save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    rows = save_rows(topical_rows(golden, [512]))
    command = [sys.executable, "-m", "ladm", "score", rows, *SMALL, "--output", str(tmp_path / "run")]
    # How often a thread looks whether the others are done before it gives up its core; 300,000 without a policy.
    assert spin_counts(command) == {"10000"}


@pytest.mark.usefixtures("cgroups")
def test_the_environment_of_a_users_own_policy_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for policy in (None, "ACTIVE"):
        if policy is not None:
            monkeypatch.setenv("OMP_WAIT_POLICY", policy)
        before = dict(os.environ)
        share_cores()
        added = dict(os.environ.items() - before.items())
        assert bool(added) == (policy is None), added
        for name in added:
            monkeypatch.delenv(name)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the OpenMP library of Linux for its settings")
def test_a_policy_of_the_users_own_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    code = "from ladm.cores import share_cores; share_cores(); import torch"
    assert spin_counts([sys.executable, "-c", code]) == {"30000000000"}


def spin_counts(command: list[str]) -> set[str]:
    """The counts that the OpenMP library of the command's processes works with."""
    # The library prints its settings when it is loaded, which is too late to change them.
    environment = os.environ | {"OMP_DISPLAY_ENV": "verbose"}
    environment.pop("GOMP_SPINCOUNT", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {line.split("'")[1] for line in done.stderr.splitlines() if "GOMP_SPINCOUNT" in line}
