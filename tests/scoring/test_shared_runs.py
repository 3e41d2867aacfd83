"""Launches that share a run: claims, leases, who comes back, and where a launch stands among them."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ladm.corpus.rows.reading import Rows, open_rows
from ladm.errors import LockedError, StorageError, UsageError
from ladm.runs.finish import finish
from ladm.runs.folder import Run
from ladm.runs.stored_rows import count_stored_rows
from ladm.runs.unit_writer import UnitWriter
from ladm.runs.unsealed import adopt_shared
from ladm.runs.verify import verify
from ladm.scoring.engines import shared_units
from ladm.scoring.engines.placement import Placement, Shard, parse_shard, placement_from
from ladm.scoring.engines.shared_units import SharedUnits
from ladm.storage.locks import locked
from support import fakes
from support.crashes import contents, identity, sealed_records, take_part
from support.engines import complete
from support.paths import TESTS


@pytest.fixture
def rows(save_rows: Any) -> Rows:
    return open_rows(save_rows(fakes.fake_rows(100)))


@pytest.fixture
def whole(tmp_path: Path, rows: Rows) -> dict[str, bytes]:
    complete(tmp_path / "whole", rows)
    return contents(tmp_path / "whole")


SHARER = """
    import sys
    sys.path.insert(0, sys.argv[1])
    from pathlib import Path
    from ladm.scoring.engines.placement import Shard
    from ladm.corpus.rows.reading import open_rows
    from support import crashes, fakes
    rows = open_rows(sys.argv[3])
    print(crashes.take_part(Path(sys.argv[2]), rows, Shard(int(sys.argv[4]), 2), fakes.make_meeting, lease=600.0))
