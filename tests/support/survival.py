"""Every command, interrupted at any disk operation, then given again: it ends with the bytes of an undisturbed one.

`crashes.py` does this to the run store with thousands of fake rows; here it is done to whole commands, in this process.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from ladm.cli.main import main
from ladm.runs.layout import RESULT_FILES
from support.interruptions import MODES, Stopped, interrupting
from support.paths import ROOT, TESTS

OPERATIONS = ("write", "fsync", "rename", "replace", "link", "unlink", "ftruncate", "mkdir", "rmdir")
# Each of one name, so that they never become more.
LEFT_BY_LOCKS = re.compile(r"\.lock|\.holder|\.workers|\.progress-0")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command in a world: its words, in which `{w}` is the world's folder, and what it writes there."""

    words: tuple[str, ...]
    writes: tuple[str, ...]
    """Globs of the files that make its result."""
    heavy: bool = False
    """Does it run a model?"""

    def run(self, world: Path) -> Result:
        return CliRunner().invoke(main, [word.replace("{w}", str(world)) for word in self.words])

    def result(self, world: Path) -> dict[str, bytes]:
        found = {path for glob in self.writes for path in world.glob(glob) if path.is_file()}
        return {
            str(path.relative_to(world)): path.read_bytes()
            for path in sorted(found)
            if not LEFT_BY_LOCKS.fullmatch(path.name)
        }


SCORED = ("--span-tokens", "4", "--dtype", "float32", "--device", "cpu")
COMMANDS = {
    "prepare": Command(
        words=("prepare", "{w}/texts.jsonl", "--tokenizer", "{w}/model", "--length", "128", "-o", "{w}/new"),
        writes=("new/**/*",),
    ),
    "select": Command(
        words=("select", "{w}/run", "--tokens", "1k", "-o", "{w}/new"), writes=("new/**/*",)
    ),
    "select parquet": Command(
        words=("select", "{w}/run", "--tokens", "1k", "--format", "parquet", "-o", "{w}/new"), writes=("new/**/*",)
    ),
    "rescore": Command(words=("rescore", "{w}/run", "--reduce", "median", "-o", "{w}/new"), writes=("new/**/*",)),
    "rescore --so-far": Command(
        words=("rescore", "{w}/unfinished", "--so-far", "-o", "{w}/so-far"), writes=("so-far/**/*",)
    ),
    "report": Command(words=("report", "{w}/run", "--subset", "{w}/subset"), writes=("run/**/*",)),
    "annotate": Command(words=("annotate", "{w}/cds", "--num-proc", "1"), writes=("cds/**/*",)),
    "compare": Command(words=("compare", "{w}/run", "-o", "{w}/page.html"), writes=("page.html",)),
    "inspect": Command(
        words=("inspect", "{w}/run", "--device", "cpu", "--top", "2"), writes=("run/**/*",), heavy=True
    ),
    "check": Command(
        words=("check", "--model", "{w}/model", "--rows", "{w}/rows", "--documents", "16", "-o", "{w}/new", *SCORED),
        writes=("new/check.json", "new/run/**/*"), heavy=True,
    ),
    "calibrate": Command(
        words=(
            "calibrate", "--model", "{w}/model", "--rows", "{w}/rows", "--documents", "40", "-o", "{w}/p.yaml", *SCORED,
        ),
        writes=("p.yaml", "p.calibration/run/**/*"), heavy=True,
    ),
    "train": Command(
        words=(
            "train", "--model", "{w}/model", "--rows", "{w}/rows", "-o", "{w}/new", "--tokens", "1k", "--batch-tokens",
            "256", "--save-every", "2", "--warmup-steps", "1",
        ),
        writes=("new/model.safetensors", "new/losses.jsonl"), heavy=True,
    ),
    "run": Command(
        words=(
            "run", "{w}/few.jsonl", "--model", "{w}/model", "--length", "128", "--tokens", "1k", "-o", "{w}/new",
            *SCORED,
        ),
        writes=("new/**/*",), heavy=True,
    ),
}  # fmt: skip


