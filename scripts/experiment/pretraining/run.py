"""A model, a pack, the classes of its held-out tokens -> scores of all rows and students of all arms, in a state file.

    python scripts/experiment/pretraining/run.py --model runs/toy/model --pack runs/experiment/pretraining/pack.npz \
        --state runs/experiment/pretraining/state.json.gz --minutes 6 [--device cuda]

Does as much as fits in the minutes: scores of pool A, then students in the order of `arms.jobs`; the faults of pool B
are scored before its first arm. The same command continues from the state file, which is replaced as a whole after
every student and every few seconds of scoring, so that a kill at any moment costs no more than what was being done.
Exit code 3: work is left.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from arms import RANKED, TEXT_COLUMNS, UNTRAINED, Job, jobs, rows_of
from bigrams import bigram_losses, pool_unigram
from files import Pack, State, as_stored, model_identity, sums_by_class, write_token_losses
from influence.measure import gains
from student import LEARNING_RATE, ROPE_BASE, ROWS_A_STEP, Students, timed, write_long_config

Array = np.ndarray[Any, Any]

SAVE_SECONDS = 15
SCORED_AT_ONCE = 8


def log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return [rounded(each) for each in value] if isinstance(value, (list, tuple)) else value


def score_rows(state: State, pack: Pack, places: list[int], students: Students, folder: Path, until: float) -> bool:
    """CDS in its forms and the columns of gain of the rows that have none yet. Whether all have them now."""
    import ladm

    left = [k for k in places if pack.about[k]["id"] not in state.content["scores"]]
    if not left:
        return True
    dtype = "bfloat16" if students.device.startswith("cuda") else "float32"
    scorer = ladm.Scorer(str(folder), score="robust", dtype=dtype, device=students.device)
    students.reset()
    started = time.monotonic()
    at_once = SCORED_AT_ONCE if students.device.startswith("cuda") else 1
    for first in range(0, len(left), at_once):
        if time.monotonic() > until:
            break
        batch = left[first : first + at_once]
        for k, found in zip(batch, scorer.score(pack.ids[batch].astype(np.int64)), strict=True):
            if found.score is None:
                sys.exit(f"{pack.about[k]['id']}: {found.error}")
            gain = gains(students.model, torch.from_numpy(pack.ids[k].astype(np.int64)).to(students.device))
            columns = {"robust": found.score} | dict(found.columns) | gain
            state.content["scores"][pack.about[k]["id"]] = {name: rounded(value) for name, value in columns.items()}
        if time.monotonic() - state.saved > SAVE_SECONDS:
            state.save()
    state.save()
    del scorer
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    count = sum(pack.about[k]["id"] in state.content["scores"] for k in left)
    log(f"scored {count} of {len(left)} rows in {time.monotonic() - started:.0f} s")
    return count == len(left)


def train_student(job: Job, pack: Pack, rows: list[int], students: Students, tokens: Path | None) -> dict[str, Any]:
    trained: dict[str, Any] = {}
    students.reset()
    seconds = 0.0
    if job.arm != UNTRAINED:
        trained, seconds = timed(students.train, pack.ids[rows], seed=job.seed)
    students.model.eval()
    found, evaluated = timed(students.evaluate, pack.held_out)
    if tokens is not None:
        write_token_losses(tokens, job.name, found.long, found.short)
    outcomes = sums_by_class(as_stored(found.long), as_stored(found.short), pack.classes)
    outcomes |= {"bins": found.bins, "ladder": found.ladder}
    needles, needled = timed(students.needle_losses, pack.needle_ids, pack.needle_places)
    return trained | {
        "rows": [pack.about[k]["id"] for k in rows], "held_out": outcomes, "needles": needles,
        "seconds": {"training": seconds, "held_out": evaluated, "needles": needled},
    }  # fmt: skip


def expected_seconds(state: State, job: Job, device: str) -> float:
    """From the students of this device, by their rows; 0 as long as there is none."""
    done = [each for each in state.content["students"].values() if each["device"] == device and each["rows"]]
    if not done:
        return 0.0
    a_row = median(each["seconds"]["training"] / len(each["rows"]) for each in done)
    other = median(sum(each["seconds"].values()) - each["seconds"]["training"] for each in done)
    rows = {UNTRAINED: 0, "random x2": 2}.get(job.arm, 1) * min(len(each["rows"]) for each in done)
    return float(a_row * rows + other)


def columns_for(state: State, pack: Pack, places: list[int]) -> dict[str, Array]:
    """What the arms rank by, of the candidate rows; without the model's scores where those are missing."""
    found = {name: np.array([pack.about[k][name] for k in places]) for name in TEXT_COLUMNS}
    scores = [state.content["scores"].get(pack.about[k]["id"]) for k in places]
    if all(scores):
        found |= {name: np.array([row[name] for row in scores]) for name in set(RANKED.values()) - set(found)}
    return found


