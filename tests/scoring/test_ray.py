"""The Ray engine on a real cluster of two nodes of this machine: same bytes, and nothing lost with a node."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LadmError, UsageError
from ladm.modeling.facts import model_facts
from ladm.runs.finish import finish
from ladm.runs.folder import Run
from ladm.runs.identity import RunIdentity
from ladm.scoring.engines.placement import Shard
from ladm.scoring.engines.shared_units import SharedUnits
from ladm.scoring.identity import checked_scorer, machine_identity
from ladm.storage.locks import locked
from support import crashes, fakes
from support.paths import GOLDEN, TESTS
from support.rows import topical_rows

ray = pytest.importorskip("ray")
cluster_utils = pytest.importorskip("ray.cluster_utils")

from ladm.scoring.engines import ray_cluster as engine  # noqa: E402
from ladm.scoring.engines import ray_connection  # noqa: E402

ROWS = 200


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes, each a scheduler and workers of its own, with this process connected to them."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_worker_niceness")}
    # Actors are classes of this file and of the helpers. An empty entry would mean the working folder of every process.
    # Ray gives its workers a low priority, with which they would hardly run beside other tests.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parent), str(TESTS), before["PYTHONPATH"]]))
    os.environ.update({"PYTHONPATH": path, "RAY_worker_niceness": "0"})
    found = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        found.add_node(num_cpus=1)
        ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
        yield found
    finally:
        ray.shutdown()
        found.shutdown()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Rows:
    from datasets import Dataset

    folder = tmp_path_factory.mktemp("ray") / "rows"
    Dataset.from_list(fakes.fake_rows(ROWS)).save_to_disk(str(folder))
    return open_rows(str(folder))


@pytest.fixture(scope="module")
def plain(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("plain") / "run"
    crashes.complete(folder, rows)
    return crashes.contents(folder)


def make_deadly_or_hanging(path: str, device: str) -> fakes.FakeScorer:
    """The first to come never gets a scorer."""
    if fakes.once(path):
        time.sleep(100_000)
    return fakes.make_deadly(device)


class _Busy:
    """Another job."""

    def ready(self) -> bool:
        """It has a core now."""
        return True


def score_with_ray(
    folder: Path, rows: Rows, make_scorer: Any, *, report: Any = lambda _: None, warn: Any = print
) -> None:
    with locked(folder, shared=True):
        run = Run.create_or_resume(folder, crashes.identity(rows))
        with SharedUnits(run, Shard(0, 1)) as source:
            job = crashes.job_of(run, rows, source, make_scorer=make_scorer, report=report, warn=warn)
            engine.run_units(job, cluster=ray_connection.connect("cpu", 2))
            source.finish(partial(finish, run), lambda: run.is_finished)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_same_bytes_from_two_nodes(rows: Rows, plain: dict[str, bytes], tmp_path: Path) -> None:
    heard: list[Any] = []
    score_with_ray(tmp_path / "run", rows, fakes.make_slow, report=heard.extend)
    assert crashes.contents(tmp_path / "run") == plain
    assert sorted(record.position for record in heard) == list(range(ROWS))
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_row_that_kills_actors_is_recorded(rows: Rows, tmp_path: Path) -> None:
    score_with_ray(tmp_path / "run", rows, fakes.make_deadly)
    errors = (tmp_path / "run" / "errors.jsonl").read_text().splitlines()
    assert len(errors) == 1
    assert '"position": 70' in errors[0]
    assert "its Ray actor died each time it scored this row" in errors[0]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_what_an_actor_loses_comes_back_to_it_while_no_other_is_ready(rows: Rows, tmp_path: Path) -> None:
    """The other one never is: a file system hangs on its node while it loads the model."""
    until = time.monotonic() + 240

    def report(_: list[Any]) -> None:
        assert time.monotonic() < until, "nobody scores the unit"

    score_with_ray(tmp_path / "run", rows, partial(make_deadly_or_hanging, str(tmp_path / "hung")), report=report)
    assert (tmp_path / "hung").exists()
    errors = (tmp_path / "run" / "errors.jsonl").read_text().splitlines()
    assert len(errors) == 1
    assert "its Ray actor died each time it scored this row" in errors[0]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_scorer_that_cannot_be_made_ends_the_run(rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(LadmError, match="a Ray actor failed .ValueError: no such weights"):
        score_with_ray(tmp_path / "run", rows, fakes.make_failing)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_actors_that_die_while_they_start_end_the_run(
    rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "PLACING_SECONDS", 5.0)
    with pytest.raises(LadmError, match=r"^no Ray actor starts: each died, \d+ times in a row: "):
        score_with_ray(tmp_path / "run", rows, fakes.make_dying)


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_cluster_that_others_occupy_is_named_and_waited_for(
    rows: Rows, plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_connection, "BUSY_SECONDS", 1.0)
    monkeypatch.setattr(engine, "STARTING_SECONDS", 1.0)
    heard: list[str] = []
    others: list[Any] = []

    def occupy() -> None:
        kind = ray.remote(_Busy).options(num_cpus=1)
        others.extend(kind.remote() for _ in range(2))
        ray.get([each.ready.remote() for each in others])

    def hear(line: str) -> None:
        heard.append(line)
        while others:
            ray.kill(others.pop())

    occupy()
    assert ray_connection.connect("cpu", 2).on_a_device(os.getpid, echo=hear) > 0
    busy = "waiting   for Ray: its CPU cores may all be in use by other jobs; `ray status` shows them"
    assert heard == [busy]
    occupy()
    score_with_ray(tmp_path / "run", rows, fakes.make_fake, warn=hear)
    assert crashes.contents(tmp_path / "run") == plain
    assert heard[1:] == [
        "waiting   for Ray: no actor has started in 1 s; its CPU cores may all be in use by other jobs (`ray status` "
        "shows them), or a node hangs while it loads the model"
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_the_command_gives_the_bytes_of_one_process(ladm: Any, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    command = (
        "score",
        save_rows(topical_rows(golden, [512] * 20)),
        "--model",
        GOLDEN,
        "--span-tokens",
        "16",
        "--dtype",
        "float32",
    )
    assert ladm(*command, "--output", tmp_path / "alone").exit_code == 0
    result = ladm(*command, "--output", tmp_path / "ray", "--engine", "ray", "--workers", "2")
    assert result.exit_code == 0, result.output
    assert "2 actors of Ray in float32" in result.stderr
    assert crashes.contents(tmp_path / "ray") == crashes.contents(tmp_path / "alone")
    assert ladm("verify", tmp_path / "ray", "--deep").exit_code == 0


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_node_with_other_packages_or_files_ends_the_run(
    ladm: Any, save_rows: Any, golden: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is started where torch has another version than where the actors live."""
    found = importlib.metadata.version
    monkeypatch.setattr("ladm.scoring.identity.version", lambda name: "9.9" if name == "torch" else found(name))
    rows = save_rows(topical_rows(golden, [512] * 20))
    command = ("score", rows, "--model", GOLDEN, "--span-tokens", "16", "--engine", "ray", "--workers", "1")
    result = ladm(*command, "--output", tmp_path / "run")
    assert result.exit_code == 1
    assert 'differs from what the run was started with:\n  versions.torch: "9.9" before, ' in result.stderr
    facts = model_facts(str(GOLDEN))
    expected = machine_identity(facts)
    expected["model"]["sha256"]["config.json"] = "0"
    started = RunIdentity(expected)
    with pytest.raises(LadmError, match=r'sha256.config.json: "0" before, "[0-9a-f]{64}" now'):
        checked_scorer(fakes.make_fake, facts, started, "cpu")


