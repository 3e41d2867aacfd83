"""Damaged files: a byte flipped or the end cut off, and what every command that reads the file makes of it.

A command either gives exactly what it gives for the undamaged file, or fails with one line that names the damaged file.
A traceback, another result, or an error that does not help to find the file is a `Finding`.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner

from ladm.cli.main import main

UNEXPECTED = "a bug in ladm"
"""What the command line prints for an exception that it does not know."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did: its exit code, what is compared of its output, its messages, and the files that it wrote."""

    exit_code: int
    stdout: str
    compared: object
    stderr: str
    files: Mapping[str, bytes]


def nothing(_output: str) -> None:
    """For output that differs from run to run."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that reads a file back; `{out}` in its words is a new folder, whose files are part of the result."""

    words: tuple[str, ...]
    codes: frozenset[int] = frozenset((74,))
    """Exit codes that may stand for damage."""
    before: Callable[[], None] | None = None
    """Prepares each run of the command."""
    result: Callable[[], Mapping[str, bytes]] | None = None
    """Files outside of `{out}` that it writes."""
    compared: Callable[[str], object] = str
    """What of standard output must be the same; `nothing` where it says how long the command took."""

    def run(self, out: Path) -> Outcome:
        shutil.rmtree(out, ignore_errors=True)
        if self.before is not None:
            self.before()
        done = CliRunner().invoke(main, [word.replace("{out}", str(out)) for word in self.words])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        files = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
        files |= {} if self.result is None else self.result()
        compared = self.compared(done.stdout) if done.exit_code == 0 else done.stdout
        return Outcome(exit_code=done.exit_code, stdout=done.stdout, compared=compared, stderr=done.stderr, files=files)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A damage that a command did not handle."""

    command: str
    path: str
    how: str
    problem: str


@dataclass
class Damages:
    """What came of many damages: how many, how often the command still gave the right result, and what went wrong."""

    tried: int = 0
    unharmed: int = 0
    findings: list[Finding] = field(default_factory=list)


def damages_of(content: bytes, *, flips: int, cuts: int, draw: random.Random) -> Iterator[tuple[str, bytes]]:
    """Copies of the content with one bit flipped, then copies that are cut off, each with words for it."""
    for _ in range(flips):
        at, bit = draw.randrange(len(content)), draw.randrange(8)
        flipped = bytearray(content)
        flipped[at] ^= 1 << bit
        yield f"bit {bit} of byte {at} flipped", bytes(flipped)
    for _ in range(cuts):
        at = draw.randrange(len(content))
        yield f"cut at byte {at} of {len(content)}", content[:at]


def attack(
    path: Path,
    commands: Mapping[str, Command],
    out: Path,
    *,
    flips: int,
    cuts: int,
    seed: int,
    named: str | None = None,
) -> Damages:
    """Damage a file again and again, each time run the next of the commands, and put the file back.

    `named`: what an error has to name, if not the file itself.
    """
    content, status = path.read_bytes(), path.stat()
    whole = {name: command.run(out) for name, command in commands.items()}
    names, found = list(commands), Damages()
    for name, outcome in whole.items():
        assert UNEXPECTED not in outcome.stderr, (name, outcome)
    try:
        for number, (how, damaged) in enumerate(damages_of(content, flips=flips, cuts=cuts, draw=random.Random(seed))):
            name = names[number % len(names)]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(damaged)
            problem = _problem(commands[name], whole[name], out, named=named or path.name)
            found.tried += 1
            found.unharmed += problem == ""
            if problem:
                found.findings.append(Finding(command=name, path=path.name, how=how, problem=problem))
    finally:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        shutil.rmtree(out, ignore_errors=True)
    return found


def _problem(command: Command, whole: Outcome, out: Path, *, named: str) -> str | None:
    """What is wrong with how the command handles the damage; "" where it did no harm, None for a proper error."""
    try:
        outcome = command.run(out)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    if outcome.exit_code == whole.exit_code == 0:
        differing = [
            name for name in {**whole.files, **outcome.files} if whole.files.get(name) != outcome.files.get(name)
        ]
        if outcome.compared != whole.compared:
            differing.append("standard output")
        return f"another result in silence: {', '.join(differing)}" if differing else ""
    said = outcome.stdout + outcome.stderr
    if UNEXPECTED in said:
        return said
    if outcome.exit_code not in command.codes:
        return f"exit {outcome.exit_code}: {said}"
    if named not in said:
        return f"the file is not named: {said}"
    return None