def build_world(folder: Path, model: Path) -> None:
    """Documents, a model with a tokenizer, rows, a finished run and a subset."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model, folder / "model")
    draw = random.Random(5)
    lines = []
    for k in range(40):
        text = " ".join(f"w{draw.randrange(40 + 5 * k)}" for _ in range(150))
        lines.append(json.dumps({"text": text, "meta": {"pile_set_name": f"d{k % 2}"}, "id": f"n{k}"}) + "\n")
    (folder / "texts.jsonl").write_text("".join(lines))
    # For whole jobs: more rows than a unit has, as there.
    (folder / "few.jsonl").write_text("".join(lines[:20]))
    for words in (
        ("prepare", "{w}/texts.jsonl", "--tokenizer", "{w}/model", "--length", "128", "-o", "{w}/rows"),
        ("score", "{w}/rows", "--model", "{w}/model", *SCORED, "-o", "{w}/run"),
        ("select", "{w}/run", "--tokens", "1k", "-o", "{w}/subset"),
        ("score", "{w}/rows", "--model", "{w}/model", *SCORED, "--signals", "cds", "-o", "{w}/cds"),
    ):
        done = Command(words=words, writes=()).run(folder)
        assert done.exit_code == 0, done.output
    _add_unfinished(folder)


def _add_unfinished(folder: Path) -> None:
    """A run that lacks a unit, and what was made of it when it had only one."""
    unfinished = Path(shutil.copytree(folder / "run", folder / "unfinished"))
    for name in RESULT_FILES:
        (unfinished / name).unlink()
    (unfinished / "units/000000.jsonl").unlink()
    later = (unfinished / "units/000002.jsonl").rename(folder / "later")
    assert COMMANDS["rescore --so-far"].run(folder).exit_code == 0
    later.rename(unfinished / "units/000002.jsonl")


@contextlib.contextmanager
def disk_operations(below: Path, act: Callable[[int, Callable[[], Any]], Any]) -> Iterator[dict[str, int]]:
    """Have `act` do, or not do, each operation on files below a folder: it is given its number and a call that does it.

    Opening a file for writing counts, besides what `interruptions.disk_operations` counts.
    """
    counter, guard = {"calls": 0}, threading.Lock()
    real = {name: getattr(os, name) for name in OPERATIONS}
    real_open = io.open

    def counted(do: Callable[[], Any]) -> Any:
        with guard:
            number = counter["calls"]
            counter["calls"] += 1
        return act(number, do)

    def wrap(operation: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if not _is_below(arguments[0], below, named.get("dir_fd")):
                return operation(*arguments, **named)
            return counted(lambda: operation(*arguments, **named))

        return wrapped

    def opened(file: Any, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if not set(mode) & set("wax+") or not _is_below(file, below, None):
            return real_open(file, mode, *arguments, **named)
        return counted(lambda: real_open(file, mode, *arguments, **named))

    for name in OPERATIONS:
        setattr(os, name, wrap(real[name]))
    builtins.open = io.open = opened  # type: ignore[assignment]
    try:
        yield counter
    finally:
        builtins.open = io.open = real_open
        for name in OPERATIONS:
            setattr(os, name, real[name])


def _is_below(what: Any, folder: Path, dir_fd: int | None) -> bool:
    """Is a path or descriptor of something in the folder?"""
    if isinstance(what, int):
        dir_fd, what = what, ""
    path = os.fsdecode(what)
    if dir_fd is not None:
        try:
            path = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
        except OSError:
            return False
    return os.path.abspath(path).startswith(f"{folder}{os.sep}")


@dataclass
class Survivals:
    """How often a command was interrupted, and how many operations it has."""

    operations: int = 0
    interruptions: int = 0


def survive(
    name: str, template: Path, root: Path, *, points: int | None, seed: int, modes: tuple[str, ...] = MODES
) -> Survivals:
    """Interrupt a command at `points` drawn operations in each mode, None: at all of them; then run it again."""
    command, world, draw = COMMANDS[name], root / "world", random.Random(seed)
    fresh(template, world)
    with disk_operations(world, lambda _, do: do()) as counter:
        done = command.run(world)
    assert done.exit_code == 0, done.output
    whole, names = command.result(world), _names(world)
    assert whole
    found = Survivals(operations=counter["calls"])
    for mode in modes:
        numbers = range(found.operations)
        for n in numbers if points is None else sorted(draw.sample(numbers, min(points, len(numbers)))):
            fresh(template, world)
            where = f"{name}, {mode} at operation {n} of {found.operations}"
            with disk_operations(world, interrupting(mode, n)), contextlib.suppress(Stopped):
                _require_proper_end(command.run(world), command, world, whole, where)
            _require_recovery(command, world, whole, names, where)
            found.interruptions += 1
    shutil.rmtree(world)
    return found


def survive_small_files(name: str, template: Path, root: Path, *, points: int, seed: int) -> int:
    """Let no file grow beyond a drawn size, as on a full disk, whatever library writes it; then run again.

    Returns how many of the commands failed by it.
    """
    command, world, draw = COMMANDS[name], root / "world", random.Random(seed)
    fresh(template, world)
    assert command.run(world).exit_code == 0
    whole, names = command.result(world), _names(world)
    largest = max(map(len, whole.values()))
    failed = 0
    for _ in range(points):
        most = draw.randrange(1, largest)
        fresh(template, world)
        with largest_file(most):
            done = command.run(world)
        failed += done.exit_code != 0
        where = f"{name}, no file over {most} bytes"
        _require_proper_end(done, command, world, whole, where)
        _require_recovery(command, world, whole, names, where)
    shutil.rmtree(world)
    return failed


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Every write beyond this size fails with EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fresh(template: Path, world: Path) -> None:
    shutil.rmtree(world, ignore_errors=True)
    # With the times of the files: `prepare` compares those of its sources.
    shutil.copytree(template, world)


def _names(world: Path) -> set[str]:
    return {str(path.relative_to(world)) for path in world.rglob("*") if not LEFT_BY_LOCKS.fullmatch(path.name)}


def _require_proper_end(done: Result, command: Command, world: Path, whole: dict[str, bytes], where: str) -> None:
    """One line and an exit code for the failure, or, where the operation did not matter, the whole result."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError(f"{where}: {done.exception!r}") from done.exception
    if done.exit_code == 0:
        # More files than whole: some that could not be removed, which the next call does.
        assert command.result(world).items() >= whole.items(), f"{where}: done, with another result"
    else:
        assert "a bug in ladm" not in done.output, f"{where}: {done.output}"
        assert done.exit_code in (1, 74), f"{where}: exit {done.exit_code}: {done.output}"