@pytest.mark.slow
def test_a_signal_is_heard(cluster: Any, save_rows: Any, golden: Any, tmp_path: Path) -> None:
    rows = save_rows(topical_rows(golden, [4096] * 200))
    command = ["score", rows, "--model", GOLDEN, "--span-tokens", "16", "--engine", "ray", "--output", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ladm", *map(str, command)], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"RAY_ADDRESS": cluster.address},
    )  # fmt: skip
    units = tmp_path / "run" / "units"
    while process.poll() is None and not (units.exists() and any(p.stat().st_size for p in units.glob("*.open*"))):
        time.sleep(0.05)
    process.terminate()
    said = process.communicate()[1]
    assert process.returncode == 143, said
    assert said.splitlines()[-1].startswith("ladm: stopped by SIGTERM; finished rows are safe in ")


@pytest.mark.slow
def test_actors_never_import_modules_of_the_working_folder(
    cluster: Any, save_rows: Any, golden: Any, tmp_path: Path
) -> None:
    work, sentinel = tmp_path / "work", tmp_path / "sentinel"
    work.mkdir()
    attack = f"import os, sys\nos.open({str(sentinel)!r}, os.O_CREAT)\nsys.exit(1)\n"
    for name in (*sys.stdlib_module_names, "xxhash", "datasets", "transformers", "torch", "numpy", "pyarrow"):
        (work / f"{name}.py").write_text(attack)
    command = ["score", save_rows(topical_rows(golden, [512] * 4)), "--model", GOLDEN, "--span-tokens", "16"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "ladm", *map(str, command), "--engine", "ray", "-o", str(tmp_path / "run")],
        cwd=work, env=os.environ | {"RAY_ADDRESS": cluster.address}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, sentinel.exists()) == (0, False), done.stderr


@pytest.mark.usefixtures("cluster")
def test_devices_are_for_ray_to_give_out() -> None:
    with pytest.raises(UsageError, match="Ray assigns the devices"):
        ray_connection.connect("cuda:0,1", None)
    with pytest.raises(LadmError, match="has no GPU"):
        ray_connection.connect("cuda", None)
    assert ray_connection.connect("auto", None).actors == 2
    assert ray_connection.connect("cpu", 3).actors == 3


def test_a_node_killed_in_the_middle_loses_nothing(
    cluster: Any, rows: Rows, plain: dict[str, bytes], tmp_path: Path
) -> None:
    heard: list[Any] = []

    def report(records: list[Any]) -> None:
        heard.extend(records)
        if len(heard) >= ROWS // 3 and len(cluster.worker_nodes) == 1:
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    score_with_ray(tmp_path / "run", rows, fakes.make_slow, report=report)
    assert not cluster.worker_nodes
    assert crashes.contents(tmp_path / "run") == plain
    counted = Counter(record.position for record in heard)
    assert len(counted) > ROWS // 2
    assert max(counted.values()) == 1, "a row that was reported as durable was scored again"