@click.command(help=__doc__.splitlines()[0])
@click.option("--model", "model_folder", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--pack", "pack_file", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--classes", type=click.Path(path_type=Path), help="Of judge.py; default: classes.npz beside the pack.")
@click.option("--state", "state_file", type=click.Path(path_type=Path), required=True)
@click.option("--minutes", type=float, help="Start nothing that is expected to end later; default: no limit.")
@click.option("--device", default="cpu", show_default=True)
@click.option("--held-out-rows", type=int, help="Use the first N held-out rows; default: all.")
@click.option(
    "--tokens", type=click.Path(path_type=Path),
    help="Folder, or one file *.zip, for the losses of all tokens: classes can be made later.",
)  # fmt: skip
@click.option("--random-first", is_flag=True, help="Train the random arms and double budgets before rows are scored.")
@click.option("--only", multiple=True, help="Train the students of this arm alone; may be repeated.")
@click.option("--seeds", default=8, show_default=True, help="Seeds, and random selections, of an arm at most.")
def main(
    model_folder: Path,
    pack_file: Path,
    classes: Path | None,
    state_file: Path,
    minutes: float | None,
    device: str,
    held_out_rows: int | None,
    tokens: Path | None,
    random_first: bool,
    only: tuple[str, ...],
    seeds: int,
) -> None:
    started = time.monotonic()
    until = started + 60 * minutes if minutes is not None else float("inf")
    pack = Pack.read(pack_file, classes or pack_file.with_name("classes.npz"), held_out_rows=held_out_rows)
    if not pack.classes.any() and tokens is None:
        sys.exit("no held-out row has its classes; run scripts/experiment/judge.py first, or give --tokens")
    identity = {
        "pack": pack.digest,
        "classes": pack.classes_digest,
        "held-out rows": len(pack.held_out),
        **model_identity(model_folder),
        "rope base": ROPE_BASE,
        "learning rate": LEARNING_RATE,
        "rows a step": ROWS_A_STEP,
    }
    state_file.parent.mkdir(parents=True, exist_ok=True)
    state = State(state_file, identity)
    name = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    unigram = pool_unigram(pack)
    with tempfile.TemporaryDirectory() as temporary:
        write_long_config(model_folder, Path(temporary), pack.ids.shape[1])
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
        students = Students(Path(temporary), device=device, dtype=dtype)
        rows_in_pool = len(pack.candidates("A"))
        seconds = time.monotonic() - started
        log(f"{rows_in_pool} rows in pool A, {len(pack.held_out)} held out; ready after {seconds:.0f} s")
        scored = cache(lambda pool: score_rows(state, pack, pack.candidates(pool), students, Path(temporary), until))
        if not random_first and not scored("A"):
            sys.exit(3)
        for job in jobs():
            wanted = (not only or job.arm in only) and max(job.seed, job.draw) < seeds
            if not wanted or job.name in state.content["students"]:
                continue
            expected = expected_seconds(state, job, name)
            if time.monotonic() + expected > until or (job.ranks and not scored(job.pool)):
                log("the time is up; the same command continues")
                sys.exit(3)
            places = pack.candidates(job.pool)
            domains = [pack.about[k]["domain"] for k in places]
            taken = rows_of(job, columns_for(state, pack, places), domains, pack.student_rows)
            rows = [places[k] for k in taken]
            with ThreadPoolExecutor(1) as beside:
                # On the CPU while the GPU trains.
                bigram = beside.submit(bigram_losses, pack, rows, unigram)
                result = train_student(job, pack, rows, students, tokens)
                state.content["students"][job.name] = {"device": name, "bigram": bigram.result()} | result
            state.save()
            log(f"{time.monotonic() - started:6.0f} s  {job.name}  {result['seconds']}")
    print(json.dumps({"students": len(state.content["students"]), "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    main()
