"""The long tests of the run folder: kills, crash points, failing disks, races, a disk that forgets; prints counts.

    python scripts/torture.py --output scripts/bench/results/torture.json

About four hours on two cores; --section does one of them. What each found is written when it ends, beside what
the file has of the others. Exit 1 when a row was lost or repeated, or bytes differed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from ladm import __version__
from ladm.corpus.rows.reading import Rows, open_rows
from support import crashes, power_loss, survival
from support.fakes import fake_rows
from support.paths import GOLDEN, ROOT
from support.word_tokenizers import words_tokenizer

SEED = 0


def make_rows(folder: Path, count: int) -> Rows:
    from datasets import Dataset

    Dataset.from_list(fake_rows(count)).save_to_disk(str(folder / "rows"))
    return open_rows(str(folder / "rows"))


def kills(root: Path) -> dict[str, Any]:
    """1,000 SIGKILLs of a run in one folder."""
    found = crashes.kill_again_and_again(root, make_rows(root, 4000), kills=1000, seed=SEED)
    return asdict(found)


def pool_kills(root: Path) -> dict[str, Any]:
    """100 SIGKILLs of a supervisor with its two workers in one folder."""
    rows = make_rows(root, 4000)
    return asdict(crashes.kill_again_and_again(root, rows, kills=100, seed=SEED, workers=2))


def shared_runs(root: Path) -> dict[str, Any]:
    """100 SIGKILLs of one of 3 launches that share a run."""
    return asdict(crashes.kill_launches(root, make_rows(root, 20_000), kills=100, launches=3, seed=SEED))


def crash_points(root: Path) -> dict[str, Any]:
    """A stop before and after every disk operation of a run."""
    return {"points": crashes.every_crash_point(root, make_rows(root, 60))}


def disk_failures(root: Path) -> dict[str, Any]:
    """A full disk at every operation of a run, once and from then on."""
    return {"failures": crashes.every_failure(root, make_rows(root, 60))}


def worker_kills(root: Path) -> dict[str, Any]:
    """100 SIGKILLs of one of 4 workers."""
    return {"kills": crashes.kill_workers(root, make_rows(root, 30_000), kills=100, workers=4, seed=SEED)}


def races(root: Path) -> dict[str, Any]:
    """8 processes at once for one folder, 100 times."""
    return {"races": crashes.race_for_the_lock(root, processes=8, races=100)}


def state_machine(root: Path) -> dict[str, Any]:
    """2,000 stories of work, stops and lost power on a disk that forgets what was not synced."""
    power_loss.run_machine(power_loss.power_loss_on(root), examples=2000)
    return {"examples": 2000}


def template_of(root: Path) -> Path:
    """Documents, a small model, rows, a run and a subset, on which every command works."""
    model = root / "model"
    shutil.copytree(GOLDEN, model)
    with_head(model)
    words_tokenizer(model)
    # Built where the copies will be, because a run records where its rows and its model are.
    survival.build_world(root / "world", model)
    return (root / "world").rename(root / "template")


def with_head(model: Path) -> None:
    """Make a language model of it, which `ladm train` needs."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).save_pretrained(model)


def command_interruptions(root: Path) -> dict[str, Any]:
    """Every command stopped before and after, and failed once and for ever at, each of its disk operations."""
    template = template_of(root)
    return {
        "commands": {
            name: asdict(survival.survive(name, template, root, points=5 if command.heavy else None, seed=SEED))
            for name, command in survival.COMMANDS.items()
        },
        "full_disks": {
            name: survival.survive_small_files(name, template, root, points=20, seed=SEED)
            for name, command in survival.COMMANDS.items()
            if not command.heavy
        },
    }


def command_kills(root: Path) -> dict[str, Any]:
    """Every command killed 20 times, at disk operations drawn at random, its process group whole."""
    template = template_of(root)
    kills = {name: survival.kill_at_random(name, template, root, kills=20, seed=SEED) for name in survival.COMMANDS}
    return {"commands": {name: asdict(found) for name, found in kills.items()}}


def damaged_files(_root: Path) -> dict[str, Any]:
    """500 flipped bits and 62 cuts in every kind of file that a command reads back."""
    command = [sys.executable, "-m", "pytest", "-q", "-s", "tests/faults/test_damage.py", "-p", "no:cacheprovider"]
    environment = os.environ | {"LADM_FLIPS": "500", "LADM_SEED": str(SEED)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout[-5000:])
    files = re.findall(r"(\S+): (\d+) damages .*, (\d+) without effect", done.stdout)
    return {"damages": sum(int(tried) for _, tried, _ in files), "files": len(files)}


SECTIONS: dict[str, Callable[[Path], dict[str, Any]]] = {
    each.__name__: each
    for each in (
        kills,
        pool_kills,
        shared_runs,
        crash_points,
        disk_failures,
        worker_kills,
        races,
        state_machine,
        command_interruptions,
        command_kills,
        damaged_files,
    )
}


@click.command(help=__doc__.splitlines()[0])
@click.option("--section", "sections", multiple=True, type=click.Choice(list(SECTIONS)), default=list(SECTIONS))
@click.option("--output", type=click.Path(path_type=Path))
def main(sections: tuple[str, ...], output: Path | None) -> None:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    result: dict[str, Any] = json.loads(output.read_text()) if output is not None and output.exists() else {}
    for name in sections:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            found = SECTIONS[name](Path(temporary))
        result[name] = found | {
            "what": SECTIONS[name].__doc__, "seconds": round(time.monotonic() - began, 1),
            "ladm": __version__, "commit": done.stdout.strip() or None,
        }  # fmt: skip
        print(f"{name}: {found}", flush=True)
        if output is not None:
            output.write_text(json.dumps(result, indent=1) + "\n")
        if found.get("lost") or found.get("repeated") or found.get("differing") or found.get("rounds") == 0:
            sys.exit("rows were lost or repeated, or an end had other bytes")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
