"""`ladm train --report-to`: what reaches Trackio and Weights & Biases, through the Trainer's own calls.

A stand-in takes the place of each package: the functions that the Trainer calls, with the packages' signatures, which
write down what they are given. Trackio itself is run where it is installed.
"""

# The stand-ins have the packages' own parameters, so that a call which the packages refuse fails here too.
# ruff: noqa: ARG001, ARG002, ARG005

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from click.testing import Result

from support.files import read_lines
from support.training import settings_of

pytest.importorskip("accelerate")

Command = Callable[..., Result]
Calls = list[tuple[str, dict[str, Any]]]


class Config(dict[str, Any]):
    """The `config` of either package, which `update` takes this keyword for."""

    def update(self, values: dict[str, Any], *, allow_val_change: bool | None = None) -> None:  # type: ignore[override]
        super().update(values)


def module(monkeypatch: pytest.MonkeyPatch, name: str, **content: Any) -> ModuleType:
    """A module by that name for this test, which `import` and `find_spec` find."""
    made = ModuleType(name)
    made.__spec__, made.__path__ = ModuleSpec(name, None), []
    for key, value in content.items():
        setattr(made, key, value)
    monkeypatch.setitem(sys.modules, name, made)
    return made


def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []
    run = SimpleNamespace(summary={}, _label=lambda *, code: None)

    def init(entity: str | None = None, project: str | None = None, dir: str | None = None, *, name: str) -> Any:
        calls.append(("init", {"project": project, "name": name}))
        wandb.run = run  # type: ignore[attr-defined]
        return run

    def log(data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        calls.append(("log", data))

    def define_metric(name: str, *, step_metric: str | None = None, step_sync: bool | None = None) -> None:
        calls.append(("define_metric", {"name": name}))

    wandb = module(
        monkeypatch, "wandb", run=None, init=init, log=log, define_metric=define_metric, config=Config(),
        finish=lambda exit_code=None, quiet=None: calls.append(("finish", {})),
    )  # fmt: skip
    for name in ("wandb.sdk", "wandb.sdk.lib"):
        module(monkeypatch, name)
    module(monkeypatch, "wandb.sdk.lib.config_util", ConfigError=type("ConfigError", (Exception,), {}))
    return calls


def fake_trackio(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls: Calls = []

    def init(
        project: str, name: str | None = None, group: str | None = None, space_id: str | None = None, *,
        resume: str = "never", private: bool | None = None, bucket_id: str | None = None,
    ) -> None:  # fmt: skip
        calls.append(("init", {"project": project, "name": name, "space_id": space_id, "resume": resume}))

    def log(metrics: dict[str, Any], step: int | None = None) -> None:
        calls.append(("log", metrics))

    module(
        monkeypatch, "trackio", __version__="0.43.0", init=init, log=log, config=Config(),
        finish=lambda: calls.append(("finish", {})),
        context_vars=SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None)),
    )  # fmt: skip
    return calls


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_losses_are_sent_step_by_step(
    ladm: Command,
    golden_lm: Path,
    rows: str,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    calls = {"wandb": fake_wandb, "trackio": fake_trackio}[name](monkeypatch)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    out = tmp_path / "out"
    result = ladm(*settings_of(golden_lm, rows, config, out, "--tokens", "1024", "--report-to", name))
    assert result.exit_code == 0, result.output
    # A run is found by the name of its folder, in the project of this program.
    started = [given for call, given in calls if call == "init"]
    more = {} if name == "wandb" else {"space_id": None, "resume": "allow"}
    assert started == [{"project": "ladm", "name": "out"} | more]
    sent = [given for call, given in calls if call == "log" and "train/loss" in given]
    found = [(each["train/global_step"], each["train/loss"], each["train/learning_rate"]) for each in sent]
    assert found == [(line["step"], line["loss"], line["learning_rate"]) for line in read_lines(out / "losses.jsonl")]
    assert len(found) == 2


@pytest.mark.slow
def test_losses_are_sent_to_trackio_itself(
    ladm: Command,
    golden_lm: Path,
    rows: str,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Read when the package is imported.
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    out = tmp_path / "out"
    result = ladm(*settings_of(golden_lm, rows, config, out, "--tokens", "1024", "--report-to", "trackio"))
    assert result.exit_code == 0, result.output
    with sqlite3.connect(tmp_path / "trackio" / "ladm.db") as store:
        logged = [json.loads(text) for (text,) in store.execute("SELECT metrics FROM metrics ORDER BY step")]
    losses = [each["train/loss"] for each in logged if "train/loss" in each]
    assert losses == pytest.approx([line["loss"] for line in read_lines(out / "losses.jsonl")], rel=1e-6)
