"""The long tests of the run folder: kills, crash points, failing disks, races, a disk that forgets; prints counts.

    python scripts/torture.py --output scripts/bench/results/torture.json

About an hour on two cores. Exit 1 when a row was lost or repeated, or bytes differed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import test_torture
import torture
from fakes import fake_rows

from ladm import __version__
from ladm.rows import Rows, open_rows


def make_rows(folder: Path, count: int) -> Rows:
    from datasets import Dataset

    Dataset.from_list(fake_rows(count)).save_to_disk(str(folder / "rows"))
    return open_rows(str(folder / "rows"))


def timed(name: str, work: Any) -> dict[str, Any]:
    began = time.monotonic()
    found = work()
    seconds = round(time.monotonic() - began, 1)
    print(f"{name}: {found} in {seconds} s", flush=True)
    return {**found, "seconds": seconds}


@click.command(help=__doc__.splitlines()[0])
@click.option("--kills", default=1000)
@click.option("--rows", default=4000)
@click.option("--examples", default=2000)
@click.option("--crash-rows", default=60)
@click.option("--workers", default=1)
@click.option("--pool-kills", "pool_kills_wanted", default=100)
@click.option("--worker-kills", default=100)
@click.option("--worker-rows", default=12_000)
@click.option("--seed", default=0)
@click.option("--output", type=click.Path(path_type=Path))
def main(
    kills: int,
    rows: int,
    examples: int,
    crash_rows: int,
    workers: int,
    pool_kills_wanted: int,
    worker_kills: int,
    worker_rows: int,
    seed: int,
    output: Path | None,
) -> None:
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for name in ("kills", "pool", "points", "failures", "workers", "races", "machine"):
            (root / name).mkdir()

        def kill() -> dict[str, Any]:
            data = make_rows(root / "kills", rows)
            return asdict(
                torture.kill_again_and_again(
                    root / "kills", data, kills=kills, most_seconds=0.6, seed=seed, workers=workers
                )
            )

        def pool_kills() -> dict[str, Any]:
            data = make_rows(root / "pool", rows)
            return asdict(
                torture.kill_again_and_again(
                    root / "pool", data, kills=pool_kills_wanted, most_seconds=6.0, seed=seed, workers=2
                )
            )

        def points() -> dict[str, Any]:
            return {"points": torture.every_crash_point(root / "points", make_rows(root / "points", crash_rows))}

        def failures() -> dict[str, Any]:
            return {"failures": torture.every_failure(root / "failures", make_rows(root / "failures", crash_rows))}

        def workers_killed() -> dict[str, Any]:
            data = make_rows(root / "workers", worker_rows)
            return {"kills": torture.kill_workers(root / "workers", data, kills=worker_kills, workers=4, seed=seed)}

        def races() -> dict[str, Any]:
            return {"races": torture.race_for_the_lock(root / "races", processes=8, races=100)}

        def machine() -> dict[str, Any]:
            test_torture.run_machine(test_torture.power_loss_on(root / "machine"), examples=examples)
            return {"examples": examples}

        result["kills"] = timed("SIGKILLs in one folder", kill)
        result["kills_of_two_workers"] = timed("SIGKILLs of a supervisor and its two workers", pool_kills)
        result["crash_points"] = timed("crash points", points)
        result["disk_failures"] = timed("failing disk operations", failures)
        result["worker_kills"] = timed("kills of 4 workers", workers_killed)
        result["races"] = timed("races of 8 processes for a lock", races)
        result["state_machine"] = timed("state machine on a disk that forgets", machine)
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    result |= {
        "ladm": __version__,
        "commit": done.stdout.strip() or None,
        "command": " ".join(["python", "scripts/torture.py", *sys.argv[1:]]),
    }
    line = json.dumps(result)
    if output is not None:
        output.write_text(line + "\n")
    print(line)
    both = (result["kills"], result["kills_of_two_workers"])
    if any(found["lost"] or found["repeated"] or found["differing"] or not found["rounds"] for found in both):
        sys.exit("rows were lost or repeated, or an end had other bytes")


if __name__ == "__main__":
    main()