def _require_recovery(command: Command, world: Path, whole: dict[str, bytes], names: set[str], where: str) -> None:
    """The same command ends as if nothing had happened, and leaves nothing behind."""
    done = command.run(world)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError(f"{where}: then {done.exception!r}") from done.exception
    assert done.exit_code == 0, f"{where}: the same command again: {done.output}"
    result = command.result(world)
    assert result.keys() == whole.keys(), f"{where}: files {sorted(result.keys() ^ whole.keys())}"
    differing = [name for name, content in whole.items() if result[name] != content]
    assert not differing, f"{where}: {differing} differ"
    assert _names(world) <= names, f"{where}: left behind {sorted(_names(world) - names)}"


@dataclass
class CommandKills:
    """What came of many SIGKILLs of a command."""

    kills: int = 0
    rounds: int = 0


def killed_at(name: str, world: Path, n: int) -> None:
    """The life of a child: run a command, and die by SIGKILL in front of its n-th disk operation."""

    def act(number: int, do: Callable[[], Any]) -> Any:
        if number == n:
            os.kill(os.getpid(), signal.SIGKILL)
        return do()

    with disk_operations(world, act):
        sys.exit(COMMANDS[name].run(world).exit_code)


def in_process(name: str, world: Path, *, kill_at: int) -> int:
    """Run a command in a process of its own that is killed in front of a disk operation; its exit code.

    Not forked: the threads of Arrow and of the tokenizers do not survive a fork.
    """
    program = (
        "from pathlib import Path; from support import survival; "
        f"survival.killed_at({name!r}, Path({str(world)!r}), {kill_at})"
    )
    paths = [str(TESTS), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.returncode


def kill_at_random(name: str, template: Path, root: Path, *, kills: int, seed: int) -> CommandKills:
    """Kill a command at drawn disk operations and give it again, until it ends; compare its bytes; and so on.

    At operations and not by the clock: most of a short command's time passes before its first one.
    """
    command, world, draw = COMMANDS[name], root / "world", random.Random(seed)
    fresh(template, world)
    with disk_operations(world, lambda _, do: do()) as counter:
        assert command.run(world).exit_code == 0
    whole, names = command.result(world), _names(world)
    found = CommandKills()
    while found.kills < kills:
        fresh(template, world)
        # What is left to do becomes less from kill to kill, until the command ends before its turn.
        while found.kills < kills:
            code = in_process(name, world, kill_at=draw.randrange(counter["calls"]))
            if code != -signal.SIGKILL:
                assert code in (0, 1), f"{name} after {found.kills} kills: exit {code}"
                break
            found.kills += 1
            # Nothing that a killed one leaves may add up.
            assert len(_names(world) - names) <= LEFT_BY_ONE_KILL, (name, sorted(_names(world) - names))
        _require_recovery(command, world, whole, names, f"{name} after {found.kills} kills")
        found.rounds += 1
    shutil.rmtree(world)
    return found


LEFT_BY_ONE_KILL = 24
"""Names that a killed command may leave, such as those in one temporary folder."""
