"""A run folder -> how far it is, whether it is sound; its failed rows taken back, or all of it removed. No torch."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ladm.engines.shard import units_held
from ladm.errors import LadmError
from ladm.lines import encode_line, read_lines
from ladm.results import ERRORS_FILE, PARQUET_FILE, SORTED_FILE, is_finished, read_scores
from ladm.rows import open_rows
from ladm.runs import IDENTITY_FILE, Run, Unit
from ladm.storage import naming, sync_folder, write_whole

RATE_OVER_UNITS = 64
_ERROR_TYPE = re.compile(rb'"status":"error".*?"error_type":"(\w+)"')
_OWN = re.compile(
    r"units|run\.json|\.lock(-finishing)?|\.holder|\.sorting.*|(run\.json\.\d+|[a-z_]+\.(jsonl|parquet))\.partial"
)
_OWN_UNITS = re.compile(r"\d{6,}\.(jsonl|open(-\d+)?|claim-\d+(\.\d+\.partial)?)")


@dataclass
class Status:
    """How far a run is. `rows_a_second` is over the units sealed last, None before the second of them."""

    finished: bool
    units: int
    sealed: int
    rows: int
    done: int
    errors: Counter[str] = field(default_factory=Counter)
    rows_a_second: float | None = None
    held: dict[int, str] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """At the rate of late, None where there is none."""
        return None if not self.rows_a_second else (self.rows - self.done) / self.rows_a_second


def status(run: Run) -> Status:
    """Read how far a run is, without a lock; a run that is being worked on may be further by the time it is told."""
    waiting = {unit.number for unit in run.unsealed()}
    found = Status(
        finished=is_finished(run),
        units=len(run.units),
        sealed=len(run.units) - len(waiting),
        rows=run.num_rows,
        done=0,
        held=units_held(run),
    )
    if found.finished and waiting:
        # A rescored run has results and no units.
        found.sealed, found.done = found.units, run.num_rows
        with (run.folder / ERRORS_FILE).open("rb") as lines:
            found.errors.update(json.loads(line)["error_type"] for line in lines)
        return found
    sealed_at: list[tuple[float, int]] = []
    for unit in run.units:
        path = run.sealed_path(unit)
        if unit.number in waiting:
            found.done += _count_open(run, unit, found.errors)
        else:
            with contextlib.suppress(FileNotFoundError):
                found.done += unit.stop - unit.start
                sealed_at.append((path.stat().st_mtime, unit.stop - unit.start))
                found.errors.update(kind.decode() for kind in _ERROR_TYPE.findall(path.read_bytes()))
    found.rows_a_second = _rate(sorted(sealed_at)[-RATE_OVER_UNITS:])
    return found


def _count_open(run: Run, unit: Unit, errors: Counter[str]) -> int:
    """Whole lines of an unfinished unit: those of the holder who is furthest."""
    best = b""
    for path in (run.folder / "units").glob(f"{unit.number:06d}.open*"):
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            best = max(best, content[: content.rfind(b"\n") + 1], key=len)
    errors.update(kind.decode() for kind in _ERROR_TYPE.findall(best))
    return best.count(b"\n")


def _rate(sealed_at: list[tuple[float, int]]) -> float | None:
    """Rows a second between the first of these units and the last."""
    if len(sealed_at) < 2 or sealed_at[-1][0] <= sealed_at[0][0]:
        return None
    return sum(rows for _, rows in sealed_at[1:]) / (sealed_at[-1][0] - sealed_at[0][0])


def verify(run: Run, *, deep: bool) -> Iterator[str]:
    """What is wrong with a run, a line each; nothing when all is well.

    Checksums of every sealed unit, that every row is there once, that the result files agree with the
    units and with each other; `deep`: that model and rows are still those of the identity.
    """
    waiting = {unit.number for unit in run.unsealed()}
    rescored = "rescored_from" in run.identity.get("about", {})
    positions: dict[int, float] = {}
    failed = 0
    for unit in run.units if not rescored else ():
        if unit.number in waiting:
            continue
        try:
            records = run.read_sealed(unit)
        except LadmError as error:
            yield str(error)
            continue
        positions |= {record["position"]: record["score"] for record in records if record["status"] == "ok"}
        failed += sum(record["status"] != "ok" for record in records)
    if waiting and not rescored:
        yield f"{run.folder} is not finished: {len(waiting)} of {len(run.units)} units are missing"
    elif not is_finished(run):
        yield f"{run.folder} is not finished: its result files are not there; run its ladm score again"
    else:
        yield from _verify_results(run, None if rescored else (positions, failed))
    if deep:
        yield from _verify_identity(run)


def _verify_results(run: Run, expected: tuple[dict[int, float], int] | None) -> Iterator[str]:
    """Do the result files hold the rows of the units, and the same ones?"""
    try:
        table = read_scores(run.folder, ["position", "index", "score"])
    except LadmError as error:
        yield str(error)
        return
    scores = dict(zip(table["position"].to_pylist(), table["score"].to_pylist(), strict=True))
    listed = table["score"].to_pylist()
    if listed != sorted(listed, reverse=True):
        yield f"{run.folder / PARQUET_FILE} is not in order"
    if len(scores) != table.num_rows:
        yield f"{run.folder / PARQUET_FILE} has a row twice"
    errors = (run.folder / ERRORS_FILE).read_bytes().count(b"\n")
    if len(scores) + errors != run.num_rows:
        yield f"{run.folder}: {len(scores)} scores and {errors} errors are not {run.num_rows} rows"
    if expected is not None and (scores, errors) != expected:
        yield f"{run.folder}: the result files are not those of the units; remove them, and run its ladm score again"
    with (run.folder / SORTED_FILE).open("rb") as lines:
        in_lines = [(line["index"], line["score"]) for line in map(json.loads, lines)]
    if in_lines != list(zip(table["index"].to_pylist(), listed, strict=True)):
        yield f"{run.folder / SORTED_FILE} and {PARQUET_FILE} have different scores"


def _verify_identity(run: Run) -> Iterator[str]:
    from ladm.models import model_facts, model_identity

    about = run.identity["about"]
    try:
        if model_identity(model_facts(about["model"]).folder) != run.identity["model"]["sha256"]:
            yield f"the model {about['model']} is no longer the one that scored"
    except LadmError as error:
        yield f"the model cannot be compared: {error}"
    try:
        if open_rows(about["rows"], limit=run.num_rows).identity() != run.identity["data"]:
            yield f"the rows {about['rows']} are no longer those that were scored"
    except LadmError as error:
        yield f"the rows cannot be compared: {error}"


def forget_errors(run: Run) -> int:
    """Take back every row without a score, so that it is tried again; returns how many there were.

    Only for who holds the folder. Killed at any moment it leaves the run resumable.
    """
    taken = 0
    unsealed = {unit.number for unit in run.unsealed()}
    for unit in run.units:
        path = run.open_path(unit) if unit.number in unsealed else run.sealed_path(unit)
        if not path.exists():
            continue
        records, _ = read_lines(path, start=unit.start, stop=unit.stop)
        kept = [record for record in records if record["status"] == "ok"]
        if len(kept) == len(records):
            continue
        taken += len(records) - len(kept)
        _remove(run.folder, SORTED_FILE, PARQUET_FILE, ERRORS_FILE)
        write_whole(run.open_path(unit), [encode_line(record) for record in kept])
        if unit.number not in unsealed:
            with naming(path, "remove"):
                path.unlink()
                sync_folder(path.parent)
    return taken


def delete_run(folder: Path) -> None:
    """Remove a run: the files that a run is made of, and nothing else.

    Raises LadmError where there is no run, or where its folder holds something else besides.
    """
    Run.read(folder)
    results = {SORTED_FILE, PARQUET_FILE, ERRORS_FILE}
    others = [p.name for p in folder.iterdir() if p.name not in results and not _OWN.fullmatch(p.name)]
    others += [f"units/{p.name}" for p in (folder / "units").glob("*") if not _OWN_UNITS.fullmatch(p.name)]
    if others:
        raise LadmError(
            f"{folder} holds more than a run ({sorted(others)[0]}); move that away, or give another --output"
        )
    # The results first and the identity last: stopped anywhere in between it is still a run.
    _remove(folder, *results)
    with naming(folder, "remove from"):
        for path in [*(folder / "units").glob("*"), *folder.glob("*.partial")]:
            path.unlink(missing_ok=True)
        for left in folder.glob(".sorting*"):
            shutil.rmtree(left)
    _remove(folder, IDENTITY_FILE)


def _remove(folder: Path, *names: str) -> None:
    with naming(folder, "remove from"):
        for name in names:
            (folder / name).unlink(missing_ok=True)
        sync_folder(folder)


def describe(found: Status) -> dict[str, Any]:
    """The status as JSON."""
    return {
        "finished": found.finished, "units": found.units, "sealed": found.sealed, "rows": found.rows,
        "done": found.done, "errors": dict(found.errors), "rows_a_second": found.rows_a_second,
        "seconds_left": found.seconds_left, "held": found.held,
    }  # fmt: skip