"""


def test_launches_that_share_a_run_do_every_unit_once(tmp_path: Path, rows: Rows, whole: Any) -> None:
    script = tmp_path / "share.py"
    script.write_text(textwrap.dedent(SHARER))
    command = [sys.executable, str(script), str(TESTS), str(tmp_path / "run"), rows.name]
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    environment = os.environ | {"LADM_TEST_MEETING": f"{meeting}:2"}
    launches = [
        subprocess.Popen([*command, str(k)], stdout=subprocess.PIPE, text=True, env=environment) for k in range(2)
    ]
    done = [int(launch.communicate()[0]) for launch in launches]
    assert sum(done) == 100
    assert all(done)
    finish(Run.read(tmp_path / "run"))
    assert contents(tmp_path / "run") == whole
    assert not [p.name for p in (tmp_path / "run" / "units").iterdir() if not p.name.endswith(".jsonl")]


def test_the_units_of_a_lost_launch_are_taken_over(tmp_path: Path, rows: Rows, whole: Any) -> None:
    """A claim that nobody touches any more is broken after its lease; what its holder had written counts."""
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    lost = SharedUnits(run, Shard(0, 2), lease_seconds=60)
    assignment = lost.take()
    assert assignment is not None
    complete(tmp_path / "other", rows)
    kept = sealed_records(Run.read(tmp_path / "other"), run.units[0])[:7]
    writer = UnitWriter(run, assignment.unit, holder=assignment.holder)
    writer.append(kept)
    writer.close()
    assert take_part(folder, rows, Shard(1, 2), lease=0.5) == 100 - 7
    finish(run)
    assert contents(folder) == whole
    assert not [p.name for p in (folder / "units").iterdir() if not p.name.endswith(".jsonl")]


def test_one_who_comes_back_after_its_lease_spoils_nothing(tmp_path: Path, rows: Rows, whole: Any) -> None:
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    slow = SharedUnits(run, Shard(0, 2))
    assignment = slow.take()
    assert assignment is not None
    late = UnitWriter(run, assignment.unit, holder=assignment.holder)
    assert take_part(folder, rows, Shard(1, 2), lease=0.5) == 100
    late.append(sealed_records(run, assignment.unit))
    late.seal()
    late.close()
    slow.sealed(assignment)
    finish(run)
    assert contents(folder) == whole


def test_a_run_alone_adopts_what_launches_left(tmp_path: Path, rows: Rows, whole: Any) -> None:
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    complete(tmp_path / "other", rows)
    records = sealed_records(Run.read(tmp_path / "other"), run.units[2])
    writers = []
    for generation, count in ((0, 3), (2, 9), (3, 1)):
        writers.append(UnitWriter(run, run.units[2], holder=f"{generation}-{generation}abc"))
        writers[-1].append([record for record in records[:count] if record.position not in writers[-1].done])
        run.claim_path(run.units[2], generation).write_text("{}")
    # Of launches that were killed while they wrote the results: the next ones that share the run would wait for it.
    (folder / ".finishing-0").write_text("{}")
    assert len(complete(folder, rows)) == 100 - 9
    assert not list(folder.glob(".finishing-*"))
    # One who was taken for gone comes back, writes on, and seals: what is there stays as it is.
    back = writers[0]
    back.append([record for record in records if record.position not in back.done])
    back.seal()
    for writer in writers:
        writer.close()
    assert sealed_records(Run.read(folder), run.units[2]) == records
    assert contents(folder) == whole
    assert not [p.name for p in (folder / "units").iterdir() if not p.name.endswith(".jsonl")]


def test_a_damaged_file_of_a_launch_is_reported_and_stays(tmp_path: Path, rows: Rows) -> None:
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    complete(tmp_path / "other", rows)
    with contextlib.closing(UnitWriter(run, run.units[1], holder="0-abc")) as writer:
        writer.append(sealed_records(Run.read(tmp_path / "other"), run.units[1])[:4])
    path = run.open_path(run.units[1], "0-abc")
    content = bytearray(path.read_bytes())
    content[30] ^= 1
    path.write_bytes(content)
    for again in (lambda: complete(folder, rows), lambda: UnitWriter(run, run.units[1], holder="1-abc")):
        with pytest.raises(StorageError, match=f"^{path} is damaged at byte 0"):
            again()
    assert path.read_bytes() == content
    assert any(f"{path} is damaged" in problem.text for problem in verify(run, deep=False))


def test_one_who_comes_back_while_a_run_alone_is_at_the_unit(tmp_path: Path, rows: Rows, whole: Any) -> None:
    """Its seal finds its own file gone, and neither takes the other's half-written one nor harms it."""
    folder = tmp_path / "run"
    run = Run.create_or_resume(folder, identity(rows))
    complete(tmp_path / "other", rows)
    records = sealed_records(Run.read(tmp_path / "other"), run.units[0])
    shared = UnitWriter(run, run.units[0], holder="0-abc")
    shared.append(records[:8])
    adopt_shared(run)
    alone = UnitWriter(run, run.units[0])
    alone.append(records[8:9])
    shared.append(records[8:])
    with pytest.raises(StorageError):
        shared.seal()
    shared.close()
    assert not run.sealed_path(run.units[0]).exists()
    alone.append(records[9:])
    alone.seal()
    alone.close()
    complete(folder, rows)
    assert contents(folder) == whole


def test_alone_and_shared_exclude_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    refused = pytest.raises(LockedError, match=f"is in use by process {os.getpid()} on")
    with locked(folder, shared=True), locked(folder, shared=True), refused, locked(folder):
        pass
    with locked(folder), pytest.raises(LockedError), locked(folder, shared=True):
        pass


BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (BATCH_SCRIPT, None),
        (BATCH_SCRIPT | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}, (3, 8, 1)),
        (
            BATCH_SCRIPT | {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "8", "SLURM_ARRAY_TASK_MIN": "1"},
            (6, 8, None),
        ),
        (
            {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "0",
             "SLURM_ARRAY_TASK_STEP": "2"},
            (2, 3, None),
        ),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "2"}, (1, 2, None)),
        ({"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_COUNT": "1", "SLURM_ARRAY_TASK_MIN": "5"}, (0, 1, None)),
        (
            BATCH_SCRIPT | {"SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "SLURM_ARRAY_TASK_ID": "1",
                            "SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "0"},
            (11, 16, 3),
        ),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}, None),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, (1, 2, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),
        ({"RANK": "1"}, None),
    ],
)  # fmt: skip
def test_the_place_of_a_launch(environment: dict[str, str], expected: tuple[int, int, int | None] | None) -> None:
    found = placement_from(environment)
    assert found == (None if expected is None else Placement(shard=Shard(*expected[:2]), rank=expected[2]))


def test_spelled_shards_and_ranks() -> None:
    assert parse_shard("2/8") == Shard(2, 8)
    for text, message in (
        ("8/8", "--shard 8/8: the first is 0/8, the last 7/8"),
        ("0/0", "--shard 0/0: at least one shard is needed, 0/1"),
        ("2", "--shard '2' is not a number and a count such as 0/8"),
    ):
        with pytest.raises(UsageError) as caught:
            parse_shard(text)
        assert str(caught.value) == message
    assert shared_units.LEASE_SECONDS > 10


def stale(*_: object, **__: object) -> NoReturn:
    """What NFS answers for a file that another machine has removed."""
    raise OSError(errno.ESTALE, "Stale file handle")


def test_a_claim_that_another_machine_has_removed_is_only_gone(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    assert SharedUnits(run, Shard(0, 2)).take() is not None
    other = SharedUnits(run, Shard(0, 2), lease_seconds=0.0)
    stat = Path.stat

    def stat_of_nfs(path: Path, **more: Any) -> os.stat_result:
        return stale() if ".claim-" in path.name else stat(path, **more)

    monkeypatch.setattr(Path, "stat", stat_of_nfs)
    found = other.take()
    assert found is not None
    assert found.unit.number == 1

    def fail(path: Path, **more: Any) -> os.stat_result:
        if ".claim-" in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return stat(path, **more)

    monkeypatch.setattr(Path, "stat", fail)
    with pytest.raises(StorageError, match=r"^cannot read .*000000.claim-0: Input/output error$"):
        other.take()


def test_units_that_another_machine_removes_are_not_counted(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(tmp_path / "run", rows)
    run = Run.read(tmp_path / "run")
    run.sealed_path(run.units[0]).rename(run.open_path(run.units[0], "0-abc"))
    monkeypatch.setattr(Path, "read_bytes", stale)
    assert not count_stored_rows(run).errors

    def fail(_: Path) -> NoReturn:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(StorageError, match=r"^cannot read .*0-abc: Input/output error$"):
        count_stored_rows(run)


def test_a_seal_that_comes_too_late_may_find_its_file_stale(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    complete(tmp_path / "other", rows)
    with contextlib.closing(UnitWriter(run, run.units[0], holder="0-abc")) as late:
        late.append(sealed_records(Run.read(tmp_path / "other"), run.units[0]))
        monkeypatch.setattr(os, "link", stale)
        with pytest.raises(StorageError, match="^cannot seal .*: Stale file handle$"):
            late.seal()
        run.sealed_path(run.units[0]).touch()
        late.seal()


def test_a_writer_that_cannot_begin_closes_its_file(
    tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create_or_resume(tmp_path / "run", identity(rows))
    run.open_path(run.units[0], "0-abc").write_bytes(b"damaged\n")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with pytest.raises(StorageError, match="is damaged at byte 0"):
            UnitWriter(run, run.units[0], holder="1-abc")
    assert len(os.listdir("/proc/self/fd")) == before
    monkeypatch.setattr(os, "ftruncate", stale)
    for _ in range(5):
        with pytest.raises(StorageError, match="^cannot open "):
            UnitWriter(run, run.units[1])
    assert len(os.listdir("/proc/self/fd")) == before
